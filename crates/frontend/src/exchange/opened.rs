// SPDX-License-Identifier: AGPL-3.0-or-later
//! Exchanges for tests, whose packets go nowhere.

use std::time::Instant;

use wire::http1::{Limits, parse_request};
use zhttp::{Id, Packet, PeerId};

use super::{Exchanges, Opening};
use crate::uplink::Uplink;

/// Nobody.
pub(crate) struct Nowhere;

impl Uplink for Nowhere {
    fn open(&mut self, _: &Packet<'_>) -> &[u8] {
        &[]
    }
    fn send(&mut self, _: PeerId, _: &Packet<'_>) {}
    fn grant(&mut self, _: PeerId, _: u32, _: Id, _: u32) {}
}

/// Opens an exchange for a client; gives its slot.
pub(crate) fn open_for(exchanges: &mut Exchanges, client: u32, websocket: bool, now: Instant) -> u32 {
    let (head, _) = parse_request(b"GET / HTTP/1.1\r\n\r\n", &Limits::default()).unwrap().unwrap();
    let opening = Opening {
        client,
        peer: None,
        tls: false,
        head: &head,
        body: false,
        websocket,
        lanes: false,
        recovers: websocket,
        window: 1000,
        router_resp: true,
    };
    exchanges.open(&opening, now, &mut Nowhere)
}
