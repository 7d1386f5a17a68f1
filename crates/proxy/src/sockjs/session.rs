// SPDX-License-Identifier: AGPL-3.0-or-later
//! A session that talks by polls: HTTP requests of the client on one side, a WebSocket on the other. Towards the relay of that
//! it is a frontend with one client.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use zhttp::session::Protocol;
use zhttp::session::client::{Due, Grant, Outcome, Session as Link};
use zhttp::{INITIAL_BODY, Kind, Packet, PeerId};

use super::call::Caller;
use super::page::{self, Page};

/// A poll is answered after this time even if there is nothing to say. This and the next are what clients of SockJS and other
/// servers keep to.
const HEARTBEAT: Duration = Duration::from_secs(25);
/// A client that has been away for so long is gone, and an end is remembered for so long.
const AWAY: Duration = Duration::from_secs(5);
/// Messages of one request, in bytes: as many as a relay gives credits for.
const MAX_SEND: usize = INITIAL_BODY;
/// Messages that may wait for a poll. Those without content take no credits.
const MAX_INCOMING: usize = 20_000;

/// One session.
#[derive(Debug)]
pub struct Session {
    link: Link,
    phase: Phase,
    /// The poll that waits, with the function that a script wants the answer in.
    receiver: Option<(Caller, Option<Box<[u8]>>)>,
    /// The request whose messages wait for credits.
    sender: Option<Caller>,
    outgoing: VecDeque<Bytes>,
    /// Messages of the backend, each with the bytes that are to be granted once it is delivered.
    incoming: Vec<(Bytes, usize)>,
    /// The message that comes in pieces.
    unfinished: BytesMut,
    /// Bytes that a message of the backend may have.
    most: usize,
    due: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// The backend is asked.
    Opening,
    /// It has accepted.
    Open,
    /// It has closed, with this code and reason.
    Closed(u16, String),
    /// To be forgotten.
    Over,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Act {
    /// A request is answered.
    Answer(Caller, Page),
    /// The relay is told something, under this number.
    Tell(u32, Word),
    /// The log is told that something went beyond its bounds.
    Warn(Excess),
}

/// What is beyond the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// A message of the backend, which ends the session.
    #[error("a SockJS session is ended: a message of the backend has more than {0} bytes (backend_max_message_size)")]
    Message(usize),
    /// Messages for a client that does not poll, which end the session.
    #[error("a SockJS session is ended: more than {MAX_INCOMING} messages wait for a poll of its client")]
    Messages,
    /// Messages of a client, which are refused.
    #[error("messages of a SockJS client are refused with 400: they have more than {MAX_SEND} bytes")]
    Request,
    /// A session, which is refused.
    #[error("a SockJS session is refused with 503: there are {0} already (max_open_requests)")]
    Sessions(usize),
}

impl Excess {
    /// What its lines in the log are limited by.
    pub fn kind(self) -> &'static str {
        match self {
            Excess::Message(_) => "sockjs-message",
            Excess::Messages => "sockjs-messages",
            Excess::Request => "sockjs-request",
            Excess::Sessions(_) => "sockjs-sessions",
        }
    }
}

/// What a relay is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Word {
    /// A message, or a piece of one if more follows.
    Text(Bytes, bool),
    /// Bytes that it may send again.
    Credit(u32),
    /// The session lives.
    KeepAlive,
    /// The answer to its close.
    Close,
    /// The client is gone.
    Cancel,
}

impl Word {
    /// As a packet, without ids.
    pub fn packet(&self) -> Packet<'_> {
        let plain = |kind| Packet { kind, ..Packet::default() };
        match self {
            Word::Text(body, more) => Packet { body, more: *more, content_type: Some(b"text"), ..Packet::default() },
            Word::Credit(credits) => Packet { credits: Some(*credits), ..plain(Kind::Credit) },
            Word::KeepAlive => plain(Kind::KeepAlive),
            Word::Close => plain(Kind::Close),
            Word::Cancel => plain(Kind::Cancel),
        }
    }
}

impl Session {
    /// A session whose WebSocket is opened now, and whose client waits for that.
    /// Messages of the backend may have `most` bytes.
    pub fn open(caller: Caller, callback: Option<Box<[u8]>>, most: usize, now: Instant) -> Self {
        Session {
            link: Link::start(Protocol::WebSocket, INITIAL_BODY as u32, now),
            phase: Phase::Opening,
            receiver: Some((caller, callback)),
            sender: None,
            outgoing: VecDeque::new(),
            incoming: Vec::new(),
            unfinished: BytesMut::new(),
            most,
            due: now + 2 * HEARTBEAT,
        }
    }

