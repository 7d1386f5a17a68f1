//! One session seen by its server: the side that answers.
//!
//! Used by the proxy and the handler (towards the frontend) and by the outbound client (towards the proxy). The owner
//! feeds received packets to [`Session::receive`], asks for a number for each packet it sends, and counts the body bytes
//! it sends against [`Session::credits`].

use std::time::Instant;

use crate::EXPIRY;
use crate::id::{Id, PeerId};
use crate::packet::{Ids, Kind, Packet};
pub use crate::session::HandedOver;
use crate::session::Violation;
use crate::session::sequence::Sequence;

/// The server's end of one session.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// The client's instance.
    pub client: PeerId,
    /// The id that the client gave the session.
    pub id: Id,
    /// Body bytes that may be sent.
    pub credits: u32,
    /// Responses go through the ROUTER socket instead of PUB, because the client asked for it.
    pub by_router: bool,
    sequence: Sequence,
    heard: Instant,
    /// A former owner's keep-alive may have crossed the hand-off and used up a number; so the first packet that comes to
    /// the new owner may be ahead.
    just_taken_over: bool,
}

impl Session {
    /// Opens a session by its first packet.
    ///
    /// # Errors
    /// The packet does not begin a session: it has no or several ids, a type, or a number other than 0.
    pub fn open(packet: &Packet<'_>, client: PeerId, now: Instant) -> Result<Self, Violation> {
        let Ids::One(id, seq) = packet.ids else {
            return Err(Violation::Unexpected("first packet without exactly one id"));
        };
        if packet.kind != Kind::Data {
            return Err(Violation::Unexpected(packet.kind.name()));
        }
        let Some(id) = Id::new(id) else { return Err(Violation::Unexpected("first packet with an overlong id")) };
        match seq {
            Some(0) => {}
            None if !packet.more => {}
            got => return Err(Violation::Sequence { expected: 0, got: got.unwrap_or_default() }),
        }
        Ok(Session {
            client,
            id,
            credits: packet.credits.unwrap_or(0),
            by_router: packet.router_resp,
            sequence: Sequence { next_in: 1, next_out: 0 },
            heard: now,
            just_taken_over: false,
        })
    }

    /// Takes a session over from its former server. A packet must be sent at once, so that the client learns of it.
    pub fn take_over(state: &HandedOver, now: Instant) -> Self {
        Session {
            client: state.client,
            id: state.id,
            credits: state.credits,
            by_router: state.by_router,
            sequence: Sequence { next_in: state.in_seq, next_out: state.out_seq },
            heard: now,
            just_taken_over: true,
        }
    }

    /// Takes note of a packet and adds the credits it grants. `error` and `cancel` are always accepted: they end the
    /// session whatever was lost before.
    ///
    /// # Errors
    /// The packet is out of sequence; the session should be cancelled.
    pub fn receive(
        &mut self,
        kind: Kind,
        seq: Option<u32>,
        credits: Option<u32>,
        now: Instant,
    ) -> Result<(), Violation> {
        if kind.ends_session() {
            return Ok(());
        }
        if std::mem::take(&mut self.just_taken_over) && seq == self.sequence.next_in.checked_add(1) {
            self.sequence.skip();
        }
        self.sequence.accept(seq)?;
        self.credits = self.credits.saturating_add(credits.unwrap_or(0));
        self.heard = now;
        Ok(())
    }

    /// The number for a packet that is sent now.
    pub fn send(&mut self) -> u32 {
        self.sequence.take()
    }

    /// The number for a packet with `bytes` of body, which must be within the credits.
    pub fn send_body(&mut self, bytes: usize) -> u32 {
        debug_assert!(bytes <= self.credits as usize, "{bytes} bytes sent with {} credits", self.credits);
        self.credits = self.credits.saturating_sub(bytes as u32);
        self.sequence.take()
    }

    /// What the next owner must know, after the client's `handoff-proceed`.
    pub fn hand_over(&self) -> HandedOver {
        HandedOver {
            client: self.client,
            id: self.id,
            in_seq: self.sequence.next_in,
            out_seq: self.sequence.next_out,
            credits: self.credits,
            by_router: self.by_router,
        }
    }

    /// Whether anything has been sent, so that the client knows this server.
    pub fn has_spoken(&self) -> bool {
        self.sequence.next_out > 0
    }

    /// Whether the client has been silent for too long.
    pub fn is_expired(&self, now: Instant) -> bool {
        now.duration_since(self.heard) >= EXPIRY
    }

    /// When the session expires if nothing comes.
    pub fn expires_at(&self) -> Instant {
        self.heard + EXPIRY
    }
}
