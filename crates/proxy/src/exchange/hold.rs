// SPDX-License-Identifier: AGPL-3.0-or-later
//! Responses that are instructions: collected, then handed to the handler together with the client.

use grip::cors::Cors;
use grip::cross_origin::CrossOrigin;
use rpc::accept::Accept;
use rpc::stats::ConnMax;
use rpc::{RequestData, RequestState, ResponseData};
use zhttp::{Ext, Headers, Id, Kind, Packet};

use super::{Call, Exchange, Phase};
use crate::access_log::Outcome;
use crate::body::upload::KEEP;
use crate::context::Context;
use crate::error::ProxyError;
use crate::handler::accept::Verdict;
use crate::request::forwarded::logical_address;
use crate::request::headers::{Additions, origin_uri, target_name};
use crate::request::uri::Uri;
use crate::response::backend::{self, INSTRUCT_LIMIT};
use crate::response::cross_origin::Fitting;

/// Credits that a handler gets with a client if it is Pushpin's, in bytes: twice what its own frontend gives.
const FOREIGN_WINDOW: u32 = 16_384;

/// A response that is for the handler.
pub(super) struct Instruct {
    code: u16,
    reason: Vec<u8>,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    /// The client has got head and body already.
    sent: bool,
}

impl Instruct {
    pub(super) fn new(code: u16, reason: &[u8], headers: Headers<'_>) -> Self {
        let headers = headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        Instruct { code, reason: reason.to_vec(), headers, body: Vec::new(), sent: false }
    }

    fn pairs(&self) -> Vec<(&[u8], &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect()
    }
}

impl Exchange {
    /// Takes in a piece of a response that is for the handler.
    pub(super) fn collect(&mut self, body: &[u8], more: bool, context: &mut Context<'_>) {
        if let Phase::Preceding = self.phase {
            return self.precede(None, body, more, context);
        }
        let Some(instruct) = &mut self.instruct else { return };
        if instruct.body.len() + body.len() > INSTRUCT_LIMIT {
            return self.too_much_collected(body, more, context);
        }
        instruct.body.extend_from_slice(body);
        if more {
            self.grant_origin(body.len(), context);
        } else {
            self.upload.unclaim();
            self.phase = Phase::Completing;
            self.grant_client(context);
            self.complete_hold(context);
        }
    }

    fn too_much_collected(&mut self, body: &[u8], more: bool, context: &mut Context<'_>) {
        let Some(instruct) = &mut self.instruct else { return };
        let collected = std::mem::take(&mut instruct.body);
        let pairs = instruct.pairs();
        let headers = Headers::Pairs(&pairs);
        if !backend::may_be_sent_before_hold(headers) {
            let target = self.current_target().map(target_name).unwrap_or_default();
            return self.fail(&ProxyError::InstructTooLarge(target), context);
        }
        let Some((code, reason, mut kept)) = backend::before_hold(instruct.code, &instruct.reason, headers) else {
            return self.fail(&ProxyError::BadStatus, context);
        };
        if context.shared.config.unbuffer_streams {
            let missing = grip::unbuffered::missing(kept.iter().copied());
            kept.extend(missing);
        }
        let (reason, kept) = (reason.to_vec(), owned(&kept));
        instruct.sent = true;
        let kept: Vec<(&[u8], &[u8])> = kept.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
        let head = (code, reason.as_slice(), Headers::Pairs(&kept));
        self.precede(Some(head), &[&collected, body].concat(), more, context);
    }

    /// Passes a piece of the response on before the hold. More is always to follow, because the handler goes on.
    fn precede(
        &mut self,
        head: Option<super::client_side::Head<'_>>,
        body: &[u8],
        more: bool,
        context: &mut Context<'_>,
    ) {
        // A stream is no script, whatever was asked for.
        if self.fitting.as_ref().is_some_and(|fitting| fitting.jsonp().is_some()) {
            let cors = self.with_request(|_, packet| Cors::of(packet.headers.iter()));
            self.fitting = Some(Box::new(Fitting::new(CrossOrigin::Cors(cors))));
        }
        self.phase = if more { Phase::Preceding } else { Phase::Completing };
        self.relay(head, body, true, context);
        if !more && matches!(self.phase, Phase::Completing) {
            self.upload.unclaim();
            self.complete_hold(context);
        }
    }

