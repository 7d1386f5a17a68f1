// SPDX-License-Identifier: AGPL-3.0-or-later
//! What people are told. The engine returns it; the worker writes it to the log, with a limit for each kind.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::fmt;
use std::time::Duration;

use grip::filter::FilterError;
use zhttp::Id;
use zhttp::session::Violation;

/// Something worth a line in the log.
#[derive(Debug)]
pub enum Notice<'a> {
    /// A held client is subscribed to a channel.
    Subscribed {
        /// What the client asked for.
        uri: &'a str,
        /// The channel's full name.
        channel: &'a str,
    },
    /// An item has been delivered.
    Published {
        /// The channel's full name.
        channel: &'a str,
        /// Holds that it was for.
        receivers: usize,
    },
    /// The backend names more channels than a hold may have.
    TooManyChannels {
        /// What the client asked for.
        uri: &'a str,
        /// See `connection_subscription_max`.
        limit: usize,
    },
    /// The backend names filters that do not exist. They have no effect.
    UnknownFilter {
        /// What the client asked for.
        uri: &'a str,
        /// The first of them.
        filter: &'a str,
    },
    /// The proxy hands over a session that is held.
    HeldAlready(Id),
    /// A frontend has broken the protocol; the session is cancelled.
    Violation(Id, Violation),
    /// A session has used up its numbers; it is cancelled.
    Spent(Id),
    /// A client is closed because it reads too slowly.
    Slow {
        /// Its session.
        id: Id,
        /// Bytes that wait for it.
        waiting: usize,
    },
    /// Packets could not be sent; their sessions are ended.
    Lost {
        /// How many sessions.
        sessions: usize,
    },
    /// A frontend is gone, and its clients with it.
    FrontendGone {
        /// How many clients were held.
        holds: usize,
    },
    /// A filter has failed; the message is not delivered to those who have it.
    FilterFailed {
        /// The channel's full name.
        channel: &'a str,
        /// Which filter, and why.
        error: &'a FilterError,
    },
    /// Too many messages wait for answers to filters; one was dropped.
    TooManyInquiries {
        /// The channel's full name.
        channel: &'a str,
        /// How many wait.
        waiting: usize,
    },
    /// The publisher expects other content filters than subscribers have; the message is not delivered to them.
    OtherContentFilters {
        /// The channel's full name.
        channel: &'a str,
    },
    /// A published patch does not fit the response that it is to change; the client gets a 502.
    PatchFailed {
        /// The channel's full name.
        channel: &'a str,
        /// Why.
        error: &'a grip::patch::PatchError,
    },
    /// More deliveries wait for a route than `message_hwm` allows.
    RateExceeded {
        /// The mark.
        hwm: u32,
        /// The route, if it is counted apart.
        route: Option<&'a str>,
    },
    /// An item would have to wait for another, but too many wait already; it is dropped.
    OutOfOrder {
        /// The channel's full name.
        channel: &'a str,
    },
    /// A page has been fetched for streams.
    Fetched {
        /// Its address.
        uri: &'a str,
        /// Its status.
        code: u16,
        /// Bytes of its body.
        bytes: usize,
        /// Streams that have got it.
        streams: usize,
    },
    /// A page could not be fetched for streams.
    FetchFailed {
        /// Its address.
        uri: &'a str,
        /// Why, or what it is that came.
        reason: &'a str,
        /// Whether it is tried again.
        again: bool,
    },
    /// Streams end because of what a backend has answered to a next link.
    LinkRefused {
        /// The link.
        uri: &'a str,
        /// What is wrong.
        reason: &'a str,
        /// How many streams.
        streams: usize,
    },
    /// Backends are not told that clients are gone, because too many such requests wait.
    GoneDropped {
        /// How many may wait.
        limit: usize,
    },
    /// Too many messages have come while a page was fetched; one was dropped.
    TooManyKept {
        /// The channel's full name.
        channel: &'a str,
    },
    /// Long-polls can not be given back to the proxy; their clients are closed, so that they come back themselves.
    NotGivenBack {
        /// How many.
        polls: usize,
    },
    /// What the backend of a WebSocket says to the handler has no effect.
    NoInstruction {
        /// What the client asked for.
        uri: &'a str,
        /// Why.
        error: &'a grip::websocket::control::ControlError,
    },
    /// The backend of a WebSocket sets too much data for filters; the last of it has no effect.
    TooMuchMeta {
        /// What the client asked for.
        uri: &'a str,
        /// Bytes that there may be.
        limit: usize,
    },
    /// A WebSocket is closed because its backend asks for what can not be.
    BrokenOff {
        /// What the client asked for.
        uri: &'a str,
        /// What it is.
        reason: &'a str,
    },
    /// The link to the proxy has not taken what was for WebSockets; they are given up.
    WebSocketsLost {
        /// How many.
        websockets: u64,
    },
    /// What a predecessor held is held again.
    TakenUp {
        /// How many requests.
        holds: usize,
        /// Since the start.
        after: Duration,
    },
    /// WebSockets that a predecessor knew are known again.
    KnownAgain {
        /// How many.
        websockets: usize,
        /// Since the start.
        after: Duration,
    },
    /// What a predecessor held can not be held; the clients are closed.
    NotTakenUp {
        /// How many clients.
        sessions: usize,
        /// Why.
        reason: &'a str,
    },
    /// Ids are forgotten before their time; see `id_cache_max`.
    IdsForgotten {
        /// How many are remembered at most.
        limit: usize,
    },
}

