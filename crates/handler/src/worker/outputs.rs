// SPDX-License-Identifier: AGPL-3.0-or-later
//! Carries out what the engine decides: packets to frontends, subscriptions at publishers, lines in the log.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use foldhash::fast::RandomState;
use limited::Limited;
use rpc::command::Refresh;
use rpc::ws_control;
use tnetstring::Writer;
use transport::error::SendError;
use transport::{Change, Dealer, Publisher, Push, Reason, Router, Subscriber, Taken};
use zhttp::{Packet, PeerId, Peers};

use super::pressure::{BUSY, Link, Pressure};
use crate::context::{Actions, Address, GivenBack, Sent};
use crate::engine::Engine;
use crate::notice::{Level, Notice};
use crate::take_over::asked;

/// Bytes of packets that are kept for a frontend whose link is full. Holds are asked for nothing then, but what had been
/// begun is finished.
const MAX_OVERFLOW: usize = 64 * 1024 * 1024;

/// See the module.
pub(super) struct Outputs {
    instance: Vec<u8>,
    out: Publisher,
    /// Packets to and from frontends.
    pub(super) stream: Router,
    /// Requests that go back to the proxy.
    retry: Push,
    /// First packets of requests of our own.
    internal_out: Push,
    /// Further packets of them, and their responses.
    pub(super) internal_stream: Router,
    /// What the proxy is told about WebSockets.
    control_out: Push,
    /// Commands to the proxy.
    pub(super) commands: Dealer,
    /// Packets that the link to the proxy has not taken, in order.
    control_overflow: Overflow,
    /// Links to the proxy that had ended when that was last looked at.
    proxies_left: u64,
    /// Items of publishers, for the channels that are subscribed to.
    pub(super) sub: Option<Subscriber>,
    /// Instances that have been met.
    pub(super) peers: Peers,
    /// Frontends that are there, by each socket.
    frontends: Vec<Address>,
    /// Packets that a full link has not taken, in order.
    overflow: HashMap<Address, Overflow, RandomState>,
    pressure: Pressure,
    writer: Writer,
    /// The time of this turn.
    pub(super) now: Instant,
    pub(super) warnings: Limited,
}

/// The sockets that packets leave by.
pub(super) struct Sockets {
    pub(super) out: Publisher,
    pub(super) stream: Router,
    pub(super) retry: Push,
    pub(super) internal_out: Push,
    pub(super) internal_stream: Router,
    pub(super) control_out: Push,
    pub(super) commands: Dealer,
}

impl Outputs {
    pub(super) fn new(
        instance: &str,
        sockets: Sockets,
        sub: Option<Subscriber>,
        publish_queue_bytes: usize,
        now: Instant,
    ) -> Self {
        let Sockets { out, stream, retry, internal_out, internal_stream, control_out, commands } = sockets;
        Outputs {
            instance: instance.as_bytes().to_vec(),
            out,
            stream,
            retry,
            internal_out,
            internal_stream,
            control_out,
            commands,
            control_overflow: Overflow::default(),
            proxies_left: 0,
            sub,
            peers: Peers::default(),
            frontends: Vec::new(),
            overflow: HashMap::default(),
            pressure: Pressure::new(publish_queue_bytes),
            writer: Writer::new(16_384),
            now,
            warnings: Limited::default(),
        }
    }

    /// Bytes that wait for the links to frontends, and to proxies for WebSockets.
    pub(super) fn waiting_bytes(&self) -> (usize, usize) {
        (self.out.load().bytes + self.stream.load().bytes, self.control_out.load().bytes)
    }

    /// Whether publishers are to wait.
    pub(super) fn must_wait(&mut self, now: Instant) -> bool {
        let busy = self.out.load().messages > BUSY || self.stream.load().messages > BUSY;
        let links = self.frontends.iter().filter(|_| busy).map(|&link| {
            let name = self.peers.name(link.peer);
            let load = if link.by_router { self.stream.load_of(name) } else { self.out.load_of(name) };
            (Link::Frontend(link), load)
        });
        let links = links.chain([(Link::Proxy, self.control_out.load())]);
        let must_wait = self.pressure.must_wait(links, now);
        let lagging = self.pressure.lagging();
        if lagging > 0 {
            let text = format_args!(
                "{lagging} links do not keep up; what is for their clients waits, for link_timeout at most"
            );
            self.warnings.warn("lagging", now, text);
        }
        must_wait
    }

