// SPDX-License-Identifier: AGPL-3.0-or-later
//! Statistics for the handler: which connections there are, and how much happens (control, stats). No I/O, no clock.
//!
//! While no handler listens, nothing is noted. Who begins to listen is told of the connections that are here then, one after the
//! other over the time after which each is repeated.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

mod maxima;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rpc::stats::{Activity, Conn, ConnKind, ConnMax, Counts, Packet, Report};
use zhttp::Headers;

use self::maxima::Maxima;
use crate::request::uri::Uri;

/// Activity of so long is one packet.
const ACTIVITY: Duration = Duration::from_millis(100);
/// How often it is looked for what is to be repeated.
const TICK: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// How handlers are told of connections, and how long that holds.
#[derive(Clone, Copy, Debug)]
pub enum Telling {
    /// Of each, when it begins and ends.
    Each(Duration),
    /// How many there are.
    Maxima(Duration),
}

/// A connection that begins.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// `<instance>:<session>`, or the id of a WebSocket.
    pub id: &'a [u8],
    /// What it speaks.
    pub kind: ConnKind,
    /// The route, if it has an id of its own.
    pub route: Option<&'a str>,
    /// The client's address.
    pub peer_address: Option<&'a [u8]>,
    /// The client came with TLS.
    pub secure: bool,
    /// It was counted when it came for the first time.
    pub again: bool,
}

/// A connection that is here.
struct Connection {
    packet: Conn<'static>,
    repeat_at: Instant,
    /// Full minutes are counted from here.
    counted_at: Instant,
    /// The handler is asked to take it, and counts it if it does.
    is_offered: bool,
}

/// What has happened on a route since the last report.
#[derive(Default)]
struct Tally {
    report: Report<'static>,
    /// Connections now.
    connections: u32,
}

/// See the module.
pub struct Statistics {
    telling: Telling,
    /// How often is reported; none: never.
    report_interval: Option<Duration>,
    heard: bool,
    activity: BTreeMap<Option<Box<str>>, u32>,
    requests: u32,
    activity_at: Option<Instant>,
    tick_at: Option<Instant>,
    /// By route; of those without an id by the empty text. No more than there are routes.
    tallies: BTreeMap<Box<str>, Tally>,
    reported_at: Option<Instant>,
    /// Those that are here. As many as requests and WebSockets may be under way.
    connections: HashMap<Box<[u8]>, Connection>,
    packets: Vec<Packet<'static>>,
    maxima: Maxima,
}

impl Statistics {
    /// Nothing is known.
    pub fn new(telling: Telling, report_interval: Option<Duration>) -> Self {
        let (Telling::Each(ttl) | Telling::Maxima(ttl)) = telling;
        Statistics {
            telling,
            report_interval,
            heard: false,
            activity: BTreeMap::new(),
            requests: 0,
            activity_at: None,
            tick_at: None,
            tallies: BTreeMap::new(),
            reported_at: None,
            connections: HashMap::new(),
            packets: Vec::new(),
            maxima: Maxima::new(ttl),
        }
    }

    /// Somebody listens, or nobody does any more. Returns whether somebody has begun to, and is to be told who is here.
    pub fn set_heard(&mut self, heard: bool) -> bool {
        if self.heard == heard {
            return false;
        }
        *self = Statistics { heard, ..Statistics::new(self.telling, self.report_interval) };
        heard
    }

    /// Whether somebody listens.
    pub fn is_heard(&self) -> bool {
        self.heard
    }

    /// Whether somebody listens who is told only how many connections there are.
    pub fn counts_maxima(&self) -> bool {
        self.heard && matches!(self.telling, Telling::Maxima(_))
    }

    fn ttl(&self) -> Option<Duration> {
        if let Telling::Each(ttl) = self.telling { Some(ttl) } else { None }
    }

