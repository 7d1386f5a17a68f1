// SPDX-License-Identifier: AGPL-3.0-or-later
//! The proxy dies, and WebSockets to backends that speak WebSocket themselves go on with the next one.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use flate2::{Compress, Compression, FlushCompress};
use nix::sys::signal::Signal;
use pushpin_tests::origin::Origin;
use pushpin_tests::suite::{Stopped, Suite, is_alive};
use pushpin_tests::{PATIENCE, publish, until};
use wire::websocket::{Event, Header, Opcode, Reader, Role, accept_value, mask, write_close};

/// What one side of a connection hears.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Text(String),
    Ping(String),
    Pong(String),
    Close(Option<u16>),
    /// The connection has ended.
    End,
}

/// One side of a connection: what it hears of the other.
struct Ears {
    stream: TcpStream,
    reader: Reader,
    bytes: Vec<u8>,
    message: Vec<u8>,
    heard: VecDeque<Heard>,
}

impl Ears {
    fn new(stream: TcpStream, role: Role) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let reader = Reader::new(role, u64::MAX, false);
        Ears { stream, reader, bytes: Vec::new(), message: Vec::new(), heard: VecDeque::new() }
    }

    fn next(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return heard;
            }
            let mut some = [0; 4096];
            match self.stream.read(&mut some) {
                Ok(0) => return Heard::End,
                Ok(count) => self.bytes.extend_from_slice(&some[..count]),
                Err(error) => panic!("nothing is heard: {error}"),
            }
            self.read();
        }
    }

    fn read(&mut self) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut used = 0;
        while let Ok((count @ 1.., event)) = self.reader.read(&mut self.bytes[used..]) {
            match event {
                Some(Event::Data { payload, end, .. }) => {
                    self.message.extend_from_slice(payload);
                    if end {
                        self.heard.push_back(Heard::Text(text(&std::mem::take(&mut self.message))));
                    }
                }
                Some(Event::Ping(body)) => self.heard.push_back(Heard::Ping(text(body))),
                Some(Event::Pong(body)) => self.heard.push_back(Heard::Pong(text(body))),
                Some(Event::Close(status)) => self.heard.push_back(Heard::Close(status.map(|(code, _)| code))),
                None => {}
            }
            used += count;
        }
        self.bytes.drain(..used);
    }
}

fn frame(opcode: Opcode, fin: bool, compressed: bool, key: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut frame = Header { opcode, fin, compressed, key }.encode(payload.len()).to_vec();
    let start = frame.len();
    frame.extend_from_slice(payload);
    if let Some(key) = key {
        mask(&mut frame[start..], key, 0);
    }
    frame
}

/// A message in so many frames, with a ping in the middle if there is more than one.
fn fragments(content: &[u8], count: usize, compressed: bool, key: Option<[u8; 4]>, ping: &str) -> Vec<u8> {
    let mut frames = Vec::new();
    for (at, part) in content.chunks(content.len().div_ceil(count)).enumerate() {
        let fin = (at + 1) * content.len().div_ceil(count) >= content.len();
        let opcode = if at == 0 { Opcode::Text } else { Opcode::Continuation };
        frames.extend(frame(opcode, fin, compressed && at == 0, key, part));
        if at == 0 && !fin {
            frames.extend(frame(Opcode::Ping, true, false, key, ping.as_bytes()));
        }
    }
    frames
}

fn close(code: u16, key: Option<[u8; 4]>) -> Vec<u8> {
    let mut frame = Vec::new();
    write_close(Some((code, "")), key, &mut frame);
    frame
}

/// What the backend has heard, by path.
type Notes = Arc<Mutex<HashMap<String, Vec<Heard>>>>;

/// A backend that subscribes each connection to the channel in its path and answers what it hears, in one frame or in several.
struct Backend {
    origin: Origin,
    notes: Notes,
}

