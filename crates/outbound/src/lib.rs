// SPDX-License-Identifier: AGPL-3.0-or-later
//! `pushpin-outbound`: the HTTP client that talks to backends.
//!
//! Requests come in over ZHTTP from any proxy, are performed over HTTP/1.1, and their responses go back over ZHTTP, as
//! fast as the proxy has granted credits for them.
//!
//! # Layout
//! In the order in which a request meets them:
//! - `worker`: the loop that joins all others with sockets and clock.
//! - [`engine`]: what packets, connections and time lead to, without I/O; [`context`]: what carries that out.
//! - [`http1`]: a request and its response, without I/O.
//! - [`websocket`]: the frames of a connection that is one, without I/O.
//! - [`connect`]: from a URI to a connection.
//! - [`failure`]: what may go wrong on the way, and what that means for another attempt.

#![forbid(unsafe_code)]

pub mod connect;
pub mod context;
pub mod engine;
pub mod failure;
pub mod http1;
pub mod websocket;
mod worker;

use std::os::fd::AsRawFd;
use std::process::ExitCode;

use mio::unix::SourceFd;
use mio::{Interest, Token};
use process::{Component, Failure, Started, instance_id};
use transport::Event;

use crate::worker::Worker;

/// What `--help` says.
pub const COMPONENT: Component = Component {
    name: "pushpin-outbound",
    about: "HTTP client: performs the requests that pushpin-proxy sends to backends",
    help: "Binds the sockets outbound-in, outbound-in-stream and outbound-out in the run directory, to which the proxy \
           connects. Backends on this machine or in private networks are reached only if the proxy vouches for them, \
           which it does for targets of the routes file.\n\n\
           Example: pushpin-outbound --config=/etc/pushpin/pushpin.conf",
    routes: false,
    several: false,
};

/// Token of the signals' descriptor, above those of all connections.
const SIGNALS: usize = usize::MAX / 2;
/// Token of the descriptor that says when to tell the runner how we are.
const REPORT: usize = SIGNALS - 1;

/// Runs the program.
pub fn main() -> ExitCode {
    process::run(&COMPONENT, |_| Vec::new(), serve)
}

fn serve(mut started: Started) -> Result<(), Failure> {
    let mut worker = Worker::new(&instance_id("outbound"), &started.settings.outbound)?;
    let fd = started.signals.as_raw_fd();
    worker.registry().register(&mut SourceFd(&fd), Token(SIGNALS), Interest::READABLE)?;
    let mut reporter = started.ready.tell()?;
    if let Some(fd) = reporter.descriptor() {
        worker.registry().register(&mut SourceFd(&fd), Token(REPORT), Interest::READABLE)?;
    }
    let mut ready = Vec::new();
    let mut stop = false;
    while !stop {
        worker.turn(&mut ready)?;
        for event in &ready {
            match event {
                Event::Source { token: SIGNALS, .. } => stop = started.signals.attend(),
                Event::Source { token: REPORT, .. } => reporter.attend(|page| worker.measure(page)),
                _ => {}
            }
        }
    }
    tracing::info!("stopping...");
    worker.shut_down();
    Ok(())
}
