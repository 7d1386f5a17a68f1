// SPDX-License-Identifier: AGPL-3.0-or-later
//! Frontends that may not have got all that publishers have been told is published: they did not keep up, the link to them was cut, or
//! they have not been heard since this process began to publish. If it ends now, what they have kept has a hole, and a
//! successor must not go on with it. It can not know that from them, so it is left for it in a file, before publishers get
//! their answers.

use std::collections::BTreeSet;

/// Bytes that are read of the file. A name has 64 at most.
pub const MAX_FILE: u64 = 64 * 1024;
/// Names that are kept of frontends whose link was cut and that were not heard again. They are small, and each is a process that
/// has hung.
const MAX_NAMES: usize = 256;
/// The first line of a file that names those who have got everything; none of the others has.
const ONLY: &[u8] = b"*";

/// See the module. Methods that change what a successor must know return whether they did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrears {
    /// Whether `names` are those who have got everything, and not the others.
    only: bool,
    /// Latest last.
    names: Vec<Vec<u8>>,
    /// Those who will have got everything when nothing waits for them.
    clearing: BTreeSet<Vec<u8>>,
}

impl Arrears {
    /// What a predecessor has left.
    pub fn read(file: &[u8]) -> Self {
        let mut lines = file.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).peekable();
        let only = lines.next_if(|line| *line == ONLY).is_some();
        Arrears { only, names: lines.map(<[u8]>::to_vec).collect(), clearing: BTreeSet::new() }
    }

    /// What is left for a successor: a name a line.
    pub fn file(&self) -> Vec<u8> {
        let lines = self.only.then_some(ONLY).into_iter().chain(self.names.iter().map(Vec::as_slice));
        lines.flat_map(|line| [line, b"\n"]).flatten().copied().collect()
    }

    /// Whether all frontends have got everything.
    pub fn is_empty(&self) -> bool {
        !self.only && self.names.is_empty()
    }

    /// Whether nothing can change by itself.
    pub fn is_settled(&self) -> bool {
        self.clearing.is_empty()
    }

    /// Whether a frontend has got everything.
    pub fn trusts(&self, name: &[u8]) -> bool {
        self.names.iter().any(|known| known == name) == self.only
    }

    fn set(&mut self, name: &[u8], trusted: bool) -> bool {
        if self.trusts(name) == trusted {
            return false;
        }
        if trusted == self.only {
            self.names.push(name.to_vec());
            if !self.only && self.names.len() > MAX_NAMES {
                self.names.remove(0);
            }
        } else {
            self.names.retain(|known| known != name);
        }
        true
    }

    /// Publishers are told that they need not wait for this frontend, for which something waits.
    pub fn add_waiting(&mut self, name: &[u8]) -> bool {
        self.clearing.insert(name.to_vec());
        self.set(name, false)
    }

    /// The link to this frontend is cut.
    pub fn add_cut(&mut self, name: &[u8]) -> bool {
        self.clearing.remove(name);
        self.set(name, false)
    }

    /// A frontend has told all that it has kept, and what can not go on is being ended.
    pub fn on_heard(&mut self, name: &[u8]) {
        if !self.trusts(name) {
            self.clearing.insert(name.to_vec());
        }
    }

    /// A frontend is gone with its clients.
    pub fn on_gone(&mut self, name: &[u8]) -> bool {
        self.clearing.remove(name);
        let before = self.names.len();
        self.names.retain(|known| known != name);
        self.names.len() < before
    }

    /// From now on messages are published. Who has not been heard misses them, unless all have been.
    pub fn begin(&mut self, heard: &[&[u8]], all: bool) -> bool {
        let before = (self.only, self.names.clone());
        let (trusted, others): (Vec<&[u8]>, Vec<&[u8]>) = heard.iter().partition(|name| self.trusts(name));
        self.only = !all;
        self.names = if all { others } else { trusted }.into_iter().map(<[u8]>::to_vec).collect();
        (self.only, &self.names) != (before.0, &before.1)
    }

    /// Looks whether frontends have caught up for which something has waited.
    pub fn settle(&mut self, waits: impl Fn(&[u8]) -> bool) -> bool {
        let (waiting, clear) = std::mem::take(&mut self.clearing).into_iter().partition(|name| waits(name));
        self.clearing = waiting;
        let clear: BTreeSet<Vec<u8>> = clear;
        clear.iter().filter(|name| self.set(name, true)).count() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusts(arrears: &Arrears, names: [&[u8]; 3]) -> [bool; 3] {
        let read = Arrears::read(&arrears.file());
        names.map(|name| read.trusts(name))
    }

    const ABC: [&[u8]; 3] = [b"a", b"b", b"c"];

    #[test]
    fn a_successor_reads_who_has_not_got_everything() {
        let mut arrears = Arrears::default();
        assert_eq!((arrears.file(), trusts(&arrears, ABC)), (Vec::new(), [true; 3]));
        assert!(arrears.add_waiting(b"a") && arrears.add_cut(b"b"));
        assert!(!arrears.add_waiting(b"a") && !arrears.add_cut(b"b"), "the file says so already");
        assert_eq!(trusts(&arrears, ABC), [false, false, true]);
        assert!(!arrears.settle(|_| true));
        assert!(arrears.settle(|_| false));
        assert_eq!(trusts(&arrears, ABC), [true, false, true], "a link that was cut is not whole again by itself");
        arrears.on_heard(b"b");
        assert!(!arrears.settle(|_| true), "what ends its sessions has not left");
        assert!(arrears.settle(|_| false) && arrears.is_empty());
    }

    #[test]
    fn who_was_not_heard_before_messages_were_published_misses_them() {
        let mut arrears = Arrears::default();
        assert!(arrears.begin(&[b"a"], false));
        assert_eq!(trusts(&arrears, ABC), [true, false, false]);
        arrears.on_heard(b"b");
        assert!(arrears.settle(|_| false));
        assert_eq!(trusts(&arrears, ABC), [true, true, false]);
        assert!(arrears.add_waiting(b"a"));
        assert_eq!(trusts(&arrears, ABC), [false, true, false]);
        // The successor hears all three, and ends what c has.
        let mut successor = Arrears::read(&arrears.file());
        assert!(successor.begin(&ABC, true));
        assert_eq!(trusts(&successor, ABC), [false, true, false]);
        ABC.into_iter().for_each(|name| successor.on_heard(name));
        assert!(successor.settle(|_| false) && successor.is_empty());
    }

    #[test]
    fn what_is_gone_is_forgotten_and_there_is_a_bound_to_the_rest() {
        let mut arrears = Arrears::default();
        arrears.add_cut(b"a");
        assert!(arrears.on_gone(b"a") && arrears.is_empty());
        for number in 0..1000 {
            arrears.add_cut(number.to_string().as_bytes());
        }
        assert_eq!(arrears.file().split(|&byte| byte == b'\n').count(), MAX_NAMES + 1);
        assert!(!arrears.trusts(b"999") && arrears.trusts(b"0"));
    }
}
