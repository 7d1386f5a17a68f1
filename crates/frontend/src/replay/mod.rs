// SPDX-License-Identifier: AGPL-3.0-or-later
//! Requests that can be sent again when the proxy that had them ends before it has begun to answer.
//!
//! A request is kept, with as much of its body as has been sent, until its response begins or a handler takes it over.
//! If its proxy ends, it goes to the next one in a session of its own, so that nothing of the former can be mistaken for
//! its answer: at once, or when one comes. That is done with methods for which twice is as good as once (RFC 9110, section 9.2.2),
//! and with all others as long as no proxy has got anything of them.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

mod request;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use zhttp::budget::Budget;
use zhttp::{Packet, PeerId};

pub(crate) use self::request::KeptRequest;
use crate::transplant::record::{RecordError, RequestRecord};

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long a request waits for a proxy; zero: nothing is kept, and nothing waits here.
    pub wait: Duration,
    /// Bytes of one request's body.
    pub body: usize,
    /// Bytes of all requests.
    pub memory: usize,
}

impl Terms {
    /// Nothing is kept.
    pub const OFF: Terms = Terms { wait: Duration::ZERO, body: 0, memory: 0 };
}

/// A request that waits for a proxy.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    slot: u32,
    serial: u64,
    due: Instant,
}

/// What requests need to be kept, and those that wait.
pub(crate) struct Replays {
    terms: Terms,
    budget: Budget,
    /// In the order in which their time is up.
    waiting: VecDeque<Waiting>,
    /// Requests that went to a second proxy, or a third.
    pub(crate) again: u64,
}

impl Replays {
    pub(crate) fn new(terms: Terms) -> Self {
        let budget = Budget::new(terms.memory);
        Replays { terms, budget, waiting: VecDeque::new(), again: 0 }
    }

    /// Whether requests are kept.
    pub(crate) fn are_kept(&self) -> bool {
        !self.terms.wait.is_zero()
    }

    /// Keeps a request, if there is room: the first packet, as it is sent.
    pub(crate) fn keep(&mut self, first: &[u8], packet: &Packet<'_>) -> Option<Box<KeptRequest>> {
        if !self.are_kept() {
            return None;
        }
        let share = self.budget.take(first.len())?;
        Some(Box::new(KeptRequest::new(first, packet, self.terms.body, share)))
    }

    /// Goes on keeping a request of another process, if there is room.
    pub(crate) fn take_over(
        &self,
        record: RequestRecord,
        peers: &[PeerId],
    ) -> Result<Option<Box<KeptRequest>>, RecordError> {
        let share = self.budget.take(record.first.len() + record.body.len());
        let share = share.filter(|_| self.are_kept());
        share.map(|share| Ok(Box::new(KeptRequest::restore(record, self.terms.body, share, peers)?))).transpose()
    }

    /// A request waits for a proxy from now on.
    pub(crate) fn wait(&mut self, slot: u32, serial: u64, now: Instant) {
        self.waiting.push_back(Waiting { slot, serial, due: now + self.terms.wait });
    }

    /// Slot and number of the request that has waited longest; with `until`, only if its time was up then.
    pub(crate) fn take_first(&mut self, until: Option<Instant>) -> Option<(u32, u64)> {
        let first = *self.waiting.front().filter(|first| until.is_none_or(|until| first.due <= until))?;
        self.waiting.pop_front();
        Some((first.slot, first.serial))
    }

    /// When the next request has waited for long enough.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.waiting.front().map(|first| first.due)
    }

    /// How long requests wait.
    pub(crate) fn patience(&self) -> Duration {
        self.terms.wait
    }

    /// Bytes that are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.budget.used()
    }
}
