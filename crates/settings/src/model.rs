// SPDX-License-Identifier: AGPL-3.0-or-later
//! The settings as the processes see them: typed, checked, with all names resolved.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::keys::Key;
use crate::listen::{Endpoint, LocalPort, Port};
use crate::log_level::LogLevels;
use crate::original::Originals;
use crate::part::Part;
use crate::routes::RoutesSource;
use crate::specs::{FrontendSpecs, OutboundSpecs};

/// Everything a configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// For all processes.
    pub global: Global,
    /// For the supervisor.
    pub runner: Runner,
    /// For the process that clients connect to.
    pub frontend: Frontend,
    /// For the process that connects to backends.
    pub outbound: Outbound,
    /// For the process in between.
    pub proxy: Proxy,
    /// For the process that holds and publishes.
    pub handler: Handler,
}

impl Settings {
    /// What processes that were started at different times must agree on, and what the runner has made for all of them:
    /// directories, names, addresses, programs. Texts to be compared, no more.
    pub fn structure(&self) -> String {
        let (runner, proxy, handler) = (&self.runner, &self.proxy, &self.handler);
        let global = (&self.global.rundir, &self.global.ipc_prefix, self.global.port_offset);
        let started = (
            &runner.parts,
            (&runner.http_ports, &runner.https_ports, &runner.local_ports),
            &runner.logdir,
            (runner.frontend_processes, &runner.metrics, &runner.health, &runner.dashboard),
            (&runner.programs, &runner.originals, &runner.original_programs),
        );
        let clients = (&proxy.client_in_specs, &proxy.client_in_stream_specs, &proxy.client_out_specs);
        let origins = (&proxy.origin_out_specs, &proxy.origin_out_stream_specs, &proxy.origin_in_specs);
        let asked =
            (&proxy.inspect_spec, &proxy.accept_spec, &proxy.retry_spec, &proxy.stats_spec, &proxy.command_spec);
        let internal = (&proxy.intreq_in_spec, &proxy.intreq_in_stream_spec, &proxy.intreq_out_spec);
        let holds = (&handler.client_in_stream_specs, &handler.client_out_specs, &handler.push_in_http);
        let asks = (&handler.proxy_inspect_specs, &handler.proxy_accept_specs, &handler.proxy_retry_specs);
        format!("{:?}", (global, started, clients, origins, asked, internal, holds, asks))
    }
}

/// `[global]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Global {
    /// Name of the configuration, for messages.
    pub config: String,
    /// Directory of sockets and pid files, as it was written.
    pub rundir: PathBuf,
    /// Begins the name of every socket file.
    pub ipc_prefix: String,
    /// Already added to every port here.
    pub port_offset: u16,
}

impl Global {
    /// Where the runner of the suite is asked.
    pub fn control_socket(&self) -> PathBuf {
        self.rundir.join(format!("{}ctl", self.ipc_prefix))
    }
}

/// What the ZeroMQ sockets of a process keep to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zmq {
    /// Permissions of socket files, in the usual bits; none: only the user of the process may connect.
    pub ipc_file_mode: Option<u32>,
    /// Bytes that a received message may have.
    pub max_message: usize,
    /// Peers that may be connected to one `ipc:` socket.
    pub max_peers: usize,
    /// How long a peer may take to say who it is.
    pub handshake_timeout: Duration,
}

/// `[runner]`, as far as it concerns the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runner {
    /// What to start, in this order.
    pub parts: Vec<Part>,
    /// Where clients connect.
    pub http_ports: Vec<Port>,
    /// Where clients connect with TLS.
    pub https_ports: Vec<Port>,
    /// Unix sockets where clients connect.
    pub local_ports: Vec<LocalPort>,
    /// Directory of log files.
    pub logdir: PathBuf,
    /// Bytes of log lines that may wait to be written.
    pub log_buffer_size: usize,
    /// How long a process may be silent before it is replaced; zero: for ever.
    pub heartbeat_timeout: Duration,
    /// How long processes go on without runner; zero: they end with it.
    pub orphan_grace: Duration,
    /// Levels by process.
    pub log_levels: LogLevels,
    /// Form of lines.
    pub log_format: LogFormat,
    /// Number of frontend processes, at least 1.
    pub frontend_processes: usize,
    /// Where metrics are served, by the section that says so. Not for those of a part that another program takes the place
    /// of: Pushpin's serve their own.
    pub metrics: Vec<Exposition>,
    /// Where health is told.
    pub health: Option<Endpoint>,
    /// Where the page for operators is.
    pub dashboard: Option<SocketAddr>,
    /// Programs that replace the suite's own, with the same command line.
    pub programs: Programs,
    /// Programs of Pushpin's that replace the suite's own, with a command line of their own.
    pub originals: Originals,
    /// Where those are, by the setting that names them.
    pub original_programs: BTreeMap<String, PathBuf>,
}

