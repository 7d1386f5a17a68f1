// SPDX-License-Identifier: AGPL-3.0-or-later
//! WebSockets: what the proxy tells of them, and what it is told (internal RPC, ws-control; GRIP, WebSocket sessions).

use grip::MAX_FILTERS;
use grip::filter;
use grip::websocket::control::{Control, Message};
use rpc::ws_control::{Item, Kind, Packet};
use zhttp::session::server;
use zhttp::{Ext, Ids, Kind as PacketKind, Packet as ZhttpPacket};

use super::Engine;
use crate::context::Context;
use crate::hold::{Hold, Kind as HoldKind};
use crate::notice::Notice;
use crate::subscribe::audience::Audience;
use crate::subscribe::channels::SocketKey;
use crate::websocket::cid::Cid;
use crate::websocket::reply::Reply;
use crate::websocket::session::{Lane, Look, MAX_META};

/// The status with which a connection is closed that can not go on.
const CANNOT_GO_ON: i32 = 1011;
/// The status for one that comes too late to be taken up from a predecessor.
const RESTARTED: i32 = 1012;

impl Engine {
    /// How many WebSockets are known.
    pub fn websockets(&self) -> usize {
        self.audience.sockets.len()
    }

    /// Takes a packet of the proxy. What is answered leaves in one packet.
    pub fn on_control(&mut self, packet: &Packet<'_>, cx: &mut Context<'_>) {
        // What was published before comes first, for those who were subscribed then.
        self.fanout.flush(&mut self.audience, cx);
        if packet.named_all {
            self.audience.outbox.joins = packet.many;
        }
        for item in &packet.items {
            self.on_control_item(item, cx);
        }
        self.fanout.flush(&mut self.audience, cx);
        self.settle(cx);
    }

    /// Has the backends of all WebSockets of a channel asked.
    pub fn refresh_channel(&mut self, channel: &str, cx: &mut Context<'_>) {
        if let Some(channel) = self.audience.channels.find(channel) {
            self.fanout.tell_all(channel, &Reply::Refresh, &mut self.audience, cx);
            self.audience.outbox.flush(cx);
        }
    }

    fn on_control_item(&mut self, item: &Item<'_>, cx: &mut Context<'_>) {
        let missed_nothing = self.naming.is_open || !self.has_published();
        let sockets = &mut self.audience.sockets;
        let cid = Cid::from(&*item.cid);
        let known = sockets.find(&cid);
        let is_awaited = known.is_none() && self.naming.until.is_some_and(|until| cx.now < until);
        if is_awaited && !matches!(item.kind, Kind::Here | Kind::Cancel) {
            // It was said to a predecessor, or the proxy will say it again.
            return;
        }
        let named_again = item.run.filter(|_| item.kind == Kind::Here);
        if named_again.is_some() {
            self.audience.outbox.on_named(&cid);
        }
        // To a name, what the client has missed follows: the proxy takes nothing before.
        if let Some(number) = item.req_id.as_deref().filter(|_| item.kind != Kind::Ack) {
            self.audience.outbox.push(&cid, Reply::Ack(number.into()), cx);
        }
        let sockets = &mut self.audience.sockets;
        let key = match (known, item.kind) {
            (Some(key), _) => key,
            (None, Kind::Here) if named_again.is_some() && !missed_nothing => {
                let reply = Reply::Close { code: Some(RESTARTED), reason: "service restart".into(), told: false };
                return self.audience.outbox.push(&cid, reply, cx);
            }
            (None, Kind::Here) => sockets.insert(cid.clone(), cx.now),
            // Nobody answers that nobody is known on either side.
            (None, Kind::Cancel) => return,
            (None, _) => return self.audience.outbox.push(&cid, Reply::Cancel, cx),
        };
        let socket = &mut sockets[key];
        match item.kind {
            Kind::Here => {
                sockets.introduce(key, item, cx.now);
                let socket = &mut sockets[key];
                if let Some(run) = named_again.filter(|_| missed_nothing && known.is_none()) {
                    socket.run = run;
                    self.naming.count += usize::from(known.is_none());
                    self.audience.outbox.on_known_again(&cid, run);
                }
                if let Some(run) = named_again.filter(|_| known.is_some()) {
                    self.go_on_by_way_of_another_proxy(key, run, cx);
                }
                self.audience.sockets.watch(key, known.is_none());
            }
            Kind::KeepAlive => {
                socket.live(item.ttl, cx.now);
                let pushed = socket.lane.opened().is_some();
                sockets.watch(key, false);
                if pushed && item.after.is_some() {
                    self.push_after(key, item.after, cx);
                }
            }
            Kind::Gone | Kind::Cancel => self.audience.remove_socket(key, cx),
            Kind::Ack => socket.on_ack(item.req_id.as_deref().unwrap_or_default()),
            // It is about to be gone.
            _ if socket.closing => {}
            Kind::Subscribe => {
                let channel = String::from_utf8_lossy(item.channel.as_deref().unwrap_or_default());
                if !channel.is_empty() {
                    self.push_after(key, item.after, cx);
                    self.join(key, &channel, None, cx);
                }
            }
            Kind::Grip => {
                self.push_after(key, item.after, cx);
                self.on_instruction(key, item.message.as_deref().unwrap_or_default(), cx);
            }
            Kind::NeedKeepAlive => self.keep_alive(key, cx),
            // These are ours to say.
            Kind::Send | Kind::KeepAliveSetup | Kind::Refresh | Kind::Close | Kind::Detach => {}
        }
    }

