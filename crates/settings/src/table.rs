// SPDX-License-Identifier: AGPL-3.0-or-later
//! Every setting there is, once: parsing, checks and `docs/configuration.md` are made from this table.
//!
//! All keys of both generations of Pushpin are here, so that its configuration files are read without complaint; those that
//! do not have an effect yet say so in [`Setting::state`].

use self::Kind::*;
use self::State::*;

/// What a key may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A path of a file or directory.
    Path,
    /// True or false.
    Bool,
    /// A whole number between the two.
    Int(i64, i64),
    /// File permissions in octal.
    Octal,
    /// Items separated by commas.
    List,
    /// A ZeroMQ address such as `tcp://127.0.0.1:5560`.
    Spec,
    /// Several ZeroMQ addresses.
    Specs,
    /// A literal IP address, or `localhost`.
    Address,
    /// Several `[addr:]port`.
    Ports,
    /// `N` and `name:N`.
    Levels,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A secret, `base64:...` or `file:...`.
    Key,
}

/// Whether a key has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has.
    Used,
    /// Accepted; will have one. A value other than the default gets a warning.
    Planned,
    /// Accepted without a word: it concerns a part of Pushpin that has no counterpart here.
    Ignored,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Section it stands in.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// What counts when it is missing, as it would be written. Empty: nothing, or off.
    pub default: &'static str,
    /// What it does, for the user.
    pub doc: &'static str,
    /// The version of Pushpin that brought it, `own` if none has it, empty if it has always been there.
    pub since: &'static str,
    /// Whether it has an effect.
    pub state: State,
}

const fn row(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    since: &'static str,
    state: State,
    doc: &'static str,
) -> Setting {
    Setting { section, name, kind, default, doc, since, state }
}

/// Finds a key.
pub fn find(section: &str, name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.section == section && s.name == name)
}

const G: &str = "global";
const R: &str = "runner";
const P: &str = "proxy";
const H: &str = "handler";

const MAX: i64 = i32::MAX as i64;
/// Numbers where -1 (or 0, as said there) stands for "off" or "unlimited".
const OPTIONAL: Kind = Int(-1, MAX);
const COUNT: Kind = Int(1, MAX);
const SECONDS: Kind = Int(0, MAX);
/// Seconds where none would be of no use; at most ten years, so that sums with the time of day stay in range.
const PERIOD: Kind = Int(1, 315_360_000);

