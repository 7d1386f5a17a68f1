// SPDX-License-Identifier: AGPL-3.0-or-later
//! Holds of a predecessor are taken up from the frontends that have kept them.

use std::time::{Duration, Instant};

use rpc::ws_control::Mark;
use zhttp::recovery::{Held, Seen};
use zhttp::session::{HandedOver, server};
use zhttp::{Bulk, Ext, Kind as PacketKind, Packet, PeerId, Record};

use super::Engine;
use crate::cohort::Urgency;
use crate::context::{Address, Context};
use crate::hold::{Hold, Kind};
use crate::order::owed::Position;
use crate::subscribe::channels::HoldKey;
use crate::take_over::admission::Prepared;
use crate::take_over::record::PLACE;

/// Whether the proxy is to name its WebSockets again.
#[derive(Debug, Default)]
pub(super) struct Naming {
    /// Nothing has been published yet, so that those that are named again have missed nothing.
    pub is_open: bool,
    /// Until then others may still be named: what is said about them before is of no use.
    pub until: Option<Instant>,
    /// How many have been named again.
    pub count: usize,
}

impl Engine {
    /// The proxy may name WebSockets again, until then.
    pub fn expect_websockets(&mut self, until: Instant) {
        self.naming = Naming { is_open: true, until: Some(until), count: 0 };
    }

    /// The proxy has named all. Returns how many a predecessor knew.
    pub fn on_all_named(&mut self) -> usize {
        self.audience.outbox.on_all_named();
        self.naming.until = None;
        std::mem::take(&mut self.naming.count)
    }

