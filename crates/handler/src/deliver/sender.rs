// SPDX-License-Identifier: AGPL-3.0-or-later
//! From content to packets: equal content for many holds of a frontend goes out in common packets, what a hold can not
//! take yet waits on it and follows in the same way.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use foldhash::fast::RandomState;
use grip::StatusCode;
use zhttp::{Bulk, Ext, Headers, Ids, Kind, Packet, PeerId, Run};

use super::slow::{Slow, Verdict};
use crate::context::{Context, Way};
use crate::hold::Hold;
use crate::hold::queue::{PieceKey, Queue};
use crate::hold::table::Holds;
use crate::links::Links;
use crate::notice::Notice;
use crate::subscribe::audience::{Audience, Closing};
use crate::subscribe::channels::HoldKey;
use crate::websocket::reply::Reply;

/// In the key of a packet that is the last of its response.
const LAST: PieceKey = (usize::MAX, 0);
/// In that of a packet after which nothing waits for a hold whose frontend was told that something does.
const DRAINED: PieceKey = (usize::MAX, 1);
/// In that of a packet after which something waits, as the frontend has not been told.
const LAGS: PieceKey = (usize::MAX, 2);
/// In that of a packet that ends within a message.
const TORN: PieceKey = (usize::MAX, 3);

/// How a response begins.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    /// Status.
    pub code: StatusCode,
    /// Status text.
    pub reason: &'a [u8],
    /// Names and values of headers.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// What follows at once; within the credits of all who get it.
    pub body: &'a [u8],
    /// More follows.
    pub more: bool,
}

/// See the module.
pub struct Sender {
    /// Sessions that get the packet that is being put together.
    group: Bulk<Way>,
    /// Holds for which something waits that may perhaps leave.
    ready: Vec<HoldKey>,
    /// Of each frontend the first hold that can not take all of the messages that are being given. A successor must hear from
    /// the frontend that they have been sent, whether anybody takes all of them at once or not.
    partly: Vec<(PeerId, HoldKey)>,
    /// Holds that are too far behind, with their births.
    too_slow: Vec<(HoldKey, u64)>,
    slow: Slow,
    /// The number of the run that is being put together (ZHTTP, `ext.run`).
    pub run: u64,
    /// Messages in the packet that is being put together, as they stand in it. Empty: none that has an id.
    pub items: Vec<u8>,
    /// Clients closed because they read too slowly.
    pub slow_closed: u64,
}

impl Sender {
    /// A sender to which nothing has been given.
    pub fn new(slow: Slow) -> Self {
        Sender {
            group: Bulk::default(),
            ready: Vec::new(),
            partly: Vec::new(),
            too_slow: Vec::new(),
            slow,
            run: 1,
            items: Vec::new(),
            slow_closed: 0,
        }
    }

