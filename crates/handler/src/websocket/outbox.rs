// SPDX-License-Identifier: AGPL-3.0-or-later
//! Items on their way to the proxy, many in a packet.
//!
//! Nothing waits here beyond the turn. A packet that the link does not take is lost, and its WebSockets with it: the proxy
//! is told so as soon as it names one of them again.

use std::collections::HashSet;
use std::iter;

use bytes::Bytes;
use grip::item::WsType;

use rpc::uuid::{self, Uuid};
use rpc::ws_control::{Item, Kind, Mark, Packet};

use super::cid::Cid;
use super::reply::Reply;
use super::sent::{self, Hole};
use crate::context::{Context, Sent};

/// Items of a packet at most.
pub const MAX_ITEMS: usize = 128;
/// Bytes of a packet's items at most, unless one alone has more.
pub const MAX_BYTES: usize = 256 * 1024;
/// What an item takes beside its message and the WebSocket's id, about.
const ITEM: usize = 80;

impl Reply {
    /// Whether it is missed by a client whose proxy has ended with it.
    fn is_missed(&self) -> bool {
        !matches!(self, Reply::Ack(_) | Reply::Cancel | Reply::KeepAliveSetup(_))
    }

    /// Bytes that it takes, about.
    pub(super) fn len(&self) -> usize {
        ITEM + match self {
            Reply::Ack(number) => number.len(),
            Reply::Send { content, .. } => content.as_ref().map_or(0, Bytes::len),
            Reply::Close { reason, .. } => reason.len(),
            _ => 0,
        }
    }

    fn item<'a>(&'a self, cid: &'a [u8]) -> Item<'a> {
        match self {
            Reply::Ack(number) => Item { req_id: Some((&**number).into()), ..Item::new(Kind::Ack, cid) },
            Reply::Cancel => Item::new(Kind::Cancel, cid),
            Reply::Send { kind, content, number } => Item {
                content_type: Some(name(*kind).into()),
                message: content.as_deref().map(Into::into),
                queue: number.is_some(),
                req_id: number.map(|number| number.to_string().into_bytes().into()),
                ..Item::new(Kind::Send, cid)
            },
            Reply::KeepAliveSetup(setup) => Item {
                timeout: setup.map(|(seconds, _)| seconds),
                keep_alive_mode: setup.map(|(_, by_interval)| if by_interval { "interval" } else { "idle" }.into()),
                ..Item::new(Kind::KeepAliveSetup, cid)
            },
            Reply::Close { code, reason, told } => Item {
                code: *code,
                told: *told,
                reason: (!reason.is_empty()).then(|| (&**reason).into()),
                ..Item::new(Kind::Close, cid)
            },
            Reply::Refresh => Item::new(Kind::Refresh, cid),
            Reply::Detach => Item::new(Kind::Detach, cid),
        }
    }
}

fn name(kind: WsType) -> &'static str {
    match kind {
        WsType::Text => "text",
        WsType::Binary => "binary",
        WsType::Ping => "ping",
        WsType::Pong => "pong",
    }
}

/// What is said to a WebSocket.
struct Saying {
    cid: Cid,
    reply: Reply,
    /// Others that get the same, each in the shortest form of its UUID.
    also: Vec<u8>,
}

impl Saying {
    fn item<'a>(&'a self, written: &'a uuid::Text) -> Item<'a> {
        let also = (!self.also.is_empty()).then(|| (&*self.also).into());
        Item { also, ..self.reply.item(self.cid.text(written)) }
    }

    fn receivers(&self) -> impl Iterator<Item = Cid> {
        iter::once(self.cid.clone()).chain(Uuid::parse_many(&self.also).map(Cid::Uuid))
    }
}

/// See the module.
#[derive(Default)]
pub struct Outbox {
    items: Vec<Saying>,
    bytes: usize,
    /// The proxy takes items for many WebSockets at once.
    pub joins: bool,
    /// The WebSockets of packets that were lost.
    lost: Vec<Cid>,
    /// The proxy is told which message an item is of, because it may have to tell a successor.
    pub names_messages: bool,
    /// The number of the last message that has been named.
    pub run: u64,
    /// The message that items are of for now.
    named: Option<Mark<'static>>,
    /// What a successor of the proxy may have to be sent again.
    sent: sent::Sent,
    /// WebSockets of a proxy that has ended, which its successor has not named yet.
    unnamed: HashSet<Cid>,
    /// Something for one of them waits.
    withholds: bool,
    marks: Vec<Mark<'static>>,
}

impl Outbox {
    /// Adds an item. It leaves with those before it, in order.
    pub fn push(&mut self, cid: &Cid, reply: Reply, cx: &mut Context<'_>) {
        // What is of no message has a number of its own.
        let is_alone = self.names_messages && self.named.is_none() && reply.is_missed();
        if is_alone {
            self.begin("", None);
        }
        if !(self.names_messages && self.is_lost_with_proxy(cid, &reply, cx)) {
            self.add(cid, reply, cx);
        }
        if is_alone {
            self.end();
        }
    }

    /// Remembers what a successor of the proxy would have to be sent again. Whether there is nobody to be sent it now.
    fn is_lost_with_proxy(&mut self, cid: &Cid, reply: &Reply, cx: &Context<'_>) -> bool {
        if let Some(named) = self.named.as_ref().filter(|_| reply.is_missed()) {
            self.sent.note(cid, named, reply, cx.now);
        }
        let is_lost = !self.unnamed.is_empty() && self.unnamed.contains(cid);
        self.withholds |= is_lost && reply.is_missed();
        is_lost
    }