impl Runner {
    /// Whether processes are to tell the runner how they are.
    pub fn is_watched(&self) -> bool {
        !self.metrics.is_empty() || self.health.is_some() || self.dashboard.is_some()
    }

    /// The parts to start for which there is no other program.
    pub fn own_parts(&self) -> impl Iterator<Item = Part> {
        let other = |part: &Part| self.programs.of(*part).is_some() || self.originals.of(*part).is_some();
        self.parts.iter().copied().filter(move |part| !other(part))
    }
}

/// A place where metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposition {
    /// The place.
    pub endpoint: Endpoint,
    /// Begins all names.
    pub prefix: String,
}

/// Programs to start instead of our own, where set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programs {
    /// For `pushpin-frontend`.
    pub frontend: Option<PathBuf>,
    /// For `pushpin-proxy`.
    pub proxy: Option<PathBuf>,
    /// For `pushpin-handler`.
    pub handler: Option<PathBuf>,
    /// For `pushpin-outbound`.
    pub outbound: Option<PathBuf>,
}

impl Programs {
    /// The program for this part, if it is not our own.
    pub fn of(&self, part: Part) -> Option<&PathBuf> {
        match part {
            Part::Frontend => self.frontend.as_ref(),
            Part::Outbound => self.outbound.as_ref(),
            Part::Proxy => self.proxy.as_ref(),
            Part::Handler => self.handler.as_ref(),
        }
    }
}

/// What the frontend needs, most of it from `[runner]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// Where clients connect.
    pub http_ports: Vec<Port>,
    /// Where clients connect with TLS.
    pub https_ports: Vec<Port>,
    /// Unix sockets where clients connect.
    pub local_ports: Vec<LocalPort>,
    /// Directory of certificates.
    pub certificates: PathBuf,
    /// Client connections at a time in one process.
    pub client_maxconn: usize,
    /// Bytes that the head of a request may take.
    pub client_buffer_size: usize,
    /// Bytes of credits granted per connection.
    pub client_send_window: usize,
    /// Bytes that a message of a client may have on a WebSocket; 0: no limit.
    pub client_max_message_size: u64,
    /// Time for the head of a request. Zero, here and in those below: no limit.
    pub client_header_timeout: Duration,
    /// Time between two reads of a request's body.
    pub client_body_timeout: Duration,
    /// Time between two writes of a response.
    pub client_send_timeout: Duration,
    /// Bytes a second that a client which lags behind must take.
    pub client_min_rate: u64,
    /// Time between two requests.
    pub client_idle_timeout: Duration,
    /// Time for what a client sends after its last response.
    pub client_linger_time: Duration,
    /// Time between two reads of that.
    pub client_linger_timeout: Duration,
    /// Time for which sessions of a server that has ended wait for its successor.
    pub recover_wait: Duration,
    /// Bytes of their WebSockets that are kept for it.
    pub recover_memory: usize,
    /// Time for which a process that has been replaced goes on with its clients.
    pub drain_timeout: Duration,
    /// Whether requests that come without a name get one.
    pub request_ids: bool,
    /// Clients of a process that is replaced move to its successor.
    pub move_clients: bool,
    /// How long a request waits for a proxy.
    pub replay_wait: Duration,
    /// Bytes of a request's body that are kept until its response begins.
    pub replay_body: usize,
    /// Bytes of all requests that are kept.
    pub replay_memory: usize,
    /// WebSocket messages are compressed for clients that offer it.
    pub allow_compression: bool,
    /// Sockets of each frontend process.
    pub processes: Vec<FrontendSpecs>,
    /// What its ZeroMQ sockets keep to.
    pub zmq: Zmq,
}

