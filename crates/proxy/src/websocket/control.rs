// SPDX-License-Identifier: AGPL-3.0-or-later
//! What proxy and handler tell each other about one WebSocket (internal RPC, ws-control).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rpc::ws_control::{Client, Item, Kind, Lane};

use super::record::{Record, Said};
use crate::handler::TIMEOUT;

/// Items for handlers, collected while something is done.
pub type Items = Vec<Item<'static>>;

/// How long the handler remembers a WebSocket that is not mentioned, in seconds.
const TTL: u32 = 60;
/// The first sign of life leaves so soon, so that a handler which missed the beginning says so.
const FIRST_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Between two of them.
const KEEP_ALIVE: Duration = Duration::from_secs(45);

/// One WebSocket, as the handler knows it.
#[derive(Debug)]
pub struct Control {
    next_request: u64,
    /// When answers to requests are due, the oldest first, with their numbers.
    // Mostly there is none, which takes a quarter of an empty queue.
    #[allow(clippy::box_collection)]
    unanswered: Option<Box<VecDeque<(u64, Instant)>>>,
    keep_alive_at: Instant,
    /// The client is to be sent something when it has been silent.
    idle: Option<Box<Idle>>,
    /// The handler has answered.
    known: bool,
    /// What a successor of the handler is to be told; none if nobody wants to know, or it would be too much.
    record: Option<Box<Record>>,
    naming: Naming,
    barrier: Barrier,
}

/// Whether the handler knows how far the client of a WebSocket is that a predecessor of ours had. What it sends before may have
/// something in front that was lost with the predecessor; it sends all of that behind its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// It is to be told.
    Due,
    /// It has been told, under this number, and has not answered yet.
    Asked(u64),
    /// It knows.
    Done,
}

/// What the handler is told about the order of its pushes and what we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Barrier {
    /// It can not push into the client's session.
    Never,
    /// It knows after how many of our packets its pushes come.
    Told,
    /// It is to be told when all before this place has left: only then it is known in how many packets.
    Owed(u64),
}

/// Where what we send to the client stands.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The place behind all that waits.
    pub end: u64,
    /// The number of the next packet, if nothing waits.
    pub clear: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Idle {
    after: Duration,
    /// Frames for the client begin it anew.
    by_silence: bool,
    /// `None` while the handler has been asked and nothing has come.
    due: Option<Instant>,
}

/// The handler is to be told of these with the WebSocket.
#[derive(Clone, Debug)]
pub struct Introduction<'a> {
    /// As the client has asked.
    pub uri: &'a [u8],
    /// The route's id.
    pub route: &'a str,
    /// The route is counted on its own.
    pub separate_stats: bool,
    /// Put before the names of channels.
    pub channel_prefix: &'a str,
    /// The backend may be on a private network.
    pub trusted: bool,
    /// The route lets clients see what is wrong.
    pub debug: bool,
    /// The client's session, if a second server may push into it.
    pub lane: Option<(Client<'static>, Lane)>,
}

impl Introduction<'_> {
    fn item(&self, cid: &[u8]) -> Item<'static> {
        let prefix = self.channel_prefix;
        let (client, lane) = self.lane.clone().unzip();
        Item {
            uri: Some(self.uri.to_vec().into()),
            route: Some(self.route.as_bytes().to_vec().into()),
            separate_stats: self.separate_stats,
            channel_prefix: (!prefix.is_empty()).then(|| prefix.as_bytes().to_vec().into()),
            trusted: self.trusted,
            debug: self.debug,
            ttl: Some(TTL),
            client,
            lane,
            ..item(Kind::Here, cid)
        }
    }
}

impl Control {
    /// Announces a WebSocket. `is_kept`: it stays when the handler ends.
    pub fn open(cid: &[u8], introduction: &Introduction<'_>, is_kept: bool, now: Instant, items: &mut Items) -> Self {
        items.push(introduction.item(cid));
        Control {
            record: is_kept.then(Box::default),
            next_request: 0,
            unanswered: None,
            keep_alive_at: now + FIRST_KEEP_ALIVE,
            idle: None,
            known: false,
            naming: Naming::Done,
            barrier: if introduction.lane.is_some() { Barrier::Told } else { Barrier::Never },
        }
    }

    /// One that a predecessor of this proxy has told the handler of, who has had its messages up to `run`. Requests have
    /// numbers from `first` on: none of the predecessor's may be taken for one of them.
    pub fn resume(said: impl Iterator<Item = Said>, known: bool, run: u64, first: u64, now: Instant) -> Self {
        Control {
            next_request: first,
            unanswered: Default::default(),
            keep_alive_at: now + FIRST_KEEP_ALIVE,
            idle: None,
            known,
            record: Some(Box::new(Record::restore(said, run))),
            naming: Naming::Due,
            barrier: Barrier::Never,
        }
    }

