// SPDX-License-Identifier: AGPL-3.0-or-later
//! Several frontend processes on the same ports, and what is published to all of their clients.

use std::collections::BTreeMap;

use pushpin_tests::client::Client;
use pushpin_tests::suite::{Stopped, Suite};
use pushpin_tests::{publish, until};

fn start(settings: &str) -> Suite {
    let mut suite = Suite::prepare("* test", settings);
    suite.launch();
    suite
}

fn open_stream(suite: &Suite) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/stream?channel=s").unwrap();
    client.head().unwrap();
    client.expect("[stream opened]\n").unwrap();
    client
}

/// Streams by the process that serves them, so many at least in each of two processes.
fn open_streams(suite: &Suite, each: usize) -> BTreeMap<i32, Vec<Client>> {
    let mut streams: BTreeMap<i32, Vec<Client>> = BTreeMap::new();
    until("both frontends have clients", || {
        let client = open_stream(suite);
        streams.entry(suite.server_of("frontend", client.stream())).or_default().push(client);
        streams.len() == 2 && streams.values().all(|clients| clients.len() >= each)
    });
    streams
}

/// A message that says which one it is.
fn numbered(i: usize, len: usize) -> String {
    format!("{i:-<len$};")
}

/// Whether the client gets all the messages to the last of them in order; if not, its connection has ended.
fn gets_all(client: &mut Client, messages: std::ops::Range<usize>, len: usize) -> bool {
    let mut expected = messages.clone().map(|i| numbered(i, len)).collect::<String>().into_bytes();
    while !expected.is_empty() {
        match client.chunk() {
            Ok(chunk) if !chunk.is_empty() => {
                assert!(expected.starts_with(&chunk), "a message is missing, doubled or out of order");
                expected.drain(..chunk.len());
            }
            Ok(_) => return false,
            Err(error) => {
                let kind = error.kind();
                let waits = [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut];
                assert!(!waits.contains(&kind), "open, and {} of {messages:?} are missing", expected.len() / (len + 1));
                return false;
            }
        }
    }
    true
}

#[test]
fn clients_of_every_frontend_get_everything_in_order() {
    let suite = start("[runner]\nfrontend_processes=2");
    let mut streams = open_streams(&suite, 3);
    for i in 0..100 {
        publish::text(&suite, "s", &numbered(i, 500)).unwrap();
    }
    for client in streams.values_mut().flatten() {
        assert!(gets_all(client, 0..100, 500));
    }
}

#[test]
fn a_frontend_that_hangs_for_a_while_keeps_nobody_waiting_and_its_clients_miss_nothing() {
    let suite = start("[runner]\nfrontend_processes=2\n[handler]\nlink_timeout=60");
    let mut streams = open_streams(&suite, 3);
    let (sick, mut its) = streams.pop_first().unwrap();
    let stopped = Stopped::new(sick);
    // More than the kernel keeps for it.
    for i in 0..200 {
        publish::text(&suite, "s", &numbered(i, 5000)).unwrap();
    }
    for client in streams.values_mut().flatten() {
        assert!(gets_all(client, 0..200, 5000));
    }
    drop(stopped);
    for client in &mut its {
        assert!(gets_all(client, 0..200, 5000), "closed though it reads");
    }
    publish::text(&suite, "s", &numbered(200, 10)).unwrap();
    for client in its.iter_mut().chain(streams.values_mut().flatten()) {
        assert!(gets_all(client, 200..201, 10));
    }
}

#[test]
fn a_frontend_that_hangs_for_too_long_is_left_and_its_clients_are_told() {
    let suite = start("[runner]\nfrontend_processes=2\nclient_send_window=1048576\n[handler]\nlink_timeout=1");
    let mut streams = open_streams(&suite, 3);
    let (sick, its) = streams.pop_first().unwrap();
    let stopped = Stopped::new(sick);
    let mut count = 0;
    until("the frontend is left", || {
        publish::text(&suite, "s", &numbered(count, 5000)).unwrap();
        count += 1;
        suite.logs().contains("took nothing for too long")
    });
    publish::text(&suite, "s", &numbered(count, 5000)).unwrap();
    for client in streams.values_mut().flatten() {
        assert!(gets_all(client, 0..count + 1, 5000));
    }
    drop(stopped);
    for mut client in its {
        assert!(!gets_all(&mut client, 0..count + 1, 5000), "nothing can have been kept for it");
    }
    // It serves as before when it goes on.
    for _ in 0..20 {
        let mut client = open_stream(&suite);
        publish::text(&suite, "s", "on it goes").unwrap();
        client.expect("on it goes").unwrap();
    }
}
