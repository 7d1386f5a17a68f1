// SPDX-License-Identifier: AGPL-3.0-or-later
//! From an item to those who get it (publishing, fan-out).
//!
//! An item is evaluated once for each class of subscribers. What they get leaves at once, or, when `message_rate` is set
//! and exceeded, in its turn.

use std::collections::{HashMap, HashSet};
use std::iter;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use foldhash::fast::RandomState;
use grip::item::HttpStream;
use grip::{Action, Formats, HoldMode, HttpResponse, Item, Meta, ResponseBody};
use zhttp::Run;

use super::inquiries::{Inquiries, Inquiry};
use super::responses::{self, Target};
use super::runs::Runs;
use super::sender::Sender;
use crate::cohort::Verdict;
use crate::cohort::table::Cohorts;
use crate::context::Context;
use crate::hold::terms::ResponseTerms;
use crate::hold::{Hold, Kind};
use crate::notice::Notice;
use crate::order::owed::Owed;
use crate::order::rate::{Bucket, Limiter};
use crate::statistics::notes::Published;
use crate::subscribe::audience::Audience;
use crate::subscribe::channels::{ChannelKey, CohortKey, Group, GroupKey, HoldKey, Mode};
use crate::subscribe::classes::Class;
use crate::subscribe::counts::Counts;
use crate::websocket::outbox::Reply;
use crate::websocket::table::{SocketKey, Sockets};

/// What one hold is to get, when deliveries are limited and wait for their turn.
pub(super) enum Delivery {
    /// More content of a stream.
    Content(Bytes),
    /// The end of a stream.
    Close,
    /// The response of a long-poll, with its body.
    Response(Rc<HttpResponse>, Bytes),
    /// What the proxy is told of a WebSocket.
    Socket(Reply),
}

/// Whom a delivery is for, with the number by which it is told from another one in its place.
#[derive(Clone, Copy)]
pub(super) enum Receiver {
    /// A hold.
    Hold(HoldKey, u64),
    /// A WebSocket.
    Socket(SocketKey, u64),
}

/// What has been delivered, and what has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Items published.
    pub received: u64,
    /// Deliveries, one for each receiver; what is filtered or dropped is included.
    pub sent: u64,
    /// Of these, those to long-polls.
    pub responses_sent: u64,
    /// And those to WebSockets.
    pub sockets_sent: u64,
    /// Blocks of messages, if they are counted.
    pub blocks_received: u64,
    /// Blocks of deliveries.
    pub blocks_sent: u64,
    /// Messages that a class of subscribers did not get because of its filters.
    pub filtered: u64,
    /// Messages that a class did not get because a filter failed, or its content filters are not those of the publisher.
    pub filter_failed: u64,
    /// Messages that a cohort did not get because too many came while a page was fetched for it.
    pub kept_dropped: u64,
    /// Messages that a class did not get because too many wait for answers to filters.
    pub inquiries_dropped: u64,
}

/// See the module.
pub struct Fanout {
    /// What the streams get at the end of the turn.
    pub runs: Runs,
    /// The same for WebSockets.
    pub(super) frames: Runs,
    /// Messages that wait for answers to filters.
    pub inquiries: Inquiries,
    /// What goes out.
    pub sender: Sender,
    limiter: Option<Limiter<(Receiver, Delivery)>>,
    message_hwm: Option<u32>,
    /// Bytes that count as one delivery.
    block_size: Option<u32>,
    /// The buckets of holds whose route is counted apart, by birth.
    buckets: HashMap<u64, Bucket, RandomState>,
    /// Bytes of messages that a cohort may keep while a page is fetched.
    max_kept: usize,
    /// Cohorts that have missed a message, each with the channel's full name.
    gaps: Vec<(CohortKey, String)>,
    /// Who was told to ask the backend.
    hinted: Vec<Hinted>,
    /// WebSockets to be closed because of a message, each with the reason.
    pub(super) unfit: Vec<(SocketKey, String)>,
    /// Counters for statistics.
    pub totals: Totals,
    /// Who has been given the item that was delivered last.
    pub given: Counts,
}