    /// Whether something waits until a successor of the proxy has named whom it is for: it is lost if this process ends before.
    pub fn waits_for_names(&self) -> bool {
        self.withholds && !self.unnamed.is_empty()
    }

    fn add(&mut self, cid: &Cid, reply: Reply, cx: &mut Context<'_>) {
        if self.joins_last(cid, &reply) {
            return;
        }
        let bytes = cid.len() + reply.len();
        // `refresh` is a command of its own to the proxy, because Pushpin 1.36 skips a packet with an item that it does not know.
        let apart = |other: &Saying| (other.reply == Reply::Refresh) != (reply == Reply::Refresh);
        if self.items.len() == MAX_ITEMS || self.bytes + bytes > MAX_BYTES || self.items.last().is_some_and(apart) {
            self.flush(cx);
        }
        self.bytes += bytes;
        self.mark();
        self.items.push(Saying { cid: cid.clone(), reply, also: Vec::new() });
    }

    /// Adds the receiver to those of the last item, if that is of the same message and says the same.
    fn joins_last(&mut self, cid: &Cid, reply: &Reply) -> bool {
        let (Cid::Uuid(uuid), Reply::Send { number: None, .. }, true) = (cid, reply, self.joins) else { return false };
        let count = self.items.len();
        let (Some(last), Some(mark), Some(named)) = (self.items.last_mut(), self.marks.last(), &self.named) else {
            return false;
        };
        let is_marked = mark.run == named.run && (mark.first + mark.count) as usize == count;
        let is_same = is_marked && matches!(last.cid, Cid::Uuid(_)) && last.reply == *reply;
        let joins = is_same && self.bytes + uuid::BYTES <= MAX_BYTES;
        if joins {
            last.also.extend(uuid.bytes());
            self.bytes += uuid::BYTES;
        }
        joins
    }

    /// Items from now on are of this message. One without an id has a number only.
    pub fn begin(&mut self, channel: &str, id: Option<&str>) {
        if self.names_messages {
            self.run += 1;
            let channel = if id.is_some() { channel } else { "" };
            let (channel, id) = (channel.as_bytes().to_vec().into(), id.unwrap_or_default().as_bytes().to_vec().into());
            self.named = Some(Mark { run: self.run, channel, id, first: 0, count: 1 });
        }
    }

    /// Items from now on are of no message.
    pub fn end(&mut self) {
        self.named = None;
    }

    fn mark(&mut self) {
        let Some(named) = &self.named else { return };
        let first = u32::try_from(self.items.len()).unwrap_or(u32::MAX);
        // Others may have come in between, which are not of it.
        match self.marks.last_mut().filter(|mark| mark.run == named.run && mark.first + mark.count == first) {
            Some(mark) => mark.count += 1,
            None => {
                self.bytes += named.channel.len() + named.id.len();
                self.marks.push(Mark { first, ..named.clone() });
            }
        }
    }

    /// The proxy has ended, and what was sent to it may be lost: until its successor says how far its clients are, nothing is sent
    /// to these WebSockets.
    pub fn proxy_left(&mut self, all: impl Iterator<Item = Cid>) {
        self.unnamed = all.collect();
        self.joins = false;
    }

    /// A successor of the proxy has named a WebSocket: it can be told something again.
    pub fn on_named(&mut self, cid: &Cid) {
        self.unnamed.remove(cid);
    }

    /// Its client has had its messages up to `run`: it is sent the others.
    ///
    /// # Errors
    /// Some of them are not known any more.
    pub fn send_missed(&mut self, cid: &Cid, run: u64, cx: &mut Context<'_>) -> Result<(), Hole> {
        for (mark, reply) in self.sent.missed(cid, run, cx.now)? {
            self.named = Some(Mark { count: 1, ..mark });
            self.add(cid, reply, cx);
        }
        self.end();
        Ok(())
    }

    /// A WebSocket that a predecessor knew, whose client has had its messages up to `run`.
    pub fn on_known_again(&mut self, cid: &Cid, run: u64) {
        self.run = self.run.max(run);
        self.sent.begin(cid, run);
    }

    /// The successor of the proxy has named all WebSockets that it has.
    pub fn on_all_named(&mut self) {
        (self.unnamed, self.withholds) = (HashSet::new(), false);
    }

    /// A WebSocket is gone.
    pub fn forget(&mut self, cid: &Cid) {
        self.sent.forget(cid);
        self.unnamed.remove(cid);
    }

    /// Sends what is there. To be called at the end of each turn.
    pub fn flush(&mut self, cx: &mut Context<'_>) {
        if self.items.is_empty() {
            return;
        }
        let written: Vec<_> = self.items.iter().map(|saying| saying.cid.written()).collect();
        let items = self.items.iter().zip(&written).map(|(saying, written)| saying.item(written)).collect();
        let marks = std::mem::take(&mut self.marks);
        if cx.actions.control(&Packet { items, marks, ..Packet::default() }) == Sent::Lost {
            // What acknowledges or ends concerns nobody who is still here.
            self.lost.extend(self.items.iter().flat_map(Saying::receivers));
        }
        self.items.clear();
        self.bytes = 0;
    }

    /// The WebSockets whose items were lost since the last call; some more than once.
    pub fn take_lost(&mut self) -> Vec<Cid> {
        std::mem::take(&mut self.lost)
    }
}