    /// Whether it can be forgotten.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// The client asks for what there is to say.
    pub fn receive(&mut self, caller: Caller, callback: Option<Box<[u8]>>, now: Instant, acts: &mut Vec<Act>) {
        if self.receiver.is_some() {
            let frame = closing(2010, "Another connection still open");
            return acts.push(Act::Answer(caller, page::frame(&frame, callback.as_deref())));
        }
        self.receiver = Some((caller, callback));
        if self.phase == Phase::Open {
            self.due = now + HEARTBEAT;
        }
        self.deliver(now, acts);
    }

    /// The client has messages for the backend, or something that is none.
    pub fn send(&mut self, caller: Caller, messages: Option<Vec<Bytes>>, acts: &mut Vec<Act>) {
        // A message may cross the end: who sends it must not take that for a failure of the network.
        if let Phase::Closed(code, reason) = &self.phase {
            return acts.push(Act::Answer(caller, page::frame(&closing(*code, reason), None)));
        }
        let refusal = match messages {
            _ if self.phase != Phase::Open => {
                return acts.push(Act::Answer(caller, page::text(404, "Not Found", "Not Found\n")));
            }
            None => "Payload expected\n",
            Some(_) if self.sender.is_some() => "Already sending\n",
            Some(messages) if messages.iter().map(Bytes::len).sum::<usize>() > MAX_SEND => {
                acts.push(Act::Warn(Excess::Request));
                "Message too large\n"
            }
            Some(messages) => {
                self.outgoing.extend(messages);
                self.sender = Some(caller);
                return self.pump(acts);
            }
        };
        acts.push(Act::Answer(caller, page::text(400, "Bad Request", refusal)));
    }

    /// Sends what credits allow, and answers when nothing is left.
    fn pump(&mut self, acts: &mut Vec<Act>) {
        while let Some(message) = self.outgoing.front_mut() {
            let credits = self.link.credits() as usize;
            let piece = message.split_to(message.len().min(credits));
            let more = !message.is_empty();
            if more && piece.is_empty() {
                return;
            }
            let Some(to) = self.link.send_body(piece.len()) else { return };
            acts.push(Act::Tell(to.seq, Word::Text(piece, more)));
            if !more {
                self.outgoing.pop_front();
            }
        }
        if let Some(caller) = self.sender.take() {
            acts.push(Act::Answer(caller, page::text(200, "OK", "ok")));
        }
    }

    /// The client does not wait any more for an answer.
    pub fn lost(&mut self, caller: &Caller, acts: &mut Vec<Act>) {
        if self.receiver.take_if(|(waiting, _)| waiting == caller).is_some() {
            self.end(acts);
        }
        self.sender.take_if(|waiting| waiting == caller);
    }

    fn end(&mut self, acts: &mut Vec<Act>) {
        if matches!(self.phase, Phase::Opening | Phase::Open)
            && let Some(to) = self.link.send()
        {
            acts.push(Act::Tell(to.seq, Word::Cancel));
        }
        self.over(acts);
    }

    fn over(&mut self, acts: &mut Vec<Act>) {
        self.phase = Phase::Over;
        let waiting = self.receiver.take().map(|(caller, _)| caller).into_iter().chain(self.sender.take());
        let gone = || page::text(410, "Gone", "Session terminated\n");
        acts.extend(waiting.map(|caller| Act::Answer(caller, gone())));
    }