    fn tally(&mut self, route: Option<&str>, now: Instant) -> &mut Tally {
        let route = route.unwrap_or_default();
        self.reported_at.get_or_insert(now);
        self.tallies.entry(route.into()).or_default()
    }

    /// Counts what passes on a route.
    pub fn count(&mut self, route: Option<&str>, now: Instant, add: impl FnOnce(&mut Report<'static>)) {
        if self.heard && self.report_interval.is_some() {
            add(&mut self.tally(route, now).report);
        }
    }

    /// A connection begins.
    pub fn begin(&mut self, arrival: &Arrival<'_>, now: Instant) {
        if !self.heard {
            return;
        }
        *self.activity.entry(arrival.route.map(Into::into)).or_default() += 1;
        self.requests += u32::from(!arrival.again);
        self.activity_at.get_or_insert(now + ACTIVITY);
        self.tally(arrival.route, now).report.minutes += u32::from(!arrival.again);
        let packet = self.add(arrival, self.period(), now);
        if let Telling::Each(_) = self.telling {
            self.packets.push(Packet::Conn(packet));
        }
    }

    /// A connection was here before anybody listened, the `number`th of `all`.
    pub fn meet(&mut self, arrival: &Arrival<'_>, number: usize, all: usize, now: Instant) {
        let share = number as f64 / all.max(1) as f64;
        self.add(arrival, self.period().mul_f64(share), now);
    }

    /// After what time a connection is repeated.
    fn period(&self) -> Duration {
        self.ttl().unwrap_or_default() * 3 / 4
    }

    fn add(&mut self, arrival: &Arrival<'_>, repeat_in: Duration, now: Instant) -> Conn<'static> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let packet = Conn {
            id: text(arrival.id).into(),
            kind: Some(arrival.kind),
            route: arrival.route.map(|route| route.to_string().into()),
            peer_address: arrival.peer_address.map(|address| text(address).into()),
            ssl: arrival.secure,
            ttl: self.ttl().map(|ttl| u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX)),
            ..Conn::default()
        };
        if let Telling::Maxima(_) = self.telling {
            self.maxima.add(arrival.route.unwrap_or_default(), now);
        }
        self.tick_at.get_or_insert(now + TICK);
        let tally = self.tally(arrival.route, now);
        tally.connections += 1;
        tally.report.connections = tally.report.connections.max(tally.connections);
        let repeat_at = now + repeat_in;
        let connection = Connection { packet: packet.clone(), repeat_at, counted_at: now, is_offered: false };
        self.connections.insert(arrival.id.into(), connection);
        packet
    }

    /// A connection is not here any more. Of one that was handed over nothing is told: it is the handler's to end.
    pub fn end(&mut self, id: &[u8], handed_over: bool, now: Instant) {
        let Some(connection) = self.connections.remove(id) else { return };
        let Connection { packet: Conn { id, route, .. }, is_offered, .. } = connection;
        if let Some(tally) = self.tallies.get_mut(route.as_deref().unwrap_or_default()) {
            tally.connections = tally.connections.saturating_sub(1);
        }
        match self.telling {
            Telling::Each(_) if handed_over => {}
            Telling::Each(_) => {
                self.packets.push(Packet::Conn(Conn { id, route, unavailable: true, ..Conn::default() }));
            }
            Telling::Maxima(_) if is_offered => {}
            Telling::Maxima(_) => self.maxima.subtract(route.as_deref().unwrap_or_default(), now),
        }
    }

    /// The handler is asked to take a connection: how many it is to count here before and after that.
    pub fn offer(&mut self, id: &[u8], from: &str, now: Instant) -> Vec<ConnMax> {
        let Some(connection) = self.connections.get_mut(id) else { return Vec::new() };
        let route = connection.packet.route.as_deref().unwrap_or_default();
        if !std::mem::replace(&mut connection.is_offered, true) {
            self.maxima.subtract(route, now);
        }
        self.maxima.tell(route, from, now)
    }

