//! From a published item to packets for its receivers.
//!
//! One packet serves up to 128 sessions of a frontend. Items for the streams of one channel that come one after the other
//! are joined into a [`Run`] and leave together at the end of the turn, so that a burst costs each client one write.
//! Clients that are short of credits get theirs later from a queue of their own (publishing, fan-out).

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use foldhash::fast::RandomState;
use grip::{Action, HoldMode, HttpResponse, Item, ResponseBody};
use zhttp::{Bulk, Headers, Ids, Packet, PeerId};

use crate::engine::{Engine, Outlet};
use crate::hold::terms::Plan;
use crate::subscribe::channels::{ChannelKey, HoldKey};

/// Bytes joined into one packet at most: a small part of what a frontend grants a client, so that a run seldom meets a
/// client without credits.
const MAX_RUN: usize = 8_192;

/// Content for the streams of one channel.
pub struct Run {
    /// The channel.
    pub channel: ChannelKey,
    body: Vec<u8>,
}

/// What one hold is to get, when deliveries are limited and wait for their turn.
#[derive(Clone)]
pub enum Delivery {
    /// More content of a stream.
    Content(Bytes),
    /// The end of a stream.
    Close,
    /// The response of a long-poll.
    Response(Rc<HttpResponse>),
}

impl Engine {
    /// Takes a published item.
    pub fn publish(&mut self, item: Item, now: Instant, out: &mut impl Outlet) {
        let subscribed = self.subscriptions.find(&item.channel).is_some();
        let mut due = Vec::new();
        self.sequencer.push(item, subscribed, now, &mut |item| due.push(item));
        due.into_iter().for_each(|item| self.deliver(item, now, out));
    }

    /// Gives up on items missing in a sequence. Call once a second.
    pub fn expire_sequences(&mut self, now: Instant, out: &mut impl Outlet) {
        let mut due = Vec::new();
        self.sequencer.expire(now, &mut |item| due.push(item));
        due.into_iter().for_each(|item| self.deliver(item, now, out));
        self.flush_run(now, out);
    }

    fn deliver(&mut self, item: Item, now: Instant, out: &mut impl Outlet) {
        self.totals.received += 1;
        let mut receivers = 0;
        if let Some(channel) = self.subscriptions.find(&item.channel) {
            let formats = item.formats;
            if let Some(action) = formats.http_response {
                receivers += self.deliver_responses(channel, action, now, out);
            }
            if let Some(action) = formats.http_stream {
                if self.run.as_ref().is_none_or(|run| run.channel != channel) || !matches!(action, Action::Send(_)) {
                    self.flush_run(now, out);
                }
                // The channel may be gone with the last of its long-polls, or with a slow client closed by the flush.
                if let Some(channel) = self.subscriptions.find(&item.channel) {
                    receivers += self.deliver_to_streams(channel, action, now, out);
                }
            }
        }
        self.totals.sent += receivers as u64;
        tracing::info!("publish channel={} receivers={receivers}", item.channel);
    }

    fn deliver_to_streams(
        &mut self,
        channel: ChannelKey,
        action: Action<grip::item::HttpStream>,
        now: Instant,
        out: &mut impl Outlet,
    ) -> usize {
        let receivers = self.subscriptions.get(channel).streams.len();
        if receivers == 0 {
            return 0;
        }
        let delivery = match action {
            Action::Send(stream) => Delivery::Content(stream.content),
            Action::Close => Delivery::Close,
            Action::Hint | Action::Refresh => return receivers,
        };
        if !self.admits(receivers, now) {
            // What waits goes through the limiter after the run has gone; it may take the channel along.
            let name = self.subscriptions.get(channel).name.clone();
            self.flush_run(now, out);
            if let Some(channel) = self.subscriptions.find(&name) {
                self.limit(channel, HoldMode::Stream, &delivery, now);
            }
            return receivers;
        }
        match delivery {
            Delivery::Content(content) => self.add_to_run(channel, &content, now, out),
            _ => {
                for key in self.subscriptions.get(channel).streams.clone() {
                    self.end_stream(key, now, out);
                }
            }
        }
        receivers
    }

    /// Joins content to the run of the channel, which is the current one if there is any. A full run leaves first, and
    /// the content with it, so that no channel is looked at after a flush that may have ended it.
    fn add_to_run(&mut self, channel: ChannelKey, content: &[u8], now: Instant, out: &mut impl Outlet) {
        let run = self.run.get_or_insert_with(|| Run { channel, body: Vec::new() });
        run.body.extend_from_slice(content);
        if run.body.len() >= MAX_RUN {
            self.flush_run(now, out);
        }
    }

