//! Responses that are instructions: collected, then handed to the handler together with the client.

use zhttp::{Ext, Headers, Id, Kind, Packet};

use super::{Call, Exchange, Phase};
use crate::accept::{self, Response, Verdict};
use crate::access_log::Outcome;
use crate::answer::Answer;
use crate::desk::Turn;
use crate::forwarded::logical_address;
use crate::request::{Additions, Circumstances, authority, origin_uri, target_name};
use crate::response::{self, INSTRUCT_LIMIT};
use crate::upload::KEEP;
use crate::uri::Uri;

/// A response that is for the handler.
pub(super) struct Instruct {
    code: u16,
    reason: Vec<u8>,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    /// The client has got head and body already.
    sent: bool,
    /// There is no response: the handler wants the request without a backend.
    absent: bool,
}

impl Instruct {
    pub(super) fn new(code: u16, reason: &[u8], headers: Headers<'_>) -> Self {
        let headers = headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        Instruct { code, reason: reason.to_vec(), headers, body: Vec::new(), sent: false, absent: false }
    }

    fn absent() -> Self {
        Instruct { absent: true, ..Instruct::new(0, b"", Headers::Absent) }
    }

    fn pairs(&self) -> Vec<(&[u8], &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect()
    }
}

impl Exchange {
    /// Takes in a piece of a response that is for the handler.
    pub(super) fn collect(&mut self, body: &[u8], more: bool, turn: &mut Turn<'_>) {
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Collecting(mut instruct) => {
                if instruct.body.len() + body.len() > INSTRUCT_LIMIT {
                    return self.too_much_collected(instruct, body, more, turn);
                }
                instruct.body.extend_from_slice(body);
                if more {
                    self.phase = Phase::Collecting(instruct);
                    self.grant_origin(body.len(), turn);
                } else {
                    self.collected(instruct, turn);
                }
            }
            Phase::Preceding(instruct) => self.precede(None, instruct, body, more, turn),
            other => self.phase = other,
        }
    }

    fn too_much_collected(&mut self, mut instruct: Box<Instruct>, body: &[u8], more: bool, turn: &mut Turn<'_>) {
        let pairs = instruct.pairs();
        let headers = Headers::Pairs(&pairs);
        if !response::may_be_sent_before_hold(headers) {
            let target = self.current_target().map(target_name).unwrap_or_default();
            let detail = || format!("GRIP instruct response too large from {target}");
            return self.answer(&Answer::origin_failed(self.debug, detail), turn);
        }
        let Some((code, reason, kept)) = response::before_hold(instruct.code, &instruct.reason, headers) else {
            return self.answer(&Answer::accept_unavailable(), turn);
        };
        let (reason, kept) = (reason.to_vec(), owned(&kept));
        let collected = std::mem::take(&mut instruct.body);
        instruct.sent = true;
        let kept: Vec<(&[u8], &[u8])> = kept.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
        let head = (code, reason.as_slice(), Headers::Pairs(&kept));
        self.precede(Some(head), instruct, &[&collected, body].concat(), more, turn);
    }

    /// Passes a piece of the response on before the hold. More is always to follow, because the handler goes on.
    fn precede(
        &mut self,
        head: Option<super::client_side::Head<'_>>,
        instruct: Box<Instruct>,
        body: &[u8],
        more: bool,
        turn: &mut Turn<'_>,
    ) {
        self.phase = if more { Phase::Preceding(instruct) } else { Phase::Settling(instruct) };
        self.relay(head, body, true, turn);
        if !more && matches!(self.phase, Phase::Settling(_)) {
            self.upload.unclaim();
            self.settle(turn);
        }
    }

    fn collected(&mut self, instruct: Box<Instruct>, turn: &mut Turn<'_>) {
        self.upload.unclaim();
        self.phase = Phase::Settling(instruct);
        self.grant_client(turn);
        self.settle(turn);
    }

    /// Hands the client over once the request is complete and the client has got all that comes before.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>) {
        if self.upload.is_too_large() {
            return self.answer(&Answer::too_large_to_hold(), turn);
        }
        if !self.upload.is_complete() || self.download.is_waiting() {
            return;
        }
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Settling(instruct) => {
                self.phase = Phase::HandingOver(instruct);
                // A client that does not know us has nothing under way to us, and need not wait for its new owner.
                if self.adopts && !self.client.has_spoken() {
                    return self.call_accept(turn);
                }
                self.send(Packet { kind: Kind::HandoffStart, ..Packet::default() }, turn);
            }
            other => self.phase = other,
        }
    }

    /// The handler wants the request without a backend: once the body is complete it gets it.
    pub(super) fn withhold(&mut self, turn: &mut Turn<'_>) {
        if self.upload.is_too_large() {
            return self.answer(&Answer::body_too_large(), turn);
        }
        debug_assert!(self.upload.kept().is_none_or(|kept| kept.len() <= KEEP));
        if self.upload.is_complete() {
            self.phase = Phase::Settling(Box::new(Instruct::absent()));
            self.settle(turn);
        }
    }

    /// The client's instance waits for its new owner: asks the handler to be that.
    pub(super) fn call_accept(&mut self, turn: &mut Turn<'_>) {
        let Phase::HandingOver(instruct) = std::mem::replace(&mut self.phase, Phase::Waiting) else { return };
        let call = Call::new(turn);
        let id = Id::indexed(self.index as u32, call.serial);
        if self.with_request(|this, packet| this.send_accept(packet, &instruct, &id, turn)) {
            self.phase = Phase::Accepting(instruct, call);
        } else {
            self.accept_failed(&instruct, turn);
        }
    }

    fn send_accept(&mut self, packet: &Packet<'_>, instruct: &Instruct, id: &Id, turn: &mut Turn<'_>) -> bool {
        let Some(route) = self.route.clone() else { return false };
        let Some(target) = route.targets.get(self.target) else { return false };
        let Some(uri) = Uri::parse(packet.uri.unwrap_or_default()) else { return false };
        let desk = &mut *turn.desk;
        let what = Circumstances {
            rules: &desk.config.rules,
            route: &route,
            trusted: self.trusted,
            scheme: self.scheme,
            peer: packet.peer_address,
            token: desk.signatures.token(&route, turn.unix),
            inspected: self.inspected.as_deref(),
            authority: authority(&uri, &route, target),
        };
        let additions = Additions::new(packet.headers, &what);
        let headers = additions.headers(packet.headers, &what);
        let sent_uri = origin_uri(&uri, &route, target);
        let body = self.upload.kept().unwrap_or_default();
        let method = packet.method.unwrap_or_default();
        let pairs = instruct.pairs();
        let rule = desk.config.rules.forwarded_for(self.trusted);
        let call = accept::Call {
            from: &desk.instance,
            session: self.client.hand_over(),
            peers: &desk.peers,
            user_data: packet.user_data,
            response_code: self.download.code,
            https: self.scheme.is_secure(),
            peer_address: packet.peer_address,
            logical_peer_address: logical_address(packet.headers, rule, packet.peer_address),
            debug: self.debug,
            is_retry: self.retry,
            request: accept::Request { method, uri: &sent_uri, headers: Headers::Pairs(&headers), body },
            original: accept::Request { method, uri: &self.client_uri(packet), headers: packet.headers, body },
            response: (!instruct.absent).then_some(Response {
                code: instruct.code,
                reason: &instruct.reason,
                headers: Headers::Pairs(&pairs),
                body: &instruct.body,
            }),
            inspected: self.inspected.as_ref().map(|inspected| inspected.encoded.as_slice()),
            route: &route,
            channels: &target.subscriptions,
            trusted: target.trusted,
            response_sent: instruct.sent,
        };
        turn.out.accept(call.encode(id.as_bytes(), &mut desk.writer))
    }

    /// Whether the answer to this call is waited for.
    pub fn awaits_accept(&self, serial: u64) -> bool {
        matches!(&self.phase, Phase::Accepting(_, call) if call.serial == serial)
    }

    /// The handler has answered.
    pub fn accepted(&mut self, verdict: &Verdict<'_>, turn: &mut Turn<'_>) {
        let Phase::Accepting(instruct, _) = std::mem::replace(&mut self.phase, Phase::Finishing) else { return };
        match verdict {
            Verdict::Accepted => self.end(Outcome::Accepted),
            Verdict::Respond(response) if instruct.sent => {
                self.resume(turn);
                self.relay(None, response.body, false, turn);
            }
            Verdict::Respond(response) => {
                self.resume(turn);
                let head = (response.code, response.reason, response.headers);
                self.relay(Some(head), response.body, false, turn);
            }
            Verdict::Nothing if instruct.sent => {
                self.resume(turn);
                self.relay(None, b"", false, turn);
            }
            Verdict::BadFormat(text) => {
                let detail = format!("Failed to parse accept instructions: {text}");
                self.refused(&instruct, &Answer::origin_failed(self.debug, || detail.clone()), &detail, turn);
            }
            Verdict::Nothing | Verdict::Failed => self.accept_failed(&instruct, turn),
        }
    }

    /// There is no handler, or it has not answered, or not in a way that can be understood.
    pub(super) fn accept_failed(&mut self, instruct: &Instruct, turn: &mut Turn<'_>) {
        self.refused(instruct, &Answer::accept_unavailable(), "Accept service unavailable", turn);
    }

    /// Answers the client after all, or ends what it has got already.
    fn refused(&mut self, instruct: &Instruct, answer: &Answer, detail: &str, turn: &mut Turn<'_>) {
        self.phase = Phase::Finishing;
        self.resume(turn);
        if !instruct.sent {
            return self.answer(answer, turn);
        }
        let text = if self.debug { format!("\n\n{detail}\n") } else { String::new() };
        self.relay(None, text.as_bytes(), false, turn);
    }

    /// Takes the client back, whose instance is silent until it hears from its owner.
    fn resume(&mut self, turn: &mut Turn<'_>) {
        self.send(Packet { kind: Kind::KeepAlive, ext: Ext::MULTI, ..Packet::default() }, turn);
    }
}

fn owned(pairs: &[(&[u8], &[u8])]) -> Vec<(Vec<u8>, Vec<u8>)> {
    pairs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}
