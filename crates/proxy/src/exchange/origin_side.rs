// SPDX-License-Identifier: AGPL-3.0-or-later
//! The request to a target, the next target if that fails, and the response.

use std::time::Duration;

use routes::{Route, Target, TargetKind};
use zhttp::session;
use zhttp::session::client::{Grant, Outcome as Told, Outgoing, Session};
use zhttp::{Ext, Headers, INITIAL_BODY, Id, Ids, Kind, Packet, PeerId};

use super::hold::Instruct;
use super::{Exchange, Origin, Phase};
use crate::access_log::Outcome;
use crate::body::upload::KEEP;
use crate::context::{Context, Cut, Links, Side};
use crate::error::{MAX_FOREIGN_HEADERS, ProxyError, Retry, only_asks};
use crate::handler::TIMEOUT;
use crate::request::headers::{Additions, Circumstances, Rules, authority, claims_websocket_events, origin_uri};
use crate::request::uri::Uri;
use crate::response::backend::{self, Traits};
use crate::response::test_target;
use crate::sharing::{Event, Part};
use crate::statistics::{length, request_size, response_size};

/// The largest answer in one packet, in bytes (proxy, `zhttpreq` targets).
const MAX_ANSWER: usize = 1_000_000;
/// How often a request is sent again whose outbound process has ended: the second one may have been about to end as well.
const MAX_RESENT: u8 = 2;
/// How long such an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether this is Zurl. Its instances are called by a UUID in braces, unless somebody gives them a name.
fn is_zurl(name: &[u8]) -> bool {
    name.starts_with(b"{")
}

impl Exchange {
    /// Sends the request to the current target.
    pub(super) fn open_origin(&mut self, request: &Packet<'_>, context: &mut Context<'_>) {
        let Some(route) = self.route.clone() else { return self.fail(&ProxyError::NoRoute, context) };
        self.phase = Phase::Waiting;
        let Some(target) = route.targets.get(self.target) else { return };
        let first = !std::mem::replace(&mut self.proxied, true);
        // A backend that is signed to takes what comes with our signature for ours.
        let believed = target.over_http || context.shared.signatures.token(&route, context.unix).is_some();
        if believed && !self.trusted && claims_websocket_events(request.headers) {
            return self.fail(&ProxyError::ClaimedEvents, context);
        }
        if first && self.share(request, context) {
            return;
        }
        let serial = context.shared.serial();
        let whole = match &target.kind {
            TargetKind::Host { .. } | TargetKind::Zhttp { .. } => false,
            TargetKind::Test => return self.ask_test_target(context),
            TargetKind::ZhttpRequest { .. } => true,
        };
        if whole && self.upload.is_too_large() {
            return self.fail(&ProxyError::BodyTooLarge, context);
        }
        if whole && !self.upload.is_complete() {
            self.phase = Phase::Gathering;
            return;
        }
        let Some(uri) = Uri::parse(request.uri.unwrap_or_default()) else {
            return self.fail(&ProxyError::NoRoute, context);
        };
        let coded = self.takes_coded(request, context);
        let token = context.shared.signatures.token(&route, context.unix);
        let what = self.circumstances(request, &uri, &route, target, &context.shared.config.rules, token);
        let additions = Additions::new(request.headers, &what);
        let headers = additions.headers(request.headers, &what);
        let target_uri = origin_uri(&uri, &route, target);
        let window = if whole { MAX_ANSWER } else { INITIAL_BODY };
        let room = if whole { KEEP } else { INITIAL_BODY };
        let (body, more) = self.upload.next(room).unwrap_or((b"", !self.upload.is_complete()));

        let id = Id::indexed(self.index as u32, serial);
        let packet = Packet {
            from: &context.shared.instance,
            ids: Ids::One(id.as_bytes(), Some(0)),
            ext: Ext { interim: self.takes_interim, coded, ..Ext::MULTI },
            method: request.method,
            uri: Some(&target_uri),
            headers: Headers::Pairs(&headers),
            body,
            more,
            stream: true,
            router_resp: context.shared.config.router_resp,
            credits: Some(INITIAL_BODY as u32),
            ..Packet::default()
        };
        let sent = match &target.kind {
            TargetKind::ZhttpRequest { spec } => {
                let ids = Ids::One(id.as_bytes(), None);
                let (stream, credits, router_resp) = (false, None, false);
                let packet = Packet { ids, stream, credits, router_resp, ext: Ext::default(), ..packet };
                context.links.ask_zmq(spec, &packet)
            }
            _ => open(target, packet, context.links),
        };
        let count = body.len();
        context.shared.statistics.count(self.route_id(), context.now, |report| {
            let method = request.method.unwrap_or_default();
            report.server_header_bytes_sent += request_size(method, &target_uri, Headers::Pairs(&headers));
            report.server_content_bytes_sent += length(count);
        });
        self.upload.sent(count, more);
        if !sent {
            return self.fail(&ProxyError::NoOutbound, context);
        }
        self.origin = Some(Origin {
            serial,
            session: Session::start(session::Protocol::Http, window as u32, context.now),
            // One that answers with one packet does not say before that it has the request.
            answer_by: context.now + if whole { ANSWER_TIMEOUT } else { TIMEOUT },
            in_doubt: false,
        });
    }

