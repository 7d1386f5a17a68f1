// SPDX-License-Identifier: AGPL-3.0-or-later
//! Requests of SockJS clients: some are answered at once, others wait in a session (proxy, SockJS).

use std::hash::BuildHasher;

use zhttp::{Headers, Packet};

use super::{Exchange, Phase};
use crate::context::Context;
use crate::request::uri::Uri;
use crate::sockjs::call::{Call, Caller, Verb};
use crate::sockjs::page::{self, Page};
use crate::sockjs::place::Place;
use crate::sockjs::table::Event;

impl Exchange {
    /// Answers a request below the prefix, or gives it to its session once all of the body is there.
    pub(super) fn answer_sockjs(&mut self, place: Place<'_>, packet: &Packet<'_>, context: &mut Context<'_>) {
        let method = packet.method.unwrap_or_default();
        if matches!(place, Place::Session { .. }) && method != b"OPTIONS" {
            return self.call_session(context);
        }
        let entropy = std::hash::RandomState::new().hash_one(context.shared.serial()) as u32;
        let page = page::answer(method, place, packet.headers, entropy, &context.shared.config.sockjs_url);
        self.answer_page(&page, context);
    }

    /// Gives the request to its session.
    pub(super) fn call_session(&mut self, context: &mut Context<'_>) {
        if self.upload.is_too_large() {
            let page = page::text(400, "Bad Request", "Request too large.\n");
            return self.answer_for_site(page, context);
        }
        if !self.upload.is_complete() {
            self.phase = Phase::Calling;
            return;
        }
        let request = self.request.clone();
        let packet = Packet::decode(&request).unwrap_or_default();
        let Some(route) = self.route.clone() else { return };
        let Some(uri) = Uri::parse(packet.uri.unwrap_or_default()) else { return };
        let Some(Place::Session { name, transport }) = Place::of(&route, uri.path) else { return };
        let body = self.upload.kept().unwrap_or_default();
        match Verb::read(packet.method.unwrap_or_default(), transport, uri.query, body) {
            Err(page) => self.answer_for_site(page, context),
            Ok(verb) => {
                self.phase = Phase::Polling;
                let (caller, name, scheme) = (self.caller(), name.into(), self.scheme);
                let call = Call { caller, name, verb, route, request, scheme };
                context.shared.polls.push_back(Event::Call(Box::new(call)));
            }
        }
    }

    fn caller(&self) -> Caller {
        Caller { index: self.index, serial: self.serial }
    }

    /// Whether a session is to answer it.
    pub fn is_polling(&self, caller: &Caller) -> bool {
        matches!(self.phase, Phase::Polling) && self.caller() == *caller
    }

    /// The client does not wait any more.
    pub(super) fn poll_lost(&mut self, context: &mut Context<'_>) {
        let caller = self.caller();
        self.with_request(|this, packet| {
            let uri = Uri::parse(packet.uri.unwrap_or_default());
            let place = this.route.as_ref().zip(uri).and_then(|(route, uri)| Place::of(route, uri.path));
            if let Some(Place::Session { name, .. }) = place {
                context.shared.polls.push_back(Event::Lost(name.into(), caller));
            }
        });
    }

    /// Answers with the headers that let scripts of other sites read it.
    pub fn answer_for_site(&mut self, page: Page, context: &mut Context<'_>) {
        self.with_request(|this, packet| this.answer_page(&page.for_site(packet.headers), context));
    }

    fn answer_page(&mut self, page: &Page, context: &mut Context<'_>) {
        let headers: Vec<_> = page.headers.iter().map(|(name, value)| (&**name, &value[..])).collect();
        self.upload.unclaim();
        self.phase = Phase::Finishing;
        self.relay(Some((page.code, page.reason.as_bytes(), Headers::Pairs(&headers))), &page.body, false, context);
    }
}
