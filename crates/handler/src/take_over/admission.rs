// SPDX-License-Identifier: AGPL-3.0-or-later
//! What becomes of a request that the proxy wants to hand over, by the instruct in the backend's response.
//!
//! An instruct whose wishes can not be met is refused by name. Nothing is ignored that a client would notice.

use std::collections::HashSet;
use std::rc::Rc;

use bytes::Bytes;
use grip::filter::{self, FilterError};
use grip::instruct::NextLink;
use grip::{HoldMode, Instruct};
use rpc::passthrough::Passthrough;
use zhttp::session::HandedOver;

use super::accept::{Accept, Request};
use super::{asked, record};
use crate::cohort::page::HoldAfter;
use crate::cohort::{Likeness, Link, Site, Tracked};
use crate::context::Context;
use crate::fetch::{Ask, Purpose};
use crate::hold::opening::{Head, Opening};
use crate::hold::terms::{Recent, Terms};
use crate::notice::Notice;
use crate::order::rate::Bucket;
use crate::subscribe::classes::{Authority, Class, Standings, Wish, filters_of};
use crate::subscribe::presence::USER;

/// What the proxy is told, and what is to be held once it has been told.
// Holds are what comes here, and a box would be one more allocation for each.
#[allow(clippy::large_enum_variant)]
pub enum Decision {
    /// Requests are held.
    Hold(Prepared),
    /// Nothing is held: the client gets the instruct's response with this body.
    Pass(Bytes),
    /// The backend asks for what can not be.
    Refuse(Refusal),
}

/// Why an instruct is refused. The backend's developer reads the text.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A link leads nowhere.
    #[error("Grip-Link contains invalid link")]
    Link,
    /// A filter does not apply to the response.
    #[error("filter error: {0}")]
    Response(#[from] FilterError),
}

/// The full name of a channel, and the class of the hold in it.
pub type Subscription = (String, Option<Rc<Class>>);

/// Requests on their way into the table.
pub struct Prepared {
    /// The requests, with their sessions' state.
    pub requests: Vec<Request>,
    /// How they are held.
    pub terms: Terms,
    /// How a stream begins; none if its client has got that.
    pub opening: Option<Opening>,
    /// The channels, those of the route first.
    pub channels: Vec<Subscription>,
    /// How many are the route's.
    pub implicit: usize,
    /// Whose they are, if the backend has said so.
    pub user: Option<Rc<str>>,
    /// What the client has asked for.
    pub uri: String,
    /// Where its deliveries count.
    pub bucket: Bucket,
    /// How the backend is asked again, if it may have to be.
    pub course: Option<Course>,
    /// What the backend is told when the hold ends.
    pub farewell: Option<Ask>,
    /// What is kept of each request to have it proxied anew; of none for streams.
    pub asked: Vec<Box<[u8]>>,
    /// What their frontends are to keep, of each request or one for all; none if no successor can go on with them.
    pub records: Vec<Rc<[u8]>>,
}

impl Prepared {
    /// Leaves out requests of which `stays` does not hold.
    pub fn retain(&mut self, mut stays: impl FnMut(&HandedOver) -> bool) {
        let stay: Vec<bool> = self.requests.iter().map(|request| stays(&request.state)).collect();
        if stay.iter().all(|stays| *stays) {
            return;
        }
        let one_each = self.records.len() == stay.len();
        retain(&mut self.requests, &stay);
        retain(&mut self.asked, &stay);
        if one_each {
            retain(&mut self.records, &stay);
        }
    }
}

/// Entries without a word on them stay.
fn retain<T>(entries: &mut Vec<T>, stay: &[bool]) {
    let mut stay = stay.iter();
    entries.retain(|_| stay.next().is_none_or(|stays| *stays));
}

/// How a hold goes on.
pub struct Course {
    /// What it has in common with others.
    pub like: Likeness,
    /// It is no hold yet: its next page is fetched at once.
    pub at_once: bool,
}

/// See the module.
pub struct Admission {
    /// Channels that the backend may give one hold.
    max_channels: usize,
    /// Frontends are to keep what a successor needs.
    records: bool,
    /// Streams ask proxies in front not to buffer.
    unbuffer_streams: bool,
    recent: Recent,
    standings: Standings,
}

