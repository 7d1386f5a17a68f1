//! ROUTER: later packets of a session, addressed to the peer that owns the other end.
//!
//! A message is `[peer identity, empty, content]` (ZHTTP, framing per socket). A probe (`[peer, empty]`) is answered
//! with `probe-ack`, and a `probe-ack` that arrives is ignored.

use crate::error::{Error, SendError};
use crate::socket::{Context, Core, Handle, Message, Options, socket_common};

const PROBE_ACK: &[u8] = b"probe-ack";

/// Sends to and receives from peers by their identity.
pub struct Router {
    core: Handle,
}

socket_common!(Router);

impl Router {
    /// A socket that is not connected yet. A packet for an absent peer waits a second; it is then counted as refused.
    pub fn new(context: &Context, options: &Options) -> Result<Self, Error> {
        let core = Core::new(context, zmq::ROUTER, "ROUTER", options)?;
        let setup = |e: zmq::Error| Error::Setup { kind: "ROUTER", reason: e.to_string() };
        core.raw.set_router_mandatory(true).map_err(setup)?;
        // A peer that comes back under its old name before the old connection was noticed dead takes its place.
        core.raw.set_router_handover(true).map_err(setup)?;
        Ok(Router { core })
    }

    /// Sends a packet to a peer.
    pub fn send(&self, peer: &[u8], packet: &[u8]) -> Result<(), SendError> {
        self.core.send_to(&[peer, b"", packet])
    }

    /// The next packet and the identity of the peer it came from.
    pub fn recv(&self) -> Option<(Message, Message)> {
        loop {
            let peer = self.core.recv_part()?;
            if !peer.0.get_more() {
                self.core.count(|c| c.malformed += 1);
                continue;
            }
            let empty = self.core.recv_part()?;
            if !empty.is_empty() {
                self.core.skip_rest();
                continue;
            }
            if !empty.0.get_more() {
                let _ = self.core.send(&[&peer, b"", PROBE_ACK]);
                continue;
            }
            let packet = self.core.recv_part()?;
            if packet.0.get_more() {
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
