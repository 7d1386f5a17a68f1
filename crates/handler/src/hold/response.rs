// SPDX-License-Identifier: AGPL-3.0-or-later
//! A held long-poll: it gets one response, published or its instruct's own, or is proxied anew.

use std::rc::Rc;
use std::time::Instant;

use super::terms::ResponseTerms;

/// What a long-poll has beside its session.
pub struct ResponseHold {
    /// What its backend has asked for.
    pub terms: Rc<ResponseTerms>,
    /// When it gets the instruct's own response; none once it has got one, or is given back.
    pub ends_at: Option<Instant>,
    /// What it takes to proxy it anew (`take_over::asked`).
    pub asked: Box<[u8]>,
    /// It will be given back in a moment; until then it waits for messages.
    pub planned: bool,
    /// A predecessor held it.
    pub is_taken_up: bool,
    /// Its frontend was asked to pause it, so that it can be given back. Nothing is sent any more.
    pub offered: Option<Box<Offered>>,
}

/// What belongs to a long-poll that is on its way back to the proxy.
pub struct Offered {
    /// Channels as the backend names them with the ids of the last messages that the client has: what comes later it does
    /// not get.
    pub last_ids: Box<[(String, String)]>,
    /// The turn in which its frontend was asked to pause it.
    pub round: u64,
}

impl ResponseHold {
    /// A long-poll that begins to wait.
    pub fn new(terms: Rc<ResponseTerms>, now: Instant) -> Self {
        ResponseHold {
            ends_at: Some(now + terms.timeout),
            terms,
            asked: Box::default(),
            planned: false,
            is_taken_up: false,
            offered: None,
        }
    }
}