/// Who was told to ask the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hinted {
    /// A cohort.
    Cohort(CohortKey),
    /// A long-poll that is in none, with its birth.
    Poll(HoldKey, u64),
}

/// An item on its way.
pub(super) struct Message<'a> {
    pub(super) channel: &'a str,
    pub(super) meta: &'a Meta,
    pub(super) size: Option<u64>,
    /// By which cohorts have judged it.
    pub(super) number: u64,
    /// It has been kept for this cohort and is for nobody else.
    pub(super) only: Option<CohortKey>,
    pub(super) id: Option<&'a str>,
    /// It is a repetition, for those who have not got it from a predecessor.
    pub(super) owed: Option<&'a Owed>,
    /// Filters have asked about it, and this came of it.
    pub(super) answer: Option<&'a Inquiry>,
}

impl Message<'_> {
    /// Whether a group gets it now. One whose filters ask gets it when that has been answered.
    pub(super) fn is_for(&self, group: &Group, cohorts: &Cohorts) -> bool {
        match (&group.kin.class, self.answer) {
            (_, Some(answer)) => answer.kin.apart() == group.kin.apart(),
            (Some(class), None) if class.asks() => false,
            _ => self.concerns(group, cohorts),
        }
    }

    /// Whether a group gets it, now or later, unless filters keep it back.
    pub(super) fn concerns(&self, group: &Group, cohorts: &Cohorts) -> bool {
        (self.only.is_none() || self.only == group.kin.cohort)
            && group.kin.cohort.is_none_or(|cohort| cohorts.delivers(cohort, self.number))
    }

    /// Whether it is for a hold of such a group.
    fn is_owed_to(&self, hold: &Hold) -> bool {
        self.owed.is_none_or(|owed| owed.is_for(hold)) && self.answer.is_none_or(|answer| answer.is_for(hold))
    }

    /// Whether it is for a WebSocket of such a group, which has this key.
    pub(super) fn is_for_socket(&self, socket: SocketKey, group: GroupKey, sockets: &Sockets) -> bool {
        self.owed.is_none_or(|owed| owed.is_for_socket(sockets.proxy, sockets[socket].run))
            && self.answer.is_none_or(|answer| answer.is_for_socket(socket, group, sockets))
    }

    /// How many subscribers of a mode it counts for now: those whose filters ask count when that has been answered.
    pub(super) fn count(&self, channel: ChannelKey, mode: Mode, audience: &Audience) -> usize {
        let groups = audience.channels.channel(channel).groups.iter().map(|&key| audience.channels.group_at(key));
        let counts = |group: &&Group| match (&group.kin.class, self.answer) {
            (_, Some(answer)) => answer.kin.apart() == group.kin.apart(),
            (Some(class), None) => !class.asks(),
            (None, None) => true,
        };
        groups.filter(counts).map(|group| group.list(mode).len()).sum()
    }

    /// Names it in the packet that is being put together.
    fn name_in(&self, items: &mut Vec<u8>) {
        items.clear();
        self.id.into_iter().for_each(|id| Run::push(items, self.channel, id));
    }
}

impl Fanout {
    /// Nothing is on its way.
    pub fn new(
        sender: Sender,
        message_rate: Option<u32>,
        message_hwm: Option<u32>,
        block_size: Option<u32>,
        max_kept: usize,
        inquiries: Inquiries,
    ) -> Self {
        Fanout {
            runs: Runs::new(Mode::Stream),
            frames: Runs::new(Mode::Socket),
            inquiries,
            sender,
            limiter: message_rate.filter(|&rate| rate > 0).map(|rate| Limiter::new(rate, message_hwm)),
            message_hwm,
            block_size,
            buckets: HashMap::default(),
            max_kept,
            gaps: Vec::new(),
            hinted: Vec::new(),
            unfit: Vec::new(),
            totals: Totals::default(),
            given: Counts::default(),
        }
    }