/// How loud a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something is wrong.
    Warning,
    /// What happens all the time.
    Info,
}

impl Notice<'_> {
    /// Warnings of a kind share a limit.
    pub fn kind(&self) -> &'static str {
        match self {
            Notice::Subscribed { .. } => "subscribe",
            Notice::Published { .. } => "publish",
            Notice::TooManyChannels { .. } => "channels",
            Notice::UnknownFilter { .. } => "unknown-filter",
            Notice::HeldAlready(_) => "held",
            Notice::Violation(..) => "violation",
            Notice::Spent(_) => "spent",
            Notice::Slow { .. } => "slow",
            Notice::Lost { .. } => "lost",
            Notice::FrontendGone { .. } => "gone",
            Notice::FilterFailed { .. } => "filter",
            Notice::TooManyInquiries { .. } => "filter-messages",
            Notice::OtherContentFilters { .. } => "content-filters",
            Notice::PatchFailed { .. } => "patch",
            Notice::RateExceeded { .. } => "hwm",
            Notice::OutOfOrder { .. } => "order",
            Notice::Fetched { .. } => "fetch",
            Notice::FetchFailed { .. } => "fetch-failed",
            Notice::LinkRefused { .. } => "link",
            Notice::GoneDropped { .. } => "gone-link",
            Notice::TooManyKept { .. } => "kept",
            Notice::NotGivenBack { .. } => "retry",
            Notice::NoInstruction { .. } => "control",
            Notice::TooMuchMeta { .. } => "meta",
            Notice::BrokenOff { .. } => "break-off",
            Notice::WebSocketsLost { .. } => "websockets-lost",
            Notice::TakenUp { .. } => "taken-up",
            Notice::KnownAgain { .. } => "known-again",
            Notice::NotTakenUp { .. } => "record",
            Notice::IdsForgotten { .. } => "ids",
        }
    }

    /// How loud it is.
    pub fn level(&self) -> Level {
        match self {
            Notice::Subscribed { .. }
            | Notice::Published { .. }
            | Notice::Fetched { .. }
            | Notice::TakenUp { .. }
            | Notice::KnownAgain { .. } => Level::Info,
            _ => Level::Warning,
        }
    }
}

