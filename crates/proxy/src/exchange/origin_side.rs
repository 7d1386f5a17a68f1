//! The request to a target, the next target if that fails, and the response.

use routes::TargetKind;
use zhttp::{Ext, Headers, INITIAL_BODY, Id, Ids, Kind, Packet, PeerId, Window, client};

use super::hold::Instruct;
use super::{Exchange, Origin, Phase};
use crate::access_log::Outcome;
use crate::context::Context;
use crate::request::headers::{Additions, Circumstances, authority, claims_websocket_events, origin_uri, target_name};
use crate::request::uri::Uri;
use crate::response::answer::Answer;
use crate::response::backend::{self, Traits};
use crate::response::test_target;

impl Exchange {
    /// Sends the request to the current target.
    pub(super) fn open_origin(&mut self, request: &Packet<'_>, context: &mut Context<'_>) {
        let Some(route) = self.route.clone() else { return self.answer(&Answer::no_route(), context) };
        self.phase = Phase::Waiting;
        let Some(target) = route.targets.get(self.target) else { return self.no_target_left(context) };
        self.proxied = true;
        // A backend that is signed to takes what comes with our signature for ours.
        let believed = target.over_http || context.shared.signatures.token(&route, context.unix).is_some();
        if believed && !self.trusted && claims_websocket_events(request.headers) {
            return self.answer(&Answer::no_websocket_events(), context);
        }
        let serial = context.shared.serial();
        let (host, port) = match &target.kind {
            TargetKind::Host { host, port } => (host, *port),
            TargetKind::Test => return self.ask_test_target(context),
            TargetKind::Zhttp { .. } | TargetKind::ZhttpRequest { .. } => return self.try_next_target(context),
        };
        let Some(uri) = Uri::parse(request.uri.unwrap_or_default()) else {
            return self.answer(&Answer::origin_error(), context);
        };
        let what = Circumstances {
            rules: &context.shared.config.rules,
            route: &route,
            trusted: self.trusted,
            scheme: self.scheme,
            peer: request.peer_address,
            token: context.shared.signatures.token(&route, context.unix),
            inspected: self.inspected.as_deref(),
            authority: authority(&uri, &route, target),
        };
        let additions = Additions::new(request.headers, &what);
        let headers = additions.headers(request.headers, &what);
        let whole = origin_uri(&uri, &route, target);
        let (body, more) = self.upload.next(INITIAL_BODY).unwrap_or((b"", !self.upload.is_complete()));

        let id = Id::indexed(self.index as u32, serial);
        let packet = Packet {
            from: &context.shared.instance,
            ids: Ids::One(id.as_bytes(), Some(0)),
            ext: Ext::MULTI,
            method: request.method,
            uri: Some(&whole),
            headers: Headers::Pairs(&headers),
            body,
            more,
            stream: true,
            credits: Some(INITIAL_BODY as u32),
            connect_host: Some(host.as_bytes()),
            connect_port: Some(port),
            ignore_policies: target.trusted,
            trust_connect_host: target.trust_connect_host,
            ignore_tls_errors: target.insecure,
            ..Packet::default()
        };
        let sent = context.out.open_origin(&packet);
        let count = body.len();
        self.upload.sent(count, more);
        if !sent {
            return self.answer(&Answer::origin_error(), context);
        }
        self.origin = Some(Origin {
            serial,
            session: client::Session::start(context.now),
            window: Window::granted(INITIAL_BODY as u32),
            credits: 0,
            kept_alive: context.now,
        });
    }

