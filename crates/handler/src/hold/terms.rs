// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a backend has asked for, in the form in which holds keep it.
//!
//! Thousands of holds usually have the same instruct but for their channels, so they share their terms. What is needed
//! only once, the beginning of a stream, is not part of them; see [`opening`](super::opening).

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use grip::cross_origin::CrossOrigin;
use grip::{HoldMode, Instruct, KeepAliveMode};

use super::opening::{Head, Opening};

/// How a request is held.
#[derive(Clone, Debug)]
pub enum Terms {
    /// Long-poll.
    Response(Rc<ResponseTerms>),
    /// Streaming.
    Stream(Rc<StreamTerms>),
}

impl Terms {
    /// Which of the two.
    pub fn mode(&self) -> HoldMode {
        match self {
            Terms::Response(_) => HoldMode::Response,
            Terms::Stream(_) => HoldMode::Stream,
        }
    }
}

/// What long-polls with the same instruct have in common.
#[derive(Debug, PartialEq)]
pub struct ResponseTerms {
    /// What is answered when nothing comes, and what a published response changes.
    pub response: Opening,
    /// How long a long-poll waits.
    pub timeout: Duration,
    /// What makes the answer fit for scripts of other sites.
    pub cross_origin: Option<CrossOrigin>,
}

/// What streams with the same instruct have in common.
#[derive(Debug, PartialEq)]
pub struct StreamTerms {
    /// What a silent stream sends.
    pub keep_alive: Option<KeepAlive>,
}

/// What a silent stream sends, and when.
#[derive(Debug, PartialEq)]
pub struct KeepAlive {
    /// The bytes.
    pub data: Bytes,
    /// Time between them.
    pub timeout: Duration,
    /// What counts as silence.
    pub mode: KeepAliveMode,
}

/// The terms in use lately, so that equal ones are kept once.
#[derive(Default)]
pub struct Recent {
    responses: Vec<Rc<ResponseTerms>>,
    streams: Vec<Rc<StreamTerms>>,
}

/// Backends have few endpoints that hold; more different terms than this are simply not shared.
const MAX_RECENT: usize = 16;
/// Bytes of a response that is worth remembering.
const MAX_BODY: usize = 16_384;

impl Recent {
    /// The terms of a long-poll; `body` is that of the instruct's response.
    pub fn response(&mut self, instruct: &Instruct<'_>, body: Bytes, cross_origin: Option<CrossOrigin>) -> Terms {
        let response = Opening { head: Head::of(&instruct.response), body };
        let terms = ResponseTerms { response, timeout: instruct.timeout, cross_origin };
        let shared = terms.response.body.len() <= MAX_BODY;
        Terms::Response(if shared { share(&mut self.responses, terms) } else { Rc::new(terms) })
    }

    /// The terms of a stream.
    pub fn stream(&mut self, instruct: &Instruct<'_>) -> Terms {
        Terms::Stream(self.stream_terms(instruct))
    }

    /// The same, for a stream that goes on.
    pub fn stream_terms(&mut self, instruct: &Instruct<'_>) -> Rc<StreamTerms> {
        let keep_alive = instruct.keep_alive.as_ref().map(|k| KeepAlive {
            data: Bytes::copy_from_slice(&k.data),
            timeout: k.timeout,
            mode: k.mode,
        });
        share(&mut self.streams, StreamTerms { keep_alive })
    }
}

fn share<T: PartialEq>(recent: &mut Vec<Rc<T>>, terms: T) -> Rc<T> {
    if let Some(at) = recent.iter().position(|known| **known == terms) {
        // The one used last is found last to be forgotten.
        recent[at..].rotate_left(1);
    } else {
        if recent.len() == MAX_RECENT {
            recent.remove(0);
        }
        recent.push(Rc::new(terms));
    }
    recent[recent.len() - 1].clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_terms_are_shared_and_the_oldest_are_forgotten() {
        let mut recent = Vec::new();
        let first = share(&mut recent, 0);
        for i in 1..MAX_RECENT {
            share(&mut recent, i);
        }
        assert!(Rc::ptr_eq(&first, &share(&mut recent, 0)));
        let second = recent[0].clone();
        share(&mut recent, 100);
        assert!(Rc::ptr_eq(&first, &share(&mut recent, 0)));
        assert!(!Rc::ptr_eq(&second, &share(&mut recent, 1)));
        assert_eq!(recent.len(), MAX_RECENT);
    }
}