    /// Notes the bucket of a hold.
    pub fn count_apart(&mut self, birth: u64, bucket: Bucket) {
        if bucket.is_some() && self.limiter.is_some() {
            self.buckets.insert(birth, bucket);
        }
    }

    /// Delivers an item; returns for how many holds it was.
    pub fn deliver(&mut self, item: Item, audience: &mut Audience, cx: &mut Context<'_>) -> usize {
        self.deliver_to(item, None, audience, cx)
    }

    /// Delivers a repeated item to those who are owed it.
    pub fn deliver_owed(&mut self, item: Item, owed: &Owed, audience: &mut Audience, cx: &mut Context<'_>) -> usize {
        // What was published before comes first.
        self.flush(audience, cx);
        let receivers = self.deliver_to(item, Some(owed), audience, cx);
        self.runs.begin();
        self.flush(audience, cx);
        receivers
    }

    fn deliver_to(&mut self, item: Item, owed: Option<&Owed>, audience: &mut Audience, cx: &mut Context<'_>) -> usize {
        self.totals.received += 1;
        self.given = Counts::default();
        let mut receivers = 0;
        let [response, stream, socket] = item.formats.lengths().map(|len| self.blocks(item.size, len));
        self.totals.blocks_received += u64::from([response, stream, socket].into_iter().flatten().max().unwrap_or(0));
        let number = match owed {
            None => self.judge(&item, None, audience, cx),
            // Cohorts that have not got it from a predecessor ask their backend.
            Some(_) => audience.cohorts.number(),
        };
        let message = Message {
            channel: &item.channel,
            meta: &item.meta,
            size: item.size,
            number,
            only: None,
            id: item.id.as_deref(),
            owed,
            answer: None,
        };
        advance(&message, item.id.as_deref(), audience);
        self.inquire(&item, &message, audience, cx);
        // The channel may be gone with the last of its long-polls, hence it is looked for each time.
        if let Some(channel) = audience.channels.find(&item.channel)
            && let Some(action) = item.formats.http_response
        {
            let responses = self.deliver_responses(channel, &message, action, audience, cx);
            self.totals.responses_sent += responses as u64;
            self.totals.blocks_sent += responses as u64 * u64::from(response.unwrap_or(0));
            note(&message, item.id.as_deref(), Mode::Response, responses, response, audience);
            receivers += responses;
        }
        if let Some(channel) = audience.channels.find(&item.channel)
            && let Some(action) = item.formats.http_stream
        {
            let streams = self.deliver_to_streams(channel, &message, action, audience, cx);
            self.totals.blocks_sent += streams as u64 * u64::from(stream.unwrap_or(0));
            note(&message, item.id.as_deref(), Mode::Stream, streams, stream, audience);
            receivers += streams;
        }
        if let Some(channel) = audience.channels.find(&item.channel)
            && let Some(action) = item.formats.ws_message
        {
            let sockets = self.deliver_to_sockets(channel, &message, action, audience, cx);
            self.totals.sockets_sent += sockets as u64;
            self.totals.blocks_sent += sockets as u64 * u64::from(socket.unwrap_or(0));
            note(&message, item.id.as_deref(), Mode::Socket, sockets, socket, audience);
            receivers += sockets;
        }
        self.totals.sent += receivers as u64;
        cx.report(Notice::Published { channel: &item.channel, receivers });
        if self.runs.is_full() || self.frames.is_full() {
            self.flush(audience, cx);
        }
        receivers
    }

