// SPDX-License-Identifier: AGPL-3.0-or-later
//! Requests that go to another proxy: what it gets, and when nothing is sent again. Without sockets.

use std::time::{Duration, Instant};

use frontend::client::output::Output;
use frontend::context::{Config, Context};
use frontend::departure::{Departures, Nature};
use frontend::exchange::Exchanges;
use frontend::http1::{Http1, SharedBody};
use frontend::replay::Terms;
use frontend::uplink::Uplink;
use tnetstring::Writer;
use zhttp::{Ext, Id, Kind, Packet, PeerId, Peers};

const WAIT: Duration = Duration::from_secs(8);

/// Proxies, as far as they are there: what they have been sent.
#[derive(Default)]
struct Sent {
    absent: bool,
    packets: Vec<String>,
    first: Vec<u8>,
}

impl Sent {
    fn note(&mut self, packet: &Packet<'_>) {
        let (id, seq) = packet.ids.single().unwrap();
        let (id, body) = (String::from_utf8_lossy(id), String::from_utf8_lossy(packet.body));
        let method = String::from_utf8_lossy(packet.method.unwrap_or_default());
        let more = if packet.more { " more" } else { "" };
        self.packets.push(format!("{id} {} {method}{body}{more}", seq.unwrap()));
    }
}

impl Uplink for Sent {
    fn open(&mut self, packet: &Packet<'_>) -> &[u8] {
        self.note(packet);
        self.first = packet.encode(None, &mut Writer::new(1024)).to_vec();
        &self.first
    }

    fn is_connected(&self) -> bool {
        !self.absent
    }

    fn send(&mut self, _: PeerId, packet: &Packet<'_>) {
        self.note(packet);
    }

    fn grant(&mut self, _: PeerId, _: u32, _: Id, _: u32) {}
}

struct Bench {
    http: Http1,
    output: Output,
    exchanges: Exchanges,
    config: Config,
    sent: Sent,
    now: Instant,
    peers: Peers,
}

impl Bench {
    fn new(terms: Terms) -> Self {
        Bench {
            http: Http1::new(0, None),
            output: Output::default(),
            exchanges: Exchanges::for_clients(10).replaying(terms),
            config: Config { window: 1000, router_resp: true, ..Config::default() },
            sent: Sent::default(),
            now: Instant::now(),
            peers: Peers::default(),
        }
    }

    fn client(&mut self, text: &str) {
        let Bench { http, output, exchanges, config, sent, now, .. } = self;
        http.on_input(text.as_bytes(), &mut Context { config, now: *now, output, exchanges, up: sent });
    }

    /// A server sends a packet of the session.
    fn server(&mut self, name: &str, seq: u32, packet: Packet<'_>) {
        let from = self.peers.intern(name.as_bytes());
        let Bench { http, output, exchanges, config, sent, now, .. } = self;
        let mut cx = Context { config, now: *now, output, exchanges, up: sent };
        http.on_packet(&packet, &SharedBody::new(packet.body), from, Some(seq), &mut cx).unwrap();
    }

    /// A proxy acknowledges the request, and says that it may go to another.
    fn acknowledge(&mut self, name: &str, credits: u32) {
        let ext = Ext { replay: true, ..Ext::MULTI };
        self.server(name, 0, Packet { kind: Kind::Credit, credits: Some(credits), ext, ..Packet::default() });
    }

    fn send_again(&mut self) -> bool {
        let Bench { exchanges, sent, now, .. } = self;
        exchanges.send_again(0, *now, sent)
    }

    fn sent(&mut self) -> Vec<String> {
        std::mem::take(&mut self.sent.packets)
    }
}

const TERMS: Terms = Terms { wait: WAIT, body: 20, memory: 10_000 };
const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const PUT: &str = "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\n";

#[test]
fn a_request_goes_to_the_next_proxy_in_a_session_of_its_own() {
    let mut bench = Bench::new(TERMS);
    bench.client(GET);
    bench.acknowledge("p1", 0);
    assert_eq!(bench.sent(), ["0-0 0 GET"]);
    assert!(bench.send_again());
    assert_eq!(bench.sent(), ["0-1 0 GET"]);
    assert!(bench.exchanges.find(b"0-0").is_none(), "an answer of the former would be taken for one of the next");
    bench.server("p2", 0, Packet { code: Some(200), reason: Some(b"OK"), body: b"hello", ..Packet::default() });
    assert!(bench.exchanges.is_empty());
}