impl Admission {
    /// Lets a backend give a hold `max_channels` channels, beside those of its route. With `records`, a successor can go on with it.
    /// With `unbuffer_streams`, streams ask proxies in front not to buffer.
    pub fn new(max_channels: usize, records: bool, unbuffer_streams: bool) -> Self {
        Admission {
            max_channels,
            records,
            unbuffer_streams,
            recent: Recent::default(),
            standings: Standings::default(),
        }
    }

    /// Whether frontends keep what a successor needs.
    pub fn keeps_records(&self) -> bool {
        self.records
    }

    /// Decides about a request.
    pub fn decide(&mut self, accept: Accept<'_>, instruct: &Instruct<'_>, cx: &mut Context<'_>) -> Decision {
        match self.try_decide(accept, instruct, cx) {
            Ok(decision) => decision,
            Err(refusal) => Decision::Refuse(refusal),
        }
    }

    fn try_decide(
        &mut self,
        accept: Accept<'_>,
        instruct: &Instruct<'_>,
        cx: &mut Context<'_>,
    ) -> Result<Decision, Refusal> {
        let uri = String::from_utf8_lossy(accept.uri);
        let mut filters = Vec::new();
        for channel in &instruct.channels {
            filters.extend(filters_of(channel));
            let unknown = channel.filters.iter().find(|name| filter::Filter::parse(name).is_none());
            if let Some(filter) = unknown {
                cx.report(Notice::UnknownFilter { uri: &uri, filter });
            }
        }
        let streams = instruct.hold == Some(HoldMode::Stream);
        let body = match (instruct.hold, accept.response_sent) {
            // It has been sent, or is no more than the base for what will be published.
            (_, true) | (Some(HoldMode::Response), _) => Bytes::copy_from_slice(&instruct.response.body),
            _ => Bytes::from(filter::response(&filters, &instruct.meta, &instruct.response.body)?.into_owned()),
        };
        // One that is taken up again has its record already.
        // For what filters ask about, a successor would have to ask once more for some: such holds end with this handler.
        let is_recorded = self.records && !accept.is_taken_up && !filters.iter().any(|filter| filter.asks());
        let records = if is_recorded { record::records(&accept, instruct) } else { Vec::new() };
        let at_once = instruct.hold.is_none();
        let streams = streams || at_once;
        if at_once && instruct.next.is_none() {
            return Ok(Decision::Pass(body));
        }
        let mode = instruct.hold.unwrap_or(HoldMode::Stream);
        if streams && (accept.method == b"HEAD" || has_no_body(instruct.response.code.get())) {
            // Nothing can follow the head, so there is nothing to wait for. A long-poll may get another head.
            return Ok(Decision::Pass(body));
        }
        if streams
            && instruct.next.is_none()
            && let Some(channel) = instruct.channels.iter().find(|channel| channel.prev_id.is_some())
        {
            return Ok(Decision::Pass(without_link(body, &channel.name, &accept)));
        }
        let plan = Plan {
            prefix: accept.prefix,
            implicit: &accept.channels,
            uri: &uri,
            root: &uri,
            route: accept.route_id,
            trusted: accept.trusted,
        };
        let channels = self.channels(&plan, instruct, cx);
        let course = course(&accept, instruct, &uri, &channels, at_once)?;
        let farewell = farewell(&accept, instruct, &uri)?;
        let asked = match (mode, &accept.members) {
            (HoldMode::Response, Some(members)) => {
                let requests = members.requests.items().into_iter().flatten().flatten();
                requests.map(|request| asked::keep(request, members)).collect()
            }
            _ => Vec::new(),
        };
        let cross_origin = accept.cross_origin(mode);
        let (terms, opening) = match mode {
            HoldMode::Response => (self.recent.response(instruct, body, cross_origin), None),
            HoldMode::Stream if accept.response_sent => (self.recent.stream(instruct), None),
            HoldMode::Stream => {
                let mut head = Head::of(&instruct.response).for_others(cross_origin.as_ref());
                if self.unbuffer_streams {
                    head = head.unbuffered();
                }
                (self.recent.stream(instruct), Some(Opening { head, body }))
            }
        };
        Ok(Decision::Hold(Prepared {
            terms,
            opening,
            implicit: channels.iter().filter(|(name, _)| accept.channels.contains(&name.as_str())).count(),
            channels,
            user: user(instruct),
            uri: uri.into_owned(),
            bucket: accept.route.map(Rc::from),
            requests: accept.requests,
            course,
            farewell,
            asked,
            records,
        }))
    }

