// SPDX-License-Identifier: AGPL-3.0-or-later
//! All sessions that talk by polls, and which one a request or a packet is for.
//!
//! The engine hands over [`Event`]s, which wait in a queue while exchanges and relays work, and does the [`Work`] that comes of
//! them.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use routes::Route;
use tnetstring::Writer;
use zhttp::{Headers, INITIAL_BODY, Id, Ids, Packet, PeerId, Wheel};

use super::call::{Call, Caller, Verb};
use super::page::{self, Page};
use super::place::backend_path;
use super::session::{Act, Excess, Session, Word};
use crate::request::uri::{Scheme, Uri};

/// The name by which relays know the sessions' side. Instances can not have it, since theirs are printed.
pub const NAME: &[u8] = b"\0sockjs";
/// How exactly deadlines are kept.
const TICK: Duration = Duration::from_millis(20);

/// Something that concerns a session.
#[derive(Debug)]
pub enum Event {
    /// A request.
    Call(Box<Call>),
    /// The client of a request for the session of this name has gone.
    Lost(Rc<[u8]>, Caller),
    /// A relay's packet.
    Packet(Vec<u8>),
}

/// What the engine is to do.
#[derive(Debug)]
pub enum Work {
    /// Answer a request.
    Answer(Caller, Page),
    /// Tell a relay.
    Tell(Id, u32, Word),
    /// Open a WebSocket on a route.
    Open(Vec<u8>, Arc<Route>),
    /// Tell the log.
    Warn(Excess),
}

/// All sessions.
pub struct Table {
    sessions: HashMap<Rc<[u8]>, Entry>,
    names: HashMap<Id, Rc<[u8]>>,
    timers: Wheel<(Id, Instant)>,
    next: u64,
    /// Sessions that may be at a time.
    limit: usize,
    /// Bytes that a message of a backend may have.
    most: usize,
    writer: Writer,
}

struct Entry {
    id: Id,
    session: Session,
    timer: Option<Instant>,
}

/// Events that wait.
pub type Events = VecDeque<Event>;

impl Table {
    /// Without any; at most `limit` at a time. Messages of backends may have `most` bytes.
    pub fn new(limit: usize, most: usize, now: Instant) -> Self {
        Table {
            sessions: HashMap::new(),
            names: HashMap::new(),
            timers: Wheel::new(TICK, now),
            next: 0,
            limit,
            most,
            writer: Writer::default(),
        }
    }

    /// Takes in an event.
    pub fn handle(&mut self, event: Event, relays: Option<PeerId>, now: Instant) -> Vec<Work> {
        match event {
            Event::Call(call) => self.call(*call, now),
            Event::Lost(name, caller) => match self.sessions.get(&name).map(|entry| entry.id) {
                Some(id) => self.with(id, |session, acts| session.lost(&caller, acts)),
                None => Vec::new(),
            },
            Event::Packet(message) => {
                let Ok(packet) = Packet::decode(&message) else { return Vec::new() };
                let Some((id, seq)) = packet.ids.single() else { return Vec::new() };
                let Some(id) = Id::new(id) else { return Vec::new() };
                self.with(id, |session, acts| session.on_packet(&packet, relays, seq, now, acts))
            }
        }
    }

    fn call(&mut self, call: Call, now: Instant) -> Vec<Work> {
        let Call { caller, name, verb, route, request, scheme } = call;
        let known = self.sessions.get(&name).map(|entry| entry.id);
        match (known, verb) {
            (Some(id), Verb::Receive(callback)) => {
                self.with(id, |session, acts| session.receive(caller, callback, now, acts))
            }
            (Some(id), Verb::Send(messages)) => self.with(id, |session, acts| session.send(caller, messages, acts)),
            (None, Verb::Send(_)) => vec![Work::Answer(caller, page::text(404, "Not Found", "Not Found\n"))],
            (None, Verb::Receive(_)) if self.sessions.len() >= self.limit => {
                let page = page::text(503, "Service Unavailable", "Too many sessions\n");
                vec![Work::Warn(Excess::Sessions(self.limit)), Work::Answer(caller, page)]
            }
            (None, Verb::Receive(callback)) => {
                self.next += 1;
                let id = Id::indexed(0, self.next);
                let message = self.first_packet(&id, &request, scheme, &route);
                let session = Session::open(caller, callback, self.most, now);
                self.sessions.insert(name.clone(), Entry { id, session, timer: None });
                self.names.insert(id, name);
                let mut work = self.with(id, |_, _| {});
                work.push(Work::Open(message, route));
                work
            }
        }
    }

    /// The first packet of a session's WebSocket, which looks like the first request to the backend.
    fn first_packet(&mut self, id: &Id, request: &[u8], scheme: Scheme, route: &Route) -> Vec<u8> {
        let request = Packet::decode(request).unwrap_or_default();
        let headers: Vec<_> =
            request.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(b"Content-Length")).collect();
        let path = backend_path(route, false);
        let mut uri = Vec::new();
        if let Some(asked) = Uri::parse(request.uri.unwrap_or_default()) {
            Uri { scheme: Scheme::Ws.with_tls(scheme.is_secure()), path: &path, ..asked }.write(&mut uri);
        }
        let packet = Packet {
            from: NAME,
            ids: Ids::One(id.as_bytes(), Some(0)),
            method: Some(b"GET"),
            uri: Some(&uri),
            headers: Headers::Pairs(&headers),
            credits: Some(INITIAL_BODY as u32),
            peer_address: request.peer_address,
            peer_port: request.peer_port,
            ..Packet::default()
        };
        packet.encode(None, &mut self.writer).to_vec()
    }

    /// Lets a session do something, and forgets it if that was the last thing.
    fn with(&mut self, id: Id, act: impl FnOnce(&mut Session, &mut Vec<Act>)) -> Vec<Work> {
        let Some(name) = self.names.get(&id) else { return Vec::new() };
        let Some(entry) = self.sessions.get_mut(name) else { return Vec::new() };
        let mut acts = Vec::new();
        act(&mut entry.session, &mut acts);
        if entry.session.is_over() {
            self.sessions.remove(name);
            self.names.remove(&id);
        } else {
            let due = entry.session.next_due();
            if entry.timer.is_none_or(|timer| due < timer) {
                entry.timer = Some(due);
                self.timers.insert((id, due), due);
            }
        }
        let work = acts.into_iter().map(|act| match act {
            Act::Answer(caller, page) => Work::Answer(caller, page),
            Act::Tell(seq, word) => Work::Tell(id, seq, word),
            Act::Warn(excess) => Work::Warn(excess),
        });
        work.collect()
    }

    /// When [`Table::on_timer`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant) -> Vec<Work> {
        let mut work = Vec::new();
        while let Some((id, due)) = self.timers.pop(now) {
            let entry = self.names.get(&id).and_then(|name| self.sessions.get_mut(name));
            if let Some(entry) = entry.filter(|entry| entry.timer == Some(due)) {
                entry.timer = None;
                work.extend(self.with(id, |session, acts| session.on_timer(now, acts)));
            }
        }
        work
    }
}
