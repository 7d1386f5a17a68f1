// SPDX-License-Identifier: AGPL-3.0-or-later
//! One request and its response: what is known about it, and what time does to it. Without I/O and clock.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tnetstring::{Item, Kind};
use zhttp::Packet;
use zhttp::session::server::{Due, Outgoing, Session};

use crate::connect::attempts::Attempts;
use crate::connect::target::Endpoint;
use crate::http1::coding::Unpacker;
use crate::http1::download::Download;
use crate::http1::request::Request;
use crate::http1::upload::Upload;
use crate::websocket::kept::Kept;
use crate::websocket::refusal::Refusing;
use crate::websocket::socket::Socket;

/// How long a backend may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the look-up of its name to a connection, over all of its addresses.
    pub connect: Duration,
    /// From the end of the request, or the last interim response, to the end of the head of the response.
    pub response: Duration,
    /// Without a byte either way while the request is under way.
    pub idle: Duration,
}

/// How far an exchange has come.
#[derive(Debug)]
pub enum Phase {
    /// The name of the backend is being looked up.
    Resolving {
        /// When to give up on it.
        until: Instant,
    },
    /// Connections are being made, of which the first will do.
    Connecting(Box<Attempts>),
    /// The request goes out and the response comes in.
    Open {
        /// The connection.
        connection: usize,
        /// It has carried requests before, so it may turn out to be dead.
        reused: bool,
    },
}

/// What to do about an exchange because of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Nothing yet.
    None,
    /// Let the requester hear that it still exists.
    KeepAlive(Outgoing),
    /// The requester has been silent for too long: drop it without a word.
    Expired,
    /// The session can not go on: cancel it.
    Spent,
    /// The name is not resolved in time.
    ResolveTimeout,
    /// Addresses have not answered, so others are tried.
    Dial,
    /// The backend does not answer.
    ResponseTimeout,
    /// The requester's own limit is reached.
    SessionTimeout,
    /// Nothing has moved for too long.
    Idle,
}

/// One request and its response.
#[derive(Debug)]
pub struct Exchange {
    /// The requester's side.
    pub session: Session,
    /// Tells this exchange from an earlier one in the same slot.
    pub serial: u64,
    /// Where the request goes.
    pub endpoint: Rc<Endpoint>,
    /// Whether internal addresses may be reached.
    pub trusted: bool,
    /// Whether it does no harm to send the request twice.
    pub is_safe: bool,
    /// How far it has come.
    pub phase: Phase,
    /// What goes to the backend.
    pub upload: Upload,
    /// What comes from the backend.
    pub download: Download,
    /// Read from the backend and not dealt with: the beginning of something, or payload without credits.
    pub leftover: Vec<u8>,
    /// Something has come from the backend, so the request can not be sent again.
    pub answered: bool,
    /// The requester takes interim responses.
    pub takes_interim: bool,
    /// The requester takes bodies with their coding.
    pub takes_coded: bool,
    /// What takes the coding of the body off, for a requester that does not.
    pub unpacker: Option<Box<Unpacker>>,
    /// Its frames, if it is for a WebSocket.
    pub socket: Option<Box<Socket>>,
    /// What is kept of it for a successor of the requester.
    pub kept: Option<Box<Kept>>,
    /// The head of an answer that refuses it.
    pub refusing: Option<Box<Refusing>>,
    /// Credits are owed to its requester, and will be granted soon.
    pub owing: bool,
    /// When the entry in the timer wheel that counts is due.
    pub alarm: Option<Instant>,
    /// When something was last sent to or received from the backend.
    pub active: Instant,
    /// Since when the backend could have answered: all of the request has been sent.
    pub asked: Option<Instant>,
    timeouts: Timeouts,
    /// Bytes that the body may still have.
    max_size: Option<u64>,
    /// The requester's limit.
    until: Option<Instant>,
    user_data: Option<(Kind, Box<[u8]>)>,
}

impl Exchange {
    /// Begins an exchange.
    pub fn new(
        session: Session,
        serial: u64,
        packet: &Packet<'_>,
        request: Request,
        download: Download,
        timeouts: Timeouts,
        now: Instant,
    ) -> Self {
        Exchange {
            session,
            serial,
            endpoint: request.endpoint,
            trusted: request.trusted,
            is_safe: request.is_safe,
            phase: Phase::Resolving { until: now + timeouts.connect },
            upload: request.upload,
            download,
            leftover: Vec::new(),
            answered: false,
            takes_interim: packet.ext.interim && request.websocket.is_none(),
            takes_coded: packet.ext.coded,
            unpacker: None,
            socket: request.websocket.map(|key| Box::new(Socket::new(&key, !packet.ext.coded))),
            kept: None,
            refusing: None,
            owing: false,
            alarm: None,
            active: now,
            asked: None,
            timeouts,
            max_size: packet.max_size,
            until: packet.timeout.and_then(|ms| now.checked_add(Duration::from_millis(ms))),
            user_data: packet.user_data.map(|item| (item.kind, item.payload.into())),
        }
    }

