// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the first packet of a session asks for, checked and turned into the bytes that go to the backend.

use std::rc::Rc;

use wire::http1::{BodyFraming, EncodeError, parse_length, write_request_head};
use zhttp::Packet;

use crate::connect::target::{Endpoint, Target, TargetError};
use crate::connect::tls::{ClientCertificate, Identity};
use crate::http1::coding;
use crate::http1::upload::Upload;
use crate::websocket::handshake;

/// Why a request is not performed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The packet has no `uri` or no `method`.
    #[error("the request has no {0}")]
    Missing(&'static str),
    /// The URI.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// A part of the head can not be sent.
    #[error("{0}")]
    Head(#[from] EncodeError),
    /// `Content-Length` is no number, or not the one that the body has.
    #[error("the length of the body is not the one that Content-Length says")]
    Length,
}

impl Refusal {
    /// The condition of the `error` packet (ZHTTP, error conditions).
    pub fn condition(&self) -> &'static str {
        "bad-request"
    }
}

/// A request that can be performed.
#[derive(Debug)]
pub struct Request {
    /// Whether it is `HEAD`, so that no body comes back.
    pub is_head: bool,
    /// Whether it can be sent twice without harm: its method only asks (RFC 9110, section 9.2.1). `PUT` and `DELETE` are
    /// idempotent too, but the second answer would be to a question that nobody asked: 404 for what was just deleted.
    pub is_safe: bool,
    /// Where to connect to.
    pub endpoint: Rc<Endpoint>,
    /// Whether internal addresses may be reached.
    pub trusted: bool,
    /// The key of a handshake, if it is for a WebSocket.
    pub websocket: Option<String>,
    /// What goes to the backend.
    pub upload: Upload,
}

impl Request {
    /// Reads the first packet of a session. `key` makes the key of a handshake.
    pub fn from_packet(packet: &Packet<'_>, key: impl FnOnce() -> String) -> Result<Self, Refusal> {
        let target = Target::parse(packet.uri.ok_or(Refusal::Missing("uri"))?)?;
        // m2adapter sends none for a WebSocket.
        let implied = target.websocket.then_some(&b"GET"[..]);
        let method = packet.method.filter(|method| !method.is_empty()).or(implied);
        let method = method.ok_or(Refusal::Missing("method"))?;
        let websocket = target.websocket.then(key);
        let framing = if target.websocket { BodyFraming::None } else { framing(packet, method)? };

        let mut slashed = Vec::new();
        let path = match target.path.starts_with('/') {
            true => target.path.as_bytes(),
            false => {
                slashed.push(b'/');
                slashed.extend_from_slice(target.path.as_bytes());
                &slashed
            }
        };
        let mut out = Vec::with_capacity(512 + packet.body.len());
        let host = target.authority.as_bytes();
        let upload = match &websocket {
            Some(key) => {
                handshake::write(packet, path, host, key, &mut out)?;
                Upload::start(out, framing, b"", false)
            }
            None => {
                let headers = packet
                    .headers
                    .iter()
                    .filter(|(name, _)| packet.ext.coded || !name.eq_ignore_ascii_case(b"Accept-Encoding"));
                write_request_head(&mut out, method, path, host, headers.chain(asked_coding(packet)), framing)?;
                Upload::start(out, framing, packet.body, packet.more)
            }
        };
        let upload = upload.map_err(|_| Refusal::Length)?;

        let connect_host =
            packet.connect_host.and_then(|host| str::from_utf8(host).ok()).filter(|host| !host.is_empty());
        let (host, port) = match connect_host {
            Some(host) => {
                let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                (host, packet.connect_port.unwrap_or(target.port))
            }
            None => (target.host, target.port),
        };
        // The name in the certificate is that of the site, unless the route vouches for that of the target.
        let name = if packet.trust_connect_host { host } else { target.host };
        let client =
            |chain: &[u8]| ClientCertificate { chain: chain.into(), key: packet.client_key.unwrap_or(chain).into() };
        let tls = target.tls.then(|| Identity {
            name: name.into(),
            unchecked: packet.ignore_tls_errors,
            client: packet.client_cert.filter(|chain| !chain.is_empty()).map(client),
        });
        let endpoint = Rc::new(Endpoint { host: host.into(), port, tls });
        let is_safe = matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"QUERY");
        Ok(Request {
            is_head: method == b"HEAD",
            is_safe,
            endpoint,
            trusted: packet.ignore_policies,
            websocket,
            upload,
        })
    }
}

/// What a backend is asked for when the coding of its body will be taken off, as Zurl asks; not of a part of a body, which
/// can not be unpacked without what is before it.
fn asked_coding(packet: &Packet<'_>) -> Option<(&'static [u8], &'static [u8])> {
    let asks = !packet.ext.coded && packet.headers.get("Range").is_none();
    asks.then_some((b"Accept-Encoding", coding::ASKED))
}

