//! One client connection, with the test in the place of the client and of the servers behind it.

use std::time::Instant;

use frontend::connection::{Config, Connection, Owed, Uplink};
use frontend::shared_body::SharedBody;
use wire::http1::Limits;
use zhttp::{Id, Ids, Kind, Packet, PeerId, Peers, client};

/// What went to the servers, written down.
#[derive(Default)]
struct Sent {
    packets: Vec<String>,
    orphans: usize,
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
    fn open(&mut self, packet: &Packet<'_>) {
        self.packets.push(describe(packet));
    }

    fn send(&mut self, _: PeerId, packet: &Packet<'_>) {
        self.packets.push(describe(packet));
    }

    fn grant(&mut self, _: PeerId, credits: u32, _: Id, seq: u32) {
        self.packets.push(format!("{seq} grant {credits}"));
    }

    fn orphan(&mut self, _: Id, _: client::Session) {
        self.orphans += 1;
    }
}

struct Bench {
    connection: Connection,
    config: Config,
    serials: u64,
    sent: Sent,
    now: Instant,
    server: PeerId,
    seq: u32,
}

impl Bench {
    fn new() -> Self {
        let config = Config { head: Limits { head_bytes: 500, ..Limits::default() }, window: 1000 };
        let server = Peers::default().intern(b"proxy").unwrap();
        Bench {
            connection: Connection::new(7, None),
            config,
            serials: 0,
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

    fn client(&mut self, text: &str) {
        self.connection.on_input(text.as_bytes(), &self.config, &mut self.serials, self.now, &mut self.sent);
    }

    fn server(&mut self, packet: Packet<'_>) -> bool {
        let body = SharedBody::new(packet.body);
        let seq = Some(self.seq);
        self.seq += 1;
        let from = Some(self.server);
        let Bench { connection, config, serials, sent, now, .. } = self;
        connection.on_packet(&packet, &body, from, seq, config, serials, *now, sent).is_ok()
    }

    /// What has gone to the servers since the last time.
    fn sent(&mut self) -> Vec<String> {
        std::mem::take(&mut self.sent.packets)
    }

    /// What the client gets, all written at once.
    fn output(&mut self) -> String {
        let mut bytes = Vec::new();
        let written = self.connection.output.write_to(&mut bytes).unwrap();
        self.connection.on_written(written, &mut self.sent);
        String::from_utf8(bytes).unwrap()
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
    assert!(bench.connection.is_idle() && !bench.connection.is_finished());
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
    assert!(bench.connection.is_finished());
}

#[test]
fn a_response_to_head_keeps_the_declared_length_and_has_no_body() {
    let mut bench = Bench::requested("HEAD / HTTP/1.1\r\n\r\n");
    let headers: &[(&[u8], &[u8])] = &[(b"Content-Length", b"10")];
    bench.server(Packet { headers: zhttp::Headers::Pairs(headers), ..data(b"") });
    assert_eq!(bench.output(), "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
    assert!(bench.connection.is_idle());
}

#[test]
fn a_response_that_ends_short_ends_the_connection_and_not_the_chunks() {
    let mut bench = Bench::requested(GET);
    bench.server(more(data(b"part")));
    bench.output();
    bench.server(Packet { kind: Kind::Cancel, ..Packet::default() });
    assert_eq!(bench.output(), "");
    assert!(bench.connection.is_finished());
}

#[test]
fn less_body_than_declared_ends_the_connection() {
    let mut bench = Bench::requested(GET);
    let headers: &[(&[u8], &[u8])] = &[(b"Content-Length", b"10")];
    bench.server(more(Packet { headers: zhttp::Headers::Pairs(headers), ..data(b"12345") }));
    assert!(!bench.server(Packet::default()));
    assert!(bench.connection.is_finished() || !bench.connection.output.is_empty());
    bench.output();
    assert!(bench.connection.is_finished());
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
    let mut bytes = Vec::new();
    let written = bench.connection.output.write_to(&mut bytes).unwrap();
    assert_eq!(bench.connection.on_written(written, &mut bench.sent), Owed::Later);
    bench.connection.grant_owed(&mut bench.sent);
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
    assert_eq!(bench.connection.wants(&bench.config), 0);
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
    assert!(bench.connection.is_finished());
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
    bench.connection.on_gone(&mut bench.sent);
    assert_eq!(bench.sent(), ["1 cancel"]);
}

#[test]
fn a_client_that_leaves_before_the_server_is_known_is_reported_later() {
    let mut bench = Bench::requested(GET);
    bench.connection.on_gone(&mut bench.sent);
    assert_eq!((bench.sent().len(), bench.sent.orphans), (0, 1));
}

#[test]
fn after_a_hand_off_nothing_is_sent_until_the_new_server_speaks() {
    let mut bench = Bench::requested(GET);
    bench.server(Packet { kind: Kind::HandoffStart, ..Packet::default() });
    assert_eq!(bench.sent(), ["1 handoff-proceed"]);
    assert!(bench.connection.keep_alive().is_none());
    bench.server(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    assert_eq!(bench.connection.keep_alive().map(|(_, _, seq)| seq), Some(2));
}

#[test]
fn what_is_no_request_is_refused_and_no_server_hears_of_it() {
    for bad in ["GET\r\n\r\n", "GET / HTTP/3.0\r\n\r\n", "GET / HTTP/1.1\r\nA : b\r\n\r\n", "\0\0\0\0"] {
        let mut bench = Bench::new();
        bench.client(bad);
        assert_eq!(bench.sent(), [""; 0], "{bad:?}");
        assert!(bench.output().starts_with("HTTP/1.0 400 Bad Request\r\n"), "{bad:?}");
        assert!(bench.connection.is_finished());
    }
}

#[test]
fn a_head_over_the_limit_is_refused() {
    let mut bench = Bench::new();
    bench.client(&format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(500)));
    assert!(bench.output().contains("Request header size exceeded limit of 500 bytes."));
}
