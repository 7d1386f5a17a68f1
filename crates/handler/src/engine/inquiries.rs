// SPDX-License-Identifier: AGPL-3.0-or-later
//! Filters that ask: requests about the messages that wait, and what follows from the answers (GRIP, filters).

use bytes::Bytes;
use grip::Meta;
use grip::filter::{Filter, FilterError, Reason};
use zhttp::Packet;

use super::Engine;
use crate::context::Context;
use crate::deliver::inquiries::{Head, Inquiry, MAX_BYTES};
use crate::fetch::{Ask, News, Purpose, What};
use crate::subscribe::classes::Progress;

impl Engine {
    /// Goes on with the queues that can. What they give out has left when this returns.
    pub(super) fn go_on_asking(&mut self, cx: &mut Context<'_>) {
        let mut delivers = false;
        while let Some(number) = self.fanout.inquiries.next_ready() {
            delivers |= self.step(number, cx);
        }
        if delivers {
            self.fanout.flush(&mut self.audience, cx);
        }
    }

    /// Lets the first message of a queue go on: it is asked about, delivered or dropped; `true` if it was delivered.
    fn step(&mut self, number: u64, cx: &mut Context<'_>) -> bool {
        let Some(first) = self.fanout.inquiries.first(number) else { return false };
        let channel = self.audience.channels.find(&first.item.channel);
        let group = channel.and_then(|channel| self.audience.channels.find_group(channel, &first.kin));
        if group.is_none_or(|group| self.audience.channels.group_at(group).list(first.mode).is_empty()) {
            self.fanout.inquiries.pop(number);
            return false;
        }
        let result = match first.proceed() {
            Ok(Progress::Ask(at, content)) => match question(number, first, at, &content) {
                Ok(ask) => {
                    let fetch = self.fetches.ask(ask, cx);
                    self.fanout.inquiries.asked(number, at, content, fetch, cx.now);
                    return false;
                }
                Err(error) => Err(error),
            },
            Ok(Progress::Done(content)) => Ok(content),
            Err(error) => Err(error),
        };
        let Some(mut inquiry) = self.fanout.inquiries.pop(number) else { return false };
        match result {
            Ok(Some(content)) => {
                inquiry.content = content;
                self.fanout.deliver_answered(&inquiry, &mut self.audience, cx);
                return true;
            }
            Ok(None) => self.fanout.keep_back(&inquiry, None, &mut self.audience, cx),
            Err(error) => self.fanout.keep_back(&inquiry, Some(&error), &mut self.audience, cx),
        }
        false
    }

    /// A request of a filter has been answered, or has failed.
    pub(super) fn on_filter_news(&mut self, number: u64, news: News, packet: &Packet<'_>, cx: &mut Context<'_>) {
        if !self.fanout.inquiries.awaits(number, news.key) {
            return;
        }
        if news.what == What::Failed {
            return self.network_failed(number, reason(packet), cx);
        }
        let says_drop = |(name, value): (&[u8], &[u8])| name.eq_ignore_ascii_case(b"action") && value == b"drop";
        let head = packet.code.map(|code| Head { code, drops: packet.headers.iter().any(says_drop) });
        match self.fanout.inquiries.on_answer(number, head, packet.body, packet.more) {
            Ok(()) => self.fetches.pass_on(news.key, packet.body.len(), cx),
            Err(error) => {
                self.fetches.cancel(news.key, cx);
                self.give_up(number, &error, cx);
            }
        }
    }

    fn network_failed(&mut self, number: u64, what: &'static str, cx: &mut Context<'_>) {
        let filter = self.fanout.inquiries.first(number).map_or(Filter::HttpCheck, Inquiry::filter);
        self.give_up(number, &FilterError { filter, reason: Reason::Network(what) }, cx);
    }

    fn give_up(&mut self, number: u64, error: &FilterError, cx: &mut Context<'_>) {
        if let Some(inquiry) = self.fanout.inquiries.pop(number) {
            self.fanout.keep_back(&inquiry, Some(error), &mut self.audience, cx);
        }
    }

    /// Gives up requests that have taken too long.
    pub(super) fn on_inquiry_timers(&mut self, cx: &mut Context<'_>) {
        while let Some((number, fetch)) = self.fanout.inquiries.expired(cx.now) {
            self.fetches.cancel(fetch, cx);
            self.network_failed(number, "request timed out", cx);
        }
    }
}

/// Why there is no answer, as Pushpin says it.
fn reason(packet: &Packet<'_>) -> &'static str {
    match packet.condition.unwrap_or_default() {
        b"remote-connection-failed" => "connection refused",
        b"connection-timeout" => "connection timed out",
        b"tls-error" => "tls error",
        b"disconnected" | b"" => "disconnected",
        _ => "general error",
    }
}

/// The request of a filter about a message.
fn question(number: u64, inquiry: &Inquiry, at: usize, content: &Bytes) -> Result<Ask, FilterError> {
    let class = inquiry.kin.class.as_ref();
    let filter = class.and_then(|class| class.filter(at)).unwrap_or(Filter::HttpCheck);
    let fail = |reason| FilterError { filter, reason };
    let subscriber = class.map(|class| class.meta().clone()).unwrap_or_default();
    let authority = class.and_then(|class| class.authority()).ok_or_else(|| fail(Reason::BadUrl))?;
    let missing = if subscriber.get("url").is_none() { Reason::NoUrl } else { Reason::BadUrl };
    let uri = authority.uri.clone().ok_or_else(|| fail(missing))?;
    let headers = vec![("Sub-Meta", json(&subscriber)), ("Pub-Meta", json(&inquiry.item.meta))];
    let body = if filter == Filter::HttpModify { content.clone() } else { Bytes::new() };
    if body.len() > MAX_BYTES || headers.iter().any(|(_, value)| value.len() > MAX_BYTES) {
        return Err(fail(Reason::LongQuestion(MAX_BYTES)));
    }
    let ask = Ask::new(Purpose::Filter(number), uri, authority.passthrough.clone());
    Ok(Ask { grip_last: inquiry.grip_last.clone(), headers, body, ..ask })
}

fn json(meta: &Meta) -> String {
    let members: serde_json::Map<String, serde_json::Value> =
        meta.iter().map(|(name, value)| (name.to_string(), value.into())).collect();
    serde_json::Value::Object(members).to_string()
}
