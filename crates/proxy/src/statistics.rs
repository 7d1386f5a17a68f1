//! Statistics for the handler: which connections there are, and how much happens (control, stats). No I/O, no clock.
//!
//! While no handler listens, nothing is noted. Who begins to listen hears of the connections that begin from then on.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rpc::stats::{Activity, Conn, ConnKind, Counts, Packet};

/// Activity of so long is one packet.
const ACTIVITY: Duration = Duration::from_millis(100);
/// How often it is looked for what is to be repeated.
const TICK: Duration = Duration::from_secs(1);

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

/// See the module.
#[derive(Default)]
pub struct Statistics {
    /// How long a connection counts after the last word of it; none: connections are not told of.
    ttl: Option<Duration>,
    heard: bool,
    activity: BTreeMap<Option<Box<str>>, u32>,
    requests: u32,
    activity_at: Option<Instant>,
    tick_at: Option<Instant>,
    /// Those that are here, and when they are repeated. As many as requests and WebSockets may be under way.
    connections: HashMap<Box<[u8]>, (Conn<'static>, Instant)>,
    packets: Vec<Packet<'static>>,
}

impl Statistics {
    /// Nothing is known.
    pub fn new(ttl: Option<Duration>) -> Self {
        Statistics { ttl, ..Statistics::default() }
    }

    /// Somebody listens, or nobody does any more.
    pub fn set_heard(&mut self, heard: bool) {
        if self.heard != heard {
            *self = Statistics { heard, ..Statistics::new(self.ttl) };
        }
    }

    /// Whether somebody listens.
    pub fn is_heard(&self) -> bool {
        self.heard
    }

    /// A connection begins.
    pub fn begin(&mut self, arrival: &Arrival<'_>, now: Instant) {
        if !self.heard {
            return;
        }
        if !arrival.again {
            *self.activity.entry(arrival.route.map(Into::into)).or_default() += 1;
            self.requests += 1;
            self.activity_at.get_or_insert(now + ACTIVITY);
        }
        let Some(ttl) = self.ttl else { return };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let conn = Conn {
            id: text(arrival.id).into(),
            kind: Some(arrival.kind),
            route: arrival.route.map(|route| route.to_string().into()),
            peer_address: arrival.peer_address.map(|address| text(address).into()),
            ssl: arrival.secure,
            ttl: Some(u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX)),
            ..Conn::default()
        };
        self.packets.push(Packet::Conn(conn.clone()));
        self.connections.insert(arrival.id.into(), (conn, now + ttl * 3 / 4));
        self.tick_at.get_or_insert(now + TICK);
    }

    /// A connection is not here any more. Of one that was handed over nothing is told: it is the handler's to end.
    pub fn end(&mut self, id: &[u8], handed_over: bool) {
        if let Some((conn, _)) = self.connections.remove(id)
            && !handed_over
        {
            self.packets.push(Packet::Conn(Conn { id: conn.id, unavailable: true, ..Conn::default() }));
        }
    }

    /// When [`Statistics::take`] has something more.
    pub fn next_due(&self) -> Option<Instant> {
        [self.activity_at, self.tick_at].into_iter().flatten().min()
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
            self.packets.push(Packet::Counts(Counts { requests_received, ..Counts::default() }));
        }
        if self.tick_at.is_some_and(|due| due <= now) {
            let ttl = self.ttl.unwrap_or_default();
            for (conn, repeat_at) in self.connections.values_mut().filter(|(_, repeat_at)| *repeat_at <= now) {
                *repeat_at = now + ttl * 3 / 4;
                self.packets.push(Packet::Conn(conn.clone()));
            }
            self.tick_at = (!self.connections.is_empty()).then(|| now + TICK);
        }
        std::mem::take(&mut self.packets)
    }
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
        let mut statistics = Statistics::new(Some(Duration::from_secs(120)));
        statistics.set_heard(true);
        (statistics, Instant::now())
    }

    fn told(statistics: &mut Statistics, now: Instant) -> Vec<String> {
        let text = |packet: Packet<'_>| String::from_utf8(packet.encode_json()).unwrap();
        statistics.take(now).into_iter().map(text).collect()
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
        statistics.end(b"f:1", false);
        statistics.end(b"f:1", false);
        assert_eq!(told(&mut statistics, now + Duration::from_secs(90)), [GONE]);
    }

    #[test]
    fn the_end_of_one_that_was_handed_over_is_not_told() {
        let (mut statistics, now) = heard();
        statistics.begin(&ARRIVAL, now);
        statistics.end(b"f:1", true);
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
        let mut statistics = Statistics::new(None);
        statistics.set_heard(true);
        statistics.begin(&ARRIVAL, now);
        assert_eq!(told(&mut statistics, now), [""; 0]);
        assert_eq!(told(&mut statistics, now + ACTIVITY).len(), 2);
    }
}