    /// The handler does not take it.
    pub fn keep(&mut self, id: &[u8], now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if std::mem::replace(&mut connection.is_offered, false) {
            self.maxima.add(connection.packet.route.as_deref().unwrap_or_default(), now);
        }
    }

    /// Numbers of connections that are to be told now.
    pub fn take_maxima(&mut self, from: &str, now: Instant) -> Vec<ConnMax> {
        self.maxima.take(from, now)
    }

    /// When [`Statistics::take`] has something more.
    pub fn next_due(&self) -> Option<Instant> {
        [self.activity_at, self.tick_at, self.report_at(), self.maxima.next_due()].into_iter().flatten().min()
    }

    fn report_at(&self) -> Option<Instant> {
        Some(self.reported_at? + self.report_interval?)
    }

    /// What is to be told now.
    pub fn take(&mut self, now: Instant) -> Vec<Packet<'static>> {
        if self.activity_at.is_some_and(|due| due <= now) {
            self.activity_at = None;
            for (route, count) in std::mem::take(&mut self.activity) {
                let route = route.map(|route| String::from(route).into());
                self.packets.push(Packet::Activity(Activity { route, count, ..Activity::default() }));
            }
            let requests_received = std::mem::take(&mut self.requests);
            if requests_received > 0 {
                self.packets.push(Packet::Counts(Counts { requests_received, ..Counts::default() }));
            }
        }
        if self.tick_at.is_some_and(|due| due <= now) {
            self.tick(now);
        }
        if self.report_at().is_some_and(|due| due <= now) {
            self.report(now);
        }
        std::mem::take(&mut self.packets)
    }

    /// Repeats connections, and counts their minutes.
    fn tick(&mut self, now: Instant) {
        let ttl = self.ttl();
        for connection in self.connections.values_mut() {
            while connection.counted_at + MINUTE <= now {
                connection.counted_at += MINUTE;
                if let Some(tally) = self.tallies.get_mut(connection.packet.route.as_deref().unwrap_or_default()) {
                    tally.report.minutes += 1;
                }
            }
            if let Some(ttl) = ttl
                && connection.repeat_at <= now
            {
                connection.repeat_at = now + ttl * 3 / 4;
                self.packets.push(Packet::Conn(connection.packet.clone()));
            }
        }
        self.tick_at = (!self.connections.is_empty()).then(|| now + TICK);
    }

    /// Reports on the routes on which something has happened, and forgets the others.
    fn report(&mut self, now: Instant) {
        let since = self.reported_at.take().unwrap_or(now);
        let duration = u32::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u32::MAX);
        self.tallies.retain(|route, tally| {
            let Tally { report, connections } = tally;
            if *report == Report::default() {
                return *connections > 0;
            }
            let route = (!route.is_empty()).then(|| route.to_string().into());
            let next = Report { connections: *connections, ..Report::default() };
            let report = Report { route, duration, ..std::mem::replace(report, next) };
            self.packets.push(Packet::Report(Box::new(report)));
            true
        });
        self.reported_at = (!self.tallies.is_empty()).then_some(now);
    }
}

/// The size of a request's head, as statistics count it.
pub fn request_size(method: &[u8], uri: &[u8], headers: Headers<'_>) -> u32 {
    let target = Uri::parse(uri).map_or(0, |uri| uri.path.len() + uri.query.len());
    size(method.len() + target, headers)
}

/// The size of a response's head, as statistics count it: the status has three digits.
pub fn response_size(reason: &[u8], headers: Headers<'_>) -> u32 {
    size(3 + reason.len(), headers)
}

fn size(first: usize, headers: Headers<'_>) -> u32 {
    let all = headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    length(first + all)
}

