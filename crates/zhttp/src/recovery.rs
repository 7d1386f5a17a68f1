// SPDX-License-Identifier: AGPL-3.0-or-later
//! How a server's successor comes to its sessions: it asks each client's side, which has kept them with their
//! [records](crate::Record), and takes them up.
//!
//! ```text
//! successor -> client   recover    whose sessions are wanted
//! client -> successor   seen       messages that its sessions may have, by number of their run
//!                       held       sessions with their records, up to 256 KB a packet
//!                       done       that was all
//! ```
//!
//! The answers come in this order by the link that packets take. Sessions that the successor goes on with get a packet, as
//! after any hand-off; the others it cancels.
//!
//! Packets begin with `R`, which nobody else understands, and a version. A client's side that can be asked subscribes to a
//! [topic](topic) at the server's PUB socket, so nobody else gets one.

use crate::id::Id;
use crate::session::client::Standing;

/// The first byte.
pub const MARK: u8 = b'R';
/// The version that is written, and the only one that is read.
const VERSION: u8 = 1;
/// Bytes after which the next packet begins.
const PACKET: usize = 256 * 1024;
/// The place of the suite whose process is the proxy.
pub const PROXY: &[u8] = b"p0";
/// Bytes of a record that are kept. A session with a longer one ends with its server.
pub const MAX_RECORD: usize = 4096;

/// Before the instance, the topic by which a client's side says that it can be asked.
const TOPIC: &str = "R1+";

/// The topic of an instance.
pub fn topic(instance: &str) -> String {
    [TOPIC, instance].concat()
}

/// The instance that a topic is of, if it is one.
pub fn instance(topic: &[u8]) -> Option<&[u8]> {
    topic.strip_prefix(TOPIC.as_bytes())
}

/// A packet of the exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The sender has the place of this name now and wants what its predecessor had.
    Recover(&'a [u8]),
    /// Messages that sessions may have.
    Seen(Vec<Seen<'a>>),
    /// Sessions.
    Held {
        /// Their records.
        records: Vec<&'a [u8]>,
        /// The sessions, which name their records by index.
        sessions: Vec<Held>,
    },
    /// There is no more.
    Done {
        /// The number of the last run that has come.
        run: u64,
    },
}

/// A message that sessions may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    /// The run that it was part of.
    pub run: u64,
    /// It is the last of its channel.
    pub last: bool,
    /// Its channel.
    pub channel: &'a [u8],
    /// Its id.
    pub id: &'a [u8],
}

/// A session that waits for a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its id.
    pub id: Id,
    /// Numbers and credits.
    pub standing: Standing,
    /// How long ago its record came, in ms.
    pub age: u32,
    /// The last run that had come before it had its record.
    pub since: u64,
    /// The last run of which it has what it gets, or `since`.
    pub run: u64,
    /// Something for it waited with its server and is lost.
    pub lags: bool,
    /// Its client has gone, and the server is still to take note of that.
    pub gone: bool,
    /// What its client has sent, if the successor gets that again.
    pub unread: Option<Unread>,
    /// How it stands with the other end, if that counts as well ([`crate::retained`]).
    pub counted: Option<Counted>,
    /// Index of its record in the packet.
    pub record: u32,
}

/// What a client has sent in a session, and may still send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Packets that the successor gets again, before any others.
    pub packets: u32,
    /// Bytes of those, and of what the client may send beyond.
    pub granted: u32,
}

/// The positions of a WebSocket, as its frontend knows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// All of the backend's in front of this position has come.
    pub at: u64,
    /// It has come in the middle of a message.
    pub is_within: bool,
    /// The client's side can send again from this position on.
    pub from: u64,
    /// It has sent all in front of this position.
    pub to: u64,
}

/// In the flags of a session: see [`Held::lags`].
const LAGS: u8 = 1;
/// See [`Held::gone`].
const GONE: u8 = 2;
/// [`Held::unread`] follows.
const UNREAD: u8 = 4;
/// [`Held::counted`] follows. Only in packets of its own, because former versions refuse it.
const COUNTED: u8 = 8;