    /// The proxy of a WebSocket has ended, and its successor says how far the client is.
    fn go_on_by_way_of_another_proxy(&mut self, key: SocketKey, run: u64, cx: &mut Context<'_>) {
        let socket = &mut self.audience.sockets[key];
        // Its proxy can not answer any more.
        socket.forget_unanswered();
        let cid = socket.cid.clone();
        if self.audience.outbox.send_missed(&cid, run, cx).is_err() {
            cx.report(Notice::BrokenOff {
                uri: &self.audience.sockets[key].kind.uri,
                reason: "what it has missed is not known any more",
            });
            self.audience.close_socket(key, Some(RESTARTED), "service restart".into(), cx);
        }
    }

    /// Whether a successor of the proxy names its WebSockets, so that until then nothing is sent to them.
    pub fn goes_on_without_proxy(&self) -> bool {
        self.audience.outbox.names_messages
    }

    /// Whether messages wait until a successor of the proxy has named whom they are for.
    pub fn waits_for_names(&self) -> bool {
        self.audience.outbox.waits_for_names()
    }

    /// The proxy has ended.
    pub fn proxy_left(&mut self) {
        let all = self.audience.sockets.iter().map(|socket| socket.cid.clone());
        self.audience.outbox.proxy_left(all);
    }

    /// What is pushed from now on comes after so many packets of the proxy, or after what it will still tell. Only now we begin
    /// to push at all, if we may: until its backend says something, nothing is published to a WebSocket.
    fn push_after(&mut self, key: SocketKey, after: Option<u32>, cx: &mut Context<'_>) {
        let Audience { sockets, holds, links, .. } = &mut self.audience;
        if let Lane::Offered(offer) = &sockets[key].lane {
            let Some(client) = cx.actions.frontend(&offer.sender) else { return };
            if holds.find(client, offer.id).is_some() {
                return;
            }
            let session = server::Session::second(client, offer.id, offer.by_router, offer.credits, cx.now);
            let birth = holds.next_birth();
            let hold = holds.insert(Hold::pushing(session, key, birth));
            sockets.open_lane(key, hold);
        }
        let Some(lane) = sockets[key].lane.opened() else { return };
        let hold = &mut holds[lane];
        let (peer, way, id, begun) = (hold.session.client(), hold.way(), hold.session.id(), hold.session.has_spoken());
        let Hold { kind: HoldKind::Push(push), session, .. } = hold else { return };
        let before = std::mem::replace(&mut push.after, after);
        if let Some(number) = after.filter(|_| before != after) {
            let seq = session.send().seq;
            let ext = Ext { lane: way.lane, after: number, ..Ext::MULTI };
            let ids = Ids::One(id.as_bytes(), Some(seq));
            links.send(
                way.to(peer),
                &ZhttpPacket { ids, kind: PacketKind::KeepAlive, ext, ..ZhttpPacket::default() },
                cx,
            );
            self.fanout.sender.look_at(lane, holds);
        }
        if !begun {
            self.timers.watch(lane, &mut holds[lane]);
        }
    }