/// A number of bytes.
pub fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARRIVAL: Arrival<'static> = Arrival {
        id: b"f:1",
        kind: ConnKind::Http,
        route: None,
        peer_address: Some(b"127.0.0.1"),
        secure: false,
        again: false,
    };

    fn heard() -> (Statistics, Instant) {
        let mut statistics = Statistics::new(Telling::Each(Duration::from_secs(120)), None);
        statistics.set_heard(true);
        (statistics, Instant::now())
    }

    fn told(statistics: &mut Statistics, now: Instant) -> Vec<String> {
        let text = |packet: Packet<'_>| String::from_utf8(packet.encode_json()).unwrap();
        statistics.take(now).into_iter().map(text).collect()
    }

    #[test]
    fn who_begins_to_listen_is_told_of_connections_that_are_here_one_after_the_other() {
        let (mut statistics, now) = heard();
        for (number, id) in [b"f:1", b"f:2"].into_iter().enumerate() {
            statistics.meet(&Arrival { id, ..ARRIVAL }, number, 2, now);
        }
        assert_eq!(told(&mut statistics, now), [""; 0]);
        assert_eq!(told(&mut statistics, now + Duration::from_secs(1)), [THERE]);
        let other = THERE.replace("f:1", "f:2");
        assert_eq!(told(&mut statistics, now + Duration::from_secs(46)), [other]);
        statistics.end(b"f:1", false, now);
        assert_eq!(told(&mut statistics, now), [GONE]);
        let mut statistics = Statistics::new(Telling::Maxima(Duration::from_secs(60)), None);
        assert!(statistics.set_heard(true) && !statistics.set_heard(true));
        statistics.meet(&ARRIVAL, 0, 1, now);
        assert_eq!(statistics.take_maxima("p", now + Duration::from_secs(1))[0].max, 1);
        assert!(!statistics.set_heard(false));
    }

    const THERE: &str = r#"conn J{"from":"","id":"f:1","peer-address":"127.0.0.1","ttl":120,"type":"http"}"#;
    const GONE: &str = r#"conn J{"from":"","id":"f:1","unavailable":true}"#;

    #[test]
    fn a_connection_is_told_of_when_it_begins_and_ends_and_repeated_between() {
        let (mut statistics, now) = heard();
        statistics.begin(&ARRIVAL, now);
        assert_eq!(told(&mut statistics, now), [THERE]);
        told(&mut statistics, now + Duration::from_secs(1));
        assert_eq!(told(&mut statistics, now + Duration::from_secs(90)), [THERE]);
        statistics.end(b"f:1", false, now);
        statistics.end(b"f:1", false, now);
        assert_eq!(told(&mut statistics, now + Duration::from_secs(90)), [GONE]);
    }

    #[test]
    fn the_end_of_one_that_was_handed_over_is_not_told() {
        let (mut statistics, now) = heard();
        statistics.begin(&ARRIVAL, now);
        statistics.end(b"f:1", true, now);
        assert_eq!(told(&mut statistics, now), [THERE]);
        statistics.begin(&Arrival { again: true, ..ARRIVAL }, now);
        let later = told(&mut statistics, now + ACTIVITY);
        assert!(later.contains(&r#"counts J{"from":"","requests-received":1}"#.to_string()), "{later:?}");
    }

    #[test]
    fn requests_of_a_moment_are_one_packet_a_route() {
        let (mut statistics, now) = heard();
        for (id, route) in [(b"f:1", None), (b"f:2", Some("r")), (b"f:3", None)] {
            statistics.begin(&Arrival { id, route, ..ARRIVAL }, now);
        }
        assert_eq!(told(&mut statistics, now + Duration::from_millis(99)).len(), 3);
        let expected = [
            r#"activity J{"count":2,"from":""}"#,
            r#"activity J{"count":1,"from":"","route":"r"}"#,
            r#"counts J{"from":"","requests-received":3}"#,
        ];
        assert_eq!(told(&mut statistics, now + ACTIVITY), expected);
    }

    #[test]
    fn nothing_is_kept_while_nobody_listens() {
        let (mut statistics, now) = heard();
        statistics.begin(&ARRIVAL, now);
        statistics.set_heard(false);
        statistics.begin(&ARRIVAL, now);
        assert!(statistics.connections.is_empty() && statistics.next_due().is_none());
        assert_eq!(told(&mut statistics, now + TICK), [""; 0]);
    }

    #[test]
    fn connections_are_not_told_of_if_that_is_switched_off() {
        let (_, now) = heard();
        let mut statistics = Statistics::new(Telling::Maxima(Duration::from_secs(60)), None);
        statistics.set_heard(true);
        statistics.begin(&ARRIVAL, now);
        assert_eq!(told(&mut statistics, now), [""; 0]);
        assert_eq!(told(&mut statistics, now + ACTIVITY).len(), 2);
    }

    #[test]
    fn a_connection_that_the_handler_does_not_take_is_counted_again_and_one_that_it_takes_is_not() {
        let (_, now) = heard();
        let mut statistics = Statistics::new(Telling::Maxima(Duration::from_secs(60)), None);
        statistics.set_heard(true);
        let numbers = |packets: Vec<ConnMax>| packets.into_iter().map(|packet| packet.max).collect::<Vec<_>>();
        statistics.begin(&ARRIVAL, now);
        statistics.begin(&Arrival { id: b"f:2", ..ARRIVAL }, now);
        assert_eq!(numbers(statistics.offer(b"f:1", "p", now)), [2, 1]);
        assert_eq!(numbers(statistics.offer(b"f:1", "p", now)), [1], "asked again, it is the same connection");
        statistics.keep(b"f:1", now);
        assert_eq!(numbers(statistics.take_maxima("p", now + ACTIVITY)), [2]);
        assert_eq!(numbers(statistics.offer(b"f:1", "p", now)), [2, 1]);
        statistics.end(b"f:1", true, now);
        assert_eq!(numbers(statistics.take_maxima("p", now + ACTIVITY)), [0; 0]);
        statistics.end(b"f:2", false, now);
        assert_eq!(numbers(statistics.take_maxima("p", now + ACTIVITY)), [1, 0]);
    }

    #[test]
    fn a_report_has_what_a_route_has_seen_since_the_last_one() {
        let (_, now) = heard();
        let mut statistics = Statistics::new(Telling::Maxima(Duration::from_secs(60)), Some(Duration::from_secs(10)));
        statistics.count(Some("r"), now, |report| report.server_messages_sent += 1);
        statistics.set_heard(true);
        statistics.begin(&Arrival { route: Some("r"), ..ARRIVAL }, now);
        let headers: [(&[u8], &[u8]); 1] = [(b"Host", b"h")];
        statistics.count(Some("r"), now, |report| {
            report.client_header_bytes_received += request_size(b"GET", b"http://h/a?b", Headers::Pairs(&headers));
            report.client_header_bytes_sent += response_size(b"OK", Headers::Absent);
        });
        let reports = |statistics: &mut Statistics, seconds| {
            let packets = statistics.take(now + Duration::from_secs(seconds)).into_iter();
            let reports =
                packets.filter_map(|packet| if let Packet::Report(report) = packet { Some(*report) } else { None });
            reports.collect::<Vec<_>>()
        };
        assert_eq!(reports(&mut statistics, 9), []);
        let expected = Report {
            route: Some("r".into()),
            connections: 1,
            minutes: 1,
            duration: 10_000,
            client_header_bytes_received: 12,
            client_header_bytes_sent: 5,
            ..Report::default()
        };
        assert_eq!(reports(&mut statistics, 10), [expected]);
        statistics.end(b"f:1", false, now);
        let there = Report { route: Some("r".into()), connections: 1, duration: 10_000, ..Report::default() };
        assert_eq!(reports(&mut statistics, 20), [there], "it was there in the interval");
        assert_eq!(reports(&mut statistics, 30), []);
        assert!(statistics.tallies.is_empty() && statistics.report_at().is_none());
    }
}
