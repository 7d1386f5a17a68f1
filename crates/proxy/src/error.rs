// SPDX-License-Identifier: AGPL-3.0-or-later
//! What can go wrong with a request: whose fault it is, whether it may be tried again, what the client is told, and what
//! the log says. Decided here and nowhere else.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use routes::Route;

use crate::request::headers::target_name;
use crate::response::answer::Answer;

/// Headers that a response may have for Pushpin's own frontends. With more they drop the packet, and their client waits for
/// a response that never comes (ZHTTP, size limits).
pub(crate) const MAX_FOREIGN_HEADERS: usize = 64;

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client asked for what it may not have, or broke the rules.
    Client,
    /// The backend does not answer, or not as it should.
    Backend,
    /// Another process of the suite is absent, silent, or broke the rules.
    Peer,
    /// The configuration, or something that is not built yet.
    Ourselves,
}

/// Whether the request may be sent again, to the next target or to a successor of the process that had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No backend has seen it.
    Safe,
    /// A backend may have seen it, so only if its method asks and does nothing (RFC 9110, section 9.2.1).
    IfItOnlyAsks,
    /// It would fail again, or be done twice.
    Never,
}

/// Why a request failed. As text it is the reason for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// No route matches.
    #[error("no route matches this host and path")]
    NoRoute,
    /// `Pushpin-Route`, or the handler, names a route that can't be used.
    #[error("the route that was asked for by id does not exist, is not the only one of its id, or is for other paths")]
    NoSuchRoute,
    /// The request has been here before.
    #[error("the request has come back: its CDN-Loop has the token of this proxy")]
    Looped,
    /// A client posts what only a proxy may post.
    #[error("a client may not send WebSocket events to a backend that would take them for ours")]
    ClaimedEvents,
    /// The handler has not answered what was asked about a WebSocket.
    #[error("no handler has answered for {} s about a WebSocket", crate::handler::TIMEOUT.as_secs())]
    NoControl,
    /// The target is of a kind that is not spoken yet.
    #[error("targets of this kind ({0}) are not supported yet; use host:port")]
    TargetKind(String),
    /// The connection to the backend failed, by ZHTTP condition and the outbound process's own words.
    #[error("can't connect ({0})")]
    Unreachable(String),
    /// The backend's address is on a network that the route does not allow.
    #[error("the backend's address is not allowed for this target (untrusted)")]
    Blocked,
    /// The outbound process wants a length.
    #[error("a body of unknown length")]
    LengthRequired,
    /// The backend broke off, or answered what is no HTTP.
    #[error("the backend's answer failed ({0})")]
    Broken(String),
    /// The frontend, one of Pushpin's, can not take the backend's headers.
    #[error("a response with more than {} headers, which this frontend can't take", MAX_FOREIGN_HEADERS)]
    TooManyHeaders,
    /// No outbound process has taken the request in time.
    #[error("no outbound process has taken the request for {} s", crate::handler::TIMEOUT.as_secs())]
    NoOutbound,
    /// The outbound process has not been heard of for too long.
    #[error("the outbound process has been silent for 60 s")]
    OutboundSilent,
    /// A WebSocket over HTTP can not go on, or not as the backend wishes.
    #[error("WebSocket over HTTP: {0}")]
    Events(String),
    /// A SockJS client or its backend sends what can not be passed on.
    #[error(transparent)]
    SockJs(#[from] crate::sockjs::framing::FramingError),
    /// The outbound process ended while it had the request.
    #[error("the outbound process ended")]
    OutboundLeft,
    /// The outbound process does not take what is sent to it.
    #[error("the outbound process takes no more packets")]
    OutboundFull,
    /// The outbound process broke the rules of ZHTTP.
    #[error("the outbound process broke the protocol: {0}")]
    OutboundViolation(String),
    /// A WebSocket's backend sends an instruction that is larger than can be collected.
    #[error("a control message of the backend has more than {0} bytes (backend_max_message_size)")]
    ControlTooLarge(usize),
    /// Instructions that are larger than can be collected.
    #[error("GRIP instruct response too large from {0}")]
    InstructTooLarge(String),
    /// A hold was asked for a request whose body is too large to be repeated.
    #[error("a hold for a request whose body is larger than {} bytes", crate::body::upload::KEEP)]
    TooLargeToHold,
    /// The handler wants the request without a backend, and its body is too large.
    #[error("a body larger than {} bytes for the handler", crate::body::upload::KEEP)]
    BodyTooLarge,
    /// The handler does not understand the backend's instructions, in its words.
    #[error("bad GRIP instructions: {0}")]
    BadInstruct(String),
    /// `Grip-Status` is no status.
    #[error("bad GRIP instructions: Grip-Status must be a number from 200 to 999 and a reason")]
    BadStatus,
    /// No handler is there, or none has answered in time.
    #[error("no handler has answered for {} s whether it holds the request", crate::handler::TIMEOUT.as_secs())]
    NoHandler,
    /// The handler refused without saying what is wrong with the instructions.
    #[error("the handler could not hold the request ({0})")]
    HandlerRefused(String),
}

