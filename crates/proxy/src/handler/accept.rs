//! Handing a request over to the handler, which holds it (internal RPC, accept).

use routes::Route;
use tnetstring::{Item, Writer};
use zhttp::session::HandedOver;
use zhttp::{Headers, Peers};

use crate::handler::call::{self, Reply};

/// A request as it stands in a call.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Request method.
    pub method: &'a [u8],
    /// Absolute URI.
    pub uri: &'a [u8],
    /// Headers.
    pub headers: Headers<'a>,
    /// All of the body.
    pub body: &'a [u8],
}

/// A response as it stands in a call or an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Response<'a> {
    /// Status.
    pub code: u16,
    /// Status text.
    pub reason: &'a [u8],
    /// Headers.
    pub headers: Headers<'a>,
    /// Content.
    pub body: &'a [u8],
}

/// Everything that the handler must know to hold a request.
pub struct Call<'a> {
    /// Our instance.
    pub from: &'a [u8],
    /// The session towards the client.
    pub session: HandedOver,
    /// Names of the instances.
    pub peers: &'a Peers,
    /// What the client wants back in every packet.
    pub user_data: Option<Item<'a>>,
    /// The status, if the response has begun.
    pub response_code: Option<u16>,
    /// The client came with TLS.
    pub https: bool,
    /// The client's address.
    pub peer_address: Option<&'a [u8]>,
    /// The address that the client says it has.
    pub logical_peer_address: Option<&'a [u8]>,
    /// Errors may be shown in detail.
    pub debug: bool,
    /// The handler had it before.
    pub is_retry: bool,
    /// What the backend was sent.
    pub request: Request<'a>,
    /// What the client sent.
    pub original: Request<'a>,
    /// What the backend answered.
    pub response: Option<Response<'a>>,
    /// The entries of what the handler said before.
    pub inspected: Option<&'a [u8]>,
    /// The request's route.
    pub route: &'a Route,
    /// Channels of the target.
    pub channels: &'a [String],
    /// The target may be on a private network.
    pub trusted: bool,
    /// The client has the response's head and body already.
    pub response_sent: bool,
}

impl Call<'_> {
    /// Writes the call.
    pub fn encode<'w>(&self, id: &[u8], out: &'w mut Writer) -> &'w [u8] {
        call::encode_call(out, Some(self.from), id, "accept", |out| {
            call::flag(out, "response-sent", self.response_sent);
            call::flag(out, "use-session", self.route.session);
            call::flag(out, "trusted", self.trusted);
            if !self.channels.is_empty() {
                let list = out.mark();
                self.channels.iter().rev().for_each(|channel| out.bytes(channel.as_bytes()));
                out.list(list);
                out.bytes(b"channels");
            }
            if let Some(level) = self.route.log_level {
                call::int(out, "log-level", level);
            }
            if !self.route.prefix.is_empty() {
                call::entry(out, "channel-prefix", self.route.prefix.as_bytes());
            }
            call::flag(out, "separate-stats", self.route.explicit_id);
            call::entry(out, "route", self.route.id.as_bytes());
            if let Some(inspected) = self.inspected {
                let map = out.mark();
                out.raw(inspected);
                out.map(map);
                out.bytes(b"inspect");
            }
            if let Some(response) = self.response {
                encode_response(out, &response);
            }
            encode_request(out, "orig-request-data", &self.original);
            encode_request(out, "request-data", &self.request);
            let list = out.mark();
            self.encode_state(out);
            out.list(list);
            out.bytes(b"requests");
        })
    }

    fn encode_state(&self, out: &mut Writer) {
        let state = out.mark();
        if let Some(value) = self.user_data {
            encode_item(out, value);
            out.bytes(b"user-data");
        }
        call::flag(out, "is-retry", self.is_retry);
        call::flag(out, "debug", self.debug);
        if let Some(address) = self.logical_peer_address {
            call::entry(out, "logical-peer-address", address);
        }
        if let Some(address) = self.peer_address {
            call::entry(out, "peer-address", address);
        }
        call::flag(out, "https", self.https);
        if let Some(code) = self.response_code {
            call::int(out, "response-code", code);
        }
        call::flag(out, "router-resp", self.session.by_router);
        call::int(out, "out-credits", self.session.credits);
        call::int(out, "out-seq", self.session.out_seq);
        call::int(out, "in-seq", self.session.in_seq);
        let rid = out.mark();
        call::entry(out, "id", self.session.id.as_bytes());
        call::entry(out, "sender", self.peers.name(self.session.client));
        out.map(rid);
        out.bytes(b"rid");
        out.map(state);
    }
}

fn encode_request(out: &mut Writer, key: &str, request: &Request<'_>) {
    let map = out.mark();
    call::entry(out, "body", request.body);
    call::headers(out, request.headers);
    call::entry(out, "uri", request.uri);
    call::entry(out, "method", request.method);
    out.map(map);
    out.bytes(key.as_bytes());
}