    /// Hands the client over once the request is complete and the client has got all that comes before.
    pub(super) fn complete_hold(&mut self, context: &mut Context<'_>) {
        if self.upload.is_too_large() {
            return self.fail(&ProxyError::TooLargeToHold, context);
        }
        if !self.upload.is_complete() || self.download.is_waiting() {
            return;
        }
        // A client that does not know us has nothing under way to us, and need not wait for its new owner.
        if self.adopts && !self.client.has_spoken() {
            return self.call_accept(context);
        }
        self.phase = Phase::HandingOver;
        let to = self.client.offer();
        self.send_numbered(to, Packet { kind: Kind::HandoffStart, ..Packet::default() }, context);
    }

    /// The handler wants the request without a backend: once the body is complete it gets it.
    pub(super) fn withhold(&mut self, context: &mut Context<'_>) {
        if self.upload.is_too_large() {
            return self.fail(&ProxyError::BodyTooLarge, context);
        }
        debug_assert!(self.upload.kept().is_none_or(|kept| kept.len() <= KEEP));
        if self.upload.is_complete() {
            self.phase = Phase::Completing;
            self.complete_hold(context);
        }
    }

    /// The client's instance waits for its new owner: asks the handler to be that.
    pub(super) fn call_accept(&mut self, context: &mut Context<'_>) {
        let call = Call::new(context);
        self.phase = Phase::Accepting(call);
        self.send_call(call, context);
    }

    fn send_call(&mut self, call: Call, context: &mut Context<'_>) {
        let id = Id::indexed(self.index as u32, call.serial);
        if !self.with_request(|this, packet| this.send_accept(packet, &id, context)) {
            self.refused(&ProxyError::NoHandler, context);
        }
    }

    fn send_accept(&mut self, packet: &Packet<'_>, id: &Id, context: &mut Context<'_>) -> bool {
        let Some(route) = self.route.clone() else { return false };
        let Some(target) = route.targets.get(self.target) else { return false };
        let Some(uri) = Uri::parse(packet.uri.unwrap_or_default()) else { return false };
        let conn_max = self.offer_count(context);
        let session = self.client.hand_over();
        let mut call = context.shared.take_call_buffer();
        let shared = &mut *context.shared;
        let token = shared.signatures.token(&route, context.unix);
        let what = self.circumstances(packet, &uri, &route, target, &shared.config.rules, token);
        let additions = Additions::new(packet.headers, &what);
        let headers = additions.headers(packet.headers, &what);
        let sent_uri = origin_uri(&uri, &route, target);
        let body = self.upload.kept().unwrap_or_default();
        let method = packet.method.unwrap_or_default();
        let rule = shared.config.rules.forwarded_for(self.trusted);
        let jsonp = self.fitting.as_ref().and_then(|fitting| fitting.jsonp());
        let window = RequestState::of(&session, &shared.peers);
        // Pushpin's handler makes a packet for each client out of all that a window takes, even when it gets one message for many.
        let most = if shared.availability.is_foreign() { FOREIGN_WINDOW } else { u32::MAX };
        let state = RequestState {
            out_credits: window.out_credits.min(most),
            user_data: packet.user_data.and_then(|data| tnetstring::from_item(data).ok()),
            response_code: self.download.code,
            https: self.scheme.is_secure(),
            peer_address: address(packet.peer_address),
            logical_peer_address: address(logical_address(packet.headers, rule, packet.peer_address)),
            debug: self.debug,
            is_retry: self.retry,
            auto_cross_origin: self.fitting.is_some(),
            jsonp_callback: jsonp.map(|jsonp| (&*jsonp.callback).into()),
            jsonp_extended_response: jsonp.is_some_and(|jsonp| jsonp.extended),
            ..window
        };
        let client_uri = self.client_uri(packet);
        let accept = Accept {
            requests: vec![state],
            request_data: data(method, &sent_uri, rpc::Headers(headers), body),
            orig_request_data: data(method, &client_uri, rpc::Headers::of(packet.headers), body),
            response: self.instruct.as_deref().map(|instruct| ResponseData {
                code: instruct.code,
                reason: instruct.reason[..].into(),
                headers: rpc::Headers(instruct.pairs()),
                body: instruct.body[..].into(),
            }),
            inspect: self.inspected.as_deref().cloned(),
            route: Some(&route.id),
            separate_stats: route.explicit_id,
            channel_prefix: Some(route.prefix.as_str()).filter(|prefix| !prefix.is_empty()),
            log_level: route.log_level.map(i32::from),
            channels: target.subscriptions.iter().map(String::as_str).collect(),
            trusted: target.trusted,
            use_session: route.session,
            response_sent: self.is_instruct_sent(),
            conn_max,
        };
        // Only foreign data that are nested too deep can't be written.
        let sent = rpc::call::append(Some(&shared.instance), Some(id.as_bytes()), &accept, &mut call)
            .is_ok_and(|()| context.links.accept(&call));
        context.shared.keep_call_buffer(call);
        sent
    }

