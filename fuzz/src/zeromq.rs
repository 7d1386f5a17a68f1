// SPDX-License-Identifier: AGPL-3.0-or-later
//! What comes from other processes.

use tnetstring::Writer;
use zhttp::Packet;

/// A ZHTTP packet: what is understood means the same after it has been written and read again.
pub fn packet(data: &[u8]) {
    let Ok(packet) = Packet::decode(data) else { return };
    // Walks that are done later, by those who deal with the packet.
    let ids: Vec<_> = packet.ids.iter().collect();
    let headers: Vec<_> = packet.headers.iter().collect();
    let mut writer = Writer::new(64);
    let bytes = packet.encode(None, &mut writer).to_vec();
    let again = Packet::decode(&bytes).expect("what we write can be read");
    assert_eq!((again.kind, again.from, again.body, again.more), (packet.kind, packet.from, packet.body, packet.more));
    assert_eq!((again.code, again.credits, again.condition), (packet.code, packet.credits, packet.condition));
    assert_eq!((again.method, again.uri, again.reason), (packet.method, packet.uri, packet.reason));
    assert_eq!(again.ext, packet.ext);
    assert_eq!(again.ids.iter().collect::<Vec<_>>(), ids);
    assert_eq!(again.headers.iter().collect::<Vec<_>>(), headers);
}

/// A tnetstring: a checked value can be walked to its last leaf.
pub fn tnetstring(data: &[u8]) {
    let Ok((item, rest)) = tnetstring::split(data) else { return };
    assert!(rest.len() < data.len());
    let _ = tnetstring::Checked::new(item);
    let _ = tnetstring::from_slice::<tnetstring::Value>(data);
}

/// The bytes of a ZeroMQ peer: they mean the same however they come.
pub fn zmtp(data: &[u8]) {
    let Some((&piece, bytes)) = data.split_first() else { return };
    let whole = transport::explain_zmtp(bytes, usize::MAX);
    assert_eq!(transport::explain_zmtp(bytes, usize::from(piece)), whole);
}
