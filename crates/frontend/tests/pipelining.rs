// SPDX-License-Identifier: AGPL-3.0-or-later
//! One client that sends and reads as it likes, and a server that keeps to its credits: whatever the order, every request
//! is answered once and in order, and what waits for the client has a bound.

use std::time::Instant;

use frontend::client::output::Output;
use frontend::context::{Config, Context};
use frontend::exchange::Exchanges;
use frontend::http1::{Http1, SharedBody};
use frontend::uplink::Uplink;
use proptest::prelude::*;
use wire::http1::Limits;
use zhttp::{Headers, Id, Packet, PeerId, Peers};

const WINDOW: u32 = 4096;
/// What a chunk's frame, the heads and the error page may add to the bytes of a body.
const FRAMING: usize = 1024;

#[derive(Clone, Debug)]
enum Step {
    /// The client sends so many bytes of its requests.
    Send(usize),
    /// The client reads so many bytes.
    Read(usize),
    /// The server sends so many bytes of the response, within its credits, in pieces of so many.
    Answer(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1usize..200).prop_map(Step::Send),
        (1usize..3000).prop_map(Step::Read),
        (1usize..3000, 64usize..500).prop_map(|(bytes, piece)| Step::Answer(bytes, piece)),
    ];
    proptest::collection::vec(step, 0..200)
}

/// The server of the one session that is open.
#[derive(Default)]
struct Server {
    /// Number of the request, credits and number of the next packet, while a request is open.
    open: Option<(usize, u32, u32)>,
    opened: usize,
}

impl Uplink for Server {
    fn open(&mut self, packet: &Packet<'_>) -> &[u8] {
        assert!(self.open.is_none(), "one request at a time");
        self.open = Some((self.opened, packet.credits.unwrap(), 0));
        self.opened += 1;
        &[]
    }

    fn send(&mut self, _: PeerId, packet: &Packet<'_>) {
        panic!("a {} packet to a server that has done nothing wrong", packet.kind.name());
    }

    fn grant(&mut self, _: PeerId, credits: u32, _: Id, _: u32) {
        if let Some((_, granted, _)) = &mut self.open {
            *granted += credits;
        }
    }
}

struct Bench {
    http: Http1,
    output: Output,
    exchanges: Exchanges,
    config: Config,
    server: Server,
    peer: PeerId,
    now: Instant,
    requests: Vec<u8>,
    lengths: Vec<usize>,
    sent: usize,
    /// Bytes of the present response's body that the server has sent.
    answered: usize,
    received: Vec<u8>,
}

impl Bench {
    fn new(lengths: Vec<usize>) -> Self {
        let requests = (0..lengths.len()).map(|i| format!("GET /{i} HTTP/1.1\r\nHost: h\r\n\r\n")).collect::<String>();
        let head = Limits { head_bytes: 1024, ..Limits::default() };
        Bench {
            http: Http1::new(0, None),
            output: Output::default(),
            exchanges: Exchanges::for_clients(1),
            config: Config {
                head,
                window: WINDOW,
                router_resp: true,
                recover_wait: std::time::Duration::from_secs(10),
                ..Config::default()
            },
            server: Server::default(),
            peer: Peers::default().intern(b"server").unwrap(),
            now: Instant::now(),
            requests: requests.into_bytes(),
            lengths,
            sent: 0,
            answered: 0,
            received: Vec::new(),
        }
    }

    fn event(&mut self, event: impl FnOnce(&mut Http1, &mut Context<'_>)) {
        let Bench { http, output, exchanges, config, server, now, .. } = self;
        event(http, &mut Context { config, now: *now, output, exchanges, up: server });
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Send(bytes) => {
                // As the worker does, no more is read than there is room for.
                let room = self.config.head.head_bytes - self.http.buffered();
                let end = self.requests.len().min(self.sent + bytes.min(room));
                let input = self.requests[self.sent..end].to_vec();
                self.sent = end;
                if !input.is_empty() {
                    self.event(|http, cx| assert_eq!(http.on_input(&input, cx), None));
                }
            }
            Step::Read(bytes) => {
                let mut pipe = Pipe { room: bytes, taken: &mut self.received };
                let written = self.output.write_to(&mut pipe).unwrap();
                self.event(|http, cx| {
                    http.on_written(written, cx);
                    assert_eq!(http.go_on(cx), None);
                });
                self.grant_owed();
            }
            Step::Answer(mut bytes, piece) => {
                while bytes > 0 && self.answer(piece.min(bytes)) {
                    bytes = bytes.saturating_sub(piece);
                }
            }
        }
        assert!(self.exchanges.len() <= 1);
        let bound = WINDOW as usize / 2 + WINDOW as usize + FRAMING;
        // The server is granted bytes of bodies; their chunks have frames of some 8 bytes.
        assert!(self.output.len() <= bound * 5 / 4, "{} bytes wait", self.output.len());
        assert!(self.output.slices().map(<[u8]>::len).sum::<usize>() == self.output.len());
    }

