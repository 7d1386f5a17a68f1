// SPDX-License-Identifier: AGPL-3.0-or-later
//! Commands that only the proxy can answer in full: which connections are there, and whose backend is asked (control,
//! command socket). No I/O, no clock.
//!
//! The proxy is asked with a number, and its answer becomes the command's. One that does not come in time, or can not, is a
//! failure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rpc::call::{self, condition, failure};
use rpc::command::{ConnCheck, Refresh};
use rpc::{Octets, Reply};

/// How long the proxy may take, as in Pushpin.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Commands that may wait for the proxy; further ones fail.
pub const MAX: usize = 1_000;

/// What the proxy is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Which of `unknown` are there. The answer has those that are known here as well.
    Connections {
        /// Held here.
        known: Vec<Octets<'static>>,
        /// Not held here.
        unknown: Vec<Octets<'static>>,
    },
    /// To have the backend of this WebSocket asked.
    Refresh(Octets<'static>),
}

/// A command that waits.
struct Waiting<T> {
    asker: T,
    id: Option<Vec<u8>>,
    question: Question,
    until: Instant,
}

impl<T> Waiting<T> {
    fn answer(&self, reply: &Reply<'_>) -> Vec<u8> {
        let id = self.id.as_deref();
        match (&self.question, &reply.result) {
            (Question::Connections { known, .. }, Ok(value)) => {
                match tnetstring::from_item::<Vec<Octets<'_>>>(*value) {
                    Ok(there) => call::success(id, &[&known[..], &there].concat()).unwrap_or_default(),
                    Err(_) => self.fail(condition::PROXY_REQUEST_FAILED),
                }
            }
            (Question::Connections { .. }, Err(_)) => self.fail(condition::PROXY_REQUEST_FAILED),
            (Question::Refresh(_), Ok(_)) => call::success(id, &()).unwrap_or_default(),
            (Question::Refresh(_), Err(error)) => self.fail(&String::from_utf8_lossy(error.condition)),
        }
    }

    fn fail(&self, condition: &str) -> Vec<u8> {
        let condition = match self.question {
            Question::Connections { .. } => condition::PROXY_REQUEST_FAILED,
            Question::Refresh(_) => condition,
        };
        failure(self.id.as_deref(), condition, None)
    }

    fn give_up(self, condition: &str) -> (T, Vec<u8>) {
        let answer = self.fail(condition);
        (self.asker, answer)
    }
}

/// See the module.
pub struct Forwarded<T> {
    /// By number: the oldest first.
    waiting: BTreeMap<u64, Waiting<T>>,
    last: u64,
}

impl<T> Default for Forwarded<T> {
    fn default() -> Self {
        Forwarded { waiting: BTreeMap::new(), last: 0 }
    }
}

impl<T> Forwarded<T> {
    /// Asks the proxy by `send`. If that can not be, returns the asker and the answer.
    pub fn ask(
        &mut self,
        asker: T,
        id: Option<&[u8]>,
        question: Question,
        now: Instant,
        send: impl FnOnce(&[u8]) -> bool,
    ) -> Option<(T, Vec<u8>)> {
        self.last += 1;
        let number = self.last.to_string();
        let to_proxy = match &question {
            Question::Connections { unknown, .. } => {
                call::encode(None, Some(number.as_bytes()), &ConnCheck { ids: unknown.clone() })
            }
            Question::Refresh(cid) => {
                let asked = Refresh { cid: Some(cid.clone()), channel: None };
                call::encode(None, Some(number.as_bytes()), &asked)
            }
        };
        let waiting = Waiting { asker, id: id.map(<[u8]>::to_vec), question, until: now + DEADLINE };
        if self.waiting.len() >= MAX || !to_proxy.is_ok_and(|call| send(&call)) {
            return Some(waiting.give_up(condition::SERVICE_UNAVAILABLE));
        }
        self.waiting.insert(self.last, waiting);
        None
    }

    /// An answer of the proxy: who is to get what. `None` if nobody waits for it.
    pub fn on_reply(&mut self, reply: &Reply<'_>) -> Option<(T, Vec<u8>)> {
        let number = std::str::from_utf8(reply.id).ok()?.parse().ok()?;
        let waiting = self.waiting.remove(&number)?;
        let answer = waiting.answer(reply);
        Some((waiting.asker, answer))
    }

    /// The proxy is gone: nobody will answer.
    pub fn on_proxy_gone(&mut self) -> Vec<(T, Vec<u8>)> {
        let lost = std::mem::take(&mut self.waiting).into_values();
        lost.map(|waiting| waiting.give_up(condition::SERVICE_UNAVAILABLE)).collect()
    }

    /// Those whose time is over.
    pub fn expire(&mut self, now: Instant) -> Vec<(T, Vec<u8>)> {
        let mut over = Vec::new();
        while let Some(oldest) = self.waiting.first_entry()
            && oldest.get().until <= now
        {
            over.push(oldest.remove().give_up(condition::TIMEOUT));
        }
        over
    }