    /// Delivers a message that was kept for a cohort while a page was fetched.
    pub fn deliver_kept(&mut self, item: Item, cohort: CohortKey, audience: &mut Audience, cx: &mut Context<'_>) {
        let number = self.judge(&item, Some(cohort), audience, cx);
        let only = Some(cohort);
        let id = item.id.as_deref();
        let message = Message {
            channel: &item.channel,
            meta: &item.meta,
            size: item.size,
            number,
            only,
            id,
            owed: None,
            answer: None,
        };
        advance(&message, item.id.as_deref(), audience);
        self.inquire(&item, &message, audience, cx);
        if let Some(channel) = audience.channels.find(&item.channel)
            && let Some(action) = item.formats.http_stream
        {
            self.deliver_to_streams(channel, &message, action, audience, cx);
        }
    }

    /// Asks the cohorts of a channel what an item is for them. Returns the number by which they know it.
    fn judge(&mut self, item: &Item, only: Option<CohortKey>, audience: &mut Audience, cx: &mut Context<'_>) -> u64 {
        if audience.cohorts.is_empty() {
            return 0;
        }
        let number = audience.cohorts.number();
        let Some(channel) = audience.channels.find(&item.channel) else { return number };
        for &group in &audience.channels.channel(channel).groups {
            let group = audience.channels.group_at(group);
            let Some(cohort) = group.kin.cohort.filter(|_| only.is_none() || only == group.kin.cohort) else {
                continue;
            };
            let concerned = (item.formats.http_stream.is_some() && !group.streams.is_empty())
                || (item.formats.http_response.is_some() && !group.polls.is_empty());
            if !concerned {
                continue;
            }
            match audience.cohorts.judge(cohort, number, item) {
                Verdict::Deliver | Verdict::Drop => {}
                Verdict::Gap => self.gaps.push((cohort, item.channel.clone())),
                Verdict::Keep => {
                    let formats = Formats { http_response: None, ..item.formats.clone() };
                    let item = Item { formats, ..item.clone() };
                    let kept = audience.cohorts.get_mut(cohort).is_none_or(|cohort| cohort.keep(item, self.max_kept));
                    if !kept {
                        self.totals.kept_dropped += 1;
                        cx.report(Notice::TooManyKept { channel: &audience.channels.channel(channel).name });
                    }
                }
            }
        }
        number
    }

    /// Cohorts that have missed a message since the last call, each with the channel's full name.
    pub fn take_gaps(&mut self) -> Vec<(CohortKey, String)> {
        std::mem::take(&mut self.gaps)
    }

    /// Whether a cohort has missed one that nobody has been told of.
    pub fn has_gap(&self, cohort: CohortKey) -> bool {
        self.gaps.iter().any(|(gap, _)| *gap == cohort)
    }

    /// Who was told to ask the backend since the last call.
    pub fn take_hinted(&mut self) -> Vec<Hinted> {
        std::mem::take(&mut self.hinted)
    }

    /// Sends what has been collected, and what waits and can leave. To be called at the end of each turn, and before
    /// anything that must come after it.
    pub fn flush(&mut self, audience: &mut Audience, cx: &mut Context<'_>) {
        self.runs.flush(&mut self.sender, audience, cx);
        self.frames.flush(&mut self.sender, audience, cx);
        self.sender.flush(audience, cx);
        audience.outbox.flush(cx);
    }

    pub(super) fn deliver_to_streams(
        &mut self,
        channel: ChannelKey,
        message: &Message<'_>,
        action: Action<HttpStream>,
        audience: &mut Audience,
        cx: &mut Context<'_>,
    ) -> usize {
        let receivers = audience.channels.count(channel, HoldMode::Stream);
        if receivers == 0 {
            return 0;
        }
        match action {
            Action::Send(stream) => {
                let weight = self.weight(message.size, stream.content.len());
                let now = self.admits(message.count(channel, Mode::Stream, audience).saturating_mul(weight), cx.now);
                self.send_content(channel, message, stream, weight, now, audience, cx);
            }
            Action::Close => {
                let streams = list(audience, channel, message);
                self.given.http_stream += streams.len();
                if self.admits(message.count(channel, Mode::Stream, audience), cx.now) {
                    // What was published before comes first.
                    self.runs.flush(&mut self.sender, audience, cx);
                    streams.iter().for_each(|&key| self.sender.end(key, &mut audience.holds));
                } else {
                    streams.iter().for_each(|&key| self.limit_hold(key, 1, Delivery::Close, audience, cx));
                }
            }
            Action::Hint => self.hint(channel, HoldMode::Stream, audience),
            Action::Refresh => {}
        }
        receivers
    }

