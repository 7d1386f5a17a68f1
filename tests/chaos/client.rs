// SPDX-License-Identifier: AGPL-3.0-or-later
//! A client that knows which message must come next, and comes back when its connection has ended. It does no I/O.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::frames;
use crate::hearing::{Hearing, messages};
use crate::http::{Head, take_chunk, take_message};
use crate::news::{News, To};

/// Who has heard nothing for so long, although there was something to hear, is deaf. A part that has died often is started again after 5 s,
/// and its successor may die as well before it serves.
const DEAF: Duration = Duration::from_secs(20);
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
    /// A WebSocket to a backend that speaks WebSocket as well.
    Direct,
    /// The same to the test route.
    TestSocket,
}

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::Stream, Kind::TestStream, Kind::Poll, Kind::OverHttp, Kind::Direct, Kind::TestSocket];

    /// The channels that it is subscribed to. The test route has one for everybody.
    pub fn hears(self) -> &'static [To] {
        match self {
            Kind::Stream | Kind::OverHttp | Kind::Direct => &[To::Held, To::Pushed, To::Subscribed],
            Kind::TestStream | Kind::TestSocket => &[To::Held],
            Kind::Poll => &[To::Polls],
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

/// A connection that has ended, or a request that was answered wrongly.
pub struct Closing {
    /// When the connection or the request began.
    pub since: Instant,
    /// When it ended.
    pub at: Instant,
    /// How it ended.
    pub why: String,
    /// The last message before.
    pub last: usize,
}

/// What has happened to a client besides what it has heard.
#[derive(Default)]
pub struct Tally {
    /// Ends of its connections.
    pub closings: Vec<Closing>,
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
    /// How long its connections stay on the average, and when it leaves this one.
    stay: Duration,
    leave_at: Option<Instant>,
    pub tally: Tally,
}

impl Client {
    pub fn new(kind: Kind, index: usize, stay: Duration, news: Arc<News>, begin: Instant) -> Self {
        Client {
            kind,
            index,
            news,
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
            stay,
            leave_at: None,
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
        // From half of it to one and a half.
        let share = 500 + (self.index * 7919 + self.life * 104_729) % 1000;
        self.leave_at = Some(now + self.stay * share as u32 / 1000).filter(|_| !self.stay.is_zero());
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

    /// Whether it leaves its connection now.
    pub fn leaves(&mut self, now: Instant) -> bool {
        let leaves = self.is_open() && self.leave_at.is_some_and(|at| at <= now) && !self.has_enough();
        if leaves {
            self.away(now);
        }
        leaves
    }

    /// Its connection is over.
    pub fn closed(&mut self, why: &str, now: Instant) {
        let closing = Closing { since: self.since, at: now, why: why.to_string(), last: self.last() };
        self.tally.closings.push(closing);
        self.closed_at.get_or_insert(now);
        self.away(now);
    }

    /// It has no connection from now on, and comes back soon.
    fn away(&mut self, now: Instant) {
        self.state = State::Away(now + PAUSE);
        self.text.clear();
        (self.said, self.answers) = (0, Hearing::default());
        // Long-polls say what they have.
        if self.kind != Kind::Poll {
            self.hearings.iter_mut().for_each(Hearing::begin_anew);
        }
    }
}
