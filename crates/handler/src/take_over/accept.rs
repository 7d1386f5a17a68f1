//! The `accept` RPC: the proxy gives requests over, with the backend's response (internal RPC, method accept).
//!
//! Arguments are read straight from the tnetstring; the answers are built here too.

use grip::instruct::BackendResponse;
use tnetstring::{Item, Writer};
use zhttp::session::HandedOver;
use zhttp::{Id, Peers};

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
}

/// A request to be taken over.
pub struct Request {
    /// Its session.
    pub state: HandedOver,
    /// The response has begun.
    pub responding: bool,
    /// The client may see what goes wrong.
    pub debug: bool,
}

/// The backend's response, undecoded.
#[derive(Clone, Default)]
pub struct Response<'a> {
    code: u16,
    reason: &'a [u8],
    headers: Vec<(&'a [u8], &'a [u8])>,
    body: &'a [u8],
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
    /// No tnetstring.
    #[error("malformed arguments: {0}")]
    Encoding(#[from] tnetstring::Error),
    /// Something required is not there.
    #[error("{0} is missing or has a wrong type")]
    Missing(&'static str),
}

impl<'a> Accept<'a> {
    /// Reads the arguments.
    ///
    /// # Errors
    /// Something required is missing or of a wrong type.
    pub fn read(args: Item<'a>, peers: &mut Peers) -> Result<Self, AcceptError> {
        let mut requests = Vec::new();
        let (mut uri, mut method, mut response) = (None, &b""[..], None);
        let (mut prefix, mut channels, mut response_sent) = ("", Vec::new(), false);
        let (mut route, mut separate) = (None, false);
        for entry in args.entries()? {
            match entry? {
                (b"requests", list) => {
                    for item in list.items()? {
                        requests.push(request(item?, peers)?);
                    }
                }
                (b"orig-request-data", map) => {
                    uri = Some(field(map, b"uri")?.as_bytes()?);
                    method = field(map, b"method")?.as_bytes()?;
                }
                (b"response", map) => response = Some(read_response(map)?),
                (b"channel-prefix", value) => prefix = value.as_str()?,
                (b"channels", list) => {
                    for item in list.items()? {
                        channels.push(item?.as_str()?);
                    }
                }
                (b"response-sent", value) => response_sent = value.as_bool()?,
                (b"route", value) => route = Some(value.as_str()?),
                (b"separate-stats", value) => separate = value.as_bool()?,
                _ => {}
            }
        }
        Ok(Accept {
            requests,
            uri: uri.ok_or(AcceptError::Missing("orig-request-data"))?,
            method,
            response: response.ok_or(AcceptError::Missing("response"))?,
            prefix,
            channels,
            response_sent,
            route: route.filter(|_| separate),
        })
    }
}

fn field<'a>(map: Item<'a>, name: &'static [u8]) -> Result<Item<'a>, AcceptError> {
    for entry in map.entries()? {
        if let (key, value) = entry?
            && key == name
        {
            return Ok(value);
        }
    }
    Err(AcceptError::Missing(std::str::from_utf8(name).unwrap_or("a member")))
}

fn request(map: Item<'_>, peers: &mut Peers) -> Result<Request, AcceptError> {
    let rid = field(map, b"rid")?;
    let (mut in_seq, mut out_seq, mut credits) = (None, None, None);
    let (mut by_router, mut responding, mut debug) = (false, false, false);
    for entry in map.entries()? {
        match entry? {
            (b"in-seq", value) => in_seq = u32::try_from(value.as_int_or_digits()?).ok(),
            (b"out-seq", value) => out_seq = u32::try_from(value.as_int_or_digits()?).ok(),
            (b"out-credits", value) => credits = u32::try_from(value.as_int_or_digits()?.max(0)).ok(),
            (b"router-resp", value) => by_router = value.as_bool()?,
            (b"response-code", _) => responding = true,
            (b"debug", value) => debug = value.as_bool()?,
            _ => {}
        }
    }
    let state = HandedOver {
        client: peers.intern(field(rid, b"sender")?.as_bytes()?).ok_or(AcceptError::Missing("rid sender"))?,
        id: Id::new(field(rid, b"id")?.as_bytes()?).ok_or(AcceptError::Missing("rid id"))?,
        in_seq: in_seq.ok_or(AcceptError::Missing("in-seq"))?,
        out_seq: out_seq.ok_or(AcceptError::Missing("out-seq"))?,
        credits: credits.ok_or(AcceptError::Missing("out-credits"))?,
        by_router,
    };
    Ok(Request { state, responding, debug })
}

fn read_response<'a>(map: Item<'a>) -> Result<Response<'a>, AcceptError> {
    let mut response = Response::default();
    let mut code = None;
    for entry in map.entries()? {
        match entry? {
            (b"code", value) => code = u16::try_from(value.as_int_or_digits()?).ok(),
            (b"reason", value) => response.reason = value.as_bytes()?,
            (b"body", value) => response.body = value.as_bytes()?,
            (b"headers", list) => {
                for pair in list.items()? {
                    let mut pair = pair?.items()?;
                    let (Some(name), Some(value)) = (pair.next(), pair.next()) else {
                        return Err(AcceptError::Missing("a header's name or value"));
                    };
                    response.headers.push((name?.as_bytes()?, value?.as_bytes()?));
                }
            }
            _ => {}
        }
    }
    response.code = code.ok_or(AcceptError::Missing("response code"))?;
    Ok(response)
}

/// What is answered to a request of the proxy: `value` is written by the caller.
pub fn reply(id: Option<&[u8]>, write_value: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = Writer::new(256);
    let map = out.mark();
    write_value(&mut out);
    out.bytes(b"value");
    out.bool(true);
    out.bytes(b"success");
    finish(out, map, id)
}

/// What is answered when a request fails.
pub fn failure(id: Option<&[u8]>, condition: &str, text: Option<&str>) -> Vec<u8> {
    let mut out = Writer::new(128);
    let map = out.mark();
    if let Some(text) = text {
        out.bytes(text.as_bytes());
        out.bytes(b"value");
    }
    out.bytes(condition.as_bytes());
    out.bytes(b"condition");
    out.bool(false);
    out.bytes(b"success");
    finish(out, map, id)
}

fn finish(mut out: Writer, map: tnetstring::Mark, id: Option<&[u8]>) -> Vec<u8> {
    if let Some(id) = id {
        out.bytes(id);
        out.bytes(b"id");
    }
    out.map(map);
    out.finish()
}

/// `{accepted: true}`: the requests are ours.
pub fn accepted(out: &mut Writer) {
    let map = out.mark();
    out.bool(true);
    out.bytes(b"accepted");
    out.map(map);
}

/// `{response: ...}`: nothing is held, the proxy is to send this.
pub fn respond(out: &mut Writer, response: &grip::instruct::Response<'_>) {
    let value = out.mark();
    let map = out.mark();
    out.bytes(&response.body);
    out.bytes(b"body");
    let headers = out.mark();
    for (name, value) in response.headers.iter().rev() {
        let pair = out.mark();
        out.bytes(value);
        out.bytes(name);
        out.list(pair);
    }
    out.list(headers);
    out.bytes(b"headers");
    out.bytes(response.reason.as_bytes());
    out.bytes(b"reason");
    out.int(i64::from(response.code.get()));
    out.bytes(b"code");
    out.map(map);
    out.bytes(b"response");
    out.map(value);
}

/// `{}`: nothing is held, and the response has been sent.
pub fn nothing(out: &mut Writer) {
    let map = out.mark();
    out.map(map);
}
