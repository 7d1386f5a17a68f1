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

    /// Notes a control message, if it has an effect that lasts. What can not be read has none.
    pub fn instruct(&mut self, message: &[u8]) {
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
            Ok(Control::Detach | Control::SendDelayed { .. } | Control::FlushDelayed) | Err(_) => return,
        };
        self.put(about, lasts.then(|| Said::Instruction(message.into())), asks);
    }

    fn put(&mut self, about: About, said: Option<Said>, asks: bool) {
        if let Some(at) = self.entries.iter().position(|entry| entry.about == about) {
            self.bytes -= weight(&self.entries.remove(at).said);
        }
        if let Some(said) = said {
            self.bytes += weight(&said);
            self.entries.push(Entry { about, said, asks });
        }
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
                Said::Instruction(message) => record.instruct(&message),
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
            record.instruct(message.as_bytes());
        }
        for message in [r#"{"type":"detach"}"#, r#"{"type":"send-delayed","message-type":"text","content":"x"}"#, "{"] {
            record.instruct(message.as_bytes());
        }
        assert_eq!(said(&record), ["a".to_string(), session, filtered, meta(r#""y""#)]);
        record.instruct(br#"{"type":"unsubscribe","channel":"a"}"#);
        record.instruct(br#"{"type":"set-meta","name":"user"}"#);
        record.instruct(br#"{"type":"session"}"#);
        assert_eq!(said(&record), ["a"]);
    }

    #[test]
    fn one_that_is_too_long_fits_again_when_it_has_become_shorter() {
        let mut record = Record::default();
        let about = |verb: &str, number: &usize| format!(r#"{{"type":"{verb}","channel":"{number}"}}"#);
        let count = (0..).take_while(|number| {
            record.instruct(about("subscribe", number).as_bytes());
            record.is_enough()
        });
        let count = count.count();
        assert!((40..100).contains(&count), "{count}");
        record.instruct(about("unsubscribe", &0).as_bytes());
        assert!(record.is_enough());
        record.instruct(br#"{"type":"subscribe","channel":"1","filters":["skip-self","http-check"]}"#);
        assert!(!record.is_enough());
    }
}
