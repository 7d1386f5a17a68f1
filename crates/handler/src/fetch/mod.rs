// SPDX-License-Identifier: AGPL-3.0-or-later
//! Requests that the handler makes itself, by way of a proxy (internal RPC, internal HTTP requests): next links, gone links, filters.
//!
//! Each is a ZHTTP session of which this is the client. So many run at a time, and so many of filters beside them, so that
//! neither waits for the other's backends. Others wait their turn: those of next links and of filters without limit, since there
//! is no more than one for each cohort and for each class.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::fast::RandomState;
use slab::Slab;
use zhttp::session::Protocol;
use zhttp::session::client::{Due, Grant, Outcome, Outgoing, Session};
use zhttp::{Ext, Headers, Id, Ids, Kind, Packet, PeerId, Wheel};

use crate::context::Context;
use crate::notice::Notice;
use crate::subscribe::channels::CohortKey;

/// How exactly deadlines are kept.
const TICK: Duration = Duration::from_millis(50);
/// How long a proxy may take to say that it has a request.
const ANSWER: Duration = Duration::from_secs(8);
/// The same once a proxy has gone that may have had it.
const DOUBT: Duration = Duration::from_secs(1);
/// Body bytes that a response may be ahead of whoever gets it.
const WINDOW: u32 = 200_000;

/// Whom a response is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The next page of these streams.
    Page(CohortKey),
    /// The filters of a class of subscribers, by the number of the queue in which its messages wait.
    Filter(u64),
    /// Nobody: the backend is only told.
    Gone,
}

impl Purpose {
    fn is_filter(self) -> bool {
        matches!(self, Purpose::Filter(_))
    }
}

/// A request to be made.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Whom the response is for.
    pub purpose: Purpose,
    /// Absolute URI.
    pub uri: String,
    /// What the clients have: values of `Grip-Last`.
    pub grip_last: Vec<String>,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The content.
    pub body: Bytes,
    /// How the proxy is to treat it (`rpc::passthrough`).
    pub passthrough: Vec<u8>,
}

impl Ask {
    /// One without content, and with no headers of its own.
    pub fn new(purpose: Purpose, uri: String, passthrough: Vec<u8>) -> Self {
        Ask { purpose, uri, grip_last: Vec::new(), headers: Vec::new(), body: Bytes::new(), passthrough }
    }

    /// The request's method.
    pub fn method(&self) -> &'static str {
        match self.purpose {
            Purpose::Page(_) => "GET",
            Purpose::Filter(_) | Purpose::Gone => "POST",
        }
    }
}

/// A request under way, or one that waits for its turn.
pub type FetchKey = u64;

/// What a packet means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The response, or more of it; without `more` the request is over.
    Response,
    /// There is no response, or no more of it, and there will be none: the request is over.
    Failed,
}

/// News of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// The request.
    pub key: FetchKey,
    /// Whom it is for.
    pub purpose: Purpose,
    /// What has come.
    pub what: What,
}

struct Fetch {
    key: FetchKey,
    purpose: Purpose,
    session: Session,
    /// When a proxy must have said that it has the request.
    answer_by: Instant,
    /// A packet to the proxy was not taken: the session can not go on.
    broken: bool,
    /// When the timer comes up; others in the wheel are stale.
    watched: Option<Instant>,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests made.
    pub made: u64,
    /// Requests that no response has come for, or not all of it.
    pub failed: u64,
    /// Gone links of which the backend was not told because too many waited.
    pub dropped: u64,
}

/// See the module.
pub struct Fetches {
    table: Slab<Fetch>,
    /// Where those are that run.
    places: HashMap<FetchKey, usize, RandomState>,
    waiting: VecDeque<(FetchKey, Ask)>,
    /// The same for those of filters.
    waiting_filters: VecDeque<(FetchKey, Ask)>,
    /// How many of those that run are of filters.
    filters: usize,
    /// How many of them are for nobody.
    waiting_gone: usize,
    keys: FetchKey,
    max: usize,
    max_waiting_gone: usize,
    max_filters: usize,
    timers: Wheel<(usize, FetchKey, Instant)>,
    /// Counters for statistics.
    pub totals: Totals,
}

impl Fetches {
    /// At most `max` run at a time, and `max_filters` of filters; at most `max_waiting_gone` gone links wait.
    pub fn new(max: usize, max_waiting_gone: usize, max_filters: usize, now: Instant) -> Self {
        Fetches {
            table: Slab::new(),
            places: HashMap::default(),
            waiting: VecDeque::new(),
            waiting_filters: VecDeque::new(),
            filters: 0,
            waiting_gone: 0,
            keys: 0,
            max: max.max(1),
            max_waiting_gone,
            max_filters: max_filters.max(1),
            timers: Wheel::new(TICK, now),
            totals: Totals::default(),
        }
    }

    /// How many run or wait.
    pub fn len(&self) -> usize {
        self.table.len() + self.waiting.len() + self.waiting_filters.len()
    }

