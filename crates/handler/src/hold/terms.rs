//! What a backend has asked for, in the form in which holds keep it.
//!
//! Thousands of holds usually have the same instruct but for their channels, so they share one [`Plan`].

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use grip::head::Reason;
use grip::{Headers, HoldMode, Instruct, KeepAliveMode, StatusCode};

/// What holds with the same instruct have in common.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// Long-poll or stream.
    pub mode: HoldMode,
    /// Status of the instruct's response.
    pub code: StatusCode,
    /// Its status text.
    pub reason: Reason<'static>,
    /// Its headers, without those that the frontend makes.
    pub headers: Headers<'static>,
    /// Its body: how a stream begins, or what a long-poll gets when nothing comes.
    pub body: Bytes,
    /// How long a long-poll waits.
    pub timeout: Duration,
    /// What a silent stream sends, and when.
    pub keep_alive: Option<(Bytes, Duration, KeepAliveMode)>,
}

impl Plan {
    /// The plan of an instruct that holds.
    pub fn of(instruct: &Instruct<'_>, mode: HoldMode) -> Self {
        let response = &instruct.response;
        Plan {
            mode,
            code: response.code,
            reason: response.reason.clone().into_owned(),
            headers: response.headers.clone().into_owned(),
            body: Bytes::copy_from_slice(&response.body),
            timeout: instruct.timeout,
            keep_alive: instruct.keep_alive.as_ref().map(|k| (Bytes::copy_from_slice(&k.data), k.timeout, k.mode)),
        }
    }

    /// The headers as packets take them.
    pub fn header_pairs(&self) -> Vec<(&[u8], &[u8])> {
        self.headers.iter().collect()
    }
}

/// The plans in use lately, so that equal ones are kept once.
#[derive(Default)]
pub struct Plans {
    recent: Vec<Rc<Plan>>,
}

/// Backends have few endpoints that hold; more different plans than this are simply not shared.
const MAX_RECENT: usize = 16;

impl Plans {
    /// The shared form of a plan.
    pub fn share(&mut self, plan: Plan) -> Rc<Plan> {
        if let Some(i) = self.recent.iter().position(|known| **known == plan) {
            let known = self.recent.remove(i);
            self.recent.push(known.clone());
            return known;
        }
        let plan = Rc::new(plan);
        if self.recent.len() == MAX_RECENT {
            self.recent.remove(0);
        }
        self.recent.push(plan.clone());
        plan
    }
}
