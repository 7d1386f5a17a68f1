// SPDX-License-Identifier: AGPL-3.0-or-later
//! A client's WebSocket: every item of its channels must come once and in order, from when it was subscribed to them.

use std::collections::{BTreeMap, BTreeSet};

use wire::websocket::{Header, Opcode, Role, mask, write_close};

use crate::conversations::{ANSWERED, answer_to};
use crate::direct::padding;
use crate::facts::{Facts, Item};
use crate::messages::{Heard, Messages};

/// The client's mask. Any will do.
const MASK: [u8; 4] = [1, 2, 3, 4];

/// See the module.
pub struct Socket {
    /// How its backend calls it.
    pub name: String,
    /// How the [`facts`](crate::facts) call it.
    pub known_as: String,
    /// Its backend speaks WebSocket, so that every byte must come once.
    pub is_direct: bool,
    messages: Messages,
    buffer: Vec<u8>,
    /// What is to be sent.
    output: Vec<u8>,
    /// The last item that has come, of all channels and of each.
    last: u64,
    channels: BTreeMap<String, u64>,
    /// Messages that it has sent, and those of them that have been answered.
    pub sent: u64,
    answered: BTreeSet<u64>,
    /// It has closed by itself, or has asked the backend to.
    is_leaving: bool,
    close_sent: bool,
    /// The close that has come.
    pub closed: Option<Closed>,
}

/// A close frame for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Its code.
    pub code: u16,
    /// It came in the middle of a message.
    pub torn: bool,
}

impl Socket {
    /// One that has just been opened, by the name that its backend has for it.
    pub fn new(name: &str) -> Self {
        Socket {
            name: name.to_string(),
            known_as: name.to_string(),
            is_direct: false,
            messages: Messages::of(Role::Client),
            buffer: Vec::new(),
            output: Vec::new(),
            last: 0,
            channels: BTreeMap::new(),
            sent: 0,
            answered: BTreeSet::new(),
            is_leaving: false,
            close_sent: false,
            closed: None,
        }
    }

    /// The same with a backend that speaks WebSocket.
    pub fn direct(name: &str, known_as: &str) -> Self {
        Socket { known_as: known_as.to_string(), is_direct: true, ..Socket::new(name) }
    }

    /// Sends the next message; the last one if `bye`, whose answer is a close.
    pub fn say(&mut self, bye: bool) {
        self.sent += 1;
        self.is_leaving |= bye;
        let padding = if self.is_direct { format!(",{}", padding(self.sent)) } else { String::new() };
        let mut content = format!("{}{padding}{}", self.sent, if bye { ",bye" } else { "" }).into_bytes();
        let header = Header { key: Some(MASK), ..Header::whole(Opcode::Text) };
        self.output.extend_from_slice(&header.encode(content.len()));
        mask(&mut content, MASK, 0);
        self.output.extend_from_slice(&content);
    }

    /// Closes.
    pub fn close(&mut self) {
        self.is_leaving = true;
        self.answer_close();
    }

    fn answer_close(&mut self) {
        if !std::mem::replace(&mut self.close_sent, true) {
            write_close(Some((1000, "")), Some(MASK), &mut self.output);
        }
    }

    /// What is to be sent.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Whether the client may say more.
    pub fn may_speak(&self) -> bool {
        !self.is_leaving && !self.close_sent && self.closed.is_none()
    }

    /// Whether its end is its own wish.
    pub fn is_leaving_by_itself(&self) -> bool {
        self.is_leaving
    }

    /// Bytes have come.
    pub fn on_bytes(&mut self, bytes: &[u8], facts: &Facts) {
        self.buffer.extend_from_slice(bytes);
        for heard in self.messages.read(&mut self.buffer) {
            match heard {
                Heard::Message(message) => self.take_message(&message, facts),
                Heard::Close { code, torn } => {
                    self.closed = Some(Closed { code: code.unwrap_or(0), torn });
                    self.answer_close();
                }
            }
        }
    }

    fn take_message(&mut self, message: &str, facts: &Facts) {
        if message == "hello" {
            return;
        }
        if let Some(answer) = message.strip_prefix("answer,") {
            let number = answer.split(',').next().and_then(|number| number.parse().ok()).expect("answers have numbers");
            assert!(number <= self.sent, "an answer to message {number}, where {} were sent", self.sent);
            if self.is_direct {
                let last = self.answered.last().copied().unwrap_or(0);
                assert_eq!(number, last + ANSWERED, "answers of {} come once and in order", self.name);
                assert_eq!(answer_to(number).strip_prefix("m:"), Some(message), "an answer is not what was sent");
            }
            self.answered.insert(number);
            return;
        }
        let Item { global, channel, number } = Item::read(message).expect("items were published");
        // Published before it was subscribed to the channel, by a handler that has died, and again afterwards: it gets only what it lacks of
        // such an order.
        let is_again = facts.subscribed(&self.known_as, channel).is_some_and(|known| number <= known);
        let is_behind = global > self.last || is_again;
        assert!(is_behind, "item {global} comes after {}: the order of publishing is lost", self.last);
        self.last = self.last.max(global);
        let last = self.channels.entry(channel.to_string()).or_default();
        let before = facts.subscribed(&self.known_as, channel).map_or(number, |known| known.max(*last));
        let gap = number > before + 1 && !facts.may_be_missed(channel, number - 1);
        assert!(!gap && number > *last, "of channel {channel}, item {number} comes after {last} ({before} are known)");
        *last = number;
    }

    /// What has not come, though nobody has more to send.
    pub fn missing(&self, facts: &Facts) -> Vec<String> {
        let items = facts.subscriptions(&self.known_as).filter_map(|(channel, known)| {
            let last = self.channels.get(channel).copied().unwrap_or(0);
            let latest = facts.published(channel);
            let lacks = latest > known && last != latest && !facts.may_be_missed(channel, latest);
            lacks.then(|| format!("{channel}: {last} of {latest}, {known} before"))
        });
        let answers =
            (1..=self.sent).filter(|number| number.is_multiple_of(ANSWERED) && !self.answered.contains(number));
        items.chain(answers.map(|number| format!("the answer to message {number}"))).collect()
    }
}
