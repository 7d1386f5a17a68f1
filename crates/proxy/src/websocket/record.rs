// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the handler knows of one WebSocket by its backend, so that a successor of the handler can be told again.

use grip::filter::Filter;
use grip::websocket::control::Control;
use zhttp::recovery::MAX_RECORD;

/// What an entry takes beside its message, about.
const ENTRY: usize = 48;

/// What is to be said again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A channel of the target.
    Channel(Box<str>),
    /// A control message of the backend.
    Instruction(Box<[u8]>),
}

/// What a message is about: a later one about the same takes its place.
#[derive(Clone, Debug, PartialEq, Eq)]
enum About {
    Route(Box<str>),
    Channel(Box<str>),
    Meta(Box<str>),
    KeepAlive,
    Session,
    /// Nothing that lasts: it is said again until the handler has answered the request of this number.
    Once(Option<u64>),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Record {
    entries: Vec<Entry>,
    bytes: usize,
    /// The number of the last message that has come from the handler.
    pub run: u64,
}

#[derive(Debug)]
struct Entry {
    about: About,
    said: Said,
    asks: bool,
}

impl Record {
    /// Notes a channel of the target.
    pub fn subscribe(&mut self, channel: &str) {
        self.put(About::Route(channel.into()), Some(Said::Channel(channel.into())), false);
    }

    /// Notes a control message, which the handler is asked under this number to act by, or will be. What can not be read has no
    /// effect.
    pub fn instruct(&mut self, message: &[u8], number: Option<u64>) {
        let mut asks = false;
        let (about, lasts) = match Control::read(message) {
            Ok(Control::Subscribe { channel, filters }) => {
                // What is under way for filters that ask is lost with the handler, so their WebSockets end with it.
                asks = filters.iter().any(|filter| Filter::parse(filter).is_some_and(Filter::asks));
                (About::Channel(channel.into()), true)
            }
            Ok(Control::Unsubscribe { channel }) => (About::Channel(channel.into()), false),
            Ok(Control::SetMeta { name, value }) => (About::Meta(name.into()), value.is_some()),
            Ok(Control::KeepAlive(keep_alive)) => (About::KeepAlive, keep_alive.is_some()),
            Ok(Control::Session { id }) => (About::Session, id.is_some()),
            Ok(Control::Detach | Control::SendDelayed { .. } | Control::FlushDelayed) => {
                return self.push(About::Once(number), Said::Instruction(message.into()), asks);
            }
            Err(_) => return,
        };
        self.put(about, lasts.then(|| Said::Instruction(message.into())), asks);
    }

    /// The handler has answered the request of this number. Whether that makes a difference.
    pub fn answered(&mut self, number: u64) -> bool {
        let at = self.entries.iter().position(|entry| entry.about == About::Once(Some(number)));
        at.is_some_and(|at| {
            self.remove(at);
            true
        })
    }

    fn put(&mut self, about: About, said: Option<Said>, asks: bool) {
        if let Some(at) = self.entries.iter().position(|entry| entry.about == about) {
            self.remove(at);
        }
        if let Some(said) = said {
            self.push(about, said, asks);
        }
    }

    fn push(&mut self, about: About, said: Said, asks: bool) {
        self.bytes += weight(&said);
        self.entries.push(Entry { about, said, asks });
    }

    fn remove(&mut self, at: usize) {
        self.bytes -= weight(&self.entries.remove(at).said);
    }

    /// Gives up room for further entries.
    pub fn rest(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// What a predecessor has noted, and the number of the last message that has come from the handler.
    pub fn restore(said: impl Iterator<Item = Said>, run: u64) -> Self {
        let mut record = Record { run, ..Record::default() };
        for said in said {
            match said {
                Said::Channel(channel) => record.subscribe(&channel),
                Said::Instruction(message) => record.instruct(&message, None),
            }
        }
        record
    }

    /// Whether a successor can go on with it.
    pub fn is_enough(&self) -> bool {
        self.bytes <= MAX_RECORD && !self.entries.iter().any(|entry| entry.asks)
    }

    /// What is to be said again, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Said> {
        self.entries.iter().map(|entry| &entry.said)
    }

    /// Says all of it again, in order; `say` gives the number of the request.
    pub fn repeat(&mut self, mut say: impl FnMut(&Said) -> u64) {
        for entry in &mut self.entries {
            let number = say(&entry.said);
            if let About::Once(asked) = &mut entry.about {
                *asked = Some(number);
            }
        }
    }
}

fn weight(said: &Said) -> usize {
    ENTRY
        + match said {
            Said::Channel(channel) => channel.len(),
            Said::Instruction(message) => message.len(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(record: &Record) -> Vec<String> {
        let text = |said: &Said| match said {
            Said::Channel(channel) => channel.to_string(),
            Said::Instruction(message) => String::from_utf8_lossy(message).into_owned(),
        };
        record.iter().map(text).collect()
    }

    #[test]
    fn what_lasts_is_kept_once_and_in_order() {
        let mut record = Record::default();
        record.subscribe("a");
        let [plain, filtered] = ["[]", r#"["skip-self"]"#]
            .map(|filters| format!(r#"{{"type":"subscribe","channel":"a","filters":{filters}}}"#));
        let meta = |value| format!(r#"{{"type":"set-meta","name":"user","value":{value}}}"#);
        let session = r#"{"type":"session","id":"s"}"#.to_string();
        for message in [&plain, &meta(r#""x""#), &session, &filtered, &meta(r#""y""#)] {
            record.instruct(message.as_bytes(), None);
        }
        record.instruct(b"{", None);
        assert_eq!(said(&record), ["a".to_string(), session, filtered, meta(r#""y""#)]);
        record.instruct(br#"{"type":"unsubscribe","channel":"a"}"#, None);
        record.instruct(br#"{"type":"set-meta","name":"user"}"#, None);
        record.instruct(br#"{"type":"session"}"#, None);
        assert_eq!(said(&record), ["a"]);
    }

    #[test]
    fn what_does_not_last_is_kept_in_its_place_until_it_has_been_answered() {
        let mut record = Record::default();
        let delayed = r#"{"type":"send-delayed","message-type":"text","content":"x"}"#;
        let flush = r#"{"type":"flush-delayed"}"#;
        record.instruct(delayed.as_bytes(), Some(1));
        record.subscribe("a");
        record.instruct(flush.as_bytes(), Some(3));
        record.instruct(delayed.as_bytes(), None);
        assert_eq!(said(&record), [delayed, "a", flush, delayed]);
        assert!(record.answered(1) && !record.answered(1) && !record.answered(2));
        let mut number = 10;
        record.repeat(|_| {
            number += 1;
            number
        });
        assert!(!record.answered(3) && record.answered(12) && record.answered(13));
        assert_eq!(said(&record), ["a"]);
        assert_eq!(record.bytes, weight(&Said::Channel("a".into())));
    }

    #[test]
    fn one_that_is_too_long_fits_again_when_it_has_become_shorter() {
        let mut record = Record::default();
        let about = |verb: &str, number: &usize| format!(r#"{{"type":"{verb}","channel":"{number}"}}"#);
        let count = (0..).take_while(|number| {
            record.instruct(about("subscribe", number).as_bytes(), None);
            record.is_enough()
        });
        let count = count.count();
        assert!((40..100).contains(&count), "{count}");
        record.instruct(about("unsubscribe", &0).as_bytes(), None);
        assert!(record.is_enough());
        record.instruct(br#"{"type":"subscribe","channel":"1","filters":["skip-self","http-check"]}"#, None);
        assert!(!record.is_enough());
    }
}
