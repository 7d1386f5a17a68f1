// SPDX-License-Identifier: AGPL-3.0-or-later
//! Groups that share a request, between the exchanges of their members and those of their sources.

use std::time::Instant;

use zhttp::{Kind, Packet};

use super::Engine;
use crate::context::Links;
use crate::exchange::Exchange;
use crate::sharing::table::Work;
use crate::sharing::{Event, Member, NAME};

impl Engine {
    /// Does what has come up for groups, and what comes of that. In order: what a source sends reaches all members before
    /// what it sends next.
    pub(super) fn work_on_groups(&mut self, now: Instant, links: &mut dyn Links) {
        if self.groups_wait || self.shared.sharing.is_empty() {
            return;
        }
        self.groups_wait = true;
        loop {
            while let Some(event) = self.shared.sharing.pop_front() {
                self.group_event(event, now, links);
            }
            let work = self.groups.settle(now);
            if work.is_empty() && self.shared.sharing.is_empty() {
                break;
            }
            self.work_for_groups(work, now, links);
        }
        self.groups_wait = false;
    }

    /// Does what is due for groups.
    pub(super) fn group_timers(&mut self, now: Instant, links: &mut dyn Links) {
        let work = self.groups.on_timer(now);
        self.work_for_groups(work, now, links);
        self.work_on_groups(now, links);
    }

    fn group_event(&mut self, event: Event, now: Instant, links: &mut dyn Links) {
        match event {
            Event::Join(member, text) => self.join_group(member, text, now, links),
            Event::Passed(group, member, bytes) => self.groups.passed(group, member, bytes),
            Event::Left(group, member) => self.groups.left(group, member),
            Event::Packet(group, target, message) => {
                let packet = Packet::decode(&message).unwrap_or_default();
                let last = packet.kind.ends_session() || (packet.kind == Kind::Data && !packet.more);
                let kept = (target, message.clone());
                for member in self.groups.receive(group, packet.body.len(), last, kept) {
                    self.with_member(member, now, links, |exchange, context| {
                        exchange.group_packet(&packet, target, context);
                    });
                }
            }
        }
    }

    fn join_group(&mut self, member: Member, text: Box<[u8]>, now: Instant, links: &mut dyn Links) {
        let Some(entry) = self.exchanges.get(member.index) else { return };
        if !entry.exchange.is_joining(member) {
            return;
        }
        if let Some((group, missed)) = self.groups.join(&text, member) {
            return self.with_member(member, now, links, |exchange, context| {
                exchange.joined(group, false);
                for (target, message) in missed {
                    exchange.group_packet(&Packet::decode(&message).unwrap_or_default(), target, context);
                }
            });
        }
        let number = self.shared.serial();
        let peer = self.shared.peers.intern(NAME);
        let Some(source) = peer.and_then(|peer| entry.exchange.source(peer, number, now)) else {
            // There have been too many peers to know one more.
            return self.with_member(member, now, links, Exchange::ask_backend);
        };
        let index = self.insert(|index, serial| source.place(index, serial));
        let source = Member { index, serial: self.exchanges[index].exchange.serial() };
        let group = self.groups.found(text, source, member);
        self.with_member(member, now, links, |exchange, _| exchange.joined(group, true));
        self.with_member(source, now, links, Exchange::ask_backend);
    }

    fn work_for_groups(&mut self, work: Vec<Work>, now: Instant, links: &mut dyn Links) {
        for work in work {
            match work {
                Work::Grant { source, seq, credits } => self.with_member(source, now, links, |exchange, context| {
                    let packet = Packet { kind: Kind::Credit, credits: Some(credits), ..Packet::default() };
                    exchange.client_packet(&packet, Some(seq), context);
                }),
                Work::End(source) => self.with_member(source, now, links, Exchange::client_left),
                Work::Cut(member) => self.with_member(member, now, links, Exchange::fall_behind),
            }
        }
    }

    fn with_member(
        &mut self,
        member: Member,
        now: Instant,
        links: &mut dyn Links,
        act: impl FnOnce(&mut Exchange, &mut crate::context::Context<'_>),
    ) {
        if self.exchanges.get(member.index).is_some_and(|entry| entry.exchange.serial() == member.serial) {
            self.with_exchange(member.index, now, links, act);
        }
    }
}
