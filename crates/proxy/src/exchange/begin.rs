// SPDX-License-Identifier: AGPL-3.0-or-later
//! From the first packet to the first target: route, ask the handler, go.

use std::sync::Arc;

use grip::cors::Cors;
use grip::cross_origin::CrossOrigin;
use grip::jsonp::Jsonp;
use routes::{ById, Protocol, Route, Table, Target, TargetKind};
use rpc::RequestState;
use rpc::inspect::{Inspect, Inspected};
use rpc::passthrough::Passthrough;
use rpc::retry::Retry;
use zhttp::{Ext, Kind, Packet};

use super::{Call, Exchange, Phase};
use crate::body::upload::Upload;
use crate::context::Context;
use crate::error::ProxyError;
use crate::handler::inspect::{Ask, PREFETCH};
use crate::request::forwarded;
use crate::request::jsonp::{self, Invalid};
use crate::request::uri::Uri;
use crate::response::answer::Answer;
use crate::response::cross_origin::Fitting;
use crate::sharing::Part;
use crate::sockjs::place::Place;

/// The index that calls have whose answers nobody waits for.
const NOBODY: u32 = u32::MAX;

impl Exchange {
    /// Starts with a request of a client.
    pub fn begin(&mut self, packet: &Packet<'_>, uri: &Uri<'_>, routes: &Table, context: &mut Context<'_>) {
        let rules = &context.shared.config.rules;
        if rules.accept_protocol && forwarded::says_secure(packet.headers) {
            self.scheme = uri.scheme.with_tls(true);
        }
        if packet.headers.get("Pushpin-Check").is_some() {
            return self.answer(&Answer::notice(), context);
        }
        if forwarded::has_looped(packet.headers, &rules.cdn_loop) {
            return self.fail(&ProxyError::Looped, context);
        }
        let wanted = packet.headers.get("Pushpin-Route").filter(|_| rules.accept_route);
        let route = match wanted {
            Some(id) => by_id(id, uri, routes).map_err(|_| ProxyError::NoSuchRoute),
            None => self.by_condition(uri, routes),
        };
        if !self.take_route(route, packet, context) {
            return;
        }
        if packet.more {
            let credits = self.client.grant();
            self.send(Packet { kind: Kind::Credit, credits, ..Packet::default() }, context);
        }
        let route = self.route.clone();
        let path = if uri.path.is_empty() { b"/" } else { uri.path };
        if let Some(place) = route.as_ref().and_then(|route| Place::of(route, path)) {
            return self.answer_sockjs(place, packet, context);
        }
        match self.fit(packet, uri, context) {
            Ok(false) => self.read_ahead(packet, context),
            Ok(true) => self.with_request(|this, packet| this.read_ahead(packet, context)),
            Err(invalid) => self.answer(&Answer::new(400, "Bad Request", invalid.to_string()), context),
        }
    }

    /// Makes ready for a response to scripts of other sites, if the route wants that. `true`: the request is another one
    /// now, which stood in the query.
    fn fit(&mut self, packet: &Packet<'_>, uri: &Uri<'_>, context: &mut Context<'_>) -> Result<bool, Invalid> {
        let Some(route) = self.route.clone() else { return Ok(false) };
        if !route.auto_cross_origin && !context.shared.config.auto_cross_origin {
            return Ok(false);
        }
        self.fitting = Some(Box::new(Fitting::new(CrossOrigin::Cors(Cors::of(packet.headers.iter())))));
        if packet.more {
            return Ok(false);
        }
        let Some(meant) = jsonp::read(packet, uri, &route.jsonp)? else { return Ok(false) };
        self.request = meant.encode(packet, uri).into();
        self.upload = Upload::new(&meant.body, false);
        self.fitting = Some(Box::new(Fitting::new(CrossOrigin::Jsonp(meant.jsonp))));
        Ok(true)
    }

