// SPDX-License-Identifier: AGPL-3.0-or-later
//! One session seen by its server: the side that answers.
//!
//! Used by the proxy and the handler (towards the frontend) and by the outbound client (towards the proxy).

use std::time::Instant;

use crate::ACK_DELAY;
use crate::id::{Id, KeptId, PeerId};
use crate::packet::{Kind, Packet};

use super::Protocol;
use super::credits::{Credits, Window};
use super::handoff::{HandedOver, Ownership};
use super::sequence::Sequence;
use super::timing::Timing;
use super::violation::Violation;

/// Address and number of a packet that is sent now. The session's id is [`Session::id`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The client's instance.
    pub to: PeerId,
    /// Through the ROUTER socket instead of PUB, because the client asked for it.
    pub by_router: bool,
    /// The packet's number.
    pub seq: u32,
}

/// What a packet means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client lives; it may have granted credits.
    Alive,
    /// A part of the request, whose bytes are within the window.
    Data,
    /// A WebSocket's close, ping or pong.
    Control,
    /// The client agrees to the hand-off and waits: [`Session::hand_over`].
    Proceed,
    /// The session has been given away; the packet is none of ours.
    Ignored,
    /// `error` or `cancel`: the session is over.
    Ended,
}

/// What is to be done because of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing more.
    Nothing,
    /// The request waits for an answer and the client does not know us: send a keep-alive, which may be shared by many
    /// sessions.
    KeepAlive(Outgoing),
    /// The client was silent for too long. The session is over, and nobody is told.
    Expired,
    /// The numbers are nearly used up: cancel the session.
    Spent,
}

/// The server's end of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub(super) timing: Timing,
    pub(super) sequence: Sequence,
    pub(super) client: PeerId,
    /// Response bytes that we may send.
    pub(super) credits: Credits,
    /// Request bytes that the client may send.
    pub(super) window: Window,
    pub(super) id: KeptId,
    pub(super) by_router: bool,
    /// The client takes packets for several sessions.
    pub(super) multi: bool,
    pub(super) protocol: Protocol,
    pub(super) ownership: Ownership,
    /// All of the request has come.
    pub(super) complete: bool,
}

impl Session {
    /// Opens a session by its first packet, whose `from` is `client`. If more of the request is to come, a window of
    /// `window` bytes is owed: [`Session::grant`] it as soon as the request may go on.
    ///
    /// # Errors
    /// The packet does not begin a session: it has no or several ids, a type, or a number other than 0.
    pub fn open(packet: &Packet<'_>, client: PeerId, window: u32, now: Instant) -> Result<Self, Violation> {
        let protocol = Protocol::of(packet);
        let (id, seq) = packet.ids.single().ok_or(Violation::Id)?;
        let id = Id::new(id).ok_or(Violation::Id)?;
        if packet.kind != Kind::Data {
            return Err(Violation::Kind { got: packet.kind, expected: "the first data of a request" });
        }
        match seq {
            Some(0) => {}
            None if !packet.more && protocol == Protocol::Http => {}
            None => return Err(Violation::Unnumbered { expected: 0 }),
            Some(got) => return Err(Violation::Sequence { expected: 0, got }),
        }
        let complete = !packet.more && protocol == Protocol::Http;
        Ok(Session {
            timing: Timing::start(now),
            sequence: Sequence { next_in: 1, next_out: 0 },
            client,
            credits: Credits::new(packet.credits.unwrap_or(0)),
            window: if complete { Window::granted(0) } else { Window::closed(window) },
            id: id.into(),
            by_router: packet.router_resp,
            multi: packet.ext.multi,
            protocol,
            ownership: Ownership::Own,
            complete,
        })
    }

    /// Takes a session over from its former server. A packet must be sent at once, so that the client learns of it.
    pub fn take_over(state: &HandedOver, now: Instant) -> Self {
        Session {
            timing: Timing::start(now),
            sequence: Sequence { next_in: state.in_seq, next_out: state.out_seq },
            client: state.client,
            credits: Credits::new(state.credits),
            window: Window::granted(0),
            id: state.id.into(),
            by_router: state.by_router,
            multi: true,
            protocol: Protocol::Http,
            ownership: Ownership::JustTakenOver,
            complete: true,
        }
    }

