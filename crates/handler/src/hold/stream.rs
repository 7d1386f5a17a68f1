// SPDX-License-Identifier: AGPL-3.0-or-later
//! A held stream: it gets content as it is published, and keep-alives in between.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use grip::KeepAliveMode;

use super::terms::StreamTerms;

/// What a stream has beside its session.
pub struct StreamHold {
    terms: Rc<StreamTerms>,
    /// When a keep-alive is due.
    pub keep_alive_at: Option<Instant>,
}

impl StreamHold {
    /// A stream that begins. `jitter` spreads the keep-alives of many over a second.
    pub fn new(terms: Rc<StreamTerms>, now: Instant, jitter: Duration) -> Self {
        let mut stream = StreamHold { terms, keep_alive_at: None };
        stream.arm(now, jitter);
        stream
    }

    /// Nothing is to come in between for now.
    pub fn be_silent(&mut self) {
        self.keep_alive_at = None;
    }

    /// Goes on under other terms. A time that runs already runs on.
    pub fn go_on(&mut self, terms: Rc<StreamTerms>, now: Instant, jitter: Duration) {
        self.terms = terms;
        match self.terms.keep_alive {
            None => self.keep_alive_at = None,
            Some(_) if self.keep_alive_at.is_none() => self.arm(now, jitter),
            Some(_) => {}
        }
    }

    /// The keep-alive, if it is due; the next one is due after its time.
    pub fn keep_alive(&mut self, now: Instant, jitter: Duration) -> Option<Bytes> {
        self.keep_alive_at.filter(|at| *at <= now)?;
        self.arm(now, jitter);
        self.terms.keep_alive.as_ref().map(|keep_alive| keep_alive.data.clone())
    }

    /// The jitter is an eighth of the time at most.
    fn arm(&mut self, now: Instant, jitter: Duration) {
        let time = self.terms.keep_alive.as_ref().map(|keep_alive| keep_alive.timeout);
        self.keep_alive_at = time.map(|time| now + (time - jitter.min(time / 8)));
    }

    /// Content was sent: a stream that is only to send when idle waits again.
    pub fn on_sent(&mut self, now: Instant) {
        if let Some(keep_alive) = &self.terms.keep_alive
            && keep_alive.mode == KeepAliveMode::Idle
            && self.keep_alive_at.is_some()
        {
            self.keep_alive_at = Some(now + keep_alive.timeout);
        }
    }
}
