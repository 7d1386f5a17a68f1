// SPDX-License-Identifier: AGPL-3.0-or-later
//! How much processor time a request costs: `cargo test --release -p pushpin-outbound --test throughput -- --ignored --nocapture`.
#![allow(missing_docs)]

mod peer;

use std::io::{Read, Write};
use std::time::Instant;

use peer::{Outbound, Requester, backend};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n";
const AT_ONCE: usize = 32;
const REQUESTS: usize = 200_000;

/// User and system time of a process in us.
fn processor_time(pid: u32) -> (u64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<u64>().unwrap() * 10_000, fields[12].parse::<u64>().unwrap() * 10_000)
}

#[test]
#[ignore = "a measurement"]
fn processor_time_of_a_small_request() {
    let outbound = Outbound::start();
    let mut requester = Requester::connect(&outbound, "proxy_1");
    let uri = backend(|_, mut peer| {
        let mut buffer = [0; 4096];
        while peer.0.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {
            let _ = peer.0.write_all(ANSWER);
        }
    });
    let mut sent = 0;
    while sent < AT_ONCE {
        requester.get(&sent.to_string(), &uri);
        sent += 1;
    }
    let (user, system) = processor_time(outbound.process.id());
    let start = Instant::now();
    for done in 0..REQUESTS {
        assert_eq!(requester.response(&done.to_string()).0, 200);
        if sent < REQUESTS {
            requester.get(&sent.to_string(), &uri);
            sent += 1;
        }
    }
    let took = start.elapsed();
    let (user_after, system_after) = processor_time(outbound.process.id());
    println!(
        "{:.0} requests/s; us a request: {:.2} user, {:.2} system",
        REQUESTS as f64 / took.as_secs_f64(),
        (user_after - user) as f64 / REQUESTS as f64,
        (system_after - system) as f64 / REQUESTS as f64,
    );
}
