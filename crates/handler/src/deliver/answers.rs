// SPDX-License-Identifier: AGPL-3.0-or-later
//! Messages for those whose filters ask: they wait in [`inquiries`](super::inquiries) until that has been answered.

use std::rc::Rc;

use grip::filter::FilterError;
use grip::item::WsMessage;
use grip::{Action, HttpResponse, Item, ResponseBody};

use super::fanout::{Fanout, Message, Patched};
use super::inquiries::Inquiry;
use crate::context::Context;
use crate::hold::{Hold, Kind};
use crate::notice::Notice;
use crate::subscribe::audience::Audience;
use crate::subscribe::channels::SocketKey;
use crate::subscribe::channels::{GroupKey, Mode};
use crate::websocket::table::Sockets;

impl Inquiry {
    /// Whether it is for a hold of its group.
    pub(super) fn is_for(&self, hold: &Hold) -> bool {
        let is_of = |terms| matches!(&hold.kind, Kind::Response(poll) if Rc::ptr_eq(&poll.terms, terms));
        hold.birth <= self.last_birth && self.terms.as_ref().is_none_or(is_of)
    }

    /// Whether it is for a WebSocket of its group, which has this key.
    pub(super) fn is_for_socket(&self, socket: SocketKey, group: GroupKey, sockets: &Sockets) -> bool {
        sockets[socket].subscriptions.iter().any(|held| held.place.group == group && held.birth <= self.last_birth)
    }
}

impl Fanout {
    /// Has an item wait for those groups of its channel whose filters ask.
    pub(super) fn inquire(
        &mut self,
        item: &Item,
        message: &Message<'_>,
        audience: &mut Audience,
        cx: &mut Context<'_>,
    ) {
        let Some(channel) = audience.channels.find(&item.channel) else { return };
        let groups = audience.channels.channel(channel).groups.iter().copied();
        let asks = |group: &GroupKey| {
            let group = audience.channels.group_at(*group);
            group.kin.class.as_ref().is_some_and(|class| class.asks()) && message.concerns(group, &audience.cohorts)
        };
        let groups: Vec<GroupKey> = groups.filter(asks).collect();
        if groups.is_empty() {
            return;
        }
        let item = Rc::new(item.clone());
        let mut inquiries = Vec::new();
        for group in groups {
            self.inquire_for(group, &item, message, &mut inquiries, audience, cx);
        }
        let (last_hold, last_socket) = (audience.holds.next_birth(), audience.sockets.next_birth());
        for mut inquiry in inquiries {
            inquiry.last_birth = if inquiry.mode == Mode::Socket { last_socket } else { last_hold };
            let cohort = inquiry.kin.cohort.and_then(|cohort| audience.cohorts.get(cohort));
            inquiry.grip_last = cohort.map(|cohort| cohort.grip_last()).unwrap_or_default();
            if !self.inquiries.push(inquiry) {
                self.totals.inquiries_dropped += 1;
                cx.report(Notice::TooManyInquiries { channel: message.channel, waiting: self.inquiries.len() });
            }
        }
        self.close_unfit(audience, cx);
    }

