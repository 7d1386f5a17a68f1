// SPDX-License-Identifier: AGPL-3.0-or-later
//! A snapshot each second, for all who look, and none while nobody does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use super::lines::Sender;
use crate::snapshot;
use crate::snapshot::inward::Handler;
use crate::vitals::Shared;

/// The time from one to the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// See the module.
pub struct Feed {
    latest: watch::Sender<Arc<str>>,
    /// Somebody has come.
    wanted: Notify,
}

impl Feed {
    /// Looks at these, from when somebody wants to see them.
    pub fn start(vitals: Shared, config: String, handler: Option<Handler>) -> Arc<Self> {
        let feed = Arc::new(Self { latest: watch::Sender::new("".into()), wanted: Notify::new() });
        let shared = feed.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                while shared.latest.receiver_count() == 0 {
                    shared.wanted.notified().await;
                }
                let taken = snapshot::take(&vitals, &config, handler.as_ref()).await;
                match serde_json::to_string(&taken) {
                    Ok(text) => drop(shared.latest.send_replace(text.into())),
                    Err(error) => tracing::debug!("a snapshot can not be written: {error}"),
                }
                ticks.tick().await;
            }
        });
        feed
    }

    /// What comes from now on.
    pub fn subscribe(&self) -> watch::Receiver<Arc<str>> {
        let receiver = self.latest.subscribe();
        self.wanted.notify_one();
        receiver
    }
}

/// Tells a browser each snapshot, but those that it is too slow for.
pub async fn follow(mut snapshots: watch::Receiver<Arc<str>>, sender: Sender) {
    loop {
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            () = sender.left() => return,
        }
        let text = snapshots.borrow_and_update().clone();
        if !sender.tell_text(&text).await {
            return;
        }
    }
}
