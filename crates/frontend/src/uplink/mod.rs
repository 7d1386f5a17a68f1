// SPDX-License-Identifier: AGPL-3.0-or-later
//! The way to the servers of exchanges: proxy and handler.

mod links;

use zhttp::{Id, Packet, PeerId};

pub(crate) use self::links::{Links, Refused};

/// Where packets of exchanges go.
pub trait Uplink {
    /// Opens a session: to any proxy. Gives the packet as it is sent.
    fn open(&mut self, packet: &Packet<'_>) -> &[u8];
    /// Whether there is a proxy.
    fn is_connected(&self) -> bool {
        true
    }
    /// Sends a later packet to the session's server.
    fn send(&mut self, to: PeerId, packet: &Packet<'_>);
    /// Grants credits, in a packet that many sessions may share.
    fn grant(&mut self, to: PeerId, credits: u32, id: Id, seq: u32);
}
