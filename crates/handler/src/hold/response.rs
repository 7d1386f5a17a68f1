//! A held long-poll: it gets one response, published or its instruct's own.

use std::rc::Rc;
use std::time::Instant;

use super::terms::ResponseTerms;

/// What a long-poll has beside its session.
pub struct ResponseHold {
    /// What its backend has asked for.
    pub terms: Rc<ResponseTerms>,
    /// When it gets the instruct's own response; none once it has got one.
    pub ends_at: Option<Instant>,
}

impl ResponseHold {
    /// A long-poll that begins to wait.
    pub fn new(terms: Rc<ResponseTerms>, now: Instant) -> Self {
        ResponseHold { ends_at: Some(now + terms.timeout), terms }
    }
}
