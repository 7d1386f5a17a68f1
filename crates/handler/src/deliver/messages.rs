//! Published messages for WebSockets (publishing, ws-message).

use std::rc::Rc;

use grip::item::WsMessage;

use super::fanout::{Delivery, Fanout, Message, Receiver};
use crate::context::Context;
use crate::subscribe::audience::Audience;
use crate::subscribe::channels::{ChannelKey, Mode};
use crate::websocket::outbox::Reply;
use crate::websocket::table::SocketKey;

/// The status with which a connection is closed whose backend is to see what is wrong with a message.
const UNFIT: i32 = 1011;

impl Fanout {
    /// Gives the WebSockets of a channel what was published; returns for how many it was.
    pub(super) fn deliver_to_sockets(
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
                    for &key in &group.sockets {
                        if !message.is_for_socket(key, place, &audience.sockets) {
                            continue;
                        }
                        self.given.ws_message += 1;
                        let socket = &audience.sockets[key];
                        let reply = Reply::Send { kind: send.kind, content: content.clone(), number: None };
                        match now {
                            true => audience.outbox.push(&socket.cid, reply, cx),
                            false => {
                                let receiver = Receiver::Socket(key, socket.birth);
                                self.limit(receiver, socket.bucket.clone(), weight, Delivery::Socket(reply), cx);
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
                self.tell_some(sockets, &Reply::Close { code, reason: Rc::from(reason) }, audience, cx);
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
    pub(super) fn mark_unfit(&mut self, sockets: &[SocketKey], reason: &str, audience: &Audience) {
        let told = sockets.iter().filter(|&&key| audience.sockets[key].debug);
        self.unfit.extend(told.map(|&key| (key, reason.to_string())));
    }

    /// Closes them.
    pub(super) fn close_unfit(&mut self, audience: &mut Audience, cx: &mut Context<'_>) {
        for (key, reason) in std::mem::take(&mut self.unfit) {
            audience.close_socket(key, Some(UNFIT), reason.into(), cx);
        }
    }

    fn tell_some(&mut self, sockets: Vec<SocketKey>, reply: &Reply, audience: &mut Audience, cx: &mut Context<'_>) {
        self.given.ws_message += sockets.len();
        let now = self.admits(sockets.len(), cx.now);
        for key in sockets {
            if now {
                tell(key, reply.clone(), audience, cx);
            } else {
                let socket = &audience.sockets[key];
                let (receiver, bucket) = (Receiver::Socket(key, socket.birth), socket.bucket.clone());
                self.limit(receiver, bucket, 1, Delivery::Socket(reply.clone()), cx);
            }
        }
    }
}

/// Tells the proxy something of a WebSocket.
pub(super) fn tell(key: SocketKey, reply: Reply, audience: &mut Audience, cx: &mut Context<'_>) {
    match reply {
        Reply::Close { code, reason } => audience.close_socket(key, code, reason, cx),
        reply if !audience.sockets[key].closing => audience.outbox.push(&audience.sockets[key].cid, reply, cx),
        _ => {}
    }
}

/// The WebSockets that a message is for.
fn list(audience: &Audience, channel: ChannelKey, message: &Message<'_>) -> Vec<SocketKey> {
    let groups = audience.channels.channel(channel).groups.iter().copied();
    let listed = |key| {
        let group = audience.channels.group_at(key);
        let sockets =
            group.sockets.iter().copied().filter(move |&socket| message.is_for_socket(socket, key, &audience.sockets));
        sockets.filter(|_| message.is_for(group, &audience.cohorts))
    };
    groups.flat_map(listed).collect()
}
