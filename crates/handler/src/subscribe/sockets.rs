// SPDX-License-Identifier: AGPL-3.0-or-later
//! WebSockets among those who listen: how they come into channels and leave them.

use std::rc::Rc;

use grip::filter::Filter;
use rpc::passthrough::Passthrough;

use super::audience::{Audience, Closing};
use super::channels::{Kin, Mode};
use super::classes::{Authority, Class, Wish};
use crate::context::Context;
use crate::subscribe::channels::SocketKey;
use crate::websocket::kind::Kind;
use crate::websocket::reply::Reply;
use crate::websocket::session::Subscription;

impl Audience {
    /// The number of a WebSocket's subscription to a channel.
    fn subscription(&self, key: SocketKey, name: &str) -> Option<usize> {
        let channel = self.channels.find(name)?;
        let place = |subscription: &Subscription| self.channels.group_at(subscription.place.group).channel;
        self.sockets[key].subscriptions.iter().position(|subscription| place(subscription) == channel)
    }

    /// Whether a WebSocket is subscribed to a channel.
    pub fn is_subscribed(&self, key: SocketKey, name: &str) -> bool {
        self.subscription(key, name).is_some()
    }

    /// Subscribes a WebSocket, or changes the filters that it has. Without `filters` the channel is the route's own.
    pub fn subscribe_socket(
        &mut self,
        key: SocketKey,
        name: &str,
        filters: Option<Box<[Filter]>>,
        cx: &mut Context<'_>,
    ) {
        let implicit = filters.is_none();
        match self.subscription(key, name) {
            Some(at) => {
                let subscription = &mut self.sockets[key].subscriptions[at];
                subscription.implicit |= implicit;
                if let Some(filters) = filters {
                    subscription.filters = filters;
                }
            }
            None => {
                let place = self.add_member(name, Kin::default(), Mode::Socket, key, cx);
                let filters = filters.unwrap_or_default();
                let birth = self.sockets.next_birth();
                self.sockets[key].subscriptions.push(Subscription { place, birth, filters, implicit });
            }
        }
        self.reclass_socket(key, cx);
    }

    /// Ends a subscription that the backend has asked for.
    pub fn unsubscribe_socket(&mut self, key: SocketKey, name: &str, cx: &mut Context<'_>) {
        let Some(at) = self.subscription(key, name) else { return };
        if self.sockets[key].subscriptions[at].implicit {
            return;
        }
        let left = self.sockets[key].subscriptions.swap_remove(at);
        self.leave_place(left.place, Mode::Socket, cx);
        self.reclass_socket(key, cx);
    }

    /// What filters look at has changed: puts a WebSocket among those who get the same as it does now.
    pub fn reclass_socket(&mut self, key: SocketKey, cx: &mut Context<'_>) {
        for (at, class) in self.classes(key).into_iter().enumerate() {
            let place = self.sockets[key].subscriptions[at].place;
            let channel = self.channels.group_at(place.group).channel;
            let kin = Kin { class, cohort: None };
            if self.channels.find_group(channel, &kin) == Some(place.group) {
                continue;
            }
            let name = self.channels.channel(channel).name.clone();
            let new = self.add_member(&name, kin, Mode::Socket, key, cx);
            self.sockets[key].subscriptions[at].place = new;
            self.leave_place(place, Mode::Socket, cx);
        }
    }

    fn classes(&mut self, key: SocketKey) -> Vec<Option<Rc<Class>>> {
        let socket = &self.sockets[key];
        let wish = |subscription: &Subscription| {
            let channel = self.channels.group_at(subscription.place.group).channel;
            let name = &*self.channels.channel(channel).name;
            let name = name.strip_prefix(&*socket.kind.site.prefix).unwrap_or(name).to_string();
            Wish { name, prev_id: None, filters: subscription.filters.clone() }
        };
        let wishes: Vec<Wish> = socket.subscriptions.iter().map(wish).collect();
        let (meta, kind) = (socket.meta().clone(), socket.kind.clone());
        let Kind { uri, site } = &*kind;
        // It has come over HTTP, and so does what filters ask.
        let root = uri.strip_prefix("ws").map_or_else(|| uri.to_string(), |rest| ["http", rest].concat());
        // What a route's target has for WebSockets may be no HTTP, so the address itself is asked.
        let passthrough =
            Passthrough { route: &site.route, prefer_internal: false, trusted: site.trusted, auto_share: false };
        let authority = || Authority {
            uri: meta.get("url").and_then(|url| grip::link::resolve(&root, url)),
            passthrough: passthrough.encode(),
        };
        self.sockets.standings.classes(&meta, &wishes, || Some(authority()))
    }

    /// Has a connection closed. It gets nothing any more but what waits for it.
    pub fn close_socket(&mut self, key: SocketKey, code: Option<i32>, reason: Rc<str>, cx: &mut Context<'_>) {
        let socket = &mut self.sockets[key];
        socket.closing = true;
        let left = std::mem::take(&mut socket.subscriptions);
        match socket.lane.opened() {
            Some(lane) => self.closing.push(Closing { lane: (lane, self.holds[lane].birth), code, reason }),
            None => self.outbox.push(&socket.cid.clone(), Reply::Close { code, reason, told: false }, cx),
        }
        left.iter().for_each(|subscription| self.leave_place(subscription.place, Mode::Socket, cx));
    }

    /// Forgets a WebSocket.
    pub fn remove_socket(&mut self, key: SocketKey, cx: &mut Context<'_>) {
        let Some(socket) = self.sockets.remove(key) else { return };
        self.outbox.forget(&socket.cid);
        if let Some(lane) = socket.lane.opened() {
            self.holds.remove(lane);
        }
        socket.subscriptions.iter().for_each(|left| self.leave_place(left.place, Mode::Socket, cx));
    }
}
