// SPDX-License-Identifier: AGPL-3.0-or-later
//! A WebSocket whose backend speaks WebSocket itself, and whose frontend and outbound process both count what passes: a successor of
//! this proxy can go on with it.
//!
//! Each of them keeps what the other may not have ([`zhttp::retained`]). We tell each how far the other is. The successor gets the
//! frontend's record, claims the session of the outbound process by its name, and tells each what it has to send again.

use std::time::Duration;

use zhttp::recovery::{self, PROXY};
use zhttp::retained::{Received, units};
use zhttp::session::Protocol;
use zhttp::session::client::Session;
use zhttp::{Ext, INITIAL_BODY, Id, Ids, Kind, Packet, PeerId, Record, Run};

use super::super::extension::Extension;
use super::super::pipe::{Frame, Status};
use super::kept::{Claim, Counted};
use super::side::{Closing, Direct, Origin, origin_index};
use super::state::{Phase, Relay, Scene};
use crate::context::Note;

/// How long the outbound process may take to answer a claim.
const CLAIM_WAIT: Duration = Duration::from_secs(1);
/// Those that can not be gone on with are closed over this time, so that they do not all come back at once.
const SPREAD_MS: u64 = 1000;
/// In [`Ext::closed`]: the backend has closed, and the client has had that.
const BACKEND_CLOSED: u8 = 1;
/// The client has closed.
const CLIENT_CLOSED: u8 = 2;

impl Relay {
    pub(super) fn counted(&mut self) -> Option<&mut Counted> {
        self.kept.as_mut()?.counted.as_deref_mut()
    }

    /// A packet of the client has come: what it says of the backend's direction, and by how much it moves its own.
    pub(super) fn count_up(&mut self, packet: &Packet<'_>, scene: &mut Scene<'_, '_>) {
        let moves = matches!(packet.kind, Kind::Data | Kind::Ping | Kind::Pong | Kind::Close);
        let nobody = self.detached || self.origin.is_none();
        let Some(counted) = self.counted() else { return };
        if moves {
            counted.up += units(packet);
        }
        if nobody {
            counted.taken.reach(counted.up);
        }
        if let Some(had) = packet.ext.had {
            counted.had.reach(had.min(counted.down));
        }
        if counted.had.is_due() {
            self.tell_origin(scene);
        }
    }

    /// A packet of the backend's side has come.
    pub(super) fn count_down(&mut self, packet: &Packet<'_>) {
        let moves = matches!(packet.kind, Kind::Data | Kind::Ping | Kind::Pong | Kind::Close);
        let is_open = self.phase == Phase::Open;
        let Some(counted) = self.counted().filter(|_| is_open) else { return };
        if moves {
            counted.down += units(packet);
        }
        if let Some(had) = packet.ext.had {
            counted.taken.reach(had.min(counted.up));
        }
    }

    /// The position behind the last packet of the backend's, if that counts.
    pub(super) fn position(&self) -> u64 {
        self.kept.as_ref().and_then(|kept| kept.counted.as_ref()).map_or(0, |counted| counted.down)
    }

    /// Whether what the backend has told the handler, with the last packet, is new.
    pub(super) fn is_unhandled(&mut self) -> bool {
        let Some(counted) = self.counted() else { return true };
        let is_new = counted.down > counted.handled;
        counted.handled = counted.handled.max(counted.down);
        is_new
    }