impl ProxyError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Looped | Self::ClaimedEvents | Self::LengthRequired => Fault::Client,
            Self::TooLargeToHold | Self::BodyTooLarge | Self::SockJs(_) => Fault::Client,
            Self::Unreachable(_)
            | Self::Broken(_)
            | Self::Events(_)
            | Self::InstructTooLarge(_)
            | Self::ControlTooLarge(_)
            | Self::TooManyHeaders => Fault::Backend,
            Self::BadInstruct(_) | Self::BadStatus => Fault::Backend,
            Self::NoOutbound | Self::OutboundSilent | Self::OutboundLeft | Self::OutboundViolation(_) => Fault::Peer,
            Self::OutboundFull | Self::NoHandler | Self::NoControl | Self::HandlerRefused(_) => Fault::Peer,
            Self::NoRoute | Self::NoSuchRoute | Self::TargetKind(_) | Self::Blocked => Fault::Ourselves,
        }
    }

    /// Whether the request may be sent again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unreachable(_) | Self::TargetKind(_) => Retry::Safe,
            Self::OutboundLeft => Retry::IfItOnlyAsks,
            _ => Retry::Never,
        }
    }

    /// What the client gets of the route that it took; `debug`: with the details.
    pub fn answer_of(&self, route: Option<&Route>, debug: bool) -> Answer {
        let answer = self.answer(debug);
        if self.retry() != Retry::Safe || !debug {
            return answer;
        }
        let targets = route.into_iter().flat_map(|route| &route.targets).map(target_name);
        let targets = targets.collect::<Vec<_>>().join(", ");
        Answer { text: format!("Unable to connect to any targets. Tried: {targets}"), ..answer }
    }

    /// What the client gets; `debug`: with the details.
    pub fn answer(&self, debug: bool) -> Answer {
        let origin = |detail: &str| {
            let text = if debug { detail } else { "Error while proxying to origin." };
            Answer::new(502, "Bad Gateway", text)
        };
        match self {
            Self::NoRoute | Self::NoSuchRoute => Answer::new(502, "Bad Gateway", "Route not found"),
            Self::Looped => {
                let text = "The request has come back: CDN-Loop names this proxy already.";
                Answer::new(508, "Loop Detected", text)
            }
            Self::ClaimedEvents => {
                Answer::new(403, "Forbidden", "Client not allowed to send WebSocket events directly.")
            }
            Self::LengthRequired => Answer::new(411, "Length Required", "Must provide Content-Length header."),
            Self::TooLargeToHold => Answer::new(400, "Bad Request", "Request too large to accept GRIP instruct."),
            Self::BodyTooLarge => {
                let text = format!("Body must not exceed {} bytes", crate::body::upload::KEEP);
                Answer::new(413, "Request Entity Too Large", text)
            }
            Self::Blocked => origin("Error: Origin host/IP blocked."),
            Self::OutboundSilent | Self::NoOutbound => origin("Error: zhttp service for route is unreachable."),
            Self::InstructTooLarge(_) | Self::TooManyHeaders => origin(&self.to_string()),
            Self::BadInstruct(text) => origin(&format!("Failed to parse accept instructions: {text}")),
            Self::TargetKind(_) => origin(&format!("Error: {self}.")),
            // Pushpin has no details for these.
            Self::Unreachable(_)
            | Self::NoControl
            | Self::Broken(_)
            | Self::SockJs(_)
            | Self::Events(_)
            | Self::ControlTooLarge(_)
            | Self::OutboundLeft
            | Self::OutboundFull
            | Self::OutboundViolation(_) => Answer::new(502, "Bad Gateway", "Error while proxying to origin."),
            Self::BadStatus | Self::NoHandler | Self::HandlerRefused(_) => {
                Answer::new(500, "Internal Server Error", "Accept service unavailable.")
            }
        }
    }

    /// Its name, under which lines in the log are limited.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoRoute => "no-route",
            Self::NoSuchRoute => "no-such-route",
            Self::Looped => "looped",
            Self::ClaimedEvents => "claimed-events",
            Self::NoControl => "no-control",
            Self::TargetKind(_) => "target-kind",
            Self::Unreachable(_) => "unreachable",
            Self::Blocked => "blocked",
            Self::LengthRequired => "length-required",
            Self::Broken(_) => "broken",
            Self::Events(_) => "websocket-events",
            Self::SockJs(_) => "sockjs",
            Self::NoOutbound => "no-outbound",
            Self::OutboundSilent => "outbound-silent",
            Self::OutboundLeft => "outbound-left",
            Self::OutboundFull => "outbound-full",
            Self::OutboundViolation(_) => "outbound-violation",
            Self::InstructTooLarge(_) => "instruct-too-large",
            Self::ControlTooLarge(_) => "control-too-large",
            Self::TooManyHeaders => "too-many-headers",
            Self::TooLargeToHold => "too-large-to-hold",
            Self::BodyTooLarge => "body-too-large",
            Self::BadInstruct(_) => "bad-instruct",
            Self::BadStatus => "bad-status",
            Self::NoHandler => "no-handler",
            Self::HandlerRefused(_) => "handler-refused",
        }
    }
}

/// Whether a request only asks (RFC 9110, section 9.2.1, and QUERY). PUT and DELETE may be repeated by the letter of the
/// RFC, but not behind the back of a client that another client may have answered in between.
pub fn only_asks(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"QUERY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_backend_has_seen_goes_to_the_next_target() {
        assert_eq!(ProxyError::Unreachable("tls-error".into()).retry(), Retry::Safe);
        assert_eq!(ProxyError::OutboundLeft.retry(), Retry::IfItOnlyAsks);
        assert_eq!(ProxyError::Broken("".into()).retry(), Retry::Never);
        assert!(only_asks(b"HEAD") && !only_asks(b"PUT") && !only_asks(b"POST") && !only_asks(b"get"));
    }

    #[test]
    fn details_are_for_those_who_debug_and_never_empty_in_the_log() {
        let error = ProxyError::BadInstruct("no channels".into());
        assert_eq!(error.answer(false).text, "Error while proxying to origin.");
        assert_eq!(error.answer(true).text, "Failed to parse accept instructions: no channels");
        assert_eq!(error.to_string(), "bad GRIP instructions: no channels");
        assert_eq!(error.fault(), Fault::Backend);
    }
}