    /// How many connections the handler is to count here before and after it takes this one, if it wants to know.
    fn offer_count(&self, context: &mut Context<'_>) -> Vec<ConnMax> {
        if !context.shared.statistics.counts_maxima() {
            return Vec::new();
        }
        let id = self.connection_id(&context.shared.peers);
        let instance = String::from_utf8_lossy(&context.shared.instance).into_owned();
        context.shared.statistics.offer(&id, &instance, context.now)
    }

    /// The handler that was asked to hold the request is gone. Its successor is asked the same, within the same time. If the
    /// question was still on its way, it is asked twice, and drops the repetition because it has the session already.
    pub fn accept_lost(&mut self, context: &mut Context<'_>) {
        if let Phase::Accepting(call) = self.phase {
            self.send_call(call, context);
        }
    }

    /// Whether the answer to this call is waited for.
    pub fn awaits_accept(&self, serial: u64) -> bool {
        matches!(self.phase, Phase::Accepting(call) if call.serial == serial)
    }

    /// The client has got head and body of the response that is for the handler.
    fn is_instruct_sent(&self) -> bool {
        self.instruct.as_ref().is_some_and(|instruct| instruct.sent)
    }

    /// The handler has answered.
    pub fn accepted(&mut self, verdict: &Verdict<'_>, context: &mut Context<'_>) {
        let sent = self.is_instruct_sent();
        match verdict {
            Verdict::Accepted => self.end(Outcome::Accepted),
            Verdict::Respond(response) => {
                self.resume(context);
                let head = (response.code, &*response.reason, response.headers.pairs());
                self.relay((!sent).then_some(head), &response.body, false, context);
            }
            Verdict::Nothing if sent => {
                self.resume(context);
                self.relay(None, b"", false, context);
            }
            Verdict::Nothing => {
                self.refused(&ProxyError::HandlerRefused("an answer without a verdict".into()), context);
            }
            Verdict::Refused(error) => self.refused(error, context),
        }
    }

    /// The handler does not take the client: answers it after all, or ends what it has got already.
    pub(super) fn refused(&mut self, error: &ProxyError, context: &mut Context<'_>) {
        self.resume(context);
        if !self.is_instruct_sent() {
            return self.fail(error, context);
        }
        self.warn(error, context);
        let text = match error {
            _ if !self.debug => String::new(),
            ProxyError::BadInstruct(_) => format!("\n\n{}\n", error.answer(true).text),
            _ => "\n\nAccept service unavailable\n".to_string(),
        };
        self.relay(None, text.as_bytes(), false, context);
    }

    /// Takes the client back, whose instance is silent until it hears from its owner.
    fn resume(&mut self, context: &mut Context<'_>) {
        self.phase = Phase::Finishing;
        if context.shared.statistics.counts_maxima() {
            let id = self.connection_id(&context.shared.peers);
            context.shared.statistics.keep(&id, context.now);
        }
        let to = self.client.resume(context.now);
        self.send_numbered(to, Packet { kind: Kind::KeepAlive, ext: Ext::MULTI, ..Packet::default() }, context);
    }
}

fn owned(pairs: &[(&[u8], &[u8])]) -> Vec<(Vec<u8>, Vec<u8>)> {
    pairs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

fn data<'a>(method: &'a [u8], uri: &'a [u8], headers: rpc::Headers<'a>, body: &'a [u8]) -> RequestData<'a> {
    RequestData { method: method.into(), uri: uri.into(), headers, body: body.into() }
}

/// An address as the handler takes it. One that is none (of a local socket, say) would make it refuse the request.
fn address(text: Option<&[u8]>) -> Option<&str> {
    let text = std::str::from_utf8(text?).ok()?;
    text.split('%').next()?.parse::<std::net::IpAddr>().is_ok().then_some(text)
}