    /// Whether something for a frontend has not left this process.
    pub(super) fn waits(&self, to: Address) -> bool {
        let name = self.peers.name(to.peer);
        let load = if to.by_router { self.stream.load_of(name) } else { self.out.load_of(name) };
        load.messages > 0 || self.overflow.contains_key(&to)
    }

    /// Whether something for the proxy has not left.
    pub(super) fn has_for_proxy(&self) -> bool {
        self.control_out.load().messages > 0 || self.control_waits()
    }

    /// Whether something for the proxy has not left, and the link to it does not lag.
    pub(super) fn waits_for_proxy(&self) -> bool {
        self.has_for_proxy() && !self.pressure.lags(Link::Proxy)
    }

    /// Frontends that have not got everything, and whether each lags.
    pub(super) fn behind(&self, engine: &Engine) -> Vec<(Vec<u8>, bool)> {
        let behind = self.frontends.iter().filter(|&&to| self.waits(to) || engine.waits_for_room(to.peer));
        behind.map(|&to| (self.peers.name(to.peer).to_vec(), self.pressure.lags(Link::Frontend(to)))).collect()
    }

    /// Frontends that have come or gone, or have room again, as PUB sees them.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        self.out.changes().collect()
    }

    /// Notes that a frontend has come or gone. Returns what the engine should know.
    pub(super) fn note(&mut self, change: Change, by_router: bool) -> Option<(Address, News)> {
        let name = match &change {
            Change::Joined(name) | Change::Left(name, _) | Change::Room(name) => name,
        };
        let address = Address { peer: self.peers.intern(name)?, by_router };
        match change {
            Change::Joined(_) => {
                if !self.frontends.contains(&address) {
                    self.frontends.push(address);
                }
                None
            }
            Change::Left(name, reason) => {
                self.frontends.retain(|known| *known != address);
                self.overflow.remove(&address);
                if reason == Reason::Stuck {
                    let name = String::from_utf8_lossy(&name);
                    let text = format_args!("{name} has taken nothing for too long and is given up; see link_timeout");
                    self.warnings.warn("stuck", self.now, text);
                }
                Some((address, News::Gone))
            }
            Change::Room(_) => self.send_overflow(address).then_some((address, News::Room)),
        }
    }

    /// Has the proxy ask the backend of a WebSocket. It is a command because Pushpin 1.36 knows no such item.
    fn refresh(&mut self, cid: &[u8]) {
        let call = Refresh { cid: Some(cid.into()), channel: None };
        // Nobody waits for the answer; without an id Pushpin does not take the command.
        let call = rpc::call::encode(None, Some(b"refresh"), &call).unwrap_or_default();
        if let Err(error) = self.commands.send(&call) {
            let text = format_args!("a backend is not asked anew, because the proxy takes no more commands: {error}");
            self.warnings.warn("refresh", self.now, text);
        }
    }

    /// Whether packets wait that the link to the proxy has not taken.
    pub(super) fn control_waits(&self) -> bool {
        !self.control_overflow.packets.is_empty()
    }

    /// Whether a link to a proxy, by which it is told of WebSockets, has ended since the last call.
    pub(super) fn has_proxy_left(&mut self) -> bool {
        let left = self.control_out.counters().left;
        std::mem::replace(&mut self.proxies_left, left) != left
    }

    /// Whether there is a proxy that is told of WebSockets.
    pub(super) fn has_proxy(&self) -> bool {
        self.control_out.has_peer()
    }

    /// Drops what no proxy has got anything of.
    pub(super) fn drop_control(&mut self) {
        self.control_overflow = Overflow::default();
        self.control_out.take_unsent();
    }

    /// Sends what the link to the proxy did not take before.
    pub(super) fn send_control_overflow(&mut self) {
        while let Some(packet) = self.control_overflow.packets.front() {
            if self.control_out.send(packet).is_err() {
                return;
            }
            self.control_overflow.bytes -= packet.len();
            self.control_overflow.packets.pop_front();
        }
    }

    /// Sends what a link did not take before; whether it has taken all and has room for more.
    fn send_overflow(&mut self, to: Address) -> bool {
        let Some(overflow) = self.overflow.get_mut(&to) else { return true };
        while let Some(packet) = overflow.packets.front() {
            let name = self.peers.name(to.peer);
            let sent = match to.by_router {
                true => self.stream.send(name, packet),
                false => self.out.send(name, packet),
            };
            if sent == Err(SendError::Full) {
                return false;
            }
            overflow.bytes -= packet.len();
            overflow.packets.pop_front();
            if sent == Ok(Taken::Full) {
                return false;
            }
        }
        self.overflow.remove(&to);
        true
    }
}