/// What the outbound process needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// Its sockets.
    pub specs: OutboundSpecs,
    /// Requests to backends at a time.
    pub maxconn: usize,
    /// Names that are looked up at a time.
    pub lookup_threads: usize,
    /// Names that may wait for that.
    pub lookup_queue: usize,
    /// Addresses of one backend that are connected to at a time.
    pub connect_attempts: usize,
    /// How long finding and connecting to a backend may take.
    pub connect_timeout: Duration,
    /// How long the head of a response may take.
    pub response_timeout: Duration,
    /// How long nothing may move while a request is under way.
    pub idle_timeout: Duration,
    /// How long a connection is kept for its next request.
    pub keepalive_timeout: Duration,
    /// Connections that are kept, in all.
    pub keepalive_connections: usize,
    /// Connections that are kept to one host and port.
    pub keepalive_per_target: usize,
    /// As that of the frontend: how long WebSockets wait for a successor of their proxy.
    pub recover_wait: Duration,
    /// Bytes of them that are kept for it.
    pub recover_memory: usize,
    /// Bytes that may wait for one requester.
    pub queue_bytes: usize,
    /// Bytes that the head of a response may take.
    pub max_headers_size: usize,
    /// Header lines that a response may have.
    pub max_headers: usize,
    /// What its ZeroMQ sockets keep to.
    pub zmq: Zmq,
}

/// `[proxy]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// As that of the frontend: how long WebSockets wait for a successor of their handler.
    pub recover_wait: Duration,
    /// Where the routes are.
    pub routes: RoutesSource,
    /// Whether error responses say what went wrong.
    pub debug: bool,
    /// Whether held streams ask proxies in front not to buffer.
    pub unbuffer_streams: bool,
    /// Whether responses are made fit for scripts of other sites.
    pub auto_cross_origin: bool,
    /// Address of the client's script for SockJS.
    pub sockjs_url: String,
    /// Whether X-Forwarded-Proto of a client is believed.
    pub accept_x_forwarded_protocol: bool,
    /// Which of the protocol headers the backend gets.
    pub set_x_forwarded_protocol: ForwardedProtocol,
    /// What happens to X-Forwarded-For.
    pub x_forwarded_for: ForwardedFor,
    /// The same for requests signed by a GRIP proxy in front of us.
    pub x_forwarded_for_trusted: ForwardedFor,
    /// Whether a client may choose a route by id.
    pub accept_pushpin_route: bool,
    /// Headers that routes with `orig_headers` show to backends only if they come marked.
    pub orig_headers_need_mark: Vec<String>,
    /// Token for the CDN-Loop header; empty for none.
    pub cdn_loop: String,
    /// Whether request lines in the log have the client's address.
    pub log_from: bool,
    /// Whether request lines in the log have the User-Agent.
    pub log_user_agent: bool,
    /// Issuer named in Grip-Sig.
    pub sig_iss: String,
    /// Key that signs Grip-Sig.
    pub sig_key: Option<Key>,
    /// Key of a GRIP proxy in front of us.
    pub upstream_key: Option<Key>,
    /// Requests under way at a time.
    pub max_open_requests: usize,
    /// What its ZeroMQ sockets keep to.
    pub zmq: Zmq,
    /// Connect PULL: requests.
    pub client_in_specs: Vec<String>,
    /// Connect ROUTER: further packets of requests.
    pub client_in_stream_specs: Vec<String>,
    /// Connect XPUB: responses.
    pub client_out_specs: Vec<String>,
    /// Connect PUSH: requests to backends.
    pub origin_out_specs: Vec<String>,
    /// Connect ROUTER: further packets of them.
    pub origin_out_stream_specs: Vec<String>,
    /// Connect SUB: their responses.
    pub origin_in_specs: Vec<String>,
    /// Bind DEALER: questions about requests.
    pub inspect_spec: String,
    /// Bind DEALER: hand-over of requests.
    pub accept_spec: String,
    /// Bind PULL: requests that the handler hands back.
    pub retry_spec: String,
    /// Bind PUB: statistics.
    pub stats_spec: String,
    /// Bind ROUTER: commands.
    pub command_spec: String,
    /// Bind PULL: requests of the handler itself, for next links and the like.
    pub intreq_in_spec: String,
    /// Bind ROUTER: further packets of them.
    pub intreq_in_stream_spec: String,
    /// Bind PUB: their responses.
    pub intreq_out_spec: String,
    /// How long a connection counts in statistics; none: handlers are told only how many there are.
    pub stats_connection_ttl: Option<Duration>,
    /// How long such a number holds.
    pub stats_connections_max_ttl: Duration,
    /// How often statistics report; none: never.
    pub stats_report_interval: Option<Duration>,
    /// Bind PULL: what the handler tells about WebSockets.
    pub ws_control_in_spec: String,
    /// Bind PUSH: what the handler is told about them.
    pub ws_control_out_spec: String,
    /// Bytes that may wait for one slow client.
    pub session_queue_bytes: usize,
    /// How long there may be more of a shared response.
    pub session_queue_time: Duration,
    /// Bytes that an answer of a WebSocket-over-HTTP backend may have, and a message of a backend for a SockJS client.
    pub max_message_size: usize,
    /// How long such an answer may take.
    pub events_timeout: Duration,
}

