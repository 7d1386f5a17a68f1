// SPDX-License-Identifier: AGPL-3.0-or-later
//! Every metric there is, once: what processes write and `docs/metrics.md` come from this table.

/// How values of a metric behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Grows, and begins anew when the process does.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// Whose values a metric has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One for the suite, by a name and without labels, as Pushpin has it.
    Suite,
    /// One for each process, in the label `process`.
    Process(&'static str),
    /// The runner's own.
    Runner,
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, without prefix.
    pub name: &'static str,
    /// How its values behave.
    pub kind: Type,
    /// Its labels, without `process`.
    pub labels: &'static [Label],
    /// Whose values it has.
    pub scope: Scope,
    /// What it says.
    pub help: &'static str,
}

/// One label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// The values that it has, and what each means; none if there is no list of them.
    pub values: &'static [(&'static str, &'static str)],
}

impl Label {
    const fn of(name: &'static str, values: &[&'static [(&'static str, &'static str)]]) -> Self {
        Self { name, values: if let [values] = values { values } else { &[] } }
    }
}

macro_rules! catalogue {
    ($($id:ident: $kind:ident, $name:literal [$($label:literal $(= $values:ident)?),*], $from:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric = Metric {
                name: $name,
                kind: Type::$kind,
                labels: &[$(Label::of($label, &[$($values)?])),*],
                scope: $from,
                help: $help,
            };
        )*
        /// The table.
        pub const METRICS: &[Metric] = &[$($id),*];
    };
}

const FRONTEND: Scope = Scope::Process("frontend");
const PROXY: Scope = Scope::Process("proxy");
const HANDLER: Scope = Scope::Process("handler");
const OUTBOUND: Scope = Scope::Process("outbound");
const EACH: Scope = Scope::Process("each");

const CLOSED: &[(&str, &str)] = &[
    ("refused", "The client sent what is malformed or not supported."),
    ("message_size", "A message on a WebSocket was longer than `client_max_message_size`."),
    ("proxy_header", "A connection to a port with `proxy_protocol=true` did not begin with a PROXY header."),
    ("deadline", "A deadline of the client had passed, or it read too slowly."),
    ("server_fault", "Proxy or handler broke the rules, or sent what HTTP can not carry."),
    ("server_silent", "Proxy or handler sent no packet for 60 s."),
    ("server_gone", "The proxy or handler of the session has ended."),
    ("no_proxy", "No proxy came to take a request in `replay_wait`."),
    ("server_full", "Too much waited for proxy or handler."),
];

const DROPPED: &[(&str, &str)] = &[
    ("filtered", "A filter of the subscription kept a delivery back."),
    ("filter_failed", "A filter could not be applied to a delivery, or its content filters were not the publisher's."),
    ("filter_backlog", "Too much waited for answers to `http-check` and `http-modify`."),
    ("repeated", "The id of an item was seen within `id_cache_ttl`."),
    ("ids_forgotten", "An id was forgotten before its time, as `id_cache_max` was reached; nothing is dropped."),
    ("out_of_order", "Too many items waited for the one before them."),
    ("page_backlog", "Too much waited for a cohort while a page was fetched for it."),
    ("rate", "A delivery exceeded `message_rate` and `message_hwm`."),
    ("gone_link", "The call of a gone link found `gone_requests_max` waiting."),
];

const ENDED: &[(&str, &str)] = &[
    ("slow_client", "More than `session_queue_bytes` waited for a client for too long."),
    ("link_full", "The link to the frontend could not take a packet."),
    ("frontend_gone", "The frontend ended, or its link took nothing for `link_timeout`."),
    ("behind", "A hold of a predecessor has lost what waited for it there."),
    ("not_recovered", "The record of a predecessor's hold can not be used, or it may have missed a message."),
    ("given_back", "A long-poll was given back to the proxy, to be asked again; no client sees it."),
    ("ws_silent", "The proxy had not named a WebSocket for too long."),
    ("ws_unacknowledged", "The proxy had not acknowledged a message for a WebSocket in time."),
    ("ws_link_full", "The link to the proxy could not take a message for a WebSocket."),
];

