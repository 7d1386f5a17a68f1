// SPDX-License-Identifier: AGPL-3.0-or-later
//! Published content for streams (publishing, http-stream).

use bytes::Bytes;
use grip::item::HttpStream;
use grip::{Action, HoldMode};

use super::Fanout;
use super::limits::Delivery;
use super::message::Message;
use crate::context::Context;
use crate::subscribe::audience::Audience;
use crate::subscribe::channels::{ChannelKey, HoldKey, Mode};

impl Fanout {
    pub(in crate::deliver) fn deliver_to_streams(
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
        let mut told = Vec::new();
        for at in 0..audience.channels.channel(channel).groups.len() {
            let key = audience.channels.channel(channel).groups[at];
            let group = audience.channels.group_at(key);
            if group.streams.is_empty() || !message.is_for(group, &audience.cohorts) {
                continue;
            }
            let class = group.kin.class.as_deref();
            let own = group.streams.iter().filter(|&&key| message.is_owed_to(&audience.holds[key]));
            let content = match self.judge_content(class, message, &stream.content_filters, &stream.content, cx) {
                Ok(Some(content)) => content,
                Ok(None) => continue,
                Err(reason) => {
                    let text = Bytes::from(format!("\n\n{reason}\n"));
                    told.extend(own.filter(|&&key| audience.holds[key].debug).map(|&key| (key, text.clone())));
                    continue;
                }
            };
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
        self.end_unfit(told, audience, cx);
    }

    /// Ends streams whose clients may know what is wrong, and tells them.
    fn end_unfit(&mut self, told: Vec<(HoldKey, Bytes)>, audience: &mut Audience, cx: &mut Context<'_>) {
        if told.is_empty() {
            return;
        }
        // What was published before comes first.
        self.runs.flush(&mut self.sender, audience, cx);
        for (key, text) in told {
            audience.holds[key].enqueue(text);
            self.sender.end(key, &mut audience.holds);
        }
    }
}

/// The streams that a message is for.
fn list(audience: &Audience, channel: ChannelKey, message: &Message<'_>) -> Vec<HoldKey> {
    let groups = audience.channels.channel(channel).groups.iter().map(|&group| audience.channels.group_at(group));
    let streams = groups.filter(|group| message.is_for(group, &audience.cohorts)).flat_map(|group| &group.streams);
    streams.filter(|&&key| message.is_owed_to(&audience.holds[key])).copied().collect()
}
