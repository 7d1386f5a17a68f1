// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a handler says: to which WebSockets, whether they have had it, and what leaves for many of them at once.

use std::time::Duration;

use rpc::uuid::Uuid;
use rpc::ws_control::{self, Item, Kind as ItemKind};
use zhttp::{Bulk, Ext, Id, Packet, Run};

use super::super::control::{self, Items};
use super::super::had::{Named, named, run_items};
use super::super::pipe::Frame;
use super::super::relay::{self, Relay};
use super::{Table, tell};
use crate::context::{Context, Note, Way};

/// What the handler says, and to which WebSockets of ours.
struct Said<'p, 'a> {
    item: &'p Item<'a>,
    /// The message that it is of.
    named: Option<Named>,
    receivers: Vec<usize>,
}

impl Said<'_, '_> {
    /// Whether both are the same message for clients.
    fn is_like(&self, other: &Self) -> bool {
        let [(a, run), (b, other_run)] =
            [self, other].map(|said| (said.item, said.named.as_ref().map(|named| named.run)));
        let are_sends =
            a.kind == ItemKind::Send && b.kind == ItemKind::Send && a.req_id.is_none() && b.req_id.is_none();
        are_sends && a.content_type == b.content_type && a.message == b.message && run == other_run
    }
}

impl Table {
    /// Takes in what a handler says.
    pub fn control_packet(&mut self, message: &[u8], cx: &mut Context<'_>) {
        let packet = match ws_control::Packet::decode(message) {
            Ok(packet) => packet,
            Err(error) => {
                let text = format!("skipping a packet of the handler about WebSockets: {error}");
                return cx.links.log(&Note::Warning { kind: "control", text: &text });
            }
        };
        if packet.takes_up {
            (self.takes_up, self.successor_by) = (true, None);
        }
        let mut of_items: Vec<Option<Named>> = vec![None; packet.items.len()];
        for mark in &packet.marks {
            self.had.note(mark);
            let named = named(mark);
            let (first, count) = (mark.first as usize, mark.count as usize);
            of_items.iter_mut().skip(first).take(count).for_each(|of| *of = Some(named.clone()));
        }
        let mut items = Items::new();
        let mut rest: Vec<Said<'_, '_>> = Vec::with_capacity(packet.items.len());
        // An answer decides about what follows it.
        for (item, named) in packet.items.iter().zip(of_items) {
            if item.kind == ItemKind::Ack && named.is_none() {
                self.item(item, None, &mut items, cx);
                continue;
            }
            let own = self.relays.find_name(&item.cid);
            let is_own = self.is_new(own, item, named.as_ref());
            let mut receivers: Vec<usize> = own.filter(|_| is_own).into_iter().collect();
            for name in item.also.iter().flat_map(|also| Uuid::parse_many(also)) {
                let index = self.relays.find_uuid(name);
                match index {
                    None => self.refuse(item, &name.text(), &mut items, cx),
                    Some(index) if self.is_new(Some(index), item, named.as_ref()) => receivers.push(index),
                    Some(_) => {}
                }
            }
            if own.is_none() {
                self.refuse(item, &item.cid, &mut items, cx);
            }
            if !receivers.is_empty() {
                rest.push(Said { item, named, receivers });
            }
        }
        for alike in rest.chunk_by(Said::is_like) {
            let receivers = || alike.iter().flat_map(|said| &said.receivers).copied();
            let Some(Said { item, named, .. }) = alike.first() else { continue };
            if receivers().nth(1).is_some() {
                self.send_to_many(item, named.as_ref(), receivers(), &mut items, cx);
            } else {
                receivers().for_each(|index| self.item_for(index, item, named.as_ref(), &mut items, cx));
            }
        }
        tell(items, cx);
    }

    /// Notes that a message has come for a WebSocket. A message for a client that had come before is of no use, nor is one that the
    /// handler will send again.
    fn is_new(&mut self, index: Option<usize>, item: &Item<'_>, named: Option<&Named>) -> bool {
        let Some((entry, named)) = index.and_then(|index| self.relays.get_mut(index)).zip(named) else { return true };
        entry.relay.is_named() && (entry.relay.note_run(named.run) || item.kind != ItemKind::Send)
    }

    /// The same message for several clients: it leaves in packets for many of them, if their credits allow.
    fn send_to_many(
        &mut self,
        first: &Item<'_>,
        named: Option<&Named>,
        receivers: impl Iterator<Item = usize>,
        items: &mut Items,
        cx: &mut Context<'_>,
    ) {
        let frame = relay::message(first);
        let mut together: Bulk<Way> = Bulk::default();
        let mut apart = Vec::new();
        for index in receivers {
            let turn = self.relays.get_mut(index).and_then(|entry| {
                let turn = entry.relay.take_turn(frame.len(), named, cx.now)?;
                entry.relay.count_sent(&frame, cx);
                Some(turn)
            });
            match turn {
                Some((to, way, id)) => together.push(to.to, way, id, to.seq),
                None => apart.push(index),
            }
        }
        self.send_together(&frame, named, together, items, cx);
        for index in apart {
            self.item_for(index, first, named, items, cx);
        }
    }

    fn send_together(
        &mut self,
        frame: &Frame,
        named: Option<&Named>,
        mut together: Bulk<Way>,
        items: &mut Items,
        cx: &mut Context<'_>,
    ) {
        let of_run = named.map(|named| (named.run, run_items(named)));
        let run = of_run.as_ref().map(|(number, items)| Run { number: *number, items });
        let ext = Ext { run, ..Ext::MULTI };
        let packet = Packet { from: &cx.shared.instance, ext, ..frame.packet() };
        let mut refused = Vec::new();
        together.drain(|peer, way, ids| {
            if !way.send(cx.shared.peers.name(peer), &Packet { ids, ..packet }, cx.links) {
                refused.extend(ids.iter().flatten().filter_map(|(id, _)| Id::new(id)).map(|id| (peer, id)));
            }
        });
        for key in refused {
            if let Some(index) = self.relays.find_client(&key) {
                self.with(index, items, cx, Relay::cut_client);
            }
        }
    }

    fn item(&mut self, item: &Item<'_>, named: Option<&Named>, items: &mut Items, cx: &mut Context<'_>) {
        match self.relays.find_name(&item.cid) {
            Some(index) => self.item_for(index, item, named, items, cx),
            None => self.refuse(item, &item.cid, items, cx),
        }
    }

    /// An item is for a WebSocket that is not here.
    fn refuse(&self, item: &Item<'_>, cid: &[u8], items: &mut Items, cx: &Context<'_>) {
        let is_stranger = self.strangers_until.is_some_and(|until| cx.now < until);
        if item.kind != ItemKind::Cancel && !is_stranger {
            items.push(control::item(ItemKind::Cancel, cid));
        }
    }

    fn item_for(
        &mut self,
        index: usize,
        item: &Item<'_>,
        named: Option<&Named>,
        items: &mut Items,
        cx: &mut Context<'_>,
    ) {
        let jitter = self.relays.get(index).map_or(Duration::ZERO, |entry| self.jitter(entry.relay.serial()));
        let answer = self.with(index, items, cx, |relay, scene| relay.on_item(item, named, jitter, scene)).flatten();
        if let Some(number) = answer {
            let number = number.to_vec().into();
            items.push(Item { req_id: Some(number), ..control::item(ItemKind::Ack, &item.cid) });
        }
    }
}