fn encode_response(out: &mut Writer, response: &Response<'_>) {
    let map = out.mark();
    call::entry(out, "body", response.body);
    call::headers(out, response.headers);
    call::entry(out, "reason", response.reason);
    call::int(out, "code", response.code);
    out.map(map);
    out.bytes(b"response");
}

/// Writes a value as it was received.
fn encode_item(out: &mut Writer, item: Item<'_>) {
    out.raw(&[item.kind.type_byte()]);
    out.raw(item.payload);
    out.raw(format!("{}:", item.payload.len()).as_bytes());
}

/// What the handler has decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict<'a> {
    /// It has the request now.
    Accepted,
    /// It does not hold the request; this is the response.
    Respond(Response<'a>),
    /// It has nothing to add to the response that was sent.
    Nothing,
    /// It does not understand the instructions, with its own words.
    BadFormat(String),
    /// It could not do it: the condition, or what is wrong with its answer.
    Failed(String),
}

impl<'a> Verdict<'a> {
    /// Reads an answer.
    pub fn parse(reply: &Reply<'a>) -> Self {
        match &reply.result {
            Ok(value) => Verdict::of(*value).unwrap_or_else(|error| Verdict::Failed(format!("its answer: {error}"))),
            Err((b"bad-format", Some(detail))) => match detail.as_bytes() {
                Ok(text) => Verdict::BadFormat(String::from_utf8_lossy(text).into_owned()),
                Err(error) => Verdict::Failed(format!("its answer: {error}")),
            },
            Err((condition, _)) => Verdict::Failed(condition.escape_ascii().to_string()),
        }
    }

    fn of(value: Item<'a>) -> Result<Self, tnetstring::Error> {
        let mut verdict = Verdict::Nothing;
        for field in value.entries()? {
            match field? {
                (b"accepted", item) if item.as_bool()? => return Ok(Verdict::Accepted),
                (b"response", item) => verdict = Verdict::Respond(response(item)?),
                _ => {}
            }
        }
        Ok(verdict)
    }
}

fn response(item: Item<'_>) -> Result<Response<'_>, tnetstring::Error> {
    let mut response = Response { code: 0, reason: b"", headers: Headers::Absent, body: b"" };
    for field in item.entries()? {
        match field? {
            (b"code", item) => {
                response.code = u16::try_from(item.as_int_or_digits()?).map_err(|_| tnetstring::Error::BadInt)?;
            }
            (b"reason", item) => response.reason = item.as_bytes()?,
            (b"headers", item) => {
                item.items()?;
                response.headers = Headers::Encoded(item.payload);
            }
            (b"body", item) => response.body = item.as_bytes()?,
            _ => {}
        }
    }
    if response.code == 0 { Err(tnetstring::Error::MissingValue) } else { Ok(response) }
}

#[cfg(test)]
mod tests {
    use tnetstring::{Value, to_vec};

    use super::*;

    fn reply(success: bool, key: &str, value: Value) -> Vec<u8> {
        let entry = |k: &str, v| (k.as_bytes().to_vec(), v);
        let mut map = vec![entry("id", Value::Bytes(b"1".to_vec())), entry("success", Value::Bool(success))];
        if !success {
            map.push(entry("condition", Value::Bytes(key.as_bytes().to_vec())));
        }
        map.push(entry("value", value));
        to_vec(&Value::Map(map)).unwrap()
    }

    fn map(entries: &[(&str, Value)]) -> Value {
        Value::Map(entries.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.clone())).collect())
    }

    #[test]
    fn the_handler_accepts_responds_or_says_nothing() {
        let accepted = reply(true, "", map(&[("accepted", Value::Bool(true))]));
        assert_eq!(Verdict::parse(&Reply::decode(&accepted).unwrap()), Verdict::Accepted);
        let nothing = reply(true, "", map(&[]));
        assert_eq!(Verdict::parse(&Reply::decode(&nothing).unwrap()), Verdict::Nothing);
        let response = map(&[("code", Value::Int(201)), ("reason", Value::Bytes(b"x".to_vec()))]);
        let respond = reply(true, "", map(&[("response", response)]));
        let Verdict::Respond(response) = Verdict::parse(&Reply::decode(&respond).unwrap()) else { panic!() };
        assert_eq!((response.code, response.reason), (201, &b"x"[..]));
    }

    #[test]
    fn instructions_it_does_not_understand_come_with_its_words() {
        let bad = reply(false, "bad-format", Value::Bytes(b"why".to_vec()));
        assert_eq!(Verdict::parse(&Reply::decode(&bad).unwrap()), Verdict::BadFormat("why".into()));
        let other = reply(false, "bad-request", Value::Bytes(b"why".to_vec()));
        assert_eq!(Verdict::parse(&Reply::decode(&other).unwrap()), Verdict::Failed("bad-request".into()));
    }

    #[test]
    fn an_answer_of_the_wrong_shape_is_a_failure() {
        for value in [Value::Null, map(&[("accepted", Value::Int(1))]), map(&[("response", map(&[]))])] {
            let bad = reply(true, "", value);
            assert!(matches!(Verdict::parse(&Reply::decode(&bad).unwrap()), Verdict::Failed(_)));
        }
    }
}
