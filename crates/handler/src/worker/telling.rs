// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tells statistics to whoever listens, and listens to the proxy's meanwhile.

use std::time::Instant;

use rpc::stats::{ConnMax, Packet};
use zhttp::{Id, PeerId, Peers};

use super::{MESSAGES_A_TURN, Worker};
use crate::statistics::Packets;

impl Worker {
    /// Begins or ends, as listeners come and go.
    pub(super) fn look_for_listeners(&mut self, now: Instant) {
        let heard = self.stats.as_ref().is_some_and(|stats| stats.is_heard());
        if heard == self.engine.takes_notes() {
            return;
        }
        self.engine.take_notes_for_statistics(heard);
        self.statistics.begin_anew(self.engine.counters(), now);
        if heard {
            let peers = &self.outputs.peers;
            let ids = self.engine.held_sessions().map(|session| connection_id(session, peers)).collect();
            self.statistics.meet(ids, now);
        }
        let changed = match heard {
            true => self.proxy_stats.subscribe(b""),
            false => self.proxy_stats.unsubscribe(b""),
        };
        if let Err(error) = changed {
            self.outputs.warnings.warn(
                "stats",
                now,
                format_args!("statistics of the proxy are not to be had: {error}"),
            );
        }
    }

    /// Takes in statistics of the proxy.
    pub(super) fn take_proxy_statistics(&mut self, now: Instant) {
        let mut packets = Packets::new();
        for _ in 0..MESSAGES_A_TURN {
            let Some(message) = self.proxy_stats.recv() else { break };
            match Packet::decode(&message) {
                Ok(packet) => {
                    let is_held = match &packet {
                        Packet::Conn(conn) => self.engine.is_request(conn.id.as_bytes(), &self.outputs.peers),
                        _ => false,
                    };
                    self.statistics.on_proxy(packet, is_held, now, &mut packets);
                }
                Err(error) => {
                    let text = format_args!("IN proxy stats: received message with invalid format, skipping: {error}");
                    self.outputs.warnings.warn("stats", now, text);
                }
            }
        }
        self.tell(packets);
    }

    /// Takes in how many connections a proxy has, if it tells that instead of each.
    pub(super) fn take_conn_max(&mut self, packets: &[ConnMax], now: Instant) {
        if !self.engine.takes_notes() {
            return;
        }
        for packet in packets {
            if !self.statistics.on_conn_max(packet, now) {
                let text = "a number of connections is not counted: too many proxies and routes have told theirs";
                self.outputs.warnings.warn("conn-max", now, text);
            }
        }
    }

    /// Tells what has happened in this turn, and what is due.
    pub(super) fn tell_statistics(&mut self, now: Instant) {
        let Some(notes) = self.engine.notes() else { return };
        let mut packets = Packets::new();
        let (begun, ended, given_back) = (notes.begun.clone(), notes.ended.clone(), notes.given_back.clone());
        let (engine, peers) = (&self.engine, &self.outputs.peers);
        self.statistics.on_notes(notes, engine.channels(), now, &mut packets);
        let name = |session| connection_id(session, peers);
        begun.into_iter().for_each(|key| self.statistics.begin(&name(key), now));
        given_back.into_iter().for_each(|key| self.statistics.give_back(&name(key), &mut packets));
        ended.into_iter().for_each(|key| self.statistics.end(&name(key), &mut packets));
        let is_held = |id: &str| engine.is_request(id.as_bytes(), peers);
        self.statistics.on_timer(engine.channels(), is_held, engine.counters(), now, &mut packets);
        self.tell(packets);
    }

    fn tell(&self, packets: Packets) {
        let Some(stats) = &self.stats else { return };
        for mut packet in packets {
            packet.set_from(&self.instance);
            let message = if self.json { packet.encode_json() } else { packet.encode().unwrap_or_default() };
            // Who does not keep up with statistics misses some.
            let _ = stats.send(&message);
        }
    }
}

/// The name of a session for all processes.
fn connection_id((peer, id): (PeerId, Id), peers: &Peers) -> String {
    String::from_utf8_lossy(&[peers.name(peer), &b":"[..], id.as_bytes()].concat()).into_owned()
}