    /// Sends content to the streams of a channel, `now` or as the rate allows.
    #[allow(clippy::too_many_arguments)]
    fn send_content(
        &mut self,
        channel: ChannelKey,
        message: &Message<'_>,
        stream: HttpStream,
        weight: usize,
        now: bool,
        audience: &mut Audience,
        cx: &mut Context<'_>,
    ) {
        let mut unchanged = None;
        for at in 0..audience.channels.channel(channel).groups.len() {
            let key = audience.channels.channel(channel).groups[at];
            let group = audience.channels.group_at(key);
            if group.streams.is_empty() || !message.is_for(group, &audience.cohorts) {
                continue;
            }
            let class = group.kin.class.as_deref();
            let content = self.evaluate(class, message, &stream.content_filters, &stream.content, cx);
            let Some(content) = content else { continue };
            let own = group.streams.iter().filter(|&&key| message.is_owed_to(&audience.holds[key]));
            if message.owed.is_some() || (message.answer.is_some() && now) {
                let streams: Vec<HoldKey> = own.copied().collect();
                // What was published before comes first.
                self.runs.flush(&mut self.sender, audience, cx);
                let (holds, links) = (&mut audience.holds, &mut audience.links);
                message.name_in(&mut self.sender.items);
                self.given.http_stream += streams.len();
                streams.into_iter().for_each(|key| self.sender.give(key, &content, holds, links, cx));
                self.sender.finish(&content, holds, links, cx);
                continue;
            }
            self.given.http_stream += group.streams.len();
            if !now {
                for key in own.copied().collect::<Vec<_>>() {
                    self.limit_hold(key, weight, Delivery::Content(content.clone()), audience, cx);
                }
                continue;
            }
            let same = content.as_ptr() == stream.content.as_ptr() && content.len() == stream.content.len();
            let piece = match unchanged.filter(|_| same) {
                Some(piece) => piece,
                None => self.runs.add(content, message.channel, message.id),
            };
            unchanged = unchanged.or(same.then_some(piece));
            self.runs.extend(key, piece, &mut audience.channels);
        }
    }

    /// What a class gets of a message, or those without one.
    fn evaluate(
        &mut self,
        class: Option<&Class>,
        message: &Message<'_>,
        content_filters: &Option<Vec<String>>,
        content: &Bytes,
        cx: &mut Context<'_>,
    ) -> Option<Bytes> {
        self.judge_content(class, message, content_filters, content, cx).unwrap_or(None)
    }

    /// The same; an error is what the backend's developer may see.
    pub(super) fn judge_content(
        &mut self,
        class: Option<&Class>,
        message: &Message<'_>,
        content_filters: &Option<Vec<String>>,
        content: &Bytes,
        cx: &mut Context<'_>,
    ) -> Result<Option<Bytes>, String> {
        if let Some(reason) = self.mismatch(class, message, content_filters, cx) {
            return Err(reason);
        }
        if let Some(answer) = message.answer {
            return Ok(Some(answer.content.clone()));
        }
        let Some(class) = class else { return Ok(Some(content.clone())) };
        match class.evaluate(message.meta, content) {
            Ok(content) => {
                self.totals.filtered += u64::from(content.is_none());
                Ok(content)
            }
            Err(error) => {
                self.totals.filter_failed += 1;
                cx.report(Notice::FilterFailed { channel: message.channel, error: &error });
                Err(format!("filter error: {error}"))
            }
        }
    }