#[test]
fn the_next_proxy_gets_the_body_within_its_credits_and_the_rest_follows() {
    let mut bench = Bench::new(TERMS);
    bench.client(PUT);
    bench.acknowledge("p1", 100);
    bench.client("01234");
    assert_eq!(bench.sent(), ["0-0 0 PUT more", "0-0 1 01234 more"]);
    assert!(bench.send_again());
    bench.client("56");
    assert_eq!(bench.sent(), ["0-1 0 PUT more"]);
    bench.acknowledge("p2", 3);
    assert_eq!(bench.sent(), ["0-1 1 012 more"]);
    bench.server("p2", 1, Packet { kind: Kind::Credit, credits: Some(3), ..Packet::default() });
    assert_eq!(bench.sent(), ["0-1 2 34 more", "0-1 3 5 more"]);
    bench.server("p2", 2, Packet { kind: Kind::Credit, credits: Some(50), ..Packet::default() });
    bench.client("789ab");
    assert_eq!(bench.sent(), ["0-1 4 6 more", "0-1 5 789ab"]);
    // All of it once more.
    assert!(bench.send_again());
    bench.acknowledge("p3", 50);
    assert_eq!(bench.sent(), ["0-2 0 PUT more", "0-2 1 0123456789ab"]);
    assert!(!bench.send_again(), "a request that ends its proxies must not end all of them");
}

#[test]
fn nothing_is_sent_again_that_must_not_be() {
    type Case = (&'static str, &'static str, fn(&mut Bench));
    let cases: [Case; 5] = [
        ("a POST that a proxy has got", POST, |bench| bench.acknowledge("p1", 0)),
        ("a POST that it may have got", POST, |_| {}),
        ("a response has begun", GET, |bench| {
            bench.acknowledge("p1", 0);
            bench.server("p1", 1, Packet { code: Some(200), reason: Some(b"OK"), more: true, ..Packet::default() });
        }),
        ("who has it does not say that it may go to another", GET, |bench| {
            bench.server("h", 0, Packet { kind: Kind::KeepAlive, ..Packet::default() });
        }),
        ("it was given to a handler", GET, |bench| {
            bench.acknowledge("p1", 0);
            bench.server("p1", 1, Packet { kind: Kind::HandoffStart, ..Packet::default() });
            bench.server("h", 2, Packet { kind: Kind::KeepAlive, ..Packet::default() });
        }),
    ];
    for (what, request, happens) in cases {
        let mut bench = Bench::new(TERMS);
        bench.client(request);
        happens(&mut bench);
        bench.sent();
        assert!(!bench.send_again(), "{what}");
        assert_eq!(bench.sent(), [""; 0], "{what}");
    }
}

#[test]
fn what_is_kept_has_bounds_and_is_forgotten_with_the_request() {
    let body = "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 21\r\n\r\n";
    for (what, terms, kept) in [
        ("a body that fits", Terms { body: 21, ..TERMS }, true),
        ("a body that is too large", Terms { body: 20, ..TERMS }, false),
        ("no memory for the request", Terms { memory: 50, ..TERMS }, false),
        ("no memory for the body", Terms { memory: 250, body: 21, ..TERMS }, false),
        ("switched off", Terms::OFF, false),
    ] {
        let mut bench = Bench::new(terms);
        bench.client(body);
        bench.acknowledge("p1", 100);
        bench.client("0123456789");
        bench.client("0123456789x");
        assert_eq!(bench.sent().last().unwrap(), "0-0 2 0123456789x", "{what}");
        assert_eq!((bench.send_again(), bench.exchanges.kept_bytes() > 0), (kept, kept), "{what}");
        bench.exchanges.close(0);
        assert_eq!(bench.exchanges.kept_bytes(), 0, "{what}");
    }
}

