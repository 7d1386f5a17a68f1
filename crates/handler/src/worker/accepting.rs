// SPDX-License-Identifier: AGPL-3.0-or-later
//! Requests of the proxy: what to know before a request is passed on (`inspect`), and requests to hold (`accept`).

use std::time::Instant;

use grip::Instruct;
use rpc::accept::Accepted;
use rpc::call::{condition, failure, success};
use rpc::inspect::{Inspect, Inspected};
use rpc::stats::ConnMaxNotice;
use rpc::{Call, RequestData};
use wire::request_id;
use zhttp::Id;

use super::{ACCEPT, MESSAGES_A_TURN, Worker};
use crate::context::Context;
use crate::take_over::accept::{self, Accept};
use crate::take_over::admission::{Decision, Prepared};

/// How long the proxy need not ask `inspect` again, in ms, unless clients share requests: there are no sessions to tell of.
const INSPECT_AGAIN: u64 = 10_000;

/// Requests to hold that are kept while those of a predecessor are taken up. Others wait on their links.
const MAX_EARLY: usize = 1024;

impl Worker {
    pub(super) fn take_inspects(&mut self) {
        for _ in 0..MESSAGES_A_TURN {
            let Some((envelope, message)) = self.inspect.recv() else { return };
            let Ok(request) = Call::decode(&message) else { continue };
            let answer = match request.args::<Inspect<'_>>() {
                _ if request.method != b"inspect" => failure(request.id, condition::METHOD_NOT_FOUND, None),
                // Nothing in it is nested.
                Ok(asked) => success(request.id, &inspect(&asked, self.share_all)).unwrap_or_default(),
                Err(_) => failure(request.id, condition::BAD_REQUEST, None),
            };
            // A proxy that is gone needs no answer.
            let _ = self.inspect.reply(&envelope, &answer);
        }
    }

    pub(super) fn take_accepts(&mut self, now: Instant) {
        if self.recovering.is_under_way() {
            return self.keep_accepts();
        }
        for _ in 0..MESSAGES_A_TURN + self.early.len() {
            let Some((envelope, message)) = self.early.pop_front().or_else(|| self.accept.recv()) else { return };
            let Ok(request) = Call::decode(&message) else {
                self.outputs.warnings.warn("accept", now, "a request of the proxy is skipped: it is malformed");
                continue;
            };
            let (answer, prepared) = match request.method {
                b"accept" => self.decide(&request, now),
                // A notice that wants no answer.
                b"conn-max" => {
                    match request.args::<ConnMaxNotice>() {
                        Ok(notice) => self.take_conn_max(&notice.conn_max, now),
                        Err(error) => {
                            let text = format_args!("numbers of connections are skipped: {error}");
                            self.outputs.warnings.warn("conn-max", now, text);
                        }
                    }
                    continue;
                }
                _ => (failure(request.id, condition::METHOD_NOT_FOUND, None), None),
            };
            // The proxy must hear that the requests are ours before any frontend hears of us.
            let told = self.accept.reply(&envelope, &answer);
            if let (Some(prepared), Ok(_)) = (prepared, told) {
                self.engine.take_over(prepared, &mut Context::new(now, &mut self.outputs));
            }
        }
    }

    /// Takes requests off their link, for later: the end of a link is noticed behind all that came by it, and only then we connect to
    /// the next proxy.
    fn keep_accepts(&mut self) {
        while self.early.len() < MAX_EARLY {
            let Some(request) = self.accept.recv() else { return };
            self.early.push_back(request);
        }
        self.reactor.pause(ACCEPT, true);
    }

    fn decide(&mut self, request: &Call<'_>, now: Instant) -> (Vec<u8>, Option<Prepared>) {
        let accept = match Accept::read(request.args, &mut self.outputs.peers) {
            Ok(accept) => accept,
            Err(error) => {
                let text = format_args!("a request of the proxy is refused: {error}");
                self.outputs.warnings.warn("accept", now, text);
                return (failure(request.id, condition::BAD_REQUEST, None), None);
            }
        };
        self.take_conn_max(&accept.conn_max, now);
        let asked = if tracing::enabled!(tracing::Level::DEBUG) {
            let sessions: Vec<Id> = accept.requests.iter().map(|request| request.state.id).collect();
            accept.members.and_then(|it| it.request().ok()).map(|asked| (sessions, asked))
        } else {
            None
        };
        let response_sent = accept.response_sent;
        // The instruct borrows from the response, which outlives the decision.
        let response = accept.response.clone();
        // Headers and bodies are not nested either.
        let answer = |accepted: &Accepted<'_>| success(request.id, accepted).unwrap_or_default();
        let mut instruct = match Instruct::read(response.backend()) {
            Ok(instruct) => instruct,
            Err(error) => return (failure(request.id, condition::BAD_FORMAT, Some(&error.to_string())), None),
        };
        let decision = self.engine.decide(accept, &instruct, &mut Context::new(now, &mut self.outputs));
        if let Some((sessions, asked)) = asked {
            log(&sessions, &asked, &decision);
        }
        match decision {
            Decision::Hold(prepared) => (answer(&accept::accepted()), Some(prepared)),
            Decision::Pass(_) if response_sent => (answer(&accept::nothing()), None),
            Decision::Pass(body) => {
                instruct.response.body = body.to_vec().into();
                (answer(&accept::respond(&instruct.response)), None)
            }
            Decision::Refuse(refusal) => (failure(request.id, condition::BAD_FORMAT, Some(&refusal.to_string())), None),
        }
    }
}

/// Says in the log what becomes of requests; several are there if their clients share one.
fn log(sessions: &[Id], asked: &RequestData<'_>, decision: &Decision) {
    let becomes = match decision {
        Decision::Hold(_) => "held",
        Decision::Pass(_) => "answered",
        Decision::Refuse(_) => "refused",
    };
    let (method, shown) = (asked.method.escape_ascii(), request_id::shown(&asked.uri));
    let id = request_id::of(asked.headers.0.iter().copied()).map(tracing::field::display);
    for session in sessions {
        tracing::debug!(%session, id, "request is {becomes}: {method} {shown}");
    }
}

/// What there is to know of a request before it is proxied. Whether two of one key are the same in all that matters is for the
/// proxy to see.
fn inspect<'a>(asked: &Inspect<'_>, share_all: bool) -> Inspected<'a> {
    let key = || [&*asked.method, b"|", &*asked.uri].concat();
    Inspected {
        sharing_key: share_all.then(|| key().into()),
        // Zero: the next time as well. Who says nothing is taken for Pushpin's handler.
        inspect_again: Some(if share_all { 0 } else { INSPECT_AGAIN }),
        ..Inspected::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_share_by_method_and_address_if_they_are_to() {
        let asked = Inspect { method: b"GET"[..].into(), uri: b"http://h/a?b"[..].into(), ..Inspect::default() };
        let shared = inspect(&asked, true);
        assert_eq!((shared.sharing_key.as_deref(), shared.inspect_again), (Some(&b"GET|http://h/a?b"[..]), Some(0)));
        let alone = inspect(&asked, false);
        assert_eq!((alone.sharing_key, alone.inspect_again), (None, Some(INSPECT_AGAIN)));
    }
}
