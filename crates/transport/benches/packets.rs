// SPDX-License-Identifier: AGPL-3.0-or-later
//! What it costs to carry packets from one socket to another, by our own I/O (`ipc`) and by libzmq's (`tcp`). Both ends
//! are in this thread, so that no scheduling is measured but that of libzmq's own threads.

use std::net::TcpListener;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use transport::{Context, Options, Pull, Push, Reactor};

const PACKET: [u8; 300] = [b'x'; 300];

struct Pair {
    reactor: Reactor,
    push: Push,
    pull: Pull,
    ready: Vec<transport::Event>,
}

impl Pair {
    fn new(spec: &str) -> Self {
        let context = Context::new();
        let pull = Pull::bind(&context, spec, &Options::default()).unwrap();
        let push = Push::connect(&context, &[spec], &Options::default()).unwrap();
        let mut reactor = Reactor::new().unwrap();
        reactor.add(0, &push).unwrap();
        reactor.add(1, &pull).unwrap();
        Pair { reactor, push, pull, ready: Vec::new() }
    }

    /// Carries a number of packets.
    fn carry(&mut self, count: usize) {
        for _ in 0..count {
            self.push.send(&PACKET).unwrap();
        }
        let mut left = count;
        while left > 0 {
            self.reactor.wait(Some(Duration::from_secs(1)), &mut self.ready).unwrap();
            while self.pull.recv().is_some() {
                left -= 1;
            }
        }
    }
}

fn carry(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap().port();
    let places = [("ipc", format!("ipc://{}/s", dir.path().display())), ("tcp", format!("tcp://127.0.0.1:{port}"))];
    for count in [1, 256] {
        let mut group = criterion.benchmark_group(format!("carry {count}"));
        group.throughput(Throughput::Elements(count as u64));
        for (name, spec) in &places {
            let mut pair = Pair::new(spec);
            group.bench_function(*name, |bencher| bencher.iter(|| pair.carry(count)));
        }
    }
}

criterion_group!(benches, carry);
criterion_main!(benches);
