// SPDX-License-Identifier: AGPL-3.0-or-later
//! JSON-P: a response as a script that calls a function of the page (auto cross-origin).
//!
//! The plain form gives the body to the function as it is, the extended one an object with status, headers and body.

use std::collections::BTreeMap;

/// The content type of a response in this form.
pub const CONTENT_TYPE: &[u8] = b"application/javascript";

/// How a response is to be packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jsonp {
    /// The function to be called.
    pub callback: Box<[u8]>,
    /// Status and headers are part of what it gets.
    pub extended: bool,
}

/// A body on its way into the script, piece by piece.
#[derive(Debug, Default)]
pub struct Packing {
    extended: bool,
    /// The end of what has come: the beginning of a character, or a line end that may be the last one.
    held: Vec<u8>,
}

impl Jsonp {
    /// Begins a script with the head of a response. Of several headers with the same name the first counts.
    pub fn begin<'a>(
        &self,
        code: u16,
        reason: &[u8],
        headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        out: &mut Vec<u8>,
    ) -> Packing {
        out.extend_from_slice(b"/**/");
        out.extend_from_slice(&self.callback);
        out.push(b'(');
        if self.extended {
            let mut first: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
            for (name, value) in headers {
                if !first.keys().any(|known| known.eq_ignore_ascii_case(name)) {
                    first.insert(name, value);
                }
            }
            out.extend_from_slice(format!("{{\"code\": {code}, \"reason\": ").as_bytes());
            quote(reason, out);
            out.extend_from_slice(b", \"headers\": {");
            for (index, (name, value)) in first.into_iter().enumerate() {
                out.extend_from_slice(if index > 0 { b"," } else { b"" });
                quote(name, out);
                out.push(b':');
                quote(value, out);
            }
            out.extend_from_slice(b"}, \"body\": \"");
        }
        Packing { extended: self.extended, held: Vec::new() }
    }

    /// A whole response as a script. Of several headers with the same name the values are joined.
    pub fn whole<'a>(
        &self,
        code: u16,
        reason: &[u8],
        headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        body: &[u8],
    ) -> Vec<u8> {
        let mut joined: Vec<(&[u8], Vec<u8>)> = Vec::new();
        for (name, value) in headers {
            match joined.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
                Some((_, values)) => {
                    values.extend_from_slice(b", ");
                    values.extend_from_slice(value);
                }
                None => joined.push((name, value.to_vec())),
            }
        }
        let mut out = Vec::with_capacity(body.len() + 256);
        let mut packing = self.begin(code, reason, joined.iter().map(|(name, value)| (*name, &value[..])), &mut out);
        packing.piece(body, true, &mut out);
        out
    }
}

impl Packing {
    /// Packs a piece of the body; the `last` ends the script.
    pub fn piece(&mut self, body: &[u8], last: bool, out: &mut Vec<u8>) {
        let joined;
        let mut bytes = body;
        if !self.held.is_empty() {
            joined = [&std::mem::take(&mut self.held)[..], body].concat();
            bytes = &joined;
        }
        let kept = match (self.extended, last) {
            (true, true) => 0,
            (true, false) => unfinished(bytes),
            (false, _) => line_end(bytes),
        };
        let (now, rest) = bytes.split_at(bytes.len() - kept);
        match self.extended {
            true => escape(now, out),
            false => out.extend_from_slice(now),
        }
        if last {
            out.extend_from_slice(if self.extended { b"\"});\n" } else { b");\n" });
        } else {
            self.held = rest.to_vec();
        }
    }
}

/// Length of the line end that bytes end with: `\n`, `\r\n`, or the beginning of that.
fn line_end(bytes: &[u8]) -> usize {
    match bytes {
        [.., b'\r', b'\n'] => 2,
        [.., b'\n' | b'\r'] => 1,
        _ => 0,
    }
}