    /// Whether whoever gets the response gets `Content-Encoding` with it: the handler may ask for itself, or be given it to hold.
    fn takes_coded(&self, request: &Packet<'_>, context: &Context<'_>) -> bool {
        if self.internal { request.ext.coded } else { !context.shared.availability.is_foreign() }
    }

    /// Everything that decides what the request looks like to a target.
    pub(super) fn circumstances<'a>(
        &'a self,
        request: &Packet<'a>,
        uri: &Uri<'a>,
        route: &'a Route,
        target: &'a Target,
        rules: &'a Rules,
        token: Option<&'a str>,
    ) -> Circumstances<'a> {
        Circumstances {
            rules,
            route,
            trusted: self.trusted,
            internal: self.internal,
            scheme: self.scheme,
            peer: request.peer_address,
            inspected: self.inspected.as_deref(),
            token,
            authority: authority(uri, route, target),
        }
    }

    /// Whether its request is at this instance.
    pub fn is_at(&self, peer: PeerId) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.session.server() == Some(peer))
    }

    /// Whether a packet with this serial in its id is for the current request to a backend.
    pub fn is_origin(&self, serial: u64) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.serial == serial)
    }

    /// Sends a packet whose address and number have been taken.
    fn send_origin(&mut self, to: Outgoing, packet: Packet<'_>, context: &mut Context<'_>) {
        self.refused.by_origin |= !self.is_taken_by_origin(to, packet, context);
    }

    fn is_taken_by_origin(&self, to: Outgoing, packet: Packet<'_>, context: &mut Context<'_>) -> bool {
        let Some(origin) = &self.origin else { return true };
        let id = origin.id(self.index);
        let packet = Packet { from: &context.shared.instance, ids: Ids::One(id.as_bytes(), Some(to.seq)), ..packet };
        context.links.to_origin(context.shared.peers.name(to.to), &packet)
    }

    pub(super) fn send_credits(&mut self, to: Outgoing, credits: u32, context: &mut Context<'_>) {
        self.send_origin(to, Packet { kind: Kind::Credit, credits: Some(credits), ..Packet::default() }, context);
    }

    /// Ends the request to the backend, if there is one.
    pub(super) fn drop_origin(&mut self, context: &mut Context<'_>) {
        if let Some(to) = self.origin.as_mut().and_then(|origin| origin.session.send())
            && !self.is_taken_by_origin(to, Packet { kind: Kind::Cancel, ..Packet::default() }, context)
        {
            self.note_cut_origin(context);
        }
        self.origin = None;
        self.leave_group(context);
    }

    /// The outbound process is told of the end as soon as it takes packets again.
    pub(super) fn note_cut_origin(&self, context: &mut Context<'_>) {
        if let Some(origin) = &self.origin
            && let Some(peer) = origin.session.server()
        {
            context.shared.cut.push(Cut { peer, id: origin.id(self.index), side: Side::Origin });
        }
    }

    /// Sends as much of the request's body as the backend's side takes.
    pub(super) fn pump(&mut self, context: &mut Context<'_>) {
        while let Some(origin) = &mut self.origin
            && let Some((body, more)) = self.upload.next(origin.session.credits() as usize)
            && let Some(to) = origin.session.send_body(body.len())
        {
            let taken = self.is_taken_by_origin(to, Packet { body, more, ..Packet::default() }, context);
            let count = body.len();
            self.count(context, |report| report.server_content_bytes_sent += length(count));
            self.refused.by_origin |= !taken;
            self.upload.sent(count, more);
        }
        self.grant_client(context);
    }

    /// Counts response bytes that have left, and grants as many to the backend once that is worth a packet.
    pub(super) fn grant_origin(&mut self, count: usize, context: &mut Context<'_>) {
        if let Part::In(group) = self.part {
            context.shared.sharing.push_back(Event::Passed(group, self.member(), count));
            return;
        }
        let Some(origin) = &mut self.origin else { return };
        if let Grant::Now(to, credits) = origin.session.pass_on(count, context.now) {
            self.send_credits(to, credits, context);
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
        let Some(origin) = &mut self.origin else { return };
        let told = origin.session.on_packet(packet, from, seq, context.now);
        if self.is_abandoned() {
            if matches!(told, Ok(Told::Ended)) || (packet.kind == Kind::Data && !packet.more) {
                self.origin = None;
            }
            self.drop_origin(context);
            self.phase = Phase::Over;
            return;
        }
        match told {
            Ok(Told::Data) => self.origin_data(packet, context),
            Ok(Told::Alive) => {
                self.grant_origin(0, context);
                self.pass_interim(packet, context);
            }
            Ok(Told::Control) => {}
            Ok(Told::HandOff(_)) => self.origin_violated("a hand-off by the outbound process", context),
            Ok(Told::Ended) => {
                self.origin = None;
                return self.origin_failed(&failure(packet), context);
            }
            Err(violation) => self.origin_violated(violation, context),
        }
        if packet.credits.is_some() {
            self.pump(context);
        }
    }

    /// Passes an interim response on, to a client whose frontend takes it. A script is no place for one.
    fn pass_interim(&mut self, packet: &Packet<'_>, context: &mut Context<'_>) {
        let Some(100..200) = packet.code else { return };
        let script = self.fitting.as_ref().is_some_and(|fitting| fitting.jsonp().is_some());
        if !self.takes_interim || script || !matches!(self.phase, Phase::Waiting) {
            return;
        }
        let mut headers = backend::passed_on(packet.headers);
        headers.retain(|(name, _)| !backend::is_grip(name));
        let (code, reason, headers) = (packet.code, packet.reason, Headers::Pairs(&headers));
        self.send(Packet { kind: Kind::KeepAlive, code, reason, headers, ..Packet::default() }, context);
    }

    fn origin_violated(&mut self, violation: impl ToString, context: &mut Context<'_>) {
        self.drop_origin(context);
        self.origin_failed(&ProxyError::OutboundViolation(violation.to_string()), context);
    }

    /// Takes in a piece of the response.
    pub(super) fn origin_data(&mut self, packet: &Packet<'_>, context: &mut Context<'_>) {
        self.count(context, |report| {
            let head = packet.code.map_or(0, |_| response_size(packet.reason.unwrap_or_default(), packet.headers));
            report.server_header_bytes_received += head;
            report.server_content_bytes_received += length(packet.body.len());
        });
        if !packet.more {
            // Complete: there is nobody to send anything to any more. A client that reads the response only after it has
            // sent its request must be able to get rid of the rest.
            self.origin = None;
            if let Part::In(_) = self.part {
                self.part = Part::None;
            }
            self.upload.unclaim();
            self.grant_client(context);
        }
        match self.phase {
            Phase::Waiting => {
                let Some(code) = packet.code else {
                    return self.origin_violated("a response without a status", context);
                };
                let reason = packet.reason.unwrap_or_default();
                if is_zurl(packet.from) && packet.headers.get("Content-Encoding").is_some() {
                    let kept = backend::without_coding(packet.headers);
                    let head = (code, reason, Headers::Pairs(&kept));
                    return self.response_begins(head, packet.body, packet.more, context);
                }
                self.response_begins((code, reason, packet.headers), packet.body, packet.more, context);
            }
            Phase::Relaying => self.relay(None, packet.body, packet.more, context),
            Phase::Collecting | Phase::Preceding => self.collect(packet.body, packet.more, context),
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
        let grip =
            !self.trusted && !self.internal && !self.is_source() && self.route.as_ref().is_some_and(|route| route.grip);
        if grip && traits.instruct {
            if self.upload.is_too_large() {
                return self.fail(&ProxyError::TooLargeToHold, context);
            }
            self.instruct = Some(Box::new(Instruct::new(code, reason, headers)));
            self.phase = Phase::Collecting;
            return self.collect(body, more, context);
        }
        if !self.adopts && headers.iter().nth(MAX_FOREIGN_HEADERS).is_some() {
            return self.fail(&ProxyError::TooManyHeaders, context);
        }
        self.phase = Phase::Relaying;
        if traits.hop_by_hop {
            let kept = backend::passed_on(headers);
            self.relay(Some((code, reason, Headers::Pairs(&kept))), body, more, context);
        } else {
            self.relay(Some(head), body, more, context);
        }
    }

    /// The backend's side has given up, or was given up. The request goes to the next target, or again to the same, if
    /// that does no harm.
    pub(super) fn origin_failed(&mut self, error: &ProxyError, context: &mut Context<'_>) {
        match self.phase {
            Phase::Abandoned | Phase::Over => self.phase = Phase::Over,
            Phase::Waiting => {
                let again = match error.retry() {
                    Retry::Safe => self.take_next_target(),
                    Retry::IfItOnlyAsks => self.may_be_sent_again(),
                    Retry::Never => false,
                };
                self.warn(error, context);
                if again {
                    return self.with_request(|this, packet| this.open_origin(packet, context));
                }
                let answer = error.answer_of(self.route.as_deref(), self.debug);
                self.answer(&answer, context);
            }
            Phase::Relaying | Phase::Preceding => {
                // What waits for credits is let go as well: the client's response ends wrongly, and at once.
                self.warn(error, context);
                self.send(Packet { kind: Kind::Cancel, ..Packet::default() }, context);
                self.end(Outcome::Failed);
            }
            Phase::Collecting => self.fail(error, context),
            // The answer does not depend on the backend any more.
            _ => {}
        }
    }

    fn take_next_target(&mut self) -> bool {
        let count = self.route.as_ref().map_or(0, |route| route.targets.len());
        // A body of which bytes were let go can't be sent again.
        let next = self.target + 1 < count && self.upload.rewind();
        self.target += usize::from(next);
        next
    }

    /// A request that ends each outbound process that gets it must not go through all of them.
    fn may_be_sent_again(&mut self) -> bool {
        let only_asks = self.with_request(|_, packet| only_asks(packet.method.unwrap_or_default()));
        self.resent += 1;
        self.resent <= MAX_RESENT && only_asks && self.upload.rewind()
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

/// Sends the first packet of a request or a WebSocket; `false` if there is nobody to take it.
pub(crate) fn open(target: &Target, packet: Packet<'_>, links: &mut dyn Links) -> bool {
    match &target.kind {
        // These answer as all foreign peers do.
        TargetKind::Zhttp { spec } => links.open_zmq(spec, &Packet { router_resp: false, ext: Ext::MULTI, ..packet }),
        kind => links.open_origin(&to_host(kind, target, packet)),
    }
}

/// What the outbound process needs to know to reach a host.
fn to_host<'a>(kind: &'a TargetKind, target: &'a Target, packet: Packet<'a>) -> Packet<'a> {
    let TargetKind::Host { host, port } = kind else { return packet };
    Packet {
        connect_host: Some(host.as_bytes()),
        connect_port: Some(*port),
        ignore_policies: target.trusted,
        trust_connect_host: target.trust_connect_host,
        ignore_tls_errors: target.insecure,
        client_cert: target.client.as_ref().map(|client| client.chain.as_bytes()),
        client_key: target.client.as_ref().map(|client| client.key.as_bytes()),
        ..packet
    }
}

/// What the end of a session means that the outbound process has ended.
pub(crate) fn failure(packet: &Packet<'_>) -> ProxyError {
    let condition = packet.condition.unwrap_or_else(|| packet.kind.name().as_bytes());
    // Ours says in its own words what has happened.
    let words = packet.reason.filter(|words| !words.is_empty()).map(|words| format!(": {}", words.escape_ascii()));
    let text = format!("{}{}", condition.escape_ascii(), words.unwrap_or_default());
    match condition {
        b"remote-connection-failed" | b"connection-timeout" | b"tls-error" => ProxyError::Unreachable(text),
        b"length-required" => ProxyError::LengthRequired,
        b"policy-violation" => ProxyError::Blocked,
        _ => ProxyError::Broken(text),
    }
}