impl Backend {
    fn start() -> Self {
        let notes = Notes::default();
        let all = notes.clone();
        let origin = Origin::start(move |request, stream| {
            let channel = request.target[1..].to_string();
            let accept = accept_value(request.header("Sec-WebSocket-Key").unwrap_or_default().as_bytes());
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Extensions: grip\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            stream.write_all(head.as_bytes())?;
            let subscribe = format!(r#"c:{{"type":"subscribe","channel":"{channel}"}}"#);
            stream.write_all(&frame(Opcode::Text, true, false, None, subscribe.as_bytes()))?;
            all.lock().unwrap().entry(channel.clone()).or_default();
            let mut ears = Ears::new(stream.try_clone()?, Role::Server);
            loop {
                let heard = ears.next();
                let mut notes = all.lock().unwrap();
                notes.get_mut(&channel).unwrap().push(heard.clone());
                drop(notes);
                match heard {
                    Heard::Text(text) if text == "close" => stream.write_all(&close(4001, None))?,
                    Heard::Text(text) => {
                        let answer = format!("m:{text} again");
                        let count = 1 + text.len() % 4;
                        stream.write_all(&fragments(
                            answer.as_bytes(),
                            count,
                            false,
                            None,
                            &text[..text.len().min(20)],
                        ))?;
                    }
                    Heard::Ping(text) => stream.write_all(&frame(Opcode::Pong, true, false, None, text.as_bytes()))?,
                    Heard::Pong(_) => {}
                    Heard::Close(code) => {
                        let ours = notes_end(&all, &channel);
                        if !ours {
                            stream.write_all(&close(code.unwrap_or(1000), None))?;
                        }
                        stream.shutdown(std::net::Shutdown::Write)?;
                    }
                    Heard::End => return Ok(()),
                }
            }
        });
        Backend { origin, notes }
    }

    fn heard(&self, channel: &str) -> Vec<Heard> {
        self.notes.lock().unwrap().get(channel).cloned().unwrap_or_default()
    }
}

/// Whether the backend has closed a connection of itself.
fn notes_end(notes: &Notes, channel: &str) -> bool {
    notes.lock().unwrap()[channel].contains(&Heard::Text("close".into()))
}

fn start(backend: &Backend, settings: &str) -> Suite {
    let routes = format!("* 127.0.0.1:{}", backend.origin.port);
    let mut suite = Suite::prepare(&routes, &format!("[runner]\nallow_compression=true\n{settings}"));
    suite.launch();
    suite
}

const KEY: Option<[u8; 4]> = Some([1, 2, 3, 4]);

/// A client that is connected, and subscribed by the backend.
fn open(suite: &Suite, channel: &str, extensions: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", suite.port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET /{channel} HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{extensions}\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
    until("it is subscribed", || suite.logs().contains(&format!("subscribe ws://example.com/{channel} channel=")));
    stream
}

fn end_proxy(suite: &Suite, signal: Signal) {
    let old = suite.pid("proxy");
    suite.send("proxy", signal);
    until("that proxy has ended", || !is_alive(old));
}

fn await_proxy(suite: &Suite) {
    until("there is another proxy", || suite.children().contains_key("pushpin-proxy"));
}

/// So many messages of a client may be without an answer.
const AHEAD: usize = 40;

/// Lets the sender of a connection go on when its answers come.
#[derive(Default)]
struct Pace {
    answered: Mutex<usize>,
    changed: Condvar,
}

/// What a client sends as its message of this number.
fn message(number: usize) -> Vec<u8> {
    let text = format!("message {number} {}", "x".repeat(number * 37 % 400));
    let ping = format!("ping {number}");
    match number % 4 {
        0 => fragments(text.as_bytes(), 1, false, KEY, &ping),
        1 => fragments(text.as_bytes(), 3, false, KEY, &ping),
        form => {
            let mut compressed = Vec::with_capacity(1000);
            Compress::new(Compression::best(), false)
                .compress_vec(text.as_bytes(), &mut compressed, FlushCompress::Sync)
                .unwrap();
            compressed.truncate(compressed.len() - 4);
            fragments(&compressed, form - 1, true, KEY, &ping)
        }
    }
}

fn text(number: usize) -> String {
    format!("message {number} {}", "x".repeat(number * 37 % 400))
}

/// Clients talk to the backend all the time, and are published to, while one proxy after the other ends.
fn clients_notice_nothing(signal: Signal, settings: &str) {
    const CLIENTS: usize = 8;
    const ROUNDS: usize = 3;
    const MESSAGES: usize = 400;
    let backend = Backend::start();
    let suite = start(&backend, &format!("recover_wait=10\n{settings}"));
    let progress: Vec<Arc<AtomicUsize>> = (0..CLIENTS).map(|_| Arc::default()).collect();
    let threads: Vec<_> = progress
        .iter()
        .enumerate()
        .map(|(client, progress)| {
            let mut stream = open(&suite, &format!("c{client}"), "");
            let (mut writing, progress, pace) =
                (stream.try_clone().unwrap(), progress.clone(), Arc::new(Pace::default()));
            let paced = pace.clone();
            let sender = thread::spawn(move || {
                for number in 0..MESSAGES {
                    let answered = paced.answered.lock().unwrap();
                    let late = |answered: &mut usize| number >= *answered + AHEAD;
                    let (answered, waited) = paced.changed.wait_timeout_while(answered, PATIENCE, late).unwrap();
                    assert!(!waited.timed_out(), "message {number} gets no room");
                    drop(answered);
                    writing
                        .write_all(&fragments(
                            text(number).as_bytes(),
                            1 + number % 3,
                            false,
                            KEY,
                            &format!("ping {number}"),
                        ))
                        .unwrap();
                }
            });
            thread::spawn(move || {
                let mut ears = Ears::new(stream.try_clone().unwrap(), Role::Client);
                let (mut answered, mut published, mut pongs, mut pings) = (0, 0, 0, 0);
                while answered < MESSAGES || published < 2 * ROUNDS {
                    match ears.next() {
                        Heard::Text(heard) if heard.starts_with("news ") => {
                            assert_eq!(heard, format!("news {published}"), "of client {client}");
                            published += 1;
                        }
                        Heard::Text(heard) => {
                            assert_eq!(heard, format!("{} again", text(answered)), "of client {client}");
                            answered += 1;
                            *pace.answered.lock().unwrap() = answered;
                            pace.changed.notify_one();
                            progress.store(answered, Ordering::Relaxed);
                        }
                        Heard::Pong(heard) => {
                            let next = (pongs..).find(|number| number % 3 > 0).unwrap();
                            assert_eq!(heard, format!("ping {next}"), "of client {client}");
                            pongs = next + 1;
                        }
                        Heard::Ping(_) => pings += 1,
                        other => panic!("client {client} hears {other:?} behind {answered} answers"),
                    }
                }
                sender.join().unwrap();
                stream.write_all(&close(4000, KEY)).unwrap();
                loop {
                    match ears.next() {
                        Heard::Close(code) => break assert_eq!(code, Some(4000)),
                        Heard::Pong(_) => {}
                        other => panic!("client {client} hears {other:?} at its end"),
                    }
                }
                assert!(pings > 0);
            })
        })
        .collect();
    let mut news = 0;
    let mut publish = |suite: &Suite| {
        let items: Vec<_> = (0..CLIENTS)
            .map(|client| {
                format!(r#"{{"channel":"c{client}","formats":{{"ws-message":{{"content":"news {news}"}}}}}}"#)
            })
            .collect();
        let response = publish::post(suite, &format!(r#"{{"items":[{}]}}"#, items.join(","))).unwrap();
        assert_eq!(response.head.status, 200, "{}", response.text());
        news += 1;
    };
    for round in 1..=ROUNDS {
        let due = round * MESSAGES / (ROUNDS + 1);
        until("clients have got so far", || progress.iter().any(|progress| progress.load(Ordering::Relaxed) >= due));
        publish(&suite);
        end_proxy(&suite, signal);
        publish(&suite);
        await_proxy(&suite);
    }
    for thread in threads {
        thread.join().unwrap();
    }
    // The backend has had all once, in order, and no other connection.
    for client in 0..CLIENTS {
        let channel = format!("c{client}");
        until("the backend knows of the end", || backend.heard(&channel).last() == Some(&Heard::End));
        let heard = backend.heard(&channel);
        let texts: Vec<_> = heard.iter().filter(|heard| matches!(heard, Heard::Text(_))).cloned().collect();
        assert_eq!(texts, (0..MESSAGES).map(|number| Heard::Text(text(number))).collect::<Vec<_>>());
        assert_eq!(
            heard.iter().filter(|heard| matches!(heard, Heard::Close(_))).collect::<Vec<_>>(),
            [&Heard::Close(Some(4000))]
        );
    }
}

#[test]
fn websockets_survive_a_proxy_that_is_killed_time_and_again() {
    clients_notice_nothing(Signal::SIGKILL, "");
}

#[test]
fn websockets_survive_a_proxy_that_is_restarted_time_and_again() {
    clients_notice_nothing(Signal::SIGTERM, "frontend_processes=2\n");
}

#[test]
fn what_a_client_sends_compressed_is_not_lost_with_the_proxy() {
    let backend = Backend::start();
    let suite = start(&backend, "recover_wait=10\n");
    let mut stream = open(&suite, "c", "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    for round in 0..3 {
        let of_round = |number: usize| round * 20 + number;
        (0..10).for_each(|number| stream.write_all(&message(of_round(number))).unwrap());
        end_proxy(&suite, Signal::SIGKILL);
        (10..20).for_each(|number| stream.write_all(&message(of_round(number))).unwrap());
        let expected: Vec<_> = (0..of_round(20)).map(|number| Heard::Text(text(number))).collect();
        let texts =
            || -> Vec<_> { backend.heard("c").into_iter().filter(|heard| matches!(heard, Heard::Text(_))).collect() };
        until("the backend has all", || texts().len() >= expected.len());
        assert_eq!(texts(), expected);
    }
}

#[test]
fn a_close_at_the_moment_in_which_the_proxy_ends_reaches_the_other_side() {
    for (signal, before) in [(Signal::SIGKILL, true), (Signal::SIGKILL, false), (Signal::SIGTERM, true)] {
        let backend = Backend::start();
        let suite = start(&backend, "recover_wait=10\n");
        let mut clients: Vec<_> = (0..20).map(|client| open(&suite, &format!("c{client}"), "")).collect();
        // One half closes, the other is closed.
        let say = |(client, stream): (usize, &mut TcpStream)| {
            let text = frame(Opcode::Text, true, false, KEY, b"close");
            stream.write_all(&if client < 10 { close(4000, KEY) } else { text }).unwrap();
        };
        if before {
            clients.iter_mut().enumerate().for_each(say);
        }
        end_proxy(&suite, signal);
        if !before {
            clients.iter_mut().enumerate().for_each(say);
        }
        for (client, stream) in clients.iter_mut().enumerate() {
            let mut ears = Ears::new(stream.try_clone().unwrap(), Role::Client);
            let code = if client < 10 { 4000 } else { 4001 };
            assert_eq!(ears.next(), Heard::Close(Some(code)), "client {client}");
            if client >= 10 {
                stream.write_all(&close(4001, KEY)).unwrap();
            }
            let channel = format!("c{client}");
            until("the backend has heard the close", || backend.heard(&channel).contains(&Heard::Close(Some(code))));
        }
    }
}

#[test]
fn websockets_of_which_the_backends_connection_is_gone_as_well_are_closed_with_1012() {
    let backend = Backend::start();
    let suite = start(&backend, "recover_wait=10\n");
    let streams: Vec<_> = (0..10).map(|client| open(&suite, &format!("c{client}"), "")).collect();
    let stopped = Stopped::new(suite.pid("proxy"));
    let pids = [suite.pid("proxy"), suite.pid("outbound")];
    suite.kill("outbound");
    suite.kill("proxy");
    drop(stopped);
    until("both have ended", || pids.iter().all(|pid| !is_alive(*pid)));
    let start = Instant::now();
    for stream in streams {
        assert_eq!(Ears::new(stream, Role::Client).next(), Heard::Close(Some(1012)));
    }
    println!("closed after {:?}", start.elapsed());
}

#[test]
fn a_client_that_leaves_while_there_is_no_proxy_is_not_kept_at_the_backend() {
    let backend = Backend::start();
    let suite = start(&backend, "recover_wait=60\n");
    let stream = open(&suite, "c", "");
    end_proxy(&suite, Signal::SIGKILL);
    drop(stream);
    until("the backend's connection ends", || backend.heard("c").last() == Some(&Heard::End));
}

#[test]
fn without_room_for_what_is_under_way_they_are_closed_with_1012() {
    let backend = Backend::start();
    let suite = start(&backend, "recover_wait=10\nrecover_memory=10\n");
    let mut stream = open(&suite, "c", "");
    stream.write_all(&message(0)).unwrap();
    let mut ears = Ears::new(stream, Role::Client);
    let is_answer = |heard: &Heard| *heard == Heard::Text(format!("{} again", text(0)));
    assert!(std::iter::repeat_with(|| ears.next()).take(2).any(|heard| is_answer(&heard)));
    suite.kill("proxy");
    assert_eq!(ears.next(), Heard::Close(Some(1012)));
}
