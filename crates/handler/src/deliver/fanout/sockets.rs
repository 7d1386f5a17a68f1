// SPDX-License-Identifier: AGPL-3.0-or-later
//! Published messages for WebSockets (publishing, ws-message): frames for those that we push into, items for the proxy for the
//! others.

use std::rc::Rc;

use bytes::Bytes;
use grip::item::{WsMessage, WsType};
use wire::websocket::{Header, MAX_CONTROL, Opcode};

use super::Fanout;
use super::limits::{Delivery, Receiver};
use super::message::Message;
use crate::context::Context;
use crate::subscribe::audience::Audience;
use crate::subscribe::channels::SocketKey;
use crate::subscribe::channels::{ChannelKey, Group, GroupKey, Mode};
use crate::websocket::reply::Reply;

/// The status with which a connection is closed whose backend is to see what is wrong with a message.
const UNFIT: i32 = 1011;

/// The frame that was made last, by its content, which is kept so that its address stays its own. Classes that get what was
/// published as it is share the frame.
#[derive(Default)]
struct Framed(Option<(Option<Bytes>, u32)>);

impl Framed {
    /// The number of the frame for some content, which may have been made already.
    fn piece(&mut self, content: Option<&Bytes>, add: impl FnOnce() -> u32) -> u32 {
        let place = |content: &Bytes| (content.as_ptr(), content.len());
        let piece = match &self.0 {
            Some((known, piece)) if known.as_ref().map(place) == content.map(place) => *piece,
            _ => add(),
        };
        self.0 = Some((content.cloned(), piece));
        piece
    }
}

impl Fanout {
    /// Gives the WebSockets of a channel what was published; returns for how many it was.
    pub(in crate::deliver) fn deliver_to_sockets(
        &mut self,
        channel: ChannelKey,
        message: &Message<'_>,
        action: WsMessage,
        audience: &mut Audience,
        cx: &mut Context<'_>,
    ) -> usize {
        let receivers = audience.channels.count(channel, Mode::Socket);
        if receivers == 0 {
            return 0;
        }
        match action {
            WsMessage::Send(send) => {
                let content = send.content.clone().unwrap_or_default();
                let weight = self.weight(message.size, content.len());
                let now = self.admits(message.count(channel, Mode::Socket, audience).saturating_mul(weight), cx.now);
                audience.outbox.begin(message.channel, message.id);
                let mut framed = Framed::default();
                for at in 0..audience.channels.channel(channel).groups.len() {
                    let place = audience.channels.channel(channel).groups[at];
                    let group = audience.channels.group_at(place);
                    if group.sockets.is_empty() || !message.is_for(group, &audience.cohorts) {
                        continue;
                    }
                    let class = group.kin.class.as_deref();
                    let got = match self.judge_content(class, message, &send.content_filters, &content, cx) {
                        Ok(Some(got)) => got,
                        Ok(None) => continue,
                        Err(reason) => {
                            self.mark_unfit(&group.sockets, &reason, audience);
                            continue;
                        }
                    };
                    let content = (send.content.is_some() || !got.is_empty()).then_some(got);
                    match now {
                        true => self.send_to_group(place, message, send.kind, content, &mut framed, audience, cx),
                        false => {
                            let own = own(group, place, message, audience);
                            self.given.ws_message += own.len();
                            for key in own {
                                let socket = &audience.sockets[key];
                                let reply = Reply::Send { kind: send.kind, content: content.clone(), number: None };
                                let receiver = Receiver::Socket(key, socket.birth);
                                self.limit(
                                    receiver,
                                    socket.kind.site.bucket.clone(),
                                    weight,
                                    Delivery::Socket(reply),
                                    cx,
                                );
                            }
                        }
                    }
                }
                audience.outbox.end();
                self.close_unfit(audience, cx);
            }
            WsMessage::Close { code, reason } => {
                let code = code.and_then(|code| i32::try_from(code).ok());
                let sockets = list(audience, channel, message);
                let reply = Reply::Close { code, reason: Rc::from(reason), told: false };
                self.tell_some(sockets, &reply, audience, cx);
            }
            WsMessage::Refresh => self.tell_all(channel, &Reply::Refresh, audience, cx),
            WsMessage::Hint => {}
        }
        receivers
    }

    /// Tells the proxy the same of all WebSockets of a channel.
    pub fn tell_all(&mut self, channel: ChannelKey, reply: &Reply, audience: &mut Audience, cx: &mut Context<'_>) {
        let groups = audience.channels.channel(channel).groups.iter();
        let listed = |&group| audience.channels.group_at(group).sockets.iter().copied();
        let sockets: Vec<SocketKey> = groups.flat_map(listed).collect();
        self.tell_some(sockets, reply, audience, cx);
    }

    /// Those of some WebSockets that may be told what is wrong are to be closed.
    pub(in crate::deliver) fn mark_unfit(&mut self, sockets: &[SocketKey], reason: &str, audience: &Audience) {
        let told = sockets.iter().filter(|&&key| audience.sockets[key].kind.site.debug);
        self.unfit.extend(told.map(|&key| (key, reason.to_string())));
    }

    /// Closes them.
    pub(in crate::deliver) fn close_unfit(&mut self, audience: &mut Audience, cx: &mut Context<'_>) {
        if self.unfit.is_empty() {
            return;
        }
        // What was published before comes first.
        self.frames.flush(&mut self.sender, audience, cx);
        for (key, reason) in std::mem::take(&mut self.unfit) {
            audience.close_socket(key, Some(UNFIT), reason.into(), cx);
        }
    }