    /// Sends what has been joined. To be called at the end of each turn, and before anything that must come after it.
    pub fn flush_run(&mut self, now: Instant, out: &mut impl Outlet) {
        let Some(run) = self.run.take() else { return };
        if run.body.is_empty() {
            return;
        }
        let mut shared = None;
        let mut overfull = Vec::new();
        let mut send = |peer, by_router, ids: Ids<'_>| {
            out.send(peer, by_router, &Packet { ids, body: &run.body, more: true, ..Packet::default() });
        };
        for &key in &self.subscriptions.get(run.channel).streams {
            let hold = &mut self.holds[key as usize];
            if hold.takes(run.body.len()) {
                let seq = hold.session.send_body(run.body.len());
                let (to, by_router) = (hold.session.client, hold.session.by_router);
                self.group.push_or_send(to, by_router, hold.session.id, seq, &mut send);
            } else {
                hold.enqueue(shared.get_or_insert_with(|| Bytes::copy_from_slice(&run.body)).clone());
                overfull.push(key);
            }
            hold.on_sent(now);
        }
        self.group.drain(send);
        for key in overfull {
            self.send_queue(key, now, out);
            self.close_if_slow(key, now, out);
        }
    }

    /// Sends content to one stream, or lets it wait for credits.
    pub(crate) fn send_or_queue(&mut self, key: HoldKey, content: &Bytes, now: Instant, out: &mut impl Outlet) {
        self.holds[key as usize].enqueue(content.clone());
        self.send_queue(key, now, out);
        self.close_if_slow(key, now, out);
    }

    /// Sends what waits for a client, as far as its credits go, and ends the response when it was all.
    pub(crate) fn send_queue(&mut self, key: HoldKey, now: Instant, out: &mut impl Outlet) {
        let hold = &mut self.holds[key as usize];
        let (to, by_router, id) = (hold.session.client, hold.session.by_router, hold.session.id);
        while let Some(content) = hold.next_content() {
            let last = hold.ending && hold.queued() == 0;
            let ids = Ids::One(id.as_bytes(), Some(hold.session.send_body(content.len())));
            out.send(to, by_router, &Packet { ids, body: &content, more: !last, ..Packet::default() });
            if last {
                return self.remove(key, now, out);
            }
        }
    }

    /// Closes a client for whom too much waits. One that gets the last of its response is not slow, the response is
    /// large.
    fn close_if_slow(&mut self, key: HoldKey, now: Instant, out: &mut impl Outlet) {
        let Some(hold) = self.holds.get(key as usize) else { return };
        if !hold.ending && hold.weight() > self.limits.queue_bytes {
            let (waiting, id) = (hold.queued(), hold.session.id);
            self.totals.slow_closed += 1;
            self.warnings.warn(
                "slow",
                now,
                format_args!("client of session {id} closed: it reads too slowly, {waiting} bytes wait for it; see session_queue_bytes"),
            );
            self.cancel(key, now, out);
        }
    }

    /// Ends a stream's response after what waits for it.
    fn end_stream(&mut self, key: HoldKey, now: Instant, out: &mut impl Outlet) {
        let hold = &mut self.holds[key as usize];
        if hold.queued() > 0 {
            hold.ending = true;
            return;
        }
        let session = &mut hold.session;
        let seq = session.send();
        let (to, by_router, id) = (session.client, session.by_router, session.id);
        out.send(to, by_router, &Packet { ids: Ids::One(id.as_bytes(), Some(seq)), ..Packet::default() });
        self.remove(key, now, out);
    }

    fn deliver_responses(
        &mut self,
        channel: ChannelKey,
        action: Action<HttpResponse>,
        now: Instant,
        out: &mut impl Outlet,
    ) -> usize {
        let polls = self.subscriptions.get(channel).polls.clone();
        let Action::Send(response) = action else { return polls.len() };
        if !self.admits(polls.len(), now) {
            self.limit(channel, HoldMode::Response, &Delivery::Response(Rc::new(response)), now);
            return polls.len();
        }
        self.respond(&polls, &response, now, out);
        polls.len()
    }

    /// Answers long-polls. Those with the same plan get the same packet.
    fn respond(&mut self, polls: &[HoldKey], response: &HttpResponse, now: Instant, out: &mut impl Outlet) {
        let ResponseBody::Whole(body) = &response.body else {
            self.warnings.warn("patch", now, "a published body-patch is dropped: this version can not apply it");
            return;
        };
        let mut groups: HashMap<*const Plan, (Rc<Plan>, Bulk<bool>), RandomState> = HashMap::default();
        let mut partial = Vec::new();
        for &key in polls {
            let hold = &mut self.holds[key as usize];
            if hold.ending {
                continue;
            }
            if hold.takes(body.len()) {
                let seq = hold.session.send_body(body.len());
                let (_, group) =
                    groups.entry(Rc::as_ptr(&hold.plan)).or_insert_with(|| (hold.plan.clone(), Bulk::default()));
                group.push(hold.session.client, hold.session.by_router, hold.session.id, seq);
            } else {
                partial.push(key);
            }
        }
        for (plan, mut group) in groups.into_values() {
            let headers = response.headers.over(plan.headers.iter());
            group.drain(|peer, by_router, ids| {
                send_response(peer, by_router, ids, response, &headers, body, false, out)
            });
        }
        for &key in &partial {
            let hold = &mut self.holds[key as usize];
            let plan = hold.plan.clone();
            let first = body.slice(..body.len().min(hold.session.credits as usize));
            let seq = hold.session.send_body(first.len());
            let (to, by_router, id) = (hold.session.client, hold.session.by_router, hold.session.id);
            let ids = Ids::One(id.as_bytes(), Some(seq));
            send_response(to, by_router, ids, response, &response.headers.over(plan.headers.iter()), &first, true, out);
            hold.enqueue(body.slice(first.len()..));
            hold.ending = true;
            hold.ends_at = None;
        }
        for &key in polls {
            if self.holds.get(key as usize).is_some_and(|hold| !hold.ending) {
                self.remove(key, now, out);
            }
        }
    }

    /// A long-poll has waited long enough: it gets the instruct's own response.
    pub(crate) fn time_out(&mut self, key: HoldKey, now: Instant, out: &mut impl Outlet) {
        let plan = self.holds[key as usize].plan.clone();
        let response = HttpResponse {
            code: plan.code,
            reason: plan.reason.clone(),
            headers: plan.headers.clone(),
            body: ResponseBody::Whole(plan.body.clone()),
            content_filters: None,
        };
        self.respond(&[key], &response, now, out);
    }

    /// Whether as many deliveries may leave at once.
    fn admits(&mut self, deliveries: usize, now: Instant) -> bool {
        self.limiter.as_mut().is_none_or(|limiter| limiter.admit(deliveries, now))
    }

    /// Lets deliveries wait for their turn; those that exceed the mark are dropped.
    fn limit(&mut self, channel: ChannelKey, mode: HoldMode, delivery: &Delivery, now: Instant) {
        for key in self.subscriptions.get_mut(channel).list(mode).clone() {
            let birth = self.holds[key as usize].birth;
            let bucket = self.bucket(birth);
            let Some(limiter) = &mut self.limiter else { return };
            if limiter.add(bucket.clone(), (key, birth, delivery.clone())).is_err() {
                let hwm = self.limits.message_hwm.unwrap_or(0);
                let route = bucket.map(|route| format!(" for route {route}")).unwrap_or_default();
                self.warnings.warn("hwm", now, format_args!("exceeded publish hwm ({hwm}){route}, dropping message"));
            }
        }
    }

    /// Delivers what the rate allows now.
    pub(crate) fn deliver_limited(&mut self, now: Instant, out: &mut impl Outlet) {
        let Some(limiter) = &mut self.limiter else { return };
        for (key, birth, delivery) in limiter.take(now) {
            if self.holds.get(key as usize).is_none_or(|hold| hold.birth != birth) {
                continue;
            }
            match delivery {
                Delivery::Content(content) => {
                    self.holds[key as usize].on_sent(now);
                    self.send_or_queue(key, &content, now, out);
                }
                Delivery::Close => self.end_stream(key, now, out),
                Delivery::Response(response) => self.respond(&[key], &response, now, out),
            }
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn send_response(
    to: PeerId,
    by_router: bool,
    ids: Ids<'_>,
    response: &HttpResponse,
    headers: &[(&[u8], &[u8])],
    body: &[u8],
    more: bool,
    out: &mut impl Outlet,
) {
    out.send(
        to,
        by_router,
        &Packet {
            ids,
            code: Some(response.code.get()),
            reason: Some(response.reason.as_bytes()),
            headers: Headers::Pairs(headers),
            body,
            more,
            ..Packet::default()
        },
    );
}
