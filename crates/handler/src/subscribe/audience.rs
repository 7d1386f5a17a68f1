// SPDX-License-Identifier: AGPL-3.0-or-later
//! All who are held, and what they are subscribed to: holds come in and leave here.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use zhttp::Wheel;

use super::channels::{ChannelKey, Channels, CohortKey, HoldKey, Kin, Mode, Place};
use super::classes::Class;
use crate::cohort::table::{Cohorts, Membership};
use crate::context::{Address, Context};
use crate::fetch::Ask;
use crate::hold::table::Holds;
use crate::links::Links;
use crate::statistics::notes::Notes;
use crate::websocket::outbox::Outbox;
use crate::websocket::reply::Reply;
use crate::websocket::table::Sockets;

/// How exactly the end of a subscription that lingers is kept.
const LINGER_TICK: Duration = Duration::from_secs(1);

/// See the module.
pub struct Audience {
    /// Who is held.
    pub holds: Holds,
    /// Who is subscribed to what.
    pub channels: Channels,
    /// The ways to the frontends.
    pub links: Links,
    /// WebSockets.
    pub sockets: Sockets,
    /// The way to the proxy, for what concerns them.
    pub outbox: Outbox,
    /// What is noted for statistics; none while nobody listens to them.
    pub notes: Option<Box<Notes>>,
    /// Those who are at the same place and go on in the same way.
    pub cohorts: Cohorts,
    linger: Duration,
    /// Channels whose last long-poll has left, each once, however often polls come and go.
    lingering: Wheel<Box<str>>,
    /// Channels that nobody listens to any more, for those who keep something by channel.
    deserted: Vec<Box<str>>,
    /// Channels that have got their first subscriber, each with the time of it, in order.
    fresh: VecDeque<(Instant, Box<str>)>,
    /// What backends are to be told because holds have ended.
    farewells: Vec<Ask>,
    /// WebSockets that are to be closed behind what is pushed into them.
    pub closing: Vec<Closing>,
}

/// A WebSocket whose client is told to close as soon as nothing waits for it.
pub struct Closing {
    /// Its lane, with its birth.
    pub lane: (HoldKey, u64),
    /// Status, if any.
    pub code: Option<i32>,
    /// Text.
    pub reason: Rc<str>,
}

impl Audience {
    /// Nobody. A channel's subscription outlives its last long-poll by `linger`.
    pub fn new(linger: Duration, now: Instant) -> Self {
        Audience {
            holds: Holds::default(),
            channels: Channels::default(),
            links: Links::default(),
            sockets: Sockets::new(now),
            outbox: Outbox::default(),
            notes: None,
            cohorts: Cohorts::new(now),
            linger,
            lingering: Wheel::new(LINGER_TICK, now),
            deserted: Vec::new(),
            fresh: VecDeque::new(),
            farewells: Vec::new(),
            closing: Vec::new(),
        }
    }

    /// Subscribes a hold. It must not be in the channel.
    pub fn subscribe(&mut self, key: HoldKey, name: &str, class: Option<Rc<Class>>, cx: &mut Context<'_>) {
        let hold = &self.holds[key];
        let cohort = hold.membership.map(|membership| membership.cohort);
        let mode = hold.mode().into();
        let place = self.add_member(name, Kin { class, cohort }, mode, key, cx);
        self.holds[key].places.push(place);
    }

    /// Adds a subscriber to a channel, which becomes one that publishers are told of.
    pub(super) fn add_member(&mut self, name: &str, kin: Kin, mode: Mode, key: u32, cx: &mut Context<'_>) -> Place {
        let (place, new) = self.channels.add(name, kin, mode, key);
        if let Some(notes) = &mut self.notes {
            notes.changed.push((mode, name.into()));
        }
        let channel = self.channels.group_at(place.group).channel;
        self.channels.channel_mut(channel).lingers_until = None;
        if new {
            // After the subscriber is in the table: who sees the subscription may publish at once.
            cx.actions.follow(name);
            self.fresh.push_back((cx.now, name.into()));
        }
        place
    }

