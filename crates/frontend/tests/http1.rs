// SPDX-License-Identifier: AGPL-3.0-or-later
//! One client connection, with the test in the place of the client and of the servers behind it.

use std::time::{Duration, Instant};

use frontend::client::output::Output;
use frontend::client::pacing::Stage;
use frontend::context::{Config, Context};
use frontend::exchange::{Exchanges, Over, Owed};
use frontend::http1::{Http1, SharedBody};
use frontend::uplink::Uplink;
use wire::http1::Limits;
use zhttp::{Headers, Id, Ids, Kind, Packet, PeerId, Peers};

/// What went to the servers, written down.
#[derive(Default)]
struct Sent {
    packets: Vec<String>,
}

fn describe(packet: &Packet<'_>) -> String {
    let (_, seq) = packet.ids.single().unwrap();
    let mut text = format!("{} {}", seq.unwrap(), packet.kind.name());
    if let (Some(method), Some(uri)) = (packet.method, packet.uri) {
        text += &format!(" {} {}", String::from_utf8_lossy(method), String::from_utf8_lossy(uri));
    }
    if !packet.body.is_empty() {
        text += &format!(" {:?}", String::from_utf8_lossy(packet.body));
    }
    if packet.more { text + " more" } else { text }
}

impl Uplink for Sent {
    fn open(&mut self, packet: &Packet<'_>) -> &[u8] {
        self.packets.push(describe(packet));
        &[]
    }

    fn send(&mut self, _: PeerId, packet: &Packet<'_>) {
        self.packets.push(describe(packet));
    }

    fn grant(&mut self, _: PeerId, credits: u32, _: Id, seq: u32) {
        self.packets.push(format!("{seq} grant {credits}"));
    }
}

struct Bench {
    http: Http1,
    output: Output,
    exchanges: Exchanges,
    config: Config,
    sent: Sent,
    now: Instant,
    server: PeerId,
    seq: u32,
}

impl Bench {
    fn new() -> Self {
        let head = Limits { head_bytes: 500, ..Limits::default() };
        let config =
            Config { head, window: 1000, recover_wait: std::time::Duration::from_secs(10), ..Config::default() };
        let server = Peers::default().intern(b"proxy").unwrap();
        Bench {
            http: Http1::new(7, None),
            output: Output::default(),
            exchanges: Exchanges::for_clients(10),
            config,
            sent: Sent::default(),
            now: Instant::now(),
            server,
            seq: 0,
        }
    }

    fn requested(request: &str) -> Self {
        let mut bench = Bench::new();
        bench.client(request);
        bench.sent();
        bench
    }