    /// Takes a WebSocket up from a server that has ended. Of a window of `window` bytes, `granted` are the client's already. A
    /// packet must be sent at once, so that the client learns of it.
    pub fn take_up(state: &HandedOver, window: u32, granted: u32, now: Instant) -> Self {
        Session {
            window: Window::partly(window, granted),
            protocol: Protocol::WebSocket,
            complete: false,
            ownership: Ownership::Own,
            ..Session::take_over(state, now)
        }
    }

    /// Begins as the second server of a WebSocket, on lane 1, which pushes. What it may send, its first server knows by the
    /// first packet; numbers and time are its own.
    pub fn second(client: PeerId, id: Id, by_router: bool, credits: u32, now: Instant) -> Self {
        Session {
            timing: Timing::start(now),
            sequence: Sequence { next_in: 1, next_out: 0 },
            client,
            credits: Credits::new(credits),
            window: Window::granted(0),
            id: id.into(),
            by_router,
            multi: true,
            protocol: Protocol::WebSocket,
            ownership: Ownership::Own,
            complete: false,
        }
    }

    /// The number that the client's next packet has.
    pub fn next_in(&self) -> u32 {
        self.sequence.next_in
    }

    /// The number that the next packet has.
    pub fn next_out(&self) -> u32 {
        self.sequence.next_out
    }

    /// Takes in a packet of the session. `seq` is the session's number in it.
    ///
    /// `error` and `cancel` are always accepted: they end the session whatever was lost before.
    ///
    /// # Errors
    /// The client broke the rules. The session can not go on; cancel it.
    pub fn on_packet(&mut self, packet: &Packet<'_>, seq: Option<u32>, now: Instant) -> Result<Outcome, Violation> {
        if self.ownership == Ownership::Given {
            return Ok(Outcome::Ignored);
        }
        let kind = packet.kind;
        if kind.ends_session() {
            return Ok(Outcome::Ended);
        }
        if packet.ext.lane != 0 {
            return Err(Violation::Lane(packet.ext.lane));
        }
        if self.protocol == Protocol::WebSocket && seq.is_none() {
            return Err(Violation::Unnumbered { expected: self.sequence.next_in });
        }
        if self.ownership == Ownership::JustTakenOver {
            self.ownership = Ownership::Own;
            if seq.is_some() && seq == self.sequence.next_in.checked_add(1) {
                self.sequence.skip();
            }
        }
        self.sequence.accept(seq)?;
        self.timing.hear(now);
        self.credits.add(packet.credits.unwrap_or(0));
        match kind {
            Kind::Credit | Kind::KeepAlive => Ok(Outcome::Alive),
            Kind::Data if self.complete => Err(Violation::AfterEnd),
            Kind::Data => {
                self.window.receive(packet.body.len())?;
                self.complete = !packet.more && self.protocol == Protocol::Http;
                Ok(Outcome::Data)
            }
            Kind::HandoffProceed if self.ownership == Ownership::Offered => {
                self.ownership = Ownership::Given;
                Ok(Outcome::Proceed)
            }
            Kind::Ping | Kind::Pong | Kind::Close if self.protocol == Protocol::WebSocket => {
                if kind != Kind::Close {
                    self.window.receive(packet.body.len())?;
                }
                Ok(Outcome::Control)
            }
            got => Err(Violation::Kind { got, expected: "a packet of a request" }),
        }
    }

    /// Address and number of a packet that is sent now.
    pub fn send(&mut self) -> Outgoing {
        debug_assert!(self.ownership != Ownership::Given, "a packet is sent in a session that was given away");
        Outgoing { to: self.client, by_router: self.by_router, seq: self.sequence.take() }
    }

    /// As [`Session::send`], for a packet with `bytes` of body, which must be within [`Session::credits`].
    pub fn send_body(&mut self, bytes: usize) -> Outgoing {
        self.credits.spend(bytes);
        self.send()
    }

    /// Body bytes of the response that may be sent now.
    pub fn credits(&self) -> u32 {
        self.credits.available()
    }

