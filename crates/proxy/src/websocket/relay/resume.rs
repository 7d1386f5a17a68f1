// SPDX-License-Identifier: AGPL-3.0-or-later
//! A WebSocket whose proxy ends: what its frontend keeps for the successor, and how that goes on with it.

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use routes::{ById, Protocol, Route, Table as Routes};
use tnetstring::Writer;
use zhttp::recovery::{Held, PROXY, Unread};
use zhttp::{Ext, INITIAL_BODY, Ids, Kind, Packet, Record, Run};

use super::super::control::Control;
use super::super::extension::Extension;
use super::super::had::Named;
use super::super::over_http::Conversation;
use super::super::over_http::queue::Source;
use super::super::pipe::Frame;
use super::super::successor::{Legacy, read_said, write_said};
use super::kept::{Counted, Kept};
use super::side::{Origin, OverHttp};
use super::state::{CLOSE_WAIT, Frontend, Phase, Relay, Scene};
use crate::request::uri::Uri;

/// A number that other names do not have.
fn fingerprint(instance: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(instance);
    hasher.finish()
}

impl Relay {
    /// Whether its frontend keeps it for a successor.
    pub fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Whether its frontend can keep it, as far as that is known before a backend has answered.
    pub(super) fn may_be_kept(&self, scene: &Scene<'_, '_>) -> bool {
        let is_wanted = !scene.cx.shared.config.recover_wait.is_zero();
        // A frontend of ours, whose link to us tells it of our end.
        let knows = self.frontend != Frontend::Plain && self.client.by_router() && self.client.takes_multi();
        let is_plain = !self.is_sockjs && self.framing.is_none() && self.user_data.is_none();
        is_wanted && knows && is_plain
    }

    /// It has been opened: the frontend is to keep it if a successor could go on with it. Gives the record.
    pub(super) fn begin_to_keep(&mut self, scene: &Scene<'_, '_>) -> Option<Vec<u8>> {
        let counted = match &self.origin {
            Origin::OverHttp(_) => None,
            Origin::Direct(direct) if direct.counts && self.frontend == Frontend::Counts => Some(Box::default()),
            _ => return None,
        };
        if !self.may_be_kept(scene) {
            return None;
        }
        let position = (self.client.next_in(), 0);
        self.kept = Some(Box::new(Kept { position, counted, ..Kept::default() }));
        Some(self.legacy(scene).encode())
    }