#[test]
fn a_request_waits_for_a_proxy_and_no_longer_than_is_set() {
    let mut bench = Bench::new(TERMS);
    bench.sent.absent = true;
    bench.client(POST);
    assert_eq!(bench.sent(), [""; 0]);
    let Bench { exchanges, sent, now, .. } = &mut bench;
    assert_eq!(exchanges.next_given_up(*now + WAIT - Duration::from_millis(1)), None);
    assert!(exchanges.send_waiting(*now, sent));
    assert!(!exchanges.send_waiting(*now, sent));
    assert_eq!(bench.sent(), ["0-1 0 POST more"]);
    bench.acknowledge("p1", 100);
    bench.client("0123456789ab");
    assert_eq!(bench.sent(), ["0-1 1 0123456789ab"]);

    let mut bench = Bench::new(TERMS);
    bench.client(GET);
    bench.acknowledge("p1", 0);
    bench.sent.absent = true;
    assert!(bench.send_again());
    assert_eq!(bench.exchanges.next_given_up(bench.now + WAIT), Some(0));
    assert_eq!(bench.exchanges.next_given_up(bench.now + WAIT), None);
}

#[test]
fn what_no_proxy_has_got_anything_of_is_taken_back_whatever_it_does() {
    let mut bench = Bench::new(TERMS);
    bench.client(POST);
    bench.sent.absent = true;
    let Bench { exchanges, sent, now, .. } = &mut bench;
    assert!((0..10).all(|_| exchanges.take_back(0, *now, sent)), "it was never sent, so that does not count");
    assert_eq!(bench.sent(), ["0-0 0 POST more"]);
}

/// What becomes of requests when their proxy has gone.
struct Ends {
    departures: Departures,
    ended: Vec<u32>,
}

impl Ends {
    fn new(bench: &Bench) -> Self {
        Ends { departures: Departures::new(Duration::ZERO, bench.now), ended: Vec::new() }
    }

    /// All that a proxy has sent has been read, and its links end.
    fn leave(&mut self, name: &str, bench: &mut Bench) {
        let proxy = bench.peers.intern(name.as_bytes()).unwrap();
        self.departures.on_answer(proxy);
        self.departures.on_left(proxy, name.as_bytes(), &mut bench.exchanges, bench.now);
    }

    /// So much later, what is due by then is done, and all of it at once.
    fn look_after(&mut self, time: Duration, bench: &mut Bench) {
        let Bench { exchanges, now, sent, .. } = bench;
        *now += time;
        while self.departures.next_due().is_some_and(|due| due <= *now) {
            let step = self.departures.step(exchanges, |_| Nature::Request, *now);
            self.ended.extend(step.ended);
            step.again.into_iter().for_each(|slot| assert!(exchanges.send_again(slot, *now, sent)));
        }
    }
}

/// A process that has been stopped looks at everything late.
#[test]
fn an_unanswered_request_goes_to_the_next_proxy_however_late_the_end_of_its_proxy_is_looked_after() {
    let mut bench = Bench::new(TERMS);
    let mut ends = Ends::new(&bench);
    bench.client(GET);
    ends.leave("p1", &mut bench);
    ends.look_after(Duration::ZERO, &mut bench);
    // The link by which requests go ends behind the other.
    ends.departures.on_requests_lost(&bench.exchanges, bench.now);
    ends.look_after(Duration::from_secs(3), &mut bench);
    assert_eq!(ends.ended, []);
    assert_eq!(bench.sent(), ["0-0 0 GET", "0-1 0 GET"]);
}

#[test]
fn a_request_that_its_proxy_was_giving_away_goes_to_the_next_unless_somebody_has_got_it() {
    for is_taken in [false, true] {
        let mut bench = Bench::new(TERMS);
        let mut ends = Ends::new(&bench);
        bench.client(GET);
        bench.acknowledge("p1", 0);
        // Long before what it has said last.
        ends.departures.on_requests_lost(&bench.exchanges, bench.now);
        ends.look_after(Duration::from_millis(100), &mut bench);
        bench.server("p1", 1, Packet { kind: Kind::HandoffStart, ..Packet::default() });
        ends.leave("p1", &mut bench);
        ends.look_after(Duration::from_millis(1), &mut bench);
        if is_taken {
            bench.server("h", 2, Packet { kind: Kind::KeepAlive, ..Packet::default() });
        }
        ends.look_after(Duration::from_secs(3), &mut bench);
        assert_eq!(ends.ended, [], "{is_taken}");
        let sent = bench.sent();
        assert_eq!(sent.last().map(String::as_str), Some(if is_taken { "0-0 1 " } else { "0-1 0 GET" }), "{sent:?}");
    }
}