/// What the engine should know of a frontend.
pub(super) enum News {
    /// It can not be reached any more.
    Gone,
    /// It takes packets again.
    Room,
}

/// See [`Outputs::overflow`].
#[derive(Default)]
struct Overflow {
    packets: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Actions for Outputs {
    fn send(&mut self, to: Address, packet: &Packet<'_>) -> Sent {
        let packet = Packet { from: &self.instance, ..*packet };
        let name = self.peers.name(to.peer);
        let prefix = (!to.by_router).then_some(&name[..]);
        let encoded = packet.encode(prefix, &mut self.writer);
        let sent = match self.overflow.get_mut(&to) {
            // What comes later must not overtake it.
            Some(_) => Err(SendError::Full),
            None if to.by_router => self.stream.send(name, encoded),
            None => self.out.send(name, encoded),
        };
        let error = match sent {
            Ok(Taken::More) => return Sent::Taken,
            Ok(Taken::Full) => return Sent::Full,
            Err(SendError::Full) => {
                let overflow = self.overflow.entry(to).or_default();
                if overflow.bytes + encoded.len() <= MAX_OVERFLOW {
                    overflow.bytes += encoded.len();
                    overflow.packets.push_back(encoded.to_vec());
                    return Sent::Full;
                }
                SendError::Full
            }
            Err(error) => error,
        };
        let name = String::from_utf8_lossy(name);
        self.warnings.warn("send", self.now, format_args!("a packet for {name} is lost: {error}"));
        Sent::Lost
    }

    fn frontend(&mut self, name: &[u8]) -> Option<PeerId> {
        self.peers.intern(name)
    }

    fn open(&mut self, packet: &Packet<'_>) -> bool {
        let packet = Packet { from: &self.instance, ..*packet };
        self.internal_out.send(packet.encode(None, &mut self.writer)).is_ok()
    }

    fn to_proxy(&mut self, to: PeerId, packet: &Packet<'_>) -> bool {
        let packet = Packet { from: &self.instance, ..*packet };
        self.internal_stream.send(self.peers.name(to), packet.encode(None, &mut self.writer)).is_ok()
    }

    fn give_back(&mut self, poll: &GivenBack<'_>) -> bool {
        match asked::give_back(poll, &self.instance, &self.peers) {
            Ok(packet) => self.retry.send(&packet).is_ok(),
            Err(error) => {
                let text = format_args!("a long-poll can not be given back: {error}");
                self.warnings.warn("give-back", self.now, text);
                false
            }
        }
    }

    fn control(&mut self, packet: &ws_control::Packet<'_>) -> Sent {
        // These come in packets of their own.
        if packet.items.iter().any(|item| item.kind == ws_control::Kind::Refresh) {
            for item in &packet.items {
                self.refresh(&item.cid);
            }
            return Sent::Taken;
        }
        // Nothing in it is nested.
        let encoded = packet.encode().unwrap_or_default();
        self.send_control_overflow();
        // What comes later must not overtake what waits.
        let sent = match self.control_waits() {
            true => Err(SendError::Full),
            false => self.control_out.send(&encoded),
        };
        match sent {
            Ok(Taken::More) => Sent::Taken,
            Ok(Taken::Full) => Sent::Full,
            Err(_) if self.control_overflow.bytes + encoded.len() <= MAX_OVERFLOW => {
                self.control_overflow.bytes += encoded.len();
                self.control_overflow.packets.push_back(encoded);
                Sent::Full
            }
            Err(error) => {
                self.warnings.warn("control", self.now, format_args!("a packet for the proxy is lost: {error}"));
                Sent::Lost
            }
        }
    }

    fn follow(&mut self, channel: &str) {
        if let Some(Err(error)) = self.sub.as_ref().map(|sub| sub.subscribe(channel.as_bytes())) {
            self.warnings.warn("follow", self.now, format_args!("unable to subscribe to {channel}: {error}"));
        }
    }

    fn unfollow(&mut self, channel: &str) {
        if let Some(Err(error)) = self.sub.as_ref().map(|sub| sub.unsubscribe(channel.as_bytes())) {
            self.warnings.warn("follow", self.now, format_args!("unable to unsubscribe from {channel}: {error}"));
        }
    }

    fn report(&mut self, notice: Notice<'_>) {
        match notice.level() {
            Level::Info => tracing::info!("{notice}"),
            Level::Warning => self.warnings.warn(notice.kind(), self.now, notice),
        }
    }
}