    /// Counts bytes of the request that have left for where they go, so that as many may come again. `true` once this is
    /// worth a packet: [`Session::grant`].
    pub fn pass_on(&mut self, bytes: usize) -> bool {
        self.window.pass_on(bytes) && !self.complete
    }

    /// Grants what is owed, unless that is nothing or all of the request has come; the number goes into the `credits` of a
    /// packet that is sent now.
    pub fn grant(&mut self) -> Option<u32> {
        (self.window.owes() && !self.complete).then(|| self.window.take_owed())
    }

    /// Asks the client to pause, so that the session can be given to another server: address and number of a
    /// `handoff-start`. The client answers with [`Outcome::Proceed`]; nothing is sent in the meantime.
    pub fn offer(&mut self) -> Outgoing {
        let outgoing = self.send();
        self.ownership = Ownership::Offered;
        outgoing
    }

    /// Gives the session away. The client must have agreed, or not know us (and let anybody answer, `ext.adopt`).
    pub fn hand_over(&mut self) -> HandedOver {
        debug_assert!(self.ownership == Ownership::Given || !self.has_spoken(), "the client was not asked to pause");
        self.ownership = Ownership::Given;
        HandedOver {
            client: self.client,
            id: self.id.get(),
            in_seq: self.sequence.next_in,
            out_seq: self.sequence.next_out,
            credits: self.credits.available(),
            by_router: self.by_router,
        }
    }

    /// Takes the session back, because nobody wanted it: address and number of the keep-alive that must be sent, since the
    /// client is silent until it hears from its owner.
    pub fn resume(&mut self, now: Instant) -> Outgoing {
        self.ownership = Ownership::Own;
        self.timing.hear(now);
        self.timing.keep_alive(now);
        self.send()
    }

    /// When it began.
    pub fn opened(&self) -> Instant {
        self.timing.opened()
    }

    /// The session's id, which its client chose.
    pub fn id(&self) -> Id {
        self.id.get()
    }

    /// The same, as it stands in packets.
    pub fn id_bytes(&self) -> &[u8] {
        self.id.as_bytes()
    }

    /// The client's instance.
    pub fn client(&self) -> PeerId {
        self.client
    }

    /// Whether responses go through the ROUTER socket instead of PUB, because the client asked for it.
    pub fn by_router(&self) -> bool {
        self.by_router
    }

    /// Whether the client takes packets for several sessions.
    pub fn takes_multi(&self) -> bool {
        self.multi
    }

    /// Whether the session is ours: not offered to another server, and not given away.
    pub fn is_ours(&self) -> bool {
        matches!(self.ownership, Ownership::Own | Ownership::JustTakenOver)
    }

    /// Whether anything has been sent, so that the client knows this server.
    pub fn has_spoken(&self) -> bool {
        self.sequence.next_out > 0
    }

    /// Whether all of the request has come.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Says what is due, one thing at a time: call it again until there is nothing, or the session has ended.
    pub fn on_timer(&mut self, now: Instant) -> Due {
        if now >= self.timing.expires_at() {
            return Due::Expired;
        }
        if self.sequence.is_spent() {
            return Due::Spent;
        }
        if self.keep_alive_at().is_some_and(|due| now >= due) {
            self.timing.keep_alive(now);
            return Due::KeepAlive(self.send());
        }
        Due::Nothing
    }

    /// When [`Session::on_timer`] has something to say. A keep-alive may wait for up to
    /// [`KEEP_ALIVE_SLACK`](super::KEEP_ALIVE_SLACK) after that, for others to share its packet; but not the first, which
    /// tells the client whom to talk to.
    pub fn next_due(&self) -> Instant {
        let expiry = self.timing.expires_at();
        self.keep_alive_at().map_or(expiry, |due| due.min(expiry))
    }

    fn keep_alive_at(&self) -> Option<Instant> {
        match (self.is_ours(), self.has_spoken()) {
            (false, _) => None,
            (true, true) => Some(self.timing.keep_alive_at()),
            (true, false) => Some(self.timing.opened() + ACK_DELAY),
        }
    }
}