    /// Whether none runs or waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes a request as soon as there is room. Failures are told by [`Fetches::on_timer`] at the earliest, so that whoever
    /// asks can note the key.
    pub fn ask(&mut self, ask: Ask, cx: &mut Context<'_>) -> FetchKey {
        self.keys += 1;
        if ask.purpose == Purpose::Gone {
            if self.waiting_gone >= self.max_waiting_gone {
                self.totals.dropped += 1;
                cx.report(Notice::GoneDropped { limit: self.max_waiting_gone });
                return self.keys;
            }
            self.waiting_gone += 1;
        }
        let key = self.keys;
        self.lane(ask.purpose).push_back((key, ask));
        self.start(cx);
        key
    }

    /// Where those wait that are made for this.
    fn lane(&mut self, purpose: Purpose) -> &mut VecDeque<(FetchKey, Ask)> {
        match purpose {
            Purpose::Filter(_) => &mut self.waiting_filters,
            Purpose::Page(_) | Purpose::Gone => &mut self.waiting,
        }
    }

    /// The next one for which there is room.
    fn next(&mut self) -> Option<(FetchKey, Ask)> {
        let filter = match self.filters < self.max_filters {
            true => self.waiting_filters.pop_front(),
            false => None,
        };
        match self.table.len() - self.filters < self.max {
            true => filter.or_else(|| self.waiting.pop_front()),
            false => filter,
        }
    }