    /// Whether the publisher expects other content filters than a class has, and what is to be said of it.
    pub(super) fn mismatch(
        &mut self,
        class: Option<&Class>,
        message: &Message<'_>,
        content_filters: &Option<Vec<String>>,
        cx: &mut Context<'_>,
    ) -> Option<String> {
        let agrees = |expected: &[String]| class.map_or(expected.is_empty(), |class| class.agrees_with(expected));
        let expected = content_filters.as_deref().filter(|expected| !agrees(expected))?;
        self.totals.filter_failed += 1;
        cx.report(Notice::OtherContentFilters { channel: message.channel });
        let own = class.map(Class::content_filters).unwrap_or_default().join(",");
        Some(format!("content filter mismatch: subscription={own} message={}", expected.join(",")))
    }

    pub(super) fn deliver_responses(
        &mut self,
        channel: ChannelKey,
        message: &Message<'_>,
        action: Action<HttpResponse>,
        audience: &mut Audience,
        cx: &mut Context<'_>,
    ) -> usize {
        let receivers = audience.channels.count(channel, HoldMode::Response);
        let response = match action {
            Action::Send(response) if receivers > 0 => response,
            Action::Hint => {
                self.hint(channel, HoldMode::Response, audience);
                return receivers;
            }
            _ => return receivers,
        };
        let mut targets = Vec::with_capacity(receivers);
        let mut refused = Vec::new();
        let mut patched = Patched::default();
        for at in 0..audience.channels.channel(channel).groups.len() {
            let group = audience.channels.group_at(audience.channels.channel(channel).groups[at]);
            if group.polls.is_empty() || !message.is_for(group, &audience.cohorts) {
                continue;
            }
            // What the class gets, by the body that it is made of.
            let mut evaluated: HashMap<*const u8, Option<Bytes>, RandomState> = HashMap::default();
            for &key in group.polls.iter().filter(|&&key| message.is_owed_to(&audience.holds[key])) {
                let Some(body) = patched.body(&audience.holds[key], &response.body, message.channel, cx) else {
                    refused.push(Target::new(key, responses::FAILURE));
                    continue;
                };
                let class = group.kin.class.as_deref();
                let body = match evaluated.get(&body.as_ptr()) {
                    Some(known) => known.clone(),
                    None if class.is_none() && response.content_filters.is_none() => Some(body),
                    None => {
                        let known = self.evaluate(class, message, &response.content_filters, &body, cx);
                        evaluated.insert(body.as_ptr(), known.clone());
                        known
                    }
                };
                targets.extend(body.map(|body| Target::new(key, body)));
            }
        }
        self.given.http_response += targets.len();
        let size = match &response.body {
            ResponseBody::Whole(body) => body.len(),
            ResponseBody::Patch(_) => 0,
        };
        let weight = self.weight(message.size, size);
        let refused = (!refused.is_empty()).then(|| (refused, responses::failure()));
        let answers = iter::once((targets, response)).chain(refused);
        if self.admits(message.count(channel, Mode::Response, audience).saturating_mul(weight), cx.now) {
            message.name_in(&mut self.sender.items);
            self.runs.begin();
            for (targets, response) in answers {
                responses::respond(targets, Some(&response), &mut self.sender, audience, cx);
            }
            self.sender.items.clear();
        } else {
            for (targets, response) in answers {
                let response = Rc::new(response);
                for Target { key, body, .. } in targets {
                    self.limit_hold(key, weight, Delivery::Response(response.clone(), body), audience, cx);
                }
            }
        }
        receivers
    }

    fn hint(&mut self, channel: ChannelKey, mode: HoldMode, audience: &Audience) {
        for &group in &audience.channels.channel(channel).groups {
            let group = audience.channels.group_at(group);
            match group.kin.cohort {
                Some(cohort) if !group.list(mode).is_empty() => {
                    self.hinted.push(Hinted::Cohort(cohort));
                    self.given.add(mode, group.list(mode).len());
                }
                // A stream without a next link has nothing to ask for.
                None if mode == HoldMode::Response => {
                    let polls = group.polls.iter().map(|&key| Hinted::Poll(key, audience.holds[key].birth));
                    self.hinted.extend(polls);
                    self.given.http_response += group.polls.len();
                }
                _ => {}
            }
        }
    }