    /// Goes on once the beginning of the body is there: the handler is shown it, and a body that ends within it has a
    /// length that the backend can be told, which some do not do without.
    pub(super) fn read_ahead(&mut self, packet: &Packet<'_>, context: &mut Context<'_>) {
        let ahead = self.upload.kept().map_or(PREFETCH, <[u8]>::len);
        if ahead < PREFETCH && !self.upload.is_complete() {
            self.phase = Phase::Reading;
            return;
        }
        let session = self.route.as_ref().is_some_and(|route| route.session);
        match context.shared.availability.decide(session, context.now) {
            Ask::Wait => self.ask_and_wait(packet, context),
            Ask::Probe => {
                let id = zhttp::Id::indexed(NOBODY, context.shared.serial());
                self.ask(packet, &id, context);
                self.open_origin(packet, context);
            }
            Ask::No => self.open_origin(packet, context),
        }
    }

    /// Starts with a request that the handler gave back.
    pub fn begin_again(
        &mut self,
        packet: &Packet<'_>,
        uri: &Uri<'_>,
        client: &RequestState<'_>,
        retry: &Retry<'_>,
        routes: &Table,
        context: &mut Context<'_>,
    ) {
        self.retry = true;
        self.round = retry.round.as_deref().map(Into::into);
        self.scheme = uri.scheme.with_tls(client.https || uri.scheme.is_secure());
        self.debug = client.debug;
        self.fitting = match &client.jsonp_callback {
            Some(callback) => {
                let extended = client.jsonp_extended_response;
                Some(CrossOrigin::Jsonp(Jsonp { callback: callback.to_vec().into(), extended }))
            }
            None => client.auto_cross_origin.then(|| CrossOrigin::Cors(Cors::of(packet.headers.iter()))),
        }
        .map(|kind| Box::new(Fitting::new(kind)));
        self.inspected = retry.inspect.clone().map(|inspected| Box::new(inspected.into_owned()));
        // The client's instance is silent until it hears from its new owner.
        self.send(Packet { kind: Kind::KeepAlive, ext: Ext::MULTI, ..Packet::default() }, context);
        let route = match retry.route.filter(|id| !id.is_empty()).map(|id| by_id(id.as_bytes(), uri, routes)) {
            Some(Ok(route)) => Ok(route),
            Some(Err(Unusable::Shared)) | None => self.by_condition(uri, routes),
            Some(Err(Unusable::Unknown)) => Err(ProxyError::NoSuchRoute),
        };
        if self.take_route(route, packet, context) {
            self.open_origin(packet, context);
        }
    }

    /// Starts with a request that the handler has made itself: by the targets of the route that it names if the address is
    /// of the same site, else from where the address says.
    pub fn begin_internal(
        &mut self,
        packet: &Packet<'_>,
        uri: &Uri<'_>,
        passthrough: &Passthrough<'_>,
        routes: &Table,
        context: &mut Context<'_>,
    ) {
        self.internal = true;
        if passthrough.auto_share {
            self.part = Part::Wanted;
        }
        let route = match routes.by_id(passthrough.route) {
            ById::Found(route) => Ok(route.clone()),
            ById::Shared | ById::Unknown => Err(ProxyError::NoSuchRoute),
        };
        let route = route.and_then(|route| {
            let path = if uri.path.is_empty() { b"/" } else { uri.path };
            match passthrough.prefer_internal && path.starts_with(route.path_beg.as_bytes()) {
                true => Ok(route),
                false => external(&route, uri, passthrough.trusted).map(Arc::new).ok_or(ProxyError::NoRoute),
            }
        });
        if self.take_route(route, packet, context) {
            if packet.more {
                let credits = self.client.grant();
                self.send(Packet { kind: Kind::Credit, credits, ..Packet::default() }, context);
            }
            self.open_origin(packet, context);
        }
    }

    fn by_condition(&self, uri: &Uri<'_>, routes: &Table) -> Result<Arc<Route>, ProxyError> {
        let path = if uri.path.is_empty() { b"/" } else { uri.path };
        let host = std::str::from_utf8(uri.host()).ok();
        let route = host.and_then(|host| routes.lookup(Protocol::Http, self.scheme.is_secure(), host, path));
        route.cloned().ok_or(ProxyError::NoRoute)
    }