    /// Makes a hold a member of a cohort. Its places in channels must be made after that.
    pub fn enlist(&mut self, key: HoldKey, cohort: CohortKey) {
        self.dismiss(key);
        let membership = self.cohorts.join(cohort, key);
        self.holds[key].membership = membership;
    }

    /// A hold leaves its cohort, if it is in one.
    pub fn dismiss(&mut self, key: HoldKey) {
        if let Some(place) = self.holds[key].membership.take() {
            self.leave_cohort(place);
        }
    }

    fn leave_cohort(&mut self, place: Membership) {
        if let Some(moved) = self.cohorts.leave(place)
            && let Some(hold) = self.holds.get_mut(moved)
        {
            hold.membership = Some(place);
        }
    }

    /// Gives a hold these channels instead of those it has. Those that stay, stay as they are. Returns the new ones.
    pub fn resubscribe<'a>(
        &mut self,
        key: HoldKey,
        channels: &'a [(String, Option<Rc<Class>>)],
        cx: &mut Context<'_>,
    ) -> Vec<&'a str> {
        let old = std::mem::take(&mut self.holds[key].places);
        let cohort = self.holds[key].membership.map(|membership| membership.cohort);
        let name = |audience: &Self, place: &Place| {
            let group = audience.channels.group_at(place.group);
            audience.channels.channel(group.channel).name.clone()
        };
        let mut left: Vec<(Box<str>, Place)> = old.iter().map(|place| (name(self, place), *place)).collect();
        let (mut stays, mut joins, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for (channel, class) in channels {
            let at = left.iter().position(|(known, _)| **known == **channel);
            let kin = Kin { class: class.clone(), cohort };
            let group = self.channels.find(channel).and_then(|found| self.channels.find_group(found, &kin));
            match at {
                Some(at) if group == Some(left[at].1.group) => stays.push(left.swap_remove(at).1),
                _ => {
                    joins.push((channel, kin.class));
                    new.extend(at.is_none().then_some(&**channel));
                }
            }
        }
        // The hold is known to be at all of its places while others are moved.
        self.holds[key].places = stays.into_iter().collect();
        joins.into_iter().for_each(|(channel, class)| self.subscribe(key, channel, class, cx));
        let mode = self.holds[key].mode().into();
        left.into_iter().for_each(|(_, place)| self.leave_place(place, mode, cx));
        new
    }

    /// Channels whose first subscriber has come before `time` and that have not been told of, or not since they were new.
    pub fn fresh_until(&mut self, time: Instant) -> Vec<Box<str>> {
        let count = self.fresh.iter().take_while(|(since, _)| *since <= time).count();
        self.fresh.drain(..count).map(|(_, name)| name).collect()
    }

    /// When the first of them has come.
    pub fn fresh_since(&self) -> Option<Instant> {
        self.fresh.front().map(|(since, _)| *since)
    }

    /// What backends are to be told because holds have ended since the last call.
    pub fn take_farewells(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.farewells)
    }

    /// Forgets a hold. What its client is told, if anything, has been sent.
    pub fn remove(&mut self, key: HoldKey, cx: &mut Context<'_>) {
        self.part_with(key, false, cx);
    }

    /// Forgets a hold that the proxy has again.
    pub fn remove_given_back(&mut self, key: HoldKey, cx: &mut Context<'_>) {
        self.part_with(key, true, cx);
    }

    fn part_with(&mut self, key: HoldKey, given_back: bool, cx: &mut Context<'_>) {
        let Some(hold) = self.holds.remove(key) else { return };
        if let Some(socket) = hold.socket() {
            return self.remove_socket(socket, cx);
        }
        if let Some(notes) = &mut self.notes {
            let list = if given_back { &mut notes.given_back } else { &mut notes.ended };
            list.push((hold.session.client(), hold.session.id()));
        }
        let mode = hold.mode().into();
        hold.places.iter().for_each(|&place| self.leave_place(place, mode, cx));
        if let Some(place) = hold.membership {
            self.leave_cohort(place);
        }
        self.farewells.extend(hold.farewell.map(|farewell| *farewell));
    }

    pub(super) fn leave_place(&mut self, place: Place, mode: Mode, cx: &mut Context<'_>) {
        if let Some(notes) = &mut self.notes {
            let channel = self.channels.group_at(place.group).channel;
            notes.changed.push((mode, self.channels.channel(channel).name.clone()));
        }
        let left = self.channels.remove(place, mode);
        if let Some(moved) = left.moved {
            let is_there = |own: &&mut Place| own.group == place.group;
            let own = match mode {
                Mode::Stream | Mode::Response => self.holds[moved].places.iter_mut().find(is_there),
                Mode::Socket => {
                    let places =
                        self.sockets[moved].subscriptions.iter_mut().map(|subscription| &mut subscription.place);
                    places.into_iter().find(is_there)
                }
            };
            if let Some(own) = own {
                own.index = place.index;
            }
        }
        if let Some(channel) = left.deserted {
            self.leave_channel(channel, mode, cx);
        }
    }

    /// Ends a hold and has the client's connection closed, by its frontend or, if it is a WebSocket's, by the proxy.
    pub fn cancel(&mut self, key: HoldKey, cx: &mut Context<'_>) {
        let hold = &mut self.holds[key];
        if let Some(socket) = hold.socket() {
            self.outbox.push(&self.sockets[socket].cid.clone(), Reply::Cancel, cx);
            return self.remove(key, cx);
        }
        let (to, id, seq) = (hold.address(), hold.session.id(), hold.session.send().seq);
        self.links.cancel(to, id, seq, cx);
        self.remove(key, cx);
    }

    /// A frontend can not be reached any more in this way. Returns how many were held so.
    pub fn on_peer_gone(&mut self, peer: Address, cx: &mut Context<'_>) -> usize {
        self.links.forget(peer.peer);
        let gone = self.holds.at(peer);
        gone.iter().for_each(|&key| self.remove(key, cx));
        gone.len()
    }

    /// Ends the sessions of packets that could not be sent. Returns how many.
    pub fn end_lost(&mut self, cx: &mut Context<'_>) -> usize {
        let lost = self.links.take_lost();
        for &(peer, id) in &lost {
            if let Some(key) = self.holds.find(peer, id) {
                self.remove(key, cx);
            }
        }
        lost.len()
    }

    fn leave_channel(&mut self, key: ChannelKey, mode: Mode, cx: &mut Context<'_>) {
        let channel = self.channels.channel_mut(key);
        if mode == Mode::Response && !self.linger.is_zero() {
            // A client that has got its answer is usually back in a moment.
            let end = cx.now + self.linger;
            channel.lingers_until = Some(end);
            if !std::mem::replace(&mut channel.watched, true) {
                self.lingering.insert(channel.name.clone(), end);
            }
        } else if channel.lingers_until.is_none() {
            self.forget_channel(key, cx);
        }
    }

    fn forget_channel(&mut self, key: ChannelKey, cx: &mut Context<'_>) {
        let name = self.channels.forget(key);
        if let Some(notes) = &mut self.notes {
            notes.changed.push((Mode::Response, name.clone()));
        }
        cx.actions.unfollow(&name);
        self.deserted.push(name);
    }

    /// Ends subscriptions that have lingered long enough.
    pub fn on_timer(&mut self, cx: &mut Context<'_>) {
        while let Some(name) = self.lingering.pop(cx.now) {
            let Some(key) = self.channels.find(&name) else { continue };
            let channel = self.channels.channel_mut(key);
            match channel.lingers_until {
                Some(end) if end > cx.now => self.lingering.insert(name, end),
                Some(_) => self.forget_channel(key, cx),
                None => channel.watched = false,
            }
        }
    }

    /// When [`Audience::on_timer`] is to be called.
    pub fn next_due(&self) -> Option<Instant> {
        self.lingering.next()
    }

    /// Channels that have lost their last subscriber since the last call.
    pub fn deserted(&mut self) -> impl Iterator<Item = Box<str>> + '_ {
        self.deserted.drain(..)
    }
}
