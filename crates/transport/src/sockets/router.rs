// SPDX-License-Identifier: AGPL-3.0-or-later
//! ROUTER: later packets of a session, addressed to the peer that owns the other end.
//!
//! A message is `[peer identity, empty, content]` (ZHTTP, framing per socket). A probe (`[peer, empty]`) is answered
//! with `probe-ack`, and a `probe-ack` that arrives is ignored.

use crate::change::{Arrival, Change};
use crate::counters::Load;
use crate::error::{SendError, Taken};
use crate::message::Message;
use crate::role::Role;
use crate::socket::{Handle, socket_common};

const PROBE_ACK: &[u8] = b"probe-ack";

/// What a [`Router`] has for its owner.
pub enum Incoming {
    /// The identity of a peer, and a packet from it.
    Packet(Message, Message),
    /// A peer joined or left.
    Change(Change),
}

/// Sends to and receives from peers by their identity.
pub struct Router {
    core: Handle,
}

socket_common!(Router, Role::Router);

impl Router {
    /// Sends a packet to a peer. One for an absent peer waits a second; it is then counted as refused.
    ///
    /// # Errors
    /// [`SendError::Full`]: the peer does not take what waits for it, and no more may wait. [`Change::Room`] follows.
    pub fn send(&self, peer: &[u8], packet: &[u8]) -> Result<Taken, SendError> {
        self.core.send_to(peer, &[b"", packet])
    }

    /// What waits for one peer.
    pub fn load_of(&self, peer: &[u8]) -> Load {
        self.core.load_of(peer)
    }

    /// Whether the peer is connected (`ipc:`; of others it is not known).
    pub fn is_present(&self, peer: &[u8]) -> bool {
        self.core.is_present(peer)
    }

    /// The next packet and the identity of the peer it came from; for owners to whom it is all the same who is there.
    pub fn recv(&self) -> Option<(Message, Message)> {
        loop {
            match self.incoming()? {
                Incoming::Packet(peer, packet) => return Some((peer, packet)),
                Incoming::Change(_) => {}
            }
        }
    }

    /// What has come next: a packet, or a peer that joined or left. A peer joins before its first packet and leaves after
    /// its last one, each once; one that comes back under its name leaves and joins again.
    ///
    /// Only connections on this machine (`ipc:`) are told of: libzmq, which serves the others, keeps them to itself.
    pub fn incoming(&self) -> Option<Incoming> {
        loop {
            let peer = match self.core.next_arrival()? {
                Arrival::Change(change) => return Some(Incoming::Change(change)),
                Arrival::Part(peer) => peer,
            };
            if !peer.more() {
                self.core.count_malformed();
                continue;
            }
            let empty = self.core.recv_part()?;
            if !empty.is_empty() {
                self.core.skip_rest();
                continue;
            }
            if !empty.more() {
                let _ = self.core.send(&[&peer, b"", PROBE_ACK]);
                continue;
            }
            let packet = self.core.recv_part()?;
            if packet.more() {
                self.core.skip_rest();
                continue;
            }
            if &packet[..] == PROBE_ACK {
                continue;
            }
            self.core.count_received();
            return Some(Incoming::Packet(peer, packet));
        }
    }
}
