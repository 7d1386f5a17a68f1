//! One request and its response: what is known about it, and what time does to it. Without I/O and clock.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tnetstring::{Item, Kind};
use zhttp::{KEEP_ALIVE, Packet, server};

use crate::connect::target::Endpoint;
use crate::http1::download::Download;
use crate::http1::request::Request;
use crate::http1::upload::Upload;

/// How long one address may take to accept a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an exchange may go without a byte from or to the backend.
pub const INACTIVITY: Duration = Duration::from_secs(1800);
/// Keep-alives are sent this much before they are due, since timers are not exact.
const MARGIN: Duration = Duration::from_secs(5);

/// How far an exchange has come.
#[derive(Debug)]
pub enum Phase {
    /// The name of the backend is being looked up.
    Resolving,
    /// A connection is being made.
    Connecting {
        /// The connection.
        connection: usize,
        /// When to give up on it.
        until: Instant,
        /// Where to try next.
        untried: std::vec::IntoIter<SocketAddr>,
    },
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
    KeepAlive,
    /// The requester has been silent for too long: drop it without a word.
    Expired,
    /// The address does not answer.
    ConnectTimeout,
    /// The requester's own limit is reached.
    SessionTimeout,
    /// Nothing has moved for too long.
    Inactive,
}

/// One request and its response.
#[derive(Debug)]
pub struct Exchange {
    /// The requester's side.
    pub session: server::Session,
    /// Tells this exchange from an earlier one in the same slot.
    pub serial: u64,
    /// Where the request goes.
    pub endpoint: Rc<Endpoint>,
    /// Whether internal addresses may be reached.
    pub trusted: bool,
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
    /// When the entry in the timer wheel that counts is due.
    pub alarm: Option<Instant>,
    /// When something was last sent to the requester.
    pub spoke: Instant,
    /// When something was last sent to or received from the backend.
    pub active: Instant,
    /// Bytes that the body may still have.
    max_size: Option<u64>,
    /// The requester's limit.
    until: Option<Instant>,
    user_data: Option<(Kind, Box<[u8]>)>,
}

impl Exchange {
    /// Begins an exchange.
    pub fn new(
        session: server::Session,
        serial: u64,
        packet: &Packet<'_>,
        request: Request,
        download: Download,
        now: Instant,
    ) -> Self {
        Exchange {
            session,
            serial,
            endpoint: request.endpoint,
            trusted: request.trusted,
            phase: Phase::Resolving,
            upload: request.upload,
            download,
            leftover: Vec::new(),
            answered: false,
            alarm: None,
            spoke: now,
            active: now,
            max_size: packet.max_size,
            until: packet.timeout.and_then(|ms| now.checked_add(Duration::from_millis(ms))),
            user_data: packet.user_data.map(|item| (item.kind, item.payload.into())),
        }
    }

    /// What every packet to the requester echoes.
    pub fn user_data(&self) -> Option<Item<'_>> {
        self.user_data.as_ref().map(|(kind, payload)| Item { kind: *kind, payload })
    }

    /// The connection it has, ready or not.
    pub fn connection(&self) -> Option<usize> {
        match self.phase {
            Phase::Resolving => None,
            Phase::Connecting { connection, .. } | Phase::Open { connection, .. } => Some(connection),
        }
    }

    /// Whether the request may be sent again on another connection: the backend closed a connection that had waited for
    /// its next request, and has not said a word about this one.
    pub fn may_be_repeated(&self) -> bool {
        matches!(self.phase, Phase::Open { reused: true, .. }) && !self.answered && self.upload.is_complete()
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

    /// What is due now.
    pub fn ring(&self, now: Instant) -> Alarm {
        if self.session.is_expired(now) {
            Alarm::Expired
        } else if self.until.is_some_and(|until| until <= now) {
            Alarm::SessionTimeout
        } else if matches!(self.phase, Phase::Connecting { until, .. } if until <= now) {
            Alarm::ConnectTimeout
        } else if now >= self.active + INACTIVITY {
            Alarm::Inactive
        } else if now >= self.spoke + KEEP_ALIVE - MARGIN {
            Alarm::KeepAlive
        } else {
            Alarm::None
        }
    }

    /// When something will be due.
    pub fn next_alarm(&self) -> Instant {
        let connect = match self.phase {
            Phase::Connecting { until, .. } => Some(until),
            _ => None,
        };
        let always = [self.session.expires_at(), self.active + INACTIVITY, self.spoke + KEEP_ALIVE - MARGIN];
        always.into_iter().chain(self.until).chain(connect).min().unwrap_or(self.spoke)
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
            method: Some(b"GET"),
            uri: Some(b"http://h/"),
            ..*packet
        };
        let session = server::Session::open(&packet, Peers::default().intern(b"p").unwrap(), now).unwrap();
        let request = Request::from_packet(&packet, 1000).unwrap();
        Exchange::new(session, 1, &packet, request, Download::new(false, Limits::default()), now)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn keep_alives_come_before_the_requester_expects_them_and_silence_ends_it() {
        let start = Instant::now();
        let mut exchange = exchange(&Packet::default(), start);
        assert_eq!(exchange.next_alarm(), start + 40 * SECOND);
        assert_eq!(exchange.ring(start + 39 * SECOND), Alarm::None);
        assert_eq!(exchange.ring(start + 40 * SECOND), Alarm::KeepAlive);
        exchange.spoke = start + 40 * SECOND;
        assert_eq!(exchange.next_alarm(), start + 60 * SECOND);
        assert_eq!(exchange.ring(start + 60 * SECOND), Alarm::Expired);
    }

    #[test]
    fn the_requesters_own_limit_counts() {
        let start = Instant::now();
        let exchange = exchange(&Packet { timeout: Some(1500), ..Packet::default() }, start);
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
    fn only_an_unanswered_complete_request_on_a_used_connection_is_repeated() {
        let mut exchange = exchange(&Packet::default(), Instant::now());
        assert!(!exchange.may_be_repeated());
        exchange.phase = Phase::Open { connection: 0, reused: false };
        assert!(!exchange.may_be_repeated());
        exchange.phase = Phase::Open { connection: 0, reused: true };
        assert!(exchange.may_be_repeated());
        exchange.answered = true;
        assert!(!exchange.may_be_repeated());
    }
}
