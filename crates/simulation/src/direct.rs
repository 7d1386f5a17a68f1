// SPDX-License-Identifier: AGPL-3.0-or-later
//! WebSockets that the backend speaks itself, each on a connection of its own: every byte of the client's must come once and in order.
//!
//! On `/direct/ID/a,b` it says that the client is subscribed to the channels a and b. The client's messages are numbered from 1 on:
//! each third is answered, each fifth leads to the channel c, and `bye` is answered with a close.

use std::collections::BTreeMap;

use wire::websocket::{Header, Opcode, Role, write_close};

use crate::conversations::{ANSWERED, answer_to, is_joining};
use crate::messages::{Heard, Messages};

/// The body of a client's message.
pub fn padding(number: u64) -> String {
    "p".repeat(if number.is_multiple_of(7) { 1_700 } else { (number % 5) as usize })
}

/// What is known of one.
#[derive(Debug, Default)]
struct Known {
    /// The last message that has come.
    heard: u64,
    /// The client has closed, or the connection has ended.
    is_over: bool,
}

/// All of them, by their names.
#[derive(Debug, Default)]
pub struct Directs(BTreeMap<String, Known>);

impl Directs {
    /// Messages that have come by one.
    pub fn heard(&self, name: &str) -> Option<u64> {
        self.0.get(name).map(|known| known.heard)
    }

    /// Whether one has ended.
    pub fn is_over(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|known| known.is_over)
    }

    /// One ends.
    pub fn end(&mut self, name: &str) {
        self.0.entry(name.to_string()).or_default().is_over = true;
    }

    /// Opens one; gives it, and what it begins with.
    pub fn open(&mut self, name: &str, channels: &str) -> (Direct, Vec<u8>) {
        self.0.insert(name.to_string(), Known::default());
        let mut direct = Direct {
            name: name.to_string(),
            messages: Messages::of(Role::Server),
            close_sent: false,
            close_received: false,
        };
        let mut out = Vec::new();
        for channel in channels.split(',') {
            direct.say(&subscription(channel), &mut out);
        }
        direct.say("m:hello", &mut out);
        (direct, out)
    }
}

fn subscription(channel: &str) -> String {
    format!(r#"c:{{"type":"subscribe","channel":"{channel}"}}"#)
}

/// One, as its connection has it.
pub struct Direct {
    /// What the client knows it by.
    pub name: String,
    messages: Messages,
    close_sent: bool,
    close_received: bool,
}

impl Direct {
    /// Whether both sides have closed.
    pub fn is_closed(&self) -> bool {
        self.close_sent && self.close_received
    }

    /// Bytes have come; what is to be said is added to `out`.
    pub fn on_bytes(&mut self, buffer: &mut Vec<u8>, out: &mut Vec<u8>, directs: &mut Directs) {
        for heard in self.messages.read(buffer) {
            match heard {
                Heard::Message(message) => self.on_message(&message, out, directs),
                Heard::Close { code, .. } => {
                    self.close_received = true;
                    directs.end(&self.name);
                    self.close(code.unwrap_or(1000), out);
                }
            }
        }
    }

    fn on_message(&mut self, content: &str, out: &mut Vec<u8>, directs: &mut Directs) {
        let mut parts = content.splitn(3, ',');
        let number: u64 = parts.next().and_then(|number| number.parse().ok()).expect("messages have numbers");
        let known = directs.0.entry(self.name.clone()).or_default();
        assert_eq!(number, known.heard + 1, "messages of {} come once and in order", self.name);
        assert_eq!(parts.next(), Some(&*padding(number)), "message {number} of {} is not what was sent", self.name);
        known.heard = number;
        if self.close_sent {
            return;
        }
        if number.is_multiple_of(ANSWERED) {
            self.say(&answer_to(number), out);
        }
        if is_joining(number) {
            self.say(&subscription("c"), out);
        }
        if parts.next() == Some("bye") {
            self.close(1000, out);
        }
    }

    fn say(&mut self, text: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(&Header::whole(Opcode::Text).encode(text.len()));
        out.extend_from_slice(text.as_bytes());
    }

    fn close(&mut self, code: u16, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.close_sent, true) {
            write_close(Some((code, "")), None, out);
        }
    }
}
