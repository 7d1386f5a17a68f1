//! ROUTER: later packets of a session, addressed to the peer that owns the other end.
//!
//! A message is `[peer identity, empty, content]` (ZHTTP, framing per socket). A probe (`[peer, empty]`) is answered
//! with `probe-ack`, and a `probe-ack` that arrives is ignored.

use crate::error::SendError;
use crate::role::Role;
use crate::socket::{Handle, Message, socket_common};

const PROBE_ACK: &[u8] = b"probe-ack";

/// Sends to and receives from peers by their identity.
pub struct Router {
    core: Handle,
}

socket_common!(Router, Role::Router);

impl Router {
    /// Sends a packet to a peer. One for an absent peer waits a second; it is then counted as refused.
    pub fn send(&self, peer: &[u8], packet: &[u8]) -> Result<(), SendError> {
        self.core.send_to(&[peer, b"", packet])
    }

    /// The next packet and the identity of the peer it came from.
    pub fn recv(&self) -> Option<(Message, Message)> {
        loop {
            let peer = self.core.recv_part()?;
            if !peer.more() {
                self.core.count(|c| c.malformed += 1);
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
            self.core.count(|c| c.received += 1);
            return Some((peer, packet));
        }
    }
}
