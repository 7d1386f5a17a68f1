// SPDX-License-Identifier: AGPL-3.0-or-later
//! One request of a client and what becomes of it. No I/O, no clock.
//!
//! The way of an exchange: `begin` finds the route and asks the handler if need be; `origin_side` sends the request
//! to a target and takes in its response; `client_side` is what goes to and comes from the client; `hold` is what
//! happens to a response that is an instruction for the handler.
//!
//! The request's first packet is kept as it came and decoded again where it is needed once more: that is one copy for
//! each request, and a tenth of a microsecond in the rare places.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

mod begin;
mod client_side;
mod hold;
mod origin_side;
mod polled;
mod shared;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use routes::{Route, Target};
use rpc::inspect::Inspected;
use rpc::stats::{ConnKind, Report};
use wire::request_id;
use zhttp::session::{client, server};
use zhttp::{Id, Kind, Packet, PeerId, Peers};

use crate::access_log::{Line, Outcome};
use crate::body::download::Download;
use crate::body::upload::Upload;
use crate::context::{Context, Cut, Note, Side, Way};
use crate::error::ProxyError;
use crate::handler::TIMEOUT;
use crate::request::forwarded;
use crate::request::headers::{Rules, target_name};
use crate::request::uri::{Scheme, Uri};
use crate::response::answer::Answer;
use crate::response::cross_origin::Fitting;
use crate::sharing::{GroupId, Part};
use crate::statistics::{self, Arrival};
use hold::Instruct;
pub(crate) use origin_side::{failure, open};

/// How long a request that an outbound process may have taken with it into its end is waited for.
const DOUBT: Duration = Duration::from_secs(1);

/// A request under way.
pub struct Exchange {
    /// Its place in the table.
    index: usize,
    /// Tells it from others that had the place before.
    serial: u64,
    client: server::Session,
    /// The client's instance takes an answer from anybody as long as it has not heard from us.
    adopts: bool,
    /// It takes interim responses.
    takes_interim: bool,
    /// Goes back with every packet.
    user_data: Option<(tnetstring::Kind, Box<[u8]>)>,
    /// The first packet, or one made up from a retry.
    request: Rc<[u8]>,
    /// As the client came, or is believed to have come.
    scheme: Scheme,
    retry: bool,
    /// The handler has made the request itself, and gets the response as it is.
    internal: bool,
    debug: bool,
    trusted: bool,
    route: Option<Arc<Route>>,
    /// Which of the route's targets is tried.
    target: usize,
    /// A target was tried.
    proxied: bool,
    /// How often the request was sent again, because the outbound process that had it ended.
    resent: u8,
    inspected: Option<Box<Inspected<'static>>>,
    /// Its part in a request that several clients share.
    part: Part,
    /// When the handler gave it back, as it calls that.
    round: Option<Box<[u8]>>,
    /// The group that it is or was in, and whether the request is that of this client.
    group: Option<(GroupId, bool)>,
    upload: Upload,
    download: Download,
    origin: Option<Origin>,
    phase: Phase,
    /// What makes the response fit for scripts of other sites.
    fitting: Option<Box<Fitting>>,
    /// The response, if it is for the handler.
    instruct: Option<Box<Instruct>>,
    refused: Refused,
    started: Instant,
    outcome: Option<Outcome>,
}

/// Packets that were not taken. Their numbers are used up, so their sessions can not go on.
#[derive(Clone, Copy, Default)]
struct Refused {
    by_client: bool,
    by_origin: bool,
}

/// The request to the backend.
struct Origin {
    serial: u64,
    session: client::Session,
    /// When an outbound process must have answered at all.
    answer_by: Instant,
    /// An outbound process has ended that may have taken the request.
    in_doubt: bool,
}

impl Origin {
    fn id(&self, index: usize) -> Id {
        Id::indexed(index as u32, self.serial)
    }
}

