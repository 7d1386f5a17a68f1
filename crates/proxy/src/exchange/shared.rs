// SPDX-License-Identifier: AGPL-3.0-or-later
//! A request that is shared: one exchange asks the backend, the others get copies of what it answers (see
//! [`sharing`](crate::sharing)).

use std::rc::Rc;
use std::time::Instant;

use tnetstring::Writer;
use zhttp::session::server;
use zhttp::{INITIAL_BODY, Id, Ids, Kind, Packet, PeerId};

use super::Exchange;
use crate::body::upload::Upload;
use crate::context::{Context, Note};
use crate::error::{ProxyError, only_asks};
use crate::request::headers::{Additions, origin_uri};
use crate::request::uri::Uri;
use crate::sharing::alike::{Asked, Exactness, is_personal};
use crate::sharing::{Event, GroupId, Member, NAME, Part};

impl Exchange {
    pub(super) fn member(&self) -> Member {
        Member { index: self.index, serial: self.serial }
    }

    /// Has the request asked together with those that are the same, if it is to be shared; `false`: it goes its own way. To be
    /// called before its first target is tried.
    pub(super) fn share(&mut self, packet: &Packet<'_>, context: &mut Context<'_>) -> bool {
        if matches!(self.part, Part::Joining | Part::In(_) | Part::Source) {
            return false;
        }
        let wanted = self.sharing_key().is_some() || self.part == Part::Wanted;
        let plain = self.upload.is_complete() && self.upload.kept().is_some_and(<[u8]>::is_empty);
        if !wanted || !plain || !only_asks(packet.method.unwrap_or_default()) {
            return false;
        }
        let Some(text) = self.asked(packet, context) else { return false };
        self.part = Part::Joining;
        context.shared.sharing.push_back(Event::Join(self.member(), text));
        true
    }

    /// How exactly others must ask the same. What a handler asks, or has asked again, is to be no other than if it were asked
    /// alone; for clients somebody has decided otherwise.
    fn exactness(&self) -> Exactness {
        if self.retry || self.internal { Exactness::All } else { Exactness::What }
    }

    /// What the handler says that others must have in common with it: that they were given back at the same time, or what it
    /// likes.
    fn sharing_key(&self) -> Option<&[u8]> {
        let key = self.inspected.as_ref().and_then(|inspected| inspected.sharing_key.as_deref());
        self.round.as_deref().or(key)
    }

    /// What makes other requests the same.
    fn asked(&self, packet: &Packet<'_>, context: &mut Context<'_>) -> Option<Box<[u8]>> {
        let route = self.route.as_ref()?;
        let target = route.targets.first()?;
        let uri = Uri::parse(packet.uri?)?;
        let inspected = self.inspected.as_deref();
        let known = inspected.and_then(|inspected| inspected.user_data.as_ref());
        let known = known.map(tnetstring::to_vec).transpose().ok()?;
        let shared = &mut *context.shared;
        let token = shared.signatures.token(route, context.unix);
        let what = self.circumstances(packet, &uri, route, target, &shared.config.rules, token);
        let additions = Additions::new(packet.headers, &what);
        let asked = Asked {
            key: self.sharing_key().unwrap_or_default(),
            known: known.as_deref().unwrap_or_default(),
            method: packet.method.unwrap_or_default(),
            uri: &origin_uri(&uri, route, target),
            headers: &additions.headers(packet.headers, &what),
            route,
            cross_origin: self.fitting.is_some(),
            exactness: self.exactness(),
        };
        Some(asked.text())
    }

    /// Whether it waits to be put into a group.
    pub fn is_joining(&self, member: Member) -> bool {
        self.member() == member && self.part == Part::Joining
    }

    /// It waits for what a group gets.
    pub fn joined(&mut self, group: GroupId, first: bool) {
        self.part = Part::In(group);
        self.group = Some((group, first));
    }

    /// The exchange that asks for a group, whose first member this is. It has no place yet.
    pub fn source(&self, group: PeerId, number: u64, now: Instant) -> Option<Exchange> {
        let id = Id::indexed(0, number);
        let first = Packet {
            from: NAME,
            ids: Ids::One(id.as_bytes(), Some(0)),
            credits: Some(INITIAL_BODY as u32),
            stream: true,
            ..Packet::default()
        };
        let session = server::Session::open(&first, group, 0, now).ok()?;
        let mut source = Exchange::new(0, 0, session, b"", &first, self.scheme, now);
        source.request = self.request.clone();
        source.part = Part::Source;
        // A group takes whatever a backend says; its members look at it.
        source.adopts = true;
        source.upload = Upload::new(b"", false);
        (source.internal, source.debug, source.trusted) = (self.internal, self.debug, self.trusted);
        source.route = self.route.clone();
        source.inspected = self.inspected.clone();
        Some(source)
    }

    /// Puts it in its place in the table.
    pub fn place(mut self, index: usize, serial: u64) -> Self {
        (self.index, self.serial) = (index, serial);
        self
    }

    /// Asks the backend, for a group if it is a source, else for itself.
    pub fn ask_backend(&mut self, context: &mut Context<'_>) {
        if !self.is_source() {
            self.part = Part::None;
        }
        self.with_request(|this, packet| this.open_origin(packet, context));
    }

    /// Copies a packet to the group.
    pub(super) fn send_to_group(&self, packet: &Packet<'_>, context: &mut Context<'_>) {
        let message: Rc<[u8]> = packet.encode(None, &mut Writer::new(packet.body.len() + 256)).into();
        context.shared.sharing.push_back(Event::Packet(self.serial, self.target, message));
    }

    /// Takes in a copy of what the group has got, from this target of the route.
    pub fn group_packet(&mut self, packet: &Packet<'_>, target: usize, context: &mut Context<'_>) {
        if self.is_abandoned() || !matches!(self.part, Part::In(_)) {
            return;
        }
        let first = self.group.is_some_and(|(_, first)| first);
        if !first && packet.code.is_some() && is_personal(packet.headers, self.exactness()) {
            // What is for the first alone is asked again for each of the others.
            self.leave_group(context);
            self.group = None;
            return self.ask_backend(context);
        }
        self.target = target;
        if packet.kind == Kind::Data {
            return self.origin_data(packet, context);
        }
        self.part = Part::None;
        self.origin_failed(&ProxyError::Broken("the request that it shares has ended".into()), context);
    }

    /// Its client is too slow for those that share the response.
    pub fn fall_behind(&mut self, context: &mut Context<'_>) {
        let text = "ending a response that is shared: its client reads too slowly for the others (session_queue_bytes)";
        context.links.log(&Note::Warning { kind: "shared-slow", text: &text });
        self.send(Packet { kind: Kind::Cancel, ..Packet::default() }, context);
        self.client_left(context);
    }

    /// Does not wait for the group's response any more.
    pub(super) fn leave_group(&mut self, context: &mut Context<'_>) {
        match self.part {
            Part::In(group) => context.shared.sharing.push_back(Event::Left(group, self.member())),
            Part::Joining => {}
            Part::None | Part::Wanted | Part::Source => return,
        }
        self.part = Part::None;
    }

    /// Whether it asks for a group.
    pub fn is_source(&self) -> bool {
        self.part == Part::Source
    }
}
