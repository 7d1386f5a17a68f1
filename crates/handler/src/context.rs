// SPDX-License-Identifier: AGPL-3.0-or-later
//! What every stage is given with an event: the time, and where its actions go.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::time::Instant;

use rpc::ws_control;
use zhttp::session::HandedOver;
use zhttp::{Packet, PeerId};

use crate::notice::Notice;

/// A frontend, and the socket that reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The frontend's instance.
    pub peer: PeerId,
    /// By its ROUTER instead of PUB, because packet 0 has asked for it.
    pub by_router: bool,
}

/// What makes packets for sessions of one frontend differ that are equal otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// See [`Address`].
    pub by_router: bool,
    /// The lane: 1 where we push into a session of the proxy.
    pub lane: u8,
}

impl Way {
    /// Towards a frontend.
    pub fn to(self, peer: PeerId) -> Address {
        Address { peer, by_router: self.by_router }
    }
}

/// What has become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Taken,
    /// It is on its way, but the link has no room for more. What comes next waits on the holds until
    /// [`Engine::on_room`](crate::engine::Engine::on_room).
    Full,
    /// It is lost: its sessions must end.
    Lost,
}

/// Carries out what the engine decides.
pub trait Actions {
    /// Sends a packet to a frontend.
    fn send(&mut self, to: Address, packet: &Packet<'_>) -> Sent;
    /// The number of a frontend's instance; none if we can not reach any by its name.
    fn frontend(&mut self, name: &[u8]) -> Option<PeerId>;
    /// Sends the first packet of a request of our own to a proxy; `false` if none takes it.
    fn open(&mut self, packet: &Packet<'_>) -> bool;
    /// Sends a further packet of one; `false` if that proxy takes no more or is gone.
    fn to_proxy(&mut self, to: PeerId, packet: &Packet<'_>) -> bool;
    /// Gives a long-poll back to a proxy, to be proxied anew; `false` if none takes it.
    fn give_back(&mut self, poll: &GivenBack<'_>) -> bool;
    /// Tells a proxy about WebSockets.
    fn control(&mut self, packet: &ws_control::Packet<'_>) -> Sent;
    /// Subscribes to a channel at those who publish over SUB.
    fn follow(&mut self, channel: &str);
    /// Ends such a subscription.
    fn unfollow(&mut self, channel: &str);
    /// Tells people.
    fn report(&mut self, notice: Notice<'_>);
}

/// A long-poll on its way back to the proxy.
#[derive(Clone, Copy, Debug)]
pub struct GivenBack<'a> {
    /// Its session, as it is now.
    pub session: &'a HandedOver,
    /// What the client has asked for (`take_over::asked`).
    pub asked: &'a [u8],
    /// Channels as the backend names them, with the ids of the last messages that the client has.
    pub last_ids: &'a [(String, String)],
    /// The ids of the channels' last items, as far as they are known here.
    pub known: &'a [(String, String)],
    /// The turn in which it was decided. Those of one turn may share a request, because the backend is asked after all that has
    /// led to it; an earlier request may not know of it yet.
    pub round: u64,
}

/// See the module.
pub struct Context<'a> {
    /// The time of the event.
    pub now: Instant,
    /// Carries out what is decided.
    pub actions: &'a mut dyn Actions,
}

impl<'a> Context<'a> {
    /// The context of one event.
    pub fn new(now: Instant, actions: &'a mut dyn Actions) -> Self {
        Context { now, actions }
    }

    /// Tells people.
    pub fn report(&mut self, notice: Notice<'_>) {
        self.actions.report(notice);
    }
}