    /// What the backend has told the handler.
    pub fn said(&self) -> impl Iterator<Item = &Said> {
        self.record.iter().flat_map(|record| record.iter())
    }

    /// Whether the handler has ever answered: then it has state that is lost with it.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// Asks for something that the handler must answer in time.
    fn request(&mut self, cid: &[u8], kind: Kind, now: Instant) -> Item<'static> {
        let number = self.next_request;
        self.next_request += 1;
        self.unanswered.get_or_insert_default().push_back((number, now + TIMEOUT));
        Item { req_id: Some(number.to_string().into_bytes().into()), ..item(kind, cid) }
    }

    /// Whether a successor of the handler can be told all that is needed.
    pub fn is_kept(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.is_enough())
    }

    /// The handler has gone: it answers nothing any more.
    pub fn handler_left(&mut self) {
        self.unanswered = None;
        self.idle = None;
        if self.naming != Naming::Done {
            self.naming = Naming::Due;
        }
    }

    /// Whether the handler's messages come in order: it knows how far the client is.
    pub fn is_named(&self) -> bool {
        self.naming == Naming::Done
    }

    /// A message has come from the handler. `false` if it had come before.
    pub fn note_run(&mut self, run: u64) -> bool {
        let Some(record) = &mut self.record else { return true };
        let is_new = run > record.run;
        record.run = record.run.max(run);
        is_new
    }

    /// Tells a successor of the handler all that it needs to know.
    pub fn announce(&mut self, cid: &[u8], introduction: &Introduction<'_>, now: Instant, items: &mut Items) {
        let Some(mut record) = self.record.take() else { return };
        // A handler that does not know how far the client is may have answered nothing, and is told all again that lasts.
        self.unanswered = None;
        let mut named = Item { run: Some(record.run), ..introduction.item(cid) };
        if self.naming != Naming::Done {
            self.naming = Naming::Asked(self.next_request);
            named.req_id = self.request(cid, Kind::Here, now).req_id;
        }
        items.push(named);
        record.repeat(|said| {
            let number = self.next_request;
            match said {
                Said::Channel(channel) => self.ask_to_subscribe(cid, channel, None, now, items),
                Said::Instruction(message) => self.pass_on(cid, message, None, now, items),
            }
            number
        });
        self.keep_alive_at = now + FIRST_KEEP_ALIVE;
        self.record = Some(record);
    }

    /// Where pushes have to begin that a control message leads to, if that is known already.
    fn raise_barrier(&mut self, progress: Progress) -> Option<u32> {
        if self.barrier == Barrier::Never {
            return None;
        }
        self.barrier = if progress.clear.is_some() { Barrier::Told } else { Barrier::Owed(progress.end) };
        progress.clear
    }

    /// Something has left for the client, `next` is the number of the next packet; `has_left` says whether all before a
    /// place has.
    pub fn tell_barrier(&mut self, cid: &[u8], next: u32, has_left: impl Fn(u64) -> bool, items: &mut Items) {
        if let Barrier::Owed(place) = self.barrier
            && has_left(place)
        {
            self.barrier = Barrier::Told;
            // To a handler that does not know the key it is a sign of life.
            items.push(Item { ttl: Some(TTL), after: Some(next), ..item(Kind::KeepAlive, cid) });
        }
    }

    /// Passes on a control message of the backend; to a handler that is not told yet of the WebSocket, with that.
    pub fn instruct(&mut self, cid: &[u8], message: &[u8], progress: Progress, now: Instant, items: &mut Items) {
        let waits = self.naming == Naming::Due;
        if let Some(record) = &mut self.record {
            record.instruct(message, (!waits).then_some(self.next_request));
        }
        if waits {
            return;
        }
        let after = self.raise_barrier(progress);
        self.pass_on(cid, message, after, now, items);
    }

    fn pass_on(&mut self, cid: &[u8], message: &[u8], after: Option<u32>, now: Instant, items: &mut Items) {
        let request = self.request(cid, Kind::Grip, now);
        items.push(Item { message: Some(message.to_vec().into()), after, ..request });
    }

    /// Subscribes the WebSocket to a channel of the target, with the same exception.
    pub fn subscribe(&mut self, cid: &[u8], channel: &str, progress: Progress, now: Instant, items: &mut Items) {
        if let Some(record) = &mut self.record {
            record.subscribe(channel);
        }
        if self.naming == Naming::Due {
            return;
        }
        let after = self.raise_barrier(progress);
        self.ask_to_subscribe(cid, channel, after, now, items);
    }

    fn ask_to_subscribe(&mut self, cid: &[u8], channel: &str, after: Option<u32>, now: Instant, items: &mut Items) {
        let request = self.request(cid, Kind::Subscribe, now);
        items.push(Item { channel: Some(channel.as_bytes().to_vec().into()), after, ..request });
    }

    /// The handler has answered a request. Whether a successor of this proxy needs to know.
    pub fn on_ack(&mut self, number: &[u8]) -> bool {
        let is_first = !std::mem::replace(&mut self.known, true);
        let Some(number) = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok()) else {
            return is_first;
        };
        if self.naming == Naming::Asked(number) {
            self.naming = Naming::Done;
        }
        if let Some(unanswered) = &mut self.unanswered {
            unanswered.retain(|(waiting, _)| *waiting != number);
        }
        let is_done = self.record.as_mut().is_some_and(|record| record.answered(number));
        is_first || is_done
    }

    /// The handler wants to be told when the client has been sent nothing for so long; zero: no more. `jitter` spreads those of
    /// many, by an eighth of the time at most.
    pub fn on_keep_alive_setup(&mut self, seconds: u32, by_silence: bool, jitter: Duration, now: Instant) {
        let after = Duration::from_secs(seconds.into());
        let after = after - jitter.min(after / 8);
        self.idle = (seconds > 0).then(|| Box::new(Idle { after, by_silence, due: Some(now + after) }));
    }

    /// Something has left for the client.
    pub fn on_sent(&mut self, now: Instant) {
        if let Some(idle) = &mut self.idle
            && idle.by_silence
        {
            idle.due = Some(now + idle.after);
        }
    }

    /// When [`Control::on_timer`] has something to do.
    pub fn next_due(&self) -> Instant {
        let idle = self.idle.as_ref().and_then(|idle| idle.due);
        [self.answer_due(), idle].into_iter().flatten().fold(self.keep_alive_at, Instant::min)
    }

    /// Gives up room that is needed only while the handler is told something.
    pub fn rest(&mut self) {
        self.unanswered.take_if(|unanswered| unanswered.is_empty());
        if let Some(record) = &mut self.record {
            record.rest();
        }
    }

    /// When the oldest request must have been answered.
    fn answer_due(&self) -> Option<Instant> {
        self.unanswered.as_ref()?.front().map(|(_, due)| *due)
    }

    /// Does what is due. `false`: the handler has not answered in time, so the WebSocket can not go on.
    pub fn on_timer(&mut self, cid: &[u8], now: Instant, items: &mut Items) -> bool {
        if self.answer_due().is_some_and(|due| due <= now) {
            return false;
        }
        if self.keep_alive_at <= now {
            self.keep_alive_at = now + KEEP_ALIVE;
            items.push(Item { ttl: Some(TTL), ..item(Kind::KeepAlive, cid) });
        }
        if let Some(idle) = &mut self.idle
            && idle.due.is_some_and(|due| due <= now)
        {
            // By silence: what the handler sends now begins it anew.
            idle.due = (!idle.by_silence).then(|| now + idle.after);
            items.push(item(Kind::NeedKeepAlive, cid));
        }
        true
    }
}