    /// Whether a packet with this serial in its id is for the current request to a backend.
    pub fn is_origin(&self, serial: u64) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.serial == serial)
    }

    fn send_origin(&mut self, packet: Packet<'_>, context: &mut Context<'_>) {
        let index = self.index;
        let Some(origin) = &mut self.origin else { return };
        let Some((peer, seq)) = origin.session.send() else { return };
        let id = origin.id(index);
        let packet = Packet { from: &context.shared.instance, ids: Ids::One(id.as_bytes(), Some(seq)), ..packet };
        context.out.to_origin(context.shared.peers.name(peer), &packet);
    }

    /// Ends the request to the backend, if there is one.
    pub(super) fn drop_origin(&mut self, context: &mut Context<'_>) {
        self.send_origin(Packet { kind: Kind::Cancel, ..Packet::default() }, context);
        self.origin = None;
    }

    /// Sends as much of the request's body as the backend's side takes.
    pub(super) fn pump(&mut self, context: &mut Context<'_>) {
        let index = self.index;
        let Some(origin) = &mut self.origin else { return };
        while origin.session.server().is_some()
            && let Some((body, more)) = self.upload.next(origin.credits as usize)
            && let Some((peer, seq)) = origin.session.send()
        {
            let id = origin.id(index);
            let packet = Packet {
                from: &context.shared.instance,
                ids: Ids::One(id.as_bytes(), Some(seq)),
                body,
                more,
                ..Packet::default()
            };
            context.out.to_origin(context.shared.peers.name(peer), &packet);
            let count = body.len();
            origin.credits -= count as u32;
            self.upload.sent(count, more);
        }
        self.grant_client(context);
    }

    /// Counts response bytes that have left, and grants as many to the backend once that is worth a packet.
    pub(super) fn grant_origin(&mut self, count: usize, context: &mut Context<'_>) {
        let Some(origin) = &mut self.origin else { return };
        if origin.window.pass_on(count) {
            let credits = origin.window.take_owed();
            self.send_origin(Packet { kind: Kind::Credit, credits: Some(credits), ..Packet::default() }, context);
        }
    }

    /// Takes in a packet from the backend's side.
    pub fn origin_packet(
        &mut self,
        packet: &Packet<'_>,
        from: Option<PeerId>,
        seq: Option<u32>,
        context: &mut Context<'_>,
    ) {
        let abandoned = self.is_abandoned();
        let Some(origin) = &mut self.origin else { return };
        if origin.session.receive(packet.kind, from, seq, context.now).is_err() {
            self.drop_origin(context);
            return self.origin_failed(b"", context);
        }
        if abandoned {
            if packet.kind.ends_session() || (packet.kind == Kind::Data && !packet.more) {
                self.origin = None;
            } else {
                self.drop_origin(context);
            }
            self.phase = Phase::Over;
            return;
        }
        origin.credits = origin.credits.saturating_add(packet.credits.unwrap_or(0));
        match packet.kind {
            Kind::Data => self.origin_data(packet, context),
            Kind::Error | Kind::Cancel => {
                self.origin = None;
                return self.origin_failed(packet.condition.unwrap_or_default(), context);
            }
            _ => {}
        }
        if packet.credits.is_some() {
            self.pump(context);
        }
    }

    fn origin_data(&mut self, packet: &Packet<'_>, context: &mut Context<'_>) {
        let Some(origin) = &mut self.origin else { return };
        if origin.window.receive(packet.body.len()).is_err() {
            self.drop_origin(context);
            return self.origin_failed(b"", context);
        }
        if !packet.more {
            // Complete: there is nobody to send anything to any more. A client that reads the response only after it has
            // sent its request must be able to get rid of the rest.
            self.origin = None;
            self.upload.unclaim();
            self.grant_client(context);
        }
        match &self.phase {
            Phase::Waiting => {
                let Some(code) = packet.code else {
                    self.drop_origin(context);
                    return self.origin_failed(b"", context);
                };
                let head = (code, packet.reason.unwrap_or_default(), packet.headers);
                self.response_begins(head, packet.body, packet.more, context);
            }
            Phase::Relaying => self.relay(None, packet.body, packet.more, context),
            Phase::Collecting(_) | Phase::Preceding(_) => self.collect(packet.body, packet.more, context),
            // The answer has been decided without the backend.
            _ => {}
        }
    }

    /// The head of a response has come.
    fn response_begins(
        &mut self,
        head: super::client_side::Head<'_>,
        body: &[u8],
        more: bool,
        context: &mut Context<'_>,
    ) {
        let (code, reason, headers) = head;
        let traits = Traits::of(headers);
        let grip = !self.trusted && self.route.as_ref().is_some_and(|route| route.grip);
        if grip && traits.instruct {
            if self.upload.is_too_large() {
                return self.answer(&Answer::too_large_to_hold(), context);
            }
            self.phase = Phase::Collecting(Box::new(Instruct::new(code, reason, headers)));
            return self.collect(body, more, context);
        }
        self.phase = Phase::Relaying;
        if traits.hop_by_hop {
            let kept = backend::passed_on(headers);
            self.relay(Some((code, reason, Headers::Pairs(&kept))), body, more, context);
        } else {
            self.relay(Some(head), body, more, context);
        }
    }

    /// The backend's side has given up, or was given up.
    pub(super) fn origin_failed(&mut self, condition: &[u8], context: &mut Context<'_>) {
        if self.is_abandoned() {
            self.phase = Phase::Over;
            return;
        }
        match (&self.phase, condition) {
            (Phase::Waiting, b"remote-connection-failed" | b"connection-timeout" | b"tls-error") => {
                self.try_next_target(context);
            }
            (Phase::Waiting, b"length-required") => self.answer(&Answer::length_required(), context),
            (Phase::Waiting, b"policy-violation") => {
                let detail = || "Error: Origin host/IP blocked.".to_string();
                self.answer(&Answer::origin_failed(self.debug, detail), context);
            }
            (Phase::Relaying | Phase::Preceding(_), _) => {
                // What waits for credits is let go as well: the client's response ends wrongly, and at once.
                self.send(Packet { kind: Kind::Cancel, ..Packet::default() }, context);
                self.end(Outcome::Failed);
            }
            _ => self.answer(&Answer::origin_error(), context),
        }
    }

    /// The backend's side has been silent for too long.
    pub(super) fn origin_expired(&mut self, context: &mut Context<'_>) {
        self.drop_origin(context);
        if matches!(self.phase, Phase::Waiting) {
            let detail = || "Error: zhttp service for route is unreachable.".to_string();
            self.answer(&Answer::origin_failed(self.debug, detail), context);
        } else {
            self.origin_failed(b"", context);
        }
    }

    fn try_next_target(&mut self, context: &mut Context<'_>) {
        let count = self.route.as_ref().map_or(0, |route| route.targets.len());
        // A body of which bytes were let go can't be sent again.
        if self.target + 1 >= count || !self.upload.rewind() {
            return self.no_target_left(context);
        }
        self.target += 1;
        self.with_request(|this, packet| this.open_origin(packet, context));
    }

    fn no_target_left(&mut self, context: &mut Context<'_>) {
        let answer = Answer::origin_failed(self.debug, || {
            let targets = self.route.iter().flat_map(|route| &route.targets).map(target_name);
            format!("Unable to connect to any targets. Tried: {}", targets.collect::<Vec<_>>().join(", "))
        });
        self.answer(&answer, context);
    }

    /// The target that is built in answers at once, when all of the body has come.
    pub(super) fn ask_test_target(&mut self, context: &mut Context<'_>) {
        self.upload.unclaim();
        self.with_request(|this, packet| {
            let Some(uri) = Uri::parse(packet.uri.unwrap_or_default()) else { return };
            let prefix = this.route.as_ref().map_or(0, |route| route.path_beg.len());
            let path = uri.path.get(prefix..).unwrap_or_default();
            let path = if path.starts_with(b"/") || path.is_empty() { path.to_vec() } else { [b"/", path].concat() };
            let answer = test_target::answer(&path, uri.query, this.upload.is_too_large());
            let mut headers: Vec<(&[u8], &[u8])> = Vec::new();
            headers.extend(answer.headers.iter().map(|(name, value)| (*name, value.as_slice())));
            let head = (answer.code, answer.reason.as_bytes(), Headers::Pairs(&headers));
            this.response_begins(head, answer.body, false, context);
        });
    }
}