/// Length of the character that bytes end with, if it is not complete.
fn unfinished(bytes: &[u8]) -> usize {
    let start = bytes.len().saturating_sub(3);
    (start..bytes.len())
        .map(|at| &bytes[at..])
        .find(|end| {
            std::str::from_utf8(end).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .map_or(0, <[u8]>::len)
}

fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    escape(text, out);
    out.push(b'"');
}

/// The inside of a JSON text. What is no UTF-8 becomes replacement characters. U+2028 and U+2029 end lines in old scripts.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        let mut plain = 0;
        let valid = chunk.valid();
        for (at, character) in valid.char_indices() {
            let escaped = match character {
                '"' => "\\\"".to_string(),
                '\\' => "\\\\".to_string(),
                '\n' => "\\n".to_string(),
                '\r' => "\\r".to_string(),
                '\t' => "\\t".to_string(),
                // Also keeps `</script>` from ending a script that is part of a page.
                '\0'..='\x1f' | '\x7f' | '<' | '\u{2028}' | '\u{2029}' => format!("\\u{:04x}", character as u32),
                _ => continue,
            };
            out.extend_from_slice(&valid.as_bytes()[plain..at]);
            out.extend_from_slice(escaped.as_bytes());
            plain = at + character.len_utf8();
        }
        out.extend_from_slice(&valid.as_bytes()[plain..]);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(extended: bool) -> Jsonp {
        Jsonp { callback: b"cb"[..].into(), extended }
    }

    fn packed(extended: bool, pieces: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut packing = of(extended).begin(200, b"OK", [].into_iter(), &mut out);
        for (index, piece) in pieces.iter().enumerate() {
            packing.piece(piece, index + 1 == pieces.len(), &mut out);
        }
        out
    }

    fn body_of(script: &[u8]) -> String {
        let json = script.strip_prefix(b"/**/cb(").unwrap().strip_suffix(b");\n").unwrap();
        let value: serde_json::Value = serde_json::from_slice(json).unwrap();
        value["body"].as_str().unwrap().to_string()
    }

    #[test]
    fn the_plain_form_gives_the_body_without_its_last_line_end() {
        assert_eq!(packed(false, &[b"{\"a\":1}\n"]), b"/**/cb({\"a\":1});\n");
        assert_eq!(packed(false, &[b"1\r\n"]), b"/**/cb(1);\n");
        assert_eq!(packed(false, &[b"1\n\n"]), b"/**/cb(1\n);\n");
        assert_eq!(packed(false, &[b"1\r", b"\n", b""]), b"/**/cb(1);\n");
        assert_eq!(packed(false, &[b"1\n", b"2"]), b"/**/cb(1\n2);\n");
        assert_eq!(packed(false, &[b""]), b"/**/cb();\n");
    }

    #[test]
    fn the_extended_form_is_what_pushpin_writes() {
        let headers: [(&[u8], &[u8]); 4] =
            [(b"X-A", b"1"), (b"Content-Type", b"text/plain"), (b"Content-Length", b"6"), (b"x-a", b"2")];
        let mut out = Vec::new();
        of(true).begin(200, b"OK", headers.into_iter(), &mut out).piece(b"hello\n", true, &mut out);
        let wanted = "/**/cb({\"code\": 200, \"reason\": \"OK\", \"headers\": {\"Content-Length\":\"6\",\"Content-Type\":\"text/plain\",\"X-A\":\"1\"}, \"body\": \"hello\\n\"});\n";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }

    #[test]
    fn values_of_a_header_are_joined_where_all_of_a_response_is_there() {
        let headers: [(&[u8], &[u8]); 3] = [(b"X-A", b"1"), (b"B", b"x"), (b"x-a", b"2")];
        let script = String::from_utf8(of(true).whole(201, b"Created", headers.into_iter(), b"b")).unwrap();
        assert!(script.contains(r#""headers": {"B":"x","X-A":"1, 2"}"#), "{script}");
    }

    #[test]
    fn characters_that_are_split_between_pieces_stay_whole() {
        let text = "a\u{e4}\u{20ac}\u{1f600}\"\\\u{2028}</script>\r\n".as_bytes();
        for at in 0..text.len() {
            assert_eq!(body_of(&packed(true, &[&text[..at], &text[at..]])).as_bytes(), text, "{at}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(body_of(&packed(true, &bytes)).as_bytes(), text);
    }

    #[test]
    fn what_is_no_text_is_replaced() {
        assert_eq!(body_of(&packed(true, &[b"a\xffb\xe2\x82"])), "a\u{fffd}b\u{fffd}");
        assert_eq!(body_of(&packed(true, &[b"a\xe2", b"b"])), "a\u{fffd}b");
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(body in any::<Vec<u8>>(), cut in any::<prop::sample::Index>(), extended in any::<bool>()) {
            let (a, b) = body.split_at(cut.index(body.len() + 1));
            let (whole, pieces) = (packed(extended, &[&body]), packed(extended, &[a, b]));
            prop_assert_eq!(whole.clone(), pieces);
            if extended {
                prop_assert_eq!(body_of(&whole), String::from_utf8_lossy(&body).into_owned());
            }
        }
    }
}
