// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a WebSocket's client has sent that its backend has not taken yet, so that a successor of the proxy can be given it again.
//!
//! The proxy says how far the backend is (`ext.ack`). It grants no more than its window before that, so what is kept is bounded by
//! the window too, and by a number of packets, since some have no content.

use std::collections::VecDeque;

use zhttp::{Kind, Packet};

use crate::transplant::record::{SentRecord, UnreadRecord};

/// Bytes that are kept for one client. Proxies grant fewer.
const MAX_BYTES: usize = 512 * 1024;
/// Packets that are kept for one client; a proxy lets no more messages wait.
const MAX_PACKETS: usize = 20_000;

/// What packets of a client can be, as they are written down.
pub(crate) const KINDS: [Kind; 4] = [Kind::Data, Kind::Ping, Kind::Pong, Kind::Close];

/// One packet.
#[derive(Debug)]
struct Sent {
    /// Its number.
    seq: u32,
    kind: Kind,
    binary: bool,
    more: bool,
    code: Option<u16>,
    body: Box<[u8]>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Unread {
    packets: VecDeque<Sent>,
    bytes: usize,
    /// It was too much: nothing is kept any more.
    is_torn: bool,
}

impl Unread {
    /// A packet has been sent.
    pub fn add(&mut self, seq: u32, packet: &Packet<'_>) {
        if self.is_torn {
            return;
        }
        let Packet { kind, more, code, body, .. } = *packet;
        self.bytes += body.len();
        let binary = packet.content_type == Some(b"binary");
        self.packets.push_back(Sent { seq, kind, binary, more, code, body: body.into() });
        if self.bytes > MAX_BYTES || self.packets.len() > MAX_PACKETS {
            *self = Unread { is_torn: true, ..Unread::default() };
        }
    }

    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        !self.is_torn
    }

    /// Packets before this number have been taken.
    pub fn forget_before(&mut self, seq: u32) {
        while let Some(packet) = self.packets.front().filter(|packet| packet.seq < seq) {
            self.bytes -= packet.body.len();
            self.packets.pop_front();
        }
        if self.packets.is_empty() && self.packets.capacity() > 16 {
            self.packets = VecDeque::new();
        }
    }

    /// How many packets there are.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Bytes that took credits: a close takes none.
    pub fn credits(&self) -> usize {
        self.packets.iter().filter(|packet| packet.kind != Kind::Close).map(|packet| packet.body.len()).sum()
    }

    /// Writes it down.
    pub(crate) fn snapshot(&self) -> UnreadRecord {
        let packets = self.packets.iter().map(|sent| SentRecord {
            seq: sent.seq,
            kind: KINDS.iter().position(|kind| *kind == sent.kind).unwrap_or_default() as u8,
            binary: sent.binary,
            more: sent.more,
            code: sent.code,
            body: sent.body.to_vec(),
        });
        UnreadRecord { is_torn: self.is_torn, packets: packets.collect() }
    }

    /// Reads that back.
    pub(crate) fn restore(record: UnreadRecord) -> Self {
        let packets = record.packets.into_iter().map(|SentRecord { seq, kind, binary, more, code, body }| {
            let kind = KINDS.get(usize::from(kind)).copied().unwrap_or(Kind::Data);
            Sent { seq, kind, binary, more, code, body: body.into() }
        });
        let packets: VecDeque<Sent> = packets.collect();
        let bytes = packets.iter().map(|packet| packet.body.len()).sum();
        Unread { packets, bytes, is_torn: record.is_torn }
    }

    /// All of it again: `send` sends a packet and says which number it has now.
    pub fn send_again(&mut self, mut send: impl FnMut(Packet<'_>) -> Option<u32>) {
        for sent in &mut self.packets {
            let content_type: &[u8] = if sent.binary { b"binary" } else { b"text" };
            let content_type = (sent.kind == Kind::Data).then_some(content_type);
            let Sent { kind, more, code, .. } = *sent;
            let packet = Packet { kind, more, code, content_type, body: &sent.body, ..Packet::default() };
            if let Some(seq) = send(packet) {
                sent.seq = seq;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_been_taken_is_sent_again_with_new_numbers_and_forgotten_by_them() {
        let mut unread = Unread::default();
        for (seq, body) in [(3, &b"a"[..]), (4, b"bc"), (5, b"d")] {
            unread.add(seq, &Packet { content_type: Some(b"binary"), body, ..Packet::default() });
        }
        unread.add(6, &Packet { kind: Kind::Close, code: Some(1000), body: b"bye", ..Packet::default() });
        unread.forget_before(4);
        assert_eq!((unread.len(), unread.credits()), (3, 3));
        let (mut next, mut again) = (9, Vec::new());
        unread.send_again(|packet| {
            next += 1;
            again.push((packet.kind, packet.code, packet.content_type == Some(b"binary"), packet.body.to_vec()));
            Some(next)
        });
        let expected = [
            (Kind::Data, None, true, b"bc".to_vec()),
            (Kind::Data, None, true, b"d".to_vec()),
            (Kind::Close, Some(1000), false, b"bye".to_vec()),
        ];
        assert_eq!(again, expected);
        unread.forget_before(12);
        assert_eq!(unread.len(), 1);
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        for (body, most) in [(&[0; 100_000][..], 5), (b"", MAX_PACKETS)] {
            let (mut unread, packet) = (Unread::default(), Packet { body, ..Packet::default() });
            let mut add = |seq| {
                unread.add(seq, &packet);
                unread.is_whole()
            };
            assert_eq!((0..).take_while(|&seq| add(seq)).count(), most);
            assert!(!add(0) && unread.is_empty());
        }
    }
}
