// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is known of one WebSocket.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use grip::Meta;
use grip::filter::Filter;
use grip::websocket::control::{KeepAlive, Message};
use rpc::ws_control::Item;
use zhttp::Id;

use super::cid::Cid;
use super::kind::Kind;
use super::reply::Reply;
use crate::subscribe::channels::{HoldKey, Place};
use crate::subscribe::few::Few;

/// How long the proxy may take to say that a message has left.
const ACK: Duration = Duration::from_secs(8);
/// How long a WebSocket is remembered if the proxy does not say.
const TTL: u32 = 60;
/// Bytes of data for filters that a backend may set for one WebSocket.
pub const MAX_META: usize = 65_536;

/// A channel of a WebSocket.
#[derive(Debug)]
pub struct Subscription {
    /// The place in the table of channels.
    pub place: Place,
    /// A number that no other one has had; later ones are greater.
    pub birth: u64,
    /// What messages pass.
    pub filters: Box<[Filter]>,
    /// The channel is the route's: the backend can not unsubscribe from it.
    pub implicit: bool,
}

/// The way on which we push into the client's session, beside the proxy.
#[derive(Debug, Default)]
pub enum Lane {
    /// None: messages go by the proxy.
    #[default]
    None,
    /// The client's frontend lets us; so far there has been nothing to push.
    Offered(Box<Offer>),
    /// This hold.
    Open(HoldKey),
}

/// What it takes to push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The frontend's instance.
    pub sender: Box<[u8]>,
    /// The session there.
    pub id: Id,
    /// By its ROUTER.
    pub by_router: bool,
    /// Bytes that may be sent.
    pub credits: u32,
}