    /// Whether both ends count what passes.
    pub(super) fn is_counted(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.counted.is_some())
    }

    /// The backend has answered, or something else is known now that a successor must know.
    pub(super) fn note_change(&mut self, of_record: bool) {
        if let Some(kept) = &mut self.kept {
            kept.moved = true;
            kept.changed |= of_record;
        }
    }

    /// A packet of the client with something for the backend has come.
    pub(super) fn note_source(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.is_repeated = kept.repeated > 0;
            kept.repeated = kept.repeated.saturating_sub(1);
        }
    }

    /// Where the last packet of the client comes from.
    pub(super) fn source(&self) -> Source {
        let repeated = self.kept.as_ref().is_some_and(|kept| kept.is_repeated);
        Source { seq: self.client.next_in().saturating_sub(1), repeated }
    }

    /// Takes off what the backend has of a message already. Gives how many bytes of that the client may send again.
    pub(super) fn take_off(&mut self, frame: &mut Frame) -> usize {
        let Some(kept) = self.kept.as_mut().filter(|kept| kept.taken > 0) else { return 0 };
        let (Frame::Data { body, .. } | Frame::Ping(body) | Frame::Pong(body)) = frame else { return 0 };
        let taken = kept.taken.min(u32::try_from(body.len()).unwrap_or(u32::MAX));
        drop(body.split_to(taken as usize));
        kept.taken -= taken;
        kept.position.1 += taken;
        let known = kept.granted.min(taken);
        kept.granted -= known;
        (taken - known) as usize
    }

    /// A message of the handler leaves for the client: what its packet says.
    pub fn note_leaving(&mut self, named: &Named) {
        if let Some(kept) = &mut self.kept {
            kept.run = kept.run.max(named.run);
        }
    }

    /// Tells the frontend what a successor must know, behind all that has been sent. To be called whenever something has been done.
    pub fn keep(&mut self, scene: &mut Scene<'_, '_>) {
        if self.is_counted() {
            return self.keep_counted(scene);
        }
        let next = self.client.next_in();
        let Some(kept) = self.kept.as_ref().filter(|kept| kept.moved || kept.changed) else { return };
        // What waits for the client would be lost with us: the backend has to be asked for it again.
        let waits = !self.down.is_empty() && !self.client_closing.sent;
        if self.phase != Phase::Open || waits || kept.taken > 0 {
            return;
        }
        let position = match &self.origin {
            Origin::OverHttp(over_http) => over_http.conversation.position(next),
            _ => (next, 0),
        };
        let changed = kept.changed || position.1 != kept.position.1;
        let is_new = changed || position != kept.position;
        let run = Run { number: kept.run, items: &[] };
        if let Some(kept) = &mut self.kept {
            (kept.moved, kept.changed, kept.position) = (false, false, position);
        }
        if is_new {
            let content = if changed { self.legacy(scene).encode() } else { Vec::new() };
            let keep = changed.then_some(Record { owner: PROXY, content: &content });
            let ext = Ext { keep, run: changed.then_some(run), ack: position.0, ..Ext::MULTI };
            self.send(0, Packet { kind: Kind::KeepAlive, ext, ..Packet::default() }, scene);
        }
    }

    /// Nothing remains to be done: the frontend has no reason to keep anything.
    pub fn release(&mut self, scene: &mut Scene<'_, '_>) {
        if self.kept.take().is_some() {
            self.send(0, Packet { kind: Kind::Cancel, ..Packet::default() }, scene);
        }
    }

    /// The proxy stops, and leaves the WebSocket to its successor. `false` if that could not go on with it.
    pub(super) fn leave_to_successor(&mut self) -> bool {
        let is_kept = self.kept.take().is_some();
        if is_kept {
            (self.phase, self.origin, self.control) = (Phase::Over, Origin::None, None);
        }
        is_kept
    }

    pub(super) fn legacy<'a>(&'a self, scene: &'a Scene<'_, '_>) -> Legacy<'a> {
        let request = self.request.with(|packet| {
            let packet = Packet { ids: Ids::One(b"-", Some(0)), ..*packet };
            packet.encode(None, &mut Writer::new(1024)).to_vec()
        });
        let mut legacy = Legacy {
            cid: self.name.text().to_vec().into(),
            request: request.into(),
            route: self.route.as_ref().map_or(&b""[..], |route| route.id.as_bytes()).into(),
            target: self.target as u32,
            secure: self.scheme.is_secure(),
            trusted: self.trusted,
            prefix: self.extension.as_ref().map(|extension| extension.prefix().into()),
            told: self.control.is_some(),
            known: self.control.as_ref().is_some_and(Control::is_known),
            said: self.control.iter().flat_map(Control::said).map(write_said).collect(),
            detached: self.detached,
            closed: self.client_closing.sent,
            ..Legacy::default()
        };
        if let Origin::Direct(direct) = &self.origin {
            legacy.outbound = direct.session.server().map(|server| (&**scene.cx.shared.peers.name(server)).into());
            legacy.handled = self.handled();
        }
        if let Origin::OverHttp(over_http) = &self.origin {
            let conversation = &over_http.conversation;
            let pairs = conversation.meta().iter();
            legacy.meta = pairs.flat_map(|(name, value)| [name, value]).map(|text| (&text[..]).into()).collect();
            legacy.interval = conversation.interval().map(|interval| interval.as_secs());
            legacy.taken = conversation.position(self.client.next_in()).1;
            legacy.closed_by_backend = conversation.is_closed_by_backend();
        }
        legacy
    }

    /// Takes a WebSocket up as a predecessor has left it. `false`: nobody can go on with it here.
    pub fn resume(&mut self, legacy: &Legacy<'_>, held: &Held, routes: &Routes, scene: &mut Scene<'_, '_>) -> bool {
        // Only such are kept.
        self.frontend = Frontend::Counts;
        let Some(Unread { packets, granted }) = held.unread else { return false };
        let Some((route, one_event)) = self.route_of(legacy, routes, held.counted.is_none()) else { return false };
        let (now, unix) = (scene.cx.now, scene.cx.unix);
        self.debug = scene.cx.shared.config.debug || route.debug;
        self.route = Some(route);
        (self.target, self.trusted, self.detached) = (legacy.target as usize, legacy.trusted, legacy.detached);
        self.extension = legacy.prefix.as_deref().map(Extension::new);
        if legacy.told {
            let said = legacy.said.iter().filter_map(|said| read_said(said));
            // Those of a predecessor, which may have begun in the same second, are others.
            let first = unix << 24 | fingerprint(&scene.cx.shared.instance) & 0xff_ffff;
            self.control = Some(Control::resume(said, legacy.known, held.run, first, now));
        }
        if let Some(positions) = held.counted {
            let outbound = legacy.outbound.as_deref().and_then(|name| scene.cx.shared.peers.intern(name));
            if outbound.is_none() && !legacy.detached {
                return false;
            }
            let counted = Counted::of_predecessor(legacy.handled, legacy.detached);
            self.kept = Some(Box::new(Kept { run: held.run, counted: Some(Box::new(counted)), ..Kept::default() }));
            self.claim(positions, held.gone, outbound, scene);
            return true;
        }
        if !legacy.detached {
            let meta = legacy.meta.chunks_exact(2).map(|pair| (pair[0].to_vec(), pair[1].to_vec())).collect();
            let interval = legacy.interval.map(Duration::from_secs);
            let jitter = self.jitter();
            let conversation = Conversation::resume(one_event, jitter, meta, interval, legacy.closed_by_backend, now);
            self.origin = Origin::OverHttp(Box::new(OverHttp::new(conversation)));
        }
        self.phase = Phase::Open;
        self.client_closing.sent = legacy.closed;
        if legacy.closed || legacy.closed_by_backend {
            self.late.get_or_insert_default().close_by = Some(now + CLOSE_WAIT);
        }
        self.kept = Some(Box::new(Kept {
            position: (self.client.next_in(), 0),
            run: held.run,
            repeated: packets,
            taken: if packets > 0 { legacy.taken } else { 0 },
            granted: granted.saturating_sub(INITIAL_BODY as u32),
            ..Kept::default()
        }));
        // By this the frontend knows who goes on.
        let content = legacy.encode();
        let record = Record { owner: PROXY, content: &content };
        let run = Run { number: held.run, items: &[] };
        let ext = Ext { keep: Some(record), run: Some(run), ..Ext::MULTI };
        let credits = self.client.grant();
        self.send(0, Packet { kind: Kind::KeepAlive, ext, credits, ..Packet::default() }, scene);
        if held.gone {
            self.client_left(scene);
        }
        true
    }

    /// Its route, if the backend is still there, and whether requests have one event each.
    fn route_of(&self, legacy: &Legacy<'_>, routes: &Routes, over_http: bool) -> Option<(Arc<Route>, bool)> {
        let id = std::str::from_utf8(&legacy.route).ok()?;
        let route = match routes.by_id(id) {
            ById::Found(route) => route,
            ById::Unknown => return None,
            ById::Shared => {
                let route = self.request.with(|packet| {
                    let uri = Uri::parse(packet.uri?)?;
                    let path = if uri.path.is_empty() { b"/" } else { uri.path };
                    let host = std::str::from_utf8(uri.host()).ok()?;
                    routes.lookup(Protocol::Ws, self.scheme.is_secure(), host, path)
                });
                route.filter(|route| route.id == id)?
            }
        };
        let target = route.targets.get(legacy.target as usize).filter(|target| target.over_http == over_http)?;
        Some((route.clone(), target.one_event))
    }
}
