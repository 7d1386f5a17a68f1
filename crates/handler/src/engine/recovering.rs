// SPDX-License-Identifier: AGPL-3.0-or-later
//! After a start, the holds and WebSockets of a predecessor are taken up. Nothing is published or accepted before all frontends
//! and the proxy have been heard, or for a second.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use grip::Instruct;
pub use zhttp::inquiry::Change;
use zhttp::inquiry::Inquiry;
use zhttp::recovery::{Held, Message, RecoveryError, Seen};
use zhttp::{PeerId, Peers};

use super::Engine;
use crate::context::Context;
use crate::notice::Notice;
use crate::take_over::accept::Accept;
use crate::take_over::admission::{Decision, Prepared};
use crate::take_over::arrears::Arrears;
use crate::take_over::record::{self, PLACE};

/// How long frontends are waited for, and a proxy that is there.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a proxy is waited for that is not there: it may have ended with our predecessor, and the runner waits 5 s before it starts one that
/// has ended time and again. What is published before it names its WebSockets costs them their connections.
const ABSENCE: Duration = Duration::from_secs(6);

/// See the module.
pub struct Recovering {
    /// Until then frontends are waited for; none when they are not any more.
    until: Option<Instant>,
    since: Instant,
    inquiry: Inquiry,
    /// Frontends that have not got all that was for them.
    lost: HashSet<PeerId, RandomState>,
    holds: usize,
    /// The proxy has not named all its WebSockets yet.
    awaits_proxy: bool,
    /// Since when it is there.
    proxy_since: Option<Instant>,
}

