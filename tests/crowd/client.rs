// SPDX-License-Identifier: AGPL-3.0-or-later
//! A client that knows which message must come next, and what may end its connection. It does no I/O.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::faults::{Fault, Faults};
use crate::frames;
use crate::hearing::{Hearing, messages};
use crate::http::{Head, take_chunk, take_message};
use crate::news::{News, To};

/// Who has heard nothing for so long, although there was something to hear, is deaf.
const DEAF: Duration = Duration::from_secs(10);
/// Between two messages of a WebSocket's client.
const PACE: Duration = Duration::from_millis(900);
/// Before it comes back.
const PAUSE: Duration = Duration::from_millis(50);

/// What a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A stream, which nothing may end.
    Stream,
    /// The same of the test route.
    TestStream,
    /// Long-polls, one after the other, that say what they have.
    Poll,
    /// A WebSocket to a backend that speaks HTTP.
    OverHttp,
    /// A WebSocket to a backend that speaks WebSocket as well. It comes back when it has been closed, and may be.
    Direct,
    /// The same to the test route.
    TestSocket,
}

impl Kind {
    /// The channels that it is subscribed to. The test route has one for everybody.
    pub fn hears(self) -> &'static [To] {
        match self {
            Kind::Stream | Kind::OverHttp | Kind::Direct => &[To::Held, To::Pushed, To::Subscribed],
            Kind::TestStream | Kind::TestSocket => &[To::Held],
            Kind::Poll => &[To::Polls],
        }
    }

    /// What may end its connection, or its request.
    fn ends_with(self) -> &'static [Fault] {
        match self {
            Kind::Stream | Kind::TestStream => &[],
            Kind::Poll => &[Fault::Proxy],
            Kind::OverHttp => &[Fault::Both],
            Kind::Direct => &[Fault::Outbound, Fault::Both],
            Kind::TestSocket => &[Fault::Proxy, Fault::Both],
        }
    }

    pub fn is_websocket(self) -> bool {
        matches!(self, Kind::OverHttp | Kind::Direct | Kind::TestSocket)
    }
}

enum State {
    /// Without a connection until then.
    Away(Instant),
    /// It has been asked for what the client waits for.
    Opening,
    Open,
}

/// What went wrong, or was allowed to.
#[derive(Default)]
pub struct Tally {
    /// Why it was closed, or answered wrongly, when it had to stay.
    pub closed: Vec<String>,
    /// How often it was when it might.
    pub comebacks: usize,
    /// From such an end until it was served again, in milliseconds.
    pub away: Vec<u128>,
    /// How often it heard nothing, or got no answer.
    pub deaf: usize,
}

/// See the module.
pub struct Client {
    pub kind: Kind,
    pub index: usize,
    pub news: Arc<News>,
    faults: Arc<Faults>,
    begin: Instant,
    state: State,
    /// How many connections there were.
    pub life: usize,
    /// Since when there is this connection, or this request.
    since: Instant,
    /// It was closed, and has not been served since.
    closed_at: Option<Instant>,
    /// When anything came last.
    heard_at: Instant,
    /// Of a message that is not complete.
    text: String,
    /// By [`To`].
    pub hearings: [Hearing; 4],
    /// Messages that its client has sent in this life, and the answers to them.
    pub said: usize,
    pub answers: Hearing,
    say_at: Instant,
    pub tally: Tally,
}

impl Client {
    pub fn new(kind: Kind, index: usize, news: Arc<News>, faults: Arc<Faults>, begin: Instant) -> Self {
        Client {
            kind,
            index,
            news,
            faults,
            begin,
            state: State::Away(begin),
            life: 0,
            since: begin,
            closed_at: None,
            heard_at: begin,
            text: String::new(),
            hearings: Default::default(),
            said: 0,
            answers: Hearing::default(),
            say_at: begin,
            tally: Tally::default(),
        }
    }

    /// The channel of which it must get every message.
    pub fn main(&self) -> To {
        self.kind.hears()[0]
    }

    pub fn hearing(&self, to: To) -> &Hearing {
        &self.hearings[to as usize]
    }

    fn last(&self) -> usize {
        self.hearing(self.main()).last()
    }

    /// Whether it is to be connected now.
    pub fn wants_connection(&self, now: Instant) -> bool {
        matches!(self.state, State::Away(until) if until <= now)
    }

