// SPDX-License-Identifier: AGPL-3.0-or-later
//! Statistics: what is told at `stats_spec` (control, stats). No I/O, no clock.
//!
//! While nobody listens, nothing is noted, kept or encoded, and the proxy is not listened to. Who begins to listen is told
//! at once of all that is subscribed to then, and of the connections one after the other.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

mod maxima;
pub mod notes;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use rpc::stats::{Activity, Conn, ConnKind, ConnMax, Counts, Message, Packet, Report, Sub};

use self::maxima::{Change, Maxima};
use self::notes::{Notes, Published};
use crate::subscribe::channels::{Channels, Mode};

/// Activity of so long is one packet.
const ACTIVITY: Duration = Duration::from_millis(100);
/// How often it is looked for what has changed or is to be repeated.
const TICK: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// Connections that are kept at most; of others it is told when they begin and end, but they are not repeated or counted.
const MAX_CONNECTIONS: usize = 1_000_000;

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

/// A channel's subscribers of a mode, as they were told last.
struct Told {
    subscribers: u32,
    /// There are more or fewer now.
    stale: bool,
    repeat_at: Instant,
}

struct Connection {
    packet: Conn<'static>,
    /// The proxy has named it so lately, or never.
    named_at: Option<Instant>,
    repeat_at: Instant,
    /// Full minutes since it was met are counted from here.
    counted_at: Instant,
    /// It is held here, and counts as one of no route.
    held: bool,
}