/// The packet is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// It was written by a newer or much older process.
    #[error("version {0} is not known")]
    Version(u8),
    /// It is none.
    #[error("it ends or goes on where it should not, or names what is not there")]
    Malformed,
}

impl<'a> Message<'a> {
    /// Reads a packet that begins with [`MARK`].
    ///
    /// # Errors
    /// It is of another version or malformed.
    pub fn decode(packet: &'a [u8]) -> Result<Self, RecoveryError> {
        let mut input = Input(packet);
        if input.byte()? != MARK {
            return Err(RecoveryError::Malformed);
        }
        match input.byte()? {
            VERSION => {}
            other => return Err(RecoveryError::Version(other)),
        }
        let message = match input.byte()? {
            b'r' => Message::Recover(input.bytes()?),
            b's' => Message::Seen(input.list(Input::seen)?),
            b'h' => {
                let records = input.list(Input::bytes)?;
                let sessions = input.list(Input::held)?;
                if sessions.iter().any(|held| held.record as usize >= records.len()) {
                    return Err(RecoveryError::Malformed);
                }
                Message::Held { records, sessions }
            }
            b'd' => Message::Done { run: input.long()? },
            _ => return Err(RecoveryError::Malformed),
        };
        if input.0.is_empty() { Ok(message) } else { Err(RecoveryError::Malformed) }
    }

    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![MARK, VERSION];
        match self {
            Message::Recover(place) => {
                out.push(b'r');
                write_bytes(place, &mut out);
            }
            Message::Seen(seen) => {
                out.push(b's');
                write_number(seen.len() as u32, &mut out);
                seen.iter().for_each(|seen| write_seen(seen, &mut out));
            }
            Message::Held { records, sessions } => {
                out.push(b'h');
                write_number(records.len() as u32, &mut out);
                records.iter().for_each(|record| write_bytes(record, &mut out));
                write_number(sessions.len() as u32, &mut out);
                sessions.iter().for_each(|held| write_held(held, &mut out));
            }
            Message::Done { run } => {
                out.push(b'd');
                out.extend(run.to_le_bytes());
            }
        }
        out
    }
}

/// Puts sessions and their records into packets of limited size.
#[derive(Default)]
pub struct Packer<'a> {
    records: Vec<&'a [u8]>,
    sessions: Vec<Held>,
    bytes: usize,
}

impl<'a> Packer<'a> {
    /// Adds a session. Sessions of one record come one after the other best, and those that are counted behind the others. Gives a
    /// packet that is full.
    pub fn push(&mut self, mut held: Held, record: &'a [u8]) -> Option<Vec<u8>> {
        let is_apart = self.sessions.last().is_some_and(|last| last.counted.is_some() != held.counted.is_some());
        let full = (self.bytes >= PACKET || is_apart).then(|| self.take());
        if self.records.last() != Some(&record) {
            self.bytes += record.len();
            self.records.push(record);
        }
        held.record = self.records.len() as u32 - 1;
        self.bytes += 64;
        self.sessions.push(held);
        full
    }

