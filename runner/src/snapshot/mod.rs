// SPDX-License-Identifier: AGPL-3.0-or-later
//! How everything is at one moment, for those who look at it live: the dashboard and `pushpin-top`.
//!
//! - [`inward`]: asks the handler, which knows the channels.
//! - [`usage`]: what processes take of the machine.

pub mod inward;
pub mod usage;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metrics::Metric;
use metrics::catalogue::{
    BACKEND_ERRORS, CHANNELS, CLIENT_SESSIONS, CLIENTS, CLOSES, CONTENT_BYTES, DELIVERIES, DROPS, HOLDS, HOLDS_ENDED,
    MESSAGE_RECEIVED, REQUEST_RECEIVED, WARNINGS,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use self::inward::Handler;
use self::usage::Usage;
use crate::status::Status;
use crate::vitals::{Shared, Vitals};

/// Channels that are shown.
const SHOWN: &str = "/channels?order=subscribers&limit=20";
/// For how long a snapshot waits for them.
const PATIENCE: Duration = Duration::from_millis(800);

/// See the module. Fields may be added, and keep their names and meanings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Milliseconds since 1970.
    pub time: u64,
    /// The processes.
    pub status: Status,
    /// What each takes, by its name.
    pub usage: BTreeMap<String, Usage>,
    /// What there is.
    pub gauges: Gauges,
    /// What there has been.
    pub counters: Counters,
    /// What was dropped, closed and failed.
    pub losses: Vec<Loss>,
    /// Who is subscribed.
    pub channels: Channels,
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gauges {
    /// Connections of clients.
    pub clients: u64,
    /// Requests and WebSockets under way, held ones included.
    pub sessions: u64,
    /// Held clients by mode.
    pub holds: BTreeMap<String, u64>,
    /// Channels with subscribers.
    pub channels: u64,
}

/// What there has been.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests of clients.
    pub requests: u64,
    /// Items that were published.
    pub published: u64,
    /// Deliveries of them, since the handler was started.
    pub deliveries: u64,
    /// Bytes of content that were sent to held clients, since then.
    pub content: u64,
}

/// How often something was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Of what kind.
    pub kind: String,
    /// Why, as in the metrics.
    pub reason: String,
    /// What that means.
    pub help: String,
    /// How often, since the processes were started.
    pub count: u64,
}

/// The channels with the most subscribers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channels {
    /// Those.
    pub list: Vec<Channel>,
    /// Why they are not known.
    pub missing: Option<String>,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Its name, which may be anything.
    pub channel: String,
    /// Its subscribers by format.
    pub subscribers: BTreeMap<String, u64>,
}

/// What the handler answers.
#[derive(Deserialize)]
struct Page {
    channels: Vec<Channel>,
}

/// Looks at everything.
pub async fn take(vitals: &Shared, config: &str, handler: Option<&Handler>) -> Snapshot {
    let channels = channels(handler).await;
    let (now, time) = (Instant::now(), SystemTime::now());
    let vitals = vitals.lock();
    let status = vitals.status(config.into(), now, time);
    let pids = status.processes.iter().filter_map(|process| Some((process.name.clone(), process.pid?)));
    let pids = pids.chain([("runner".to_owned(), status.pid)]);
    Snapshot {
        time: time.duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        usage: pids.filter_map(|(name, pid)| Some((name, usage::of(pid)?))).collect(),
        gauges: gauges(&vitals, now),
        counters: counters(&vitals, now),
        losses: losses(&vitals, now),
        status,
        channels,
    }
}

