// SPDX-License-Identifier: AGPL-3.0-or-later
//! Packets are read and written without the allocator, whatever they are.

use counting::allocations;
use tnetstring::{Item, Writer};
use zhttp::packet::Record;
use zhttp::{Ext, Headers, Id, Ids, Kind, Packet};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

fn again(bytes: &[u8], writer: &mut Writer) {
    let packet = Packet::decode(bytes).unwrap();
    assert_eq!(packet.ids.iter().filter(Result::is_err).count(), 0);
    assert_eq!(packet.headers.iter().filter(|(name, _)| name.is_empty()).count(), 0);
    assert_eq!(packet.encode(None, writer), bytes);
}

#[test]
fn packets_are_read_and_written_without_allocations() {
    let ids: Vec<(Id, u32)> = (0..128).map(|i| (Id::indexed(i, 7), i)).collect();
    let ids: Vec<(&[u8], u32)> = ids.iter().map(|(id, seq)| (id.as_bytes(), *seq)).collect();
    let headers: &[(&[u8], &[u8])] = &[(b"Host", b"example.com"), (b"Accept", b"*/*")];
    let packets = [
        Packet { from: b"h", ids: Ids::Many(&ids), body: &[b'x'; 1000], more: true, ..Packet::default() },
        Packet {
            from: b"f",
            ids: Ids::One(b"1-2", Some(0)),
            method: Some(b"GET"),
            uri: Some(b"http://example.com/"),
            headers: Headers::Pairs(headers),
            credits: Some(100),
            ..Packet::default()
        },
        Packet { ids: Ids::One(b"1-2", Some(1)), kind: Kind::Credit, credits: Some(10), ..Packet::default() },
        Packet {
            ids: Ids::One(b"1-2", Some(1)),
            ext: Ext { lane: 1, keep: Some(Record { owner: b"h0", content: b"plan" }), ..Ext::MULTI },
            user_data: Some(Item { kind: tnetstring::Kind::Int, payload: b"42" }),
            ..Packet::default()
        },
    ];
    for packet in packets {
        let mut writer = Writer::new(0);
        let bytes = packet.encode(None, &mut writer).to_vec();
        assert_eq!(allocations(|| again(&bytes, &mut writer)), 0, "{:?}", packet.kind);
    }
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![0u8; 10]))), 1);
}
