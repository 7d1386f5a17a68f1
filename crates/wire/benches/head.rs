// SPDX-License-Identifier: AGPL-3.0-or-later
//! What reading and writing heads costs: `cargo bench -p wire`.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use wire::http1::*;

const REQUEST: &[u8] = b"GET /events?channel=room-17 HTTP/1.1\r\nHost: push.example.com:7999\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: text/event-stream\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\nReferer: https://www.example.com/room/17\r\nOrigin: https://www.example.com\r\nConnection: keep-alive\r\nCookie: session=0123456789abcdef0123456789abcdef\r\nCache-Control: no-cache\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Tue, 24 Nov 2026 00:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: 13\r\nConnection: keep-alive\r\n\r\n";

fn heads(c: &mut Criterion) {
    let limits = Limits::default();
    c.bench_function("parse request of a browser", |b| {
        b.iter(|| parse_request(black_box(REQUEST), &limits).unwrap().unwrap().1)
    });
    c.bench_function("parse response", |b| {
        b.iter(|| parse_response(black_box(RESPONSE), &limits, "GET").unwrap().unwrap().1)
    });
    let (request, _) = parse_request(REQUEST, &limits).unwrap().unwrap();
    let mut out = Vec::with_capacity(4096);
    c.bench_function("write request of a browser", |b| {
        b.iter(|| {
            out.clear();
            let fields = request.headers.iter().map(|field| (field.name.as_bytes(), field.value));
            write_request_head(&mut out, b"GET", b"/events", b"origin:80", black_box(fields), BodyFraming::None)
                .unwrap();
            out.len()
        })
    });
    let mut body = Vec::new();
    for _ in 0..8 {
        body.extend_from_slice(b"1000\r\n");
        body.resize(body.len() + 4096, b'x');
        body.extend_from_slice(CHUNK_SUFFIX);
    }
    body.extend_from_slice(LAST_CHUNK);
    c.bench_function("decode 8 chunks of 4096 bytes", |b| {
        b.iter(|| {
            let mut decoder = BodyDecoder::new(BodyFraming::Chunked);
            let mut rest = black_box(&body[..]);
            while !decoder.is_done() {
                let decoded = decoder.decode(rest, usize::MAX).unwrap();
                rest = &rest[decoded.consumed..];
            }
        })
    });
}

criterion_group!(benches, heads);
criterion_main!(benches);