/// `set_x_forwarded_protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedProtocol {
    /// Neither header.
    None,
    /// X-Forwarded-Proto.
    ProtoOnly,
    /// X-Forwarded-Proto and X-Forwarded-Protocol.
    Both,
}

/// A rule for X-Forwarded-For.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardedFor {
    /// Keep only this many entries, the last ones.
    pub truncate: Option<usize>,
    /// Add the address of the client.
    pub append: bool,
}

impl ForwardedFor {
    /// Reads the items of a rule, such as `truncate:1` and `append`.
    pub(crate) fn parse(items: &[String]) -> Result<Self, String> {
        let mut rule = Self::default();
        for item in items {
            match item.split_once(':') {
                None if item == "append" => rule.append = true,
                Some(("truncate", count)) => match count.trim().parse() {
                    Ok(count) => rule.truncate = Some(count),
                    Err(_) => return Err(format!("`{item}` must have a number, such as truncate:1")),
                },
                _ => return Err(format!("`{item}` is neither append nor truncate:N")),
            }
        }
        Ok(rule)
    }
}

/// `log_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// As Pushpin writes them.
    Pushpin,
    /// An object of JSON each.
    Json,
}

/// `update_on_first_subscription`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstSubscription {
    /// For nobody.
    Never,
    /// For those who can have missed something, because they say what they have, or where it goes on.
    Reliable,
    /// For all.
    Always,
}

/// What statistics tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Of each connection.
    pub connections: bool,
    /// How long a connection counts after the last word of it.
    pub connection_ttl: Duration,
    /// How long a subscription counts after the last word of it.
    pub subscription_ttl: Duration,
    /// Time between reports; none: no reports.
    pub report_interval: Option<Duration>,
    /// JSON instead of tnetstring.
    pub json: bool,
}