    /// Sets the route; without one the answer is given here.
    fn take_route(
        &mut self,
        route: Result<Arc<Route>, ProxyError>,
        packet: &Packet<'_>,
        context: &mut Context<'_>,
    ) -> bool {
        let route = match route {
            Ok(route) => route,
            Err(error) => {
                self.fail(&error, context);
                return false;
            }
        };
        self.debug |= context.shared.config.debug || route.debug;
        self.route = Some(route);
        if let Some(key) = &context.shared.upstream {
            self.trusted = packet.headers.get("Grip-Sig").is_some_and(|token| key.accepts(token, context.unix));
        }
        true
    }

    fn ask_and_wait(&mut self, packet: &Packet<'_>, context: &mut Context<'_>) {
        let call = Call::new(context);
        let id = zhttp::Id::indexed(self.index as u32, call.serial);
        if self.ask(packet, &id, context) {
            context.shared.availability.asked(context.now);
            self.phase = Phase::Asking(call);
        } else {
            self.open_origin(packet, context);
        }
    }

    fn ask(&mut self, packet: &Packet<'_>, id: &zhttp::Id, context: &mut Context<'_>) -> bool {
        let kept = self.upload.kept().unwrap_or_default();
        let body = &kept[..kept.len().min(PREFETCH)];
        let uri = self.client_uri(packet);
        let question = Inspect {
            method: packet.method.unwrap_or_default().into(),
            uri: (&*uri).into(),
            headers: rpc::Headers::of(packet.headers),
            body: body.into(),
            truncated: !self.upload.is_complete() || body.len() < kept.len(),
            get_session: self.route.as_ref().is_some_and(|route| route.session),
            auto_share: false,
        };
        rpc::call::encode(None, Some(id.as_bytes()), &question).is_ok_and(|call| context.links.inspect(&call))
    }

    /// Whether the answer to this call is waited for.
    pub fn awaits_inspect(&self, serial: u64) -> bool {
        matches!(self.phase, Phase::Asking(call) if call.serial == serial)
    }

    /// The handler that was asked about the request is gone.
    pub fn inspect_lost(&mut self, context: &mut Context<'_>) {
        if let Phase::Asking(_) = self.phase {
            self.inspected(None, context);
        }
    }

    /// The handler has answered, or failed to.
    pub fn inspected(&mut self, inspected: Option<Inspected<'static>>, context: &mut Context<'_>) {
        context.shared.availability.done_waiting();
        let no_proxy = inspected.as_ref().is_some_and(|inspected| inspected.no_proxy);
        self.inspected = inspected.map(Box::new);
        if no_proxy {
            self.upload.unclaim();
            self.phase = Phase::Withholding;
            self.withhold(context);
        } else {
            self.with_request(|this, packet| this.open_origin(packet, context));
        }
    }
}

/// A route to where an address says, signed as `route` is.
fn external(route: &Route, uri: &Uri<'_>, trusted: bool) -> Option<Route> {
    let host = std::str::from_utf8(uri.host()).ok().filter(|host| !host.is_empty())?;
    let target = Target {
        kind: TargetKind::Host { host: host.to_string(), port: uri.port()? },
        tls: uri.scheme.is_secure(),
        trusted,
        trust_connect_host: false,
        insecure: false,
        host: None,
        subscriptions: Vec::new(),
        over_http: false,
        one_event: false,
        client: None,
        ipc_file_mode: None,
    };
    Some(Route {
        targets: vec![target],
        path_remove: 0,
        path_prepend: String::new(),
        as_host: None,
        headers: Vec::new(),
        orig_headers: false,
        ..route.clone()
    })
}

enum Unusable {
    Shared,
    Unknown,
}

fn by_id(id: &[u8], uri: &Uri<'_>, routes: &Table) -> Result<Arc<Route>, Unusable> {
    let id = std::str::from_utf8(id).map_err(|_| Unusable::Unknown)?;
    match routes.by_id(id) {
        ById::Found(route) if uri.path.starts_with(route.path_beg.as_bytes()) => Ok(route.clone()),
        ById::Shared => Err(Unusable::Shared),
        ById::Found(_) | ById::Unknown => Err(Unusable::Unknown),
    }
}