    /// The client has been sent nothing for a while, as far as the proxy knows.
    fn keep_alive(&mut self, key: SocketKey, cx: &mut Context<'_>) {
        let socket = &self.audience.sockets[key];
        let Some(keep_alive) = socket.keep_alive().cloned() else { return };
        let lane = socket.lane.opened().map(|lane| &self.audience.holds[lane].kind);
        if let (Some(HoldKind::Push(push)), false) = (lane, keep_alive.by_interval) {
            // It does not see what is pushed, and asks again only if it is told to.
            let quiet = push.pushed_at.map_or(keep_alive.timeout, |at| cx.now.saturating_duration_since(at));
            let left = keep_alive.timeout.saturating_sub(quiet);
            // It asks a little early, so that many do not ask at once.
            let early = left > keep_alive.timeout / 8;
            let next = if early { left } else { keep_alive.timeout };
            let seconds = u32::try_from(next.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
            self.audience.outbox.push(&socket.cid, Reply::KeepAliveSetup(Some((seconds, false))), cx);
            if early {
                return;
            }
        }
        if let Some(notes) = &mut self.audience.notes {
            *notes.keep_alives.entry(socket.kind.site.bucket.clone()).or_default() += 1;
        }
        let Message { kind, content } = keep_alive.message;
        let reply = Reply::Send { kind, content: Some(content), number: None };
        self.fanout.tell(key, reply, &mut self.audience, cx);
    }

    /// The backend has said something behind `c:`.
    fn on_instruction(&mut self, key: SocketKey, message: &[u8], cx: &mut Context<'_>) {
        let socket = &mut self.audience.sockets[key];
        let control = match Control::read(message) {
            Ok(control) => control,
            Err(error) => return cx.report(Notice::NoInstruction { uri: &socket.kind.uri, error: &error }),
        };
        let reply = match control {
            Control::Subscribe { channel, filters } => {
                let channel = [&*socket.kind.site.prefix, &channel].concat();
                return self.join(key, &channel, Some(&filters), cx);
            }
            Control::Unsubscribe { channel } => {
                let channel = [&*socket.kind.site.prefix, &channel].concat();
                return self.audience.unsubscribe_socket(key, &channel, cx);
            }
            Control::SetMeta { name, value } => {
                if !socket.set_meta(name, value) {
                    return cx.report(Notice::TooMuchMeta { uri: &socket.kind.uri, limit: MAX_META });
                }
                return self.audience.reclass_socket(key, cx);
            }
            // It means something only with a state service, and there is none (docs/routes.md).
            Control::Session { .. } => return,
            Control::Detach => Some(Reply::Detach),
            Control::KeepAlive(None) => {
                socket.set_keep_alive(None);
                Some(Reply::KeepAliveSetup(None))
            }
            Control::KeepAlive(Some(keep_alive)) => {
                let seconds = u32::try_from(keep_alive.timeout.as_secs()).unwrap_or(u32::MAX);
                let by_interval = keep_alive.by_interval;
                socket.set_keep_alive(Some(keep_alive));
                Some(Reply::KeepAliveSetup(Some((seconds, by_interval))))
            }
            Control::SendDelayed { message, delay } => socket.delay(message, delay, cx.now),
            Control::FlushDelayed => socket.flush_delayed(cx.now),
        };
        self.audience.sockets.watch(key, false);
        if let Some(reply) = reply {
            self.fanout.tell(key, reply, &mut self.audience, cx);
        }
    }

    /// Subscribes to a channel by its full name. Without `filters` it is the route's own.
    fn join(&mut self, key: SocketKey, channel: &str, filters: Option<&[String]>, cx: &mut Context<'_>) {
        let names = filters.unwrap_or_default();
        let socket = &self.audience.sockets[key];
        if names.len() > MAX_FILTERS {
            return self.break_off(key, &format!("too many filters for channel '{channel}'"), cx);
        }
        if let Some(unknown) = names.iter().find(|name| filter::Filter::parse(name).is_none()) {
            cx.report(Notice::UnknownFilter { uri: &socket.kind.uri, filter: unknown });
        }
        let found = filter::parse_all(names.iter().map(String::as_str));
        let full = socket.subscriptions.len() >= self.max_channels;
        if filters.is_some() && full && !self.audience.is_subscribed(key, channel) {
            return cx.report(Notice::TooManyChannels { uri: &socket.kind.uri, limit: self.max_channels });
        }
        self.audience.subscribe_socket(key, channel, filters.map(|_| found.into()), cx);
        let uri = &self.audience.sockets[key].kind.uri;
        cx.report(Notice::Subscribed { uri, channel });
    }

    /// Closes a connection whose backend asks for what can not be. The client is told why only if that may be shown.
    fn break_off(&mut self, key: SocketKey, reason: &str, cx: &mut Context<'_>) {
        let socket = &self.audience.sockets[key];
        cx.report(Notice::BrokenOff { uri: &socket.kind.uri, reason });
        let reason = if socket.kind.site.debug { reason } else { "" };
        self.audience.close_socket(key, Some(CANNOT_GO_ON), reason.into(), cx);
    }

    /// Looks at those whose time has come.
    pub(super) fn on_socket_timers(&mut self, cx: &mut Context<'_>) {
        while let Some(key) = self.audience.sockets.pop(cx.now) {
            let socket = &mut self.audience.sockets[key];
            let (look, cid) = (socket.look(cx.now), socket.cid.clone());
            match look {
                Look::Fine => {}
                Look::Say(_) if socket.closing => {}
                Look::Say(reply) => self.fanout.tell(key, reply, &mut self.audience, cx),
                Look::Unanswered => {
                    self.totals.websockets_unanswered += 1;
                    self.audience.outbox.push(&cid, Reply::Cancel, cx);
                    self.audience.remove_socket(key, cx);
                    continue;
                }
                Look::Expired => {
                    self.totals.websockets_expired += 1;
                    self.audience.remove_socket(key, cx);
                    continue;
                }
            }
            self.audience.sockets.watch(key, true);
        }
    }

    /// WebSockets for which the link to the proxy has not taken something are forgotten: the proxy hears of it when it names
    /// them again, and their clients come back.
    pub(super) fn end_lost_sockets(&mut self, cx: &mut Context<'_>) {
        let mut ended = 0;
        for cid in self.audience.outbox.take_lost() {
            if let Some(key) = self.audience.sockets.find(&cid) {
                self.audience.remove_socket(key, cx);
                ended += 1;
            }
        }
        if ended > 0 {
            self.totals.websockets_lost += ended;
            cx.report(Notice::WebSocketsLost { websockets: ended });
        }
    }
}