    /// A packet leaves for the frontend, with what is in front of this position of the backend's: what it says besides.
    pub(super) fn counts<'a>(&mut self, at: u64, ext: Ext<'a>) -> Ext<'a> {
        let Some(counted) = self.counted() else { return ext };
        if at > 0 {
            counted.shown = Received::at(at);
        }
        Ext { at: (at > 0).then_some(at), had: counted.taken.tell(), ..ext }
    }

    /// What the frontend is to be told by a packet of its own; `None`: nothing that could not wait.
    pub(super) fn positions_due(&mut self, is_sent_anyway: bool) -> Option<Ext<'static>> {
        let is_between = self.extension.as_ref().is_none_or(Extension::is_between) && self.down.is_empty();
        let counted = self.counted()?;
        if is_between {
            counted.shown.reach(counted.down);
        }
        if !is_sent_anyway && !counted.shown.is_due() && !counted.taken.is_due() {
            return None;
        }
        Some(Ext { at: counted.shown.tell(), had: counted.taken.tell(), ..Ext::MULTI })
    }

    /// Tells the outbound process what the client's side has had.
    pub(super) fn tell_origin(&mut self, scene: &mut Scene<'_, '_>) {
        let Origin::Direct(direct) = &mut self.origin else { return };
        if let Some(to) = direct.session.send() {
            let packet = Packet { kind: Kind::KeepAlive, ..Packet::default() };
            if !self.send_origin(to, packet, scene) {
                self.cut_origin(scene);
            }
        }
    }

    /// What goes along with a packet for the outbound process.
    pub(super) fn had(&mut self) -> Option<u64> {
        self.counted()?.had.tell()
    }

    /// Whether both ends have all.
    pub(super) fn is_settled(&self) -> bool {
        let counted = self.kept.as_ref().and_then(|kept| kept.counted.as_ref());
        counted.is_none_or(|counted| counted.is_settled())
    }

    /// Takes up what a predecessor has left, as far as that goes without the outbound process.
    pub(super) fn claim(
        &mut self,
        positions: recovery::Counted,
        gone: bool,
        outbound: Option<PeerId>,
        scene: &mut Scene<'_, '_>,
    ) {
        let now = scene.cx.now;
        let claim = outbound.map(|outbound| Box::new(Claim { positions, gone, outbound, is_sent: false }));
        let recovery::Counted { at, to, is_within, .. } = positions;
        if is_within {
            // What the handler sends meanwhile waits for the end of it.
            self.down.go_on_within();
            self.extension.iter_mut().for_each(Extension::go_on_within);
        }
        if let Some(counted) = self.counted() {
            (counted.down, counted.shown, counted.had) = (at, Received::at(at), Received::at(at));
            (counted.up, counted.taken) = (to, Received::at(to));
            counted.claim = claim;
        }
        if self.detached {
            // There is no backend any more.
            self.phase = Phase::Open;
            return if gone { self.client_left(scene) } else { self.adopt(scene, to) };
        }
        self.phase = Phase::Claiming;
        self.origin = Origin::Direct(Box::new(Direct {
            serial: scene.cx.shared.serial(),
            session: Session::start(Protocol::WebSocket, INITIAL_BODY as u32, now),
            answer_by: now + CLAIM_WAIT,
            closing: Closing::default(),
            counts: true,
        }));
        self.send_claim(scene);
    }

    /// Sends the claim, if its outbound process is there.
    pub fn send_claim(&mut self, scene: &mut Scene<'_, '_>) {
        let (index, name) = (origin_index(self.index), self.name.text());
        let Origin::Direct(direct) = &self.origin else { return };
        let id = Id::indexed(index, direct.serial);
        let Some(counted) = self.kept.as_mut().and_then(|kept| kept.counted.as_mut()) else { return };
        let shared = &scene.cx.shared;
        let is_there = |claim: &&mut Box<Claim>| !claim.is_sent && shared.outbounds.contains(&claim.outbound);
        let Some(claim) = counted.claim.as_mut().filter(is_there) else { return };
        let packet = Packet {
            from: &shared.instance,
            ids: Ids::One(id.as_bytes(), Some(0)),
            ext: Ext { name: Some(&name), had: Some(claim.positions.at), ..Ext::MULTI },
            uri: Some(b"ws:"),
            router_resp: shared.config.router_resp,
            credits: Some(INITIAL_BODY as u32),
            ..Packet::default()
        };
        claim.is_sent = scene.cx.links.to_origin(shared.peers.name(claim.outbound), &packet);
    }

    /// The outbound process has answered the claim.
    pub(super) fn claimed(&mut self, packet: &Packet<'_>, scene: &mut Scene<'_, '_>) {
        let claim = self.counted().and_then(|counted| counted.claim.take());
        let (Some(claim), Some(had)) = (claim, packet.ext.had) else { return self.claim_failed(scene) };
        let recovery::Counted { from, to, .. } = claim.positions;
        if !(from..=to).contains(&had) {
            self.drop_origin(scene);
            return self.claim_failed(scene);
        }
        let closes = [BACKEND_CLOSED, CLIENT_CLOSED].map(|close| packet.ext.closed & close != 0);
        let [received, sent] = closes;
        if let Origin::Direct(direct) = &mut self.origin {
            direct.closing = Closing { sent, received };
        }
        self.client_closing = Closing { sent: received, received: sent };
        if received || sent {
            self.expect_close(scene.cx.now);
        }
        if let Some(counted) = self.counted() {
            (counted.up, counted.taken) = (had, Received::at(had));
        }
        self.phase = Phase::Open;
        if claim.gone {
            return self.client_left(scene);
        }
        self.adopt(scene, had);
    }

    /// Tells the frontend that we go on, and from where on it sends again.
    fn adopt(&mut self, scene: &mut Scene<'_, '_>, had: u64) {
        self.phase = Phase::Open;
        let content = self.legacy(scene).encode();
        let record = Record { owner: PROXY, content: &content };
        let run = self.kept.as_ref().map(|kept| Run { number: kept.run, items: &[] });
        let ext = Ext { keep: Some(record), run, had: Some(had), ..Ext::MULTI };
        let credits = self.client.grant();
        self.send(0, Packet { kind: Kind::KeepAlive, ext, credits, ..Packet::default() }, scene);
        self.flush(scene);
    }

    /// The outbound process does not have it any more, or is gone.
    pub(super) fn claim_failed(&mut self, scene: &mut Scene<'_, '_>) {
        self.origin = Origin::None;
        let spread = Duration::from_millis(self.jitter() % SPREAD_MS);
        self.late.get_or_insert_default().orphaned_at = Some(scene.cx.now + spread);
        let text = "a WebSocket of a predecessor is closed with 1012: its outbound process does not have it any more";
        scene.cx.links.log(&Note::Warning { kind: "claim", text: &text });
    }

    /// A WebSocket of a predecessor that nobody can go on with.
    pub fn close_restarted(&mut self, scene: &mut Scene<'_, '_>) {
        self.send(0, Frame::Close(Some(Status::restarted())).packet(), scene);
        self.over(scene);
    }

    /// Tells the frontend what a successor must know, behind all that has been sent.
    pub(super) fn keep_counted(&mut self, scene: &mut Scene<'_, '_>) {
        let Some(kept) = self.kept.as_mut().filter(|_| self.phase == Phase::Open) else { return };
        let changed = kept.take_changed();
        let Some(ext) = self.positions_due(changed) else { return };
        let content = if changed { self.legacy(scene).encode() } else { Vec::new() };
        let keep = changed.then_some(Record { owner: PROXY, content: &content });
        let run = self.kept.as_ref().filter(|_| changed).map(|kept| Run { number: kept.run, items: &[] });
        self.send(0, Packet { kind: Kind::KeepAlive, ext: Ext { keep, run, ..ext }, ..Packet::default() }, scene);
    }

    /// Up to where the backend's words for the handler have been done.
    pub(super) fn handled(&self) -> u64 {
        self.kept.as_ref().and_then(|kept| kept.counted.as_ref()).map_or(0, |counted| counted.handled)
    }

    /// We close it, so that positions mean nothing any more.
    pub(super) fn close_ourselves(&mut self) {
        if let Some(counted) = self.counted() {
            counted.is_ours = true;
        }
    }
}
