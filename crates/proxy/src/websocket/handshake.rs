// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a client has asked for, kept because later requests to its backend say it again.
//!
//! Clients of one kind say the same but for a key, a cookie and their addresses. So a handshake is kept as another one, which many
//! share, and what differs from that.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::ops::Range;
use std::rc::Rc;

use foldhash::fast::RandomState;
use zhttp::{Headers, Packet};

/// Fields before the headers.
const FIRST_HEADER: usize = 3;
/// What names a field that differs, and its length.
const ENTRY: usize = 6;

/// One client's handshake.
#[derive(Clone, Debug)]
pub struct Handshake {
    form: Rc<Form>,
    /// What differs: the number of the field in 2 bytes, the length of its text in 4, and the text.
    own: Box<[u8]>,
}

/// A whole handshake.
#[derive(Debug)]
struct Form {
    /// Its key in the table.
    key: u64,
    has_method: bool,
    has_address: bool,
    /// Method, address and URI, then name and value of each header.
    text: Box<[u8]>,
    /// Where each of them ends.
    ends: Box<[u32]>,
}

/// The handshakes that others are compared with: the last one of each kind of client.
#[derive(Default)]
pub struct Forms {
    known: HashMap<u64, Rc<Form>, RandomState>,
    hasher: RandomState,
}

fn fields<'a>(packet: &Packet<'a>) -> impl Iterator<Item = &'a [u8]> {
    let first: [&[u8]; FIRST_HEADER] = [packet.method, packet.peer_address, packet.uri].map(Option::unwrap_or_default);
    first.into_iter().chain(packet.headers.iter().flat_map(|(name, value)| [name, value]))
}

impl Forms {
    /// Keeps what a first packet says.
    pub fn keep(&mut self, packet: &Packet<'_>) -> Handshake {
        let key = self.kind(packet);
        if let Some(form) = self.known.get(&key)
            && let Some(own) = form.difference(packet)
        {
            return Handshake { form: form.clone(), own };
        }
        let form = Rc::new(Form::new(key, packet));
        self.known.insert(key, form.clone());
        Handshake { form, own: Box::default() }
    }

    /// Clients of one kind send headers of the same names in the same order, and name the same program.
    fn kind(&self, packet: &Packet<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        for (name, _) in packet.headers.iter() {
            name.hash(&mut hasher);
        }
        packet.headers.get("User-Agent").hash(&mut hasher);
        hasher.finish()
    }

    /// A handshake is about to go: if it is the last one of its form, nobody is compared with that any more.
    pub fn release(&mut self, handshake: &Handshake) {
        let form = &handshake.form;
        let is_last = |known: &Rc<Form>| Rc::ptr_eq(known, form) && Rc::strong_count(form) == 2;
        if self.known.get(&form.key).is_some_and(is_last) {
            self.known.remove(&form.key);
        }
    }
}

impl Form {
    fn new(key: u64, packet: &Packet<'_>) -> Self {
        let (mut text, mut ends) = (Vec::new(), Vec::new());
        for field in fields(packet) {
            text.extend_from_slice(field);
            // A packet has less than 4 GB.
            ends.push(text.len() as u32);
        }
        Form {
            key,
            has_method: packet.method.is_some(),
            has_address: packet.peer_address.is_some(),
            text: text.into(),
            ends: ends.into(),
        }
    }

    fn field(&self, number: usize) -> &[u8] {
        let end = |number: usize| self.ends.get(number).map_or(0, |end| *end as usize);
        let start = number.checked_sub(1).map_or(0, end);
        self.text.get(start..end(number)).unwrap_or_default()
    }

    /// What is different in a packet; none if that is so much that it can as well be the form of others.
    fn difference(&self, packet: &Packet<'_>) -> Option<Box<[u8]>> {
        let count = FIRST_HEADER + 2 * packet.headers.iter().count();
        let alike = self.has_method == packet.method.is_some()
            && self.has_address == packet.peer_address.is_some()
            && self.ends.len() == count
            && u16::try_from(count).is_ok();
        if !alike {
            return None;
        }
        let mut own = Vec::new();
        for (number, field) in fields(packet).enumerate() {
            if field != self.field(number) {
                own.extend_from_slice(&(number as u16).to_le_bytes());
                own.extend_from_slice(&(field.len() as u32).to_le_bytes());
                own.extend_from_slice(field);
            }
        }
        (own.len() <= self.text.len() / 2).then(|| own.into())
    }
}