    /// How streams are held after a page, by the instruct in its head: like new ones, but for what only a beginning has.
    pub fn after_page(
        &mut self,
        site: &Site,
        instruct: &Instruct<'_>,
        uri: &str,
        cx: &mut Context<'_>,
    ) -> Result<HoldAfter, Refusal> {
        let implicit: Vec<&str> = site.implicit.iter().map(String::as_str).collect();
        let (root, route) = (&*site.root, &*site.route);
        let plan = Plan { prefix: &site.prefix, implicit: &implicit, uri, root, route, trusted: site.trusted };
        let channels = self.channels(&plan, instruct, cx);
        let position = position(&site.prefix, instruct, &channels);
        let (terms, user) = (self.recent.stream_terms(instruct), user(instruct));
        Ok(HoldAfter { terms, channels, user, position, record: None })
    }

    /// The channels of a hold: those of the route, and those that the backend names, each once.
    fn channels(&mut self, plan: &Plan<'_>, instruct: &Instruct<'_>, cx: &mut Context<'_>) -> Vec<Subscription> {
        let filtered = instruct.channels.iter().any(|channel| !channel.filters.is_empty());
        let mut names = Names::new(plan.implicit.len() + instruct.channels.len());
        let mut channels = Vec::with_capacity(plan.implicit.len() + instruct.channels.len().min(self.max_channels));
        let mut wishes: Vec<Wish> = Vec::new();
        for &name in plan.implicit {
            if !name.is_empty() && names.is_new(name, &channels) {
                channels.push((name.to_string(), None));
                wishes.extend(filtered.then(|| Wish { name: name.into(), prev_id: None, filters: Box::default() }));
            }
        }
        let implicit = channels.len();
        for channel in &instruct.channels {
            let name = [plan.prefix, &channel.name].concat();
            // An empty name would receive everything that is published over SUB; a hold has one place in a channel.
            if name.is_empty() || !names.is_new(&name, &channels) {
                continue;
            }
            if channels.len() - implicit == self.max_channels {
                cx.report(Notice::TooManyChannels { uri: plan.uri, limit: self.max_channels });
                break;
            }
            channels.push((name, None));
            if filtered {
                let filters = filters_of(channel);
                wishes.push(Wish { name: channel.name.clone(), prev_id: channel.prev_id.clone(), filters });
            }
        }
        if filtered {
            let classes = self.standings.classes(&instruct.meta, &wishes, || Some(authority(plan, instruct)));
            channels.iter_mut().zip(classes).for_each(|((_, own), class)| *own = class);
        }
        channels
    }
}

/// Whose a hold is, as the backend says.
fn user(instruct: &Instruct<'_>) -> Option<Rc<str>> {
    instruct.meta.get(USER).map(Rc::from)
}

/// What the channels of a hold depend on, beside its instruct.
struct Plan<'a> {
    prefix: &'a str,
    implicit: &'a [&'a str],
    /// What the client has asked for, or which page has been fetched for it.
    uri: &'a str,
    /// Of what the client has asked for at least the authority.
    root: &'a str,
    /// The route's id.
    route: &'a str,
    /// See [`Site`].
    trusted: bool,
}

/// Whom filters ask.
fn authority(plan: &Plan<'_>, instruct: &Instruct<'_>) -> Authority {
    let uri = instruct.meta.get("url").and_then(|url| grip::link::resolve(plan.uri, url));
    let prefer_internal = uri.as_ref().is_some_and(|uri| grip::link::same_site(plan.root, uri));
    let passthrough =
        Passthrough { route: plan.route, prefer_internal, trusted: plan.trusted, auto_share: false }.encode();
    Authority { uri, passthrough }
}