/// How far an exchange is.
#[derive(Clone, Copy)]
enum Phase {
    /// More of the body is needed before the handler or a backend is asked.
    Reading,
    /// The handler was asked about the request.
    Asking(Call),
    /// The handler wants the request without a backend; all of the body is needed.
    Withholding,
    /// The backend wants the request in one packet, so all of the body is needed.
    Gathering,
    /// All of the body is needed, for a SockJS session.
    Calling,
    /// A SockJS session has the request.
    Polling,
    /// A backend has the request and has not answered.
    Waiting,
    /// The response goes to the client as it comes.
    Relaying,
    /// The response is for the handler and is being collected.
    Collecting,
    /// The response is for the handler, and larger than can be collected: the client gets it first.
    Preceding,
    /// The response is complete; the request, or what the client must get first, is not.
    Completing,
    /// The client's instance was told that somebody else will take over, or need not be told.
    HandingOver,
    /// The handler was asked to take the request.
    Accepting(Call),
    /// A response that does not come from a backend is being sent.
    Finishing,
    /// The client is gone; the backend's side is to be told as soon as its address is known.
    Abandoned,
    /// Nothing remains to be done.
    Over,
}

/// A call to the handler.
#[derive(Clone, Copy)]
struct Call {
    serial: u64,
    deadline: Instant,
}

impl Call {
    fn new(context: &mut Context<'_>) -> Self {
        Call { serial: context.shared.serial(), deadline: context.now + TIMEOUT }
    }
}

impl Exchange {
    /// Makes an exchange for a session that has come to us, from its first packet. Nothing is sent yet.
    pub fn new(
        index: usize,
        serial: u64,
        client: server::Session,
        message: &[u8],
        packet: &Packet<'_>,
        scheme: Scheme,
        now: Instant,
    ) -> Self {
        Exchange {
            index,
            serial,
            client,
            adopts: packet.ext.adopt,
            takes_interim: packet.ext.interim,
            user_data: packet.user_data.map(|item| (item.kind, item.payload.into())),
            request: message.into(),
            scheme,
            retry: false,
            internal: false,
            debug: false,
            trusted: false,
            route: None,
            target: 0,
            proxied: false,
            resent: 0,
            inspected: None,
            part: Part::None,
            round: None,
            group: None,
            upload: Upload::new(packet.body, packet.more),
            download: Download::default(),
            origin: None,
            phase: Phase::Reading,
            fitting: None,
            instruct: None,
            refused: Refused::default(),
            started: now,
            outcome: None,
        }
    }

    /// Tells it from others in the same place.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The client's instance, and the session's id there.
    pub fn client_key(&self) -> (PeerId, Id) {
        (self.client.client(), self.client.id())
    }

    /// Whether nothing more comes from the client.
    pub fn is_abandoned(&self) -> bool {
        matches!(self.phase, Phase::Abandoned | Phase::Over)
    }

    /// How it ended, for the log; once.
    pub fn take_outcome(&mut self) -> Option<Outcome> {
        self.outcome.take()
    }

    /// The way to whoever has made the request.
    fn way(&self) -> Way {
        Way { internal: self.internal, by_router: self.client.by_router() }
    }

