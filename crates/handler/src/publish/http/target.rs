// SPDX-License-Identifier: AGPL-3.0-or-later
//! The target of a request: a path and a query.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// As it was sent, without a slash at its end.
    pub path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Takes one apart.
    pub fn new(target: &'a str) -> Self {
        let (path, query) = match target.split_once('?') {
            None => (target, None),
            Some((path, query)) => (path, Some(query)),
        };
        let path = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
        Target { path, query }
    }

    /// Whether there is no query.
    pub fn is_bare(self) -> bool {
        self.query.is_none()
    }

    /// Whether the query is that for reports, and nothing else.
    pub fn asks_for_report(self) -> bool {
        matches!(self.query, Some("report=1" | "report=true"))
    }

    /// The members of the query; `None` if one of them is no text.
    pub fn members(self) -> Option<Vec<(String, String)>> {
        let members = self.query.unwrap_or_default().split('&').filter(|member| !member.is_empty());
        let decoded = |text: &str| decode(&text.replace('+', " "));
        members
            .map(|member| {
                let (name, value) = member.split_once('=').unwrap_or((member, ""));
                Some((decoded(name)?, decoded(value)?))
            })
            .collect()
    }
}

/// Text whose `%XX` stand for bytes; `None` if they do not, or make no text.
pub fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_at_the_end_of_a_path_does_not_count() {
        for (target, path, is_bare) in [
            ("/", "/", true),
            ("/publish", "/publish", true),
            ("/publish/", "/publish", true),
            ("/publish/?a", "/publish", false),
            ("/a//", "/a/", true),
            ("", "", true),
        ] {
            let found = Target::new(target);
            assert_eq!((found.path, found.is_bare()), (path, is_bare), "{target}");
        }
    }

    #[test]
    fn names_and_values_are_decoded() {
        let members = |query: &str| Target::new(&format!("/c?{query}")).members();
        let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
        assert_eq!(members("a=1&&b%3d=%C3%a9+%2B&c"), Some(vec![pair("a", "1"), pair("b=", "é +"), pair("c", "")]));
        assert_eq!(members(""), Some(Vec::new()));
        for broken in ["a=%", "a=%4", "a=%zz", "a=%+1", "%ff=1", "a=%é1"] {
            assert_eq!(members(broken), None, "{broken}");
        }
    }
}
