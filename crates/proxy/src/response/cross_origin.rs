// SPDX-License-Identifier: AGPL-3.0-or-later
//! Responses for scripts of other sites: with headers that allow it, or as scripts (proxy, auto cross origin).

use std::borrow::Cow;

use grip::cross_origin::CrossOrigin;
use grip::jsonp::{CONTENT_TYPE, Jsonp, Packing};
use zhttp::Headers;

/// What is done to one response.
#[derive(Debug)]
pub struct Fitting {
    kind: CrossOrigin,
    packing: Option<Packing>,
    /// Body bytes of the backend that have gone into the script, and are not paid back.
    pub owed: usize,
}

/// A piece of a response as the client gets it.
pub enum Fitted<'a> {
    /// The same, with these headers as well.
    Headers(Vec<(&'static [u8], Cow<'a, [u8]>)>),
    /// A piece of a script, with its head if that comes first.
    Script {
        /// Headers of the script.
        headers: Vec<(&'a [u8], Vec<u8>)>,
        /// The piece.
        body: Vec<u8>,
    },
}

impl Fitting {
    /// A response that has not begun.
    pub fn new(kind: CrossOrigin) -> Self {
        Fitting { kind, packing: None, owed: 0 }
    }

    /// How the response becomes a script, if it does.
    pub fn jsonp(&self) -> Option<&Jsonp> {
        match &self.kind {
            CrossOrigin::Jsonp(jsonp) => Some(jsonp),
            CrossOrigin::Cors(_) => None,
        }
    }

    /// Fits a piece; `None` if it stays as it is.
    pub fn fit<'a>(
        &'a mut self,
        head: Option<(u16, &[u8], Headers<'a>)>,
        body: &[u8],
        more: bool,
    ) -> Option<Fitted<'a>> {
        let jsonp = match &self.kind {
            CrossOrigin::Jsonp(jsonp) => jsonp,
            CrossOrigin::Cors(cors) => {
                let (_, _, headers) = head?;
                return Some(Fitted::Headers(cors.missing(headers.iter())));
            }
        };
        self.owed += body.len();
        let (mut out, mut outer) = (Vec::with_capacity(body.len() + 256), Vec::new());
        if let Some((code, reason, headers)) = head {
            self.packing = Some(jsonp.begin(code, reason, headers.iter(), &mut out));
            outer.push((&b"Content-Type"[..], CONTENT_TYPE.to_vec()));
            // How long it may be kept does not depend on what it is packed in.
            let kept = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"Cache-Control"));
            outer.extend(kept.map(|(name, value)| (name, value.to_vec())));
        }
        self.packing.as_mut()?.piece(body, !more, &mut out);
        if head.is_some() && !more {
            outer.push((b"Content-Length", out.len().to_string().into_bytes()));
        }
        Some(Fitted::Script { headers: outer, body: out })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_is_complete_says_its_length_and_one_that_is_not_does_not() {
        let headers: &[(&[u8], &[u8])] = &[(b"cache-control", b"no-cache"), (b"X-A", b"1")];
        let head = Some((200, &b"OK"[..], Headers::Pairs(headers)));
        let of = || Fitting::new(CrossOrigin::Jsonp(Jsonp { callback: b"cb"[..].into(), extended: false }));
        let mut fitting = of();
        let Some(Fitted::Script { headers, body }) = fitting.fit(head, b"1\n", false) else { panic!() };
        assert_eq!(body, b"/**/cb(1);\n");
        let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, [&b"Content-Type"[..], b"cache-control", b"Content-Length"]);
        assert_eq!(headers[2].1, b"11");
        let mut fitting = of();
        let Some(Fitted::Script { headers, body }) = fitting.fit(head, b"1", true) else { panic!() };
        assert_eq!((headers.len(), &body[..]), (2, &b"/**/cb(1"[..]));
        let Some(Fitted::Script { headers, body }) = fitting.fit(None, b"2", false) else { panic!() };
        assert_eq!((headers.len(), &body[..], fitting.owed), (0, &b"2);\n"[..], 2));
    }
}
