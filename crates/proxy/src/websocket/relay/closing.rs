// SPDX-License-Identifier: AGPL-3.0-or-later
//! How a WebSocket ends.

use std::time::Instant;

use rpc::ws_control::Kind as ItemKind;
use zhttp::{Kind, Packet};

use super::super::control;
use super::super::pipe::{Frame, Status};
use super::side::{Closing, Origin};
use super::state::{CLOSE_WAIT, Frontend, Phase, Relay, Scene};
use crate::access_log::Outcome;
use crate::exchange::KeepAlive;

impl Relay {
    /// Closes both sides, as the handler or we ourselves wish. A client that has been told already is not told again.
    pub(super) fn close(&mut self, status: Option<Status>, scene: &mut Scene<'_, '_>) {
        if !matches!(self.phase, Phase::Open | Phase::Claiming) {
            return self.abort(scene);
        }
        self.close_ourselves();
        self.expect_close(scene.cx.now);
        self.down.relay(Frame::Close(status), 0);
        if !self.detached {
            self.up.relay(Frame::Close(None), 0);
        }
        self.flush(scene);
    }

    /// One side has begun to close: the other end of it has so long to answer.
    pub(super) fn expect_close(&mut self, now: Instant) {
        self.late.get_or_insert_default().close_by.get_or_insert(now + CLOSE_WAIT);
    }

    /// When the connection is given up that one side has begun to close.
    pub(super) fn close_by(&self) -> Option<Instant> {
        self.late.as_ref()?.close_by
    }

    fn forget_close(&mut self) {
        if let Some(late) = &mut self.late {
            late.close_by = None;
        }
    }

    /// Leaves the client to the handler: the backend hears of it no more.
    pub(super) fn detach(&mut self, scene: &mut Scene<'_, '_>) {
        if std::mem::replace(&mut self.detached, true) {
            return;
        }
        self.note_change(true);
        self.close_ourselves();
        // What it waits for will not be sent.
        let waiting = self.up.waiting();
        self.up = Default::default();
        self.grant_client(waiting, scene);
        self.up.relay(Frame::Close(None), 0);
        self.late.get_or_insert_default().close_by = Some(scene.cx.now + CLOSE_WAIT);
        self.flush(scene);
    }

    /// Breaks off both sides.
    pub(super) fn abort(&mut self, scene: &mut Scene<'_, '_>) {
        if self.is_over() {
            return;
        }
        self.send(0, Packet { kind: Kind::Cancel, ..Packet::default() }, scene);
        self.client_left(scene);
    }

    /// The client is gone, or its instance is.
    pub fn client_left(&mut self, scene: &mut Scene<'_, '_>) {
        if self.phase == Phase::Connecting {
            self.outcome = Some(Outcome::Failed);
        }
        self.over(scene);
    }

    /// Everything ends now.
    pub(super) fn over(&mut self, scene: &mut Scene<'_, '_>) {
        if self.is_over() {
            return;
        }
        self.phase = Phase::Over;
        self.late = None;
        self.drop_origin(scene);
        if self.control.take().is_some() {
            scene.items.push(control::item(ItemKind::Gone, &self.name.text()));
        }
    }

    /// Ends what has been closed by both sides.
    pub(super) fn settle(&mut self, scene: &mut Scene<'_, '_>) {
        if self.phase != Phase::Open {
            return;
        }
        if self.origin.closing().is_some_and(Closing::is_done) && self.is_settled() {
            if self.is_counted() {
                // It need not keep anything any more.
                self.tell_origin(scene);
            }
            self.origin = Origin::None;
            if self.detached && !self.client_closing.received {
                self.forget_close();
            }
        }
        let origin_done = matches!(self.origin, Origin::None | Origin::Test);
        if self.client_closing.is_done() && origin_done {
            self.over(scene);
        }
    }

    /// The proxy stops: tells both sides. A frontend that we answer through its ROUTER sees our end by itself.
    pub fn stop(&mut self, scene: &mut Scene<'_, '_>) {
        if !self.is_over() && !self.leave_to_successor() {
            if self.frontend == Frontend::Plain || !self.client.by_router() {
                self.send(0, Packet { kind: Kind::Cancel, ..Packet::default() }, scene);
            }
            self.abandon_over_http(scene);
            self.over(scene);
        }
    }

    /// When [`Relay::on_timer`] has something to do; `None` if the relay can be forgotten.
    pub fn next_due(&self) -> Option<Instant> {
        if self.is_over() {
            // Its backend may still have to hear of it.
            return self.origin.next_due();
        }
        let control = self.control.as_ref().map(control::Control::next_due);
        let heartbeat = self.framing.as_ref().and_then(|framing| framing.next_due());
        let late = self.late.as_ref();
        let ends = late.map(|late| [late.close_by, late.orphaned_at, late.lag.next_due()]).into_iter().flatten();
        let due = [Some(self.client.next_due()), self.origin.next_due(), control, heartbeat].into_iter().chain(ends);
        due.flatten().min()
    }

    /// Gives up room that only a WebSocket needs on which something passes.
    fn rest(&mut self) {
        self.down.rest();
        self.up.rest();
        if let Some(control) = &mut self.control {
            control.rest();
        }
        if let Origin::OverHttp(over_http) = &mut self.origin {
            over_http.rest();
        }
    }

    /// Does what is due. `keep_alive` collects sessions to be kept alive.
    pub fn on_timer(&mut self, scene: &mut Scene<'_, '_>, keep_alive: &mut impl FnMut(KeepAlive)) {
        let now = scene.cx.now;
        self.rest();
        if let Some(late) = &mut self.late
            && late.orphaned_at.take_if(|at| *at <= now).is_some()
        {
            if self.phase == Phase::Claiming {
                return self.close_restarted(scene);
            }
            self.close(Some(Status::restarted()), scene);
        }
        if self.close_by().is_some_and(|at| at <= now) {
            self.forget_close();
            if self.detached && !self.client_closing.sent && !self.client_closing.received {
                // Only the backend has not answered, and it is of no interest any more.
                self.drop_origin(scene);
            } else {
                return self.abort(scene);
            }
        }
        if let Some(frame) = self.framing.as_mut().and_then(|framing| framing.heartbeat(now)) {
            self.down.insert(frame, None, None);
        }
        if self.late.as_ref().and_then(|late| late.lag.next_due()).is_some_and(|at| at <= now) {
            self.end_slow(scene);
        }
        let name = self.name.text();
        if let Some(control) = &mut self.control
            && !control.on_timer(&name, now, scene.items)
        {
            return self.fail(&crate::error::ProxyError::NoControl, scene);
        }
        self.origin_timer(scene, keep_alive);
        if !self.is_over() {
            self.client_timer(scene, keep_alive);
        }
    }
}