    /// Begins to look for a connection, or begins again.
    pub fn begin_connecting(&mut self, now: Instant) {
        self.phase = Phase::Resolving { until: now + self.timeouts.connect };
        self.asked = None;
    }

    /// What every packet to the requester echoes.
    pub fn user_data(&self) -> Option<Item<'_>> {
        self.user_data.as_ref().map(|(kind, payload)| Item { kind: *kind, payload })
    }

    /// The connection that it uses.
    pub fn connection(&self) -> Option<usize> {
        match self.phase {
            Phase::Resolving { .. } | Phase::Connecting(_) => None,
            Phase::Open { connection, .. } => Some(connection),
        }
    }

    /// Whether the request may be sent again on another connection: the backend closed a connection that had waited for
    /// its next request, has not said a word about this one, and either can not have seen it or may see it twice.
    pub fn may_be_repeated(&self) -> bool {
        matches!(self.phase, Phase::Open { reused: true, .. })
            && !self.answered
            && self.upload.is_whole()
            && (self.is_safe || self.upload.is_untouched())
    }

    /// Whether content of the body waits here that could be passed on.
    pub fn has_unpacked(&self) -> bool {
        self.unpacker.as_ref().is_some_and(|unpacker| !unpacker.is_dry())
    }

    /// When it ends if nothing else happens; only of a WebSocket without requester, or that both sides have closed.
    fn until(&self) -> Option<Instant> {
        self.kept.as_ref()?.until
    }

    /// Whether its requester has gone, and a successor may claim it.
    pub fn is_orphan(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.is_orphan)
    }

    /// Whether it is a WebSocket that both sides have closed.
    pub fn is_closed_socket(&self) -> bool {
        self.socket.as_ref().is_some_and(|socket| socket.is_closed())
    }

    /// Since when nothing has moved, if that matters: a WebSocket may be silent for as long as it likes.
    fn idle_since(&self) -> Option<Instant> {
        let is_open = self.socket.as_ref().is_some_and(|socket| socket.is_open() && !socket.awaits_close());
        (!is_open).then_some(self.active)
    }

    /// Whether the connection can carry another request when this exchange is over.
    pub fn leaves_connection_usable(&self) -> bool {
        self.download.is_done()
            && self.download.is_persistent()
            && self.upload.is_finished()
            && self.leftover.is_empty()
    }

    /// Counts body bytes against the requester's limit; `announced` is what the head said. `false` if it is exceeded.
    pub fn count_body(&mut self, bytes: usize, announced: Option<u64>) -> bool {
        let Some(left) = &mut self.max_size else { return true };
        if announced.is_some_and(|length| length > *left) {
            return false;
        }
        match left.checked_sub(bytes as u64) {
            Some(less) => {
                *left = less;
                true
            }
            None => false,
        }
    }

    /// Bytes have gone to the backend, or have come from it.
    pub fn moved(&mut self, now: Instant) {
        self.active = now;
    }

    /// When the backend must have answered; none before all of the request has been sent.
    fn answer_due(&self) -> Option<Instant> {
        self.asked.filter(|_| !self.download.has_head()).map(|asked| asked + self.timeouts.response)
    }

    /// What is due now. Call again until there is nothing, or the exchange is over.
    pub fn ring(&mut self, now: Instant) -> Alarm {
        if let Some(until) = self.until() {
            return if until <= now { Alarm::Expired } else { Alarm::None };
        }
        match self.session.on_timer(now) {
            Due::Expired => return Alarm::Expired,
            Due::Spent => return Alarm::Spent,
            Due::KeepAlive(outgoing) => return Alarm::KeepAlive(outgoing),
            Due::Nothing => {}
        }
        if self.until.is_some_and(|until| until <= now) {
            return Alarm::SessionTimeout;
        }
        match &self.phase {
            Phase::Resolving { until } if *until <= now => return Alarm::ResolveTimeout,
            Phase::Connecting(attempts) if attempts.due() <= now => return Alarm::Dial,
            _ => {}
        }
        if self.answer_due().is_some_and(|due| due <= now) {
            Alarm::ResponseTimeout
        } else if self.idle_since().is_some_and(|since| now >= since + self.timeouts.idle) {
            Alarm::Idle
        } else {
            Alarm::None
        }
    }

    /// When something will be due.
    pub fn next_alarm(&self) -> Instant {
        if let Some(until) = self.until() {
            return until;
        }
        let connected = match &self.phase {
            Phase::Resolving { until } => Some(*until),
            Phase::Connecting(attempts) => Some(attempts.due()),
            Phase::Open { .. } => self.answer_due(),
        };
        let idle = self.idle_since().map(|since| since + self.timeouts.idle);
        let always = self.session.next_due();
        [self.until, connected, idle].into_iter().flatten().fold(always, Instant::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::http1::Limits;
    use zhttp::{Ids, Peers};

    fn exchange(packet: &Packet<'_>, now: Instant) -> Exchange {
        let packet = Packet {
            from: b"p",
            ids: Ids::One(b"1", Some(0)),
            method: packet.method.or(Some(b"GET")),
            uri: Some(b"http://h/"),
            ..*packet
        };
        let session = Session::open(&packet, Peers::default().intern(b"p").unwrap(), 1000, now).unwrap();
        let request = Request::from_packet(&packet, String::new).unwrap();
        Exchange::new(session, 1, &packet, request, Download::new(false, Limits::default()), TIMEOUTS, now)
    }

    const SECOND: Duration = Duration::from_secs(1);
    const TIMEOUTS: Timeouts = Timeouts {
        connect: Duration::from_secs(10),
        response: Duration::from_secs(20),
        idle: Duration::from_secs(900),
    };

    /// One that has a connection, and whose requester knows us.
    fn open(packet: &Packet<'_>, now: Instant) -> Exchange {
        let mut exchange = exchange(packet, now);
        exchange.session.send();
        exchange.phase = Phase::Open { connection: 0, reused: false };
        exchange
    }

    #[test]
    fn keep_alives_come_before_the_requester_expects_them_and_silence_ends_it() {
        let start = Instant::now();
        let mut exchange = open(&Packet::default(), start);
        assert_eq!(exchange.next_alarm(), start + 40 * SECOND);
        assert_eq!(exchange.ring(start + 39 * SECOND), Alarm::None);
        assert!(matches!(exchange.ring(start + 40 * SECOND), Alarm::KeepAlive(Outgoing { seq: 1, .. })));
        assert_eq!(exchange.ring(start + 40 * SECOND), Alarm::None);
        assert_eq!(exchange.next_alarm(), start + 60 * SECOND);
        assert_eq!(exchange.ring(start + 60 * SECOND), Alarm::Expired);
    }

    #[test]
    fn a_request_that_takes_long_is_acknowledged() {
        let start = Instant::now();
        let mut exchange = exchange(&Packet::default(), start);
        assert_eq!(exchange.next_alarm(), start + zhttp::ACK_DELAY);
        assert!(matches!(exchange.ring(start + zhttp::ACK_DELAY), Alarm::KeepAlive(Outgoing { seq: 0, .. })));
    }

    #[test]
    fn the_requesters_own_limit_counts() {
        let start = Instant::now();
        let mut exchange = open(&Packet { timeout: Some(1500), ..Packet::default() }, start);
        assert_eq!(exchange.next_alarm(), start + Duration::from_millis(1500));
        assert_eq!(exchange.ring(start + 2 * SECOND), Alarm::SessionTimeout);
    }

    #[test]
    fn a_body_beyond_max_size_is_noticed_by_its_announcement_or_its_bytes() {
        let now = Instant::now();
        let limited = || exchange(&Packet { max_size: Some(10), ..Packet::default() }, now);
        assert!(!limited().count_body(0, Some(11)));
        let mut exact = limited();
        assert!(exact.count_body(4, Some(10)) && exact.count_body(6, None) && !exact.count_body(1, None));
        assert!(exchange(&Packet::default(), now).count_body(1 << 40, None));
    }

    #[test]
    fn each_stage_has_its_deadline() {
        let start = Instant::now();
        let mut exchange = exchange(&Packet::default(), start);
        exchange.session.send();
        assert_eq!(exchange.next_alarm(), start + TIMEOUTS.connect);
        assert_eq!(exchange.ring(start + TIMEOUTS.connect), Alarm::ResolveTimeout);

        exchange.phase = Phase::Open { connection: 0, reused: false };
        exchange.asked = Some(start + SECOND);
        assert_eq!(exchange.next_alarm(), start + SECOND + TIMEOUTS.response);
        // Bytes of a head that does not end are not an answer.
        exchange.moved(start + 20 * SECOND);
        assert_eq!(exchange.ring(start + 21 * SECOND), Alarm::ResponseTimeout);

        exchange.download.read(b"HTTP/1.1 200 OK\r\n\r\n", 0, &mut Vec::new()).unwrap();
        assert_eq!(exchange.ring(start + 21 * SECOND), Alarm::None);
        let alive = Packet { kind: zhttp::Kind::KeepAlive, ..Packet::default() };
        exchange.session.on_packet(&alive, Some(1), start + 900 * SECOND).unwrap();
        let end = start + 20 * SECOND + TIMEOUTS.idle;
        assert!(matches!(exchange.ring(end), Alarm::KeepAlive(_)));
        assert_eq!(exchange.ring(end), Alarm::Idle);
    }

    #[test]
    fn only_an_unanswered_whole_request_on_a_used_connection_is_repeated() {
        let mut exchange = open(&Packet::default(), Instant::now());
        assert!(!exchange.may_be_repeated());
        exchange.phase = Phase::Open { connection: 0, reused: true };
        exchange.upload.wrote(1);
        assert!(exchange.may_be_repeated());
        exchange.answered = true;
        assert!(!exchange.may_be_repeated());
    }

    #[test]
    fn a_request_with_effects_is_repeated_only_if_no_byte_of_it_has_been_sent() {
        let mut exchange = exchange(&Packet { method: Some(b"POST"), ..Packet::default() }, Instant::now());
        exchange.phase = Phase::Open { connection: 0, reused: true };
        assert!(exchange.may_be_repeated());
        exchange.upload.wrote(1);
        assert!(!exchange.may_be_repeated());
    }
}
