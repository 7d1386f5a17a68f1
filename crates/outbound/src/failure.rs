// SPDX-License-Identifier: AGPL-3.0-or-later
//! Why a request was not performed to its end: whose fault that is, whether another attempt is safe, and how the requester
//! is told (ZHTTP, error conditions).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::http1::download::DownloadError;
use crate::http1::request::Refusal;
use crate::http1::upload::UploadError;
use crate::websocket::handshake::HandshakeError;
use wire::websocket::Violation;

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Whoever sent the request.
    Requester,
    /// The backend, or the way to it.
    Backend,
    /// This process, or the limits it has been given.
    Ourselves,
}

/// Whether the same request may be tried elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Nothing has been sent.
    Safe,
    /// The backend may have acted on it already.
    IfIdempotent,
    /// It would fail in the same way.
    Never,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The first packet asks for what can not be done.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// As many requests are under way as may be.
    #[error("{0} requests are under way already (client_maxconn)")]
    Full(usize),
    /// A name without addresses.
    #[error("the host name does not resolve")]
    Unresolved,
    /// The resolver has more questions than it can take.
    #[error(
        "too many DNS lookups are waiting; names that are slow or hang hold them up (backend_lookup_threads, backend_lookup_queue)"
    )]
    LookupsBusy,
    /// Only internal addresses, and nobody vouches for them.
    #[error("the address is internal; only targets of the routes file may be")]
    Internal,
    /// The backend is not who it should be, or does not speak TLS.
    #[error("TLS with {address} failed: {error}")]
    Tls {
        /// The address.
        address: SocketAddr,
        /// What is wrong.
        error: io::Error,
    },
    /// The answer to a handshake is none.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// The backend broke the rules of WebSocket.
    #[error("the backend broke the rules of WebSocket: {0}")]
    Frames(Violation),
    /// The backend ended the connection without a close frame.
    #[error("the backend ended the WebSocket without closing it")]
    Unclosed,
    /// The last address that was tried.
    #[error("unable to connect to {address}: {error}")]
    Connect {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// No address has accepted a connection in time.
    #[error("no connection within {} s (backend_connect_timeout)", .0.as_secs())]
    ConnectTimeout(Duration),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Connection(io::Error),
    /// What the backend sent.
    #[error("{0}")]
    Response(#[from] DownloadError),
    /// No head of a response.
    #[error("no response within {} s (backend_response_timeout)", .0.as_secs())]
    ResponseTimeout(Duration),
    /// Neither side of the backend's connection goes on.
    #[error("nothing has moved for {} s (backend_idle_timeout)", .0.as_secs())]
    Idle(Duration),
    /// The body of the request.
    #[error("{0}")]
    Upload(#[from] UploadError),
    /// The body of the response is larger than the requester takes.
    #[error("the response is larger than the requester takes")]
    TooLarge,
    /// The requester's own limit of time.
    #[error("the requester's timeout is over")]
    SessionTimeout,
}

impl Failure {
    /// The address has not answered in its share of the time.
    pub fn timed_out(address: SocketAddr) -> Self {
        Failure::Connect { address, error: io::ErrorKind::TimedOut.into() }
    }

    /// The condition of the `error` packet. The proxy tries its next target after `remote-connection-failed`,
    /// `connection-timeout` and `tls-error`, so these are only for requests of which nothing has been sent.
    pub fn condition(&self) -> &'static str {
        match self {
            Failure::Refused(refusal) => refusal.condition(),
            Failure::Full(_) | Failure::Response(_) | Failure::Connection(_) => "undefined-condition",
            Failure::Unresolved | Failure::LookupsBusy => "remote-connection-failed",
            Failure::Internal => "policy-violation",
            Failure::Connect { error, .. } if error.kind() == io::ErrorKind::TimedOut => "connection-timeout",
            Failure::Connect { .. } => "remote-connection-failed",
            Failure::ConnectTimeout(_) => "connection-timeout",
            Failure::ResponseTimeout(_) | Failure::Idle(_) | Failure::SessionTimeout => "session-timeout",
            Failure::Upload(_) => "bad-request",
            Failure::TooLarge => "max-size-exceeded",
            Failure::Tls { .. } => "tls-error",
            Failure::Handshake(_) | Failure::Frames(_) | Failure::Unclosed => "undefined-condition",
        }
    }

    /// Whose fault it is.
    pub fn origin(&self) -> Origin {
        match self {
            Failure::Refused(_)
            | Failure::Internal
            | Failure::Upload(_)
            | Failure::TooLarge
            | Failure::SessionTimeout => Origin::Requester,
            Failure::Full(_) | Failure::LookupsBusy => Origin::Ourselves,
            Failure::Unresolved
            | Failure::Connect { .. }
            | Failure::ConnectTimeout(_)
            | Failure::Connection(_)
            | Failure::Response(_)
            | Failure::ResponseTimeout(_)
            | Failure::Tls { .. }
            | Failure::Handshake(_)
            | Failure::Frames(_)
            | Failure::Unclosed
            | Failure::Idle(_) => Origin::Backend,
        }
    }

    /// Whether the same request may be tried elsewhere.
    pub fn retry(&self) -> Retry {
        match self {
            Failure::Full(_)
            | Failure::Unresolved
            | Failure::LookupsBusy
            | Failure::Connect { .. }
            | Failure::Tls { .. }
            | Failure::ConnectTimeout(_) => Retry::Safe,
            Failure::Connection(_) | Failure::Response(_) | Failure::ResponseTimeout(_) | Failure::Idle(_) => {
                Retry::IfIdempotent
            }
            Failure::Refused(_)
            | Failure::Internal
            | Failure::Upload(_)
            | Failure::TooLarge
            | Failure::Handshake(_)
            | Failure::Frames(_)
            | Failure::Unclosed
            | Failure::SessionTimeout => Retry::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conditions_that_lead_to_another_target_are_only_for_what_was_not_sent() {
        let address = "127.0.0.1:1".parse().unwrap();
        let second = Duration::from_secs(1);
        for failure in [
            Failure::Full(1),
            Failure::Unresolved,
            Failure::LookupsBusy,
            Failure::Internal,
            Failure::Connect { address, error: io::ErrorKind::ConnectionRefused.into() },
            Failure::Connect { address, error: io::ErrorKind::TimedOut.into() },
            Failure::ConnectTimeout(second),
            Failure::Connection(io::ErrorKind::ConnectionReset.into()),
            Failure::Response(DownloadError::NoResponse),
            Failure::ResponseTimeout(second),
            Failure::Idle(second),
            Failure::Upload(UploadError::Length),
            Failure::TooLarge,
            Failure::SessionTimeout,
        ] {
            let next = matches!(failure.condition(), "remote-connection-failed" | "connection-timeout" | "tls-error");
            assert!(!next || failure.retry() == Retry::Safe, "{failure}");
        }
    }

    #[test]
    fn a_text_says_what_was_tried_and_which_setting_counts() {
        let address = "[::1]:80".parse().unwrap();
        let refused = Failure::Connect { address, error: io::ErrorKind::ConnectionRefused.into() };
        assert_eq!(refused.to_string(), "unable to connect to [::1]:80: connection refused");
        let slow = Failure::ResponseTimeout(Duration::from_secs(60));
        assert_eq!(slow.to_string(), "no response within 60 s (backend_response_timeout)");
    }
}