impl Handshake {
    /// Does something with it, as it stood in the first packet.
    pub fn with<R>(&self, act: impl FnOnce(&Packet<'_>) -> R) -> R {
        let form = &*self.form;
        let mut values: Vec<&[u8]> = (0..form.ends.len()).map(|number| form.field(number)).collect();
        for (number, range) in self.own_fields() {
            if let (Some(value), Some(own)) = (values.get_mut(number), self.own.get(range)) {
                *value = own;
            }
        }
        let [method, address, uri] = [0, 1, 2].map(|number| values.get(number).copied().unwrap_or_default());
        let headers: Vec<(&[u8], &[u8])> =
            values.get(FIRST_HEADER..).unwrap_or_default().chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        act(&Packet {
            method: form.has_method.then_some(method),
            peer_address: form.has_address.then_some(address),
            uri: Some(uri),
            headers: Headers::Pairs(&headers),
            ..Packet::default()
        })
    }

    /// Numbers of the fields that differ, and where their texts are.
    fn own_fields(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let entry: &[u8; ENTRY] = self.own.get(at..)?.first_chunk()?;
            let [low, high, length @ ..] = *entry;
            let start = at + ENTRY;
            at = start + u32::from_le_bytes(length) as usize;
            Some((u16::from_le_bytes([low, high]).into(), start..at))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    fn with_packet<R>(uri: &str, address: Option<&str>, headers: Pairs<'_>, act: impl FnOnce(&Packet<'_>) -> R) -> R {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        act(&Packet {
            method: Some(b"GET"),
            uri: Some(uri.as_bytes()),
            peer_address: address.map(str::as_bytes),
            headers: Headers::Pairs(&headers),
            ..Packet::default()
        })
    }

    /// Keeps it, and sees that it is given back as it was.
    fn keep(forms: &mut Forms, uri: &str, address: Option<&str>, headers: Pairs<'_>) -> Handshake {
        with_packet(uri, address, headers, |packet| {
            let kept = forms.keep(packet);
            kept.with(|again| {
                assert_eq!(
                    (again.method, again.uri, again.peer_address),
                    (packet.method, packet.uri, packet.peer_address)
                );
                assert!(again.headers.iter().eq(packet.headers.iter()));
            });
            kept
        })
    }

    const AGENT: (&str, &str) =
        ("User-Agent", "a browser whose name is so long that it is not worth to be kept for each client");

    #[test]
    fn clients_of_a_kind_share_all_that_is_not_their_own() {
        let mut forms = Forms::default();
        let one = keep(&mut forms, "ws://h/a", Some("10.0.0.1"), &[AGENT, ("Key", "1"), ("Empty", "")]);
        let two = keep(&mut forms, "ws://h/b?token=x", Some("10.0.0.2"), &[AGENT, ("Key", "22"), ("Empty", "not")]);
        let same = keep(&mut forms, "ws://h/a", Some("10.0.0.1"), &[AGENT, ("Key", ""), ("Empty", "")]);
        assert!(Rc::ptr_eq(&one.form, &two.form) && Rc::ptr_eq(&one.form, &same.form));
        let own = ["10.0.0.2", "ws://h/b?token=x", "22", "not"].map(|field| ENTRY + field.len());
        assert_eq!((one.own.len(), two.own.len(), same.own.len()), (0, own.iter().sum(), ENTRY));
    }

    #[test]
    fn clients_of_different_kinds_share_nothing() {
        let mut forms = Forms::default();
        let one = keep(&mut forms, "ws://h/a", Some("10.0.0.1"), &[AGENT, ("Key", "1")]);
        for other in [
            keep(&mut forms, "ws://h/a", Some("10.0.0.1"), &[AGENT, ("Kex", "1")]),
            keep(&mut forms, "ws://h/a", Some("10.0.0.1"), &[("Key", "1"), AGENT]),
            keep(&mut forms, "ws://h/a", Some("10.0.0.1"), &[AGENT, ("Key", "1"), ("Key", "1")]),
            keep(&mut forms, "ws://h/a", Some("10.0.0.1"), &[("User-Agent", "other"), ("Key", "1")]),
            keep(&mut forms, "ws://h/a", None, &[AGENT, ("Key", "1")]),
        ] {
            assert!(!Rc::ptr_eq(&one.form, &other.form));
        }
    }

    #[test]
    fn what_differs_much_becomes_the_form_of_the_next() {
        let mut forms = Forms::default();
        let long = "x".repeat(200);
        keep(&mut forms, "ws://h/a", None, &[AGENT, ("Key", "1")]);
        let two = keep(&mut forms, "ws://h/a", None, &[AGENT, ("Key", &long)]);
        let three = keep(&mut forms, "ws://h/b", None, &[AGENT, ("Key", &long)]);
        assert!(two.own.is_empty() && Rc::ptr_eq(&two.form, &three.form));
    }

    #[test]
    fn a_form_goes_with_the_last_handshake_that_has_it() {
        let mut forms = Forms::default();
        let kept = ["1", "2"].map(|key| keep(&mut forms, "ws://h/a", None, &[AGENT, ("Key", key)]));
        for (handshake, left) in kept.into_iter().zip([1, 0]) {
            forms.release(&handshake);
            drop(handshake);
            assert_eq!(forms.known.len(), left);
        }
    }
}
