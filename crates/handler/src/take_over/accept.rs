// SPDX-License-Identifier: AGPL-3.0-or-later
//! The `accept` RPC: the proxy gives requests over, with the backend's response (internal RPC, method accept).
//!
//! `rpc` says what is in a call; here is what of it is looked at.

use grip::HoldMode;
use grip::cors::Cors;
use grip::cross_origin::CrossOrigin;
use grip::instruct::BackendResponse;
use grip::jsonp::Jsonp;
use rpc::accept::Accepted;
use rpc::stats::ConnMax;
use rpc::{Headers, Octets, ResponseData, StateError};
use tnetstring::Item;
use zhttp::Peers;
use zhttp::session::HandedOver;

use super::asked::Members;

/// Request bodies and the like are not looked at, so this is all that is needed.
pub struct Accept<'a> {
    /// The requests, with their sessions' state.
    pub requests: Vec<Request>,
    /// The URI that the client asked for.
    pub uri: &'a [u8],
    /// The client's method.
    pub method: &'a [u8],
    /// The backend's response.
    pub response: Response<'a>,
    /// Put before each channel name that the backend gives.
    pub prefix: &'a str,
    /// Channels of the route, full names.
    pub channels: Vec<&'a str>,
    /// The client has got the response's head and body already.
    pub response_sent: bool,
    /// The route, if its deliveries are counted and limited apart.
    pub route: Option<&'a str>,
    /// The route's id, whether it is counted apart or not.
    pub route_id: &'a str,
    /// The route's target may be on a private network.
    pub trusted: bool,
    /// What it takes to have the requests proxied anew.
    pub members: Option<Members<'a>>,
    /// How many connections the proxy has before and after it gives these away.
    pub conn_max: Vec<ConnMax>,
    /// The requests are those of a predecessor.
    pub is_taken_up: bool,
}

/// A request to be taken over.
pub struct Request {
    /// Its session.
    pub state: HandedOver,
    /// The response has begun.
    pub responding: bool,
    /// The client may see what goes wrong.
    pub debug: bool,
    /// What makes its response fit for scripts of other sites.
    pub cross_origin: Option<CrossOrigin>,
}

/// The backend's response, undecoded.
#[derive(Clone, Default)]
pub struct Response<'a> {
    code: u16,
    reason: &'a [u8],
    headers: Vec<(&'a [u8], &'a [u8])>,
    body: &'a [u8],
}

impl<'a> From<BackendResponse<'a>> for Response<'a> {
    fn from(response: BackendResponse<'a>) -> Self {
        let BackendResponse { code, reason, headers, body } = response;
        Response { code, reason, headers: headers.to_vec(), body }
    }
}

impl<'a> Response<'a> {
    /// As the instruct parser wants it.
    pub fn backend(&'a self) -> BackendResponse<'a> {
        BackendResponse { code: self.code, reason: self.reason, headers: &self.headers, body: self.body }
    }
}

/// The arguments are not as they must be; answered with `bad-request`.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Something required is not there or of a wrong type.
    #[error("malformed arguments: {0}")]
    Arguments(#[from] tnetstring::Error),
    /// A session that can not be one.
    #[error("{0}")]
    Session(#[from] StateError),
    /// The backend was not asked, which this handler has never wanted.
    #[error("there is no response of a backend")]
    NoResponse,
}

impl<'a> Accept<'a> {
    /// Reads the arguments.
    ///
    /// # Errors
    /// Something required is missing or of a wrong type.
    pub fn read(args: Item<'a>, peers: &mut Peers) -> Result<Self, AcceptError> {
        let members = Members::find(args);
        let call: rpc::accept::Offer<'a> = tnetstring::from_item(args)?;
        let requests = call.requests.iter().map(|request| {
            let (state, responding) = (request.session(peers)?, request.response_code.is_some());
            let cross_origin = cross_origin(request, members.as_ref());
            Ok(Request { state, responding, debug: request.debug, cross_origin })
        });
        let requests = requests.collect::<Result<_, StateError>>()?;
        let response = call.response.ok_or(AcceptError::NoResponse)?;
        Ok(Accept {
            requests,
            uri: call.orig_request_data.uri.in_message(),
            method: call.orig_request_data.method.in_message(),
            response: Response {
                code: response.code,
                reason: response.reason.in_message(),
                headers: response.headers.0,
                body: response.body.in_message(),
            },
            prefix: call.channel_prefix.unwrap_or_default(),
            channels: call.channels,
            response_sent: call.response_sent,
            route: call.route.filter(|_| call.separate_stats),
            route_id: call.route.unwrap_or_default(),
            trusted: call.trusted,
            members,
            conn_max: call.conn_max,
            is_taken_up: false,
        })
    }

    /// What makes the response fit for scripts of other sites: requests that share an answer have asked for the same. A
    /// stream is no script, whatever was asked for, but scripts may read it.
    pub fn cross_origin(&self, mode: HoldMode) -> Option<CrossOrigin> {
        let own = self.requests.first()?.cross_origin.clone()?;
        match (mode, own) {
            (HoldMode::Stream, CrossOrigin::Jsonp(_)) => cors(self.members.as_ref()?).map(CrossOrigin::Cors),
            (_, own) => Some(own),
        }
    }
}

/// The headers of the request are looked at only if they are needed.
fn cross_origin(request: &rpc::RequestState<'_>, members: Option<&Members<'_>>) -> Option<CrossOrigin> {
    if let Some(callback) = &request.jsonp_callback {
        let extended = request.jsonp_extended_response;
        return Some(CrossOrigin::Jsonp(Jsonp { callback: callback.to_vec().into(), extended }));
    }
    cors(members.filter(|_| request.auto_cross_origin)?).map(CrossOrigin::Cors)
}

fn cors(members: &Members<'_>) -> Option<Cors> {
    let data: rpc::RequestData<'_> = tnetstring::from_item(members.data).ok()?;
    Some(Cors::of(data.headers.0.into_iter()))
}

/// The requests are ours.
pub fn accepted() -> Accepted<'static> {
    Accepted { accepted: true, response: None }
}

/// Nothing is held; the proxy is to send this.
pub fn respond<'a>(response: &'a grip::instruct::Response<'_>) -> Accepted<'a> {
    let response = ResponseData {
        code: response.code.get(),
        reason: Octets::from(response.reason.as_bytes()),
        headers: Headers(response.headers.iter().collect()),
        body: Octets::from(&*response.body),
    };
    Accepted { accepted: false, response: Some(response) }
}

/// Nothing is held, and the response has been sent.
pub fn nothing() -> Accepted<'static> {
    Accepted::default()
}