const QUEUES: &[(&str, &str)] = &[
    ("frontends", "For the links to frontends: of the proxy and of the handler."),
    ("clients", "What clients have not taken, in the frontend; what several of them wait for counts for each."),
    (
        "proxies",
        "For the links to proxies: of the frontend, of the outbound process, and of the handler for WebSockets.",
    ),
    (
        "backends",
        "For the links to outbound processes, of the proxy; what backends have not taken, in the outbound process.",
    ),
    ("publishing", "Contents of items that wait to be published, in the handler."),
];

const REFUSED: &[(&str, &str)] = &[
    ("401", "There was no token, or it was not good."),
    (
        "403",
        "The token is limited to channels; or, without one, a page of others or another name than this machine's asked.",
    ),
];

const FAILED: &[(&str, &str)] = &[
    ("failed", "A request ended with an error: `warnings_total` has its kind."),
    ("lookups_busy", "More than `backend_lookup_queue` names waited to be looked up."),
    ("requester_gone", "The proxy or handler that had asked left, or did not keep up."),
    ("repeated", "A connection had died while it waited, and its request was sent again."),
];

catalogue! {
    REQUEST_RECEIVED: Counter, "request_received" [], Scope::Suite, "Number of requests received";
    CONNECTION_CONNECTED: Gauge, "connection_connected" [], Scope::Suite, "Number of concurrent connections";
    CONNECTION_MINUTE: Counter, "connection_minute" [], Scope::Suite, "Number of minutes clients have been connected";
    MESSAGE_RECEIVED: Counter, "message_received" [], Scope::Suite, "Number of messages received by the publish API";
    MESSAGE_SENT: Counter, "message_sent" [], Scope::Suite, "Number of messages sent to clients";

    BUILD: Gauge, "build_info" ["version"], Scope::Runner, "Always 1; the label has the version of the runner.";
    PROCESS_UP: Gauge, "process_up" ["process"], Scope::Runner, "1 while a process serves and answers, else 0.";
    PROCESS_START: Gauge, "process_start_time_seconds" ["process"], Scope::Runner, "When a process was started, in seconds since 1970.";
    PROCESS_RESTARTS: Counter, "process_restarts_total" ["process"], Scope::Runner, "How often a process was started again after it had ended.";
    PROCESS_HANGS: Counter, "process_hangs_total" ["process"], Scope::Runner, "How often a process was killed because its work loop had stood still for `heartbeat_timeout`.";

    DASHBOARD_REFUSALS: Counter, "dashboard_refusals_total" ["status" = REFUSED], Scope::Runner, "Requests that the dashboard refused, by the status that they got.";

    WARNINGS: Counter, "warnings_total" ["kind"], EACH, "Warnings, with those that the log leaves out.";
    QUEUE_BYTES: Gauge, "queue_bytes" ["queue" = QUEUES], EACH, "Bytes that wait to be sent or published.";

    CLIENTS: Gauge, "clients" [], FRONTEND, "Connections of clients.";
    CLIENTS_ACCEPTED: Counter, "clients_accepted_total" [], FRONTEND, "Connections of clients that were accepted.";
    CLIENTS_TAKEN_OVER: Counter, "clients_taken_over_total" [], FRONTEND, "Connections of clients that have moved here from the process before.";
    CLIENT_SESSIONS: Gauge, "client_sessions" [], FRONTEND, "Requests and WebSockets of clients under way, held ones included.";
    CLOSES: Counter, "closes_total" ["reason" = CLOSED], FRONTEND, "Connections and sessions that were ended for a reason that is not the client's wish.";
    REPLAYED: Counter, "requests_replayed_total" [], FRONTEND, "Requests that were sent to another proxy, because the one that had them ended.";
    REPLAY_BYTES: Gauge, "replay_bytes" [], FRONTEND, "Memory for requests that can be sent to another proxy.";
    RECOVER_BYTES: Gauge, "recover_bytes" [], FRONTEND, "Memory for what clients of WebSockets have sent and nobody has taken, kept for a successor of the proxy.";
    CLIENT_RESPONSE: Histogram, "client_response_seconds" [], FRONTEND, "Time from the head of a client's request to that of its response; a long-poll's waits for its message. Not of WebSockets.";
    CERTIFICATE_EXPIRY: Gauge, "certificate_expiry_timestamp_seconds" ["certificate"], FRONTEND, "When a certificate that is in use expires, in seconds since 1970; of the 100 that expire first.";
    DRAINING: Gauge, "draining_sessions" [], FRONTEND, "Sessions whose clients have stayed with a process that this one has replaced.";
    MALFORMED: Counter, "malformed_packets_total" [], FRONTEND, "Packets of proxy or handler that could not be read.";

    REQUESTS: Counter, "requests_total" ["kind"], PROXY, "Requests (http) and WebSockets (ws) of clients.";
    REQUESTS_OPEN: Gauge, "requests_open" ["kind"], PROXY, "Requests and WebSockets that the proxy has under way; those that are held are the handler's.";
    PACKETS_LOST: Counter, "packets_lost_total" [], PROXY, "Packets that could not be sent, because their receiver is gone or takes no more.";

    HOLDS: Gauge, "holds" ["mode"], HANDLER, "Clients that are held: long-polls (response), streams (stream), WebSockets (ws).";
    CHANNELS: Gauge, "channels" [], HANDLER, "Channels that have subscribers, or had them a moment ago.";
    MESSAGES: Counter, "messages_total" ["input"], HANDLER, "Items that came to be published: by HTTP (http), the command socket (command), PULL (pull), SUB (sub).";
    MESSAGES_WAITING: Gauge, "messages_waiting" [], HANDLER, "Items that wait to be published.";
    PUBLISH: Histogram, "publish_seconds" [], HANDLER, "Time from when a publish came (by PULL and SUB an item, by HTTP and the command socket all items of a request) until all that it led to was written to the links of frontends, or waits for clients or links that do not keep up.";
    DELIVERIES: Counter, "deliveries_total" ["mode"], HANDLER, "Deliveries, one for each message and receiver; those that filters keep back or limits drop are included.";
    DROPS: Counter, "drops_total" ["reason" = DROPPED], HANDLER, "Messages and deliveries that were kept back or dropped.";
    HOLDS_ENDED: Counter, "holds_ended_total" ["reason" = ENDED], HANDLER, "Holds that were ended for a reason that is neither the client's nor the backend's wish.";
    HOLDS_RECOVERED: Counter, "holds_recovered_total" [], HANDLER, "Holds of a predecessor that were taken up.";
    LINK_REQUESTS: Counter, "link_requests_total" ["result"], HANDLER, "Requests for next and gone links.";
    CONTENT_BYTES: Counter, "content_bytes_total" [], HANDLER, "Bytes of content that were sent to clients that are held.";

    BACKEND_REQUESTS: Counter, "backend_requests_total" [], OUTBOUND, "Requests to backends.";
    BACKEND_OPEN: Gauge, "backend_requests_open" [], OUTBOUND, "Requests to backends under way, WebSockets included.";
    BACKEND_RECOVER_BYTES: Gauge, "backend_recover_bytes" [], OUTBOUND, "Memory for what backends have sent over WebSockets and clients may not have had, kept for a successor of the proxy.";
    BACKEND_CONNECTIONS: Counter, "backend_connections_total" [], OUTBOUND, "Connections to backends that were made.";
    BACKEND_REUSED: Counter, "backend_requests_reused_total" [], OUTBOUND, "Requests that went out on a connection that had waited.";
    BACKEND_ERRORS: Counter, "backend_errors_total" ["reason" = FAILED], OUTBOUND, "Requests to backends that did not end well.";
    BACKEND_RESPONSE: Histogram, "backend_response_seconds" [], OUTBOUND, "Time from a request to the head of its response.";
}

/// The metric that a sample of this name belongs to.
pub(crate) fn find(sample: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| {
        let Some(rest) = sample.strip_prefix(metric.name) else { return false };
        rest.is_empty() || metric.kind == Type::Histogram && ["_bucket", "_sum", "_count"].contains(&rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_the_conventions() {
        let own = METRICS.iter().filter(|metric| metric.scope != Scope::Suite);
        for metric in own {
            let is_counter = metric.kind == Type::Counter;
            assert_eq!(metric.name.ends_with("_total"), is_counter, "{}", metric.name);
            assert!(metric.kind != Type::Histogram || metric.name.ends_with("_seconds"), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn every_sample_has_one_metric() {
        for metric in METRICS {
            assert_eq!(METRICS.iter().filter(|other| other.name == metric.name).count(), 1);
            assert_eq!(find(metric.name), Some(metric));
        }
        assert_eq!(find("backend_response_seconds_bucket"), Some(&BACKEND_RESPONSE));
        assert_eq!(find("clients_bucket"), None);
    }
}
