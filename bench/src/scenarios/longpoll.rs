// SPDX-License-Identifier: AGPL-3.0-or-later
//! Long-polling clients that are released by publishes and poll again at once.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{json, Value};

use super::{cpu_per, measure, quantiles, rate, Measured, SuiteArgs};
use crate::message::{now_ns, Message};
use crate::publish::{Format, PublishArgs, Publisher};
use crate::requests::{Load, Requests};

#[derive(Args, Clone)]
pub struct LongpollArgs {
    #[command(flatten)]
    suite: SuiteArgs,
    #[command(flatten)]
    publish: PublishArgs,
    /// Polling clients, all on one channel
    #[arg(long, default_value_t = 500)]
    connections: usize,
    /// Bytes per message
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Milliseconds between publishes; each releases the clients held at that moment
    #[arg(long, default_value_t = 20.0)]
    interval: f64,
    /// Seconds to measure, after one second of warm-up
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
}

pub fn longpoll(args: &LongpollArgs) -> io::Result<Value> {
    let load = Load {
        target: args.suite.target,
        path: "/response?channel=c0".into(),
        connections: args.connections,
        threads: args.suite.threads,
        messages: true,
        echo: None,
    };
    let requests = Requests::start(&load);
    let mut publisher = Publisher::connect(&args.publish)?;
    let mut number = 0;
    publish_for(args, &mut publisher, 1.0, &mut number)?;
    let published = number;
    let Measured { tally, seconds, count, reading } =
        measure(requests, &args.suite, || publish_for(args, &mut publisher, args.seconds, &mut number))?;
    Ok(json!({
        "connections": args.connections, "size": args.size,
        "published": number - published,
        "responses": tally.responses,
        "responses_per_s": rate(tally.responses, seconds),
        "latency_us": quantiles(&tally.latency),
        "cpu_s_per_1k_responses": cpu_per(reading.suite_cpu, 1e3, count),
        "bad": tally.bad,
        "reconnects": tally.reconnects,
        "first_error": tally.first_error,
        "use": reading.json,
    }))
}

fn publish_for(args: &LongpollArgs, publisher: &mut Publisher, seconds: f64, number: &mut u32) -> io::Result<()> {
    let start = Instant::now();
    let interval = args.interval.max(0.1) / 1e3;
    let count = (seconds / interval) as u32;
    let mut bytes = Vec::new();
    for i in 1..=count {
        bytes.clear();
        Message { warm_up: false, seq: *number, sent_ns: now_ns() }.write(args.size, &mut bytes);
        publisher.publish("c0", Format::Response, None, &bytes)?;
        *number += 1;
        let due = Duration::from_secs_f64(interval * i as f64);
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
    Ok(())
}
