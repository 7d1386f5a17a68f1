// SPDX-License-Identifier: AGPL-3.0-or-later
//! What one end of a WebSocket has sent and the other may not have: it is sent again when the process between them ends.
//!
//! The ends are a frontend and an outbound process, or a frontend alone if the backend is spoken to by requests. A *position* says
//! how much of one direction has passed: each byte of content counts one, and so does each end of a message, ping, pong or close.
//! So packets may be cut on their way, and both ends still count the same.

use std::collections::VecDeque;

use crate::budget::Share;
use crate::packet::{Kind, Packet};

/// Bytes of content that are kept for one session: more than the windows of the sessions on the way allow.
const MAX_BYTES: usize = 512 * 1024;
/// Packets that are kept for one session, since some have no content.
const MAX_PACKETS: usize = 20_000;
/// The other end hears of so many packets at last, or of so many [`units`].
const PACKETS_UNTOLD: u32 = 16;
/// See [`PACKETS_UNTOLD`].
const UNITS_UNTOLD: u64 = 16 * 1024;

/// By how much a packet moves the position.
pub fn units(packet: &Packet<'_>) -> u64 {
    packet.body.len() as u64 + u64::from(has_end(packet.kind, packet.more))
}

fn has_end(kind: Kind, more: bool) -> bool {
    kind != Kind::Data || !more
}

/// One packet of data, a ping, a pong or a close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its number, if that matters.
    pub seq: u32,
    /// What it is.
    pub kind: Kind,
    /// Its message is bytes and not text.
    pub binary: bool,
    /// Its message goes on.
    pub more: bool,
    /// Of a close.
    pub code: Option<u16>,
    /// Content.
    pub body: Box<[u8]>,
}

impl Sent {
    fn of(seq: u32, packet: &Packet<'_>) -> Self {
        let Packet { kind, more, code, body, .. } = *packet;
        Sent { seq, kind, binary: packet.content_type == Some(b"binary"), more, code, body: body.into() }
    }

