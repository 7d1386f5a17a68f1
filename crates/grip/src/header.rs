// SPDX-License-Identifier: AGPL-3.0-or-later
//! Lists and parameters inside header values (GRIP, header list and parameter grammar).
//!
//! A list header is split at commas outside quotes, and may also be spread over several lines. Each element is a first
//! part, taken as it stands, and parameters: `channel; prev-id="5"; filter=skip-self`.

use std::borrow::Cow;

/// The elements of one line of a list header. Empty values have none; a quote that is never closed runs to the end.
pub fn elements(value: &[u8]) -> Elements<'_> {
    Elements { rest: Some(value).filter(|v| !v.trim_ascii().is_empty()) }
}

/// Iterates over a list header's elements, see [`elements`].
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let end = find_unquoted(rest, b',');
        self.rest = rest.get(end + 1..);
        Some(rest[..end].trim_ascii())
    }
}

/// Where `separator` first stands outside quotes; the length if it does not.
fn find_unquoted(text: &[u8], separator: u8) -> usize {
    let mut quoted = false;
    let mut escaped = false;
    for (at, &byte) in text.iter().enumerate() {
        if quoted {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
        } else if byte == b'"' {
            quoted = true;
        } else if byte == separator {
            return at;
        }
    }
    text.len()
}

/// One parameter of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// The name as it was written.
    pub name: &'a [u8],
    /// The value; `None` without `=` and for an empty quoted string, which senders use to say "none".
    pub value: Option<Cow<'a, [u8]>>,
}

impl Parameter<'_> {
    /// Whether this is the parameter `name`, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The first part of an element: what stands before the first semicolon.
pub fn first(element: &[u8]) -> &[u8] {
    let end = memchr_semicolon(element);
    element[..end].trim_ascii()
}

fn memchr_semicolon(text: &[u8]) -> usize {
    text.iter().position(|&b| b == b';').unwrap_or(text.len())
}

/// The parameters that follow the first part. `None` if a quoted value is never closed, which voids the element.
pub fn parameters(element: &[u8]) -> Option<Vec<Parameter<'_>>> {
    match element.get(memchr_semicolon(element) + 1..) {
        Some(rest) => all_parameters(rest),
        None => Some(Vec::new()),
    }
}

/// The parameters of an element whose first part is a parameter too.
pub fn all_parameters(text: &[u8]) -> Option<Vec<Parameter<'_>>> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        let name_end = rest.iter().position(|&b| b == b';' || b == b'=').unwrap_or(rest.len());
        let name = rest[..name_end].trim_ascii();
        let mut value = None;
        let mut end = name_end;
        if rest.get(name_end) == Some(&b'=') {
            let start = name_end + 1;
            if rest.get(start) == Some(&b'"') {
                let (text, length) = quoted(&rest[start + 1..])?;
                value = Some(text).filter(|text| !text.is_empty());
                end = start + 1 + length;
                end += memchr_semicolon(&rest[end..]);
            } else {
                end = start + memchr_semicolon(&rest[start..]);
                value = Some(Cow::Borrowed(rest[start..end].trim_ascii()));
            }
        }
        if !name.is_empty() || value.is_some() {
            found.push(Parameter { name, value });
        }
        match rest.get(end + 1..) {
            Some(after) => rest = after,
            None => return Some(found),
        }
    }
}

/// A quoted string without its first quote: the text, and how many bytes it took with its last quote.
fn quoted(text: &[u8]) -> Option<(Cow<'_, [u8]>, usize)> {
    let mut unescaped: Option<Vec<u8>> = None;
    let mut at = 0;
    loop {
        match *text.get(at)? {
            b'"' => {
                let value = unescaped.map_or(Cow::Borrowed(&text[..at]), Cow::Owned);
                return Some((value, at + 1));
            }
            b'\\' => {
                let byte = *text.get(at + 1)?;
                unescaped.get_or_insert_with(|| text[..at].to_vec()).push(byte);
                at += 2;
            }
            byte => {
                if let Some(unescaped) = &mut unescaped {
                    unescaped.push(byte);
                }
                at += 1;
            }
        }
    }
}

/// A decimal integer with optional space around it.
pub fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(value: &[u8]) -> Vec<&[u8]> {
        elements(value).collect()
    }

    fn params(element: &[u8]) -> Vec<(String, Option<String>)> {
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
        parameters(element).unwrap().iter().map(|p| (text(p.name), p.value.as_deref().map(text))).collect()
    }

    #[test]
    fn a_list_is_split_at_commas_and_trimmed() {
        assert_eq!(list(b" a , b;x=1,c "), [&b"a"[..], b"b;x=1", b"c"]);
        assert_eq!(list(b"a,,b"), [&b"a"[..], b"", b"b"]);
    }

    #[test]
    fn an_empty_value_has_no_elements() {
        assert!(list(b"").is_empty());
        assert!(list(b"  ").is_empty());
    }

    #[test]
    fn a_comma_in_quotes_separates_nothing() {
        assert_eq!(list(br#"a; x="1,\",2", b"#), [&br#"a; x="1,\",2""#[..], b"b"]);
        assert_eq!(list(br#"a; x="1, b"#), [br#"a; x="1, b"#]);
    }

    #[test]
    fn the_first_part_is_taken_as_it_stands() {
        assert_eq!(first(b"a=b ; c=d"), b"a=b");
        assert_eq!(first(b"a"), b"a");
    }

    #[test]
    fn parameters_have_values_plain_or_quoted_or_none() {
        let expected = [("x", Some("1")), ("y", Some("a;\"b")), ("z", None), ("e", Some(""))];
        let found = params(br#"c; x= 1 ; y="a;\"b" ignored; z; e="#);
        let found: Vec<_> = found.iter().map(|(n, v)| (n.as_str(), v.as_deref())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_empty_quoted_value_is_none() {
        assert_eq!(params(br#"c; prev-id="""#), [("prev-id".to_string(), None)]);
    }

    #[test]
    fn an_unclosed_quote_voids_the_element() {
        assert_eq!(parameters(br#"a; prev-id="x"#), None);
        assert_eq!(parameters(b"a; prev-id=\"x\\"), None);
    }

    #[test]
    fn integers_may_have_space_around_them() {
        assert_eq!(integer(b" 12 "), Some(12));
        assert_eq!(integer(b"-3"), Some(-3));
        assert_eq!(integer(b"1 2"), None);
        assert_eq!(integer(b""), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(value in prop::collection::vec(any::<u8>(), 0..200)) {
            for element in elements(&value) {
                let _ = first(element);
                let _ = parameters(element);
                let _ = all_parameters(element);
            }
        }
    }
}
