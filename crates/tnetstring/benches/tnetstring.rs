// SPDX-License-Identifier: AGPL-3.0-or-later
//! Decoding and encoding of a request packet of about 800 bytes, as it comes from the frontend.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tnetstring::{Value, Writer, from_slice, split};

const HEADERS: [(&[u8], &[u8]); 10] = [
    (b"Host", b"example.com:8080"),
    (b"User-Agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    (b"Accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"Accept-Language", b"en-US,en;q=0.5"),
    (b"Accept-Encoding", b"gzip, deflate, br"),
    (b"Content-Type", b"application/json"),
    (b"Content-Length", b"100"),
    (b"Cookie", b"session=0123456789abcdef0123456789abcdef"),
    (b"Origin", b"https://example.com"),
    (b"Connection", b"keep-alive"),
];

fn encode(writer: &mut Writer) {
    writer.clear();
    let map = writer.mark();
    writer.int(47746);
    writer.bytes(b"peer-port");
    writer.bytes(b"127.0.0.1");
    writer.bytes(b"peer-address");
    writer.bool(true);
    writer.bytes(b"stream");
    writer.int(8192);
    writer.bytes(b"credits");
    writer.bytes(&[b'x'; 100]);
    writer.bytes(b"body");
    let list = writer.mark();
    for (name, value) in HEADERS.iter().rev() {
        let pair = writer.mark();
        writer.bytes(value);
        writer.bytes(name);
        writer.list(pair);
    }
    writer.list(list);
    writer.bytes(b"headers");
    writer.bytes(b"http://example.com:8080/a/path?with=query");
    writer.bytes(b"uri");
    writer.bytes(b"POST");
    writer.bytes(b"method");
    let ext = writer.mark();
    writer.bool(true);
    writer.bytes(b"multi");
    writer.map(ext);
    writer.bytes(b"ext");
    writer.int(0);
    writer.bytes(b"seq");
    writer.bytes(b"0-12-345");
    writer.bytes(b"id");
    writer.bytes(b"frontend_1234_89abcdef");
    writer.bytes(b"from");
    writer.map(map);
    writer.raw(b"T");
}

fn walk(packet: &[u8], headers: bool) -> usize {
    let mut sum = 0;
    for entry in split(&packet[1..]).unwrap().0.entries().unwrap() {
        let (key, value) = entry.unwrap();
        sum += key.len() + value.payload.len();
        if headers && key == b"headers" {
            for pair in value.items().unwrap() {
                for part in pair.unwrap().items().unwrap() {
                    sum += part.unwrap().as_bytes().unwrap().len();
                }
            }
        }
    }
    sum
}

fn benches(criterion: &mut Criterion) {
    let mut writer = Writer::new(1024);
    encode(&mut writer);
    let packet = writer.clone().finish();
    criterion.bench_function("decode, headers left alone", |bench| bench.iter(|| walk(black_box(&packet), false)));
    criterion.bench_function("decode, headers walked", |bench| bench.iter(|| walk(black_box(&packet), true)));
    criterion.bench_function("decode into a tree", |bench| {
        bench.iter(|| from_slice::<Value>(black_box(&packet[1..])).unwrap());
    });
    criterion.bench_function("encode", |bench| {
        bench.iter(|| {
            encode(black_box(&mut writer));
            writer.len()
        });
    });
}

criterion_group!(all, benches);
criterion_main!(all);