async fn channels(handler: Option<&Handler>) -> Channels {
    let missing = |text: &str| Channels { list: Vec::new(), missing: Some(text.into()) };
    let Some(handler) = handler else { return missing("The handler is not one of ours, and does not tell.") };
    match timeout(PATIENCE, handler.ask("GET", SHOWN, b"")).await {
        Ok(Ok(reply)) if reply.status == 200 => match serde_json::from_slice::<Page>(&reply.body) {
            Ok(Page { channels: list }) => Channels { list, missing: None },
            Err(_) => missing("The handler tells of them in another way."),
        },
        Ok(Ok(reply)) if reply.status == 503 => missing("The handler is busy."),
        Ok(Ok(reply)) => missing(&format!("The handler does not tell ({}).", reply.status)),
        Ok(Err(_)) | Err(_) => missing("The handler does not answer."),
    }
}

fn gauges(vitals: &Vitals, now: Instant) -> Gauges {
    let sum = |metric: &Metric| vitals.suite().by_label(metric, now).values().sum();
    let holds = vitals.suite().by_label(&HOLDS, now);
    Gauges {
        clients: sum(&CLIENTS),
        sessions: sum(&CLIENT_SESSIONS),
        holds: holds.into_iter().map(|(mode, count)| (mode.into(), count)).collect(),
        channels: sum(&CHANNELS),
    }
}

fn counters(vitals: &Vitals, now: Instant) -> Counters {
    let sum = |metric: &Metric| vitals.suite().by_label(metric, now).values().sum();
    Counters {
        requests: vitals.suite().total(&REQUEST_RECEIVED, now),
        published: vitals.suite().total(&MESSAGE_RECEIVED, now),
        deliveries: sum(&DELIVERIES),
        content: sum(&CONTENT_BYTES),
    }
}

fn losses(vitals: &Vitals, now: Instant) -> Vec<Loss> {
    let kinds = [
        ("dropped", DROPS),
        ("hold ended", HOLDS_ENDED),
        ("client closed", CLOSES),
        ("backend", BACKEND_ERRORS),
        ("warning", WARNINGS),
    ];
    let mut losses = Vec::new();
    for (kind, metric) in kinds {
        for (reason, count) in vitals.suite().by_label(&metric, now).into_iter().filter(|(_, count)| *count > 0) {
            let values = metric.labels.first().map_or(&[][..], |label| label.values);
            let help = values.iter().find(|(value, _)| *value == reason).map_or("", |(_, help)| help);
            losses.push(Loss { kind: kind.into(), reason: reason.into(), help: help.into(), count });
        }
    }
    losses
}

#[cfg(test)]
mod tests {
    use metrics::Page as Told;

    use super::*;

    #[tokio::test]
    async fn it_has_what_all_processes_tell() {
        let shared = Shared::new(["frontend", "handler"].into_iter().map(|name| (name.into(), Vec::new())));
        let now = Instant::now();
        for (process, pid) in [(0, std::process::id()), (1, u32::MAX)] {
            let mut page = Told::default();
            match process {
                0 => page.add(&CLIENTS, &[], 3),
                _ => {
                    page.add(&HOLDS, &["stream"], 2);
                    page.add(&DROPS, &["filtered"], 5);
                    page.add(&DROPS, &["rate"], 0);
                    page.add(&MESSAGE_RECEIVED, &[], 9);
                }
            }
            let mut vitals = shared.lock();
            vitals.start(process, pid, String::new());
            vitals.serve(process);
            vitals.tell(process, page.as_str().into(), now);
        }
        let snapshot = take(&shared, "c", None).await;
        assert_eq!((snapshot.gauges.clients, snapshot.gauges.holds["stream"], snapshot.counters.published), (3, 2, 9));
        assert_eq!(snapshot.losses.len(), 1, "what never happened is not shown");
        assert_eq!((snapshot.losses[0].reason.as_str(), snapshot.losses[0].count), ("filtered", 5));
        assert!(snapshot.losses[0].help.starts_with("A filter of the subscription"));
        assert_eq!(snapshot.usage.keys().collect::<Vec<_>>(), ["frontend", "runner"], "the other has gone");
        assert!(snapshot.channels.list.is_empty() && snapshot.channels.missing.is_some());
        let text = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap().status, snapshot.status);
    }
}
