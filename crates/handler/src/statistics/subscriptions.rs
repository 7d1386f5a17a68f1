// SPDX-License-Identifier: AGPL-3.0-or-later
//! Who is subscribed: told when the first comes and the last goes, once a second if their number changes, and again before it expires.

use std::time::Instant;

use rpc::stats::{Packet, Sub};

use super::{Packets, Statistics, seconds};
use crate::subscribe::channels::{Channels, Mode};

/// A channel's subscribers of a mode, as they were told last.
pub(super) struct Told {
    subscribers: u32,
    /// There are more or fewer now.
    stale: bool,
    repeat_at: Instant,
}

impl Statistics {
    pub(super) fn on_change(
        &mut self,
        mode: Mode,
        channel: Box<str>,
        channels: &Channels,
        now: Instant,
        packets: &mut Packets,
    ) {
        let found = channels.find(&channel);
        let subscribers = found.map_or(0, |found| channels.count(found, mode)) as u32;
        // A long-poll that has got its answer is expected back.
        let lingers =
            mode == Mode::Response && found.is_some_and(|found| channels.channel(found).lingers_until.is_some());
        let repeat_at = now + self.settings.subscription_ttl * 3 / 4;
        let key = (mode, channel);
        match self.subscriptions.get_mut(&key) {
            None if subscribers == 0 => {}
            None => {
                packets.push(self.subscription(&key, Some(subscribers)));
                self.subscriptions.insert(key, Told { subscribers, stale: false, repeat_at });
            }
            Some(_) if subscribers == 0 && !lingers => {
                self.subscriptions.remove(&key);
                packets.push(self.subscription(&key, None));
            }
            Some(told) if told.subscribers == 0 && subscribers > 0 => {
                *told = Told { subscribers, stale: false, repeat_at };
                packets.push(self.subscription(&key, Some(subscribers)));
            }
            // As long as it lingers, it is as if the last one were there.
            Some(told) if subscribers == 0 => *told = Told { subscribers, stale: false, repeat_at },
            Some(told) => told.stale = told.subscribers != subscribers,
        }
    }

    pub(super) fn subscription(&self, (mode, channel): &(Mode, Box<str>), subscribers: Option<u32>) -> Packet<'static> {
        Packet::Sub(Sub {
            mode: name(*mode).into(),
            channel: channel.to_string().into(),
            ttl: subscribers.map(|_| seconds(self.settings.subscription_ttl)),
            subscribers,
            unavailable: subscribers.is_none(),
            ..Sub::default()
        })
    }

    pub(super) fn repeat_subscriptions(&mut self, channels: &Channels, now: Instant, packets: &mut Packets) {
        let due = self.subscriptions.iter().filter(|(_, told)| told.stale || told.repeat_at <= now);
        let due: Vec<(Mode, Box<str>)> = due.map(|(key, _)| key.clone()).collect();
        for key in due {
            let found = channels.find(&key.1);
            let subscribers = found.map_or(0, |found| channels.count(found, key.0)) as u32;
            let lingers = found.is_some_and(|found| channels.channel(found).lingers_until.is_some());
            if subscribers == 0 && !(key.0 == Mode::Response && lingers) {
                self.subscriptions.remove(&key);
                packets.push(self.subscription(&key, None));
                continue;
            }
            if subscribers > 0 {
                packets.push(self.subscription(&key, Some(subscribers)));
            }
            let repeat_at = now + self.settings.subscription_ttl * 3 / 4;
            self.subscriptions.insert(key, Told { subscribers, stale: false, repeat_at });
        }
    }
}

fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Response => "response",
        Mode::Stream => "stream",
        Mode::Socket => "ws",
    }
}
