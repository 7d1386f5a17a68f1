// SPDX-License-Identifier: AGPL-3.0-or-later
//! The statistics socket, for listeners who come late and with numbers of connections in the place of each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pushpin_tests::client::Client;
use pushpin_tests::origin::{Origin, respond};
use pushpin_tests::suite::Suite;
use rpc::stats::{ConnKind, Packet};

const PATIENCE: Duration = Duration::from_secs(60);

fn origin() -> Origin {
    Origin::start(|request, stream| match request.target.as_str() {
        "/stream" => respond(stream, "200 OK", "Grip-Hold: stream\r\nGrip-Channel: s\r\n", b"begin"),
        "/poll" => respond(stream, "200 OK", "Grip-Hold: response\r\nGrip-Channel: r\r\n", b""),
        _ => {
            let headers = "Content-Type: application/websocket-events\r\n";
            respond(stream, "200 OK", headers, if request.body.starts_with(b"OPEN") { b"OPEN\r\n" } else { b"" })
        }
    })
}

fn get(suite: &Suite, target: &str) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    client.get(target).unwrap();
    client
}

/// A stream that has begun.
fn stream(suite: &Suite) -> Client {
    let mut client = get(suite, "/stream");
    client.head().unwrap();
    client
}

fn web_socket(suite: &Suite) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    let request = "GET /ws HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.send(request.as_bytes()).unwrap();
    assert_eq!(client.head().unwrap().status, 101);
    client
}

struct Listener(zmq::Socket);

impl Listener {
    fn new(suite: &Suite) -> Self {
        let socket = zmq::Context::new().socket(zmq::SUB).unwrap();
        socket.set_linger(0).unwrap();
        socket.set_subscribe(b"").unwrap();
        socket.connect(&format!("ipc://{}/run/pushpin-stats", suite.path("").display())).unwrap();
        Listener(socket)
    }

    /// Takes in packets until these are enough.
    fn until(&self, what: &str, mut is_enough: impl FnMut(Packet<'_>) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis() as i32;
            self.0.set_rcvtimeo(left).unwrap();
            let packet = self.0.recv_bytes(0).unwrap_or_else(|error| panic!("waited in vain until {what}: {error}"));
            if is_enough(Packet::decode(&packet).unwrap()) {
                return;
            }
        }
    }
}

fn suite(origin: &Origin, settings: &str) -> Suite {
    let routes = format!("*,id=http 127.0.0.1:{0}\n*,path_beg=/ws,id=ws 127.0.0.1:{0},over_http", origin.port);
    let settings = format!("stats_report_interval=1\n[global]\n{settings}");
    let mut suite = Suite::prepare(&routes, &settings);
    suite.launch();
    suite
}

#[test]
fn who_listens_late_is_told_of_connections_and_subscriptions_that_are_there() {
    let origin = origin();
    let suite = suite(&origin, "stats_connection_ttl=4\n");
    let _clients = [stream(&suite), stream(&suite), get(&suite, "/poll"), web_socket(&suite)];
    (0..4).for_each(|_| drop(origin.request()));
    let (mut connections, mut subscriptions) = (BTreeMap::new(), BTreeMap::new());
    Listener::new(&suite).until("all are named", |packet| {
        match packet {
            Packet::Conn(conn) if conn.unavailable => drop(connections.remove(&*conn.id)),
            Packet::Conn(conn) => drop(connections.insert(conn.id.into_owned(), conn.kind)),
            Packet::Sub(sub) => drop(subscriptions.insert(sub.channel.into_owned(), sub.mode.into_owned())),
            _ => {}
        }
        let of_kind = |kind| connections.values().filter(|known| **known == Some(kind)).count();
        of_kind(ConnKind::Http) == 3 && of_kind(ConnKind::Ws) == 1 && subscriptions.len() == 2
    });
    assert_eq!((&*subscriptions["s"], &*subscriptions["r"]), ("stream", "response"));
}

#[test]
fn reports_have_numbers_of_connections_when_each_is_not_told() {
    let origin = origin();
    let suite = suite(&origin, "stats_connection_send=false\n[proxy]\nstats_connections_max_ttl=2\n");
    let before = [stream(&suite), web_socket(&suite)];
    let listener = Listener::new(&suite);
    let reach = |streams: u32, sockets: u32| {
        let mut last = BTreeMap::new();
        listener.until(&format!("there are {streams} and {sockets}"), |packet| {
            match packet {
                Packet::Conn(conn) => panic!("{conn:?}"),
                Packet::Report(report) => {
                    last.insert(report.route.unwrap_or_default().into_owned(), report.connections);
                }
                _ => {}
            }
            let now = |route: &str| last.get(route).copied().unwrap_or(0);
            // Those that are held count without a route.
            (now(""), now("ws")) == (streams, sockets)
        });
    };
    reach(1, 1);
    let more = [stream(&suite), stream(&suite), web_socket(&suite)];
    reach(3, 2);
    drop(more);
    reach(1, 1);
    drop(before);
}
