// SPDX-License-Identifier: AGPL-3.0-or-later
//! What an accepted request and a published item cost to read.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use grip::instruct::BackendResponse;
use grip::{Instruct, item};

fn instruct(c: &mut Criterion) {
    let headers: [(&[u8], &[u8]); 6] = [
        (b"Server", b"nginx"),
        (b"Date", b"Thu, 01 Jan 2026 00:00:00 GMT"),
        (b"Content-Type", b"text/event-stream"),
        (b"Grip-Hold", b"stream"),
        (b"Grip-Channel", b"room-1; prev-id=\"41\", room-2"),
        (b"Grip-Keep-Alive", br":\n\n; format=cstring; timeout=20"),
    ];
    let response = BackendResponse { code: 200, reason: b"OK", headers: &headers, body: b": open\n\n" };
    c.bench_function("instruct from headers", |b| b.iter(|| Instruct::read(black_box(response)).unwrap()));
}

fn items(c: &mut Criterion) {
    let tnet = b"T49:7:channel,3:zz3,11:http-stream,14:7:content,1:x,}}";
    let json = br#"J{"channel":"zz3","http-stream":{"content":"x"}}"#;
    c.bench_function("item from tnetstring", |b| b.iter(|| item::from_message(black_box(tnet), None).unwrap()));
    c.bench_function("item from json", |b| b.iter(|| item::from_message(black_box(json), None).unwrap()));
}

criterion_group!(benches, instruct, items);
criterion_main!(benches);
