// SPDX-License-Identifier: AGPL-3.0-or-later
//! Sessions of a server that has ended are offered to its successor.

use std::time::Instant;

use zhttp::PeerId;
use zhttp::recovery::{Held, MARK, Message, Packer, RecoveryError, pack_seen};

use crate::exchange::{Exchange, Exchanges};

/// Whether a packet is one of a server that asks.
pub fn is_question(message: &[u8]) -> bool {
    message.first() == Some(&MARK)
}

/// What a successor is told.
#[derive(Debug)]
pub struct Offer {
    /// Packets, in order.
    pub packets: Vec<Vec<u8>>,
    /// How many sessions they offer.
    pub sessions: usize,
}

/// A server asks for the sessions of its predecessor. Gives the number of the place if they are to be offered now; otherwise they
/// are when that has ended.
///
/// # Errors
/// The question is not understood.
pub fn on_question(exchanges: &mut Exchanges, from: PeerId, message: &[u8]) -> Result<Option<usize>, RecoveryError> {
    let Message::Recover(place) = Message::decode(message)? else { return Ok(None) };
    let places = &mut exchanges.places;
    let Some(number) = places.find(place) else { return Ok(None) };
    let Some(place) = places.get_mut(number) else { return Ok(None) };
    let ended = place.is_vacant || place.owner.is_none_or(|owner| owner == from);
    if !ended {
        place.waits = Some(from);
    }
    Ok(ended.then_some(number))
}

/// Offers the orphans of a place to the server that has it from now on.
pub fn offer(exchanges: &mut Exchanges, number: usize, to: PeerId, now: Instant) -> Offer {
    let mut packets = Vec::new();
    let (mut orphans, ms) = (exchanges.orphans_of(number), exchanges.ms(now));
    orphans
        .sort_unstable_by_key(|&(record, slot)| (exchanges.get(slot).is_some_and(Exchange::is_counted), record, slot));
    let Some(place) = exchanges.places.get(number) else { return Offer { packets, sessions: 0 } };
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
            gone: exchange.is_left(),
            unread: exchange.unread(),
            counted: exchange.counted(),
            record: 0,
        };
        packets.extend(packer.push(held, content));
    }
    packets.extend(packer.finish());
    packets.push(Message::Done { run: place.sent.run }.encode());
    if let Some(place) = exchanges.places.get_mut(number) {
        (place.owner, place.is_vacant, place.waits) = (Some(to), false, None);
    }
    Offer { packets, sessions: orphans.len() }
}
