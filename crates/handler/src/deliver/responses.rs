// SPDX-License-Identifier: AGPL-3.0-or-later
//! Answers to long-polls: published responses, and those of the instruct when nothing comes. Equal answers share packets.

use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use grip::cross_origin::CrossOrigin;
use grip::head::Reason;
use grip::jsonp::{CONTENT_TYPE, Jsonp};
use grip::{Headers, HttpResponse, ResponseBody, StatusCode};

use super::sender::{Sender, Start};
use crate::context::Context;
use crate::hold::queue::part_len;
use crate::hold::terms::ResponseTerms;
use crate::hold::{Hold, Kind};
use crate::subscribe::audience::Audience;
use crate::subscribe::channels::HoldKey;

/// A long-poll that is to get an answer.
pub struct Target {
    /// The hold.
    pub key: HoldKey,
    /// The body that it gets.
    pub body: Bytes,
    /// How much of the body goes with the head.
    len: usize,
    /// Targets with the same number get the same packet.
    number: u32,
}

impl Target {
    /// A long-poll, and the body that it gets.
    pub fn new(key: HoldKey, body: Bytes) -> Self {
        Target { key, body, len: 0, number: 0 }
    }
}

/// The body of [`failure`].
pub const FAILURE: Bytes = Bytes::from_static(b"Error while proxying to origin.\n");

/// The head of an answer to those whose own can not be made. Of theirs nothing is in it: it would be about another body.
pub fn failure() -> HttpResponse {
    let (code, content_type) = (StatusCode::BAD_GATEWAY, (b"Content-Type".into(), b"text/plain".into()));
    HttpResponse {
        code,
        reason: Reason::of(code),
        headers: Headers::new(vec![content_type]).unwrap_or_default(),
        hidden: Box::default(),
        alone: true,
        body: ResponseBody::Whole(FAILURE),
        content_filters: None,
    }
}

/// Where equal answers are the same: terms, body and how much of it goes with the head.
type AnswerKey = (*const ResponseTerms, (usize, usize), usize);

/// Answers long-polls, with the head of `published` or else of their own terms. Those that have got an answer before get
/// nothing.
pub fn respond(
    mut targets: Vec<Target>,
    published: Option<&HttpResponse>,
    sender: &mut Sender,
    audience: &mut Audience,
    cx: &mut Context<'_>,
) {
    let mut numbers: HashMap<AnswerKey, u32, RandomState> = HashMap::default();
    let mut scripts: HashMap<AnswerKey, Bytes, RandomState> = HashMap::default();
    targets.retain_mut(|target| {
        let Some((hold, terms)) = audience.holds.get(target.key).and_then(waiting) else { return false };
        if let Some(CrossOrigin::Jsonp(jsonp)) = &terms.cross_origin {
            let answer = (Rc::as_ptr(terms), (target.body.as_ptr() as usize, target.body.len()), 0);
            let script = scripts.entry(answer).or_insert_with(|| script(jsonp, terms, published, &target.body).into());
            target.body = script.clone();
        }
        target.len = first_len(hold, &target.body);
        let answer = (Rc::as_ptr(terms), (target.body.as_ptr() as usize, target.body.len()), target.len);
        let next = numbers.len() as u32;
        target.number = *numbers.entry(answer).or_insert(next);
        true
    });
    if numbers.len() > 1 {
        targets.sort_by_key(|target| target.number);
    }
    for equal in targets.chunk_by(|a, b| a.number == b.number) {
        let Target { key, body, len, .. } = &equal[0];
        let Some((_, terms)) = audience.holds.get(*key).and_then(waiting) else { continue };
        let terms = terms.clone();
        let (mut code, mut reason, mut headers) = head(&terms, published);
        let missing = match &terms.cross_origin {
            Some(CrossOrigin::Cors(cors)) => cors.missing(headers.clone().into_iter()),
            _ => Vec::new(),
        };
        headers.extend(missing.iter().map(|(name, value)| (*name, &**value)));
        if let Some(CrossOrigin::Jsonp(_)) = terms.cross_origin {
            (code, reason) = (StatusCode::OK, b"OK");
            // Those that are about the body are not about the script.
            headers.retain(|(name, _)| {
                ![&b"Content-Type"[..], b"Content-Encoding"].iter().any(|n| n.eq_ignore_ascii_case(name))
            });
            headers.push((b"Content-Type", CONTENT_TYPE));
        }
        let more = *len < body.len();
        let start = Start { code, reason, headers: &headers, body: &body[..*len], more };
        sender.begin(equal.iter().map(|target| target.key), start, audience, cx);
        for target in equal {
            match more {
                true => let_rest_wait(target, sender, audience),
                false => audience.remove(target.key, cx),
            }
        }
    }
}

/// Status and headers of an answer.
type Head<'a> = (StatusCode, &'a [u8], Vec<(&'a [u8], &'a [u8])>);

fn head<'a>(terms: &'a ResponseTerms, published: Option<&'a HttpResponse>) -> Head<'a> {
    let own = &terms.response.head;
    match published {
        None => (own.code, own.reason.as_bytes(), own.headers.iter().collect()),
        Some(published) => (published.code, published.reason.as_bytes(), published.headers_over(own.headers.iter())),
    }
}

/// An answer as a script.
fn script(jsonp: &Jsonp, terms: &ResponseTerms, published: Option<&HttpResponse>, body: &[u8]) -> Vec<u8> {
    let (code, reason, headers) = head(terms, published);
    jsonp.whole(code.get(), reason, headers.into_iter(), body)
}

/// The rest of a body follows as credits come, and the response ends with it.
fn let_rest_wait(target: &Target, sender: &mut Sender, audience: &mut Audience) {
    let hold = &mut audience.holds[target.key];
    hold.enqueue(target.body.slice(target.len..));
    hold.ending = true;
    if let Kind::Response(response) = &mut hold.kind {
        response.ends_at = None;
    }
    sender.look_at(target.key, &mut audience.holds);
}

/// A long-poll that has got no answer yet.
fn waiting(hold: &Hold) -> Option<(&Hold, &Rc<ResponseTerms>)> {
    match &hold.kind {
        Kind::Response(response) if !hold.ending && response.offered.is_none() => Some((hold, &response.terms)),
        _ => None,
    }
}

/// How much of a body goes with the head: all, so that the frontend can tell its length, or what the credits allow.
fn first_len(hold: &Hold, body: &[u8]) -> usize {
    let credits = hold.session.credits() as usize;
    if credits >= body.len() { body.len() } else { part_len(body, credits) }
}