    /// Gives content to a stream: with the next packet of this content, or, if the client does not take all of it now, to
    /// wait. Until [`Sender::finish`] only the same content may be given.
    pub fn give(&mut self, key: HoldKey, content: &Bytes, holds: &mut Holds, links: &mut Links, cx: &mut Context<'_>) {
        let hold = &mut holds[key];
        hold.on_content(cx.now);
        if hold.takes(content.len()) && links.has_room(hold.session.client()) {
            let seq = hold.session.send_body(content.len()).seq;
            let (ext, peer, id) = (ext(self.run, &self.items), hold.session.client(), hold.session.id());
            let send = |peer, way: Way, ids: Ids<'_>| {
                send_content(peer, way, ids, content, way.lane == 0, ext, links, cx);
            };
            return self.group.push_or_send(peer, hold.way(), id, seq, send);
        }
        hold.enqueue(content.clone());
        let client = hold.session.client();
        if !self.items.is_empty() && hold.is_recorded && self.partly.iter().all(|(peer, _)| *peer != client) {
            self.partly.push((client, key));
        }
        if !hold.ready {
            self.look_at(key, holds);
        } else if self.slow.judge(key, hold, cx.now) == Verdict::Close {
            self.too_slow.push((key, hold.birth));
        }
    }

    /// Sends the content that has been given.
    pub fn finish(&mut self, content: &Bytes, holds: &mut Holds, links: &mut Links, cx: &mut Context<'_>) {
        let ext = ext(self.run, &self.items);
        self.group.drain(|peer, way, ids| {
            send_content(peer, way, ids, content, way.lane == 0, ext, links, cx);
        });
        for (peer, key) in self.partly.drain(..) {
            if !links.has_room(peer) {
                links.keep_unsaid(peer, self.run, &self.items);
                continue;
            }
            tell_of_messages(&mut holds[key], ext, links, cx);
        }
        self.items.clear();
    }

    /// Begins the responses of holds in the same way. What is to follow must be let wait by the caller.
    pub fn begin(
        &mut self,
        keys: impl Iterator<Item = HoldKey>,
        start: Start<'_>,
        audience: &mut Audience,
        cx: &mut Context<'_>,
    ) {
        let Audience { holds, links, .. } = audience;
        for key in keys {
            let hold = &mut holds[key];
            hold.lags |= start.more && hold.is_recorded;
            let seq = hold.session.send_body(start.body.len()).seq;
            self.group.push(hold.session.client(), hold.way(), hold.session.id(), seq);
        }
        // A successor can not go on with a response of which a part waits here.
        let ext = Ext { lag: start.more, ..ext(self.run, &self.items) };
        self.group.drain(|peer, way, ids| {
            let packet = Packet {
                ids,
                ext,
                code: Some(start.code.get()),
                reason: Some(start.reason),
                headers: Headers::Pairs(start.headers),
                body: start.body,
                more: start.more,
                ..Packet::default()
            };
            links.send(way.to(peer), &packet, cx);
        });
    }

    /// Has [`Sender::flush`] look at a hold: something waits for it, it has got credits, or it is to end.
    pub fn look_at(&mut self, key: HoldKey, holds: &mut Holds) {
        if let Some(hold) = holds.get_mut(key)
            && !std::mem::replace(&mut hold.ready, true)
        {
            self.ready.push(key);
        }
    }

    /// A frontend's link has room again, for which these holds have waited: it hears which messages have been sent meanwhile, and for
    /// whom they wait, and [`Sender::flush`] looks at them.
    pub fn on_room(
        &mut self,
        peer: PeerId,
        waiting: Vec<(HoldKey, u64)>,
        audience: &mut Audience,
        cx: &mut Context<'_>,
    ) {
        let mut still: Vec<HoldKey> = Vec::with_capacity(waiting.len());
        for (key, birth) in waiting {
            if let Some(hold) = audience.holds.get_mut(key).filter(|hold| hold.birth == birth) {
                hold.ready = false;
                still.push(key);
            }
        }
        if audience.links.has_room(peer) {
            self.tell_of_lag(&still, audience, cx);
            let Audience { holds, links, .. } = audience;
            let unsaid = links.take_unsaid(peer);
            // Whoever it had been for has gone if nobody is told of.
            if let Some(key) = still.iter().copied().find(|key| holds[*key].lags) {
                for (number, items) in unsaid {
                    tell_of_messages(&mut holds[key], ext(number, &items), links, cx);
                }
            }
        }
        still.into_iter().for_each(|key| self.look_at(key, &mut audience.holds));
    }

    /// Ends a stream's response after what waits for it.
    pub fn end(&mut self, key: HoldKey, holds: &mut Holds) {
        holds[key].ending = true;
        self.look_at(key, holds);
    }

    /// Sends what waits, as far as credits and links allow, ends what is to end, and closes those who are too slow.
    pub fn flush(&mut self, audience: &mut Audience, cx: &mut Context<'_>) {
        let mut seen = Vec::new();
        while !self.ready.is_empty() {
            let ready = std::mem::take(&mut self.ready);
            let packets = next_packets(&ready, audience);
            for packet in packets.chunk_by(|a, b| a.number == b.number) {
                self.send_equal(packet, audience, cx);
            }
            seen.extend(ready);
        }
        self.tell_of_lag(&seen, audience, cx);
        for key in seen {
            if let Some(hold) = audience.holds.get_mut(key)
                && self.slow.judge(key, hold, cx.now) == Verdict::Close
            {
                self.too_slow.push((key, hold.birth));
            }
        }
        self.close_slow(audience, cx);
        close_behind(audience, cx);
    }

    /// Tells frontends for which of their sessions something waits here.
    fn tell_of_lag(&mut self, seen: &[HoldKey], audience: &mut Audience, cx: &mut Context<'_>) {
        let Audience { holds, links, .. } = audience;
        let mut any = false;
        for &key in seen {
            if let Some(hold) =
                holds.get_mut(key).filter(|hold| hold.is_recorded && !hold.lags && hold.queue().is_some())
                && links.has_room(hold.session.client())
            {
                (hold.lags, any) = (true, true);
                let to = hold.session.send();
                self.group.push(to.to, hold.way(), hold.session.id(), to.seq);
            }
        }
        if !any {
            return;
        }
        self.group.drain(|peer, way, ids| {
            let ext = Ext { lag: true, ..Ext::default() };
            links.send(way.to(peer), &Packet { ids, kind: Kind::KeepAlive, ext, ..Packet::default() }, cx);
        });
    }

    /// Sends the same packet to holds whose queues begin with the same content.
    fn send_equal(&mut self, holds_of_packet: &[Next], audience: &mut Audience, cx: &mut Context<'_>) {
        let Some(first) = holds_of_packet.first() else { return };
        let content = audience.holds[first.key].queue().map(|queue| queue.peek(first.len)).unwrap_or_default();
        let mut ended = Vec::new();
        // It has got all that has left so far.
        let run = Run { number: self.run - 1, items: &[] };
        let ext = Ext { run: first.drained.then_some(run), lag: first.lags, ..Ext::default() };
        // A response goes on until its end, a message of a WebSocket until its own.
        let more = |way: Way| if way.lane == 0 { !first.last } else { first.torn };
        let Audience { holds, links, .. } = audience;
        for next in holds_of_packet {
            let hold = &mut holds[next.key];
            let (peer, way) = (hold.session.client(), hold.way());
            if !links.has_room(peer) {
                hold.ready = true;
                links.wait(peer, next.key, hold.birth);
                continue;
            }
            let seq = hold.send_queued(next.len);
            hold.lags = (hold.lags || next.lags) && !next.drained;
            let send = |peer, way, ids: Ids<'_>| send_content(peer, way, ids, &content, more(way), ext, links, cx);
            self.group.push_or_send(peer, way, hold.session.id(), seq, send);
            if next.last {
                ended.push(next.key);
            } else if hold.queue().is_some() {
                self.look_at(next.key, holds);
            }
        }
        self.group.drain(|peer, way, ids| send_content(peer, way, ids, &content, more(way), ext, links, cx));
        ended.into_iter().for_each(|key| audience.remove(key, cx));
    }

    fn close_slow(&mut self, audience: &mut Audience, cx: &mut Context<'_>) {
        for (key, birth) in std::mem::take(&mut self.too_slow) {
            let Some(hold) = audience.holds.get(key).filter(|hold| hold.birth == birth) else { continue };
            self.slow_closed += 1;
            cx.report(Notice::Slow { id: hold.session.id(), waiting: hold.queued() });
            audience.cancel(key, cx);
        }
    }

    /// Closes clients that have been behind for too long.
    pub fn on_timer(&mut self, audience: &mut Audience, cx: &mut Context<'_>) {
        while let Some((key, birth)) = self.slow.pop(cx.now) {
            if let Some(hold) = audience.holds.get_mut(key).filter(|hold| hold.birth == birth)
                && self.slow.judge(key, hold, cx.now) == Verdict::Close
            {
                self.too_slow.push((key, birth));
            }
        }
        self.close_slow(audience, cx);
    }

    /// When [`Sender::on_timer`] is to be called.
    pub fn next_due(&self) -> Option<Instant> {
        self.slow.next_due()
    }
}

