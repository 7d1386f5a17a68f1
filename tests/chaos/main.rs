// SPDX-License-Identifier: AGPL-3.0-or-later
//! Numbered messages reach all clients, each once and in order, while processes are killed, stopped, ended and replaced at random.
//!
//! All clients are in one loop, so that there may be thousands: streams, long-polls, WebSockets over HTTP, whose backend counts what it
//! is told, and WebSockets whose backend speaks WebSocket itself. Messages come over HTTP, each repeated until it is acknowledged, and
//! over ZeroMQ PUSH and PUB. Handler, proxy and outbound are killed, ended by TERM or stopped, and frontends replaced; what
//! clients may notice of it is in [`limits`].
//!
//! `CHAOS_SEED` decides what happens when. The steps of a seed are always the same, but not what the system does in between, so
//! a seed that has failed is to be run more than once. [`load::Load`] says what else can be chosen.
#![allow(missing_docs)]

mod backend;
mod client;
mod crowd;
mod frames;
mod hearing;
mod http;
mod limits;
mod load;
mod memory;
mod news;
mod pushpin;
mod recovery;
mod report;
mod site;
mod socket;
mod sum;
mod told;
mod trouble;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pushpin_tests::{client as http_client, until};

use crate::backend::Backend;
use crate::client::{Client, Kind};
use crate::crowd::{Crowd, Presence};
use crate::load::Load;
use crate::memory::Memory;
use crate::news::{News, To};
use crate::report::Report;
use crate::site::Site;
use crate::told::Told;
use crate::trouble::{History, Trouble};

/// How long clients have at the end to hear the last message.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
#[ignore = "takes long; a step of its own in .ci/run"]
fn nothing_is_lost_whatever_dies() {
    let load = Load::chosen();
    println!("{load}");
    process::raise_file_limit();
    let begin = Instant::now();
    let (news, told) = (Arc::new(News::default()), Arc::new(Told::default()));
    let backend = Backend::new(news.clone(), told.clone());
    let routes =
        format!("*,path_beg=/over 127.0.0.1:{0},over_http\n*,path_beg=/test test\n* 127.0.0.1:{0}", backend.port);
    let site = Arc::new(match &load.pushpin {
        Some(program) => Site::of_pushpin(program, &routes),
        None => Site::start(&routes, load.programs.as_deref()),
    });
    let ports = site.ports();

    let kinds = load.kinds();
    let clients = kinds.iter().enumerate();
    let clients = clients.map(|(index, kind)| Client::new(*kind, index, load.stay, news.clone(), begin)).collect();
    let crowd = Crowd::new(ports.clients, clients);
    let presence = Presence::default();
    // Clients may not notice its end, so it is later than theirs.
    let backend_is_over = AtomicBool::new(false);
    let history = Mutex::new(History::default());
    let (mut growth, mut accidents) = (Vec::new(), Vec::new());
    let clients = thread::scope(|scope| {
        // Threads of a scope end before a panic goes on.
        let _stop = StopsAtEnd { news: &news, site: &site, backend: &backend_is_over };
        scope.spawn(|| site.keep());
        scope.spawn(|| backend.run(|| backend_is_over.load(Ordering::SeqCst)));
        let crowd = scope.spawn(|| crowd.run(&presence, || news.is_stopped()));
        until("all clients are there", || presence.open.load(Ordering::SeqCst) == kinds.len());
        for to in [To::Held, To::Pushed, To::Subscribed] {
            until("all are subscribed", || are_subscribed(&site, to, &kinds));
        }
        let publishers = [
            scope.spawn(|| news.publish(ports.publish, load.pace)),
            scope.spawn(|| news.send(To::Pushed, &connected(zmq::PUSH, ports.push), load.pace)),
            scope.spawn(|| {
                let publisher = connected(zmq::XPUB, ports.sub);
                publisher.set_rcvtimeo(20_000).unwrap();
                // What is sent before it has subscribed is for nobody.
                let subscription = publisher.recv_bytes(0).unwrap();
                assert_eq!(subscription, b"\x01b");
                news.send(To::Subscribed, &publisher, load.pace);
            }),
        ];
        let trouble = scope.spawn(|| {
            let mut memory = Memory::default();
            let mut trouble = Trouble::new(&load, &site, &news, &presence, begin);
            let chaos = Instant::now();
            while chaos.elapsed() < load.time {
                let next = trouble.next();
                history.lock().unwrap().events.extend(next);
                let recovered = trouble.recover();
                history.lock().unwrap().recoveries.extend(recovered);
                memory.look(&site);
            }
            memory
        });
        match trouble.join() {
            Ok(memory) => growth = memory.lines(),
            Err(panic) => accidents.push(panic),
        }
        news.end();
        let end = Instant::now();
        while presence.satisfied.load(Ordering::SeqCst) < kinds.len() && end.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
        }
        news.stop();
        accidents.extend(publishers.into_iter().filter_map(|publisher| publisher.join().err()));
        crowd.join().unwrap()
    });
    let history = history.into_inner().unwrap();
    let report = Report { begin, news, history, clients, mistakes: told.mistakes() };
    println!("{report}{}", growth.join("\n"));
    site.logs().lines().filter(|line| line.contains("panicked")).for_each(|line| println!("{line}"));
    let mut failures = report.failures();
    failures.extend(accidents.iter().map(|_| "a part of this test has panicked, as is said above".to_string()));
    // What Pushpin does not promise is counted, and no failure.
    assert!(failures.is_empty() || load.pushpin.is_some(), "{load}\n{}", failures.join("\n"));
}

/// Ends all threads that publish or listen.
struct StopsAtEnd<'a> {
    news: &'a News,
    site: &'a Site,
    backend: &'a AtomicBool,
}

impl Drop for StopsAtEnd<'_> {
    fn drop(&mut self) {
        self.news.stop();
        self.site.end();
        self.backend.store(true, Ordering::SeqCst);
    }
}

/// Whether the handler knows of all clients that are to hear a channel. It may learn of a WebSocket's after the client has its 101.
fn are_subscribed(site: &Site, to: To, kinds: &[Kind]) -> bool {
    // Pushpin does not tell, and it is not measured against what it promises.
    if matches!(site, Site::Pushpin(_)) {
        return true;
    }
    let (websockets, streams): (Vec<&Kind>, Vec<&Kind>) =
        kinds.iter().filter(|kind| kind.hears().contains(&to)).partition(|kind| kind.is_websocket());
    let counts = format!("\"http-stream\":{},\"ws-message\":{}}}", streams.len(), websockets.len());
    let answer = http_client::get(site.ports().publish, &format!("/channels/{}", to.letter()));
    answer.is_ok_and(|answer| answer.text().contains(&counts))
}

fn connected(kind: zmq::SocketType, port: u16) -> zmq::Socket {
    let socket = zmq::Context::new().socket(kind).unwrap();
    socket.set_linger(0).unwrap();
    socket.connect(&format!("tcp://127.0.0.1:{port}")).unwrap();
    socket
}
