// SPDX-License-Identifier: AGPL-3.0-or-later
//! What time does to exchanges and connections.

use std::time::{Duration, Instant};

use zhttp::session::server::Outgoing;
use zhttp::{ACK_DELAY, Kind, Packet};

use super::Engine;
use super::requesters::Group;
use crate::context::Context;
use crate::failure::Failure;
use crate::http1::exchange::Alarm;

/// How exact the timers of an exchange are.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);

impl Engine {
    /// When something is due.
    pub fn next_due(&self) -> Option<Instant> {
        let young = self.young.front().map(|(_, _, due)| *due);
        let sweep = (self.connections.idle() > 0 || !self.exchanges.is_empty()).then_some(self.next_sweep);
        let owing = self.owing.front().map(|(_, _, due)| *due);
        [young, owing, sweep, self.wheel.next()].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn on_timer(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        while let Some(&(index, serial, _)) = self.young.front().filter(|(_, _, due)| *due <= now) {
            self.young.pop_front();
            if self.exchanges.get(index).is_some_and(|exchange| exchange.serial == serial) {
                self.attend(index, cx);
            }
        }
        while let Some((index, serial, due)) = self.wheel.pop(now) {
            let exchange = self.exchanges.get_mut(index).filter(|exchange| exchange.serial == serial);
            if let Some(exchange) = exchange.filter(|exchange| exchange.alarm == Some(due)) {
                exchange.alarm = None;
                self.attend(index, cx);
            }
        }
        self.grant_owed(cx);
        for session in self.requesters.send_group(&mut self.keep_alives, Kind::KeepAlive, cx) {
            if let Some(&index) = self.sessions.get(&session) {
                self.lost(index, cx);
            }
        }
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            self.connections.sweep(cx);
        }
    }

    /// Does what the time asks of an exchange, and has the wheel ring again.
    fn attend(&mut self, index: usize, cx: &mut Context<'_>) {
        loop {
            let exchange = &mut self.exchanges[index];
            let timeouts = self.limits.timeouts;
            match exchange.ring(cx.now) {
                Alarm::None => break,
                // What every packet must echo can not be shared with others.
                Alarm::KeepAlive(outgoing) if exchange.user_data().is_some() => {
                    if !self.send_as(index, outgoing, Kind::KeepAlive, Packet::default(), cx) {
                        return;
                    }
                }
                Alarm::KeepAlive(Outgoing { to, by_router, seq }) => {
                    self.keep_alives.push(to, by_router, exchange.session.id(), seq);
                }
                Alarm::Expired => {
                    self.counters.orphaned += u64::from(exchange.is_orphan());
                    return self.drop_exchange(index, cx);
                }
                Alarm::Spent => return self.cancel(index, cx),
                Alarm::ResolveTimeout => return self.fail(index, &Failure::ConnectTimeout(timeouts.connect), cx),
                Alarm::Dial => {
                    if !self.dial(index, cx) {
                        return;
                    }
                }
                Alarm::ResponseTimeout => return self.fail(index, &Failure::ResponseTimeout(timeouts.response), cx),
                Alarm::SessionTimeout => return self.fail(index, &Failure::SessionTimeout, cx),
                Alarm::Idle => return self.fail(index, &Failure::Idle(timeouts.idle), cx),
            }
        }
        self.watch(index);
    }

    /// Has the wheel ring for what is due next.
    pub(super) fn watch(&mut self, index: usize) {
        let exchange = &mut self.exchanges[index];
        let due = exchange.next_alarm();
        if exchange.alarm.is_none_or(|alarm| due < alarm) {
            exchange.alarm = Some(due);
            self.wheel.insert((index, exchange.serial, due), due);
        }
    }

    /// Has the wheel ring earlier if a deadline has come nearer. A young exchange is not in the wheel yet.
    pub(super) fn watch_again(&mut self, index: usize) {
        if self.exchanges[index].alarm.is_some() {
            self.watch(index);
        }
    }

    /// When an exchange that begins now is no longer young.
    pub(super) fn grown_up_at(now: Instant) -> Instant {
        now + ACK_DELAY
    }

    /// Tells requesters that their exchanges are over. Those of this machine see the end of the link, as if the process had
    /// died: what only asks can be sent again.
    pub fn shut_down(&mut self, cx: &mut Context<'_>) {
        let mut cancels = Group::default();
        for (_, exchange) in &mut self.exchanges {
            let session = &mut exchange.session;
            if session.by_router() {
                continue;
            }
            let Outgoing { to, by_router, seq } = session.send();
            cancels.push(to, by_router, session.id(), seq);
        }
        // Who does not take them hears of the end by that of the link.
        let _ = self.requesters.send_group(&mut cancels, Kind::Cancel, cx);
    }
}