    /// Starts what waits, as far as there is room.
    fn start(&mut self, cx: &mut Context<'_>) {
        while let Some((key, ask)) = self.next() {
            self.waiting_gone -= usize::from(ask.purpose == Purpose::Gone);
            self.filters += usize::from(ask.purpose.is_filter());
            let index = self.table.vacant_key();
            let id = Id::indexed(index as u32, key);
            let mut headers: Vec<(&[u8], &[u8])> = Vec::with_capacity(ask.grip_last.len() + ask.headers.len());
            headers.extend(ask.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
            headers.extend(ask.grip_last.iter().map(|value| (&b"Grip-Last"[..], value.as_bytes())));
            let packet = Packet {
                ids: Ids::One(id.as_bytes(), Some(0)),
                ext: Ext { coded: true, ..Ext::MULTI },
                method: Some(ask.method().as_bytes()),
                uri: Some(ask.uri.as_bytes()),
                headers: Headers::Pairs(&headers),
                body: &ask.body,
                stream: true,
                router_resp: true,
                credits: Some(WINDOW),
                passthrough: Some(&ask.passthrough),
                ..Packet::default()
            };
            self.totals.made += 1;
            // One that was not taken fails with the next look at the timers.
            let patience = if cx.actions.open(&packet) { ANSWER } else { Duration::ZERO };
            let fetch = Fetch {
                key,
                purpose: ask.purpose,
                session: Session::start(Protocol::Http, WINDOW, cx.now),
                answer_by: cx.now + patience,
                broken: false,
                watched: None,
            };
            self.table.insert(fetch);
            self.places.insert(key, index);
            self.watch(index);
        }
    }

    /// Gives a request up; nothing more is told of it.
    pub fn cancel(&mut self, key: FetchKey, cx: &mut Context<'_>) {
        for lane in [&mut self.waiting_filters, &mut self.waiting] {
            if let Some(at) = lane.iter().position(|(waiting, _)| *waiting == key) {
                lane.remove(at);
                return;
            }
        }
        let Some(&index) = self.places.get(&key) else { return };
        self.tell_end(index, cx);
        self.remove(index);
        self.start(cx);
    }

    fn remove(&mut self, index: usize) -> Fetch {
        let fetch = self.table.remove(index);
        self.places.remove(&fetch.key);
        self.filters -= usize::from(fetch.purpose.is_filter());
        fetch
    }

    fn tell_end(&mut self, index: usize, cx: &mut Context<'_>) {
        if let Some(to) = self.table[index].session.send() {
            self.send(index, to, Packet { kind: Kind::Cancel, ..Packet::default() }, cx);
        }
    }

    fn send(&self, index: usize, to: Outgoing, packet: Packet<'_>, cx: &mut Context<'_>) -> bool {
        let id = Id::indexed(index as u32, self.table[index].key);
        cx.actions.to_proxy(to.to, &Packet { ids: Ids::One(id.as_bytes(), Some(to.seq)), ..packet })
    }

    /// Takes in a packet of a proxy for one of the sessions that it names. The response's content is the packet's.
    pub fn on_packet(
        &mut self,
        from: Option<PeerId>,
        id: &[u8],
        seq: Option<u32>,
        packet: &Packet<'_>,
        cx: &mut Context<'_>,
    ) -> Option<News> {
        let (index, key) = Id::parse_indexed(id)?;
        let index = index as usize;
        let fetch = self.table.get_mut(index).filter(|fetch| fetch.key == key)?;
        let purpose = fetch.purpose;
        let news = |what| Some(News { key, purpose, what });
        match fetch.session.on_packet(packet, from, seq, cx.now) {
            Ok(Outcome::Alive | Outcome::Control) => {
                self.pass_on_at(index, 0, cx);
                None
            }
            Ok(Outcome::Data) => {
                if !packet.more {
                    self.remove(index);
                }
                news(What::Response)
            }
            Ok(Outcome::Ended) => {
                self.remove(index);
                self.totals.failed += 1;
                news(What::Failed)
            }
            Ok(Outcome::HandOff(_)) | Err(_) => {
                self.tell_end(index, cx);
                self.remove(index);
                self.totals.failed += 1;
                news(What::Failed)
            }
        }
    }

    /// Bytes of a response have left: as many more may come.
    pub fn pass_on(&mut self, key: FetchKey, bytes: usize, cx: &mut Context<'_>) {
        if let Some(&index) = self.places.get(&key) {
            self.pass_on_at(index, bytes, cx);
        }
    }

    fn pass_on_at(&mut self, index: usize, bytes: usize, cx: &mut Context<'_>) {
        match self.table[index].session.pass_on(bytes, cx.now) {
            Grant::Now(to, credits) => self.grant(index, to, credits, cx),
            Grant::Later => self.watch(index),
            Grant::Nothing => {}
        }
    }

    fn grant(&mut self, index: usize, to: Outgoing, credits: u32, cx: &mut Context<'_>) {
        let packet = Packet { kind: Kind::Credit, credits: Some(credits), ..Packet::default() };
        if !self.send(index, to, packet, cx) {
            // Its number is lost, and the session with it; that is told with the next look at the timers.
            self.table[index].broken = true;
            self.watch(index);
        }
    }

    fn watch(&mut self, index: usize) {
        let Some(fetch) = self.table.get_mut(index) else { return };
        let unanswered = (!fetch.session.is_answered() || fetch.broken).then_some(fetch.answer_by);
        let due =
            [fetch.session.grant_due(), unanswered].into_iter().flatten().fold(fetch.session.next_due(), Instant::min);
        if fetch.watched.is_none_or(|watched| due < watched) {
            fetch.watched = Some(due);
            self.timers.insert((index, fetch.key, due), due);
        }
    }

    /// A proxy is gone, and what it had with it.
    pub fn on_proxy_gone(&mut self, peer: PeerId, cx: &mut Context<'_>) -> Vec<News> {
        let mut lost = Vec::new();
        for (index, fetch) in &mut self.table {
            match fetch.session.server() {
                Some(server) if server == peer => lost.push(index),
                None => fetch.answer_by = fetch.answer_by.min(cx.now + DOUBT),
                Some(_) => {}
            }
        }
        let indexes: Vec<usize> = self.table.iter().map(|(index, _)| index).collect();
        let news = lost.into_iter().map(|index| self.fail(index)).collect();
        indexes.into_iter().for_each(|index| self.watch(index));
        self.start(cx);
        news
    }

    fn fail(&mut self, index: usize) -> News {
        self.totals.failed += 1;
        let fetch = self.remove(index);
        News { key: fetch.key, purpose: fetch.purpose, what: What::Failed }
    }

    /// When [`Fetches::on_timer`] is to be called.
    pub fn next_due(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what is due; returns the requests that have failed.
    pub fn on_timer(&mut self, cx: &mut Context<'_>) -> Vec<News> {
        let mut news = Vec::new();
        while let Some((index, key, due)) = self.timers.pop(cx.now) {
            let Some(fetch) = self.table.get_mut(index) else { continue };
            if fetch.key != key || fetch.watched != Some(due) {
                continue;
            }
            fetch.watched = None;
            if fetch.broken || (cx.now >= fetch.answer_by && !fetch.session.is_answered()) {
                news.push(self.fail(index));
                continue;
            }
            match fetch.session.on_timer(cx.now) {
                Due::Nothing => {}
                Due::KeepAlive(to) => {
                    let packet = Packet { kind: Kind::KeepAlive, ext: Ext::MULTI, ..Packet::default() };
                    self.table[index].broken = !self.send(index, to, packet, cx);
                }
                Due::Expired => {
                    news.push(self.fail(index));
                    continue;
                }
                Due::Spent => {
                    self.tell_end(index, cx);
                    news.push(self.fail(index));
                    continue;
                }
            }
            let fetch = &mut self.table[index];
            if fetch.session.grant_due().is_some_and(|due| due <= cx.now)
                && let Some((to, credits)) = fetch.session.grant()
            {
                self.grant(index, to, credits, cx);
            }
            self.watch(index);
        }
        self.start(cx);
        news
    }

    /// Starts what waits for its turn. To be called when requests may have ended.
    pub fn settle(&mut self, cx: &mut Context<'_>) {
        if !self.waiting.is_empty() || !self.waiting_filters.is_empty() {
            self.start(cx);
        }
    }

    /// Tells the proxies that nobody wants what is under way.
    pub fn shut_down(&mut self, cx: &mut Context<'_>) {
        let indexes: Vec<usize> = self.table.iter().map(|(index, _)| index).collect();
        indexes.into_iter().for_each(|index| self.tell_end(index, cx));
        self.table.clear();
        self.places.clear();
        self.waiting.clear();
        self.waiting_filters.clear();
        self.filters = 0;
    }
}