    fn packet(&self) -> Packet<'_> {
        let content_type: &[u8] = if self.binary { b"binary" } else { b"text" };
        let content_type = (self.kind == Kind::Data).then_some(content_type);
        let Sent { kind, more, code, .. } = *self;
        Packet { kind, more, code, content_type, body: &self.body, ..Packet::default() }
    }

    fn units(&self) -> u64 {
        self.body.len() as u64 + u64::from(has_end(self.kind, self.more))
    }

    /// A close takes none.
    fn credits(&self) -> usize {
        if self.kind == Kind::Close { 0 } else { self.body.len() }
    }

    fn weight(&self) -> usize {
        self.body.len() + size_of::<Sent>()
    }

    /// Takes off the first `bytes` of the content.
    fn split_off_front(&mut self, bytes: usize) -> Box<[u8]> {
        let rest = self.body[bytes..].into();
        let mut front = std::mem::replace(&mut self.body, rest).into_vec();
        front.truncate(bytes);
        front.into()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Retained {
    packets: VecDeque<Sent>,
    /// So many of them have been sent to whoever is there now.
    sent: usize,
    /// The position in front of the first.
    from: u64,
    /// The position behind the last.
    to: u64,
    /// Of content.
    bytes: usize,
    memory: Share,
    /// It was too much: nothing is kept any more.
    is_torn: bool,
}

impl Retained {
    /// Nothing, as long as `memory` may grow by what is kept.
    pub fn new(memory: Share) -> Self {
        Retained { packets: VecDeque::new(), sent: 0, from: 0, to: 0, bytes: 0, memory, is_torn: false }
    }

    /// What another process has kept, all of it sent.
    pub fn restore(from: u64, packets: impl IntoIterator<Item = Sent>, memory: Share) -> Self {
        let mut retained = Retained { from, to: from, ..Retained::new(memory) };
        packets.into_iter().for_each(|packet| retained.push(packet));
        retained
    }

    /// A packet has been sent.
    pub fn add(&mut self, seq: u32, packet: &Packet<'_>) {
        if !self.is_torn {
            self.push(Sent::of(seq, packet));
        }
    }

    fn push(&mut self, packet: Sent) {
        self.to += packet.units();
        self.bytes += packet.body.len();
        self.sent += 1;
        let fits = self.memory.grow(packet.weight());
        self.packets.push_back(packet);
        if !fits || self.bytes > MAX_BYTES || self.packets.len() > MAX_PACKETS {
            self.tear();
        }
    }

    /// Nothing can be sent again from now on.
    pub fn tear(&mut self) {
        self.memory.shrink(usize::MAX);
        (self.packets, self.sent, self.bytes, self.is_torn) = (VecDeque::new(), 0, 0, true);
    }

    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        !self.is_torn
    }

    /// The positions before and behind what is kept.
    pub fn span(&self) -> (u64, u64) {
        (self.from, self.to)
    }

    /// Packets before this number are of no use any more.
    pub fn forget_before(&mut self, seq: u32) {
        while self.packets.front().is_some_and(|packet| packet.seq < seq) {
            self.forget_first();
        }
        self.give_back();
    }

    /// The other end has had everything before this position.
    pub fn forget_to(&mut self, position: u64) {
        let position = position.min(self.to);
        while let Some(first) = self.packets.front_mut() {
            let had = position.saturating_sub(self.from);
            if had >= first.units() {
                self.forget_first();
                continue;
            }
            // Less than all of it, so no more than its content.
            let bytes = had as usize;
            if bytes > 0 {
                first.split_off_front(bytes);
                self.memory.shrink(bytes);
                self.bytes -= bytes;
                self.from = position;
            }
            break;
        }
        self.give_back();
    }

    fn forget_first(&mut self) {
        if let Some(first) = self.packets.pop_front() {
            self.memory.shrink(first.weight());
            self.bytes -= first.body.len();
            self.from += first.units();
            self.sent = self.sent.saturating_sub(1);
        }
    }

    /// An idle session keeps no room.
    fn give_back(&mut self) {
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

    /// Bytes of all of them that take credits.
    pub fn credits(&self) -> usize {
        self.packets.iter().map(Sent::credits).sum()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Sent> {
        self.packets.iter()
    }

    /// Whoever was there has gone, and the other end has had everything before this position: the rest is to be sent again. `false`
    /// if it is not there.
    pub fn rewind(&mut self, position: u64) -> bool {
        let is_there = !self.is_torn && (self.from..=self.to).contains(&position);
        if is_there {
            self.forget_to(position);
            self.sent = 0;
        }
        is_there
    }

    /// Whether all has been sent to whoever is there.
    pub fn is_sent(&self) -> bool {
        self.sent == self.packets.len()
    }

    /// The next packet to be sent again, or the part of it for which there are credits.
    pub fn next(&mut self, credits: usize) -> Option<Packet<'_>> {
        let next = self.packets.get_mut(self.sent)?;
        if next.credits() > credits {
            if next.kind != Kind::Data || credits == 0 {
                return None;
            }
            let (seq, binary) = (next.seq, next.binary);
            let front =
                Sent { seq, kind: Kind::Data, binary, more: true, code: None, body: next.split_off_front(credits) };
            // No more content, and the session is as whole as before.
            let _ = self.memory.grow(size_of::<Sent>());
            self.packets.insert(self.sent, front);
        }
        self.sent += 1;
        self.packets.get(self.sent - 1).map(Sent::packet)
    }

    /// All of it again: `send` sends a packet and says which number it has now.
    pub fn send_again(&mut self, mut send: impl FnMut(Packet<'_>) -> Option<u32>) {
        for sent in &mut self.packets {
            if let Some(seq) = send(sent.packet()) {
                sent.seq = seq;
            }
        }
        self.sent = self.packets.len();
    }
}

/// How much of one direction has come to its end, and what the other end knows of that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    position: u64,
    told: u64,
    /// Since that was told.
    packets: u32,
}

impl Received {
    /// So much, as both ends know.
    pub fn at(position: u64) -> Self {
        Received { position, told: position, packets: 0 }
    }

    /// The position.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// A packet has come.
    pub fn take(&mut self, packet: &Packet<'_>) {
        self.reach(self.position.saturating_add(units(packet)));
    }

    /// Everything before this position has.
    pub fn reach(&mut self, position: u64) {
        if position > self.position {
            self.position = position;
            self.packets += 1;
        }
    }

    /// Whether it is time to tell: what is kept at the other end has a bound. Otherwise it goes along with other packets.
    pub fn is_due(&self) -> bool {
        self.packets >= PACKETS_UNTOLD || self.position - self.told >= UNITS_UNTOLD
    }

    /// What the other end is to be told, unless it knows.
    pub fn tell(&mut self) -> Option<u64> {
        self.packets = 0;
        let told = std::mem::replace(&mut self.told, self.position);
        (told != self.position).then_some(self.position)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::budget::Budget;

    fn retained() -> Retained {
        Retained::new(Budget::new(usize::MAX).share())
    }

    fn data(body: &[u8], more: bool) -> Packet<'_> {
        Packet { content_type: Some(b"binary"), body, more, ..Packet::default() }
    }

    #[test]
    fn what_has_not_been_taken_is_sent_again_with_new_numbers_and_forgotten_by_them() {
        let mut retained = retained();
        for (seq, body) in [(3, &b"a"[..]), (4, b"bc"), (5, b"d")] {
            retained.add(seq, &data(body, false));
        }
        retained.add(6, &Packet { kind: Kind::Close, code: Some(1000), body: b"bye", ..Packet::default() });
        retained.forget_before(4);
        assert_eq!((retained.len(), retained.credits()), (3, 3));
        let (mut next, mut again) = (9, Vec::new());
        retained.send_again(|packet| {
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
        retained.forget_before(12);
        assert_eq!(retained.len(), 1);
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        for (body, most) in [(&[0; 100_000][..], 5), (b"", MAX_PACKETS)] {
            let mut retained = retained();
            let mut add = |seq| {
                retained.add(seq, &data(body, false));
                retained.is_whole()
            };
            assert_eq!((0..).take_while(|&seq| add(seq)).count(), most);
            assert!(!add(0) && retained.is_empty());
        }
    }

    #[test]
    fn all_sessions_together_have_a_bound_and_one_that_is_too_much_gives_back_what_it_had() {
        let budget = Budget::new(1000);
        let (mut one, mut two) = (Retained::new(budget.share()), Retained::new(budget.share()));
        one.add(0, &data(&[0; 500], false));
        two.add(0, &data(&[0; 300], false));
        two.add(1, &data(&[0; 300], false));
        assert!(one.is_whole() && !two.is_whole());
        assert_eq!(budget.used(), 500 + size_of::<Sent>());
        one.forget_to(200);
        assert_eq!(budget.used(), 300 + size_of::<Sent>());
        one.forget_to(501);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn positions_count_content_and_ends_and_a_packet_is_cut_where_the_other_end_has_it() {
        let mut retained = retained();
        retained.add(0, &data(b"abc", true));
        retained.add(0, &data(b"de", false));
        retained.add(0, &Packet { kind: Kind::Ping, body: b"p", ..Packet::default() });
        assert_eq!(retained.span(), (0, 8));
        assert!(!retained.rewind(9) && retained.rewind(1) && !retained.rewind(0));
        assert!(!retained.is_sent() && retained.next(0).is_none());
        assert_eq!(retained.next(1).unwrap(), data(b"b", true));
        assert_eq!(retained.next(9).unwrap(), data(b"c", true));
        // All content of a message, but not its end.
        assert!(retained.rewind(5));
        assert_eq!(retained.next(0).unwrap(), data(b"", false));
        assert_eq!(retained.next(0), None);
        assert_eq!(retained.span(), (5, 8));
        assert_eq!(retained.next(1).unwrap().kind, Kind::Ping);
        assert!(retained.is_sent());
    }

    #[test]
    fn the_other_end_is_told_in_time_and_once() {
        let mut received = Received::at(5);
        for _ in 0..PACKETS_UNTOLD {
            assert!(!received.is_due());
            received.take(&data(b"", false));
        }
        assert!(received.is_due());
        assert_eq!((received.tell(), received.tell()), (Some(5 + u64::from(PACKETS_UNTOLD)), None));
        received.reach(received.position() + UNITS_UNTOLD);
        assert!(received.is_due());
        received.tell();
        received.reach(3);
        assert_eq!(received.tell(), None);
    }

    /// What is sent: kind, content, whether its message goes on.
    fn packets() -> impl Strategy<Value = Vec<(Kind, Vec<u8>, bool)>> {
        let kind = prop_oneof![4 => Just(Kind::Data), 1 => Just(Kind::Ping), 1 => Just(Kind::Pong)];
        let one = (kind, prop::collection::vec(any::<u8>(), 0..6), any::<bool>());
        let said = |(kind, body, more): &(Kind, Vec<u8>, bool)| *kind != Kind::Data || !*more || !body.is_empty();
        prop::collection::vec(one.prop_filter("says something", said), 0..40)
    }

    /// A stream as its receiver sees it, however it was cut: each byte and each end, with the kind it is of.
    #[derive(Default, PartialEq, Debug)]
    struct Stream(Vec<(Kind, Option<u8>)>);

    impl Stream {
        fn take(&mut self, packet: &Packet<'_>) {
            self.0.extend(packet.body.iter().map(|byte| (packet.kind, Some(*byte))));
            if has_end(packet.kind, packet.more) {
                self.0.push((packet.kind, None));
            }
        }
    }

    /// A process between the ends: what it has taken and not passed on yet, in both directions.
    #[derive(Default)]
    struct Carrier {
        packets: VecDeque<Sent>,
        acknowledged: VecDeque<u64>,
    }

    proptest! {
        /// Whatever is cut, delayed and lost with the processes between them, the receiver gets all of it once and in order.
        #[test]
        fn whenever_carriers_die_nothing_is_lost_repeated_or_torn(
            packets in packets(),
            steps in prop::collection::vec((0u8..8, 0usize..8), 0..300),
        ) {
            let budget = Budget::new(usize::MAX);
            let (mut retained, mut received) = (Retained::new(budget.share()), Received::default());
            let (mut carrier, mut came, mut all) = (Carrier::default(), Stream::default(), Stream::default());
            let mut rest = packets.iter();
            // Whatever the steps say, all is sent in the end.
            for (step, size) in steps.into_iter().chain(std::iter::repeat_n([(0, 8), (2, 8)], 400).flatten()) {
                match step {
                    // What a predecessor may have lost comes before anything new.
                    0 | 1 if !retained.is_sent() => if let Some(packet) = retained.next(size) {
                        carrier.packets.push_back(Sent::of(0, &packet));
                    },
                    0 | 1 => if let Some((kind, body, more)) = rest.next() {
                        let packet = Packet { kind: *kind, body, more: *more && *kind == Kind::Data, ..Packet::default() };
                        all.take(&packet);
                        retained.add(0, &packet);
                        carrier.packets.push_back(Sent::of(0, &packet));
                    },
                    2..=4 => if let Some(mut packet) = carrier.packets.pop_front() {
                        // It may be cut.
                        if packet.kind == Kind::Data && size > 0 && size < packet.body.len() {
                            let front = Sent { more: true, body: packet.split_off_front(size), ..packet.clone() };
                            carrier.packets.push_front(packet);
                            packet = front;
                        }
                        came.take(&packet.packet());
                        received.take(&packet.packet());
                        if received.is_due() || size % 2 == 0 {
                            carrier.acknowledged.extend(received.tell());
                        }
                    },
                    5 | 6 => if let Some(position) = carrier.acknowledged.pop_front() {
                        retained.forget_to(position);
                    },
                    _ => {
                        carrier = Carrier::default();
                        prop_assert!(retained.rewind(received.position()));
                    }
                }
            }
            prop_assert_eq!(came, all);
            retained.forget_to(received.position());
            prop_assert!(retained.is_empty());
            prop_assert_eq!((retained.bytes, budget.used()), (0, 0));
        }
    }
}
