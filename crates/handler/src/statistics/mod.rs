// SPDX-License-Identifier: AGPL-3.0-or-later
//! Statistics: what is told at `stats_spec` (control, stats). No I/O, no clock.
//!
//! While nobody listens, nothing is noted, kept or encoded, and the proxy is not listened to. Who begins to listen is told
//! at once of all that is subscribed to then, and of the connections one after the other.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

mod connections;
mod maxima;
pub mod notes;
mod subscriptions;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use rpc::stats::{Activity, Counts, Message, Packet, Report};

use self::connections::Connection;
use self::maxima::Maxima;
use self::notes::{Notes, Published};
use self::subscriptions::Told;
use crate::subscribe::channels::{Channels, Mode};

/// Activity of so long is one packet.
const ACTIVITY: Duration = Duration::from_millis(100);
/// How often it is looked for what has changed or is to be repeated.
const TICK: Duration = Duration::from_secs(1);

/// What the engine has counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Items published.
    pub received: u64,
    /// Deliveries.
    pub sent: u64,
    /// Of those, responses of long-polls.
    pub responses_sent: u64,
    /// Blocks of the items, if they are counted.
    pub blocks_received: u64,
    /// Blocks of the deliveries.
    pub blocks_sent: u64,
    /// Bytes of heads to clients that are held.
    pub header_bytes_sent: u64,
    /// Bytes of content to clients that are held.
    pub content_bytes_sent: u64,
    /// Clients that are held over HTTP now.
    pub holds: usize,
}

/// Packets to be sent.
pub type Packets = Vec<Packet<'static>>;

/// What has happened on a route since the last report.
#[derive(Default)]
struct Tally {
    report: Report<'static>,
    /// Connections that others have.
    connections: u32,
}

/// See the module.
pub struct Statistics {
    settings: settings::Statistics,
    subscriptions: HashMap<(Mode, Box<str>), Told, RandomState>,
    /// Ids are made of what proxies say, hence the standard library's keyed hash.
    connections: HashMap<Box<str>, Connection>,
    activity: BTreeMap<Option<Box<str>>, u32>,
    requests: u32,
    activity_at: Option<Instant>,
    tick_at: Instant,
    /// By route; of what has no route of its own by the empty text. No more than there are routes.
    tallies: BTreeMap<Box<str>, Tally>,
    /// Connections of proxies that do not tell of each.
    maxima: Maxima,
    reported: Counters,
    reported_at: Instant,
}

impl Statistics {
    /// Nothing is known.
    pub fn new(settings: settings::Statistics, now: Instant) -> Self {
        Statistics {
            settings,
            subscriptions: HashMap::default(),
            connections: HashMap::new(),
            activity: BTreeMap::new(),
            requests: 0,
            activity_at: None,
            tick_at: now + TICK,
            tallies: BTreeMap::new(),
            maxima: Maxima::default(),
            reported: Counters::default(),
            reported_at: now,
        }
    }

    /// Somebody begins to listen, or everybody has gone: begins anew.
    pub fn begin_anew(&mut self, counters: Counters, now: Instant) {
        *self = Statistics { reported: counters, ..Statistics::new(self.settings, now) };
    }

    /// Takes in what the stages have noted.
    pub fn on_notes(&mut self, notes: Notes, channels: &Channels, now: Instant, packets: &mut Packets) {
        for Published { channel, item_id, mode, receivers, blocks } in notes.messages {
            packets.push(Packet::Message(Message {
                channel: String::from(channel).into(),
                item_id: item_id.map(|id| String::from(id).into()),
                count: receivers,
                transport: transport(mode).into(),
                blocks: blocks.map(|blocks| blocks.saturating_mul(receivers)),
                ..Message::default()
            }));
        }
        for (mode, channel) in notes.changed {
            self.on_change(mode, channel, channels, now, packets);
        }
        for (route, count) in notes.keep_alives {
            self.count(route.as_deref(), count, now);
        }
        for (route, (messages, bytes)) in notes.pushed {
            let report = &mut self.tally(route.as_deref().unwrap_or_default()).report;
            report.client_messages_sent = report.client_messages_sent.wrapping_add(messages);
            report.client_content_bytes_sent = report.client_content_bytes_sent.wrapping_add(bytes);
        }
        for (route, (sent, blocks)) in notes.sent_apart {
            for (route, sign) in [(&*route, 1), ("", u32::MAX)] {
                // What counts for a route does not count for those without: it is taken off there.
                let report = &mut self.tally(route).report;
                report.sent = report.sent.wrapping_add(sent.wrapping_mul(sign));
                if blocks > 0 {
                    let total = report.blocks_sent.get_or_insert(0);
                    *total = total.wrapping_add(blocks.wrapping_mul(sign));
                }
            }
        }
    }

