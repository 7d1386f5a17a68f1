// SPDX-License-Identifier: AGPL-3.0-or-later
//! The links to frontends as the engine sees them: whether they have room, and what waits for that.
//!
//! What a frontend does not take waits on its own holds. A link that has no room is asked for nothing until it has; then
//! its holds have their turn. So a frontend that has stopped holds up nobody else.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::collections::VecDeque;
use std::rc::Rc;

use zhttp::{Bulk, Id, Ids, Kind, Packet, PeerId};

use crate::context::{Address, Context, Sent};
use crate::subscribe::channels::HoldKey;

/// Runs that are remembered for a frontend: as many as it remembers itself.
const MAX_UNSAID: usize = 1024;

/// The number of a run, and its messages as they stand in a packet.
type Unsaid = (u64, Rc<[u8]>);

/// See the module.
#[derive(Default)]
pub struct Links {
    /// By the number of the frontend.
    links: Vec<Link>,
    full: usize,
    /// Sessions of packets that could not be sent.
    lost: Vec<(Address, Id, u32)>,
    /// Bytes of heads that have been sent to clients, as statistics count them.
    pub header_bytes: u64,
    /// Bytes of content.
    pub content_bytes: u64,
}

#[derive(Default)]
struct Link {
    full: bool,
    /// Holds with content, each with its birth, since the index may have another hold then.
    waiting: Vec<(HoldKey, u64)>,
    /// Sessions that are over, of which the frontend has not been told.
    cancels: Vec<(bool, Id, u32)>,
    /// Messages that have been sent while there was no room, of which it has not been told.
    unsaid: VecDeque<Unsaid>,
}

impl Links {
    /// Whether a frontend's link takes packets now.
    pub fn has_room(&self, peer: PeerId) -> bool {
        self.full == 0 || self.links.get(peer.index()).is_none_or(|link| !link.full)
    }

    fn link(&mut self, peer: PeerId) -> &mut Link {
        if self.links.len() <= peer.index() {
            self.links.resize_with(peer.index() + 1, Link::default);
        }
        &mut self.links[peer.index()]
    }

    /// Sends a packet, whether there is room or not.
    pub fn send(&mut self, to: Address, packet: &Packet<'_>, cx: &mut Context<'_>) {
        let clients = packet.ids.len() as u64;
        if packet.code.is_some() {
            let headers = packet.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            self.header_bytes += clients * (3 + packet.reason.map_or(0, <[u8]>::len) + headers) as u64;
        }
        // What is pushed is frames: their content is counted where it is known.
        if packet.ext.lane == 0 {
            self.content_bytes += clients * packet.body.len() as u64;
        }
        match cx.actions.send(to, packet) {
            Sent::Taken => {}
            Sent::Full => self.mark_full(to.peer),
            Sent::Lost => {
                self.mark_full(to.peer);
                let sessions = packet.ids.iter().filter_map(Result::ok);
                self.lost.extend(sessions.filter_map(|(id, seq)| Some((to, Id::new(id)?, seq.unwrap_or(0)))));
            }
        }
    }

    fn mark_full(&mut self, peer: PeerId) {
        if !std::mem::replace(&mut self.link(peer).full, true) {
            self.full += 1;
        }
    }

    /// Tells a frontend that a session is over, now or when there is room.
    pub fn cancel(&mut self, to: Address, id: Id, seq: u32, cx: &mut Context<'_>) {
        if !self.has_room(to.peer) {
            return self.link(to.peer).cancels.push((to.by_router, id, seq));
        }
        let ids = Ids::One(id.as_bytes(), Some(seq));
        self.send(to, &Packet { ids, kind: Kind::Cancel, ..Packet::default() }, cx);
    }

    /// Lets a hold wait for room.
    pub fn wait(&mut self, peer: PeerId, hold: HoldKey, birth: u64) {
        self.link(peer).waiting.push((hold, birth));
    }

    /// Keeps which messages are being sent while a frontend's link has no room.
    pub fn keep_unsaid(&mut self, peer: PeerId, run: u64, items: &[u8]) {
        let unsaid = &mut self.link(peer).unsaid;
        if unsaid.len() == MAX_UNSAID {
            unsaid.pop_front();
        }
        unsaid.push_back((run, items.into()));
    }

    /// What has been kept of them.
    pub fn take_unsaid(&mut self, peer: PeerId) -> VecDeque<Unsaid> {
        std::mem::take(&mut self.link(peer).unsaid)
    }

    /// There is room again: tells the frontend which sessions are over, and returns the holds that have waited.
    pub fn open(&mut self, peer: PeerId, cx: &mut Context<'_>) -> Vec<(HoldKey, u64)> {
        let link = self.link(peer);
        let (waiting, cancels) = (std::mem::take(&mut link.waiting), std::mem::take(&mut link.cancels));
        if std::mem::replace(&mut link.full, false) {
            self.full -= 1;
        }
        let mut bulk: Bulk<bool> = Bulk::default();
        cancels.into_iter().for_each(|(by_router, id, seq)| bulk.push(peer, by_router, id, seq));
        bulk.drain(|peer, by_router, ids| {
            self.send(Address { peer, by_router }, &Packet { ids, kind: Kind::Cancel, ..Packet::default() }, cx);
        });
        waiting
    }

    /// The frontend is gone.
    pub fn forget(&mut self, peer: PeerId) {
        if std::mem::take(self.link(peer)).full {
            self.full -= 1;
        }
        self.lost.retain(|(to, ..)| to.peer != peer);
    }

    /// The sessions of packets that could not be sent since the last call, each with the number that it has lost. They
    /// must end: their frontends are told when there is room.
    pub fn take_lost(&mut self) -> Vec<(PeerId, Id)> {
        let lost = std::mem::take(&mut self.lost);
        for (to, id, seq) in &lost {
            self.link(to.peer).cancels.push((to.by_router, *id, seq.wrapping_add(1)));
        }
        lost.into_iter().map(|(to, id, _)| (to.peer, id)).collect()
    }
}
