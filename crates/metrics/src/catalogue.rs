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
    /// Names of its labels, without `process`.
    pub labels: &'static [&'static str],
    /// Whose values it has.
    pub scope: Scope,
    /// What it says.
    pub help: &'static str,
}

macro_rules! catalogue {
    ($($id:ident: $kind:ident, $name:literal [$($label:literal),*], $from:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric =
                Metric { name: $name, kind: Type::$kind, labels: &[$($label),*], scope: $from, help: $help };
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

    WARNINGS: Counter, "warnings_total" ["kind"], EACH, "Warnings, with those that the log leaves out.";

    CLIENTS: Gauge, "clients" [], FRONTEND, "Connections of clients.";
    CLIENTS_ACCEPTED: Counter, "clients_accepted_total" [], FRONTEND, "Connections of clients that were accepted.";
    CLIENT_SESSIONS: Gauge, "client_sessions" [], FRONTEND, "Requests and WebSockets of clients under way, held ones included.";
    CLOSES: Counter, "closes_total" ["reason"], FRONTEND, "Connections and sessions that were ended for a reason that is not the client's wish.";
    MALFORMED: Counter, "malformed_packets_total" [], FRONTEND, "Packets of proxy or handler that could not be read.";

    REQUESTS: Counter, "requests_total" ["kind"], PROXY, "Requests (http) and WebSockets (ws) of clients.";
    REQUESTS_OPEN: Gauge, "requests_open" ["kind"], PROXY, "Requests and WebSockets that the proxy has under way; those that are held are the handler's.";
    PACKETS_LOST: Counter, "packets_lost_total" [], PROXY, "Packets that could not be sent, because their receiver is gone or takes no more.";

    HOLDS: Gauge, "holds" ["mode"], HANDLER, "Clients that are held: long-polls (response), streams (stream), WebSockets (ws).";
    CHANNELS: Gauge, "channels" [], HANDLER, "Channels that have subscribers, or had them a moment ago.";
    MESSAGES: Counter, "messages_total" ["input"], HANDLER, "Items that came to be published: by HTTP (http), the command socket (command), PULL (pull), SUB (sub).";
    MESSAGES_WAITING: Gauge, "messages_waiting" [], HANDLER, "Items that wait to be published.";
    DELIVERIES: Counter, "deliveries_total" ["mode"], HANDLER, "Deliveries, one for each message and receiver; those that filters keep back or limits drop are included.";
    DROPS: Counter, "drops_total" ["reason"], HANDLER, "Messages and deliveries that were kept back or dropped.";
    HOLDS_ENDED: Counter, "holds_ended_total" ["reason"], HANDLER, "Holds that were ended for a reason that is neither the client's nor the backend's wish.";
    HOLDS_RECOVERED: Counter, "holds_recovered_total" [], HANDLER, "Holds of a predecessor that were taken up.";
    LINK_REQUESTS: Counter, "link_requests_total" ["result"], HANDLER, "Requests for next and gone links.";
    CONTENT_BYTES: Counter, "content_bytes_total" [], HANDLER, "Bytes of content that were sent to clients that are held.";

    BACKEND_REQUESTS: Counter, "backend_requests_total" [], OUTBOUND, "Requests to backends.";
    BACKEND_OPEN: Gauge, "backend_requests_open" [], OUTBOUND, "Requests to backends under way, WebSockets included.";
    BACKEND_CONNECTIONS: Counter, "backend_connections_total" [], OUTBOUND, "Connections to backends that were made.";
    BACKEND_REUSED: Counter, "backend_requests_reused_total" [], OUTBOUND, "Requests that went out on a connection that had waited.";
    BACKEND_ERRORS: Counter, "backend_errors_total" ["reason"], OUTBOUND, "Requests to backends that did not end well.";
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