    /// The session has been quiet for a while.
    fn grant_owed(&mut self) {
        if let Some(slot) = self.http.exchange() {
            self.event(|_, cx| cx.exchanges.get_mut(slot).unwrap().grant(cx.up));
        }
    }

    /// Sends a packet of the response; `false` if there is none to be sent.
    fn answer(&mut self, most: usize) -> bool {
        let Some((number, credits, seq)) = &mut self.server.open else { return false };
        let left = self.lengths[*number] - self.answered;
        let len = left.min(most).min(*credits as usize);
        if len == 0 && left > 0 {
            return false;
        }
        let body = vec![b'a' + (*number % 26) as u8; len];
        let first = *seq == 0;
        let headers: &[(&[u8], &[u8])] = &[(b"X", b"y")];
        let packet = Packet {
            code: first.then_some(200),
            reason: first.then_some(b"OK"),
            headers: if first { Headers::Pairs(headers) } else { Headers::Absent },
            body: &body,
            more: len < left,
            ..Packet::default()
        };
        let number_in = Some(*seq);
        (*credits, *seq, self.answered) = (*credits - len as u32, *seq + 1, self.answered + len);
        if !packet.more {
            (self.server.open, self.answered) = (None, 0);
        }
        let (shared, peer) = (SharedBody::new(&body), Some(self.peer));
        self.event(|http, cx| {
            assert_eq!(http.on_packet(&packet, &shared, peer, number_in, cx), Ok(None));
        });
        true
    }
}

struct Pipe<'a> {
    room: usize,
    taken: &'a mut Vec<u8>,
}

impl std::io::Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = bytes.len().min(self.room);
        if n == 0 {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        self.room -= n;
        self.taken.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The bodies of the responses in a stream, framed as a client does.
fn bodies(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some((head, used)) = wire::http1::parse_response(bytes, &Limits::default(), "GET").unwrap() {
        let mut decoder = wire::http1::BodyDecoder::new(head.framing);
        bytes = &bytes[used..];
        let mut body = Vec::new();
        while !decoder.is_done() {
            let decoded = decoder.decode(bytes, usize::MAX).unwrap();
            assert!(decoded.consumed > 0, "a response that does not end");
            body.extend_from_slice(decoded.payload);
            bytes = &bytes[decoded.consumed..];
        }
        all.push(body);
        if bytes.is_empty() {
            break;
        }
    }
    all
}

proptest! {
    #[test]
    fn every_request_is_answered_once_and_in_order(
        lengths in proptest::collection::vec(prop_oneof![0usize..4000, 0usize..20_000], 1..12),
        steps in steps(),
        reads in any::<bool>(),
    ) {
        let mut bench = Bench::new(lengths.clone());
        for step in steps.iter().filter(|step| reads || !matches!(step, Step::Read(_))) {
            bench.step(step);
        }
        for _ in 0..10_000 {
            if bench.server.opened == lengths.len() && bench.server.open.is_none() && bench.output.is_empty() {
                break;
            }
            for step in [Step::Send(500), Step::Answer(4000, 4000), Step::Read(5000)] {
                bench.step(&step);
            }
        }
        let expected: Vec<Vec<u8>> =
            lengths.iter().enumerate().map(|(i, &length)| vec![b'a' + (i % 26) as u8; length]).collect();
        prop_assert_eq!(bodies(&bench.received), expected);
        prop_assert!(bench.exchanges.is_empty());
    }

    #[test]
    fn bytes_that_are_no_requests_never_do_more_than_close_the_connection(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
    ) {
        let mut bench = Bench::new(Vec::new());
        for piece in &pieces {
            if bench.http.buffered() + piece.len() <= bench.config.head.head_bytes {
                bench.event(|http, cx| drop(http.on_input(piece, cx)));
            }
            bench.step(&Step::Read(1000));
        }
    }
}
