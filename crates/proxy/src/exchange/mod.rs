//! One request of a client and what becomes of it. No I/O, no clock.
//!
//! The way of an exchange: `begin` finds the route and asks the handler if need be; `origin_side` sends the request
//! to a target and takes in its response; `client_side` is what goes to and comes from the client; `hold` is what
//! happens to a response that is an instruction for the handler.
//!
//! The request's first packet is kept as it came and decoded again where it is needed once more: that is one copy for
//! each request, and a tenth of a microsecond in the rare places.

mod begin;
mod client_side;
mod hold;
mod origin_side;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use routes::{Route, Target};
use zhttp::{Id, KEEP_ALIVE, Kind, Packet, PeerId, Window, client, server};

use crate::access_log::{Line, Outcome};
use crate::body::download::Download;
use crate::body::upload::Upload;
use crate::context::{Context, Shared};
use crate::handler::call;
use crate::handler::inspect::Inspected;
use crate::request::headers::target_name;
use crate::request::uri::{Scheme, Uri};
use crate::response::answer::Answer;
use hold::Instruct;

/// A request under way.
pub struct Exchange {
    /// Its place in the table.
    index: usize,
    /// Tells it from others that had the place before.
    serial: u64,
    client: server::Session,
    /// The client's instance takes packets for several sessions.
    multi: bool,
    /// The client's instance takes an answer from anybody as long as it has not heard from us.
    adopts: bool,
    /// Goes back with every packet.
    user_data: Option<(tnetstring::Kind, Box<[u8]>)>,
    /// The first packet, or one made up from a retry.
    request: Rc<[u8]>,
    /// As the client came, or is believed to have come.
    scheme: Scheme,
    retry: bool,
    debug: bool,
    trusted: bool,
    route: Option<Arc<Route>>,
    /// Which of the route's targets is tried.
    target: usize,
    /// A target was tried.
    proxied: bool,
    inspected: Option<Box<Inspected>>,
    upload: Upload,
    download: Download,
    origin: Option<Origin>,
    phase: Phase,
    kept_alive: Instant,
    outcome: Option<Outcome>,
}

/// The request to the backend.
struct Origin {
    serial: u64,
    session: client::Session,
    /// Response bytes that the other side may send.
    window: Window,
    /// Request bytes that we may send.
    credits: u32,
    kept_alive: Instant,
}

impl Origin {
    fn id(&self, index: usize) -> Id {
        Id::indexed(index as u32, self.serial)
    }
}