    /// Takes in a packet of a proxy. `is_held`: this handler has the connection.
    pub fn on_proxy(&mut self, packet: Packet<'_>, is_held: bool, now: Instant, packets: &mut Packets) {
        let counts_minutes = self.settings.connections;
        match packet {
            Packet::Activity(activity) => self.count(activity.route.as_deref(), activity.count, now),
            Packet::Counts(counts) => {
                self.requests = self.requests.saturating_add(counts.requests_received);
                self.activity_at.get_or_insert(now + ACTIVITY);
            }
            Packet::Conn(conn) if self.settings.connections => self.on_connection(conn, is_held, now, packets),
            Packet::Report(report) => {
                let tally = self.tally(report.route.as_deref().unwrap_or_default());
                tally.report.add_traffic(&report);
                // Otherwise they are counted here, by connection.
                if !counts_minutes {
                    tally.report.minutes = tally.report.minutes.saturating_add(report.minutes);
                }
            }
            Packet::Conn(_) | Packet::Message(_) | Packet::Sub(_) => {}
        }
    }

    fn tally(&mut self, route: &str) -> &mut Tally {
        self.tallies.entry(route.into()).or_default()
    }

    fn count(&mut self, route: Option<&str>, count: u32, now: Instant) {
        let total = self.activity.entry(route.filter(|route| !route.is_empty()).map(Into::into)).or_default();
        *total = total.saturating_add(count);
        self.activity_at.get_or_insert(now + ACTIVITY);
    }

    /// When [`Statistics::on_timer`] has something to do.
    pub fn next_due(&self) -> Instant {
        let report = self.settings.report_interval.map(|interval| self.reported_at + interval);
        [self.activity_at, report].into_iter().flatten().fold(self.tick_at, Instant::min)
    }

    /// Tells what is due. `is_held`: this handler has the connection.
    pub fn on_timer(
        &mut self,
        channels: &Channels,
        is_held: impl Fn(&str) -> bool,
        counters: Counters,
        now: Instant,
        packets: &mut Packets,
    ) {
        if self.activity_at.is_some_and(|due| due <= now) {
            self.activity_at = None;
            for (route, count) in std::mem::take(&mut self.activity) {
                let route = route.map(|route| String::from(route).into());
                packets.push(Packet::Activity(Activity { route, count, ..Activity::default() }));
            }
            let requests_received = std::mem::take(&mut self.requests);
            if requests_received > 0 {
                packets.push(Packet::Counts(Counts { requests_received, ..Counts::default() }));
            }
        }
        if self.tick_at <= now {
            self.tick_at = now + TICK;
            self.repeat_subscriptions(channels, now, packets);
            self.repeat_connections(is_held, now, packets);
            self.maxima.expire(now).iter().for_each(|change| self.apply(change));
        }
        if counters.holds > 0 {
            let tally = self.tally("");
            let all = tally.connections.saturating_add(u32::try_from(counters.holds).unwrap_or(u32::MAX));
            tally.report.connections = tally.report.connections.max(all);
        }
        if self.settings.report_interval.is_some_and(|interval| self.reported_at + interval <= now) {
            self.report(counters, now, packets);
        }
    }

    fn report(&mut self, counters: Counters, now: Instant, packets: &mut Packets) {
        let before = self.reported;
        let since = |now: u64, before: u64| (now - before) as u32;
        let own = &mut self.tallies.entry("".into()).or_default().report;
        own.received = since(counters.received, before.received);
        own.sent = own.sent.wrapping_add(since(counters.sent, before.sent));
        own.http_response_sent = since(counters.responses_sent, before.responses_sent);
        own.client_header_bytes_sent += since(counters.header_bytes_sent, before.header_bytes_sent);
        own.client_content_bytes_sent += since(counters.content_bytes_sent, before.content_bytes_sent);
        let received = since(counters.blocks_received, before.blocks_received);
        own.blocks_received = (received > 0).then_some(received);
        let sent = own.blocks_sent.unwrap_or(0).wrapping_add(since(counters.blocks_sent, before.blocks_sent));
        own.blocks_sent = (sent > 0).then_some(sent);
        let duration = now.saturating_duration_since(self.reported_at).as_millis() as u32;
        self.tallies.retain(|route, tally| {
            let held = if route.is_empty() { u32::try_from(counters.holds).unwrap_or(u32::MAX) } else { 0 };
            let next = Report { connections: tally.connections.saturating_add(held), ..Report::default() };
            let report = std::mem::replace(&mut tally.report, next);
            if report == Report::default() {
                return tally.connections > 0;
            }
            let route = (!route.is_empty()).then(|| route.to_string().into());
            packets.push(Packet::Report(Box::new(Report { route, duration, ..report })));
            true
        });
        self.reported = counters;
        self.reported_at = now;
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

fn transport(mode: Mode) -> &'static str {
    match mode {
        Mode::Response => "http-response",
        Mode::Stream => "http-stream",
        Mode::Socket => "ws-message",
    }
}

#[cfg(test)]
mod tests;
