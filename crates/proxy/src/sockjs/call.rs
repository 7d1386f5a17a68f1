// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a request of a poll session asks for.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use routes::Route;

use super::framing::strings;
use super::page::{Page, text};
use crate::request::uri::Scheme;
use crate::response::test_target::percent_decoded;

/// A request, whose body is there.
#[derive(Debug)]
pub struct Call {
    /// Who waits for the answer.
    pub caller: Caller,
    /// The client's name of the session.
    pub name: Rc<[u8]>,
    /// What is asked for.
    pub verb: Verb,
    /// The route.
    pub route: Arc<Route>,
    /// The request's first packet.
    pub request: Rc<[u8]>,
    /// How the client came.
    pub scheme: Scheme,
}

/// An HTTP request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its place among the exchanges.
    pub index: usize,
    /// Tells it from others that had the place before.
    pub serial: u64,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// What the backend has to say; the function that a script wants it in.
    Receive(Option<Box<[u8]>>),
    /// These messages are for the backend; none if what came are no messages.
    Send(Option<Vec<Bytes>>),
}

impl Verb {
    /// Reads a request of a transport.
    ///
    /// # Errors
    /// What is answered instead.
    pub fn read(method: &[u8], transport: &[u8], query: &[u8], body: &[u8]) -> Result<Self, Page> {
        let bad = || text(400, "Bad Request", "Bad Request\n");
        let messages = |document: &[u8]| Ok(Verb::Send(strings(document)));
        match (method, transport) {
            (b"POST", b"xhr") => Ok(Verb::Receive(None)),
            (b"GET" | b"POST", b"jsonp") => {
                let name = member(query, b"callback").or_else(|| member(query, b"c")).ok_or_else(bad)?;
                if name.is_empty() || name.len() > 128 || !name.iter().all(|byte| is_of_name(*byte)) {
                    return Err(bad());
                }
                Ok(Verb::Receive(Some(name.into())))
            }
            (b"POST", b"xhr_send") => messages(body),
            (b"POST", b"jsonp_send") => messages(&member(body, b"d").unwrap_or_else(|| body.to_vec())),
            (b"GET", b"jsonp_send") => messages(&member(query, b"d").unwrap_or_default()),
            _ => Err(text(404, "Not Found", "Not Found\n")),
        }
    }
}

/// More than this could become a script of its own.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.' | b'[' | b']')
}

/// A member of a form.
fn member(form: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let form = form.strip_prefix(b"?").unwrap_or(form);
    let mut members = form.split(|byte| *byte == b'&');
    members.find_map(|member| member.strip_prefix(name)?.strip_prefix(b"=")).map(percent_decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, transport: &str, query: &str, body: &str) -> Result<Verb, u16> {
        let verb = Verb::read(method.as_bytes(), transport.as_bytes(), query.as_bytes(), body.as_bytes());
        verb.map_err(|page| page.code)
    }

    #[test]
    fn transports_say_what_is_asked_for() {
        assert_eq!(read("POST", "xhr", "", ""), Ok(Verb::Receive(None)));
        assert_eq!(read("GET", "jsonp", "?c=a.b", ""), Ok(Verb::Receive(Some(b"a.b"[..].into()))));
        assert_eq!(read("POST", "xhr_send", "", "[\"a\",\"\"]"), Ok(Verb::Send(Some(vec!["a".into(), "".into()]))));
        assert_eq!(read("POST", "jsonp_send", "", "d=%5B%22a%22%5D"), Ok(Verb::Send(Some(vec!["a".into()]))));
        for body in ["", "x", "{\"a\":1}", "[1]"] {
            assert_eq!(read("POST", "xhr_send", "", body), Ok(Verb::Send(None)));
        }
    }

    #[test]
    fn functions_with_other_names_and_other_transports_are_refused() {
        for query in ["", "?c=", "?c=a(b", "?c=%3Cb%3E"] {
            assert_eq!(read("GET", "jsonp", query, ""), Err(400), "{query}");
        }
        for (method, transport) in
            [("GET", "xhr"), ("POST", "xhr_streaming"), ("GET", "eventsource"), ("POST", "websocket")]
        {
            assert_eq!(read(method, transport, "", ""), Err(404));
        }
    }
}