/// Closes WebSockets for which nothing waits any more. The proxy is told, for it has the backend's side.
fn close_behind(audience: &mut Audience, cx: &mut Context<'_>) {
    let Audience { closing, holds, links, sockets, outbox, .. } = audience;
    closing.retain(|Closing { lane: (key, birth), code, reason }| {
        let Some(hold) = holds.get_mut(*key).filter(|hold| hold.birth == *birth) else { return false };
        let (peer, way, id) = (hold.session.client(), hold.way(), hold.session.id());
        if hold.queue().is_some() || hold.is_barred() || !links.has_room(peer) {
            return true;
        }
        let packet = Packet {
            ids: Ids::One(id.as_bytes(), Some(hold.session.send().seq)),
            kind: Kind::Close,
            ext: Ext { lane: way.lane, ..Ext::default() },
            code: code.and_then(|code| u16::try_from(code).ok()),
            body: reason.as_bytes(),
            ..Packet::default()
        };
        links.send(way.to(peer), &packet, cx);
        if let Some(socket) = hold.socket() {
            let reply = Reply::Close { code: *code, reason: reason.clone(), told: true };
            outbox.push(&sockets[socket].cid, reply, cx);
        }
        false
    });
}

/// A hold's next packet.
struct Next {
    /// Holds with the same number get the same packet.
    number: u32,
    key: HoldKey,
    len: usize,
    last: bool,
    /// It ends within a piece, and so perhaps within a message.
    torn: bool,
    /// Nothing waits any more for one whose frontend was told that something does.
    drained: bool,
    /// Something still waits for one whose frontend has not been told so. The packet says it, so that a part never comes without.
    lags: bool,
}