    /// The last packet, if anything is left.
    pub fn finish(mut self) -> Option<Vec<u8>> {
        (!self.sessions.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> Vec<u8> {
        self.bytes = 0;
        Message::Held { records: std::mem::take(&mut self.records), sessions: std::mem::take(&mut self.sessions) }
            .encode()
    }
}

/// Puts messages that sessions may have into packets of limited size.
pub fn pack_seen<'a>(all: impl Iterator<Item = Seen<'a>>, mut send: impl FnMut(Vec<u8>)) {
    let (mut seen, mut bytes) = (Vec::new(), 0);
    for next in all {
        bytes += next.channel.len() + next.id.len() + 16;
        seen.push(next);
        if bytes >= PACKET {
            send(Message::Seen(std::mem::take(&mut seen)).encode());
            bytes = 0;
        }
    }
    if !seen.is_empty() {
        send(Message::Seen(seen).encode());
    }
}

fn write_number(number: u32, out: &mut Vec<u8>) {
    out.extend(number.to_le_bytes());
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_number(bytes.len() as u32, out);
    out.extend_from_slice(bytes);
}

fn write_seen(seen: &Seen<'_>, out: &mut Vec<u8>) {
    out.extend(seen.run.to_le_bytes());
    out.push(u8::from(seen.last));
    write_bytes(seen.channel, out);
    write_bytes(seen.id, out);
}

fn write_held(held: &Held, out: &mut Vec<u8>) {
    let Standing { in_seq, out_seq, credits } = held.standing;
    write_bytes(held.id.as_bytes(), out);
    [in_seq, out_seq, credits, held.age, held.record].into_iter().for_each(|number| write_number(number, out));
    [held.since, held.run].into_iter().for_each(|number| out.extend(number.to_le_bytes()));
    let flags =
        [(held.lags, LAGS), (held.gone, GONE), (held.unread.is_some(), UNREAD), (held.counted.is_some(), COUNTED)];
    out.push(flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum());
    if let Some(Unread { packets, granted }) = held.unread {
        [packets, granted].into_iter().for_each(|number| write_number(number, out));
    }
    if let Some(Counted { at, is_within, from, to }) = held.counted {
        [at, from, to].into_iter().for_each(|position| out.extend(position.to_le_bytes()));
        out.push(u8::from(is_within));
    }
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], RecoveryError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(RecoveryError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecoveryError> {
        self.take(N)?.try_into().map_err(|_| RecoveryError::Malformed)
    }

    fn byte(&mut self) -> Result<u8, RecoveryError> {
        self.array().map(|[byte]| byte)
    }

    fn flag(&mut self) -> Result<bool, RecoveryError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RecoveryError::Malformed),
        }
    }

    fn number(&mut self) -> Result<u32, RecoveryError> {
        self.array().map(u32::from_le_bytes)
    }

    fn long(&mut self) -> Result<u64, RecoveryError> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Result<&'a [u8], RecoveryError> {
        let count = self.number()?;
        self.take(count as usize)
    }

    /// No memory is reserved for what is only announced.
    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Result<T, RecoveryError>) -> Result<Vec<T>, RecoveryError> {
        let count = self.number()?;
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(read(self)?);
        }
        Ok(list)
    }

    fn seen(&mut self) -> Result<Seen<'a>, RecoveryError> {
        Ok(Seen { run: self.long()?, last: self.flag()?, channel: self.bytes()?, id: self.bytes()? })
    }

    fn held(&mut self) -> Result<Held, RecoveryError> {
        let id = Id::new(self.bytes()?).ok_or(RecoveryError::Malformed)?;
        let standing = Standing { in_seq: self.number()?, out_seq: self.number()?, credits: self.number()? };
        let (age, record) = (self.number()?, self.number()?);
        let (since, run) = (self.long()?, self.long()?);
        let flags = self.byte()?;
        if flags & !(LAGS | GONE | UNREAD | COUNTED) != 0 {
            return Err(RecoveryError::Malformed);
        }
        let unread = match flags & UNREAD {
            0 => None,
            _ => Some(Unread { packets: self.number()?, granted: self.number()? }),
        };
        let counted = match flags & COUNTED {
            0 => None,
            _ => Some(Counted { at: self.long()?, from: self.long()?, to: self.long()?, is_within: self.flag()? }),
        };
        let (lags, gone) = (flags & LAGS != 0, flags & GONE != 0);
        Ok(Held { id, standing, age, since, run, lags, gone, unread, counted, record })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn held(slot: u32) -> Held {
        Held {
            id: Id::indexed(slot, 7),
            standing: Standing { in_seq: 1, out_seq: slot, credits: 1000 },
            age: 5,
            since: 3,
            run: 9,
            lags: slot % 2 == 1,
            gone: slot % 3 == 1,
            unread: (slot % 5 == 1).then_some(Unread { packets: slot, granted: 9 }),
            counted: None,
            record: 0,
        }
    }

    #[test]
    fn sessions_of_one_record_carry_it_once_and_packets_have_a_limit() {
        let (a, b) = (vec![b'a'; 4000], vec![b'b'; 4000]);
        let mut packer = Packer::default();
        let mut packets = Vec::new();
        for slot in 0..18_000 {
            packets.extend(packer.push(held(slot), if slot < 9_000 { &a } else { &b }));
        }
        packets.extend(packer.finish());
        assert!(packets.iter().all(|packet| packet.len() <= PACKET + 5_000));
        let mut slot = 0;
        for packet in &packets {
            let Ok(Message::Held { records, sessions }) = Message::decode(packet) else { panic!() };
            for session in sessions {
                assert_eq!(records[session.record as usize], if slot < 9_000 { &a[..] } else { &b[..] });
                assert_eq!(Held { record: 0, ..session }, held(slot));
                slot += 1;
            }
        }
        assert_eq!((slot, packets.len()), (18_000, 5));
    }

    #[test]
    fn sessions_that_former_versions_do_not_understand_are_in_packets_of_their_own() {
        let mut packer = Packer::default();
        let plain = packer.push(held(0), b"a").or_else(|| packer.push(held(1), b"a"));
        let counted = Held { counted: Some(Counted::default()), ..held(2) };
        assert!(plain.is_none());
        let first = packer.push(counted, b"a").unwrap();
        let Ok(Message::Held { sessions, .. }) = Message::decode(&first) else { panic!() };
        assert_eq!(sessions, [held(0), held(1)]);
        let second = packer.finish().unwrap();
        let Ok(Message::Held { sessions, records }) = Message::decode(&second) else { panic!() };
        assert_eq!((sessions, records), (vec![counted], vec![&b"a"[..]]));
    }

    #[test]
    fn a_packet_of_another_version_or_a_session_without_its_record_is_refused() {
        assert_eq!(Message::decode(b"R\x02d"), Err(RecoveryError::Version(2)));
        let packet = Message::Held { records: vec![], sessions: vec![held(1)] }.encode();
        assert_eq!(Message::decode(&packet), Err(RecoveryError::Malformed));
    }

    proptest! {
        #[test]
        fn a_packet_reads_as_it_was_written(
            runs in prop::collection::vec((any::<u64>(), any::<bool>(), any::<Vec<u8>>(), any::<Vec<u8>>()), 0..10),
            slots in prop::collection::vec(any::<u32>(), 0..10),
            (at, from, is_within) in any::<(u64, u64, bool)>(),
            record in any::<Vec<u8>>(),
        ) {
            let seen = runs.iter().map(|(run, last, channel, id)| Seen { run: *run, last: *last, channel, id }).collect();
            let counted = |slot| (slot % 2 == 0).then_some(Counted { at, from, to: at ^ from, is_within });
            let sessions = slots.into_iter().map(|slot| Held { counted: counted(slot), ..held(slot) }).collect();
            for message in [
                Message::Recover(&record),
                Message::Seen(seen),
                Message::Held { records: vec![&record], sessions },
                Message::Done { run: 12 },
            ] {
                let packet = message.encode();
                prop_assert_eq!(Message::decode(&packet), Ok(message));
                for end in 0..packet.len() {
                    prop_assert!(Message::decode(&packet[..end]).is_err());
                }
            }
        }

        #[test]
        fn whatever_comes_is_read_or_refused(mut bytes in any::<Vec<u8>>()) {
            bytes.splice(..0, [MARK, VERSION]);
            let _ = Message::decode(&bytes);
        }
    }
}
