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
    /// What is being done about that.
    pub renewal: Renewal,
    /// Channels as the backend names them with the ids of the last messages that the client has, once it is on its way back:
    /// what comes later it does not get.
    pub last_ids: Box<[(String, String)]>,
    /// The turn in which its frontend was asked to pause it.
    pub round: u64,
    /// A predecessor held it.
    pub is_taken_up: bool,
}

/// How far a long-poll is on its way back to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It waits for messages.
    None,
    /// It will be given back in a moment; until then it waits for messages.
    Planned,
    /// Its frontend was asked to pause it. Nothing is sent any more.
    Offered,
}

impl ResponseHold {
    /// A long-poll that begins to wait.
    pub fn new(terms: Rc<ResponseTerms>, now: Instant) -> Self {
        ResponseHold {
            ends_at: Some(now + terms.timeout),
            terms,
            asked: Box::default(),
            renewal: Renewal::None,
            last_ids: Box::default(),
            round: 0,
            is_taken_up: false,
        }
    }
}