    /// The proxy says which messages its WebSockets may have.
    pub fn note_sent_to_sockets(&mut self, proxy: PeerId, marks: &[Mark<'_>], now: Instant) {
        if !marks.is_empty() || self.audience.sockets.proxy.is_none() {
            self.audience.sockets.proxy = Some(proxy);
        }
        for Mark { run, channel, id, .. } in marks {
            self.audience.outbox.run = self.audience.outbox.run.max(*run);
            let (Ok(channel), Ok(id)) = (std::str::from_utf8(channel), std::str::from_utf8(id)) else { continue };
            self.sent.note(proxy, *run, channel, id, now);
            // What frontends say of a channel counts more.
            self.sent.note_last(proxy, 0, channel, id);
        }
    }

    /// A frontend says which messages its sessions may have.
    pub fn note_seen(&mut self, frontend: PeerId, seen: &[Seen<'_>], now: Instant) {
        for Seen { run, last, channel, id } in seen {
            let (Ok(channel), Ok(id)) = (std::str::from_utf8(channel), std::str::from_utf8(id)) else { continue };
            match last {
                true => self.sent.note_last(frontend, *run, channel, id),
                false => self.sent.note(frontend, *run, channel, id, now),
            }
        }
    }

    /// A frontend says how far it is.
    pub fn note_run(&mut self, run: u64) {
        self.sent.note_run(run);
        let next = self.sent.run().saturating_add(1);
        self.fanout.sender.run = self.fanout.sender.run.max(next);
    }

    /// Holds sessions of a frontend that have the same record, of which `prepared` is what is to be done. Those for which
    /// something has waited with the predecessor would have a hole, and are ended. Returns how many are held.
    pub fn take_up(&mut self, frontend: PeerId, prepared: &Prepared, sessions: &[Held], cx: &mut Context<'_>) -> usize {
        let debug = prepared.requests.first().is_some_and(|request| request.debug);
        let (mut told, mut behind, mut held) = (Bulk::<bool>::default(), Vec::new(), 0);
        for session in sessions {
            let state = HandedOver {
                client: frontend,
                id: session.id,
                in_seq: session.standing.in_seq,
                out_seq: session.standing.out_seq,
                credits: session.standing.credits,
                by_router: true,
            };
            if self.audience.holds.find(frontend, session.id).is_some() {
                continue;
            }
            if session.lags {
                self.totals.behind += 1;
                self.audience.links.cancel(Address { peer: frontend, by_router: true }, state.id, state.out_seq, cx);
                continue;
            }
            held += 1;
            let (birth, jitter) = (self.audience.holds.next_birth(), self.timers.jitter());
            let mut hold =
                Hold::new(server::Session::take_over(&state, cx.now), &prepared.terms, birth, cx.now, jitter);
            (hold.debug, hold.is_recorded, hold.run) = (debug, true, session.run);
            hold.farewell = prepared.farewell.clone().map(Box::new);
            if let Kind::Response(poll) = &mut hold.kind {
                poll.is_taken_up = true;
                poll.asked = prepared.asked.first().cloned().unwrap_or_default();
                let age = Duration::from_millis(u64::from(session.age));
                poll.ends_at = poll.ends_at.map(|end| end.checked_sub(age).unwrap_or(cx.now).max(cx.now));
            }
            let to = hold.session.send();
            told.push(to.to, to.by_router, hold.session.id(), to.seq);
            let key = self.audience.holds.insert(hold);
            self.audience.holds.set_user(key, prepared.user.clone());
            self.fanout.count_apart(birth, prepared.bucket.clone());
            self.timers.watch(key, &mut self.audience.holds[key]);
            if let Some(course) = &prepared.course {
                let (mut like, mut is_behind) = (course.like.clone(), false);
                for tracked in like.position.iter_mut().filter(|tracked| tracked.prev_id.is_some()) {
                    match self.sent.position(frontend, &tracked.channel, session.since, session.run) {
                        Position::Begin => {}
                        Position::At(id) => tracked.prev_id = Some(id.to_string()),
                        Position::Behind(id) => {
                            is_behind = true;
                            tracked.prev_id = id.map(str::to_string).or_else(|| tracked.prev_id.clone());
                        }
                    }
                }
                let cohort = self.audience.cohorts.of(like, cx.now);
                self.audience.enlist(key, cohort);
                if is_behind && behind.last() != Some(&cohort) {
                    behind.push(cohort);
                }
            }
            for (name, class) in &prepared.channels {
                self.audience.subscribe(key, name, class.clone(), cx);
            }
        }
        told.drain(|peer, by_router, ids| {
            let packet = Packet { ids, kind: PacketKind::KeepAlive, ext: Ext::MULTI, ..Packet::default() };
            self.audience.links.send(Address { peer, by_router }, &packet, cx);
        });
        behind.into_iter().for_each(|cohort| self.wish(cohort, Urgency::Low, true, cx));
        self.totals.taken_up += held as u64;
        self.settle(cx);
        held
    }

    /// Has frontends keep another record for holds; an empty one: none.
    pub(super) fn keep(&mut self, holds: &[HoldKey], content: &[u8], cx: &mut Context<'_>) {
        let mut told = Bulk::<bool>::default();
        for &key in holds {
            let Some(hold) = self.audience.holds.get_mut(key).filter(|hold| hold.session.by_router()) else { continue };
            if hold.is_recorded || !content.is_empty() {
                hold.is_recorded = !content.is_empty();
                let to = hold.session.send();
                told.push(to.to, to.by_router, hold.session.id(), to.seq);
            }
        }
        let ext = Ext { keep: Some(Record { owner: PLACE, content }), ..Ext::MULTI };
        told.drain(|peer, by_router, ids| {
            let packet = Packet { ids, kind: PacketKind::KeepAlive, ext, ..Packet::default() };
            self.audience.links.send(Address { peer, by_router }, &packet, cx);
        });
    }

    /// Ends sessions whose record can not be used.
    pub fn refuse(&mut self, frontend: PeerId, sessions: &[Held], cx: &mut Context<'_>) {
        self.totals.refused += sessions.len() as u64;
        for session in sessions {
            let to = Address { peer: frontend, by_router: true };
            self.audience.links.cancel(to, session.id, session.standing.out_seq, cx);
        }
    }

    /// Nobody else is waited for: messages may be published.
    pub fn on_recovered(&mut self) {
        self.naming.is_open = false;
        for (channel, id) in self.sent.take_last() {
            if self.audience.channels.find(&channel).is_some() {
                self.sequencer.note_last_id(channel, id);
            }
        }
    }

    /// Whether a message has been published, which those that are not held yet have missed.
    pub fn has_published(&self) -> bool {
        self.fanout.totals.received > 0
    }

    /// Whether the link of a frontend has no room, so that something waits for that.
    pub fn waits_for_room(&self, frontend: PeerId) -> bool {
        !self.audience.links.has_room(frontend)
    }
}
