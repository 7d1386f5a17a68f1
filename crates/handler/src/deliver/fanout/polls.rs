// SPDX-License-Identifier: AGPL-3.0-or-later
//! Published responses for long-polls (publishing, http-response).

use std::collections::HashMap;
use std::iter;
use std::rc::Rc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use grip::{Action, HoldMode, HttpResponse, ResponseBody};

use super::Fanout;
use super::limits::Delivery;
use super::message::Message;
use crate::context::Context;
use crate::deliver::responses::{self, Target};
use crate::hold::terms::ResponseTerms;
use crate::hold::{Hold, Kind};
use crate::notice::Notice;
use crate::subscribe::audience::Audience;
use crate::subscribe::channels::{ChannelKey, Mode};

impl Fanout {
    pub(in crate::deliver) fn deliver_responses(
        &mut self,
        channel: ChannelKey,
        message: &Message<'_>,
        action: Action<HttpResponse>,
        audience: &mut Audience,
        cx: &mut Context<'_>,
    ) -> usize {
        let receivers = audience.channels.count(channel, HoldMode::Response);
        let response = match action {
            Action::Send(response) if receivers > 0 => response,
            Action::Hint => {
                self.hint(channel, HoldMode::Response, audience);
                return receivers;
            }
            _ => return receivers,
        };
        let mut targets = Vec::with_capacity(receivers);
        let mut refused = Vec::new();
        let mut patched = Patched::default();
        for at in 0..audience.channels.channel(channel).groups.len() {
            let group = audience.channels.group_at(audience.channels.channel(channel).groups[at]);
            if group.polls.is_empty() || !message.is_for(group, &audience.cohorts) {
                continue;
            }
            // What the class gets, by the body that it is made of.
            let mut evaluated: HashMap<*const u8, Option<Bytes>, RandomState> = HashMap::default();
            for &key in group.polls.iter().filter(|&&key| message.is_owed_to(&audience.holds[key])) {
                let Some(body) = patched.body(&audience.holds[key], &response.body, message.channel, cx) else {
                    refused.push(Target::new(key, responses::FAILURE));
                    continue;
                };
                let class = group.kin.class.as_deref();
                let body = match evaluated.get(&body.as_ptr()) {
                    Some(known) => known.clone(),
                    None if class.is_none() && response.content_filters.is_none() => Some(body),
                    None => {
                        let known = self.evaluate(class, message, &response.content_filters, &body, cx);
                        evaluated.insert(body.as_ptr(), known.clone());
                        known
                    }
                };
                targets.extend(body.map(|body| Target::new(key, body)));
            }
        }
        self.given.http_response += targets.len();
        let size = match &response.body {
            ResponseBody::Whole(body) => body.len(),
            ResponseBody::Patch(_) => 0,
        };
        let weight = self.weight(message.size, size);
        let refused = (!refused.is_empty()).then(|| (refused, responses::failure()));
        let answers = iter::once((targets, response)).chain(refused);
        if self.admits(message.count(channel, Mode::Response, audience).saturating_mul(weight), cx.now) {
            message.name_in(&mut self.sender.items);
            self.runs.begin();
            for (targets, response) in answers {
                responses::respond(targets, Some(&response), &mut self.sender, audience, cx);
            }
            self.sender.items.clear();
        } else {
            for (targets, response) in answers {
                let response = Rc::new(response);
                for Target { key, body, .. } in targets {
                    self.limit_hold(key, weight, Delivery::Response(response.clone(), body), audience, cx);
                }
            }
        }
        receivers
    }
}

/// The bodies that long-polls get: what was published, or what a published change makes of their own, each once.
#[derive(Default)]
pub(in crate::deliver) struct Patched(HashMap<*const ResponseTerms, Option<Bytes>, RandomState>);

impl Patched {
    /// Whether a body has been made for these terms.
    pub(in crate::deliver) fn has(&self, terms: &Rc<ResponseTerms>) -> bool {
        self.0.contains_key(&Rc::as_ptr(terms))
    }

    /// What a hold gets; `None` if the change does not fit its own body.
    pub(in crate::deliver) fn body(
        &mut self,
        hold: &Hold,
        published: &ResponseBody,
        channel: &str,
        cx: &mut Context<'_>,
    ) -> Option<Bytes> {
        let (changes, terms) = match (published, &hold.kind) {
            (ResponseBody::Patch(changes), Kind::Response(response)) => (changes, &response.terms),
            (ResponseBody::Patch(_), Kind::Stream(_) | Kind::Push(_)) => return Some(Bytes::new()),
            (ResponseBody::Whole(body), _) => return Some(body.clone()),
        };
        let change = || match grip::patch::apply(&terms.response.body, changes) {
            Ok(body) => Some(body.into()),
            Err(error) => {
                cx.report(Notice::PatchFailed { channel, error: &error });
                None
            }
        };
        self.0.entry(Rc::as_ptr(terms)).or_insert_with(change).clone()
    }
}