/// How the body is framed: by the length that is known, else in chunks.
fn framing(packet: &Packet<'_>, method: &[u8]) -> Result<BodyFraming, Refusal> {
    let declared = packet.headers.get("Content-Length");
    if packet.more {
        let Some(declared) = declared else { return Ok(BodyFraming::Chunked) };
        return parse_length(declared).map(BodyFraming::Length).ok_or(Refusal::Length);
    }
    // Methods that usually have no body do not say so; the others say that it is empty (RFC 9110, section 8.6).
    let silent = matches!(method, b"GET" | b"HEAD" | b"OPTIONS");
    match packet.body.len() {
        0 if silent && declared.is_none() => Ok(BodyFraming::None),
        length => Ok(BodyFraming::Length(length as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zhttp::Headers;

    fn packet<'a>(method: &'a str, body: &'a str) -> Packet<'a> {
        Packet {
            method: Some(method.as_bytes()),
            uri: Some(b"http://app.example:81/a?b#c"),
            body: body.as_bytes(),
            ext: zhttp::Ext { coded: true, ..zhttp::Ext::default() },
            ..Packet::default()
        }
    }

    fn request(packet: &Packet<'_>) -> Result<Request, Refusal> {
        Request::from_packet(packet, || "KEY".to_owned())
    }

    fn sent(packet: &Packet<'_>) -> String {
        let request = request(packet).unwrap();
        String::from_utf8(request.upload.pending().to_vec()).unwrap()
    }

    fn condition(packet: &Packet<'_>) -> &'static str {
        request(packet).unwrap_err().condition()
    }

    #[test]
    fn a_get_says_nothing_about_a_body() {
        assert_eq!(sent(&packet("GET", "")), "GET /a?b HTTP/1.1\r\nHost: app.example:81\r\n\r\n");
    }

    #[test]
    fn for_a_requester_of_another_kind_the_backend_is_asked_to_compress() {
        let headers: &[(&[u8], &[u8])] = &[(b"accept-encoding", b"br"), (b"A", b"b")];
        let headers = Headers::Pairs(headers);
        let other = Packet { ext: zhttp::Ext::MULTI, headers, ..packet("GET", "") };
        assert!(sent(&other).ends_with(".example:81\r\nA: b\r\nAccept-Encoding: deflate, gzip\r\n\r\n"));
        assert!(sent(&Packet { headers, ..packet("GET", "") }).ends_with("\r\naccept-encoding: br\r\nA: b\r\n\r\n"));
        let headers: &[(&[u8], &[u8])] = &[(b"Range", b"bytes=5-")];
        let part = Packet { headers: Headers::Pairs(headers), ..other };
        assert!(sent(&part).ends_with("\r\nRange: bytes=5-\r\n\r\n"));
    }

    #[test]
    fn other_methods_say_that_their_body_is_empty() {
        assert!(sent(&packet("POST", "")).ends_with("\r\nContent-Length: 0\r\n\r\n"));
        assert!(sent(&packet("DELETE", "")).ends_with("\r\nContent-Length: 0\r\n\r\n"));
        assert!(!sent(&packet("OPTIONS", "")).contains("Content-Length"));
    }

    #[test]
    fn a_complete_body_has_its_own_length_whatever_the_header_says() {
        let headers: &[(&[u8], &[u8])] = &[(b"Content-Length", b"99"), (b"X-A", b"1")];
        let packet = Packet { headers: Headers::Pairs(headers), ..packet("POST", "data") };
        assert!(sent(&packet).ends_with("\r\nX-A: 1\r\nContent-Length: 4\r\n\r\ndata"));
    }

    #[test]
    fn an_incomplete_body_has_the_length_of_the_header_or_goes_in_chunks() {
        let more = Packet { more: true, ..packet("POST", "abc") };
        assert!(sent(&more).ends_with("\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"));
        let headers: &[(&[u8], &[u8])] = &[(b"content-length", b"9")];
        let known = Packet { headers: Headers::Pairs(headers), ..more };
        assert!(sent(&known).ends_with("\r\nContent-Length: 9\r\n\r\nabc"));
        let headers: &[(&[u8], &[u8])] = &[(b"content-length", b"+9")];
        assert_eq!(condition(&Packet { headers: Headers::Pairs(headers), ..more }), "bad-request");
        let headers: &[(&[u8], &[u8])] = &[(b"content-length", b"2")];
        assert_eq!(condition(&Packet { headers: Headers::Pairs(headers), ..more }), "bad-request");
    }

    #[test]
    fn the_connection_goes_to_connect_host_and_the_request_to_the_uri() {
        let packet = Packet { connect_host: Some(b"127.0.0.1"), connect_port: Some(8000), ..packet("GET", "") };
        let request = request(&packet).unwrap();
        assert_eq!((&*request.endpoint.host, request.endpoint.port), ("127.0.0.1", 8000));
        assert!(sent(&packet).contains("\r\nHost: app.example:81\r\n"));
    }

    #[test]
    fn only_methods_that_ask_and_do_nothing_are_safe() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"] {
            assert!(request(&packet(method, "")).unwrap().is_safe, "{method}");
        }
        for method in ["POST", "PUT", "PATCH", "DELETE", "get", "PROPFIND", "X"] {
            assert!(!request(&packet(method, "")).unwrap().is_safe, "{method}");
        }
    }

    #[test]
    fn what_can_not_be_sent_is_refused_with_a_condition() {
        assert_eq!(condition(&Packet::default()), "bad-request");
        assert_eq!(condition(&packet("", "")), "bad-request");
        assert_eq!(condition(&packet("G T", "")), "bad-request");
        assert_eq!(condition(&Packet { uri: Some(b"http://h/a b"), ..packet("GET", "") }), "bad-request");
        let headers: &[(&[u8], &[u8])] = &[(b"X", b"a\r\nHost: b")];
        assert_eq!(condition(&Packet { headers: Headers::Pairs(headers), ..packet("GET", "") }), "bad-request");
    }
}