    /// Does something with the decoded request.
    fn with_request<R>(&mut self, act: impl FnOnce(&mut Self, &Packet<'_>) -> R) -> R {
        // Shared and not taken out, because what is done may come here again: the next target, or the test target.
        let request = self.request.clone();
        // It could be decoded when it came.
        let packet = Packet::decode(&request).unwrap_or_default();
        act(self, &packet)
    }

    /// The client's URI with the scheme that counts.
    fn client_uri<'p>(&self, packet: &Packet<'p>) -> Cow<'p, [u8]> {
        let text = packet.uri.unwrap_or_default();
        match Uri::parse(text) {
            Some(uri) if uri.scheme != self.scheme => {
                let mut whole = Vec::with_capacity(text.len() + 1);
                Uri { scheme: self.scheme, ..uri }.write(&mut whole);
                Cow::Owned(whole)
            }
            _ => Cow::Borrowed(text),
        }
    }

    fn current_target(&self) -> Option<&Target> {
        self.route.as_ref()?.targets.get(self.target)
    }

    fn end(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
        self.phase = Phase::Over;
    }

    fn responded(&self) -> Outcome {
        match self.download.code {
            Some(code) => Outcome::Responded(code, self.download.bytes_sent),
            None => Outcome::Failed,
        }
    }

    /// Ends the request without what was asked for: tells the client and the log.
    fn fail(&mut self, error: &ProxyError, context: &mut Context<'_>) {
        self.warn(error, context);
        self.answer(&error.answer(self.debug), context);
    }

    /// Tells the log why the client does not get what it asked for.
    fn warn(&self, error: &ProxyError, context: &mut Context<'_>) {
        let request = Packet::decode(&self.request).unwrap_or_default();
        let method = request.method.unwrap_or_default().escape_ascii();
        let uri = self.client_uri(&request);
        let target =
            self.current_target().filter(|_| self.proxied).map(|target| format!(" -> {}", target_name(target)));
        let id = request_id::of(request.headers.iter()).map(|id| format!(" id={id}")).unwrap_or_default();
        let text = format!("{method} {}{}: {error}{id}", uri.escape_ascii(), target.unwrap_or_default());
        context.links.log(&Note::Warning { kind: error.kind(), text: &text });
    }

    /// Answers in the place of a backend. If a response has begun it can't be taken back; it is broken off instead, so
    /// that the client sees that it is not whole.
    fn answer(&mut self, answer: &Answer, context: &mut Context<'_>) {
        self.drop_origin(context);
        if self.download.code.is_some() {
            self.send(Packet { kind: Kind::Cancel, ..Packet::default() }, context);
            return self.end(Outcome::Failed);
        }
        let body = format!("{}\n", answer.text);
        let length = body.len().to_string();
        let headers: [(&[u8], &[u8]); 2] = [(b"Content-Type", b"text/plain"), (b"Content-Length", length.as_bytes())];
        self.phase = Phase::Finishing;
        let head = (answer.code, answer.reason.as_bytes(), zhttp::Headers::Pairs(&headers));
        self.relay(Some(head), body.as_bytes(), false, context);
    }

    /// The client is gone, or its instance is.
    pub fn client_left(&mut self, context: &mut Context<'_>) {
        if self.is_abandoned() {
            return;
        }
        if let Phase::Asking(_) = self.phase {
            context.shared.availability.done_waiting();
        }
        if let Phase::Polling = self.phase {
            self.poll_lost(context);
        }
        self.outcome = Some(Outcome::Failed);
        let unknown = self.origin.as_ref().is_some_and(|origin| !origin.session.is_answered());
        if unknown {
            self.phase = Phase::Abandoned;
        } else {
            self.drop_origin(context);
            self.phase = Phase::Over;
        }
    }

    /// Ends the sessions of which a packet was not taken. To be called whenever something may have been sent.
    pub fn end_refused(&mut self, context: &mut Context<'_>) {
        if std::mem::take(&mut self.refused.by_origin) {
            self.cut_origin(context);
        }
        if std::mem::take(&mut self.refused.by_client) {
            self.cut_client(context);
        }
    }

    /// A packet to the outbound process was not taken.
    pub fn cut_origin(&mut self, context: &mut Context<'_>) {
        if self.origin.is_none() {
            return;
        }
        self.note_cut_origin(context);
        self.origin = None;
        self.origin_failed(&ProxyError::OutboundFull, context);
    }

    /// A packet to the client was not taken.
    pub fn cut_client(&mut self, context: &mut Context<'_>) {
        let (peer, id) = self.client_key();
        context.shared.cut.push(Cut { peer, id, side: Side::Client(self.way()) });
        let text = "ending a request whose frontend takes no more packets";
        context.links.log(&Note::Warning { kind: "client-full", text: &text });
        self.client_left(context);
    }

    /// The proxy stops: tells both sides, as far as they are ours. A frontend that we answer through its ROUTER sees our
    /// end by itself, and knows what can be sent again.
    pub fn stop(&mut self, context: &mut Context<'_>) {
        let sees_the_end = self.adopts && self.client.by_router();
        if !sees_the_end && !self.is_abandoned() && !matches!(self.phase, Phase::Accepting(_)) {
            self.send(Packet { kind: Kind::Cancel, ..Packet::default() }, context);
        }
        self.drop_origin(context);
        self.phase = Phase::Over;
    }

    /// When [`Exchange::on_timer`] has something to do; `None` if the exchange can be forgotten.
    pub fn next_due(&self) -> Option<Instant> {
        let call = match self.phase {
            Phase::Over => return None,
            Phase::Asking(call) | Phase::Accepting(call) => Some(call.deadline),
            _ => None,
        };
        let client = (!self.is_abandoned() && !self.is_given_away()).then(|| self.client.next_due());
        let origin = self.origin.as_ref().map(|origin| {
            let due = origin.session.next_due();
            if origin.session.is_answered() { due } else { due.min(origin.answer_by) }
        });
        let due = [call, client, origin].into_iter().flatten().min();
        debug_assert!(due.is_some(), "an exchange that waits for nothing and is not over");
        due
    }

    /// The handler decides about the client; the numbers are already its own.
    pub fn is_given_away(&self) -> bool {
        matches!(self.phase, Phase::Accepting(_))
    }

    /// Does what is due. `keep_alive` collects sessions to be kept alive.
    pub fn on_timer(&mut self, context: &mut Context<'_>, keep_alive: &mut impl FnMut(KeepAlive)) {
        let call = match self.phase {
            Phase::Asking(call) | Phase::Accepting(call) => Some(call.deadline),
            _ => None,
        };
        if call.is_some_and(|deadline| context.now >= deadline) {
            return self.call_timed_out(context);
        }
        // The client's side is the last: the number of a keep-alive is taken before its packet is sent, and nothing else may
        // be sent to the client in between. Only a cancel can follow to the backend's side, and cancels need no number.
        self.origin_timer(context, keep_alive);
        if !self.is_abandoned() && !self.is_given_away() {
            self.client_timer(context, keep_alive);
        }
    }

    fn client_timer(&mut self, context: &mut Context<'_>, keep_alive: &mut impl FnMut(KeepAlive)) {
        loop {
            match self.client.on_timer(context.now) {
                server::Due::Nothing => return,
                // A group is in this process: it need not hear that we live, and does not say so.
                server::Due::KeepAlive(_) | server::Due::Expired if self.is_source() => {
                    self.client.resume(context.now);
                }
                server::Due::KeepAlive(to) if self.client.takes_multi() && to.seq > 0 => {
                    keep_alive(KeepAlive::Client { to, way: self.way(), id: self.client.id() });
                }
                // The first packet tells the client's instance who we are and what we take.
                server::Due::KeepAlive(to) => {
                    self.send_numbered(to, Packet { kind: Kind::KeepAlive, ..Packet::default() }, context);
                }
                server::Due::Expired => return self.client_left(context),
                server::Due::Spent => {
                    self.send(Packet { kind: Kind::Cancel, ..Packet::default() }, context);
                    return self.client_left(context);
                }
            }
        }
    }

    fn origin_timer(&mut self, context: &mut Context<'_>, keep_alive: &mut impl FnMut(KeepAlive)) {
        let index = self.index;
        while let Some(origin) = &mut self.origin {
            if !origin.session.is_answered() && context.now >= origin.answer_by {
                let error = if origin.in_doubt { ProxyError::OutboundLeft } else { ProxyError::NoOutbound };
                self.origin = None;
                return self.origin_failed(&error, context);
            }
            match origin.session.on_timer(context.now) {
                client::Due::Nothing => return,
                client::Due::KeepAlive(to) => keep_alive(KeepAlive::Origin { to, id: origin.id(index) }),
                client::Due::Expired => {
                    self.origin = None;
                    return self.origin_failed(&ProxyError::OutboundSilent, context);
                }
                client::Due::Spent => {
                    self.drop_origin(context);
                    let error = ProxyError::OutboundViolation("its session has no numbers left".into());
                    return self.origin_failed(&error, context);
                }
            }
        }
    }

    fn call_timed_out(&mut self, context: &mut Context<'_>) {
        match self.phase {
            Phase::Asking(_) => {
                context.shared.availability.timed_out();
                self.with_request(|this, packet| this.open_origin(packet, context));
            }
            Phase::Accepting(_) => self.refused(&ProxyError::NoHandler, context),
            _ => {}
        }
    }

    /// The outbound process `peer` is gone; none: it can not be told which. What it had is lost; what nobody has answered for
    /// yet may have been its.
    pub fn outbound_left(&mut self, peer: Option<PeerId>, context: &mut Context<'_>) {
        let Some(origin) = &mut self.origin else { return };
        match origin.session.server() {
            None => {
                origin.in_doubt = true;
                origin.answer_by = origin.answer_by.min(context.now + DOUBT);
            }
            server if server == peer => {
                self.origin = None;
                self.origin_failed(&ProxyError::OutboundLeft, context);
            }
            Some(_) => {}
        }
    }

    /// The connection's id in statistics.
    /// The name of the client's session for all processes.
    pub fn connection_id(&self, peers: &Peers) -> Vec<u8> {
        let (peer, id) = self.client_key();
        [peers.name(peer), &b":"[..], id.as_bytes()].concat()
    }

    /// The route, if it has an id of its own.
    fn route_id(&self) -> Option<&str> {
        self.route.as_ref().filter(|route| route.explicit_id).map(|route| route.id.as_str())
    }

    /// Notes for statistics that the client is here.
    pub fn note_arrival(&mut self, request: &Packet<'_>, context: &mut Context<'_>) {
        context.shared.arrivals.http += u64::from(!self.retry);
        // What no route is for was no request of anybody's.
        if !context.shared.statistics.is_heard() || self.route.is_none() {
            return;
        }
        let id = self.connection_id(&context.shared.peers);
        let arrival = self.arrival(&id, request, &context.shared.config.rules);
        context.shared.statistics.begin(&arrival, context.now);
        if !self.retry {
            let (method, uri) = (request.method.unwrap_or_default(), request.uri.unwrap_or_default());
            self.count(context, |report| {
                report.client_header_bytes_received += statistics::request_size(method, uri, request.headers);
                report.client_content_bytes_received += statistics::length(request.body.len());
            });
        }
    }

    /// The client as statistics see it.
    pub fn with_arrival<R>(&self, id: &[u8], rules: &Rules, act: impl FnOnce(Arrival<'_>) -> R) -> R {
        act(self.arrival(id, &Packet::decode(&self.request).unwrap_or_default(), rules))
    }

    fn arrival<'a>(&'a self, id: &'a [u8], request: &Packet<'a>, rules: &Rules) -> Arrival<'a> {
        Arrival {
            id,
            kind: ConnKind::Http,
            route: self.route_id(),
            peer_address: forwarded::logical_address(
                request.headers,
                rules.forwarded_for(self.trusted),
                request.peer_address,
            ),
            secure: self.scheme.is_secure(),
            again: self.retry,
        }
    }

    /// Counts what passes, for statistics.
    fn count(&self, context: &mut Context<'_>, add: impl FnOnce(&mut Report<'static>)) {
        context.shared.statistics.count(self.route_id(), context.now, add);
    }

    /// Notes for statistics that the client is not here any more.
    pub fn note_end(&mut self, outcome: Outcome, context: &mut Context<'_>) {
        if context.shared.statistics.is_heard() {
            let id = self.connection_id(&context.shared.peers);
            context.shared.statistics.end(&id, outcome == Outcome::Accepted, context.now);
        }
    }

    /// Writes the exchange's line to the log.
    pub fn log(&mut self, outcome: Outcome, context: &mut Context<'_>) {
        let level = self.route.as_ref().and_then(|route| route.log_level);
        if self.internal || self.is_source() || !context.shared.config.logs_request(level) {
            return;
        }
        self.with_request(|this, packet| {
            let target = this.current_target().filter(|_| this.proxied).map(target_name);
            let line = Line {
                request: packet,
                uri: &this.client_uri(packet),
                target: target.as_deref(),
                from: packet.peer_address.filter(|_| context.shared.config.log_from),
                route: this.route_id(),
                outcome,
                duration: context.now.saturating_duration_since(this.started),
                retry: this.retry,
                shared: this.group.map(|(group, _)| group),
                user_agent: context.shared.config.log_user_agent,
                id: request_id::of(packet.headers.iter()),
            };
            context.links.log(&Note::Request(&line));
        });
    }
}

/// A session that is to be kept alive, with the number its packet has.
pub enum KeepAlive {
    /// Towards a client.
    Client {
        /// Address and number.
        to: server::Outgoing,
        /// The way there.
        way: Way,
        /// The session.
        id: Id,
    },
    /// Towards the outbound side.
    Origin {
        /// Address and number.
        to: client::Outgoing,
        /// The session.
        id: Id,
    },
}
