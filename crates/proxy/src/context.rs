// SPDX-License-Identifier: AGPL-3.0-or-later
//! What all exchanges share: where packets go, who everybody is, settings, signatures.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::fmt::Display;
use std::time::{Duration, Instant};

use grip::signature::VerifyingKey;
use zhttp::{Id, Packet, PeerId, Peers};

use crate::access_log::Line;
use crate::handler::inspect::Availability;
use crate::request::headers::Rules;
use crate::request::signatures::{Signatures, verifying_key};
use crate::statistics::{Statistics, Telling};

/// Where an engine's packets go: the sockets, or in tests a list.
pub trait Links {
    /// To the instance that has a client's connection, through ROUTER or PUB; `false` if it takes no more or is gone.
    fn to_client(&mut self, to: &[u8], by_router: bool, packet: &Packet<'_>) -> bool;
    /// To a handler that has made a request of its own, through ROUTER or PUB; `false` if it takes no more or is gone.
    fn to_handler(&mut self, to: &[u8], by_router: bool, packet: &Packet<'_>) -> bool;
    /// The first packet of a request to a backend; `false` if there is nobody to take it.
    fn open_origin(&mut self, packet: &Packet<'_>) -> bool;
    /// The same to a backend that speaks ZHTTP itself, at this address.
    fn open_zmq(&mut self, spec: &str, packet: &Packet<'_>) -> bool;
    /// A whole request to such a backend, which answers with one packet.
    fn ask_zmq(&mut self, spec: &str, packet: &Packet<'_>) -> bool;
    /// A further packet of one; `false` if the outbound process takes no more or is gone.
    fn to_origin(&mut self, to: &[u8], packet: &Packet<'_>) -> bool;
    /// An `inspect` call; `false` if there is no handler.
    fn inspect(&mut self, call: &[u8]) -> bool;
    /// An `accept` call; `false` if it can't even wait for a handler.
    fn accept(&mut self, call: &[u8]) -> bool;
    /// What is told to a handler about WebSockets; `false` if it can't even wait for one.
    fn control(&mut self, packet: &[u8]) -> bool;
    /// To the log.
    fn log(&mut self, note: &Note<'_>);
}

/// Something for the log.
pub enum Note<'a> {
    /// A request has ended.
    Request(&'a Line<'a>),
    /// Something is wrong that can happen many times a second; `kind` is what it is limited by.
    Warning {
        /// One literal in the code for each sort.
        kind: &'static str,
        /// What is wrong.
        text: &'a dyn Display,
    },
}

/// The settings that exchanges need.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// What is done to headers.
    pub rules: Rules,
    /// Error responses say what went wrong.
    pub debug: bool,
    /// Responses are made fit for scripts of other sites.
    pub auto_cross_origin: bool,
    /// Streams that are sent before they are held ask proxies in front not to buffer.
    pub unbuffer_streams: bool,
    /// Address of the client's script for SockJS.
    pub sockjs_url: String,
    /// Whether each request has a line in the log, unless its route says otherwise; asked anew each time.
    pub log_requests: Option<fn() -> bool>,
    /// Log lines have the client's address.
    pub log_from: bool,
    /// Log lines have the User-Agent.
    pub log_user_agent: bool,
    /// Issuer and key of Grip-Sig, where a route does not set its own.
    pub sig_iss: String,
    /// See `sig_iss`.
    pub sig_key: Option<settings::keys::Key>,
    /// Key of a proxy in front of us.
    pub upstream_key: Option<settings::keys::Key>,
    /// Requests under way at a time.
    pub max_open_requests: usize,
    /// Bytes that may wait for a client that is slower than others: of messages from the handler for a WebSocket, of a
    /// response that it shares.
    pub session_queue_bytes: usize,
    /// How long there may be more of a shared response.
    pub session_queue_time: Duration,
    /// Bytes that an answer of a WebSocket-over-HTTP backend may have, and a message of a backend for a SockJS client.
    pub max_message_size: usize,
    /// How long such an answer may take.
    pub events_timeout: Duration,
    /// How long a connection counts in statistics after the last word of it; none: handlers are told only how many there
    /// are.
    pub stats_connection_ttl: Option<Duration>,
    /// How long such a number holds.
    pub stats_connections_max_ttl: Duration,
    /// How often statistics report; none: never.
    pub stats_report_interval: Option<Duration>,
    /// How long WebSockets wait for a successor of their handler; zero: they end with it.
    pub recover_wait: Duration,
    /// Outbound processes answer through our ROUTER: one link in order, whose end comes behind the last response.
    pub router_resp: bool,
}

impl Config {
    /// Whether a request has a line in the log, whose route has this level.
    pub fn logs_request(&self, level: Option<u8>) -> bool {
        level.is_none_or(|level| level >= 2) && self.log_requests.is_some_and(|is_on| is_on())
    }
}

/// Numbers of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// With requests.
    pub http: u64,
    /// With WebSockets.
    pub websockets: u64,
}

/// The things that every exchange uses.
pub struct Shared {
    /// Our instance id.
    pub instance: Vec<u8>,
    /// Instances we have met.
    pub peers: Peers,
    /// Outbound processes that are there.
    pub outbounds: Vec<PeerId>,
    /// Settings.
    pub config: Config,
    /// Grip-Sig tokens.
    pub signatures: Signatures,
    /// Key of a proxy in front of us, ready for use.
    pub upstream: Option<VerifyingKey>,
    /// Whether the handler answers.
    pub availability: Availability,
    /// What handlers are told of connections and requests.
    pub statistics: Statistics,
    /// Requests and WebSockets of clients so far.
    pub arrivals: Clients,
    /// Sessions that have ended because a packet of theirs was not taken, and whose other side is to hear of it as soon as it
    /// takes packets again.
    pub cut: Vec<Cut>,
    /// What concerns SockJS sessions that talk by polls, until the engine comes to it.
    pub polls: crate::sockjs::table::Events,
    /// What concerns groups that share a request, until the engine comes to it.
    pub sharing: crate::sharing::Events,
    /// Calls to the handler are written here one after the other.
    call_buffer: Vec<u8>,
    serials: u64,
}

/// Capacity that the buffer for calls keeps, in bytes.
const CALL_CAPACITY: usize = 64 * 1024;

impl Shared {
    /// For the exchanges of `instance`.
    pub fn new(instance: &str, config: Config) -> Self {
        Shared {
            instance: instance.as_bytes().to_vec(),
            peers: Peers::default(),
            outbounds: Vec::new(),
            signatures: Signatures::new(&config.sig_iss, config.sig_key.as_ref()),
            upstream: config.upstream_key.as_ref().and_then(|key| verifying_key(key).ok()),
            statistics: Statistics::new(
                config.stats_connection_ttl.map_or(Telling::Maxima(config.stats_connections_max_ttl), Telling::Each),
                config.stats_report_interval,
            ),
            arrivals: Clients::default(),
            config,
            availability: Availability::default(),
            cut: Vec::new(),
            polls: crate::sockjs::table::Events::new(),
            sharing: crate::sharing::Events::new(),
            call_buffer: Vec::new(),
            serials: 0,
        }
    }

    /// The buffer to write a call into, empty.
    pub(crate) fn take_call_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.call_buffer)
    }

    /// Gives the buffer back for the next call.
    pub(crate) fn keep_call_buffer(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        buffer.shrink_to(CALL_CAPACITY);
        self.call_buffer = buffer;
    }

    /// A number that was not given before in this run.
    pub fn serial(&mut self) -> u64 {
        self.serials += 1;
        self.serials
    }
}

/// A session whose other side must still be told that it has ended.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The other side.
    pub peer: PeerId,
    /// The session.
    pub id: Id,
    /// What the other side is.
    pub side: Side,
}

/// What is on the other side of a session.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// Who has made the request.
    Client(Way),
    /// An outbound process.
    Origin,
}

/// The way to whoever has made a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// A handler, which has made the request itself; otherwise a frontend.
    pub internal: bool,
    /// Through ROUTER instead of PUB.
    pub by_router: bool,
}

impl Way {
    /// Sends a packet this way; `false` if the receiver takes no more or is gone.
    pub fn send(self, to: &[u8], packet: &Packet<'_>, links: &mut dyn Links) -> bool {
        match self.internal {
            true => links.to_handler(to, self.by_router, packet),
            false => links.to_client(to, self.by_router, packet),
        }
    }
}

/// One call into the engine: what is shared, the way out, and the time.
pub struct Context<'a> {
    /// What exchanges share.
    pub shared: &'a mut Shared,
    /// Where packets go.
    pub links: &'a mut dyn Links,
    /// The time.
    pub now: Instant,
    /// The time in seconds since 1970, for tokens.
    pub unix: u64,
}
