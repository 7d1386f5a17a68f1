// SPDX-License-Identifier: AGPL-3.0-or-later
//! All WebSockets, and which one a packet is for; what handlers say is in [`items`].

mod items;

use std::hash::{BuildHasher as _, DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use routes::Table as Routes;
use rpc::uuid::Uuid;
use rpc::ws_control::{self, Item, Kind as ItemKind, Mark};
use zhttp::recovery::{Held, Seen};
use zhttp::session::{HandedOver, server};
use zhttp::{Bulk, INITIAL_BODY, Id, Ids, Kind, Packet, PeerId, Wheel};

use super::control::{self, Items};
use super::had::Had;
use super::handshake::Forms;
use super::relay::{self, Arrival, Relay, Scene};
use super::relays::Relays;
use super::slow::Limit;
use super::successor::Legacy;
use crate::context::{Context, Note, Way};
use crate::exchange::KeepAlive;
use crate::request::uri::Scheme;

/// How exactly deadlines are kept.
const TICK: Duration = Duration::from_millis(20);
/// Items in one packet for a handler, which may be Pushpin's.
const MAX_ITEMS: usize = 128;
/// Bytes of messages in one such packet.
const MAX_ITEM_BYTES: usize = 256 * 1024;
/// Clients whose handler has gone are closed over this time, so that they do not all come back at once.
const SPREAD: Duration = Duration::from_secs(1);

/// All WebSockets.
pub struct Table {
    relays: Relays,
    /// What clients have asked for.
    forms: Forms,
    timers: Wheel<Timer>,
    /// How often a timer was set.
    notes: u32,
    /// Makes names that nobody can guess: it has a key that nobody knows.
    names: DefaultHasher,
    /// What of the handler's messages may wait for a client.
    limit: Limit,
    /// What has come from handlers.
    had: Had,
    /// The handler that is there goes on with what its predecessor had.
    takes_up: bool,
    /// By then a successor of the handler must have said that it goes on.
    successor_by: Option<Instant>,
    /// A handler is there, and has been told which WebSockets there are.
    greeted: bool,
    /// Until then the handler may speak of WebSockets that a predecessor of this proxy had, and that frontends may still name.
    strangers_until: Option<Instant>,
}

/// The timer of the WebSocket with this index, unless another one has been set since.
struct Timer {
    index: u32,
    note: u32,
}

impl Table {
    /// Without any. Of what the handler sends to a client, no more may wait than `limit` says.
    pub fn new(limit: Limit, now: Instant) -> Self {
        Table {
            relays: Relays::default(),
            forms: Forms::default(),
            notes: 0,
            timers: Wheel::new(TICK, now),
            names: std::hash::RandomState::new().build_hasher(),
            limit,
            had: Had::default(),
            takes_up: false,
            successor_by: None,
            greeted: false,
            strangers_until: None,
        }
    }

    /// How many clients there are. Relays whose client is gone, and whose backend is still to hear of it, do not count.
    pub fn len(&self) -> usize {
        self.relays.clients()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.relays.clients() == 0
    }

    /// All of them.
    pub fn relays(&self) -> impl Iterator<Item = &Relay> {
        self.relays.iter().map(|(_, relay)| relay)
    }

    /// Whether a client's session is one of them.
    pub fn has_client(&self, key: &(PeerId, Id)) -> bool {
        self.relays.find_client(key).is_some()
    }

    /// Whether a connection is one of them, by its public name.
    pub fn has_connection(&self, cid: &[u8]) -> bool {
        self.relays.find_name(cid).is_some()
    }

    /// Takes in the first packet of a WebSocket, which `begin` makes begin.
    pub fn open(
        &mut self,
        session: server::Session,
        packet: &Packet<'_>,
        scheme: Scheme,
        cx: &mut Context<'_>,
        begin: impl FnOnce(&mut Relay, &mut Scene<'_, '_>),
    ) {
        let serial = cx.shared.serial();
        let index = self.relays.next_index();
        let (name, request) = (self.name(serial), self.forms.keep(packet));
        let arrival = Arrival { index: index as u32, serial, name, client: session, request, packet, scheme };
        self.relays.insert(Relay::new(arrival));
        let mut items = Items::new();
        self.with(index, &mut items, cx, begin);
        tell(items, cx);
    }

    fn name(&self, serial: u64) -> Uuid {
        let halves = [self.hash(serial, 0), self.hash(serial, 1)];
        Uuid::random(u128::from(halves[0]) << 64 | u128::from(halves[1]))
    }

    /// Up to a second, the same for the same number.
    fn jitter(&self, serial: u64) -> Duration {
        Duration::from_millis(self.hash(serial, 2) % 1000)
    }

    fn hash(&self, serial: u64, part: u8) -> u64 {
        let mut hasher = self.names.clone();
        (serial, part).hash(&mut hasher);
        hasher.finish()
    }

    /// Makes names with this key from now on, so that a run can be repeated.
    pub fn name_by(&mut self, names: DefaultHasher) {
        self.names = names;
    }

    /// Lets one do something, and forgets it if that was the last thing.
    fn with<R>(
        &mut self,
        index: usize,
        items: &mut Items,
        cx: &mut Context<'_>,
        act: impl FnOnce(&mut Relay, &mut Scene<'_, '_>) -> R,
    ) -> Option<R> {
        let entries = self.relays.all();
        let parting = self.relays.clients() + cx.shared.config.max_open_requests;
        let may_part = entries < parting;
        let relay = &mut self.relays.get_mut(index)?.relay;
        let scene = &mut Scene { cx, items, limit: self.limit, may_part };
        let result = act(relay, scene);
        relay.end_refused(scene);
        relay.log(scene);
        relay.keep(scene);
        let (name, is_over) = (relay.name(), relay.is_over());
        if is_over && relay.next_due().is_none() {
            relay.release(scene);
        }
        if is_over && self.relays.leave(index) {
            scene.cx.shared.statistics.end(&name.text(), false, scene.cx.now);
        }
        let entry = self.relays.get_mut(index)?;
        match entry.relay.next_due() {
            None => {
                if let Some(relay) = self.relays.remove(index) {
                    self.forms.release(relay.request());
                }
            }
            Some(due) if entry.timer.is_none_or(|timer| due < timer) => {
                self.notes = self.notes.wrapping_add(1);
                (entry.timer, entry.note) = (Some(due), self.notes);
                self.timers.insert(Timer { index: index as u32, note: self.notes }, due);
            }
            Some(_) => {}
        }
        Some(result)
    }

    /// Takes in a later packet of a client, if it is for one of them.
    pub fn client_packet(&mut self, key: &(PeerId, Id), packet: &Packet<'_>, seq: Option<u32>, cx: &mut Context<'_>) {
        let Some(index) = self.relays.find_client(key) else { return };
        let mut items = Items::new();
        self.with(index, &mut items, cx, |relay, scene| relay.client_packet(packet, seq, scene));
        tell(items, cx);
    }

    /// Takes in a packet from the backend's side. `false` if it is for none of them.
    pub fn origin_packet(
        &mut self,
        (index, serial): (u32, u64),
        packet: &Packet<'_>,
        from: Option<PeerId>,
        seq: Option<u32>,
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(index) = self.find_origin(index, serial) else { return false };
        let mut items = Items::new();
        self.with(index, &mut items, cx, |relay, scene| relay.origin_packet(packet, from, seq, scene));
        tell(items, cx);
        true
    }

    fn find_origin(&self, index: u32, serial: u64) -> Option<usize> {
        let index = relay::index_of_origin(index)? as usize;
        self.relays.get(index).is_some_and(|entry| entry.relay.is_origin(serial)).then_some(index)
    }

    /// The backend of a WebSocket is to be asked again. `false`: there is no such WebSocket.
    pub fn refresh(&mut self, cid: &[u8], cx: &mut Context<'_>) -> bool {
        let Some(index) = self.relays.find_name(cid) else { return false };
        let mut items = Items::new();
        self.with(index, &mut items, cx, Relay::refresh);
        tell(items, cx);
        true
    }

    fn with_all(&mut self, cx: &mut Context<'_>, mut act: impl FnMut(&mut Relay, Duration, &mut Scene<'_, '_>)) {
        let mut items = Items::new();
        let indexes: Vec<usize> = self.relays.iter().map(|(index, _)| index).collect();
        for index in indexes {
            let Some(entry) = self.relays.get(index) else { continue };
            let spread = self.jitter(entry.relay.serial()).min(SPREAD);
            self.with(index, &mut items, cx, |relay, scene| act(relay, spread, scene));
        }
        tell(items, cx);
    }

    /// An instance that had clients is gone.
    pub fn client_instance_left(&mut self, peer: PeerId, cx: &mut Context<'_>) {
        self.with_all(cx, |relay, _, scene| {
            if relay.client_key().0 == peer {
                relay.client_left(scene);
            }
        });
    }

    /// An outbound process is gone.
    pub fn outbound_left(&mut self, peer: Option<PeerId>, cx: &mut Context<'_>) {
        self.with_all(cx, |relay, _, scene| relay.outbound_left(peer, scene));
    }

    /// An outbound process has come, which may have what a predecessor of ours has left.
    pub fn outbound_joined(&mut self, cx: &mut Context<'_>) {
        self.with_all(cx, |relay, _, scene| relay.send_claim(scene));
    }

    /// A backend that speaks ZHTTP itself is gone.
    pub fn backend_left(&mut self, peer: PeerId, cx: &mut Context<'_>) {
        self.with_all(cx, |relay, _, scene| {
            if relay.is_at(peer) {
                relay.outbound_left(Some(peer), scene);
            }
        });
    }

    /// A handler is gone. Its WebSockets stay for a while if its successor can go on with them.
    pub fn handler_left(&mut self, cx: &mut Context<'_>) {
        self.greeted = false;
        // One that ends before it could answer us knew a predecessor of ours.
        let is_young = self.strangers_until.is_some_and(|until| cx.now < until);
        let waits = std::mem::take(&mut self.takes_up) || self.successor_by.is_some() || is_young;
        if waits {
            self.successor_by.get_or_insert(cx.now + cx.shared.config.recover_wait);
        }
        self.orphan(cx, |relay| !(waits && relay.handler_left()));
    }

    /// A handler has come: it is told of all WebSockets that its predecessor knew.
    pub fn handler_joined(&mut self, cx: &mut Context<'_>) {
        if cx.shared.config.recover_wait.is_zero() {
            return;
        }
        self.greeted = true;
        let instance = cx.shared.instance.clone();
        let from = || Some((&*instance).into());
        send(&ws_control::Packet { from: from(), marks: self.had.marks(), ..Default::default() }, cx);
        self.with_all(cx, |relay, _, scene| relay.announce(scene));
        send(&ws_control::Packet { from: from(), named_all: true, many: true, ..Default::default() }, cx);
    }

    /// Whether the handler that is there has been told of all.
    pub fn has_greeted(&self) -> bool {
        self.greeted
    }

    /// A predecessor may have had WebSockets that frontends name soon.
    pub fn expect_strangers(&mut self, until: Instant) {
        self.strangers_until = Some(until);
    }

    /// A frontend says which messages its WebSockets may have.
    pub fn note_seen(&mut self, seen: &[Seen<'_>]) {
        for Seen { run, channel, id, .. } in seen.iter().filter(|seen| !seen.last) {
            self.had.note(&Mark { run: *run, channel: (*channel).into(), id: (*id).into(), first: 0, count: 0 });
        }
    }

    /// A frontend offers WebSockets of a predecessor that have this record. Gives how many are gone on with.
    pub fn take_up(
        &mut self,
        frontend: PeerId,
        record: &[u8],
        sessions: &[Held],
        routes: &Routes,
        cx: &mut Context<'_>,
    ) -> usize {
        let mut items = Items::new();
        let legacy = Legacy::decode(record).unwrap_or_default();
        let request = Packet::decode(&legacy.request).unwrap_or_default();
        let mut count = 0;
        for held in sessions {
            let standing = held.standing;
            let state = HandedOver {
                client: frontend,
                id: held.id,
                in_seq: standing.in_seq,
                out_seq: standing.out_seq,
                credits: standing.credits,
                by_router: true,
            };
            // Where positions count, the client's side has forgotten what it was granted.
            let granted = held.unread.filter(|_| held.counted.is_none()).map_or(0, |unread| unread.granted);
            let client = server::Session::take_up(&state, INITIAL_BODY as u32, granted, cx.now);
            let is_known = self.has_client(&(frontend, held.id)) || self.has_connection(&legacy.cid);
            let (name, scheme) = (Uuid::parse(&legacy.cid), legacy.scheme(&request));
            let Some((name, scheme)) = name.zip(scheme).filter(|_| !is_known) else {
                let text = "a frontend offers a WebSocket whose record can not be read";
                cx.links.log(&Note::Warning { kind: "record", text: &text });
                let ids = Ids::One(held.id.as_bytes(), None);
                let cancel = Packet { from: &cx.shared.instance, ids, kind: Kind::Cancel, ..Packet::default() };
                Way { internal: false, by_router: true }.send(cx.shared.peers.name(frontend), &cancel, cx.links);
                continue;
            };
            let (index, serial) = (self.relays.next_index(), cx.shared.serial());
            let kept = self.forms.keep(&request);
            let arrival =
                Arrival { index: index as u32, serial, name, client, request: kept, packet: &request, scheme };
            self.relays.insert(Relay::new(arrival));
            let greeted = self.greeted;
            let taken = self.with(index, &mut items, cx, |relay, scene| {
                if !relay.resume(&legacy, held, routes, scene) {
                    relay.close_restarted(scene);
                    return false;
                }
                if greeted {
                    relay.announce(scene);
                }
                if !relay.is_over() {
                    relay.note_return(&request, scene);
                }
                true
            });
            match taken {
                Some(true) => count += 1,
                // The handler's knowledge of it is of no use.
                _ => items.push(control::item(ItemKind::Gone, &name.text())),
            }
        }
        tell(items, cx);
        count
    }

    /// No successor of the handler has said in time that it goes on.
    fn end_wait(&mut self, cx: &mut Context<'_>) {
        if self.successor_by.is_some_and(|by| by <= cx.now) {
            self.successor_by = None;
            self.orphan(cx, |_| true);
        }
    }

    fn orphan(&mut self, cx: &mut Context<'_>, concerns: impl Fn(&mut Relay) -> bool) {
        let mut closed = 0;
        self.with_all(cx, |relay, spread, scene| {
            closed += usize::from(concerns(relay) && relay.orphaned(spread, scene));
        });
        if closed > 0 {
            let text = format!("the handler is gone: {closed} WebSockets with its subscriptions are closed with 1012");
            cx.links.log(&Note::Warning { kind: "handler-left", text: &text });
        }
    }

    /// The proxy stops: tells everybody.
    pub fn stop(&mut self, cx: &mut Context<'_>) {
        self.with_all(cx, |relay, _, scene| relay.stop(scene));
    }

    /// When [`Table::on_timer`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        self.timers.next().into_iter().chain(self.successor_by).min()
    }

    /// Does what is due; `clients` and `origins` collect sessions to be kept alive.
    pub fn on_timer(&mut self, clients: &mut Bulk<Way>, origins: &mut Bulk<()>, cx: &mut Context<'_>) {
        self.end_wait(cx);
        let mut items = Items::new();
        while let Some(timer) = self.timers.pop(cx.now) {
            let index = timer.index as usize;
            let Some(entry) = self.relays.get_mut(index).filter(|entry| entry.note == timer.note) else { continue };
            entry.timer = None;
            self.with(index, &mut items, cx, |relay, scene| {
                relay.on_timer(scene, &mut |keep_alive| match keep_alive {
                    KeepAlive::Client { to, way, id } => clients.push(to.to, way, id, to.seq),
                    KeepAlive::Origin { to, id } => origins.push(to.to, (), id, to.seq),
                });
                relay.flush(scene);
            });
        }
        tell(items, cx);
    }

    /// Keep-alives for these clients were not taken.
    pub fn cut_client(&mut self, key: &(PeerId, Id), cx: &mut Context<'_>) {
        let Some(index) = self.relays.find_client(key) else { return };
        let mut items = Items::new();
        self.with(index, &mut items, cx, Relay::cut_client);
        tell(items, cx);
    }

    /// Keep-alives for these backends were not taken.
    pub fn cut_origin(&mut self, (index, serial): (u32, u64), cx: &mut Context<'_>) {
        let Some(index) = self.find_origin(index, serial) else { return };
        let mut items = Items::new();
        self.with(index, &mut items, cx, Relay::cut_origin);
        tell(items, cx);
    }
}

/// Sends items to the handler, in as few packets as it takes.
fn tell(items: Items, cx: &mut Context<'_>) {
    let mut rest = items.into_iter().peekable();
    while rest.peek().is_some() {
        let (mut part, mut bytes) = (Items::new(), 0);
        while part.len() < MAX_ITEMS
            && let Some(item) = rest.next_if(|item| part_has_room(bytes, item))
        {
            bytes += item.message.as_ref().map_or(0, |message| message.len());
            part.push(item);
        }
        send(&ws_control::Packet { items: part, ..Default::default() }, cx);
    }
}

fn send(packet: &ws_control::Packet<'_>, cx: &mut Context<'_>) {
    if !packet.encode().is_ok_and(|packet| cx.links.control(&packet)) {
        let text = "no handler takes what is to be told to it about WebSockets";
        cx.links.log(&Note::Warning { kind: "control-full", text: &text });
    }
}

/// Each packet has room for one item at least.
fn part_has_room(bytes: usize, item: &Item<'_>) -> bool {
    bytes == 0 || bytes + item.message.as_ref().map_or(0, |message| message.len()) <= MAX_ITEM_BYTES
}