    /// Takes in a packet of the relay.
    pub fn on_packet(
        &mut self,
        packet: &Packet<'_>,
        from: Option<PeerId>,
        seq: Option<u32>,
        now: Instant,
        acts: &mut Vec<Act>,
    ) {
        match self.link.on_packet(packet, from, seq, now) {
            Ok(Outcome::Data) if self.phase == Phase::Opening => {
                self.phase = Phase::Open;
                self.due = now + AWAY;
                self.answer("o", acts);
            }
            Ok(Outcome::Data) => self.on_data(packet, now, acts),
            Ok(Outcome::Control) if packet.kind == Kind::Close => {
                let reason = match packet.body {
                    b"" => "Connection closed".into(),
                    text => String::from_utf8_lossy(text).into_owned(),
                };
                if let Some(to) = self.link.send() {
                    acts.push(Act::Tell(to.seq, Word::Close));
                }
                let code = packet.code.unwrap_or(0);
                let frame = closing(code, &reason);
                self.phase = Phase::Closed(code, reason);
                self.due = now + AWAY;
                let sender = self.sender.take();
                acts.extend(sender.map(|caller| Act::Answer(caller, page::frame(&frame, None))));
                self.deliver(now, acts);
            }
            // Nobody is there to answer a ping.
            Ok(Outcome::Control) => self.pass_on(packet.body.len(), now, acts),
            Ok(Outcome::Alive) => self.pass_on(0, now, acts),
            Ok(Outcome::Ended) if self.phase == Phase::Opening && packet.condition == Some(b"rejected") => {
                let rejection = Page::rejection(packet);
                if let Some((caller, _)) = self.receiver.take() {
                    acts.push(Act::Answer(caller, rejection));
                }
                self.over(acts);
            }
            // After a close it remembers what was said.
            Ok(Outcome::Ended) if matches!(self.phase, Phase::Closed(..)) => {}
            Ok(Outcome::Ended | Outcome::HandOff(_)) => self.over(acts),
            Err(_) => self.end(acts),
        }
        if self.phase == Phase::Open {
            self.pump(acts);
        }
    }

    fn on_data(&mut self, packet: &Packet<'_>, now: Instant, acts: &mut Vec<Act>) {
        let excess = if self.unfinished.len() + packet.body.len() > self.most {
            Some(Excess::Message(self.most))
        } else if self.incoming.len() >= MAX_INCOMING {
            Some(Excess::Messages)
        } else {
            None
        };
        if let Some(excess) = excess {
            acts.push(Act::Warn(excess));
            return self.end(acts);
        }
        self.unfinished.extend_from_slice(packet.body);
        if packet.more {
            return self.pass_on(packet.body.len(), now, acts);
        }
        // Its other pieces have been granted already.
        self.incoming.push((std::mem::take(&mut self.unfinished).freeze(), packet.body.len()));
        self.deliver(now, acts);
    }

    fn pass_on(&mut self, bytes: usize, now: Instant, acts: &mut Vec<Act>) {
        if let Grant::Now(to, credits) = self.link.pass_on(bytes, now) {
            acts.push(Act::Tell(to.seq, Word::Credit(credits)));
        }
    }

    fn answer(&mut self, frame: &str, acts: &mut Vec<Act>) {
        if let Some((caller, callback)) = self.receiver.take() {
            acts.push(Act::Answer(caller, page::frame(frame, callback.as_deref())));
        }
    }

    /// Answers the poll, if there is something to say.
    fn deliver(&mut self, now: Instant, acts: &mut Vec<Act>) {
        if self.receiver.is_none() {
            return;
        }
        if !self.incoming.is_empty() {
            let messages = std::mem::take(&mut self.incoming);
            let texts: Vec<_> = messages.iter().map(|(message, _)| String::from_utf8_lossy(message)).collect();
            self.answer(&format!("a{}", serde_json::json!(texts)), acts);
            if self.phase == Phase::Open {
                self.due = now + AWAY;
            }
            self.pass_on(messages.iter().map(|(_, owed)| owed).sum(), now, acts);
        } else if let Phase::Closed(code, reason) = &self.phase {
            let frame = closing(*code, reason);
            self.answer(&frame, acts);
        }
    }

    /// When [`Session::on_timer`] has something to do.
    pub fn next_due(&self) -> Instant {
        let link = match self.phase {
            Phase::Opening | Phase::Open => Some(self.link.next_due().min(self.link.grant_due().unwrap_or(self.due))),
            Phase::Closed(..) | Phase::Over => None,
        };
        link.map_or(self.due, |link| link.min(self.due))
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant, acts: &mut Vec<Act>) {
        if now >= self.due {
            if self.phase != Phase::Open || self.receiver.is_none() {
                return self.end(acts);
            }
            self.answer("h", acts);
            self.due = now + AWAY;
        }
        if matches!(self.phase, Phase::Closed(..) | Phase::Over) {
            return;
        }
        if self.link.grant_due().is_some_and(|at| at <= now)
            && let Some((to, credits)) = self.link.grant()
        {
            acts.push(Act::Tell(to.seq, Word::Credit(credits)));
        }
        loop {
            match self.link.on_timer(now) {
                Due::Nothing => return,
                Due::KeepAlive(to) => acts.push(Act::Tell(to.seq, Word::KeepAlive)),
                Due::Expired => return self.over(acts),
                Due::Spent => return self.end(acts),
            }
        }
    }
}