/// What a frontend has kept, as it tells it.
pub enum Told<'a> {
    /// Messages that its sessions may have.
    Seen(Vec<Seen<'a>>),
    /// Sessions, by what is known of their requests, or why that can not be read.
    Held(Vec<(Result<Accept<'a>, String>, Vec<Held>)>),
    /// That was all, up to this run.
    Done(u64),
    /// A question, which is not for a handler.
    Nothing,
}

impl<'a> Told<'a> {
    /// Reads a packet of a frontend.
    ///
    /// # Errors
    /// It is malformed or of another version.
    pub fn read(message: &'a [u8], peers: &mut Peers) -> Result<Self, RecoveryError> {
        Ok(match Message::decode(message)? {
            Message::Seen(seen) => Told::Seen(seen),
            Message::Held { records, sessions } => {
                let alike = sessions.chunk_by(|a, b| a.record == b.record).map(|sessions| {
                    let record = sessions.first().and_then(|held| records.get(held.record as usize));
                    let accept = record::read(record.copied().unwrap_or_default(), peers);
                    (accept.map_err(|error| error.to_string()), sessions.to_vec())
                });
                Told::Held(alike.collect())
            }
            Message::Done { run } => Told::Done(run),
            Message::Recover(_) => Told::Nothing,
        })
    }
}

impl Recovering {
    /// So many frontends are waited for; none: nobody is asked.
    pub fn new(frontends: usize, now: Instant) -> Self {
        Recovering {
            until: (frontends > 0).then(|| now + PATIENCE),
            since: now,
            inquiry: Inquiry::new(frontends),
            lost: HashSet::default(),
            holds: 0,
            awaits_proxy: frontends > 0,
            proxy_since: None,
        }
    }

    /// Whether frontends or the proxy are waited for.
    pub fn is_under_way(&self) -> bool {
        self.until.is_some()
    }

    /// When one of them is waited for no longer.
    pub fn next_due(&self) -> Option<Instant> {
        let frontends = self.until.filter(|_| !self.inquiry.is_complete());
        let proxy = self.until.filter(|_| self.awaits_proxy).map(|_| self.proxy_until());
        [frontends, proxy].into_iter().flatten().max()
    }

    fn proxy_until(&self) -> Instant {
        match self.proxy_since {
            Some(since) => since.min(self.since + ABSENCE) + PATIENCE,
            None => self.since + ABSENCE,
        }
    }

    /// Notes who has been heard when the waiting ends. Whether a successor must know of it.
    pub fn note_heard(&self, arrears: &mut Arrears, peers: &Peers) -> bool {
        let heard: Vec<&[u8]> = self.inquiry.done().map(|frontend| &peers.name(frontend)[..]).collect();
        arrears.begin(&heard, self.inquiry.is_complete())
    }

    /// The question to those that [`on_change`](Self::on_change) names.
    pub fn question() -> Vec<u8> {
        Message::Recover(PLACE).encode()
    }

    /// A frontend has come or gone. Whether it is to be asked now.
    pub fn on_change(&mut self, frontend: PeerId, change: Change) -> bool {
        if change == Change::Lost {
            self.lost.insert(frontend);
        }
        self.inquiry.on_change(frontend, change)
    }

    /// A frontend tells what it has kept; it is not `trusted` if a predecessor knew that this has a hole. Whether that was all.
    pub fn on_told(
        &mut self,
        frontend: PeerId,
        trusted: bool,
        told: Told<'_>,
        engine: &mut Engine,
        cx: &mut Context<'_>,
    ) -> bool {
        if !trusted {
            self.lost.insert(frontend);
        }
        match told {
            Told::Seen(seen) => engine.note_seen(frontend, &seen, cx.now),
            Told::Held(alike) => {
                for (accept, sessions) in alike {
                    self.take_up(frontend, accept, &sessions, engine, cx);
                }
            }
            Told::Done(run) => {
                engine.note_run(run);
                self.inquiry.on_done(frontend);
                return true;
            }
            Told::Nothing => {}
        }
        false
    }

    fn take_up(
        &mut self,
        frontend: PeerId,
        accept: Result<Accept<'_>, String>,
        sessions: &[Held],
        engine: &mut Engine,
        cx: &mut Context<'_>,
    ) {
        let prepared = if self.lost.contains(&frontend) {
            Err("their frontend has not got everything, because it did not keep up".into())
        } else if self.until.is_none() && engine.has_published() {
            Err("their frontend has named them only after messages had been published".into())
        } else {
            accept.and_then(|accept| prepare(accept, engine, cx))
        };
        match prepared {
            Ok(prepared) => self.holds += engine.take_up(frontend, &prepared, sessions, cx),
            Err(reason) => {
                engine.refuse(frontend, sessions, cx);
                cx.report(Notice::NotTakenUp { sessions: sessions.len(), reason: &reason });
            }
        }
    }

    /// The proxy has named all its WebSockets. Whether such of a predecessor are taken up at all.
    pub fn on_all_named(&mut self, engine: &mut Engine, cx: &mut Context<'_>) -> bool {
        let websockets = engine.on_all_named();
        if websockets > 0 {
            cx.report(Notice::KnownAgain { websockets, after: cx.now.duration_since(self.since) });
        }
        self.awaits_proxy = false;
        self.inquiry.is_wanted()
    }

    /// Ends the waiting when all frontends and the proxy have been heard, or it has taken too long: then messages may be published. Whether it
    /// ends now. `has_proxy`: one is there.
    pub fn end(&mut self, has_proxy: bool, engine: &mut Engine, cx: &mut Context<'_>) -> bool {
        if self.until.is_none() {
            return false;
        }
        self.proxy_since = has_proxy.then(|| self.proxy_since.unwrap_or(cx.now));
        if self.next_due().is_some_and(|due| cx.now < due) {
            return false;
        }
        self.until = None;
        if self.holds > 0 {
            cx.report(Notice::TakenUp { holds: self.holds, after: cx.now.duration_since(self.since) });
        }
        engine.on_recovered();
        true
    }
}

/// What is to be done with sessions of this record.
fn prepare(mut accept: Accept<'_>, engine: &mut Engine, cx: &mut Context<'_>) -> Result<Prepared, String> {
    accept.is_taken_up = true;
    let response = accept.response.clone();
    let instruct = Instruct::read(response.backend()).map_err(|error| error.to_string())?;
    match engine.decide(accept, &instruct, cx) {
        Decision::Hold(prepared) => Ok(prepared),
        Decision::Pass(_) => Err("nothing is to be held".into()),
        Decision::Refuse(refusal) => Err(refusal.to_string()),
    }
}