    fn tell_some(&mut self, sockets: Vec<SocketKey>, reply: &Reply, audience: &mut Audience, cx: &mut Context<'_>) {
        self.given.ws_message += sockets.len();
        let now = self.admits(sockets.len(), cx.now);
        if now {
            // What was published before comes first.
            self.frames.flush(&mut self.sender, audience, cx);
        }
        for key in sockets {
            if now {
                self.tell(key, reply.clone(), audience, cx);
            } else {
                let socket = &audience.sockets[key];
                let (receiver, bucket) = (Receiver::Socket(key, socket.birth), socket.kind.site.bucket.clone());
                self.limit(receiver, bucket, 1, Delivery::Socket(reply.clone()), cx);
            }
        }
    }

    /// Sends the WebSockets of a group what they get of a message: those that we push into at the end of the turn, the others by
    /// the proxy.
    #[allow(clippy::too_many_arguments)]
    fn send_to_group(
        &mut self,
        key: GroupKey,
        message: &Message<'_>,
        kind: WsType,
        content: Option<Bytes>,
        framed: &mut Framed,
        audience: &mut Audience,
        cx: &mut Context<'_>,
    ) {
        let group = audience.channels.group_at(key);
        let frame = frame(kind, content.as_deref().unwrap_or_default()).filter(|_| audience.sockets.lanes() > 0);
        let is_pushed = |socket: SocketKey| frame.is_some() && audience.sockets[socket].lane.opened().is_some();
        // Of those who wait for the answer of a filter, some may be here no more, or anew.
        if frame.is_none() || message.answer.is_some() || audience.sockets.lanes() < audience.sockets.len() {
            let own = own(group, key, message, audience);
            let (pushed, relayed): (Vec<_>, Vec<_>) = own.into_iter().partition(|&socket| is_pushed(socket));
            self.given.ws_message += relayed.len();
            for socket in relayed {
                let reply = Reply::Send { kind, content: content.clone(), number: None };
                audience.outbox.push(&audience.sockets[socket].cid, reply, cx);
            }
            if message.answer.is_some() {
                self.given.ws_message += pushed.len();
                self.frames.flush(&mut self.sender, audience, cx);
                for socket in pushed {
                    let reply = Reply::Send { kind, content: content.clone(), number: None };
                    self.tell(socket, reply, audience, cx);
                }
                return;
            }
        }
        let Some(frame) = frame else { return };
        let len = content.as_ref().map_or(0, Bytes::len);
        let group = audience.channels.group_at(key);
        let mut pushed = 0;
        if audience.sockets.lanes() == audience.sockets.len() && audience.notes.is_none() {
            pushed = group.sockets.len();
        } else {
            for socket in group.sockets.iter().map(|&socket| &audience.sockets[socket]) {
                if socket.lane.opened().is_some() {
                    pushed += 1;
                    audience.notes.iter_mut().for_each(|notes| notes.pushed(&socket.kind.site.bucket, len));
                }
            }
        }
        self.given.ws_message += pushed;
        if pushed > 0 {
            let piece = framed.piece(content.as_ref(), || self.frames.add(frame, message.channel, None));
            self.frames.extend(key, piece, &mut audience.channels);
        }
    }

    /// Sends a message to a client, or tells the proxy something of a WebSocket.
    pub fn tell(&mut self, key: SocketKey, reply: Reply, audience: &mut Audience, cx: &mut Context<'_>) {
        let Audience { sockets, holds, links, outbox, notes, .. } = &mut *audience;
        let socket = &sockets[key];
        let frame = match &reply {
            Reply::Send { kind, content, number: None } => frame(*kind, content.as_deref().unwrap_or_default()),
            _ => None,
        };
        match (reply, frame.zip(socket.lane.opened())) {
            (Reply::Close { code, reason, .. }, _) => audience.close_socket(key, code, reason, cx),
            _ if socket.closing => {}
            (Reply::Send { content, .. }, Some((frame, lane))) => {
                if let Some(notes) = notes {
                    notes.pushed(&socket.kind.site.bucket, content.map_or(0, |content| content.len()));
                }
                self.sender.give(lane, &frame, holds, links, cx);
                self.sender.finish(&frame, holds, links, cx);
            }
            (reply, _) => outbox.push(&socket.cid, reply, cx),
        }
    }
}

/// The WebSockets of a group that a message is for.
fn own(group: &Group, key: GroupKey, message: &Message<'_>, audience: &Audience) -> Vec<SocketKey> {
    let sockets = group.sockets.iter().copied();
    sockets.filter(|&socket| message.is_for_socket(socket, key, &audience.sockets)).collect()
}

/// The WebSockets that a message is for.
fn list(audience: &Audience, channel: ChannelKey, message: &Message<'_>) -> Vec<SocketKey> {
    let groups = audience.channels.channel(channel).groups.iter();
    let groups = groups.map(|&key| (key, audience.channels.group_at(key)));
    let groups = groups.filter(|(_, group)| message.is_for(group, &audience.cohorts));
    groups.flat_map(|(key, group)| own(group, key, message, audience)).collect()
}

/// A message as clients get it; none if it can not be a frame.
fn frame(kind: WsType, content: &[u8]) -> Option<Bytes> {
    let opcode = match kind {
        WsType::Text => Opcode::Text,
        WsType::Binary => Opcode::Binary,
        WsType::Ping => Opcode::Ping,
        WsType::Pong => Opcode::Pong,
    };
    if opcode.is_control() && content.len() > MAX_CONTROL {
        return None;
    }
    Some([&*Header::whole(opcode).encode(content.len()), content].concat().into())
}
