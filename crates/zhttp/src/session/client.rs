// SPDX-License-Identifier: AGPL-3.0-or-later
//! One session seen by its client: the side that sent the first packet.
//!
//! Used by the frontend (towards proxy and handler) and by the proxy (towards the outbound client).

use std::time::{Duration, Instant};

use crate::id::PeerId;
use crate::packet::{Kind, Packet};

use super::Protocol;
use super::credits::{Credits, Window};
use super::sequence::Sequence;
use super::timing::Timing;
use super::violation::Violation;

/// How long credits of a quiet session may be owed (see [`Grant::Later`]).
pub const GRANT_DELAY: Duration = Duration::from_millis(100);

/// No credits are owed since any tick.
const NOT_OWED: u32 = u32::MAX;

/// Whom the session's packets go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// No packet has come yet, so the address is not known.
    Unknown,
    /// The instance that sent the last packet.
    At(PeerId),
    /// The former server has handed the session over and the new one has not spoken: nothing may be sent.
    Moving,
}

/// Address and number of a packet that is sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The server.
    pub to: PeerId,
    /// The packet's number.
    pub seq: u32,
}

/// A session as its next server must take it up (see [`Session::standing`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Number of the next packet from the client.
    pub in_seq: u32,
    /// Number of the next packet to the client.
    pub out_seq: u32,
    /// Body bytes that may be sent.
    pub credits: u32,
}

/// What a packet means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server lives; it may have granted credits. If it was not known before, credits may be owed to it: see
    /// [`Session::pass_on`].
    Alive,
    /// A part of the response, whose bytes are within the window. Without `more` it is the last, and the session is over:
    /// nothing is sent any more.
    Data,
    /// A WebSocket's close, ping or pong.
    Control,
    /// The server hands the session over: send it a `handoff-proceed`. The session stands still until its next server
    /// speaks.
    HandOff(Outgoing),
    /// `error` or `cancel`: the session is over.
    Ended,
}

/// What is to be done because of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing more.
    Nothing,
    /// Send a keep-alive.
    KeepAlive(Outgoing),
    /// The server was silent for too long. The session is over, and nobody is told.
    Expired,
    /// The numbers are nearly used up: cancel the session.
    Spent,
}

/// What is to be done after bytes of the response have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Nothing.
    Nothing,
    /// Credits are owed since now: call [`Session::grant`] in [`GRANT_DELAY`]. An owner with many
    /// sessions keeps a list of those, and does so for all of them together.
    Later,
    /// Send a `credit` packet.
    Now(Outgoing, u32),
}

/// The client's end of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub(super) timing: Timing,
    pub(super) sequence: Sequence,
    pub(super) server: Server,
    /// Response bytes that the server may send.
    pub(super) window: Window,
    /// Request bytes that we may send.
    pub(super) credits: Credits,
    /// The tick since which credits are owed.
    pub(super) owed_since: u32,
    pub(super) protocol: Protocol,
    /// The last of the response has come.
    pub(super) complete: bool,
    /// A second server that the session has at the same time.
    pub(super) second: Option<Box<Session>>,
}

impl Session {
    /// A session whose first packet (number 0) is sent now, and grants a window of `window` bytes.
    pub fn start(protocol: Protocol, window: u32, now: Instant) -> Self {
        Session {
            timing: Timing::start(now),
            sequence: Sequence { next_in: 0, next_out: 1 },
            server: Server::Unknown,
            window: Window::granted(window),
            credits: Credits::default(),
            owed_since: NOT_OWED,
            protocol,
            complete: false,
            second: None,
        }
    }

    /// Lets a second server speak in the session, whose numbers, credits and time are its own: lane 1. There are at most
    /// two.
    pub fn open_second(&mut self, window: u32, now: Instant) -> &mut Session {
        self.second.get_or_insert_with(|| Box::new(Session::start(self.protocol, window, now)))
    }

    /// The session as its second server sees it.
    pub fn second(&mut self) -> Option<&mut Session> {
        self.second.as_deref_mut()
    }

    /// The second server has left.
    pub fn close_second(&mut self) {
        self.second = None;
    }

    /// The second server, once it has spoken.
    pub fn second_server(&self) -> Option<PeerId> {
        self.second.as_ref().and_then(|second| second.server())
    }

    /// Numbered packets that have come.
    pub fn received(&self) -> u32 {
        self.sequence.next_in
    }

    /// Takes in a packet of the session. `from` is the packet's `from`, `seq` the session's number in it.
    ///
    /// `error` and `cancel` are always accepted: they end the session whatever was lost before.
    ///
    /// # Errors
    /// The server broke the rules. The session can not go on; cancel it.
    pub fn on_packet(
        &mut self,
        packet: &Packet<'_>,
        from: Option<PeerId>,
        seq: Option<u32>,
        now: Instant,
    ) -> Result<Outcome, Violation> {
        match (packet.ext.lane, &mut self.second) {
            (0, _) => self.take(packet, from, seq, now),
            (1, Some(second)) => second.take(packet, from, seq, now),
            (lane, _) => Err(Violation::Lane(lane)),
        }
    }

