// SPDX-License-Identifier: AGPL-3.0-or-later
//! From an item to those who get it (publishing, fan-out).
//!
//! An item is evaluated once for each class of subscribers. What they get leaves at once ([`streams`], [`polls`], [`sockets`]), or, when
//! `message_rate` is set and exceeded, in its turn ([`limits`]).

mod limits;
mod message;
mod polls;
mod sockets;
mod streams;

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::RandomState;
use grip::{Formats, HoldMode, Item};

use self::limits::{Delivery, Receiver};
pub(super) use self::message::Message;
pub(super) use self::polls::Patched;
use super::inquiries::Inquiries;
use super::runs::Runs;
use super::sender::Sender;
use crate::cohort::Verdict;
use crate::context::Context;
use crate::notice::Notice;
use crate::order::owed::Owed;
use crate::order::rate::{Bucket, Limiter};
use crate::statistics::notes::Published;
use crate::subscribe::audience::Audience;
use crate::subscribe::channels::SocketKey;
use crate::subscribe::channels::{ChannelKey, CohortKey, HoldKey, Mode};
use crate::subscribe::classes::Class;
use crate::subscribe::counts::Counts;

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
