//! All who are held, and what they are subscribed to: holds come in and leave here.

use std::rc::Rc;
use std::time::{Duration, Instant};

use grip::HoldMode;
use zhttp::Wheel;

use super::channels::{ChannelKey, Channels, HoldKey};
use super::classes::Class;
use crate::context::{Address, Context};
use crate::hold::table::Holds;
use crate::links::Links;

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
    linger: Duration,
    /// Channels whose last long-poll has left, each once, however often polls come and go.
    lingering: Wheel<Box<str>>,
    /// Channels that nobody listens to any more, for those who keep something by channel.
    deserted: Vec<Box<str>>,
}

impl Audience {
    /// Nobody. A channel's subscription outlives its last long-poll by `linger`.
    pub fn new(linger: Duration, now: Instant) -> Self {
        Audience {
            holds: Holds::default(),
            channels: Channels::default(),
            links: Links::default(),
            linger,
            lingering: Wheel::new(LINGER_TICK, now),
            deserted: Vec::new(),
        }
    }

    /// Subscribes a hold.
    pub fn subscribe(&mut self, key: HoldKey, name: &str, class: Option<Rc<Class>>, cx: &mut Context<'_>) {
        let hold = &mut self.holds[key];
        let (place, new) = self.channels.add(name, class, hold.mode(), key);
        hold.places.push(place);
        let channel = self.channels.group_at(place.group).channel;
        self.channels.channel_mut(channel).lingers_until = None;
        if new {
            // After the hold is in the table: who sees the subscription may publish at once.
            cx.actions.follow(name);
        }
    }

    /// Forgets a hold. What its client is told, if anything, has been sent.
    pub fn remove(&mut self, key: HoldKey, cx: &mut Context<'_>) {
        let Some(hold) = self.holds.remove(key) else { return };
        let mode = hold.mode();
        for place in hold.places {
            let left = self.channels.remove(place, mode);
            if let Some(moved) = left.moved
                && let Some(own) = self.holds[moved].places.iter_mut().find(|own| own.group == place.group)
            {
                own.index = place.index;
            }
            if let Some(channel) = left.deserted {
                self.leave_channel(channel, mode, cx);
            }
        }
    }

    /// Ends a hold and tells the frontend to close the client's connection.
    pub fn cancel(&mut self, key: HoldKey, cx: &mut Context<'_>) {
        let hold = &mut self.holds[key];
        let (to, id, seq) = (hold.address(), *hold.session.id(), hold.session.send().seq);
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

    fn leave_channel(&mut self, key: ChannelKey, mode: HoldMode, cx: &mut Context<'_>) {
        let channel = self.channels.channel_mut(key);
        if mode == HoldMode::Response && !self.linger.is_zero() {
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
