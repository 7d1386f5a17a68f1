// SPDX-License-Identifier: AGPL-3.0-or-later
//! Numbered messages reach all clients, each once and in order, while processes are killed, stopped and ended at random.
//!
//! `CHAOS_SEED` decides what happens when, `CHAOS_SECONDS` for how long. The steps of a seed are always the same, but not what
//! the system does in between, so a seed that has failed is to be run more than once.
#![allow(missing_docs)]

mod clients;
mod news;
mod report;
mod trouble;

use std::env;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use pushpin_tests::suite::Suite;
use pushpin_tests::until;

use crate::clients::Ending;
use crate::news::News;
use crate::report::Report;
use crate::trouble::{Deaths, Trouble};

const STREAMS: usize = 200;
const POLLS: usize = 30;
const WEBSOCKETS: usize = 60;
/// Between two messages, when all is well.
const PACE: Duration = Duration::from_millis(40);

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().stack_size(256 * 1024).spawn(run).unwrap()
}

#[test]
#[ignore = "takes long; a step of its own in .ci/run"]
fn nothing_is_lost_whatever_dies() {
    let seed = number("CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let time = Duration::from_secs(number("CHAOS_SECONDS").unwrap_or(25));
    println!("CHAOS_SEED={seed} CHAOS_SECONDS={}", time.as_secs());

    let news = Arc::new(News::default());
    let origin = news::origin(news.clone());
    let origin = format!("127.0.0.1:{}", origin.port);
    let routes = format!("*,path_beg=/test test\n* {origin}");
    let settings = "id_cache_ttl=60\n[runner]\nrecover_wait=10\nfrontend_processes=2\n";
    let mut suite = Suite::prepare(&routes, settings);
    suite.launch();
    let suite = Arc::new(suite);
    let deaths = Arc::new(Deaths::default());

    let mut clients: Vec<JoinHandle<Ending>> = Vec::new();
    for index in 0..STREAMS + POLLS + WEBSOCKETS {
        let (port, news, deaths) = (suite.port, news.clone(), deaths.clone());
        clients.push(spawn(move || match index {
            _ if index < STREAMS && index % 2 == 0 => clients::stream(port, "/test/stream?channel=s", &news),
            _ if index < STREAMS => clients::stream(port, "/stream", &news),
            _ if index < STREAMS + POLLS => clients::polls(port, &news, &deaths),
            _ => clients::websockets(port, &news, &deaths),
        }));
    }
    until("all clients are held", || news.waiting() == STREAMS + POLLS + WEBSOCKETS);

    let publisher = {
        let (suite, news) = (suite.clone(), news.clone());
        spawn(move || news.publish(&suite, PACE))
    };
    let begin = Instant::now();
    let mut trouble = Trouble::new(seed, suite.clone(), deaths.clone());
    let mut events = Vec::new();
    while begin.elapsed() < time && !clients.iter().any(JoinHandle::is_finished) {
        events.extend(trouble.next());
    }
    news.end();
    let endings = clients.into_iter().map(|client| client.join().unwrap()).collect();
    news.stop();
    let published = publisher.join().unwrap();
    let report = Report { published, events, endings };
    println!("{report}");
    suite.logs().lines().filter(|line| line.contains("panicked")).for_each(|line| println!("{line}"));
    let failures = report.failures();
    assert!(failures.is_empty(), "CHAOS_SEED={seed}\n{}", failures.join("\n"));
}
