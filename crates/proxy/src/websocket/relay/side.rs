// SPDX-License-Identifier: AGPL-3.0-or-later
//! The two sides of a WebSocket, as far as each is known by itself: who is on the other side, and its close frames.

use std::time::Instant;

use zhttp::PeerId;
use zhttp::session::client::Session;

use super::super::over_http::Conversation;
use super::super::over_http::asking::Asking;

/// The close frames of one side's connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Closing {
    /// Ours has left.
    pub sent: bool,
    /// Theirs has come.
    pub received: bool,
}

impl Closing {
    /// Whether nothing can follow.
    pub fn is_done(self) -> bool {
        self.sent && self.received
    }
}

/// Who is on the other side.
pub enum Origin {
    /// Nobody, yet or any more.
    None,
    /// The test backend, which sends back what it gets.
    Test,
    /// A backend that speaks WebSocket.
    Direct(Box<Direct>),
    /// A backend that is spoken to by requests.
    OverHttp(Box<OverHttp>),
}

/// A WebSocket to a backend.
pub struct Direct {
    pub(super) serial: u64,
    pub(super) session: Session,
    /// When an outbound process must have answered at all.
    pub(super) answer_by: Instant,
    pub(super) closing: Closing,
    /// The outbound process counts what passes.
    pub(super) counts: bool,
}

impl Origin {
    /// Whether there is nobody.
    pub fn is_none(&self) -> bool {
        matches!(self, Origin::None)
    }

    /// Whether the session with the backend's side has this number.
    pub fn is(&self, serial: u64) -> bool {
        match self {
            Origin::Direct(direct) => direct.serial == serial,
            Origin::OverHttp(over_http) => over_http.is(serial),
            Origin::None | Origin::Test => false,
        }
    }

    /// The close frames with it.
    pub fn closing(&self) -> Option<Closing> {
        match self {
            Origin::Direct(direct) => Some(direct.closing),
            Origin::OverHttp(over_http) => Some(over_http.closing()),
            Origin::None | Origin::Test => None,
        }
    }

    /// Whether the outbound process counts what passes.
    pub(super) fn count(&mut self, counts: bool) {
        if let Origin::Direct(direct) = self {
            direct.counts = counts;
        }
    }

    /// The backend has closed.
    pub(super) fn close_received(&mut self) {
        if let Origin::Direct(direct) = self {
            direct.closing.received = true;
        }
    }

    /// When it has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        let direct = match self {
            Origin::Direct(direct) => direct,
            Origin::OverHttp(over_http) => return over_http.next_due(),
            Origin::None | Origin::Test => return None,
        };
        let due = direct.session.next_due();
        Some(if direct.session.is_answered() { due } else { due.min(direct.answer_by) })
    }
}

/// A backend that is spoken to by requests.
pub struct OverHttp {
    pub(super) conversation: Conversation,
    pub(super) asking: Option<Box<Asking>>,
}

impl OverHttp {
    /// A conversation without a request under way.
    pub(super) fn new(conversation: Conversation) -> Self {
        OverHttp { conversation, asking: None }
    }

    /// Whether the request under way has this number.
    pub fn is(&self, serial: u64) -> bool {
        self.asking.as_ref().is_some_and(|asking| asking.serial == serial)
    }

    /// Who has the request under way.
    pub fn server(&self) -> Option<PeerId> {
        self.asking.as_ref()?.session.server()
    }

    /// The close frames with it.
    pub fn closing(&self) -> Closing {
        Closing { sent: self.conversation.has_closed(), received: self.conversation.is_closed_by_backend() }
    }

    /// Gives up room that an idle conversation does not need.
    pub fn rest(&mut self) {
        self.conversation.rest();
    }

    /// When it has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        let asking = self.asking.as_ref().map(|asking| asking.next_due());
        asking.into_iter().chain(self.conversation.next_due()).min()
    }
}

/// The ids of WebSockets towards backends begin here, those of requests end below it.
const FIRST_ORIGIN: u32 = 1 << 31;

/// The number that stands in the ids of a relay towards its backend.
pub fn origin_index(index: u32) -> u32 {
    FIRST_ORIGIN | index
}

/// The number of the relay that this one stands for.
pub fn index_of_origin(number: u32) -> Option<u32> {
    number.checked_sub(FIRST_ORIGIN)
}
