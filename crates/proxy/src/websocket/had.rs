// SPDX-License-Identifier: AGPL-3.0-or-later
//! Which published messages the handler has sent to WebSockets, so that its successor sends them to nobody again.

use std::collections::VecDeque;
use std::rc::Rc;

use rpc::ws_control::Mark;
use zhttp::Run;

/// Messages that are remembered.
const MAX_MESSAGES: usize = 1024;
/// Bytes of their channels and ids.
const MAX_BYTES: usize = 128 * 1024;

/// A message of the handler, shared by all that is sent because of it.
pub type Named = Rc<Mark<'static>>;

/// The same for a message that may be forgotten.
pub fn named(mark: &Mark<'_>) -> Named {
    let (channel, id) = (mark.channel.clone().into_owned(), mark.id.clone().into_owned());
    Rc::new(Mark { run: mark.run, channel, id, first: 0, count: 0 })
}

/// As a packet says which message it has: nothing, and nothing is allocated, where nobody wants to know.
pub fn run_items(mark: &Mark<'_>) -> Vec<u8> {
    let mut items = Vec::new();
    if let (Ok(channel), Ok(id), false) =
        (std::str::from_utf8(&mark.channel), std::str::from_utf8(&mark.id), mark.id.is_empty())
    {
        Run::push(&mut items, channel, id);
    }
    items
}

/// See the module.
#[derive(Debug, Default)]
pub struct Had {
    /// In order.
    messages: VecDeque<Mark<'static>>,
    bytes: usize,
}

impl Had {
    /// A message has come, or a further part of one; of those without an id nothing can be said again.
    pub fn note(&mut self, mark: &Mark<'_>) {
        let later = self.messages.iter().rev().take_while(|known| known.run > mark.run).count();
        let at = self.messages.len() - later;
        let is_known = at.checked_sub(1).is_some_and(|before| self.messages[before].run == mark.run);
        if is_known || mark.id.is_empty() {
            return;
        }
        self.bytes += mark.channel.len() + mark.id.len();
        let (channel, id) = (mark.channel.clone().into_owned(), mark.id.clone().into_owned());
        self.messages.insert(at, Mark { run: mark.run, channel, id, first: 0, count: 0 });
        while self.messages.len() > MAX_MESSAGES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.messages.pop_front() else { return };
            self.bytes -= oldest.channel.len() + oldest.id.len();
        }
    }

    /// All of them, in order.
    pub fn marks(&self) -> Vec<Mark<'static>> {
        self.messages.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_messages_are_remembered_each_once() {
        let mut had = Had::default();
        for run in 0..3000_u64 {
            let id = run.to_string().into_bytes();
            let mark = Mark { run, channel: b"c".into(), id: id.as_slice().into(), first: 0, count: 1 };
            had.note(&mark);
            had.note(&mark);
        }
        let runs: Vec<u64> = had.marks().iter().map(|mark| mark.run).collect();
        assert_eq!(runs, (3000 - 1024..3000).collect::<Vec<_>>());
        let id = vec![b'x'; MAX_BYTES];
        had.note(&Mark { run: 3000, channel: b"c".into(), id: id.as_slice().into(), first: 0, count: 1 });
        assert!(had.marks().is_empty());
    }
}
