//! One session seen by its client: the side that sent the first packet.
//!
//! Used by the frontend (towards proxy and handler) and by the proxy (towards the outbound client). The owner feeds the
//! packets it receives for the session to [`Session::receive`] and asks for a number for each packet it sends.

use std::time::Instant;

use crate::EXPIRY;
use crate::id::PeerId;
use crate::packet::Kind;
use crate::session::Violation;
use crate::session::sequence::Sequence;

/// Whom the session's packets go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// No packet has come yet, so the address is not known.
    Unknown,
    /// The instance that sent the last packet.
    At(PeerId),
    /// The former server has handed the session over and the new one has not spoken: nothing may be sent.
    Moving,
}

/// The client's end of one session.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    sequence: Sequence,
    server: Server,
    heard: Instant,
}

impl Session {
    /// A session whose first packet (number 0) is sent now.
    pub fn start(now: Instant) -> Self {
        Session { sequence: Sequence { next_in: 0, next_out: 1 }, server: Server::Unknown, heard: now }
    }

    /// Takes note of a packet. `error` and `cancel` are always accepted: they end the session whatever was lost before.
    ///
    /// # Errors
    /// The packet is out of sequence; the session can not go on.
    pub fn receive(
        &mut self,
        kind: Kind,
        from: Option<PeerId>,
        seq: Option<u32>,
        now: Instant,
    ) -> Result<(), Violation> {
        if !kind.ends_session() {
            self.sequence.accept(seq)?;
        }
        if let Some(from) = from {
            self.server = Server::At(from);
        }
        self.heard = now;
        Ok(())
    }

    /// Where to send a packet and its number, or `None` while there is nobody to send it to.
    pub fn send(&mut self) -> Option<(PeerId, u32)> {
        match self.server {
            Server::At(peer) => Some((peer, self.sequence.take())),
            Server::Unknown | Server::Moving => None,
        }
    }

    /// Answers a `handoff-start`: gives address and number of the `handoff-proceed`, after which nothing is sent until
    /// the new server speaks.
    pub fn hand_off(&mut self) -> Option<(PeerId, u32)> {
        let to = self.send();
        self.server = Server::Moving;
        to
    }

    /// The server, once it is known and not being changed.
    pub fn server(&self) -> Option<PeerId> {
        match self.server {
            Server::At(peer) => Some(peer),
            Server::Unknown | Server::Moving => None,
        }
    }

    /// Whether a packet from the server has ever come.
    pub fn is_answered(&self) -> bool {
        self.server != Server::Unknown
    }

    /// Whether the server has been silent for too long.
    pub fn is_expired(&self, now: Instant) -> bool {
        now.duration_since(self.heard) >= EXPIRY
    }

    /// When the session expires if nothing comes.
    pub fn expires_at(&self) -> Instant {
        self.heard + EXPIRY
    }
}