impl Lane {
    /// The hold that it is, once it is in use.
    pub fn opened(&self) -> Option<HoldKey> {
        match self {
            Lane::Open(key) => Some(*key),
            Lane::None | Lane::Offered(_) => None,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Socket {
    /// The connection's id, by which proxy and handler know it.
    pub cid: Cid,
    /// A number that no other one has had.
    pub birth: u64,
    /// What it has in common with others.
    pub kind: Rc<Kind>,
    /// It has been told to close, and gets nothing any more.
    pub closing: bool,
    /// How its client is reached.
    pub lane: Lane,
    /// Its channels.
    pub subscriptions: Few<Subscription>,
    /// The last message of a predecessor that it has had; `u64::MAX` if it had none.
    pub run: u64,
    /// What only a backend's further wishes lead to.
    extra: Option<Box<Extra>>,
    /// For so long it is remembered after a word of the proxy, in seconds.
    ttl: u32,
    expires: Instant,
    /// When it will be looked at.
    pub(super) watched: Instant,
    /// The number of the note that says so, which no other WebSocket has; older notes are stale.
    pub(super) note: u32,
}

/// What most backends never ask for.
#[derive(Debug, Default)]
struct Extra {
    /// Data for filters.
    meta: Meta,
    /// What the client is sent when it has been sent nothing else for a while.
    keep_alive: Option<KeepAlive>,
    /// There once a message was delayed.
    delays: Option<Delays>,
}

/// Messages that are sent later.
#[derive(Debug, Default)]
struct Delays {
    waiting: Option<(Message, Instant)>,
    /// The number of the next message that the proxy acknowledges.
    next_number: u64,
    /// When the proxy must have acknowledged which message, in order.
    unanswered: VecDeque<(u64, Instant)>,
}

/// What has become of a WebSocket that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// It goes on.
    Fine,
    /// This is to be sent.
    Say(Reply),
    /// The proxy does not answer: it is told `cancel`, and the WebSocket is forgotten.
    Unanswered,
    /// The proxy has not named it for too long: it is forgotten.
    Expired,
}

impl Socket {
    /// One that the proxy has told of.
    pub fn new(cid: Cid, birth: u64, now: Instant) -> Self {
        Socket {
            cid,
            birth,
            kind: Rc::default(),
            closing: false,
            lane: Lane::None,
            subscriptions: Few::None,
            run: u64::MAX,
            extra: None,
            ttl: TTL,
            expires: now + Duration::from_secs(TTL.into()),
            watched: now,
            note: 0,
        }
    }

    /// Takes in what the proxy says of it alone.
    pub(super) fn introduce(&mut self, item: &Item<'_>, now: Instant) {
        if let (Lane::None, Some(client), Some(lane)) = (&self.lane, &item.client, item.lane)
            && let Some(id) = Id::new(&client.id)
        {
            let (sender, by_router) = ((*client.sender).into(), client.router_resp);
            self.lane = Lane::Offered(Box::new(Offer { sender, id, by_router, credits: lane.credits }));
        }
        self.live(Some(item.ttl.unwrap_or(TTL)), now);
    }

    /// The proxy still has it; it may say for how long that holds, in seconds.
    pub fn live(&mut self, ttl: Option<u32>, now: Instant) {
        self.ttl = ttl.unwrap_or(self.ttl);
        self.expires = now + Duration::from_secs(self.ttl.into());
    }

    /// Has a message sent later, and the one that waits already at once.
    pub fn delay(&mut self, message: Message, delay: Duration, now: Instant) -> Option<Reply> {
        let waiting = self.flush_delayed(now);
        self.extra.get_or_insert_default().delays.get_or_insert_default().waiting = Some((message, now + delay));
        waiting
    }

    /// The message that waits, to be sent at once.
    pub fn flush_delayed(&mut self, now: Instant) -> Option<Reply> {
        let delays = self.extra.as_mut()?.delays.as_mut()?;
        let (Message { kind, content }, _) = delays.waiting.take()?;
        if self.lane.opened().is_some() {
            return Some(Reply::Send { kind, content: Some(content), number: None });
        }
        let number = delays.next_number;
        delays.next_number += 1;
        delays.unanswered.push_back((number, now + ACK));
        Some(Reply::Send { kind, content: Some(content), number: Some(number) })
    }

    /// The proxy has sent the message of this number.
    pub fn on_ack(&mut self, number: &[u8]) {
        let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
        if let Some(delays) = self.delays_mut() {
            delays.unanswered.retain(|(waiting, _)| Some(*waiting) != number);
        }
    }

    /// The proxy that was to acknowledge messages has ended.
    pub fn forget_unanswered(&mut self) {
        if let Some(delays) = self.delays_mut() {
            delays.unanswered.clear();
        }
    }

    fn delays_mut(&mut self) -> Option<&mut Delays> {
        self.extra.as_mut()?.delays.as_mut()
    }

    /// What the client is sent when it has been sent nothing else for a while.
    pub fn keep_alive(&self) -> Option<&KeepAlive> {
        self.extra.as_ref()?.keep_alive.as_ref()
    }

    /// Sets that.
    pub fn set_keep_alive(&mut self, keep_alive: Option<KeepAlive>) {
        if keep_alive.is_some() || self.extra.is_some() {
            self.extra.get_or_insert_default().keep_alive = keep_alive;
        }
    }

    /// Data for filters.
    pub fn meta(&self) -> &Meta {
        self.extra.as_ref().map_or_else(Default::default, |extra| &extra.meta)
    }

    /// Sets or removes data for filters. `false`: it would be too much, and nothing has changed.
    pub fn set_meta(&mut self, name: String, value: Option<String>) -> bool {
        let others = self.meta().iter().filter(|(other, _)| *other != name);
        let mut entries: Vec<(String, String)> =
            others.map(|(name, value)| (name.to_string(), value.to_string())).collect();
        entries.extend(value.map(|value| (name, value)));
        let bytes: usize = entries.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > MAX_META {
            return false;
        }
        self.extra.get_or_insert_default().meta = entries.into_iter().collect();
        true
    }

    /// Its places in the lists of its channels.
    pub fn places(&self) -> impl ExactSizeIterator<Item = &Place> {
        self.subscriptions.iter().map(|subscription| &subscription.place)
    }

    /// When it is to be looked at.
    pub fn next_due(&self) -> Instant {
        [self.delayed_until(), self.answer_due()].into_iter().flatten().fold(self.expires, Instant::min)
    }

    /// When the message that waits is to be sent.
    fn delayed_until(&self) -> Option<Instant> {
        self.extra.as_ref()?.delays.as_ref()?.waiting.as_ref().map(|(_, due)| *due)
    }

    /// When the proxy must have acknowledged the first message that it has not.
    fn answer_due(&self) -> Option<Instant> {
        self.extra.as_ref()?.delays.as_ref()?.unanswered.front().map(|(_, due)| *due)
    }

    /// Looks at it.
    pub fn look(&mut self, now: Instant) -> Look {
        if self.expires <= now {
            return Look::Expired;
        }
        if self.answer_due().is_some_and(|due| due <= now) {
            return Look::Unanswered;
        }
        if self.delayed_until().is_some_and(|due| due <= now)
            && let Some(reply) = self.flush_delayed(now)
        {
            return Look::Say(reply);
        }
        Look::Fine
    }
}