    /// Something happens to the connection.
    fn event<T>(&mut self, event: impl FnOnce(&mut Http1, &mut Context<'_>) -> T) -> T {
        let Bench { http, output, exchanges, config, sent, now, .. } = self;
        event(http, &mut Context { config, now: *now, output, exchanges, up: sent })
    }

    fn client(&mut self, text: &str) {
        self.event(|http, cx| http.on_input(text.as_bytes(), cx));
    }

    fn server(&mut self, packet: Packet<'_>) -> bool {
        let body = SharedBody::new(packet.body);
        let (from, seq) = (Some(self.server), Some(self.seq));
        self.seq += 1;
        self.event(|http, cx| http.on_packet(&packet, &body, from, seq, cx).is_ok())
    }

    fn stage(&self) -> Stage {
        self.http.stage(self.output.len(), &self.exchanges, self.config.low_water())
    }

    /// No request is being served.
    fn is_idle(&self) -> bool {
        self.stage() == Stage::Idle
    }

    /// The connection ends when the output is written.
    fn is_finished(&self) -> bool {
        matches!(self.stage(), Stage::Closing | Stage::Closed { .. })
    }

    /// What has gone to the servers since the last time.
    fn sent(&mut self) -> Vec<String> {
        std::mem::take(&mut self.sent.packets)
    }

    /// What the client gets, all written at once.
    fn output(&mut self) -> String {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    fn write(&mut self, bytes: &mut Vec<u8>) -> Owed {
        let written = self.output.write_to(bytes).unwrap();
        self.event(|http, cx| {
            let owed = http.on_written(written, cx);
            http.go_on(cx);
            owed
        })
    }
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: x.test\r\n\r\n";

fn data(body: &[u8]) -> Packet<'_> {
    Packet { ids: Ids::None, code: Some(200), reason: Some(b"OK"), body, ..Packet::default() }
}

fn more(packet: Packet<'_>) -> Packet<'_> {
    Packet { more: true, ..packet }
}

#[test]
fn a_request_opens_a_session() {
    let mut bench = Bench::new();
    bench.client(GET);
    assert_eq!(bench.sent(), ["0 data GET http://x.test/a"]);
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let mut bench = Bench::new();
    for i in 0..GET.len() {
        assert_eq!(bench.sent(), [""; 0]);
        bench.client(&GET[i..=i]);
    }
    assert_eq!(bench.sent(), ["0 data GET http://x.test/a"]);
}

#[test]
fn a_complete_response_has_its_length_and_the_connection_goes_on() {
    let mut bench = Bench::requested(GET);
    assert!(bench.server(data(b"hello")));
    assert_eq!(bench.output(), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    assert!(bench.is_idle() && !bench.is_finished());
}

#[test]
fn a_request_sent_ahead_waits_for_the_response_before_it() {
    let mut bench = Bench::new();
    bench.client(&[GET, GET].concat());
    assert_eq!(bench.sent().len(), 1);
    bench.server(data(b"1"));
    assert_eq!(bench.sent(), ["0 data GET http://x.test/a"]);
}

#[test]
fn a_streamed_response_is_chunked() {
    let mut bench = Bench::requested(GET);
    bench.server(more(data(b"")));
    assert_eq!(bench.output(), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    bench.server(more(Packet { body: b"one", ..Packet::default() }));
    bench.server(Packet { body: b"two", ..Packet::default() });
    assert_eq!(bench.output(), "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n");
}

#[test]
fn http_1_0_gets_a_streamed_response_until_the_end_of_the_connection() {
    let mut bench = Bench::requested("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    bench.server(more(data(b"x")));
    bench.server(Packet::default());
    assert_eq!(bench.output(), "HTTP/1.0 200 OK\r\n\r\nx");
    assert!(bench.is_finished());
}

#[test]
fn a_response_to_head_keeps_the_declared_length_and_has_no_body() {
    let mut bench = Bench::requested("HEAD / HTTP/1.1\r\n\r\n");
    let headers: &[(&[u8], &[u8])] = &[(b"Content-Length", b"10")];
    bench.server(Packet { headers: zhttp::Headers::Pairs(headers), ..data(b"") });
    assert_eq!(bench.output(), "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
    assert!(bench.is_idle());
}

#[test]
fn a_response_that_ends_short_ends_the_connection_and_not_the_chunks() {
    let mut bench = Bench::requested(GET);
    bench.server(more(data(b"part")));
    bench.output();
    bench.server(Packet { kind: Kind::Cancel, ..Packet::default() });
    assert_eq!(bench.output(), "");
    assert!(bench.is_finished());
}

#[test]
fn less_body_than_declared_ends_the_connection() {
    let mut bench = Bench::requested(GET);
    let headers: &[(&[u8], &[u8])] = &[(b"Content-Length", b"10")];
    bench.server(more(Packet { headers: zhttp::Headers::Pairs(headers), ..data(b"12345") }));
    assert!(!bench.server(Packet::default()));
    assert!(bench.is_finished() || !bench.output.is_empty());
    bench.output();
    assert!(bench.is_finished());
}

#[test]
fn a_header_with_a_line_end_never_reaches_the_client() {
    let mut bench = Bench::requested(GET);
    let headers: &[(&[u8], &[u8])] = &[(b"X", b"a\r\nSet-Cookie: b")];
    assert!(!bench.server(Packet { headers: zhttp::Headers::Pairs(headers), ..data(b"") }));
    assert!(bench.output().starts_with("HTTP/1.1 500 "));
}

#[test]
fn credits_go_back_when_half_the_window_has_been_written() {
    let mut bench = Bench::requested(GET);
    bench.server(more(data(&[b'x'; 300])));
    bench.output();
    assert_eq!(bench.sent(), [""; 0]);
    bench.server(more(Packet { body: &[b'x'; 300], ..Packet::default() }));
    bench.output();
    assert_eq!(bench.sent(), ["1 grant 600"]);
}

#[test]
fn credits_of_a_quiet_session_are_owed_and_granted_on_demand() {
    let mut bench = Bench::requested(GET);
    bench.server(more(data(b"xyz")));
    assert_eq!(bench.write(&mut Vec::new()), Owed::Later);
    bench.event(|_, cx| cx.exchanges.get_mut(0).unwrap().grant(cx.up));
    assert_eq!(bench.sent(), ["1 grant 3"]);
}

#[test]
fn a_server_that_sends_more_than_was_granted_is_cut_off() {
    let mut bench = Bench::requested(GET);
    assert!(!bench.server(more(data(&[b'x'; 1001]))));
    assert_eq!(bench.sent(), ["1 cancel"]);
    assert!(bench.output().starts_with("HTTP/1.1 500 "));
}

#[test]
fn a_packet_out_of_sequence_ends_the_request() {
    let mut bench = Bench::requested(GET);
    bench.seq = 5;
    assert!(!bench.server(data(b"x")));
    assert!(bench.output().starts_with("HTTP/1.1 500 "));
}

#[test]
fn the_body_is_sent_within_the_credits() {
    let mut bench = Bench::requested("POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n0123456789");
    assert_eq!(bench.stage(), Stage::Stopped);
    bench.server(Packet { kind: Kind::Credit, credits: Some(4), ..Packet::default() });
    assert_eq!(bench.sent(), ["1 data \"0123\" more"]);
    bench.server(Packet { kind: Kind::Credit, credits: Some(100), ..Packet::default() });
    assert_eq!(bench.sent(), ["2 data \"456789\""]);
}

#[test]
fn a_chunked_body_is_sent_without_its_framing() {
    let mut bench = Bench::requested("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    bench.server(Packet { kind: Kind::Credit, credits: Some(100), ..Packet::default() });
    bench.client("3\r\nabc\r\n2\r\nde\r\n");
    bench.client("0\r\n\r\nGET /next HTTP/1.1\r\n\r\n");
    assert_eq!(bench.sent(), ["1 data \"abcde\" more", "2 data"]);
    bench.server(data(b""));
    assert_eq!(bench.sent(), ["0 data GET http://localhost/next"]);
}

#[test]
fn a_client_that_expects_it_gets_100_continue_once_the_body_is_wanted() {
    let mut bench = Bench::requested("POST / HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(bench.output(), "");
    bench.server(Packet { kind: Kind::Credit, credits: Some(100), ..Packet::default() });
    assert_eq!(bench.output(), "HTTP/1.1 100 Continue\r\n\r\n");
    bench.client("abc");
    assert_eq!(bench.sent(), ["1 data \"abc\""]);
}

#[test]
fn an_answer_before_the_whole_body_closes_the_connection() {
    let mut bench = Bench::requested("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n");
    bench.server(data(b"no"));
    assert!(bench.output().contains("Connection: close\r\n"));
    assert!(bench.is_finished());
}

#[test]
fn a_malformed_chunk_is_refused_and_the_server_told() {
    let mut bench = Bench::requested("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    bench.server(Packet { kind: Kind::Credit, credits: Some(100), ..Packet::default() });
    bench.client("zz\r\n");
    assert_eq!(bench.sent(), ["1 cancel"]);
    assert!(bench.output().starts_with("HTTP/1.1 400 "));
}

#[test]
fn a_client_that_leaves_is_reported_to_the_server() {
    let mut bench = Bench::requested(GET);
    bench.server(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    bench.event(|http, cx| http.on_gone(cx));
    assert_eq!(bench.sent(), ["1 cancel"]);
}

#[test]
fn after_a_hand_off_nothing_is_sent_until_the_new_server_speaks() {
    let mut bench = Bench::requested(GET);
    bench.server(Packet { kind: Kind::HandoffStart, ..Packet::default() });
    assert_eq!(bench.sent(), ["1 handoff-proceed"]);
    let kept_alive = |bench: &mut Bench, now: Instant| {
        let mut numbers = Vec::new();
        let exchange = bench.exchanges.get_mut(0).unwrap();
        exchange.on_timer(now, |to, _| numbers.push(to.seq)).unwrap();
        numbers
    };
    let later = bench.now + Duration::from_secs(45);
    assert_eq!(kept_alive(&mut bench, later), [0; 0]);
    bench.server(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    assert_eq!(kept_alive(&mut bench, later + Duration::from_secs(10)), [2]);
}

#[test]
fn what_is_no_request_is_refused_and_no_server_hears_of_it() {
    for bad in ["GET\r\n\r\n", "GET / HTTP/3.0\r\n\r\n", "GET / HTTP/1.1\r\nA : b\r\n\r\n", "\0\0\0\0"] {
        let mut bench = Bench::new();
        bench.client(bad);
        assert_eq!(bench.sent(), [""; 0], "{bad:?}");
        assert!(bench.output().starts_with("HTTP/1.0 400 Bad Request\r\n"), "{bad:?}");
        assert!(bench.is_finished());
    }
}

#[test]
fn a_head_over_the_limit_is_refused() {
    let mut bench = Bench::new();
    bench.client(&format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(500)));
    assert!(bench.output().contains("Request header size exceeded limit of 500 bytes."));
}

#[test]
fn the_next_request_begins_when_less_than_half_a_window_is_unsent() {
    let mut bench = Bench::requested(&GET.repeat(3));
    bench.server(data(&[b'x'; 600]));
    assert_eq!(bench.sent(), [""; 0]);
    assert_eq!(bench.stage(), Stage::Waiting, "it is for the client to read now");
    bench.output();
    assert_eq!(bench.sent(), ["0 data GET http://x.test/a"]);
    bench.seq = 0;
    bench.server(data(&[b'x'; 100]));
    assert_eq!(bench.sent(), ["0 data GET http://x.test/a"], "a small response does not hold up the next");
}

#[test]
fn empty_lines_do_not_begin_a_head() {
    let mut bench = Bench::new();
    for lines in ["\r\n", "\n", "\r", "\n", "\r\n\r\n"] {
        bench.client(lines);
        assert_eq!(bench.stage(), Stage::Idle);
    }
    bench.client("\r");
    bench.client("\nGET /a HT");
    assert_eq!(bench.stage(), Stage::Head);
    bench.client("TP/1.1\r\n\r\n");
    assert_eq!(bench.sent(), ["0 data GET http://localhost/a"]);
}

#[test]
fn a_held_response_that_can_have_no_body_frees_the_connection() {
    for (method, code) in [("HEAD", 200), ("GET", 204), ("GET", 304)] {
        let mut bench = Bench::requested(&format!("{method} / HTTP/1.1\r\n\r\n"));
        bench.server(more(Packet { code: Some(code), ..Packet::default() }));
        assert!(bench.is_idle(), "{method} {code}");
        bench.output();
        bench.client(GET);
        assert_eq!(bench.sent(), ["0 data GET http://x.test/a"]);
        let later = bench.now + Duration::from_secs(1);
        let exchange = bench.exchanges.get_mut(0).unwrap();
        assert_eq!(exchange.client(), None);
        assert_eq!(exchange.on_timer(later, |_, _| ()), Err(Over::Unwanted));
        bench.event(|_, cx| cx.exchanges.cancel(0, cx.up));
        assert_eq!(bench.sent(), ["1 cancel"]);
    }
}

#[test]
fn a_client_that_sends_its_end_gets_the_rest_of_a_complete_response() {
    let mut bench = Bench::requested(GET);
    bench.server(data(b"hello"));
    bench.event(|http, cx| http.on_end(cx));
    assert_eq!(bench.stage(), Stage::Closing);
    assert!(bench.output().ends_with("hello"));
}

#[test]
fn a_client_that_sends_its_end_while_it_waits_is_gone() {
    let mut bench = Bench::requested(GET);
    bench.server(more(data(b"part")));
    bench.event(|http, cx| http.on_end(cx));
    assert_eq!(bench.sent(), ["1 cancel"]);
    assert_eq!(bench.stage(), Stage::Closed { abort: false });
    assert!(bench.exchanges.is_empty());
}

#[test]
fn a_response_whose_end_is_that_of_the_connection_is_broken_off_with_a_reset() {
    let mut bench = Bench::requested("GET / HTTP/1.0\r\n\r\n");
    bench.server(more(data(b"x")));
    bench.event(|http, cx| http.on_lost(Some((502, "gone")), cx));
    assert_eq!(bench.stage(), Stage::Closed { abort: true });
}

#[test]
fn a_request_whose_server_is_lost_gets_a_page_if_it_has_got_nothing() {
    let mut bench = Bench::requested(GET);
    bench.event(|http, cx| http.on_lost(Some((502, "gone")), cx));
    assert!(bench.output().starts_with("HTTP/1.1 502 Bad Gateway\r\n"));
    let mut bench = Bench::requested(GET);
    bench.server(more(data(b"part")));
    bench.event(|http, cx| http.on_lost(Some((502, "gone")), cx));
    assert!(bench.output().ends_with("4\r\npart\r\n"));
    assert_eq!(bench.stage(), Stage::Closing);
}

#[test]
fn a_status_below_200_is_visibly_an_error_of_the_backend() {
    for code in [0, 5, 100, 101, 199] {
        let mut bench = Bench::requested(GET);
        assert!(!bench.server(Packet { code: Some(code), ..data(b"x") }));
        assert_eq!(bench.sent(), ["1 cancel"]);
        assert!(bench.output().starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{code}");
    }
}

/// An interim response, as servers send it.
fn interim<'a>(code: u16, reason: &'a [u8], headers: &'a [(&'a [u8], &'a [u8])]) -> Packet<'a> {
    let headers = Headers::Pairs(headers);
    Packet { kind: Kind::KeepAlive, code: Some(code), reason: Some(reason), headers, ..Packet::default() }
}

const HINT: &[(&[u8], &[u8])] =
    &[(b"Link", b"</a.css>; rel=preload"), (b"Content-Length", b"5"), (b"Connection", b"close")];

#[test]
fn interim_responses_come_before_the_response_and_are_none() {
    let mut bench = Bench::requested("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(bench.server(interim(103, b"Early Hints", HINT)));
    assert_eq!(bench.output(), "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
    assert!(bench.server(interim(104, b"", &[])) && bench.server(interim(102, b"Processing", &[])));
    assert_eq!(bench.output(), "HTTP/1.1 104 \r\n\r\nHTTP/1.1 102 Processing\r\n\r\n");
    assert!(bench.server(Packet { code: Some(200), body: b"ok", ..Packet::default() }));
    assert_eq!(bench.output(), "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok");
    assert!(bench.is_idle());
}

#[test]
fn interim_responses_that_no_client_may_see_are_left_out() {
    let splits: &[(&[u8], &[u8])] = &[(b"A", b"b\r\n\r\nHTTP/1.1 200 OK")];
    for packet in [
        interim(100, b"Continue", &[]),
        interim(101, b"Switching Protocols", &[]),
        interim(99, b"", &[]),
        interim(200, b"OK", &[]),
        interim(103, b"a\r\nb", &[]),
        interim(103, b"", splits),
    ] {
        let mut bench = Bench::requested("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(bench.server(packet));
        assert_eq!(bench.output(), "", "{packet:?}");
    }
    let mut old = Bench::requested("GET / HTTP/1.0\r\n\r\n");
    assert!(old.server(interim(103, b"Early Hints", HINT)));
    assert_eq!(old.output(), "");
    let mut begun = Bench::requested("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    begun.server(Packet { code: Some(200), more: true, ..Packet::default() });
    begun.output();
    assert!(begun.server(interim(103, b"Early Hints", HINT)));
    assert_eq!(begun.output(), "");
}

#[test]
fn a_client_that_waits_with_its_body_hears_100_once() {
    let request = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let mut bench = Bench::requested(request);
    assert!(bench.server(interim(100, b"Continue", &[])));
    assert!(bench.server(interim(100, b"Continue", &[])));
    assert!(bench.server(Packet { kind: Kind::Credit, credits: Some(100), ..Packet::default() }));
    assert_eq!(bench.output(), "HTTP/1.1 100 Continue\r\n\r\n");
}

#[test]
fn a_client_that_does_not_read_gets_no_flood_of_interim_responses() {
    let mut bench = Bench::requested("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    for _ in 0..10_000 {
        assert!(bench.server(interim(103, b"Early Hints", HINT)));
    }
    assert!(bench.output().len() < 1000, "the window is 1000, and the half of it may wait");
}