/// The frame of an end.
fn closing(code: u16, reason: &str) -> String {
    format!("c{}", serde_json::json!([code, reason]))
}

#[cfg(test)]
mod tests {
    use zhttp::{Id, Ids, Peers};

    use super::*;

    const MOST: usize = 1000;

    struct Polls {
        session: Session,
        relay: Option<PeerId>,
        seq: u32,
        now: Instant,
        calls: u64,
    }

    impl Polls {
        fn opening() -> Self {
            let now = Instant::now();
            let relay = Peers::default().intern(b"relay");
            Polls { session: Session::open(caller(0), None, MOST, now), relay, seq: 0, now, calls: 0 }
        }

        fn open() -> Self {
            let mut polls = Polls::opening();
            let acts = polls.packet(Packet { code: Some(101), credits: Some(100), ..Packet::default() });
            assert_eq!(acts, [Act::Answer(caller(0), page::text(200, "OK", "o\n"))]);
            polls
        }

        fn packet(&mut self, packet: Packet<'_>) -> Vec<Act> {
            let id = Id::indexed(0, 1);
            let packet = Packet { ids: Ids::One(id.as_bytes(), Some(self.seq)), ..packet };
            self.seq += 1;
            let mut acts = Vec::new();
            self.session.on_packet(&packet, self.relay, packet.ids.single().unwrap().1, self.now, &mut acts);
            acts
        }

        fn says(&mut self, body: &[u8]) -> Vec<Act> {
            self.packet(Packet { body, content_type: Some(b"text"), ..Packet::default() })
        }

        fn polled(&mut self) -> Vec<Act> {
            self.calls += 1;
            let mut acts = Vec::new();
            self.session.receive(caller(self.calls), None, self.now, &mut acts);
            acts
        }

        fn send(&mut self, number: u64, messages: &[&'static str]) -> Vec<Act> {
            let mut acts = Vec::new();
            self.session.send(
                caller(number),
                Some(messages.iter().map(|text| Bytes::from(*text)).collect()),
                &mut acts,
            );
            acts
        }

        fn wait(&mut self, seconds: u64) -> Vec<Act> {
            self.now += Duration::from_secs(seconds);
            let mut acts = Vec::new();
            self.session.on_timer(self.now, &mut acts);
            acts
        }
    }

    fn caller(serial: u64) -> Caller {
        Caller { index: 0, serial }
    }

    fn answer(serial: u64, body: &str) -> Act {
        Act::Answer(caller(serial), page::text(200, "OK", body))
    }

    fn refusal(serial: u64, code: u16, reason: &'static str, body: &str) -> Act {
        Act::Answer(caller(serial), page::text(code, reason, body))
    }

    fn text(seq: u32, body: &'static str, more: bool) -> Act {
        Act::Tell(seq, Word::Text(body.into(), more))
    }

    #[test]
    fn messages_back_to_back_go_together_in_the_next_answer() {
        let mut polls = Polls::open();
        assert_eq!(polls.polled(), []);
        assert_eq!(polls.says(b"one"), [answer(1, "a[\"one\"]\n")]);
        assert_eq!((polls.says(b"two"), polls.says(b"\"3\"")), (vec![], vec![]));
        assert_eq!(polls.polled(), [answer(2, "a[\"two\",\"\\\"3\\\"\"]\n")]);
        assert_eq!(polls.polled(), []);
    }

    #[test]
    fn a_second_poll_is_refused_and_the_first_goes_on() {
        let mut polls = Polls::open();
        polls.polled();
        assert_eq!(polls.polled(), [answer(2, "c[2010,\"Another connection still open\"]\n")]);
        assert_eq!(polls.says(b"x"), [answer(1, "a[\"x\"]\n")]);
    }

    #[test]
    fn a_request_with_messages_is_answered_when_the_last_has_left() {
        let mut polls = Polls::open();
        assert_eq!(polls.send(5, &["hello", ""]), [text(1, "hello", false), text(2, "", false), answer(5, "ok")]);
        assert_eq!(polls.send(6, &[]), [answer(6, "ok")]);
        let long = "x".repeat(96).leak();
        assert_eq!(polls.send(7, &[long]), [text(3, &long[..95], true)]);
        assert_eq!(polls.send(8, &["x"]), [refusal(8, 400, "Bad Request", "Already sending\n")]);
        let credit = Packet { kind: Kind::Credit, credits: Some(10), ..Packet::default() };
        assert_eq!(polls.packet(credit), [text(4, "x", false), answer(7, "ok")]);
        let large = "x".repeat(MAX_SEND + 1).leak();
        let refused = refusal(9, 400, "Bad Request", "Message too large\n");
        assert_eq!(polls.send(9, &[large]), [Act::Warn(Excess::Request), refused]);
    }