    /// How many deliveries one counts for: one for each block.
    pub(super) fn weight(&self, size: Option<u64>, len: usize) -> usize {
        let Some(block) = self.block_size.filter(|&block| block > 0) else { return 1 };
        usize::try_from(size.unwrap_or(len as u64).div_ceil(u64::from(block))).unwrap_or(usize::MAX).max(1)
    }

    /// Blocks of content, if they are counted.
    fn blocks(&self, size: Option<u64>, len: Option<usize>) -> Option<u32> {
        let block = self.block_size.filter(|&block| block > 0)?;
        let bytes = size.unwrap_or(len? as u64);
        Some(u32::try_from(bytes.div_ceil(u64::from(block))).unwrap_or(u32::MAX))
    }

    /// Whether deliveries that count for so much may leave at once.
    pub(super) fn admits(&mut self, weight: usize, now: Instant) -> bool {
        self.limiter.as_mut().is_none_or(|limiter| limiter.admit(weight, now))
    }

    fn limit_hold(
        &mut self,
        key: HoldKey,
        weight: usize,
        delivery: Delivery,
        audience: &Audience,
        cx: &mut Context<'_>,
    ) {
        let birth = audience.holds[key].birth;
        let bucket = self.buckets.get(&birth).cloned().flatten();
        self.limit(Receiver::Hold(key, birth), bucket, weight, delivery, cx);
    }

    /// Lets a delivery wait for its turn; what exceeds the mark is dropped.
    pub(super) fn limit(
        &mut self,
        receiver: Receiver,
        bucket: Bucket,
        weight: usize,
        delivery: Delivery,
        cx: &mut Context<'_>,
    ) {
        let Some(limiter) = &mut self.limiter else { return };
        if limiter.add(bucket.clone(), weight, (receiver, delivery)).is_err() {
            cx.report(Notice::RateExceeded { hwm: self.message_hwm.unwrap_or(0), route: bucket.as_deref() });
        }
    }

    /// Deliveries dropped because more than `message_hwm` waited.
    pub fn over_rate(&self) -> u64 {
        self.limiter.as_ref().map_or(0, |limiter| limiter.dropped)
    }

    /// Delivers what the rate allows now, and closes clients that are too slow.
    pub fn on_timer(&mut self, audience: &mut Audience, cx: &mut Context<'_>) {
        self.sender.on_timer(audience, cx);
        let Some(limiter) = &mut self.limiter else { return };
        let due = limiter.take(cx.now);
        for (receiver, delivery) in due {
            let (Receiver::Hold(key, _) | Receiver::Socket(key, _)) = receiver;
            let is_there = match receiver {
                Receiver::Hold(key, birth) => audience.holds.is_there(key, birth),
                Receiver::Socket(key, birth) => audience.sockets.is_there(key, birth),
            };
            if !is_there {
                continue;
            }
            match delivery {
                Delivery::Socket(reply) => self.tell(key, reply, audience, cx),
                Delivery::Content(content) => {
                    let (holds, links) = (&mut audience.holds, &mut audience.links);
                    self.sender.give(key, &content, holds, links, cx);
                    self.sender.finish(&content, holds, links, cx);
                }
                Delivery::Close => self.sender.end(key, &mut audience.holds),
                Delivery::Response(response, body) => {
                    responses::respond(vec![Target::new(key, body)], Some(&response), &mut self.sender, audience, cx);
                }
            }
        }
        self.sender.flush(audience, cx);
        self.forget_buckets(audience);
    }

    /// Forgets the buckets of holds that are gone, now and then.
    fn forget_buckets(&mut self, audience: &Audience) {
        if self.buckets.len() > audience.holds.len() * 2 + 64 {
            let alive: HashSet<u64, RandomState> = audience.holds.iter().map(|hold| hold.birth).collect();
            self.buckets.retain(|birth, _| alive.contains(birth));
        }
    }

