//! What every stage is given with an event: the time, and where its actions go.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::time::Instant;

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
    /// Subscribes to a channel at those who publish over SUB.
    fn follow(&mut self, channel: &str);
    /// Ends such a subscription.
    fn unfollow(&mut self, channel: &str);
    /// Tells people.
    fn report(&mut self, notice: Notice<'_>);
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