    /// It has a connection and waits for the first sign.
    pub fn is_opening(&self) -> bool {
        matches!(self.state, State::Opening)
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// It has heard all that it is to hear, and its messages are answered.
    pub fn has_enough(&self) -> bool {
        let has_heard = |to: &To| self.news.channel(*to).is_late_enough(self.hearing(*to).last());
        self.kind.hears().iter().all(has_heard) && self.answers.last() == self.said
    }

    /// It gets a connection, over which it sends this.
    pub fn connect(&mut self, now: Instant, out: &mut Vec<u8>) {
        (self.state, self.since, self.heard_at) = (State::Opening, now, now);
        self.life += 1;
        let ms = self.milliseconds(now);
        self.hearings.iter_mut().for_each(|hearing| hearing.since = ms);
        let (index, life) = (self.index, self.life);
        let letters: String = self.kind.hears().iter().map(|to| to.letter()).collect();
        let get = |path: String, headers: &str| format!("GET {path} HTTP/1.1\r\nHost: example.com\r\n{headers}\r\n");
        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let request = match self.kind {
            Kind::Stream => get(format!("/stream/{letters}"), ""),
            Kind::TestStream => get(format!("/test/stream?channel={letters}"), ""),
            Kind::Poll => return self.ask(now, out),
            Kind::OverHttp => get(format!("/over/{letters}/{index}/{life}"), upgrade),
            Kind::Direct => get(format!("/direct/{letters}/{index}/{life}"), upgrade),
            Kind::TestSocket => get(format!("/test/ws?channel={letters}"), upgrade),
        };
        out.extend(request.bytes());
    }

    /// Asks for what follows the last that it has.
    fn ask(&mut self, now: Instant, out: &mut Vec<u8>) {
        let (channel, seen) = (self.main().letter(), self.last());
        self.since = now;
        self.state = State::Open;
        out.extend(format!("GET /poll/{channel}?{seen} HTTP/1.1\r\nHost: example.com\r\n\r\n").bytes());
    }

    /// Something has come. An error says why the connection is over.
    pub fn hear(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>, now: Instant) -> Result<(), String> {
        if self.kind == Kind::Poll {
            return self.hear_response(input, out, now);
        }
        if let State::Opening = self.state {
            let Some(head) = Head::take(input) else { return Ok(()) };
            let expected = if self.kind.is_websocket() { "101" } else { "200" };
            if head.status() != expected {
                return Err(format!("answered with {}", head.line));
            }
            self.state = State::Open;
            self.say_at = now + PACE * (self.index % 64) as u32 / 64;
        }
        match self.kind {
            Kind::Stream | Kind::TestStream => self.hear_chunks(input, now),
            _ => self.hear_frames(input, now),
        }
    }

    fn hear_response(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>, now: Instant) -> Result<(), String> {
        let Some((head, body)) = take_message(input)? else { return Ok(()) };
        if head.status() != "200" {
            return Err(format!("answered with {} {}", head.line, String::from_utf8_lossy(&body)));
        }
        self.note(&body, now)?;
        self.ask(now, out);
        match head.closes() {
            true => Err("answered with Connection: close".into()),
            false => Ok(()),
        }
    }

    fn hear_chunks(&mut self, input: &mut Vec<u8>, now: Instant) -> Result<(), String> {
        while let Some(chunk) = take_chunk(input)? {
            if chunk.is_empty() {
                return Err("its stream has ended".into());
            }
            // The test route begins with it.
            self.note(chunk.strip_prefix(b"[stream opened]\n").unwrap_or(&chunk), now)?;
        }
        Ok(())
    }

    fn hear_frames(&mut self, input: &mut Vec<u8>, now: Instant) -> Result<(), String> {
        while let Some((kind, content)) = frames::take(input) {
            match (kind, content.as_slice()) {
                (frames::TEXT, content) => self.note(content, now)?,
                (frames::CLOSE, [high, low, reason @ ..]) => {
                    let code = u16::from_be_bytes([*high, *low]);
                    return Err(format!("closed with {code} {}", String::from_utf8_lossy(reason)));
                }
                (kind, content) => return Err(format!("{kind:02x} {content:02x?} is not expected")),
            }
        }
        Ok(())
    }

    fn note(&mut self, bytes: &[u8], now: Instant) -> Result<(), String> {
        self.text.push_str(&String::from_utf8_lossy(bytes));
        let ms = self.milliseconds(now);
        for (letter, number) in messages(&mut self.text)? {
            self.served(now);
            let heard = match (To::of(letter), letter) {
                // An answer to what it has said; the test route's is the same.
                (None, 'a' | 'e') if self.kind.is_websocket() => &mut self.answers,
                (Some(to), _) if self.kind.hears().contains(&to) => &mut self.hearings[to as usize],
                _ => return Err(format!("{letter}{number} is not for it")),
            };
            // Nothing yet, says the backend.
            if number > 0 {
                heard.note(number, ms);
            }
        }
        Ok(())
    }

    fn served(&mut self, now: Instant) {
        self.heard_at = now;
        self.tally.away.extend(self.closed_at.take().map(|at| now.duration_since(at).as_millis()));
    }

    fn milliseconds(&self, now: Instant) -> u32 {
        now.duration_since(self.begin).as_millis() as u32
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<(), String> {
        if let State::Away(_) = self.state {
            return Ok(());
        }
        let next = self.news.channel(self.main()).next_came(self.last());
        let waits = |since: Instant| now.saturating_duration_since(since.max(self.heard_at)) > DEAF;
        let unheard = next.is_some_and(waits) || self.is_opening() && waits(self.since);
        let unanswered = self.answers.last() < self.said && waits(self.say_at);
        if unheard || unanswered {
            self.tally.deaf += 1;
            return Err(format!("deaf since {} ms", self.milliseconds(self.heard_at)));
        }
        if self.is_open() && self.kind.is_websocket() && self.say_at <= now && !self.has_enough() {
            self.say_at = now + PACE;
            self.said += 1;
            frames::masked(&format!("e{};", self.said), out);
        }
        Ok(())
    }

    /// Its connection is over.
    pub fn closed(&mut self, why: &str, now: Instant) {
        let excused = self.kind.ends_with().iter().any(|fault| self.faults.since(*fault, self.since));
        match excused {
            true => self.tally.comebacks += 1,
            false => {
                let (ms, last) = (self.milliseconds(now), self.last());
                let (kind, index) = (self.kind, self.index);
                self.tally.closed.push(format!("{kind:?} {index} after {ms} ms and message {last}: {why}"));
            }
        }
        self.closed_at.get_or_insert(now);
        self.state = State::Away(now + PAUSE);
        self.text.clear();
        (self.said, self.answers) = (0, Hearing::default());
        // Long-polls say what they have.
        if self.kind != Kind::Poll {
            self.hearings.iter_mut().for_each(Hearing::begin_anew);
        }
    }
}
