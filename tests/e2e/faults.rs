// SPDX-License-Identifier: AGPL-3.0-or-later
//! Processes that die.

use std::io;
use std::time::Duration;

use pushpin_tests::client::{Client, get};
use pushpin_tests::publish;
use pushpin_tests::suite::{Suite, is_alive};
use pushpin_tests::until;

/// Whether a new stream is held and receives.
fn delivers(suite: &Suite) -> io::Result<()> {
    let mut client = Client::connect(suite.port)?;
    // A process that died took requests with it; the next try is soon.
    client.stream().set_read_timeout(Some(Duration::from_secs(1)))?;
    client.get("/stream?channel=f")?;
    client.head()?;
    client.expect("[stream opened]\n")?;
    publish::text(suite, "f", "hello")?;
    client.expect("hello")
}

fn is_back_after_killing(part: &str) {
    let suite = Suite::start("* test");
    delivers(&suite).unwrap();
    let others = suite.children();
    let killed = suite.pid(part);
    suite.kill(part);
    until("the killed process is gone", || !is_alive(killed));
    until("requests, holds and publishes work again", || delivers(&suite).is_ok());
    assert_eq!(get(suite.port, "/").unwrap().head.status, 200);
    for (name, pid) in others.iter().filter(|(_, pid)| **pid != killed) {
        assert_eq!(suite.children().get(name), Some(pid), "{name} did not run on");
    }
}

#[test]
fn the_frontend_is_back_after_it_was_killed() {
    is_back_after_killing("frontend");
}

#[test]
fn the_proxy_is_back_after_it_was_killed() {
    is_back_after_killing("proxy");
}

#[test]
fn the_handler_is_back_after_it_was_killed() {
    is_back_after_killing("handler");
}

#[test]
fn the_outbound_process_is_back_after_it_was_killed() {
    is_back_after_killing("outbound");
}

#[test]
fn the_parts_end_when_the_runner_is_killed() {
    let suite = Suite::start("* test");
    let parts = suite.children();
    assert_eq!(parts.len(), 4, "{parts:?}");
    suite.signal(nix::sys::signal::Signal::SIGKILL);
    until("all parts have ended", || !parts.values().any(|pid| is_alive(*pid)));
}