    #[test]
    fn what_are_no_messages_is_refused() {
        let mut acts = Vec::new();
        Polls::open().session.send(caller(1), None, &mut acts);
        assert_eq!(acts, [refusal(1, 400, "Bad Request", "Payload expected\n")]);
    }

    #[test]
    fn what_has_no_end_ends_the_session_with_a_line_in_the_log() {
        let mut polls = Polls::open();
        let whole = Packet { body: &[b'x'; MOST], content_type: Some(b"text"), more: true, ..Packet::default() };
        assert!(!polls.packet(whole).iter().any(|act| matches!(act, Act::Warn(_))));
        assert_eq!(polls.says(b"x"), [Act::Warn(Excess::Message(MOST)), Act::Tell(1, Word::Cancel)]);
        assert!(polls.session.is_over());

        let mut polls = Polls::open();
        for _ in 0..MAX_INCOMING {
            assert_eq!(polls.says(b""), []);
        }
        assert_eq!(polls.says(b""), [Act::Warn(Excess::Messages), Act::Tell(1, Word::Cancel)]);
        assert!(polls.session.is_over());
    }

    #[test]
    fn a_close_comes_behind_the_last_message_and_is_remembered_for_a_while() {
        let mut polls = Polls::open();
        polls.says(b"last");
        let close = Packet { kind: Kind::Close, code: Some(4001), body: b"over", ..Packet::default() };
        assert_eq!(polls.packet(close), [Act::Tell(1, Word::Close)]);
        assert_eq!(polls.polled(), [answer(1, "a[\"last\"]\n")]);
        for number in 2..4 {
            assert_eq!(polls.polled(), [answer(number, "c[4001,\"over\"]\n")]);
        }
        assert_eq!(polls.send(9, &["x"]), [answer(9, "c[4001,\"over\"]\n")]);
        assert_eq!((polls.wait(5), polls.session.is_over()), (vec![], true));
    }

    #[test]
    fn a_poll_gets_a_heartbeat_and_a_client_that_does_not_poll_is_gone() {
        let mut polls = Polls::open();
        polls.polled();
        assert_eq!(polls.wait(24), []);
        assert_eq!(polls.wait(1), [answer(1, "h\n")]);
        assert_eq!(polls.wait(4), []);
        assert_eq!(polls.wait(1), [Act::Tell(1, Word::Cancel)]);
        assert!(polls.session.is_over());
    }

    #[test]
    fn a_client_that_leaves_its_poll_is_gone_at_once() {
        let mut polls = Polls::open();
        polls.polled();
        let mut acts = Vec::new();
        polls.session.lost(&caller(7), &mut acts);
        assert_eq!(acts, []);
        polls.session.lost(&caller(1), &mut acts);
        assert_eq!(acts, [Act::Tell(1, Word::Cancel)]);
        assert!(polls.session.is_over());
    }

    #[test]
    fn a_refusal_is_the_answer_and_an_end_is_one() {
        let mut polls = Polls::opening();
        let rejected = Packet {
            kind: Kind::Error,
            condition: Some(b"rejected"),
            code: Some(403),
            reason: Some(b"Forbidden"),
            body: b"no\n",
            ..Packet::default()
        };
        let page = Page { headers: Vec::new(), ..page::text(403, "Forbidden", "no\n") };
        assert_eq!(polls.packet(rejected), [Act::Answer(caller(0), page)]);
        assert!(polls.session.is_over());

        let mut polls = Polls::open();
        polls.polled();
        let cancel = Packet { kind: Kind::Cancel, ..Packet::default() };
        assert_eq!(polls.packet(cancel), [refusal(1, 410, "Gone", "Session terminated\n")]);
        assert!(polls.session.is_over());
    }

    #[test]
    fn scripts_get_calls_of_their_function() {
        let frame = page::frame("a[\"x\"]", Some(b"cb"));
        assert_eq!(frame.body, b"/**/cb(\"a[\\\"x\\\"]\");\n");
    }
}