    /// When [`Fanout::on_timer`] is to be called.
    pub fn next_due(&self) -> Option<Instant> {
        let limiter = self.limiter.as_ref().and_then(Limiter::next_due);
        [self.sender.next_due(), limiter].into_iter().flatten().min()
    }
}

/// The bodies that long-polls get: what was published, or what a published change makes of their own, each once.
#[derive(Default)]
pub(super) struct Patched(HashMap<*const ResponseTerms, Option<Bytes>, RandomState>);

impl Patched {
    /// Whether a body has been made for these terms.
    pub(super) fn has(&self, terms: &Rc<ResponseTerms>) -> bool {
        self.0.contains_key(&Rc::as_ptr(terms))
    }

    /// What a hold gets; `None` if the change does not fit its own body.
    pub(super) fn body(
        &mut self,
        hold: &Hold,
        published: &ResponseBody,
        channel: &str,
        cx: &mut Context<'_>,
    ) -> Option<Bytes> {
        let (changes, terms) = match (published, &hold.kind) {
            (ResponseBody::Patch(changes), Kind::Response(response)) => (changes, &response.terms),
            (ResponseBody::Patch(_), Kind::Stream(_) | Kind::Push(_)) => return Some(Bytes::new()),
            (ResponseBody::Whole(body), _) => return Some(body.clone()),
        };
        let change = || match grip::patch::apply(&terms.response.body, changes) {
            Ok(body) => Some(body.into()),
            Err(error) => {
                cx.report(Notice::PatchFailed { channel, error: &error });
                None
            }
        };
        self.0.entry(Rc::as_ptr(terms)).or_insert_with(change).clone()
    }
}

/// The streams that a message is for.
fn list(audience: &Audience, channel: ChannelKey, message: &Message<'_>) -> Vec<HoldKey> {
    let groups = audience.channels.channel(channel).groups.iter().map(|&group| audience.channels.group_at(group));
    let streams = groups.filter(|group| message.is_for(group, &audience.cohorts)).flat_map(|group| &group.streams);
    streams.filter(|&&key| message.is_owed_to(&audience.holds[key])).copied().collect()
}

/// Notes for statistics that an item has met subscribers.
fn note(
    message: &Message<'_>,
    id: Option<&str>,
    mode: Mode,
    receivers: usize,
    blocks: Option<u32>,
    audience: &mut Audience,
) {
    if receivers > 0
        && let Some(notes) = &mut audience.notes
    {
        let (channel, item_id) = (message.channel.into(), id.map(Into::into));
        let receivers = receivers as u32;
        if let (Mode::Socket, Some(channel)) = (mode, audience.channels.find(message.channel)) {
            let groups = audience.channels.channel(channel).groups.iter();
            let sockets = groups.flat_map(|&group| &audience.channels.group_at(group).sockets);
            for route in sockets.filter_map(|&key| audience.sockets[key].kind.site.bucket.clone()) {
                let (sent, sent_blocks) = notes.sent_apart.entry(route).or_default();
                *sent += 1;
                *sent_blocks = sent_blocks.wrapping_add(blocks.unwrap_or(0));
            }
        }
        notes.messages.push(Published { channel, item_id, mode, receivers, blocks });
    }
}

/// Lets the classes that get a message know its id before they are asked what they get, because `build-id` writes the id of
/// the message itself.
fn advance(message: &Message<'_>, id: Option<&str>, audience: &Audience) {
    let Some(channel) = audience.channels.find(message.channel) else { return };
    for &group in &audience.channels.channel(channel).groups {
        let group = audience.channels.group_at(group);
        if let Some(class) = group.kin.class.as_ref().filter(|_| message.concerns(group, &audience.cohorts)) {
            class.advance(id);
        }
    }
}