    /// What is to wait for one group.
    fn inquire_for(
        &mut self,
        key: GroupKey,
        item: &Rc<Item>,
        message: &Message<'_>,
        inquiries: &mut Vec<Inquiry>,
        audience: &Audience,
        cx: &mut Context<'_>,
    ) {
        let group = audience.channels.group_at(key);
        let class = group.kin.class.as_deref();
        let one = |mode, content| Inquiry::new(item.clone(), group.kin.clone(), mode, content);
        // Of what is repeated, no hold whose filters ask has lost any: such holds end with their handler.
        let has_holds = message.owed.is_none();
        match &item.formats.http_stream {
            Some(Action::Send(stream))
                if has_holds
                    && !group.streams.is_empty()
                    && self.mismatch(class, message, &stream.content_filters, cx).is_none() =>
            {
                inquiries.push(one(Mode::Stream, Some(stream.content.clone())));
            }
            Some(Action::Close) if has_holds && !group.streams.is_empty() => inquiries.push(one(Mode::Stream, None)),
            _ => {}
        }
        if let Some(Action::Send(response)) = &item.formats.http_response
            && has_holds
            && !group.polls.is_empty()
            && self.mismatch(class, message, &response.content_filters, cx).is_none()
        {
            match &response.body {
                ResponseBody::Whole(body) => inquiries.push(one(Mode::Response, Some(body.clone()))),
                // A change is made to the backend's own response before filters look at it.
                ResponseBody::Patch(_) => {
                    let mut patched = Patched::default();
                    for hold in group.polls.iter().map(|&poll| &audience.holds[poll]) {
                        let Kind::Response(poll) = &hold.kind else { continue };
                        if !patched.has(&poll.terms) {
                            let body = patched.body(hold, &response.body, message.channel, cx);
                            // What can not be changed is asked about as an empty one.
                            let mut inquiry = one(Mode::Response, Some(body.unwrap_or_default()));
                            inquiry.terms = Some(poll.terms.clone());
                            inquiries.push(inquiry);
                        }
                    }
                }
            }
        }
        match &item.formats.ws_message {
            Some(WsMessage::Send(send)) if !group.sockets.is_empty() => {
                match self.mismatch(class, message, &send.content_filters, cx) {
                    None => inquiries.push(one(Mode::Socket, Some(send.content.clone().unwrap_or_default()))),
                    Some(reason) => self.mark_unfit(&group.sockets, &reason, audience),
                }
            }
            Some(WsMessage::Close { .. }) if !group.sockets.is_empty() => inquiries.push(one(Mode::Socket, None)),
            _ => {}
        }
    }

    /// Delivers what filters have made of a message, to those who were there when it was published.
    pub fn deliver_answered(&mut self, inquiry: &Inquiry, audience: &mut Audience, cx: &mut Context<'_>) {
        let item = &inquiry.item;
        let Some(channel) = audience.channels.find(&item.channel) else { return };
        let message = Message {
            channel: &item.channel,
            meta: &item.meta,
            size: item.size,
            number: 0,
            only: None,
            id: item.id.as_deref(),
            owed: None,
            answer: Some(inquiry),
        };
        match inquiry.mode {
            Mode::Stream => {
                let Some(action) = item.formats.http_stream.clone() else { return };
                self.deliver_to_streams(channel, &message, action, audience, cx);
            }
            Mode::Response => {
                let Some(Action::Send(response)) = item.formats.http_response.clone() else { return };
                let body = ResponseBody::Whole(inquiry.content.clone());
                let action = Action::Send(HttpResponse { body, ..response });
                self.deliver_responses(channel, &message, action, audience, cx);
            }
            Mode::Socket => {
                let Some(action) = item.formats.ws_message.clone() else { return };
                self.deliver_to_sockets(channel, &message, action, audience, cx);
            }
        }
    }

    /// Notes that a class does not get a message because its filters say so, or why they could not. WebSockets whose
    /// developers are to see it are closed.
    pub fn keep_back(
        &mut self,
        inquiry: &Inquiry,
        error: Option<&FilterError>,
        audience: &mut Audience,
        cx: &mut Context<'_>,
    ) {
        let Some(error) = error else {
            self.totals.filtered += 1;
            return;
        };
        self.totals.filter_failed += 1;
        let name = &inquiry.item.channel;
        cx.report(Notice::FilterFailed { channel: name, error });
        let channel = audience.channels.find(name).filter(|_| inquiry.mode == Mode::Socket);
        if let Some(key) = channel.and_then(|channel| audience.channels.find_group(channel, &inquiry.kin)) {
            let sockets = audience.channels.group_at(key).sockets.iter().copied();
            let sockets: Vec<_> =
                sockets.filter(|&socket| inquiry.is_for_socket(socket, key, &audience.sockets)).collect();
            self.mark_unfit(&sockets, &format!("filter error: {error}"), audience);
            self.close_unfit(audience, cx);
        }
    }
}
