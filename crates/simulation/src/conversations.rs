// SPDX-License-Identifier: AGPL-3.0-or-later
//! WebSockets as their backend sees them: a row of requests for each, with events. The backend outlives outbound processes.
//!
//! To `OPEN` on `/socket/ID/a,b` it answers that the client is subscribed to the channels a and b. The client's messages are
//! numbered from 1 on: each third is answered, each fifth leads to the channel c, and `bye` is answered with a close.

use std::collections::BTreeMap;

use bytes::Bytes;
use grip::websocket::events::{self, CONTENT_TYPE, Event, Events, Status};

/// The header by which a client learns how its backend calls it.
pub const NAME: &str = "X-Name";
/// Each so many messages of a client are answered.
pub const ANSWERED: u64 = 3;
/// Each so many of them are answered at length.
const LONG: u64 = 9;
/// Each so many lead to a further channel.
const JOINS: u64 = 5;

/// Headers of an answer, and its body.
pub type Answer = (Vec<(String, String)>, Vec<u8>);

/// What a request says of a WebSocket, beside its events.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The proxy's name for it.
    pub name: String,
    /// So many bytes of the events may have come before.
    pub uncertain: Option<usize>,
}

/// One WebSocket.
#[derive(Debug, Default)]
struct Conversation {
    /// The last message that has come.
    heard: u64,
    /// The backend has been told that it has ended.
    is_over: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Conversations(BTreeMap<String, Conversation>);

impl Conversations {
    /// Messages that have come by a WebSocket.
    pub fn heard(&self, name: &str) -> u64 {
        self.0.get(name).map_or(0, |conversation| conversation.heard)
    }

    /// Whether the backend has been told that a WebSocket has ended.
    pub fn is_over(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|conversation| conversation.is_over)
    }

    /// Takes the events of a request; gives the answer.
    pub fn answer(&mut self, channels: &str, asked: &Asked, body: &[u8]) -> Answer {
        let mut headers = vec![("Content-Type".to_string(), CONTENT_TYPE.to_string())];
        let (mut answers, mut before) = (Vec::new(), 0);
        for event in Events::new(Bytes::copy_from_slice(body)) {
            let event = event.expect("the proxy sends events");
            let may_be_known = asked.uncertain.is_some_and(|bytes| before < bytes || event == Event::Open);
            before += event.len();
            if event == Event::Open {
                let former = self.0.insert(asked.name.clone(), Conversation::default());
                assert!(former.is_none() || may_be_known, "{} is opened twice", asked.name);
                headers.push(("Sec-WebSocket-Extensions".into(), "grip".into()));
                headers.push((NAME.into(), asked.name.clone()));
                answers.push(Event::Open);
                answers.extend(channels.split(',').map(subscribe));
                answers.push(text("m:hello".into()));
                continue;
            }
            let conversation = self.0.get_mut(&asked.name).expect("events come behind OPEN");
            match event {
                Event::Text(content) => {
                    let content = String::from_utf8(content.to_vec()).expect("messages are text");
                    conversation.on_message(&content, may_be_known, &mut answers);
                }
                Event::Close(status) => {
                    conversation.is_over = true;
                    answers.push(Event::Close(status));
                }
                Event::Disconnect => conversation.is_over = true,
                event => panic!("no client sends {event:?}"),
            }
        }
        (headers, events::encode(&answers).to_vec())
    }
}

impl Conversation {
    /// `may_be_known`: the request says that it may have come before.
    fn on_message(&mut self, content: &str, may_be_known: bool, answers: &mut Vec<Event>) {
        let (number, rest) = content.split_once(',').unwrap_or((content, ""));
        let number: u64 = number.parse().expect("messages have numbers");
        assert!(number <= self.heard + 1, "message {number} of a client comes behind {}", self.heard);
        assert!(number > self.heard || may_be_known, "message {number} of a client comes twice, and nothing says so");
        self.heard = self.heard.max(number);
        if number.is_multiple_of(ANSWERED) {
            answers.push(text(answer_to(number)));
        }
        if is_joining(number) {
            answers.push(subscribe("c"));
        }
        if rest == "bye" {
            answers.push(Event::Close(Some(Status { code: 1000, reason: Bytes::new() })));
        }
    }
}

/// What a message is answered with, if it is.
pub fn answer_to(number: u64) -> String {
    let length = if number.is_multiple_of(LONG) { 1_500 } else { 5 };
    format!("m:answer,{number},{}", "y".repeat(length))
}

/// Whether a message leads to a further channel.
pub fn is_joining(number: u64) -> bool {
    number.is_multiple_of(JOINS)
}

fn text(content: String) -> Event {
    Event::Text(content.into())
}

fn subscribe(channel: &str) -> Event {
    text(format!(r#"c:{{"type":"subscribe","channel":"{channel}"}}"#))
}