/// How a hold goes on, if it notices what it misses or has a next link.
fn course(
    accept: &Accept<'_>,
    instruct: &Instruct<'_>,
    uri: &str,
    channels: &[Subscription],
    at_once: bool,
) -> Result<Option<Course>, Refusal> {
    let mode = instruct.hold.unwrap_or(HoldMode::Stream);
    if instruct.next.is_none() && instruct.channels.iter().all(|channel| channel.prev_id.is_none()) {
        return Ok(None);
    }
    let position = if at_once { Vec::new() } else { position(accept.prefix, instruct, channels) };
    let (link, site) = match (mode, &instruct.next) {
        (HoldMode::Stream, Some(next)) => (Some(link(uri, next)?), Rc::new(site(accept, uri))),
        // A long-poll is given back to the proxy with all that it came with.
        _ => (None, Rc::default()),
    };
    Ok(Some(Course { like: Likeness { mode, position, link, site }, at_once }))
}

/// A next link in a response for `uri`.
///
/// # Errors
/// It leads nowhere.
pub fn link(uri: &str, next: &NextLink) -> Result<Link, Refusal> {
    let uri = grip::link::resolve(uri, &next.uri).ok_or(Refusal::Link)?;
    Ok(Link { uri, timeout: next.timeout })
}

fn site(accept: &Accept<'_>, uri: &str) -> Site {
    let start = uri.find("://").map_or(0, |at| at + 3);
    let end = uri[start..].find(['/', '?', '#']).map_or(uri.len(), |at| start + at);
    Site {
        route: accept.route_id.to_string(),
        root: uri[..end].to_string(),
        prefix: accept.prefix.to_string(),
        implicit: accept.channels.iter().map(|name| (*name).to_string()).collect(),
        trusted: accept.trusted,
    }
}

/// Where a hold is in its channels.
fn position(prefix: &str, instruct: &Instruct<'_>, channels: &[Subscription]) -> Vec<Tracked> {
    let find = |full: &str| {
        let own = full.strip_prefix(prefix)?;
        instruct.channels.iter().find(|channel| channel.name == own)
    };
    let tracked = |(full, _): &Subscription| {
        let prev_id = find(full).and_then(|channel| channel.prev_id.clone());
        Tracked { channel: full.clone(), prefix: if prev_id.is_some() { prefix.len() } else { 0 }, prev_id }
    };
    channels.iter().map(tracked).collect()
}

/// What the backend is told when the hold ends.
fn farewell(accept: &Accept<'_>, instruct: &Instruct<'_>, uri: &str) -> Result<Option<Ask>, Refusal> {
    let Some(gone) = &instruct.gone else { return Ok(None) };
    let gone = grip::link::resolve(uri, gone).ok_or(Refusal::Link)?;
    let passthrough = Passthrough {
        route: accept.route_id,
        prefer_internal: grip::link::same_site(uri, &gone),
        trusted: accept.trusted,
        auto_share: false,
    };
    let passthrough = passthrough.encode();
    Ok(Some(Ask::new(Purpose::Gone, gone, passthrough)))
}

/// Channels up to which comparing names costs less than hashing them.
const FEW: usize = 32;

/// Tells names of channels that come for the first time.
struct Names {
    /// Those of many; few are looked for in the list of channels.
    many: Option<HashSet<String>>,
}

impl Names {
    fn new(count: usize) -> Self {
        Names { many: (count > FEW).then(HashSet::new) }
    }

    fn is_new(&mut self, name: &str, channels: &[Subscription]) -> bool {
        match &mut self.many {
            Some(names) => names.insert(name.to_string()),
            None => !channels.iter().any(|(known, _)| known == name),
        }
    }
}

/// Responses that end with their head.
fn has_no_body(code: u16) -> bool {
    code == 204 || code == 304
}

/// A stream that is to notice what it misses, but could not get it from anywhere, ends at once.
fn without_link(body: Bytes, channel: &str, accept: &Accept<'_>) -> Bytes {
    if !accept.requests.iter().any(|request| request.debug) {
        return body;
    }
    [&body[..], format!("\n\nchannel '{channel}' specifies prev-id, but no next link found\n").as_bytes()]
        .concat()
        .into()
}