/// How far an exchange is.
enum Phase {
    /// More of the body is needed before the handler or a backend is asked.
    Reading,
    /// The handler was asked about the request.
    Asking(Call),
    /// The handler wants the request without a backend; all of the body is needed.
    Withholding,
    /// A backend has the request and has not answered.
    Waiting,
    /// The response goes to the client as it comes.
    Relaying,
    /// The response is for the handler and is being collected.
    Collecting(Box<Instruct>),
    /// The response is for the handler, and larger than can be collected: the client gets it first.
    Preceding(Box<Instruct>),
    /// The response is complete; the request, or what the client must get first, is not.
    Completing(Box<Instruct>),
    /// The client's instance was told that somebody else will take over, or need not be told.
    HandingOver(Box<Instruct>),
    /// The handler was asked to take the request.
    Accepting(Box<Instruct>, Call),
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
        Call { serial: context.shared.serial(), deadline: context.now + call::TIMEOUT }
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
            multi: packet.ext.multi,
            adopts: packet.ext.adopt,
            user_data: packet.user_data.map(|item| (item.kind, item.payload.into())),
            request: message.into(),
            scheme,
            retry: false,
            debug: false,
            trusted: false,
            route: None,
            target: 0,
            proxied: false,
            inspected: None,
            upload: Upload::new(packet.body, packet.more),
            download: Download::default(),
            origin: None,
            phase: Phase::Reading,
            kept_alive: now,
            outcome: None,
        }
    }

    /// Tells it from others in the same place.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The client's session.
    pub fn session(&self) -> &server::Session {
        &self.client
    }

    /// Whether it can be forgotten.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Whether nothing more comes from the client.
    pub fn is_abandoned(&self) -> bool {
        matches!(self.phase, Phase::Abandoned | Phase::Over)
    }

    /// How it ended, for the log; once.
    pub fn take_outcome(&mut self) -> Option<Outcome> {
        self.outcome.take()
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
        self.outcome = Some(Outcome::Failed);
        let unknown = self.origin.as_ref().is_some_and(|origin| !origin.session.is_answered());
        if unknown {
            self.phase = Phase::Abandoned;
        } else {
            self.drop_origin(context);
            self.phase = Phase::Over;
        }
    }

    /// The proxy stops: tells both sides, as far as they are ours.
    pub fn stop(&mut self, context: &mut Context<'_>) {
        if !self.is_abandoned() && !matches!(self.phase, Phase::Accepting(..)) {
            self.send(Packet { kind: Kind::Cancel, ..Packet::default() }, context);
        }
        self.drop_origin(context);
        self.phase = Phase::Over;
    }

    /// Looks at deadlines; called about twice a second. `keep_alive` collects sessions to be kept alive.
    pub fn tick(&mut self, context: &mut Context<'_>, keep_alive: &mut impl FnMut(KeepAlive)) {
        let call = match &self.phase {
            Phase::Asking(call) | Phase::Accepting(_, call) => Some(call.deadline),
            _ => None,
        };
        if call.is_some_and(|deadline| context.now >= deadline) {
            return self.call_timed_out(context);
        }
        let paused = matches!(self.phase, Phase::Accepting(..));
        if !paused && !self.is_abandoned() && self.client.is_expired(context.now) {
            return self.client_left(context);
        }
        if self.origin.as_ref().is_some_and(|origin| origin.session.is_expired(context.now)) {
            return self.origin_expired(context);
        }
        let silent = paused || self.is_abandoned() || matches!(self.phase, Phase::HandingOver(_));
        if !silent && self.client.has_spoken() && context.now >= self.kept_alive + KEEP_ALIVE {
            self.kept_alive = context.now;
            let seq = self.client.send();
            let (peer, id, by_router) = (self.client.client, self.client.id, self.client.by_router);
            keep_alive(KeepAlive::Client { peer, id, seq, by_router, multi: self.multi });
        }
        let index = self.index;
        if let Some(origin) = &mut self.origin
            && context.now >= origin.kept_alive + KEEP_ALIVE
            && let Some((peer, seq)) = origin.session.send()
        {
            origin.kept_alive = context.now;
            keep_alive(KeepAlive::Origin { peer, id: origin.id(index), seq });
        }
    }

    fn call_timed_out(&mut self, context: &mut Context<'_>) {
        match std::mem::replace(&mut self.phase, Phase::Reading) {
            Phase::Asking(_) => {
                context.shared.availability.timed_out();
                self.with_request(|this, packet| this.open_origin(packet, context));
            }
            Phase::Accepting(instruct, _) => self.accept_failed(&instruct, context),
            other => self.phase = other,
        }
    }

    /// Acknowledges the request if nothing has been said so far.
    pub fn acknowledge(&mut self, context: &mut Context<'_>) {
        // While the handler decides, the numbers are already its own.
        let waits = !self.is_abandoned() && !matches!(self.phase, Phase::Accepting(..));
        if waits && !self.client.has_spoken() {
            self.send(Packet { kind: Kind::KeepAlive, ..Packet::default() }, context);
        }
    }

    /// Writes the exchange's line to the log.
    pub fn log(&mut self, outcome: Outcome, shared: &Shared) {
        let level = self.route.as_ref().and_then(|route| route.log_level);
        if level.is_some_and(|level| level < 2) || !tracing::enabled!(tracing::Level::INFO) {
            return;
        }
        self.with_request(|this, packet| {
            let target = this.current_target().filter(|_| this.proxied).map(target_name);
            let line = Line {
                request: packet,
                uri: &this.client_uri(packet),
                target: target.as_deref(),
                from: packet.peer_address.filter(|_| shared.config.log_from),
                route: this.route.as_ref().filter(|route| route.explicit_id).map(|route| route.id.as_str()),
                outcome,
                retry: this.retry,
                user_agent: shared.config.log_user_agent,
            };
            tracing::info!("{line}");
        });
    }
}

/// A session that is to be kept alive, with the number its packet has.
pub enum KeepAlive {
    /// Towards a client.
    Client {
        /// The client's instance.
        peer: PeerId,
        /// The session.
        id: Id,
        /// Number of the packet.
        seq: u32,
        /// Through ROUTER instead of PUB.
        by_router: bool,
        /// May be told together with others.
        multi: bool,
    },
    /// Towards the outbound side.
    Origin {
        /// The instance.
        peer: PeerId,
        /// The session.
        id: Id,
        /// Number of the packet.
        seq: u32,
    },
}