    /// When [`Forwarded::expire`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(_, waiting)| waiting.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections() -> Question {
        Question::Connections { known: vec![b"here".into()], unknown: vec![b"there".into(), b"nowhere".into()] }
    }

    fn refresh() -> Question {
        Question::Refresh(b"ws".into())
    }

    /// Asks, and tells what the proxy hears.
    fn ask(forwarded: &mut Forwarded<char>, asker: char, question: Question, now: Instant) -> String {
        let mut heard = String::new();
        let send = |call: &[u8]| {
            heard = String::from_utf8(call.to_vec()).unwrap();
            true
        };
        assert_eq!(forwarded.ask(asker, Some(b"7"), question, now, send), None);
        heard
    }

    fn text(answers: impl IntoIterator<Item = (char, Vec<u8>)>) -> Vec<(char, String)> {
        answers.into_iter().map(|(asker, answer)| (asker, String::from_utf8(answer).unwrap())).collect()
    }

    fn reply(forwarded: &mut Forwarded<char>, message: &[u8]) -> Vec<(char, String)> {
        text(forwarded.on_reply(&Reply::decode(message).unwrap()))
    }

    #[test]
    fn the_proxy_is_asked_for_what_is_not_known_here_and_its_answer_completes_ours() {
        let (mut forwarded, now) = (Forwarded::default(), Instant::now());
        let heard = ask(&mut forwarded, 'a', connections(), now);
        assert!(heard.contains("3:ids,18:5:there,7:nowhere,]"), "{heard}");
        assert!(ask(&mut forwarded, 'b', refresh(), now).contains("3:cid,2:ws,"));
        let success = |id: &[u8], value: &Vec<Octets<'_>>| call::success(Some(id), value).unwrap();
        let came = reply(&mut forwarded, &success(b"1", &vec![b"there".into()]));
        assert!(came[0].0 == 'a' && came[0].1.contains("5:value,15:4:here,5:there,]"), "{came:?}");
        assert_eq!(reply(&mut forwarded, &success(b"1", &Vec::new())), [], "it has been answered");
        assert_eq!(reply(&mut forwarded, &success(b"refresh", &Vec::new())), []);
        let came = reply(&mut forwarded, &success(b"2", &Vec::new()));
        assert!(came[0].0 == 'b' && came[0].1.contains("5:value,0:~"), "{came:?}");
        assert_eq!(forwarded.next_due(), None);
    }

    #[test]
    fn what_the_proxy_refuses_fails_with_its_words_or_ours() {
        let (mut forwarded, now) = (Forwarded::default(), Instant::now());
        ask(&mut forwarded, 'a', connections(), now);
        ask(&mut forwarded, 'b', refresh(), now);
        ask(&mut forwarded, 'c', connections(), now);
        for (number, expected) in [("1", "proxy-request-failed"), ("2", "item-not-found")] {
            let came = reply(&mut forwarded, &failure(Some(number.as_bytes()), "item-not-found", None));
            assert!(came[0].1.contains(expected) && came[0].1.contains("2:id,1:7,"), "{came:?}");
        }
        let came = reply(&mut forwarded, &call::success(Some(b"3"), &17).unwrap());
        assert!(came[0].1.contains("proxy-request-failed"), "{came:?}");
    }

    #[test]
    fn nobody_waits_for_ever_or_for_a_proxy_that_is_gone() {
        let (mut forwarded, now) = (Forwarded::default(), Instant::now());
        ask(&mut forwarded, 'a', connections(), now);
        ask(&mut forwarded, 'b', refresh(), now);
        assert_eq!(forwarded.next_due(), Some(now + DEADLINE));
        assert_eq!(forwarded.expire(now), []);
        let over = text(forwarded.expire(now + DEADLINE));
        assert!(over[0].1.contains("proxy-request-failed") && over[1].1.contains("7:timeout,"), "{over:?}");
        ask(&mut forwarded, 'c', refresh(), now);
        let lost = text(forwarded.on_proxy_gone());
        assert!(lost[0].0 == 'c' && lost[0].1.contains("service-unavailable"), "{lost:?}");
        assert_eq!(forwarded.next_due(), None);
    }

    #[test]
    fn only_so_many_wait_and_one_that_can_not_be_asked_fails_at_once() {
        let (mut forwarded, now) = (Forwarded::default(), Instant::now());
        let refused = text(forwarded.ask('x', None, connections(), now, |_| false));
        assert!(refused[0].1.contains("proxy-request-failed"), "{refused:?}");
        for _ in 0..MAX {
            ask(&mut forwarded, 'a', refresh(), now);
        }
        let refused = text(forwarded.ask('b', None, refresh(), now, |_| true));
        assert!(refused[0].0 == 'b' && refused[0].1.contains("service-unavailable"), "{refused:?}");
    }
}