/// An item with nothing but its type.
pub fn item(kind: Kind, cid: &[u8]) -> Item<'static> {
    Item::new(kind, cid.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAR: Progress = Progress { end: 0, clear: Some(1) };
    const INTRODUCTION: Introduction<'static> = Introduction {
        uri: b"u",
        route: "r",
        separate_stats: false,
        channel_prefix: "",
        trusted: false,
        debug: false,
        lane: None,
    };

    fn open(now: Instant, items: &mut Items) -> Control {
        let introduction = Introduction { uri: b"ws://localhost/", route: "*,*,*,*", ..INTRODUCTION };
        Control::open(b"c", &introduction, true, now, items)
    }

    #[test]
    fn it_is_announced_as_by_the_original() {
        let mut items = Items::new();
        open(Instant::now(), &mut items);
        let packet = rpc::ws_control::Packet { items, ..Default::default() };
        let expected =
            b"94:5:items,82:78:3:cid,1:c,4:type,4:here,3:uri,15:ws://localhost/,5:route,7:*,*,*,*,3:ttl,2:60#}]}";
        assert_eq!(packet.encode().unwrap(), expected, "{}", packet.encode().unwrap().escape_ascii());
    }

    #[test]
    fn a_trusted_target_and_a_route_with_debug_are_said_to_be_so() {
        let mut items = Items::new();
        for introduction in [INTRODUCTION, Introduction { trusted: true, debug: true, ..INTRODUCTION }] {
            Control::open(b"c", &introduction, true, Instant::now(), &mut items);
        }
        let said: Vec<_> = items.iter().map(|item| (item.trusted, item.debug)).collect();
        assert_eq!(said, [(false, false), (true, true)]);
    }

    #[test]
    fn a_request_that_is_not_answered_ends_it() {
        let (now, mut items) = (Instant::now(), Items::new());
        let mut control = open(now, &mut items);
        control.instruct(b"c", b"{}", CLEAR, now, &mut items);
        control.subscribe(b"c", "x", CLEAR, now, &mut items);
        control.on_ack(b"0");
        assert!(control.on_timer(b"c", now + Duration::from_secs(7), &mut items));
        assert!(!control.on_timer(b"c", now + Duration::from_secs(8), &mut items));
        control.on_ack(b"1");
        control.on_ack(b"x");
        assert!(control.on_timer(b"c", now + Duration::from_secs(8), &mut items) && control.is_known());
        let requests: Vec<_> = items.iter().filter_map(|item| item.req_id.as_deref()).collect();
        assert_eq!(requests, [b"0", b"1"]);
    }

    #[test]
    fn a_successor_is_told_what_its_predecessor_was_and_the_old_questions_are_forgotten() {
        let (now, mut items) = (Instant::now(), Items::new());
        let mut control = open(now, &mut items);
        control.subscribe(b"c", "x", CLEAR, now, &mut items);
        control.instruct(b"c", br#"{"type":"session","id":"s"}"#, CLEAR, now, &mut items);
        control.note_run(7);
        control.handler_left();
        let mut again = Items::new();
        let later = now + Duration::from_secs(9);
        control.announce(b"c", &INTRODUCTION, later, &mut again);
        assert!(control.on_timer(b"c", later, &mut Items::new()), "nobody answers for the predecessor");
        let told: Vec<_> = again.iter().map(|item| (item.kind, item.run, item.req_id.as_deref())).collect();
        let expected =
            [(Kind::Here, Some(7), None), (Kind::Subscribe, None, Some(&b"2"[..])), (Kind::Grip, None, Some(b"3"))];
        assert_eq!(told, expected);
    }

    #[test]
    fn nothing_is_said_of_a_websocket_before_the_handler_is_told_which_that_is() {
        let (now, mut items) = (Instant::now(), Items::new());
        let said = std::iter::empty();
        let mut control = Control::resume(said, true, 7, 100, now);
        let detach = br#"{"type":"detach"}"#;
        control.instruct(b"c", detach, CLEAR, now, &mut items);
        control.instruct(b"c", br#"{"type":"subscribe","channel":"x"}"#, CLEAR, now, &mut items);
        control.subscribe(b"c", "y", CLEAR, now, &mut items);
        assert_eq!(items, [], "who does not know it would end it");
        control.announce(b"c", &INTRODUCTION, now + Duration::from_secs(1), &mut items);
        let requests: Vec<_> = items.iter().filter_map(|item| item.req_id.as_deref()).collect();
        assert_eq!(requests, [b"100", b"101", b"102", b"103"]);
        assert_eq!(items[1].message.as_deref(), Some(&detach[..]));
        assert!(control.on_ack(b"101") && !control.on_ack(b"101"), "it need not be said again");
        for number in requests {
            control.on_ack(number);
        }
        assert!(control.is_named() && control.on_timer(b"c", now + Duration::from_secs(20), &mut Items::new()));
    }

    #[test]
    fn keep_alives_are_spread_by_an_eighth_of_their_time_at_most() {
        let (now, mut items) = (Instant::now(), Items::new());
        let mut control = open(now, &mut items);
        control.on_keep_alive_setup(1, true, Duration::from_millis(999), now);
        items.clear();
        control.on_timer(b"c", now + Duration::from_millis(874), &mut items);
        assert!(items.is_empty());
        control.on_timer(b"c", now + Duration::from_millis(875), &mut items);
        assert_eq!(items.len(), 1);
    }

    #[test]
    fn silence_is_told_once_until_something_is_sent_and_an_interval_each_time() {
        let (now, mut items) = (Instant::now(), Items::new());
        let at = |ms| now + Duration::from_millis(ms);
        for (by_silence, expected) in [(true, 2), (false, 3)] {
            let mut control = open(now, &mut items);
            items.clear();
            control.on_keep_alive_setup(2, by_silence, Duration::from_millis(250), now);
            control.on_timer(b"c", at(1749), &mut items);
            control.on_timer(b"c", at(1750), &mut items);
            control.on_timer(b"c", at(3500), &mut items);
            control.on_sent(at(3500));
            control.on_timer(b"c", at(5250), &mut items);
            let asked = items.iter().filter(|item| item.kind == Kind::NeedKeepAlive).count();
            assert_eq!(asked, expected);
            control.on_keep_alive_setup(0, by_silence, Duration::ZERO, at(4500));
            items.clear();
            control.on_timer(b"c", at(9000), &mut items);
            assert!(items.iter().all(|item| item.kind != Kind::NeedKeepAlive));
        }
    }
}