impl Connection {
    /// The route in whose report it counts.
    fn route(&self) -> &str {
        self.packet.route.as_deref().filter(|_| !self.held).unwrap_or_default()
    }
}

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

    fn on_change(&mut self, mode: Mode, channel: Box<str>, channels: &Channels, now: Instant, packets: &mut Packets) {
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

    fn subscription(&self, (mode, channel): &(Mode, Box<str>), subscribers: Option<u32>) -> Packet<'static> {
        Packet::Sub(Sub {
            mode: name(*mode).into(),
            channel: channel.to_string().into(),
            ttl: subscribers.map(|_| seconds(self.settings.subscription_ttl)),
            subscribers,
            unavailable: subscribers.is_none(),
            ..Sub::default()
        })
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

    fn on_connection(&mut self, conn: Conn<'_>, is_held: bool, now: Instant, packets: &mut Packets) {
        if conn.unavailable {
            // What has been handed over is ours to end.
            if !is_held {
                let route = conn.route.map(|route| Cow::Owned(route.into_owned()));
                self.forget(&conn.id, route, packets);
            }
            return;
        }
        let repeat_at = now + self.settings.connection_ttl * 3 / 4;
        let packet = Conn {
            from: Cow::Borrowed(""),
            id: conn.id.into_owned().into(),
            route: conn.route.map(|route| route.into_owned().into()),
            peer_address: conn.peer_address.map(|address| address.into_owned().into()),
            ..conn
        };
        packets.push(Packet::Conn(packet.clone()));
        let has_room = self.connections.len() < MAX_CONNECTIONS;
        match self.connections.get_mut(&*packet.id) {
            Some(known) => {
                let is_new = known.named_at.is_none();
                *known = Connection { packet, named_at: Some(now), repeat_at, ..*known };
                if is_new {
                    let route = known.packet.route.as_deref().unwrap_or_default().to_string();
                    self.tally(&route).report.minutes += 1;
                }
            }
            None if has_room => {
                let connection = Connection { packet, named_at: Some(now), repeat_at, counted_at: now, held: is_held };
                self.tally(connection.packet.route.as_deref().unwrap_or_default()).report.minutes += 1;
                if !is_held {
                    self.add(connection.route().to_string().as_str());
                }
                self.connections.insert(connection.packet.id.to_string().into(), connection);
            }
            None => {}
        }
    }

    /// Takes in how many connections a proxy has; `false` if that is not counted because too many proxies say so. They must be
    /// taken in before the connections that the same message hands over.
    pub fn on_conn_max(&mut self, packet: &ConnMax, now: Instant) -> bool {
        let change = self.maxima.set(packet, now);
        let counts = change.is_some();
        change.into_iter().for_each(|change| self.apply(&change));
        counts
    }

    fn apply(&mut self, change: &Change) {
        let tally = self.tally(&change.route);
        tally.connections = tally.connections.saturating_sub(change.before).saturating_add(change.after);
        tally.report.connections = tally.report.connections.max(tally.connections);
    }

    /// A connection of a route that others have.
    fn add(&mut self, route: &str) {
        let tally = self.tally(route);
        tally.connections += 1;
        tally.report.connections = tally.report.connections.max(tally.connections);
    }

    fn subtract(&mut self, route: &str) {
        if let Some(tally) = self.tallies.get_mut(route) {
            tally.connections = tally.connections.saturating_sub(1);
        }
    }

    fn tally(&mut self, route: &str) -> &mut Tally {
        self.tallies.entry(route.into()).or_default()
    }

    /// These connections were held here before anybody listened. They are told one after the other, over the time after which each
    /// is repeated, so that there is no burst.
    pub fn meet(&mut self, ids: Vec<String>, now: Instant) {
        let (period, all) = (self.settings.connection_ttl * 3 / 4, ids.len() as f64);
        for (number, id) in ids.into_iter().enumerate() {
            self.hold(id, period.mul_f64(number as f64 / all), now);
        }
    }

    /// A connection is here that the proxy has not named.
    fn hold(&mut self, id: String, repeat_in: Duration, now: Instant) {
        if self.connections.len() >= MAX_CONNECTIONS {
            return;
        }
        let ttl = self.settings.connections.then(|| seconds(self.settings.connection_ttl));
        let packet = Conn { id: id.clone().into(), kind: Some(ConnKind::Http), ttl, ..Conn::default() };
        let repeat_at = now + repeat_in;
        let connection = Connection { packet, named_at: None, repeat_at, counted_at: now, held: true };
        self.connections.insert(id.into(), connection);
    }

    /// A connection that the proxy had is held here.
    pub fn begin(&mut self, id: &str, now: Instant) {
        match self.connections.get_mut(id) {
            Some(known) if known.held => {}
            Some(known) => {
                let route = known.route().to_string();
                known.held = true;
                self.subtract(&route);
            }
            // The proxy tells of none, or not yet, or never: it has handed over the connection before it heard that somebody
            // listens.
            None => self.hold(id.into(), self.settings.connection_ttl * 3 / 4, now),
        }
    }

    /// A connection is the proxy's again. Of those who listen none is to take it for gone.
    pub fn give_back(&mut self, id: &str, packets: &mut Packets) {
        if !self.settings.connections {
            self.connections.remove(id);
            return;
        }
        if let Some(known) = self.connections.get_mut(id).filter(|known| known.held) {
            known.held = false;
            packets.push(Packet::Conn(Conn { route: None, ..known.packet.clone() }));
            let route = known.route().to_string();
            self.add(&route);
        }
    }

    /// A connection that was held has ended.
    pub fn end(&mut self, id: &str, packets: &mut Packets) {
        self.forget(id, None, packets);
    }

    fn forget(&mut self, id: &str, route: Option<Cow<'static, str>>, packets: &mut Packets) {
        if let Some(known) = self.connections.remove(id).filter(|known| !known.held) {
            self.subtract(known.route());
        }
        if self.settings.connections {
            let id = Cow::Owned(id.to_string());
            packets.push(Packet::Conn(Conn { id, route, unavailable: true, ..Conn::default() }));
        }
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

    fn repeat_subscriptions(&mut self, channels: &Channels, now: Instant, packets: &mut Packets) {
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

    /// Those that the proxy has handed over are ours to repeat; it repeats the others.
    fn repeat_connections(&mut self, is_held: impl Fn(&str) -> bool, now: Instant, packets: &mut Packets) {
        let (ttl, tells) = (self.settings.connection_ttl, self.settings.connections);
        let mut lost = Vec::new();
        let tallies = &mut self.tallies;
        self.connections.retain(|id, connection| {
            while connection.counted_at + MINUTE <= now {
                connection.counted_at += MINUTE;
                tallies.entry(connection.route().into()).or_default().report.minutes += 1;
            }
            if connection.repeat_at > now || !tells {
                return true;
            }
            if !is_held(id) {
                let stays = connection.named_at.is_some_and(|named| named + ttl > now);
                lost.extend((!stays && !connection.held).then(|| connection.route().to_string()));
                return stays;
            }
            connection.named_at = Some(now);
            connection.repeat_at = now + ttl * 3 / 4;
            packets.push(Packet::Conn(Conn { route: None, ..connection.packet.clone() }));
            true
        });
        lost.iter().for_each(|route| self.subtract(route));
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

fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Response => "response",
        Mode::Stream => "stream",
        Mode::Socket => "ws",
    }
}

fn transport(mode: Mode) -> &'static str {
    match mode {
        Mode::Response => "http-response",
        Mode::Stream => "http-stream",
        Mode::Socket => "ws-message",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscribe::channels::Kin;

    const SETTINGS: settings::Statistics = settings::Statistics {
        connections: true,
        connection_ttl: Duration::from_secs(120),
        subscription_ttl: Duration::from_secs(60),
        report_interval: Some(Duration::from_secs(10)),
        json: false,
    };

    struct Bed {
        statistics: Statistics,
        channels: Channels,
        counters: Counters,
        now: Instant,
        packets: Packets,
    }

    impl Bed {
        fn new() -> Self {
            let now = Instant::now();
            let statistics = Statistics::new(SETTINGS, now);
            Bed { statistics, channels: Channels::default(), counters: Counters::default(), now, packets: Vec::new() }
        }

        fn change(&mut self, mode: Mode) -> Vec<String> {
            let notes = Notes { changed: vec![(mode, "c".into())], ..Notes::default() };
            self.statistics.on_notes(notes, &self.channels, self.now, &mut self.packets);
            self.told()
        }

        fn proxy(&mut self, packet: Packet<'_>, is_held: bool) -> Vec<String> {
            self.statistics.on_proxy(packet, is_held, self.now, &mut self.packets);
            self.told()
        }

        fn pass(&mut self, ms: u64, held: bool) -> Vec<String> {
            self.now += Duration::from_millis(ms);
            self.statistics.on_timer(&self.channels, |_| held, self.counters, self.now, &mut self.packets);
            self.told()
        }

        /// What is told of connections meanwhile.
        fn connections(&mut self, ms: u64, held: bool) -> Vec<String> {
            self.pass(ms, held).into_iter().filter(|packet| packet.starts_with("conn ")).collect()
        }

        fn told(&mut self) -> Vec<String> {
            let text = |packet: Packet<'_>| String::from_utf8(packet.encode_json()).unwrap();
            std::mem::take(&mut self.packets).into_iter().map(text).collect()
        }
    }

    fn sub(mode: &str, subscribers: u32) -> String {
        format!(r#"sub J{{"channel":"c","from":"","mode":"{mode}","subscribers":{subscribers},"ttl":60}}"#)
    }

    #[test]
    fn the_first_and_the_last_subscriber_are_told_at_once_and_others_in_a_second() {
        let mut bed = Bed::new();
        let (first, _) = bed.channels.add("c", Kin::default(), Mode::Socket, 1);
        assert_eq!(bed.change(Mode::Socket), [sub("ws", 1)]);
        bed.channels.add("c", Kin::default(), Mode::Socket, 2);
        assert_eq!(bed.change(Mode::Socket), [""; 0]);
        assert_eq!(bed.pass(1000, false), [sub("ws", 2)]);
        assert_eq!(bed.pass(1000, false), [""; 0]);
        bed.channels.remove(first, Mode::Socket);
        bed.channels.remove(first, Mode::Socket);
        assert_eq!(bed.change(Mode::Socket), [r#"sub J{"channel":"c","from":"","mode":"ws","unavailable":true}"#]);
    }

    #[test]
    fn connections_that_were_held_before_are_told_one_after_the_other_to_who_begins_to_listen() {
        let mut bed = Bed::new();
        bed.statistics.meet(vec!["f:1".into(), "f:2".into(), "f:3".into()], bed.now);
        let there = |id: &str| format!(r#"conn J{{"from":"","id":"{id}","ttl":120,"type":"http"}}"#);
        assert_eq!(bed.connections(1_000, true), [there("f:1")]);
        assert_eq!(bed.connections(28_000, true), [""; 0]);
        assert_eq!(bed.connections(1_000, true), [there("f:2")]);
        bed.statistics.end("f:3", &mut bed.packets);
        assert_eq!(bed.told(), [r#"conn J{"from":"","id":"f:3","unavailable":true}"#]);
        assert_eq!(bed.connections(31_000, true), [""; 0]);
        assert_eq!(bed.connections(30_000, true), [there("f:1")], "it is repeated as others are");
    }

    #[test]
    fn a_connection_is_told_that_was_handed_over_before_the_proxy_knew_that_somebody_listens() {
        let mut bed = Bed::new();
        bed.statistics.begin("f:1", bed.now);
        assert_eq!(bed.connections(89_000, true), [""; 0]);
        let there = r#"conn J{"from":"","id":"f:1","ttl":120,"type":"http"}"#;
        assert_eq!(bed.connections(1_000, true), [there]);
    }

    #[test]
    fn a_subscription_is_repeated_before_its_time_is_over() {
        let mut bed = Bed::new();
        bed.channels.add("c", Kin::default(), Mode::Stream, 1);
        bed.change(Mode::Stream);
        assert_eq!(bed.pass(44_000, false), [""; 0]);
        assert_eq!(bed.pass(1_000, false), [sub("stream", 1)]);
    }

    #[test]
    fn the_subscription_of_a_long_poll_that_is_expected_back_goes_on() {
        let mut bed = Bed::new();
        let (place, _) = bed.channels.add("c", Kin::default(), Mode::Response, 1);
        bed.change(Mode::Response);
        bed.channels.remove(place, Mode::Response);
        let channel = bed.channels.find("c").unwrap();
        bed.channels.channel_mut(channel).lingers_until = Some(bed.now);
        assert_eq!(bed.change(Mode::Response), [""; 0]);
        bed.channels.forget(channel);
        let end = r#"sub J{"channel":"c","from":"","mode":"response","unavailable":true}"#;
        assert_eq!(bed.change(Mode::Response), [end]);
    }

    #[test]
    fn activity_of_a_moment_is_one_packet_a_route() {
        let mut bed = Bed::new();
        for (route, count) in [(None, 2), (Some("r"), 1), (None, 3)] {
            let route = route.map(Cow::Borrowed);
            bed.proxy(Packet::Activity(Activity { route, count, ..Activity::default() }), false);
            bed.proxy(Packet::Counts(Counts { requests_received: count, ..Counts::default() }), false);
        }
        assert_eq!(bed.pass(99, false), [""; 0]);
        let expected = [
            r#"activity J{"count":5,"from":""}"#,
            r#"activity J{"count":1,"from":"","route":"r"}"#,
            r#"counts J{"from":"","requests-received":6}"#,
        ];
        assert_eq!(bed.pass(1, false), expected);
    }

    #[test]
    fn a_connection_is_told_of_as_long_as_it_is_there_whoever_has_it() {
        let mut bed = Bed::new();
        let conn = |unavailable| Packet::Conn(Conn { id: "a:1".into(), unavailable, ..Conn::default() });
        let there = r#"conn J{"from":"","id":"a:1"}"#;
        let gone = r#"conn J{"from":"","id":"a:1","unavailable":true}"#;
        assert_eq!(bed.proxy(conn(false), false), [there]);
        assert_eq!(bed.proxy(conn(true), true), [""; 0]);
        assert!(bed.pass(90_000, true).contains(&there.to_string()));
        bed.statistics.end("a:1", &mut bed.packets);
        assert_eq!(bed.told(), [gone]);
        // One that the proxy has forgotten.
        bed.proxy(conn(false), false);
        bed.pass(121_000, false);
        assert!(bed.statistics.connections.is_empty());
    }

    #[test]
    fn a_report_has_what_was_counted_since_the_last_one() {
        let mut bed = Bed::new();
        bed.counters = Counters { received: 3, sent: 7, responses_sent: 2, holds: 4, ..Counters::default() };
        let told = bed.pass(10_000, false).concat();
        for part in
            [r#""received":3"#, r#""sent":7"#, r#""http-response-sent":2"#, r#""connections":4"#, r#""duration":10000"#]
        {
            assert!(told.contains(part), "{part} in {told}");
        }
        bed.counters.holds = 0;
        assert_eq!(bed.pass(10_000, false).len(), 1, "there were some in the interval");
        assert_eq!(bed.pass(10_000, false), [""; 0]);
    }

    #[test]
    fn a_report_is_of_a_route_and_what_is_held_here_counts_for_none() {
        let mut bed = Bed::new();
        let reports = |bed: &mut Bed| {
            bed.pass(10_000, false).into_iter().filter(|told| told.starts_with("report")).collect::<Vec<_>>()
        };
        let conn = Conn { id: "f:1".into(), route: Some("r".into()), ..Conn::default() };
        bed.proxy(Packet::Conn(conn), false);
        let traffic = Report { route: Some("r".into()), server_messages_sent: 3, minutes: 9, ..Report::default() };
        bed.proxy(Packet::Report(Box::new(traffic)), false);
        let told = reports(&mut bed).concat();
        for part in [r#""connections":1"#, r#""minutes":1,"#, r#""route":"r""#, r#""server-messages-sent":3"#] {
            assert!(told.contains(part), "{part} in {told}");
        }
        bed.statistics.begin("f:1", bed.now);
        bed.counters = Counters { holds: 1, content_bytes_sent: 5, ..Counters::default() };
        let told = reports(&mut bed);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains(r#""client-content-bytes-sent":5"#) && !told[0].contains("route"), "{told:?}");
        bed.counters.holds = 0;
        bed.statistics.end("f:1", &mut bed.packets);
        assert_eq!(reports(&mut bed).len(), 1, "one of no route was there in the interval");
        assert_eq!(reports(&mut bed), [""; 0]);
        assert!(bed.statistics.tallies.is_empty());
    }

    #[test]
    fn without_connections_one_by_one_their_number_is_the_sum_of_what_proxies_say_and_what_is_held() {
        let mut bed = Bed::new();
        let settings = settings::Statistics { connections: false, ..SETTINGS };
        bed.statistics = Statistics::new(settings, bed.now);
        let say = |bed: &mut Bed, from: &str, max| {
            let packet = ConnMax { from: from.into(), max, ttl: 15, ..ConnMax::default() };
            assert!(bed.statistics.on_conn_max(&packet, bed.now));
        };
        say(&mut bed, "q", 1);
        // Two of the proxy's are handed over: each time with the number before and after.
        for (max, holds) in [(3, 0), (2, 1), (2, 1), (1, 2)] {
            say(&mut bed, "p", max);
            bed.counters.holds = holds;
        }
        bed.statistics.begin("f:1", bed.now);
        let report = Report { minutes: 3, ..Report::default() };
        bed.proxy(Packet::Report(Box::new(report)), false);
        let told = bed.pass(10_000, true);
        assert!(told.len() == 1 && told[0].contains(r#""connections":4,"#), "{told:?}");
        assert!(told[0].contains(r#""minutes":3,"#), "{told:?}");
        // What nobody repeats is not there any more. What is held counts its minutes here.
        bed.counters.holds = 1;
        bed.pass(10_000, true);
        let told = bed.pass(40_000, true);
        assert!(told[0].contains(r#""connections":1,"#) && told[0].contains(r#""minutes":1,"#), "{told:?}");
        bed.statistics.end("f:1", &mut bed.packets);
        bed.counters.holds = 0;
        bed.pass(10_000, true);
        assert_eq!(bed.pass(10_000, true), [""; 0]);
    }

    #[test]
    fn a_long_poll_that_goes_back_to_the_proxy_is_not_told_to_end() {
        let mut bed = Bed::new();
        bed.proxy(Packet::Conn(Conn { id: "f:1".into(), route: Some("r".into()), ..Conn::default() }), false);
        bed.statistics.begin("f:1", bed.now);
        bed.statistics.give_back("f:1", &mut bed.packets);
        assert_eq!(bed.told(), [r#"conn J{"from":"","id":"f:1"}"#]);
        let end = Conn { id: "f:1".into(), route: Some("r".into()), unavailable: true, ..Conn::default() };
        let told = r#"conn J{"from":"","id":"f:1","route":"r","unavailable":true}"#;
        assert_eq!(bed.proxy(Packet::Conn(end), false), [told]);
    }

    #[test]
    fn deliveries_to_websockets_count_for_their_route_only_and_blocks_with_them() {
        let mut bed = Bed::new();
        let sent_apart = [("r".into(), (2, 6))].into();
        let message =
            Published { channel: "c".into(), item_id: None, mode: Mode::Socket, receivers: 2, blocks: Some(3) };
        let notes = Notes { sent_apart, messages: vec![message], ..Notes::default() };
        bed.statistics.on_notes(notes, &bed.channels, bed.now, &mut bed.packets);
        let told = r#"message J{"blocks":6,"channel":"c","count":2,"from":"","transport":"ws-message"}"#;
        assert_eq!(bed.told(), [told]);
        bed.counters = Counters { received: 1, sent: 3, blocks_received: 3, blocks_sent: 9, ..Counters::default() };
        let reports = bed.pass(10_000, false);
        for part in [r#""received":1"#, r#""sent":1,"#, r#""blocks-received":3"#, r#""blocks-sent":3,"#] {
            assert!(reports[0].contains(part), "{part} in {reports:?}");
        }
        for part in [r#""received":0"#, r#""sent":2,"#, r#""blocks-sent":6,"#, r#""route":"r""#] {
            assert!(reports[1].contains(part), "{part} in {reports:?}");
        }
    }
}