impl fmt::Display for Notice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Subscribed { uri, channel } => write!(f, "subscribe {uri} channel={channel}"),
            Notice::Published { channel, receivers } => write!(f, "publish channel={channel} receivers={receivers}"),
            Notice::TooManyChannels { uri, limit } => write!(
                f,
                "httpsession: too many subscriptions for {uri}: those after the first {limit} are left out; see connection_subscription_max"
            ),
            Notice::UnknownFilter { uri, filter } => {
                write!(f, "the response for {uri} names the filter '{filter}', which does not exist; it has no effect")
            }
            Notice::HeldAlready(id) => write!(f, "session {id} is held already; it is not taken over again"),
            Notice::Violation(id, violation) => write!(f, "session {id} cancelled: {violation}"),
            Notice::Spent(id) => write!(f, "session {id} cancelled: its numbers are used up"),
            Notice::Slow { id, waiting } => write!(
                f,
                "client of session {id} closed: it reads too slowly, {waiting} bytes wait for it; see session_queue_bytes"
            ),
            Notice::Lost { sessions } => {
                write!(f, "a frontend's link takes no more packets: {sessions} of its sessions are ended")
            }
            Notice::FrontendGone { holds } => write!(f, "a frontend is gone, and {holds} held clients with it"),
            Notice::FilterFailed { channel, error } => {
                write!(f, "a message of channel {channel} is not delivered to some: filter error: {error}")
            }
            Notice::TooManyInquiries { channel, waiting } => write!(
                f,
                "a message of channel {channel} is not delivered to some: {waiting} messages wait for answers to filters, see filter_messages_max and filter_queue_bytes"
            ),
            Notice::OtherContentFilters { channel } => write!(
                f,
                "a message of channel {channel} is not delivered to some: its content-filters are not those of the subscription"
            ),
            Notice::PatchFailed { channel, error } => {
                write!(f, "a body-patch of channel {channel} does not apply: {error}")
            }
            Notice::RateExceeded { hwm, route: None } => {
                write!(f, "exceeded publish hwm ({hwm}), dropping message")
            }
            Notice::RateExceeded { hwm, route: Some(route) } => {
                write!(f, "exceeded publish hwm ({hwm}) for route {route}, dropping message")
            }
            Notice::OutOfOrder { channel } => {
                write!(f, "sequencer: dropping an item of channel {channel} that would wait in vain")
            }
            Notice::Fetched { uri, code, bytes, streams } => {
                write!(f, "GET {uri} code={code} {bytes} streams={streams}")
            }
            Notice::FetchFailed { uri, reason, again } => {
                let then = if *again { "it is tried again" } else { "the streams end" };
                write!(f, "GET {uri} failed: {reason}; {then}")
            }
            Notice::LinkRefused { uri, reason, streams } => {
                write!(f, "GET {uri}: {reason} {streams} streams end")
            }
            Notice::GoneDropped { limit } => write!(
                f,
                "gone links: more than {limit} requests wait; the backend is not told of further clients that are gone, see gone_requests_max"
            ),
            Notice::TooManyKept { channel } => {
                write!(f, "a message of channel {channel} is dropped: too many came while a page was fetched")
            }
            Notice::NotGivenBack { polls } => {
                write!(f, "{polls} long-polls can not be given back to the proxy; their clients are closed")
            }
            Notice::NoInstruction { uri, error } => {
                write!(f, "wssession: a control message for {uri} has no effect: {error}")
            }
            Notice::TooMuchMeta { uri, limit } => {
                write!(f, "wssession: set-meta for {uri} has no effect: there would be more than {limit} bytes")
            }
            Notice::BrokenOff { uri, reason } => write!(f, "wssession: {uri} is closed: {reason}"),
            Notice::WebSocketsLost { websockets } => {
                write!(f, "the link to the proxy takes no more packets: {websockets} WebSockets are given up")
            }
            Notice::TakenUp { holds, after } => {
                write!(f, "{holds} requests that a predecessor held are held again, after {} ms", after.as_millis())
            }
            Notice::KnownAgain { websockets, after } => {
                let after = after.as_millis();
                write!(f, "{websockets} WebSockets that a predecessor knew are known again, after {after} ms")
            }
            Notice::NotTakenUp { sessions, reason } => {
                write!(f, "{sessions} clients of the predecessor are closed: {reason}")
            }
            Notice::IdsForgotten { limit } => write!(
                f,
                "more than {limit} message ids within id_cache_ttl: the oldest are forgotten early, and their items would be taken for new; see id_cache_max"
            ),
        }
    }
}