/// The next packets of holds, equal ones beside each other. Holds without credits are left out; those whose link has no
/// room wait for that.
fn next_packets(ready: &[HoldKey], audience: &mut Audience) -> Vec<Next> {
    let Audience { holds, links, .. } = audience;
    let mut numbers: HashMap<Vec<PieceKey>, u32, RandomState> = HashMap::default();
    let mut all = Vec::with_capacity(ready.len());
    let mut keys = Vec::new();
    for &key in ready {
        let Some(hold) = holds.get_mut(key) else { continue };
        hold.ready = false;
        if hold.queue().is_none() && !hold.ending || hold.is_barred() {
            continue;
        }
        if !links.has_room(hold.session.client()) {
            hold.ready = true;
            links.wait(hold.session.client(), key, hold.birth);
            continue;
        }
        let len = hold.queue().map_or(0, |queue| queue.next_len(hold.session.credits() as usize));
        if len == 0 && hold.queue().is_some() {
            continue;
        }
        let last = hold.ending && len == hold.queued();
        let torn = hold.queue().is_some_and(|queue| !queue.is_whole(len));
        let drained = hold.lags && !hold.ending && len == hold.queued();
        let lags = hold.is_recorded && !hold.lags && len < hold.queued();
        keys.clear();
        hold.queue().into_iter().for_each(|queue: &Queue| queue.keys(len, &mut keys));
        keys.extend(last.then_some(LAST));
        keys.extend(torn.then_some(TORN));
        keys.extend(drained.then_some(DRAINED));
        keys.extend(lags.then_some(LAGS));
        let number = match numbers.get(&keys[..]) {
            Some(&number) => number,
            None => {
                let number = numbers.len() as u32;
                numbers.insert(keys.clone(), number);
                number
            }
        };
        all.push(Next { number, key, len, last, torn, drained, lags });
    }
    all.sort_by_key(|next| next.number);
    all
}

/// Tells a frontend of messages that have been sent, by a hold for which something of them waits.
fn tell_of_messages(hold: &mut Hold, ext: Ext<'_>, links: &mut Links, cx: &mut Context<'_>) {
    hold.lags = true;
    let to = hold.session.send();
    let ids = Ids::One(hold.session.id_bytes(), Some(to.seq));
    let ext = Ext { lag: true, ..ext };
    links.send(hold.address(), &Packet { ids, kind: Kind::KeepAlive, ext, ..Packet::default() }, cx);
}

/// Says which messages a packet brings, if any of them has an id.
fn ext(number: u64, items: &[u8]) -> Ext<'_> {
    Ext { run: (!items.is_empty()).then_some(Run { number, items }), ..Ext::default() }
}

#[allow(clippy::too_many_arguments)]
fn send_content(
    peer: zhttp::PeerId,
    way: Way,
    ids: Ids<'_>,
    content: &Bytes,
    more: bool,
    ext: Ext<'_>,
    links: &mut Links,
    cx: &mut Context<'_>,
) {
    let ext = Ext { lane: way.lane, ..ext };
    links.send(way.to(peer), &Packet { ids, ext, body: content, more, ..Packet::default() }, cx);
}