/// The table, by section and in the order of the shipped file.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    row(G, "include", Path, "", "", Used, "A file whose settings count where this one has none. `{libdir}/internal.conf`, Pushpin's own wiring, is not read unless `libdir` is set: the built-in wiring takes its place."),
    row(G, "rundir", Path, "run", "", Used, "Directory of sockets and pid files; made by the runner. Relative to the current directory."),
    row(G, "libdir", Path, "", "", Used, "Value of `{libdir}`. Only needed to read a Pushpin `internal.conf`."),
    row(G, "ipc_prefix", Text, "pushpin-", "", Used, "Begins the name of every socket file, so that several suites can share a `rundir`."),
    row(G, "port_offset", Int(0, 65535), "0", "", Used, "Added to the port of every `tcp://` address and to `push_in_http_port`, but not to `http_port`."),
    row(G, "stats_connection_ttl", SECONDS, "120", "1.17", Used, "Seconds for which a connection counts in statistics after the last word of it."),
    row(G, "stats_connection_send", Bool, "true", "1.37", Used, "Whether statistics tell of each connection."),
    row(G, "unbuffer_streams", Bool, "false", "own", Used, "Whether held streams ask the proxies in front, such as nginx and content delivery networks, to pass on each message at once: with the headers `Incremental: ?1` (RFC 10036) and `X-Accel-Buffering: no`, unless the backend has set them itself."),

    row(G, "zmq_max_message_size", Int(65536, MAX), "67108864", "own", Used, "Bytes that a message received from a ZeroMQ peer may have, on `ipc:` with all its parts together; who sends a longer one is disconnected."),
    row(G, "zmq_max_peers", Int(16, 500_000), "4096", "own", Used, "Peers that may be connected to one `ipc:` socket; further ones are turned away."),
    row(G, "zmq_handshake_timeout", Int(1, MAX), "10", "own", Used, "Seconds within which a ZeroMQ peer must say who it is."),

    row(R, "services", List, "", "", Used, "Which processes to start, by our names or Pushpin's. Empty: all four of the suite."),
    row(R, "http_port", Ports, "", "", Used, "Where clients connect: a list of `[addr:]port`. Behind a proxy that tells whose a connection is by the PROXY protocol (version 1 or 2): `port?proxy_protocol=true`; every connection must begin with its header then, so such a port is for the proxy alone."),
    row(R, "https_ports", Ports, "", "", Used, "Where clients connect with TLS: a list as `http_port`; the header of the PROXY protocol comes before TLS. Certificates are `runner/certs/NAME.crt` and `.key` beside the configuration file: of the site's name, `_.PARENT` for all names one level below, `default_PORT` for all others."),
    row(R, "local_ports", List, "", "1.35", Used, "Unix sockets where clients connect, without TLS: a list of `path?mode=660&user=U&group=G&proxy_protocol=true`, with those options that are needed. Without `mode` the umask decides who may connect. What is left of a socket at that path is replaced; all frontend processes share it. Clients have no address there, but for what the PROXY protocol says."),
    row(R, "logdir", Path, "log", "", Used, "Directory of the log files, one per process; made by the runner. Not used when logs are merged."),
    row(R, "log_level", Levels, "2", "1.10", Used, "0 errors, 1 warnings, 2 information, 3 debug, 4 trace; `name:N` for one process."),
    row(R, "log_format", Choice(&["pushpin", "json"]), "pushpin", "own", Used, "Form of log lines: Pushpin's, or an object of JSON each (`time`, `level`, `process`, `message`; those of requests also with `method`, `uri`, `backend`, `status` and more)."),
    row(R, "log_buffer_size", Int(65536, 1073741824), "1048576", "own", Used, "Bytes of log lines that wait, in each process, for a log that is not read or not written. Further lines are lost, and counted in the log."),
    row(R, "heartbeat_timeout", SECONDS, "20", "own", Used, "Seconds after which a process of ours whose work loop stands still is killed and started again; 0: never. Programs of Pushpin's are not looked at. Set it to 0 to stop a process with a debugger."),
    row(R, "orphan_grace", SECONDS, "0", "own", Used, "Seconds for which processes of ours go on when the runner has died without ending them, as by SIGKILL. A runner that is started in the same `rundir` within that time goes on with them, and clients notice nothing; without one they end in order. 0: they end with the runner, so that nobody holds the ports of a suite that nobody starts again. 10 is a good value where something starts the runner again and leaves its processes alone."),
    row(R, "client_buffer_size", Int(1024, 16777216), "8192", "1.20", Used, "Bytes that the head of a client's request may take."),
    row(R, "client_maxconn", Int(1, 10_000_000), "50000", "", Used, "Client connections at a time, per frontend process; fewer if the limit of open files is not 32 above it. Further ones wait until one ends."),
    row(R, "client_send_window", Int(4096, 1073741824), "65536", "own", Used, "Bytes a client connection may have under way inside the suite: what the frontend grants as credits. The next request of a connection begins when less than half of it is still unsent."),
    row(R, "client_max_message_size", Int(0, MAX), "0", "own", Used, "Bytes that a message of a client may have on a WebSocket, whatever its frames, and after it is inflated if it is compressed; a larger one closes it with 1009. 0: no limit, because messages are passed on as they come and take no more memory than `client_send_window`."),
    row(R, "client_header_timeout", SECONDS, "60", "own", Used, "Seconds a client may take for the head of a request, however it spreads the bytes; 0: no limit."),
    row(R, "client_body_timeout", SECONDS, "60", "own", Used, "Seconds between two reads of a request's body, while the backend waits for it, or of a compressed message on a WebSocket; 0: no limit."),
    row(R, "client_send_timeout", SECONDS, "60", "own", Used, "Seconds between two writes to a client, while more waits for it; 0: no limit. A held stream with nothing to send has no limit."),
    row(R, "client_min_rate", Int(0, MAX), "100", "own", Used, "Bytes a second that a client must take on average while it lags behind, from `client_send_timeout` on; 0: no limit."),
    row(R, "client_idle_timeout", SECONDS, "75", "own", Used, "Seconds a connection stays open between two requests; 0: no limit."),
    row(R, "client_linger_time", SECONDS, "30", "own", Used, "Seconds for which at most what a client still sends after its last response is read and ignored, so that the response is not lost to a reset; 0: no limit."),
    row(R, "client_linger_timeout", SECONDS, "5", "own", Used, "The same, between two reads; 0: no limit."),
    row(R, "recover_wait", SECONDS, "0", "own", Used, "Seconds for which the clients of a handler that has ended, and the WebSockets of a proxy, are kept for its successor, which goes on with them; then they are closed. 10 is a good value. 0: they are closed at once, and nothing is kept that a successor would need."),
    row(R, "recover_memory", Int(0, MAX), "67108864", "own", Used, "Bytes of WebSockets, sent and not taken yet, that are kept for the successor of a proxy with `recover_wait`, in each frontend process and in the outbound process. A WebSocket for which there is no room left is closed when its proxy ends."),
    row(R, "drain_timeout", SECONDS, "120", "own", Used, "Seconds for which a frontend that has been replaced goes on with the clients it has. Each gets its response, and is told that no other follows on its connection. Who is still there after half of the time is ended in the other half, one after the other, so that they do not all come back at once: WebSockets with 1001, held streams with the end of their response, long-polls with 503."),
    row(R, "move_clients", Bool, "true", "own", Used, "Whether the clients of a frontend that is replaced move to its successor, with all that is half read and half written: they notice nothing. Those with TLS, those in the middle of an upload or of a compressed message, and those that have left more than 256 KB unread stay, and have `drain_timeout`."),
    row(R, "replay_wait", SECONDS, "8", "own", Used, "Seconds for which a request waits for a proxy while none is there. Requests that a proxy had when it ended go to the next one within this time, if their method may be repeated (GET, HEAD, OPTIONS, TRACE, QUERY, PUT, DELETE); others get 502. 0: all get 502, and requests wait for a proxy for a minute."),
    row(R, "replay_body", Int(0, 1073741824), "65536", "own", Used, "Bytes of a request's body that are kept until its response begins; with a larger one it is not sent to another proxy."),
    row(R, "replay_memory", Int(0, MAX), "67108864", "own", Used, "Bytes that all requests which are kept until their responses begin may take, per frontend process; further ones are not sent to another proxy."),
    row(R, "frontend_processes", Int(1, 256), "1", "own", Used, "Frontend processes that share the client ports. More of them lift the limits of one core and of open files per process."),
    row(R, "allow_compression", Bool, "false", "1.37", Used, "Whether messages on WebSockets are compressed for clients that offer it (permessage-deflate). A client within a compressed message of its own takes the memory of a window, 32 KB, and more."),
    row(R, "request_ids", Bool, "false", "own", Used, "Whether a request without `traceparent` and `X-Request-Id` gets an `X-Request-Id` of 32 hexadecimal digits, which the backend gets too. With one, the lines about a request that the processes log have its id."),
    row(R, "dashboard_port", Text, "", "own", Used, "Where operators see the suite in a browser: `[addr:]port`. A port alone is open to this machine only. With `control_key` or `control_token` it wants a token, and without them it must be open to this machine only."),
    row(R, "health_port", Text, "", "own", Used, "Where `/healthz` and `/readyz` are served: `[addr:]port`, or `ipc:///path`. A port alone is open to this machine only, `*:port` to all."),
    row(R, "frontend_bin", Path, "", "own", Used, "Program to start instead of `pushpin-frontend`, with its command line."),
    row(R, "proxy_bin", Path, "", "own", Used, "Program to start instead of `pushpin-proxy`, with its command line: Pushpin's own, for example."),
    row(R, "handler_bin", Path, "", "own", Used, "Program to start instead of `pushpin-handler`, with its command line: Pushpin's own, for example."),
    row(R, "outbound_bin", Path, "", "own", Used, "Program to start instead of `pushpin-outbound`, with its command line."),
    row(R, "condure_bin", Path, "condure", "1.30", Used, "Program for `condure` in `services`: a path, or a name that is looked for in `PATH`. If it is not there, `pushpin-frontend` takes its place."),
    row(R, "connmgr_bin", Path, "pushpin-connmgr", "own", Used, "Program for `connmgr` in `services`. If it is not there, `pushpin-frontend` and `pushpin-outbound` take its place."),
    row(R, "mongrel2_bin", Path, "mongrel2", "", Used, "Program for `mongrel2` in `services`. If it, `m2sh_bin` or `m2adapter_bin` is not there, `pushpin-frontend` takes its place."),
    row(R, "m2sh_bin", Path, "m2sh", "", Used, "Mongrel2's configuration program."),
    row(R, "m2adapter_bin", Path, "m2adapter", "own", Used, "Program that stands between Mongrel2 and the proxy."),
    row(R, "zurl_bin", Path, "zurl", "", Used, "Program for `zurl` in `services`. If it is not there, `pushpin-outbound` takes its place."),
    row(R, "rundir", Path, "", "", Used, "Old place of `rundir` in `[global]`."),

    row(P, "routesfile", Path, "routes", "", Used, "The routes, relative to the directory of this file. Read again when it changes."),
    row(P, "debug", Bool, "false", "1.11", Used, "Whether error responses say what went wrong."),
    row(P, "auto_cross_origin", Bool, "false", "", Used, "Whether responses get CORS headers and JSON-P is answered."),
    row(P, "accept_x_forwarded_protocol", Bool, "false", "1.9", Used, "Whether a client's X-Forwarded-Proto header is believed."),
    row(P, "set_x_forwarded_protocol", Choice(&["false", "true", "proto-only"]), "false", "1.12", Used, "Whether the backend gets X-Forwarded-Proto (`proto-only`), and X-Forwarded-Protocol with it (`true`)."),
    row(P, "x_forwarded_for", List, "", "", Used, "What happens to X-Forwarded-For: `truncate:N` keeps the last N entries, `append` adds the client's address."),
    row(P, "x_forwarded_for_trusted", List, "", "", Used, "The same for requests that another GRIP proxy has signed."),
    row(P, "orig_headers_need_mark", List, "", "", Used, "Headers of which routes with `orig_headers` show backends no copy of their own. A marked copy that comes from a proxy in front is shown."),
    row(P, "accept_pushpin_route", Bool, "false", "1.35", Used, "Whether a client may choose a route by its id with the Pushpin-Route header."),
    row(P, "cdn_loop", Text, "", "1.37", Used, "Token that is added to the CDN-Loop header; a request that already has it is refused."),
    row(P, "log_from", Bool, "false", "1.16", Used, "Whether request lines in the log have the client's address."),
    row(P, "log_user_agent", Bool, "false", "1.16", Used, "Whether request lines in the log have the User-Agent."),
    row(P, "sig_iss", Text, "pushpin", "1.33", Used, "Issuer named in the Grip-Sig token."),
    row(P, "sig_key", Key, "", "", Used, "Key that signs the Grip-Sig token: text, `base64:...`, or `file:...` with a secret in hexadecimal (HS256) or a private key in PEM (EC on P-256: ES256, RSA: RS256). Empty: requests are not signed."),
    row(P, "upstream_key", Key, "", "", Used, "Key that a GRIP proxy in front of us signs with, written likewise; in PEM it is the public key."),
    row(P, "sockjs_url", Text, "", "1.1", Used, "Address of the script of SockJS clients, for pages in hidden frames."),
    row(P, "workers", Int(1, 256), "1", "1.39", Planned, "Worker threads of the proxy."),
    row(P, "max_open_requests", OPTIONAL, "-1", "", Used, "Requests under way at a time; -1: as many as `client_maxconn`."),
    row(P, "ipc_file_mode", Octal, "", "", Used, "Permissions of the socket files that the proxy makes. Empty: only the user of the suite may connect."),
    row(P, "stats_connections_max_ttl", SECONDS, "60", "1.37", Used, "Seconds for which the handler keeps a number of connections after the last word of it, with `stats_connection_send=false`."),
    row(P, "stats_report_interval", Int(-1, MAX), "10", "", Used, "Seconds between reports; 0: none."),
    row(P, "prometheus_port", Text, "", "1.35", Used, "Where metrics of the whole suite are served: `[addr:]port`, or `ipc:///path`. A port alone is open to this machine only, `*:port` to all. See [metrics.md](metrics.md)."),
    row(P, "prometheus_prefix", Text, "", "1.35", Used, "Begins the name of every metric. Empty: those that Pushpin does not have begin with `pushpin_`."),
    row(P, "updates_check", Text, "", "1.13", Ignored, "Pushpin asked for newer versions of itself; we never do."),
    row(P, "organization_name", Text, "", "1.13", Ignored, "Was sent along with that."),
    row(P, "backend_connect_timeout", PERIOD, "10", "own", Used, "Seconds for looking up a backend's name and connecting, over all of its addresses."),
    row(P, "backend_connect_attempts", Int(1, 8), "4", "own", Used, "Addresses of a backend that are connected to at a time: 250 ms after one that has not answered the next is tried as well, IPv6 and IPv4 in turn, and the first connection is used. 1: one after the other."),
    row(P, "backend_lookup_threads", Int(2, 256), "16", "own", Used, "Names of backends that are looked up at a time. Names that were slow the last time have half of these threads, so that those which hang leave some to others."),
    row(P, "backend_lookup_queue", COUNT, "1024", "own", Used, "Names of backends that may wait to be looked up. With more, requests to further names are answered with 502."),
    row(P, "backend_response_timeout", PERIOD, "600", "own", Used, "Seconds from the end of a request to the end of its response's head. An interim response (1xx) begins them anew."),
    row(P, "backend_idle_timeout", PERIOD, "1800", "own", Used, "Seconds for which nothing may move on a connection to a backend that carries a request."),
    row(P, "backend_keepalive_timeout", PERIOD, "55", "own", Used, "Seconds for which a connection to a backend is kept for the next request."),
    row(P, "backend_keepalive_connections", Int(0, MAX), "5000", "own", Used, "Connections to backends that are kept for further requests, in all."),
    row(P, "backend_keepalive_per_target", Int(0, MAX), "1000", "own", Used, "The same for one host and port."),
    row(P, "backend_queue_bytes", COUNT, "16777216", "own", Used, "Bytes that may wait in the outbound process for one proxy that takes no more. With more, its backends are not read from."),
    row(P, "backend_max_headers_size", Int(1024, 16777216), "262144", "own", Used, "Bytes that the head of a backend's response may take."),
    row(P, "backend_max_headers", Int(1, 1024), "1000", "own", Used, "Header lines that a backend's response may have."),
    row(P, "backend_max_message_size", Int(1024, 1073741824), "1000000", "own", Used, "Bytes that an answer of a WebSocket-over-HTTP backend may have, a control message of a backend that speaks GRIP on its WebSocket, and a message of a backend for a SockJS client. A larger one ends the connection."),
    row(P, "backend_events_timeout", PERIOD, "60", "own", Used, "Seconds that a WebSocket-over-HTTP backend has for a whole answer."),
    row(P, "connmgr_in_specs", Specs, "", "1.38", Used, "Where requests come from (PULL), instead of the suite's frontends."),
    row(P, "connmgr_in_stream_specs", Specs, "", "1.38", Used, "Where further packets of requests come from (ROUTER). The handler uses it as well."),
    row(P, "connmgr_out_specs", Specs, "", "1.38", Used, "Where responses go (XPUB). The handler uses it as well."),
    row(P, "condure_in_specs", Specs, "", "1.30", Used, "The same as `connmgr_in_specs`."),
    row(P, "condure_in_stream_specs", Specs, "", "1.30", Used, "The same as `connmgr_in_stream_specs`."),
    row(P, "condure_out_specs", Specs, "", "1.30", Used, "The same as `connmgr_out_specs`."),
    row(P, "m2a_in_specs", Specs, "", "", Used, "The same as `connmgr_in_specs`, used when `services` has `mongrel2`."),
    row(P, "m2a_in_stream_specs", Specs, "", "", Used, "The same as `connmgr_in_stream_specs`, used when `services` has `mongrel2`."),
    row(P, "m2a_out_specs", Specs, "", "", Used, "The same as `connmgr_out_specs`, used when `services` has `mongrel2`."),
    row(P, "connmgr_client_out_specs", Specs, "", "1.38", Used, "Where requests to backends go (PUSH), instead of the suite's outbound process."),
    row(P, "connmgr_client_out_stream_specs", Specs, "", "1.38", Used, "Where further packets of them go (ROUTER)."),
    row(P, "connmgr_client_in_specs", Specs, "", "1.38", Used, "Where their responses come from (SUB)."),
    row(P, "condure_client_out_specs", Specs, "", "1.30", Used, "The same as `connmgr_client_out_specs`."),
    row(P, "condure_client_out_stream_specs", Specs, "", "1.30", Used, "The same as `connmgr_client_out_stream_specs`."),
    row(P, "condure_client_in_specs", Specs, "", "1.30", Used, "The same as `connmgr_client_in_specs`."),
    row(P, "zurl_out_specs", Specs, "", "", Used, "The same as `connmgr_client_out_specs`."),
    row(P, "zurl_out_stream_specs", Specs, "", "", Used, "The same as `connmgr_client_out_stream_specs`."),
    row(P, "zurl_in_specs", Specs, "", "", Used, "The same as `connmgr_client_in_specs`."),
    row(P, "handler_inspect_spec", Spec, "ipc://{rundir}/{ipc_prefix}inspect", "", Used, "Where the handler is asked about requests (DEALER)."),
    row(P, "handler_accept_spec", Spec, "ipc://{rundir}/{ipc_prefix}accept", "", Used, "Where requests are handed to the handler (DEALER)."),
    row(P, "handler_retry_in_spec", Spec, "ipc://{rundir}/{ipc_prefix}retry", "", Used, "Where the handler hands requests back (PULL)."),
    row(P, "handler_ws_control_init_specs", Specs, "ipc://{rundir}/{ipc_prefix}ws-control-init", "1.39", Planned, "Control of WebSockets, first packets."),
    row(P, "handler_ws_control_stream_specs", Specs, "ipc://{rundir}/{ipc_prefix}ws-control-stream", "1.39", Planned, "Control of WebSockets, further packets."),
    row(P, "handler_ws_control_in_spec", Spec, "ipc://{rundir}/{ipc_prefix}ws-control-in", "", Used, "Where the handler tells about WebSockets (PULL)."),
    row(P, "handler_ws_control_out_spec", Spec, "ipc://{rundir}/{ipc_prefix}ws-control-out", "", Used, "Where the handler is told about WebSockets (PUSH)."),
    row(P, "stats_spec", Spec, "ipc://{rundir}/{ipc_prefix}proxy-stats", "", Used, "Where the proxy tells statistics (PUB)."),
    row(P, "command_spec", Spec, "ipc://{rundir}/{ipc_prefix}proxy-command", "", Used, "Where the proxy takes commands (ROUTER)."),
    row(P, "intreq_in_specs", Specs, "ipc://{rundir}/{ipc_prefix}intreq-in", "", Used, "Where requests of the handler come in (PULL). One address."),
    row(P, "intreq_in_stream_specs", Specs, "ipc://{rundir}/{ipc_prefix}intreq-in-stream", "", Used, "Where further packets of them come in (ROUTER). One address."),
    row(P, "intreq_out_specs", Specs, "ipc://{rundir}/{ipc_prefix}intreq-out", "", Used, "Where their responses go (PUB). One address."),

    row(H, "ipc_file_mode", Octal, "", "", Used, "Permissions of the socket files that the handler makes. Empty: only the user of the suite may connect."),
    row(H, "push_in_spec", Spec, "", "", Used, "Where messages to publish come in (PULL). Empty: off."),
    row(H, "push_in_sub_specs", Specs, "", "1.23", Used, "Where publishers are listened to (SUB). Empty: off."),
    row(H, "push_in_sub_spec", Spec, "", "1.1", Used, "Old name of `push_in_sub_specs`; added to it."),
    row(H, "push_in_sub_connect", Bool, "false", "1.23", Used, "Whether `push_in_sub_specs` are connected to instead of bound."),
    row(H, "push_in_http_addr", Address, "", "", Used, "Address of the HTTP publish port; `*` for all of this machine. Empty: this machine only, 127.0.0.1."),
    row(H, "push_in_http_port", Int(-1, 65535), "-1", "", Used, "HTTP publish port; 0 or -1: off."),
    row(H, "push_in_http_tls", Bool, "false", "own", Used, "Whether the HTTP publish port speaks TLS, and nothing else. Certificates are those for `https_ports`: of the name, or `default_PORT`."),
    row(H, "control_key", Key, "", "own", Used, "Key that tokens of HTTP publishers are checked with, as `Authorization: Bearer`: text, `base64:...`, or `file:...` with a secret in hexadecimal (HS256) or a public key in PEM (ES256, RS256). A token must say when it runs out (`exp`); its claim `channels`, an array of names or of beginnings with `*` behind, limits it to these. Without `control_key` and `control_token` anybody who reaches the port may publish. ZeroMQ inputs have no tokens: bind them to 127.0.0.1 or `ipc:`."),
    row(H, "control_iss", Text, "", "own", Used, "Issuer that such tokens must name (`iss`). Empty: any."),
    row(H, "control_token", Key, "", "own", Used, "A token that lets publish as it is, sent the same way; text, `base64:...`, or `file:...` with hexadecimal digits of it."),
    row(H, "push_in_http_max_headers_size", COUNT, "10000", "", Used, "Bytes that the head of a publish request may take."),
    row(H, "push_in_http_max_body_size", COUNT, "1000000", "", Used, "Bytes that the body of a publish request may take."),
    row(H, "push_in_http_header_timeout", Int(1, 86_400), "10", "own", Used, "Seconds that a publisher may take for the head of a request."),
    row(H, "push_in_http_body_timeout", Int(1, 86_400), "60", "own", Used, "Seconds that a publisher may take for the body of a request, and for each line of a batch in NDJSON."),
    row(H, "push_in_http_idle_timeout", Int(1, 86_400), "60", "own", Used, "Seconds that a publisher who has asked for `Connection: keep-alive` may take for its next request."),
    row(H, "push_in_http_max_connections", COUNT, "512", "own", Used, "Connections to the HTTP publish port that have not sent a whole request. The oldest one is closed when there are more."),
    row(H, "push_in_http_max_waiting", COUNT, "1000", "own", Used, "Publish requests that may wait while clients or other requests have to be served first; more are answered 503."),
    row(H, "push_in_http_max_waiting_bytes", COUNT, "67108864", "own", Used, "Bytes that the bodies of waiting publish requests may take; more requests are answered 503. Requests that are still being sent may take as much again; the oldest one is closed when they take more."),
    row(H, "push_in_http_wait_timeout", Int(1, 86_400), "10", "own", Used, "Seconds for which a publish request waits before it is answered 503 and nothing is published. One that has begun may take as long again."),
    row(H, "stats_spec", Spec, "", "", Used, "Where statistics are told (PUB). Empty: off."),
    row(H, "command_spec", Spec, "", "", Used, "Where commands come in (ROUTER). Empty: off."),
    row(H, "state_spec", Spec, "", "", Planned, "Where a state service is."),
    row(H, "message_rate", OPTIONAL, "-1", "1.13", Used, "Deliveries per second and route, over all its clients; -1 or 0: no limit. Mind that one message to 1000 clients is 1000 deliveries."),
    row(H, "message_hwm", OPTIONAL, "-1", "1.13", Used, "Deliveries that may wait because of `message_rate`; more are dropped. -1 or 0: no limit."),
    row(H, "message_block_size", OPTIONAL, "-1", "1.15", Used, "Bytes of content that count as one delivery; -1 or 0: every message counts as one."),
    row(H, "message_wait", Int(0, MAX), "5000", "1.34", Used, "Milliseconds to wait for a message that another one names as its predecessor."),
    row(H, "id_cache_max", COUNT, "1000000", "own", Used, "Message ids remembered at a time. When there are more within `id_cache_ttl`, the oldest are forgotten early, with a warning."),
    row(H, "id_cache_ttl", SECONDS, "0", "1.17", Used, "Seconds for which a message id is remembered, to drop duplicates; 0: not at all."),
    row(H, "update_on_first_subscription", Choice(&["auto", "true", "false"]), "auto", "1.41", Used, "Whether backends are asked again a second after a channel has got its first subscriber, because publishers may not have known of it before. `auto`: only for subscribers with a `prev-id` or a next link, who can have missed something. `true`: for all long-polls too, as in Pushpin, which doubles the requests of those that are alone on their channel."),
    row(H, "connection_subscription_max", COUNT, "20", "1.17", Used, "Channels a connection may be subscribed to."),
    row(H, "subscription_linger", SECONDS, "60", "1.17", Used, "Seconds for which a long-poll's subscription stays after the response."),
    row(H, "session_queue_bytes", COUNT, "4194304", "own", Used, "Bytes that may wait for one client that reads slowly. It is closed when there are more for longer than `session_queue_time`, or 16 times as many."),
    row(H, "session_queue_time", SECONDS, "5", "own", Used, "Seconds for which more than `session_queue_bytes` may wait for a client."),
    row(H, "link_requests_max", COUNT, "200", "own", Used, "Requests for next links and gone links under way at a time; others wait their turn."),
    row(H, "gone_requests_max", COUNT, "10000", "own", Used, "Requests for gone links that may wait their turn. Of clients that are gone when there are more, backends are not told."),
    row(H, "filter_requests_max", COUNT, "200", "own", Used, "Requests of the filters `http-check` and `http-modify` under way at a time, beside those of links; others wait their turn."),
    row(H, "filter_messages_max", COUNT, "10000", "own", Used, "Messages that may wait for answers to the filters `http-check` and `http-modify`, one for each class of subscribers; what comes when there are more is dropped for those whose filters ask."),
    row(H, "filter_queue_bytes", COUNT, "67108864", "own", Used, "Bytes of content that may wait so."),
    row(H, "link_queue_bytes", COUNT, "16777216", "own", Used, "Bytes that may wait for one frontend process that takes no more. What is published beyond that waits for each client by itself."),
    row(H, "link_timeout", SECONDS, "10", "own", Used, "Seconds after which a frontend process that takes nothing is given up, with its clients."),
    row(H, "publish_queue_bytes", COUNT, "268435456", "own", Used, "Bytes that may wait for all frontend processes together before publishers are made to wait."),
    row(H, "stats_subscription_ttl", SECONDS, "60", "1.17", Used, "Seconds for which a subscription counts in statistics after the last word of it."),
    row(H, "stats_report_interval", Int(-1, MAX), "10", "1.17", Used, "Seconds between reports; 0: none."),
    row(H, "stats_format", Choice(&["tnetstring", "json"]), "tnetstring", "1.20", Used, "Format of statistics."),
    row(H, "prometheus_port", Text, "", "1.35", Used, "Where metrics of the whole suite are served: `[addr:]port`, or `ipc:///path`. A port alone is open to this machine only, `*:port` to all. See [metrics.md](metrics.md)."),
    row(H, "prometheus_prefix", Text, "", "1.35", Used, "Begins the name of every metric. Empty: those that Pushpin does not have begin with `pushpin_`."),
    row(H, "share_all", Bool, "false", "", Used, "Whether clients that ask for the same at the same time share one request to the backend: by method, address, and all headers but those that only tell who asks. Requests with a body, and methods other than GET, HEAD, OPTIONS, TRACE and QUERY, are never shared."),
    row(H, "connmgr_in_stream_specs", Specs, "", "1.38", Ignored, "The key of the same name in `[proxy]` counts."),
    row(H, "connmgr_out_specs", Specs, "", "1.38", Ignored, "The key of the same name in `[proxy]` counts."),
    row(H, "condure_in_stream_specs", Specs, "", "1.30", Ignored, "The key of the same name in `[proxy]` counts."),
    row(H, "condure_out_specs", Specs, "", "1.30", Ignored, "The key of the same name in `[proxy]` counts."),
    row(H, "m2a_in_stream_specs", Specs, "", "", Ignored, "The key of the same name in `[proxy]` counts."),
    row(H, "m2a_out_specs", Specs, "", "", Ignored, "The key of the same name in `[proxy]` counts."),
    row(H, "proxy_inspect_specs", Specs, "", "1.39", Used, "Where the proxy asks about requests. Default: `handler_inspect_spec` of `[proxy]`."),
    row(H, "proxy_accept_specs", Specs, "", "1.39", Used, "Where the proxy hands requests over. Default: `handler_accept_spec` of `[proxy]`."),
    row(H, "proxy_retry_out_specs", Specs, "", "1.39", Used, "Where requests are handed back. Default: `handler_retry_in_spec` of `[proxy]`."),
    row(H, "proxy_inspect_spec", Spec, "", "", Used, "Old name of `proxy_inspect_specs`; added to it."),
    row(H, "proxy_accept_spec", Spec, "", "", Used, "Old name of `proxy_accept_specs`; added to it."),
    row(H, "proxy_retry_out_spec", Spec, "", "", Used, "Old name of `proxy_retry_out_specs`; added to it."),
    row(H, "proxy_ws_control_init_specs", Specs, "", "1.39", Planned, "Control of WebSockets, first packets."),
    row(H, "proxy_ws_control_stream_specs", Specs, "", "1.39", Planned, "Control of WebSockets, further packets."),
    row(H, "proxy_ws_control_in_spec", Spec, "", "", Used, "Where the proxy tells about WebSockets. Default: `handler_ws_control_out_spec` of `[proxy]`."),
    row(H, "proxy_ws_control_out_spec", Spec, "", "", Used, "Where the proxy is told about them. Default: `handler_ws_control_in_spec` of `[proxy]`."),
    row(H, "proxy_stats_specs", Specs, "", "1.39", Used, "Where the proxy tells statistics. Default: `stats_spec` of `[proxy]`."),
    row(H, "proxy_stats_spec", Spec, "", "", Used, "Old name of `proxy_stats_specs`; added to it."),
    row(H, "proxy_command_spec", Spec, "", "", Used, "Where the proxy takes commands. Default: `command_spec` of `[proxy]`."),
    row(H, "proxy_intreq_out_specs", Specs, "", "", Used, "Where requests of the handler go. Default: `intreq_in_specs` of `[proxy]`."),
    row(H, "proxy_intreq_out_stream_specs", Specs, "", "", Used, "Where further packets of them go. Default: `intreq_in_stream_specs` of `[proxy]`."),
    row(H, "proxy_intreq_in_specs", Specs, "", "", Used, "Where their responses come from. Default: `intreq_out_specs` of `[proxy]`."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_there_twice() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            let twin = SETTINGS[index + 1..].iter().any(|s| s.section == setting.section && s.name == setting.name);
            assert!(!twin, "[{}] {}", setting.section, setting.name);
        }
    }
}
