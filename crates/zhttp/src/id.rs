// SPDX-License-Identifier: AGPL-3.0-or-later
//! Who talks, and about which session.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

/// Bytes that an instance id or a request id may have (ZHTTP, size limits).
pub const MAX_ID: usize = 64;
/// Instances one process remembers. Each restart of a peer makes one; a process does not live through so many.
const MAX_PEERS: usize = 65_536;

/// The id of a request, chosen by its client; opaque to the server.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id {
    len: u8,
    bytes: [u8; MAX_ID],
}

impl Id {
    /// An id of 1 to 64 bytes; `None` if it is longer or empty.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > MAX_ID {
            return None;
        }
        let mut id = Id { len: bytes.len() as u8, bytes: [0; MAX_ID] };
        id.bytes[..bytes.len()].copy_from_slice(bytes);
        Some(id)
    }

    /// An id that carries a table index, so that the table's owner finds the session without a search, and a serial
    /// number that never repeats within a run, so that a late packet of the slot's former session is not mistaken.
    pub fn indexed(index: u32, serial: u64) -> Self {
        let mut id = Id { len: 0, bytes: [0; MAX_ID] };
        id.push_hex(u64::from(index));
        id.push(b'-');
        id.push_hex(serial);
        id
    }

    /// Index and serial of an id made by [`Id::indexed`].
    pub fn parse_indexed(bytes: &[u8]) -> Option<(u32, u64)> {
        let dash = bytes.iter().position(|&b| b == b'-')?;
        let index = parse_hex(&bytes[..dash])?;
        Some((u32::try_from(index).ok()?, parse_hex(&bytes[dash + 1..])?))
    }

    /// The bytes as they stand in a packet.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn push(&mut self, byte: u8) {
        self.bytes[usize::from(self.len)] = byte;
        self.len += 1;
    }

    fn push_hex(&mut self, value: u64) {
        let digits = (64 - value.leading_zeros()).div_ceil(4).max(1);
        for i in (0..digits).rev() {
            self.push(b"0123456789abcdef"[(value >> (4 * i) & 15) as usize]);
        }
    }
}

fn parse_hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

/// An id where many are kept: those of our own frontends and most others are short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeptId {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Box<Id>),
}

/// What fits in two words.
const SHORT: usize = 14;

impl From<Id> for KeptId {
    fn from(id: Id) -> Self {
        match id.bytes.first_chunk() {
            Some(bytes) if usize::from(id.len) <= SHORT => KeptId::Short { len: id.len, bytes: *bytes },
            _ => KeptId::Long(Box::new(id)),
        }
    }
}

impl KeptId {
    /// The id itself.
    pub(crate) fn get(&self) -> Id {
        match self {
            KeptId::Short { len, bytes: short } => {
                let mut bytes = [0; MAX_ID];
                bytes[..SHORT].copy_from_slice(short);
                Id { len: *len, bytes }
            }
            KeptId::Long(id) => **id,
        }
    }

    /// The bytes as they stand in a packet.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            KeptId::Short { len, bytes } => &bytes[..usize::from(*len)],
            KeptId::Long(id) => id.as_bytes(),
        }
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

/// A peer's instance, as a small number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(u32);

impl PeerId {
    /// The number itself. Numbers begin at 0 and are dense, so they index tables of what is known of each peer.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The instance ids that a process has met.
#[derive(Default)]
pub struct Peers {
    names: Vec<Rc<[u8]>>,
    numbers: HashMap<Rc<[u8]>, PeerId>,
}

impl Peers {
    /// The number of an instance, new or known; `None` if the name is empty, longer than 64 bytes, has a space, or if
    /// the table is full.
    pub fn intern(&mut self, name: &[u8]) -> Option<PeerId> {
        if let Some(&number) = self.numbers.get(name) {
            return Some(number);
        }
        if name.is_empty() || name.len() > MAX_ID || name.contains(&b' ') || self.names.len() == MAX_PEERS {
            return None;
        }
        let (name, number): (Rc<[u8]>, _) = (name.into(), PeerId(self.names.len() as u32));
        self.names.push(name.clone());
        self.numbers.insert(name, number);
        Some(number)
    }

    /// The number of an instance if it is known.
    pub fn find(&self, name: &[u8]) -> Option<PeerId> {
        self.numbers.get(name).copied()
    }

    /// All of them, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (PeerId, &Rc<[u8]>)> {
        self.names.iter().enumerate().map(|(number, name)| (PeerId(number as u32), name))
    }

    /// The name of an instance.
    pub fn name(&self, peer: PeerId) -> &Rc<[u8]> {
        &self.names[peer.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_kept_stays_the_same_whatever_its_length() {
        assert_eq!(size_of::<KeptId>(), 16);
        for len in [1, SHORT, SHORT + 1, MAX_ID] {
            let id = Id::new(&vec![b'x'; len]).unwrap();
            let kept = KeptId::from(id);
            assert_eq!((kept.get(), kept.as_bytes()), (id, id.as_bytes()));
            assert_eq!(matches!(kept, KeptId::Long(_)), len > SHORT);
        }
    }

    #[test]
    fn an_indexed_id_gives_back_what_it_was_made_of() {
        for (index, serial) in [(0, 0), (1, 0x1f), (u32::MAX, u64::MAX)] {
            let id = Id::indexed(index, serial);
            assert_eq!(Id::parse_indexed(id.as_bytes()), Some((index, serial)));
        }
        assert_eq!(Id::indexed(18, 255).to_string(), "12-ff");
    }

    #[test]
    fn a_foreign_id_is_not_taken_for_an_indexed_one() {
        for bytes in [&b""[..], b"-", b"1-", b"-1", b"g-1", b"1-2-3", b"123456789-1", b"1 -1", b"00000000000000001-1"] {
            assert_eq!(Id::parse_indexed(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn ids_over_64_bytes_and_empty_ones_are_refused() {
        assert!(Id::new(&[b'x'; 64]).is_some());
        assert!(Id::new(&[b'x'; 65]).is_none());
        assert!(Id::new(b"").is_none());
    }

    #[test]
    fn an_instance_keeps_its_number_and_names_with_a_space_are_refused() {
        let mut peers = Peers::default();
        let a = peers.intern(b"a").unwrap();
        assert_ne!(peers.intern(b"b"), Some(a));
        assert_eq!(peers.intern(b"a"), Some(a));
        assert_eq!(&peers.name(a)[..], b"a");
        assert_eq!(peers.intern(b"a b"), None);
        assert_eq!(peers.intern(b""), None);
    }
}
