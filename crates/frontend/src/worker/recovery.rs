//! Sessions of a server that has ended are offered to its successor.

use std::time::Instant;

use zhttp::PeerId;
use zhttp::recovery::{Held, MARK, Message, Packer, pack_seen};

use super::Worker;

/// Whether a packet is one of these.
pub(super) fn is_one(message: &[u8]) -> bool {
    message.first() == Some(&MARK)
}

impl Worker {
    /// A server has asked for the sessions of its predecessor. They are offered when that has ended.
    pub(super) fn on_recovery(&mut self, from: &[u8], message: &[u8], now: Instant) {
        let place = match Message::decode(message) {
            Ok(Message::Recover(place)) => place,
            Ok(_) => return,
            Err(error) => {
                self.counters.malformed += 1;
                let text = format_args!("a question of a server for its predecessor's sessions is skipped: {error}");
                return self.warnings.warn("recovery", now, text);
            }
        };
        let places = &mut self.core.exchanges.places;
        let (Some(server), Some(number)) = (self.core.links.peers.intern(from), places.find(place)) else { return };
        let Some(place) = places.get_mut(number) else { return };
        let ended = place.is_vacant || place.owner.is_none_or(|owner| owner == server);
        if !ended {
            place.waits = Some(server);
            return;
        }
        self.offer(number, server, now);
    }

    /// Offers the orphans of a place to the server that has it now.
    pub(super) fn offer(&mut self, number: usize, to: PeerId, now: Instant) {
        let exchanges = &mut self.core.exchanges;
        let mut packets = Vec::new();
        let (mut orphans, ms) = (exchanges.orphans_of(number), exchanges.ms(now));
        orphans.sort_unstable();
        let Some(place) = exchanges.places.get(number) else { return };
        pack_seen(place.sent.seen(), |packet| packets.push(packet));
        let mut packer = Packer::default();
        for &(record, slot) in &orphans {
            let Some(exchange) = exchanges.get(slot) else { continue };
            let Some(content) = exchanges.records.content(record) else { continue };
            let held = Held {
                id: exchange.id(),
                standing: exchange.standing(),
                age: ms.wrapping_sub(exchange.kept.since),
                since: exchange.kept.since_run,
                run: exchange.kept.run,
                lags: exchange.kept.lags,
                record: 0,
            };
            packets.extend(packer.push(held, content));
        }
        packets.extend(packer.finish());
        packets.push(Message::Done { run: place.sent.run }.encode());
        let sent = packets.iter().all(|packet| self.core.links.send_raw(to, packet));
        let offered = orphans.len();
        if !sent {
            self.warnings.warn("offer", now, "a server does not take the sessions of its predecessor");
        } else if offered > 0 {
            tracing::info!("{offered} sessions are offered to the successor of their server");
        }
        if let Some(place) = self.core.exchanges.places.get_mut(number) {
            (place.owner, place.is_vacant, place.waits) = (Some(to), false, None);
        }
    }
}
