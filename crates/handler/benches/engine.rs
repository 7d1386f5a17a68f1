// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the engine costs, from a decoded item to encoded packets: `cargo bench -p pushpin-handler`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

#[path = "../tests/crowd/mod.rs"]
mod crowd;

use crowd::{Crowd, answer, content};

fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish to streams");
    for streams in [1_000, 10_000] {
        let mut crowd = Crowd::new();
        for _ in 0..streams {
            crowd.hold("stream", "news");
        }
        group.throughput(Throughput::Elements(streams));
        let item = content("news");
        group.bench_function(streams.to_string(), |bench| bench.iter(|| crowd.publish(black_box(item.clone()))));
    }
}

/// Must not depend on the number of channels.
fn nobody_listens(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish to nobody among channels");
    for channels in [10, 100_000] {
        let mut crowd = Crowd::new();
        for i in 0..channels {
            crowd.hold("stream", &format!("channel-{i}"));
        }
        let item = content("other");
        group.bench_function(channels.to_string(), |bench| bench.iter(|| crowd.publish(black_box(item.clone()))));
    }
}

fn long_poll(criterion: &mut Criterion) {
    let mut crowd = Crowd::new();
    let item = answer("news");
    criterion.bench_function("hold and answer a long-poll", |bench| {
        bench.iter(|| {
            crowd.hold("response", "news");
            crowd.publish(black_box(item.clone()));
            // Lets the timer wheel forget the hold.
            crowd.now += std::time::Duration::from_millis(50);
            crowd.on_timer();
        });
    });
}

fn come_and_go(criterion: &mut Criterion) {
    criterion.bench_function("hold and release 1000 streams", |bench| {
        bench.iter_batched(
            Crowd::new,
            |mut crowd| {
                let ids: Vec<_> = (0..1000).map(|_| crowd.hold("stream", "news")).collect();
                ids.into_iter().for_each(|id| crowd.leave(id));
                crowd
            },
            BatchSize::LargeInput,
        );
    });
}

criterion_group!(all, fan_out, nobody_listens, long_poll, come_and_go);
criterion_main!(all);
