// SPDX-License-Identifier: AGPL-3.0-or-later
//! Connections: who has them, the proxy or this handler, and how many and for how many minutes they are there.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use rpc::stats::{Conn, ConnKind, ConnMax, Packet};

use super::maxima::Change;
use super::{Packets, Statistics, seconds};

const MINUTE: Duration = Duration::from_secs(60);
/// Connections that are kept at most; of others it is told when they begin and end, but they are not repeated or counted.
const MAX_CONNECTIONS: usize = 1_000_000;

pub(super) struct Connection {
    packet: Conn<'static>,
    /// The proxy has named it so lately, or never.
    named_at: Option<Instant>,
    repeat_at: Instant,
    /// Full minutes since it was met are counted from here.
    counted_at: Instant,
    /// It is held here, and counts as one of no route.
    held: bool,
}

impl Connection {
    /// The route in whose report it counts.
    fn route(&self) -> &str {
        self.packet.route.as_deref().filter(|_| !self.held).unwrap_or_default()
    }
}

impl Statistics {
    pub(super) fn on_connection(&mut self, conn: Conn<'_>, is_held: bool, now: Instant, packets: &mut Packets) {
        if conn.unavailable {
            // What has been handed over is ours to end.
            if !is_held {
                let route = conn.route.map(|route| Cow::Owned(route.into_owned()));
                self.forget(&conn.id, route, packets);
            }
            return;
        }
        let repeat_at = now + self.settings.connection_ttl * 3 / 4;
        let packet = Conn {
            from: Cow::Borrowed(""),
            id: conn.id.into_owned().into(),
            route: conn.route.map(|route| route.into_owned().into()),
            peer_address: conn.peer_address.map(|address| address.into_owned().into()),
            ..conn
        };
        packets.push(Packet::Conn(packet.clone()));
        let has_room = self.connections.len() < MAX_CONNECTIONS;
        match self.connections.get_mut(&*packet.id) {
            Some(known) => {
                let is_new = known.named_at.is_none();
                *known = Connection { packet, named_at: Some(now), repeat_at, ..*known };
                if is_new {
                    let route = known.packet.route.as_deref().unwrap_or_default().to_string();
                    self.tally(&route).report.minutes += 1;
                }
            }
            None if has_room => {
                let connection = Connection { packet, named_at: Some(now), repeat_at, counted_at: now, held: is_held };
                self.tally(connection.packet.route.as_deref().unwrap_or_default()).report.minutes += 1;
                if !is_held {
                    self.add(connection.route().to_string().as_str());
                }
                self.connections.insert(connection.packet.id.to_string().into(), connection);
            }
            None => {}
        }
    }

    /// Takes in how many connections a proxy has; `false` if that is not counted because too many proxies say so. They must be
    /// taken in before the connections that the same message hands over.
    pub fn on_conn_max(&mut self, packet: &ConnMax, now: Instant) -> bool {
        let change = self.maxima.set(packet, now);
        let counts = change.is_some();
        change.into_iter().for_each(|change| self.apply(&change));
        counts
    }

    pub(super) fn apply(&mut self, change: &Change) {
        let tally = self.tally(&change.route);
        tally.connections = tally.connections.saturating_sub(change.before).saturating_add(change.after);
        tally.report.connections = tally.report.connections.max(tally.connections);
    }

    /// A connection of a route that others have.
    pub(super) fn add(&mut self, route: &str) {
        let tally = self.tally(route);
        tally.connections += 1;
        tally.report.connections = tally.report.connections.max(tally.connections);
    }

    pub(super) fn subtract(&mut self, route: &str) {
        if let Some(tally) = self.tallies.get_mut(route) {
            tally.connections = tally.connections.saturating_sub(1);
        }
    }

    /// These connections were held here before anybody listened. They are told one after the other, over the time after which each
    /// is repeated, so that there is no burst.
    pub fn meet(&mut self, ids: Vec<String>, now: Instant) {
        let (period, all) = (self.settings.connection_ttl * 3 / 4, ids.len() as f64);
        for (number, id) in ids.into_iter().enumerate() {
            self.hold(id, period.mul_f64(number as f64 / all), now);
        }
    }

    /// A connection is here that the proxy has not named.
    pub(super) fn hold(&mut self, id: String, repeat_in: Duration, now: Instant) {
        if self.connections.len() >= MAX_CONNECTIONS {
            return;
        }
        let ttl = self.settings.connections.then(|| seconds(self.settings.connection_ttl));
        let packet = Conn { id: id.clone().into(), kind: Some(ConnKind::Http), ttl, ..Conn::default() };
        let repeat_at = now + repeat_in;
        let connection = Connection { packet, named_at: None, repeat_at, counted_at: now, held: true };
        self.connections.insert(id.into(), connection);
    }

    /// A connection that the proxy had is held here.
    pub fn begin(&mut self, id: &str, now: Instant) {
        match self.connections.get_mut(id) {
            Some(known) if known.held => {}
            Some(known) => {
                let route = known.route().to_string();
                known.held = true;
                self.subtract(&route);
            }
            // The proxy tells of none, or not yet, or never: it has handed over the connection before it heard that somebody
            // listens.
            None => self.hold(id.into(), self.settings.connection_ttl * 3 / 4, now),
        }
    }

    /// A connection is the proxy's again. Of those who listen none is to take it for gone.
    pub fn give_back(&mut self, id: &str, packets: &mut Packets) {
        if !self.settings.connections {
            self.connections.remove(id);
            return;
        }
        if let Some(known) = self.connections.get_mut(id).filter(|known| known.held) {
            known.held = false;
            packets.push(Packet::Conn(Conn { route: None, ..known.packet.clone() }));
            let route = known.route().to_string();
            self.add(&route);
        }
    }

    /// A connection that was held has ended.
    pub fn end(&mut self, id: &str, packets: &mut Packets) {
        self.forget(id, None, packets);
    }

    pub(super) fn forget(&mut self, id: &str, route: Option<Cow<'static, str>>, packets: &mut Packets) {
        if let Some(known) = self.connections.remove(id).filter(|known| !known.held) {
            self.subtract(known.route());
        }
        if self.settings.connections {
            let id = Cow::Owned(id.to_string());
            packets.push(Packet::Conn(Conn { id, route, unavailable: true, ..Conn::default() }));
        }
    }

    /// Those that the proxy has handed over are ours to repeat; it repeats the others.
    pub(super) fn repeat_connections(&mut self, is_held: impl Fn(&str) -> bool, now: Instant, packets: &mut Packets) {
        let (ttl, tells) = (self.settings.connection_ttl, self.settings.connections);
        let mut lost = Vec::new();
        let tallies = &mut self.tallies;
        self.connections.retain(|id, connection| {
            while connection.counted_at + MINUTE <= now {
                connection.counted_at += MINUTE;
                tallies.entry(connection.route().into()).or_default().report.minutes += 1;
            }
            if connection.repeat_at > now || !tells {
                return true;
            }
            if !is_held(id) {
                let stays = connection.named_at.is_some_and(|named| named + ttl > now);
                lost.extend((!stays && !connection.held).then(|| connection.route().to_string()));
                return stays;
            }
            connection.named_at = Some(now);
            connection.repeat_at = now + ttl * 3 / 4;
            packets.push(Packet::Conn(Conn { route: None, ..connection.packet.clone() }));
            true
        });
        lost.iter().for_each(|route| self.subtract(route));
    }
}
