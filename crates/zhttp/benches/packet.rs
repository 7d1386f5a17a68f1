// SPDX-License-Identifier: AGPL-3.0-or-later
//! Packets, from bytes and to bytes: `cargo bench -p zhttp`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tnetstring::Writer;
use zhttp::{Ext, Headers, Id, Ids, Kind, Packet};

const HEADERS: &[(&[u8], &[u8])] = &[
    (b"Host", b"www.example.com"),
    (b"User-Agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    (b"Accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"Accept-Language", b"en-US,en;q=0.5"),
    (b"Accept-Encoding", b"gzip, deflate, br"),
    (b"Cookie", b"session=0123456789abcdef0123456789abcdef; theme=dark"),
    (b"X-Forwarded-For", b"192.0.2.7"),
];

fn request() -> Packet<'static> {
    Packet {
        from: b"frontend_1234_0123abcd",
        ids: Ids::One(b"1f-2a3b", Some(0)),
        ext: Ext::MULTI,
        method: Some(b"GET"),
        uri: Some(b"http://www.example.com/path/to/something?with=query"),
        headers: Headers::Pairs(HEADERS),
        credits: Some(65_536),
        stream: true,
        peer_address: Some(b"192.0.2.7"),
        peer_port: Some(54_321),
        ..Packet::default()
    }
}

fn measure(criterion: &mut Criterion, name: &str, packet: &Packet<'_>) {
    let mut writer = Writer::new(16_384);
    let bytes = packet.encode(None, &mut writer).to_vec();
    criterion.bench_function(&format!("encode {name}"), |bench| {
        bench.iter(|| black_box(packet).encode(Some(b"frontend_1234_0123abcd"), &mut writer).len());
    });
    // With the ids, which whoever receives it reads.
    criterion.bench_function(&format!("decode {name}"), |bench| {
        bench.iter(|| {
            let packet = Packet::decode(black_box(&bytes)).unwrap();
            packet
                .ids
                .iter()
                .filter_map(Result::ok)
                .map(|(id, seq)| id.len() + seq.unwrap_or(0) as usize)
                .sum::<usize>()
        });
    });
}

fn benches(criterion: &mut Criterion) {
    measure(criterion, "a request", &request());
    let ids: Vec<(Id, u32)> = (0..128).map(|i| (Id::indexed(i, u64::from(i) + 1000), i + 5)).collect();
    let ids: Vec<(&[u8], u32)> = ids.iter().map(|(id, seq)| (id.as_bytes(), *seq)).collect();
    let from = b"handler_1234_0123abcd";
    let data = Packet { from, ids: Ids::Many(&ids), body: &[b'x'; 100], more: true, ..Packet::default() };
    measure(criterion, "data for 128 sessions", &data);
    let kind = Kind::Credit;
    let credit = Packet { from, ids: Ids::One(b"1f-2a3b", Some(7)), kind, credits: Some(4096), ..Packet::default() };
    measure(criterion, "a credit", &credit);
}

criterion_group!(all, benches);
criterion_main!(all);