    fn take(
        &mut self,
        packet: &Packet<'_>,
        from: Option<PeerId>,
        seq: Option<u32>,
        now: Instant,
    ) -> Result<Outcome, Violation> {
        let kind = packet.kind;
        if kind.ends_session() {
            return Ok(Outcome::Ended);
        }
        if self.protocol == Protocol::WebSocket && seq.is_none() {
            return Err(Violation::Unnumbered { expected: self.sequence.next_in });
        }
        self.sequence.accept(seq)?;
        self.timing.hear(now);
        match from {
            Some(from) => self.server = Server::At(from),
            // The whole response in one packet needs no answer.
            None if self.server().is_none() && (kind != Kind::Data || packet.more) => {
                return Err(Violation::Anonymous);
            }
            None => {}
        }
        self.credits.add(packet.credits.unwrap_or(0));
        match kind {
            Kind::Credit | Kind::KeepAlive => Ok(Outcome::Alive),
            Kind::Data if self.complete => Err(Violation::AfterEnd),
            Kind::Data => {
                self.window.receive(packet.body.len())?;
                self.complete = !packet.more && self.protocol == Protocol::Http;
                Ok(Outcome::Data)
            }
            Kind::HandoffStart => {
                let outgoing = self.send().ok_or(Violation::Anonymous)?;
                self.server = Server::Moving;
                Ok(Outcome::HandOff(outgoing))
            }
            Kind::Ping | Kind::Pong | Kind::Close if self.protocol == Protocol::WebSocket => {
                if kind != Kind::Close {
                    self.window.receive(packet.body.len())?;
                }
                Ok(Outcome::Control)
            }
            got => Err(Violation::Kind { got, expected: "a packet of a response" }),
        }
    }

    /// Address and number of a packet that is sent now, or `None` while there is nobody to send it to.
    pub fn send(&mut self) -> Option<Outgoing> {
        self.server().map(|to| Outgoing { to, seq: self.sequence.take() })
    }

    /// As [`Session::send`], for a packet with `bytes` of body, which must be within [`Session::credits`].
    pub fn send_body(&mut self, bytes: usize) -> Option<Outgoing> {
        let outgoing = self.send()?;
        self.credits.spend(bytes);
        Some(outgoing)
    }

    /// Body bytes of the request that may be sent now.
    pub fn credits(&self) -> u32 {
        if self.server().is_some() { self.credits.available() } else { 0 }
    }

    /// The same for whoever the next server will be.
    pub fn granted(&self) -> u32 {
        self.credits.available()
    }

    /// Counts bytes of the response that have left for where they go, so that as many may come again. Call it with 0 after
    /// [`Outcome::Alive`], because what was owed while there was nobody to grant it to is due then.
    ///
    /// Says [`Grant::Later`] once, and not again before [`Session::grant`].
    pub fn pass_on(&mut self, bytes: usize, now: Instant) -> Grant {
        if self.window.pass_on(bytes)
            && let Some((to, credits)) = self.take_owed()
        {
            return Grant::Now(to, credits);
        }
        if self.complete || !self.window.owes() || self.owed_since != NOT_OWED {
            return Grant::Nothing;
        }
        self.owed_since = self.timing.tick(now).min(NOT_OWED - 1);
        Grant::Later
    }

    /// Grants what is owed, if anything and if there is somebody to grant it to. An owner that is about to send a packet
    /// anyway puts the credits into that.
    pub fn grant(&mut self) -> Option<(Outgoing, u32)> {
        self.owed_since = NOT_OWED;
        self.take_owed()
    }

    fn take_owed(&mut self) -> Option<(Outgoing, u32)> {
        if !self.window.owes() || self.complete {
            return None;
        }
        let to = self.send()?;
        Some((to, self.window.take_owed()))
    }

    /// The server, once it is known and not being changed.
    pub fn server(&self) -> Option<PeerId> {
        match self.server {
            Server::At(peer) => Some(peer),
            Server::Unknown | Server::Moving => None,
        }
    }

    /// The server has ended, and another is to go on with the session: nothing is sent until that speaks.
    pub fn orphan(&mut self) {
        if self.server().is_some() {
            self.server = Server::Moving;
        }
    }

    /// What was granted does not count any more: whoever comes next gives anew.
    pub fn forget_credits(&mut self) {
        self.credits = Credits::default();
    }

    /// What the next server must know to go on: the numbers of its packets and of ours, and the bytes that it may send.
    pub fn standing(&self) -> Standing {
        Standing { in_seq: self.sequence.next_out, out_seq: self.sequence.next_in, credits: self.window.open() }
    }

    /// Whether a packet from the server has ever come.
    pub fn is_answered(&self) -> bool {
        self.server != Server::Unknown
    }

    /// Says what is due, one thing at a time: call it again until there is nothing, or the session has ended.
    pub fn on_timer(&mut self, now: Instant) -> Due {
        if now >= self.timing.expires_at() {
            return Due::Expired;
        }
        if self.sequence.is_spent() {
            return Due::Spent;
        }
        if now >= self.timing.keep_alive_at() {
            match self.send() {
                Some(to) => {
                    self.timing.keep_alive(now);
                    return Due::KeepAlive(to);
                }
                None => self.timing.postpone(now),
            }
        }
        Due::Nothing
    }

    /// When [`Session::on_timer`] has something to say, that of the second server included. A keep-alive may wait for up to
    /// [`KEEP_ALIVE_SLACK`](super::KEEP_ALIVE_SLACK) after that, for others to share its packet.
    pub fn next_due(&self) -> Instant {
        let own = self.timing.expires_at().min(self.timing.keep_alive_at());
        self.second.as_ref().map_or(own, |second| own.min(second.next_due()))
    }

    /// When [`Session::grant`] is due after [`Grant::Later`], for owners that keep no list.
    pub fn grant_due(&self) -> Option<Instant> {
        // A tick more, because the tick may have begun before the credits were owed.
        (self.owed_since != NOT_OWED && !self.complete)
            .then(|| self.timing.time(self.owed_since.saturating_add(1)) + GRANT_DELAY)
    }
}