/// `[handler]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    /// What its ZeroMQ sockets keep to.
    pub zmq: Zmq,
    /// Bind PULL: messages to publish.
    pub push_in_spec: Option<String>,
    /// SUB: messages to publish.
    pub push_in_sub_specs: Vec<String>,
    /// Whether these are connected to instead of bound.
    pub push_in_sub_connect: bool,
    /// HTTP publish port.
    pub push_in_http: Option<SocketAddr>,
    /// The directory of certificates, if that port speaks TLS.
    pub push_in_http_tls: Option<PathBuf>,
    /// Key that tokens of HTTP publishers are checked with.
    pub control_key: Option<Key>,
    /// Issuer that such tokens must name; none: any.
    pub control_iss: Option<String>,
    /// A token that lets publish as it is.
    pub control_token: Option<Key>,
    /// Bytes that the head of a publish request may take.
    pub push_in_http_max_headers_size: usize,
    /// Bytes that the body of a publish request may take.
    pub push_in_http_max_body_size: usize,
    /// How long a publisher may take for a head.
    pub push_in_http_header_timeout: Duration,
    /// How long a publisher may take for a body.
    pub push_in_http_body_timeout: Duration,
    /// Time for the next request of a publisher that stays connected.
    pub push_in_http_idle_timeout: Duration,
    /// Connections that have not sent a whole publish request.
    pub push_in_http_max_connections: usize,
    /// Publish requests that may wait.
    pub push_in_http_max_waiting: usize,
    /// Bytes that bodies of waiting publish requests may take, and again those that are being sent.
    pub push_in_http_max_waiting_bytes: usize,
    /// How long a publish request waits to begin, and again to end.
    pub push_in_http_wait_timeout: Duration,
    /// Bind PUB: statistics.
    pub stats_spec: Option<String>,
    /// What is told there.
    pub stats: Statistics,
    /// Bind ROUTER: commands.
    pub command_spec: Option<String>,
    /// Deliveries per second and route; none: no limit.
    pub message_rate: Option<u32>,
    /// Deliveries that may wait because of the rate; none: no limit.
    pub message_hwm: Option<u32>,
    /// Bytes that count as one delivery; none: every message counts as one.
    pub message_block_size: Option<u32>,
    /// As that of the proxy.
    pub unbuffer_streams: bool,
    /// How long to wait for a missing predecessor of a message.
    pub message_wait: Duration,
    /// How long message ids are remembered; zero: not at all.
    pub id_cache_ttl: Duration,
    /// How many are remembered at most.
    pub id_cache_max: usize,
    /// As that of the frontend: with zero, frontends keep nothing for a successor.
    pub recover_wait: Duration,
    /// The file that tells a successor which frontends have not got everything.
    pub arrears: PathBuf,
    /// For whom backends are asked again soon after a channel has got its first subscriber.
    pub update_on_first_subscription: FirstSubscription,
    /// Requests for links under way at a time.
    pub link_requests_max: usize,
    /// Requests for gone links that may wait.
    pub gone_requests_max: usize,
    /// Requests of filters under way at a time.
    pub filter_requests_max: usize,
    /// Messages that may wait for answers to filters.
    pub filter_messages_max: usize,
    /// Bytes of content that may wait so.
    pub filter_queue_bytes: usize,
    /// Clients that ask for the same share one request.
    pub share_all: bool,
    /// Channels a connection may be subscribed to.
    pub connection_subscription_max: usize,
    /// How long a long-poll's subscription stays after the response.
    pub subscription_linger: Duration,
    /// Bytes that may wait for one slow client before it is closed.
    pub session_queue_bytes: usize,
    /// How long there may be more.
    pub session_queue_time: Duration,
    /// Bytes that may wait for one frontend.
    pub link_queue_bytes: usize,
    /// How long a frontend may take nothing.
    pub link_timeout: Duration,
    /// Bytes that may wait for all frontends before publishers wait.
    pub publish_queue_bytes: usize,
    /// Client connections at a time, over all frontend processes.
    pub client_maxconn: usize,
    /// Connect ROUTER: packets to frontends about sessions that were handed over.
    pub client_in_stream_specs: Vec<String>,
    /// Connect XPUB: packets to frontends for many sessions.
    pub client_out_specs: Vec<String>,
    /// Connect ROUTER: questions of proxies about requests.
    pub proxy_inspect_specs: Vec<String>,
    /// Connect ROUTER: requests that proxies hand over.
    pub proxy_accept_specs: Vec<String>,
    /// Connect PUSH: requests to hand back.
    pub proxy_retry_specs: Vec<String>,
    /// Connect SUB: statistics of the proxy.
    pub proxy_stats_specs: Vec<String>,
    /// Connect DEALER: commands to the proxy.
    pub proxy_command_spec: String,
    /// Connect PULL: what the proxy tells about WebSockets.
    pub proxy_ws_control_in_spec: String,
    /// Connect PUSH: what the proxy is told about them.
    pub proxy_ws_control_out_spec: String,
    /// Connect PUSH: requests of the handler itself.
    pub proxy_intreq_out_specs: Vec<String>,
    /// Connect ROUTER: further packets of them.
    pub proxy_intreq_out_stream_specs: Vec<String>,
    /// Connect SUB: their responses.
    pub proxy_intreq_in_specs: Vec<String>,
}
