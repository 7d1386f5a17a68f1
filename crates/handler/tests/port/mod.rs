// SPDX-License-Identifier: AGPL-3.0-or-later
//! The HTTP control port, without a worker: the test takes what is submitted.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use handler::publish::http::authorization::Gate;
use handler::publish::http::connections::Bounds;
use handler::publish::http::health::Health;
use handler::publish::http::stream::Listener;
use handler::publish::http::{Entrance, Limits, start};
use handler::publish::submission::Submission;
use transport::Reactor;

pub const LONG: Duration = Duration::from_secs(20);

/// Limits that no test meets by chance.
pub fn limits() -> Limits {
    let bounds = Bounds { unfinished: 100, waiting: 10, bytes: 1_000_000 };
    Limits { head: 10_000, body: 1_000_000, head_time: LONG, body_time: LONG, idle_time: LONG, wait: LONG, bounds }
}

pub struct Port {
    address: SocketAddr,
    pub submissions: Receiver<Submission>,
    /// Its waker is the port's.
    _reactor: Reactor,
}

impl Port {
    pub fn behind(gate: Gate, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, submissions) = sync_channel(10);
        let reactor = Reactor::new().unwrap();
        listener.set_nonblocking(true).unwrap();
        let entrance = Entrance { listener: Listener::Tcp(listener), gate, tls: None };
        start(vec![entrance], sender, reactor.waker(), limits, Health::new(None)).unwrap();
        Port { address, submissions, _reactor: reactor }
    }

    /// A connection by which this has been sent.
    pub fn send(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    pub fn next(&self) -> Submission {
        self.submissions.recv_timeout(LONG).unwrap()
    }
}
