//! What becomes of a request that the proxy wants to hand over, by the instruct in the backend's response.
//!
//! An instruct whose wishes can not be met is refused by name. Nothing is ignored that a client would notice.

use std::collections::HashSet;
use std::rc::Rc;

use bytes::Bytes;
use grip::filter::{self, FilterError};
use grip::{HoldMode, Instruct};

use super::accept::{Accept, Request};
use crate::context::Context;
use crate::hold::opening::{Head, Opening};
use crate::hold::terms::{Recent, Terms};
use crate::notice::Notice;
use crate::order::rate::Bucket;
use crate::subscribe::classes::{Class, Missing, Standings, Wish, filters_of};

/// What the proxy is told, and what is to be held once it has been told.
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
    /// A stream would have to go on with another response.
    #[error("Grip-Link with rel=next is not supported")]
    NextLink,
    /// A filter is not there.
    #[error(transparent)]
    Filter(#[from] Missing),
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
    /// The channels.
    pub channels: Vec<Subscription>,
    /// What the client has asked for.
    pub uri: String,
    /// Where its deliveries count.
    pub bucket: Bucket,
}

/// See the module.
pub struct Admission {
    /// Channels that the backend may give one hold.
    max_channels: usize,
    recent: Recent,
    standings: Standings,
}

impl Admission {
    /// Lets a backend give a hold `max_channels` channels, beside those of its route.
    pub fn new(max_channels: usize) -> Self {
        Admission { max_channels, recent: Recent::default(), standings: Standings::default() }
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
        if instruct.next.is_some() {
            return Err(Refusal::NextLink);
        }
        let uri = String::from_utf8_lossy(accept.uri);
        let mut filters = Vec::new();
        for channel in &instruct.channels {
            filters.extend(filters_of(channel)?);
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
        let Some(mode) = instruct.hold else { return Ok(Decision::Pass(body)) };
        if streams && (accept.method == b"HEAD" || has_no_body(instruct.response.code.get())) {
            // Nothing can follow the head, so there is nothing to wait for. A long-poll may get another head.
            return Ok(Decision::Pass(body));
        }
        if let Some(channel) = instruct.channels.iter().find(|c| streams && c.prev_id.is_some()) {
            return Ok(Decision::Pass(without_link(body, &channel.name, &accept)));
        }
        let channels = self.channels(&accept, instruct, &uri, cx)?;
        let (terms, opening) = match mode {
            HoldMode::Response => (self.recent.response(instruct, body), None),
            HoldMode::Stream if accept.response_sent => (self.recent.stream(instruct), None),
            HoldMode::Stream => {
                (self.recent.stream(instruct), Some(Opening { head: Head::of(&instruct.response), body }))
            }
        };
        Ok(Decision::Hold(Prepared {
            terms,
            opening,
            channels,
            uri: uri.into_owned(),
            bucket: accept.route.map(Rc::from),
            requests: accept.requests,
        }))
    }

    /// The channels of a hold: those of the route, and those that the backend names, each once.
    fn channels(
        &mut self,
        accept: &Accept<'_>,
        instruct: &Instruct<'_>,
        uri: &str,
        cx: &mut Context<'_>,
    ) -> Result<Vec<Subscription>, Missing> {
        let filtered = instruct.channels.iter().any(|channel| !channel.filters.is_empty());
        let mut names = Names::new(accept.channels.len() + instruct.channels.len());
        let mut channels = Vec::with_capacity(accept.channels.len() + instruct.channels.len().min(self.max_channels));
        let mut wishes: Vec<Wish> = Vec::new();
        for &name in &accept.channels {
            if !name.is_empty() && names.is_new(name, &channels) {
                channels.push((name.to_string(), None));
                wishes.extend(filtered.then(|| Wish { name: name.into(), prev_id: None, filters: Box::default() }));
            }
        }
        let implicit = channels.len();
        for channel in &instruct.channels {
            let name = [accept.prefix, &channel.name].concat();
            // An empty name would receive everything that is published over SUB; a hold has one place in a channel.
            if name.is_empty() || !names.is_new(&name, &channels) {
                continue;
            }
            if channels.len() - implicit == self.max_channels {
                cx.report(Notice::TooManyChannels { uri, limit: self.max_channels });
                break;
            }
            channels.push((name, None));
            if filtered {
                let filters = filters_of(channel)?;
                wishes.push(Wish { name: channel.name.clone(), prev_id: channel.prev_id.clone(), filters });
            }
        }
        if filtered {
            let classes = self.standings.classes(&instruct.meta, &wishes);
            channels.iter_mut().zip(classes).for_each(|((_, own), class)| *own = class);
        }
        Ok(channels)
    }
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
