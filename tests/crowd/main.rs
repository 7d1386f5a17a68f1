// SPDX-License-Identifier: AGPL-3.0-or-later
//! Numbered messages reach all clients, each once and in order, while processes are killed, stopped, ended and replaced at random.
//!
//! As `tests/chaos`, which it is to take the place of, with all clients in one loop, so that there may be thousands, with frontends that
//! are replaced, with messages over ZeroMQ as well, and with WebSockets over HTTP whose backend counts what it is told. It is run by
//! hand until it is green in every run; `.ci/run chaos` runs the other one.
//!
//! `CHAOS_SEED` decides what happens when. The steps of a seed are always the same, but not what the system does in between, so
//! a seed that has failed is to be run more than once. [`load::Load`] says what else can be chosen.
#![allow(missing_docs)]

mod backend;
mod client;
mod crowd;
mod faults;
mod frames;
mod hearing;
mod http;
mod load;
mod news;
mod report;
mod socket;
mod told;
mod trouble;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use pushpin_tests::suite::Suite;
use pushpin_tests::{client as http_client, until};

use crate::backend::Backend;
use crate::client::{Client, Kind};
use crate::crowd::{Crowd, Presence};
use crate::faults::Faults;
use crate::load::Load;
use crate::news::{News, To};
use crate::report::Report;
use crate::told::Told;
use crate::trouble::Trouble;

/// A process that has died often is started again after five seconds, and may be killed at once.
const SETTINGS: &str = "id_cache_ttl=60\n[runner]\nrecover_wait=20\nfrontend_processes=2\n";
/// How long clients have at the end to hear the last message.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
#[ignore = "takes long; by hand: cargo test --workspace --test crowd -- --ignored --nocapture"]
fn nothing_is_lost_whatever_dies() {
    let load = Load::chosen();
    println!("{load}");
    process::raise_file_limit();
    let begin = Instant::now();
    let (news, told, faults) = (Arc::new(News::default()), Arc::new(Told::default()), Arc::new(Faults::default()));
    let backend = Backend::new(news.clone(), told.clone());
    let routes =
        format!("*,path_beg=/over 127.0.0.1:{0},over_http\n*,path_beg=/test test\n* 127.0.0.1:{0}", backend.port);
    let mut suite = Suite::prepare(&routes, SETTINGS);
    if let Some(programs) = &load.programs {
        suite.copy_programs(programs);
    }
    suite.launch();
    let suite = Arc::new(suite);

    let kinds = load.kinds();
    let clients = kinds.iter().enumerate();
    let clients = clients.map(|(index, kind)| Client::new(*kind, index, news.clone(), faults.clone(), begin)).collect();
    let crowd = Crowd::new(suite.port, clients);
    let presence = Presence::default();
    let mut events = Vec::new();
    let clients = thread::scope(|scope| {
        scope.spawn(|| backend.run(|| news.is_stopped()));
        let crowd = scope.spawn(|| crowd.run(&presence, || news.is_stopped()));
        until("all clients are there", || presence.open.load(Ordering::SeqCst) == kinds.len());
        for to in [To::Held, To::Pushed, To::Subscribed] {
            until("all are subscribed", || are_subscribed(&suite, to, &kinds));
        }
        scope.spawn(|| news.publish(suite.publish_port, load.pace));
        scope.spawn(|| news.send(To::Pushed, &connected(zmq::PUSH, suite.push_port), load.pace));
        scope.spawn(|| {
            let publisher = connected(zmq::XPUB, suite.sub_port);
            // What is sent before it has subscribed is for nobody.
            let subscription = publisher.recv_bytes(0).unwrap();
            assert_eq!(subscription, b"\x01b");
            news.send(To::Subscribed, &publisher, load.pace);
        });
        let chaos = Instant::now();
        let mut trouble = Trouble::new(load.seed, suite.clone(), faults.clone(), begin);
        while chaos.elapsed() < load.time {
            events.extend(trouble.next());
        }
        news.end();
        let end = Instant::now();
        while presence.satisfied.load(Ordering::SeqCst) < kinds.len() && end.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
        }
        news.stop();
        crowd.join().unwrap()
    });
    let report = Report { begin, news, events, clients, mistakes: told.mistakes() };
    println!("{report}");
    suite.logs().lines().filter(|line| line.contains("panicked")).for_each(|line| println!("{line}"));
    let failures = report.failures();
    assert!(failures.is_empty(), "{load}\n{}", failures.join("\n"));
}

/// Whether the handler knows of all clients that are to hear a channel. It may learn of a WebSocket's after the client has its 101.
fn are_subscribed(suite: &Suite, to: To, kinds: &[Kind]) -> bool {
    let (websockets, streams): (Vec<&Kind>, Vec<&Kind>) =
        kinds.iter().filter(|kind| kind.hears().contains(&to)).partition(|kind| kind.is_websocket());
    let counts = format!("\"http-stream\":{},\"ws-message\":{}}}", streams.len(), websockets.len());
    let answer = http_client::get(suite.publish_port, &format!("/channels/{}", to.letter()));
    answer.is_ok_and(|answer| answer.text().contains(&counts))
}

fn connected(kind: zmq::SocketType, port: u16) -> zmq::Socket {
    let socket = zmq::Context::new().socket(kind).unwrap();
    socket.set_linger(0).unwrap();
    socket.connect(&format!("tcp://127.0.0.1:{port}")).unwrap();
    socket
}
