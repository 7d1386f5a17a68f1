// SPDX-License-Identifier: AGPL-3.0-or-later
//! The syntax of `pushpin.conf`: sections, keys, and values that may be lists.
//!
//! It follows what Pushpin's users have in their files: `;` starts a comment unless quoted, `#` only at the beginning of a
//! line; an unquoted `,` makes a list; backslash escapes work in and out of quotes; of a repeated key the last one counts.

use crate::error::{Place, Warning};

/// One `key=value` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name in the brackets above it.
    pub section: String,
    /// What stands before the `=`.
    pub key: String,
    /// What stands behind it, split at unquoted commas; one item for an ordinary value.
    pub items: Vec<String>,
    /// Where it stands.
    pub place: Place,
}

/// All lines of a file that say something, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// The settings.
    pub entries: Vec<Entry>,
    /// Lines that are neither section, comment nor setting.
    pub warnings: Vec<Warning>,
}

impl Document {
    /// Reads a file's `text`; `file` is its name for messages.
    pub fn parse(text: &str, file: &str) -> Self {
        let mut document = Self::default();
        let mut section = String::new();
        for (index, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
            let line = line.trim();
            let place = Place { file: file.into(), line: index + 1 };
            if line.is_empty() || line.starts_with(['#', ';']) {
            } else if let Some(rest) = line.strip_prefix('[') {
                section = rest.split(']').next().unwrap_or_default().trim().to_string();
            } else if let Some((key, value)) = line.split_once('=') {
                let items = split_value(value);
                document.entries.push(Entry { section: section.clone(), key: key.trim().into(), items, place });
            } else {
                let text = format!("`{line}` is ignored: expected key=value, [section] or a comment");
                document.warnings.push(Warning { place, text });
            }
        }
        document
    }

    /// The entry that counts for a key: the last one.
    pub fn find(&self, section: &str, key: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.section == section && entry.key == key)
    }
}

/// Splits a value into its list items, with quotes, escapes and comment removed.
fn split_value(value: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut item = Item::default();
    let mut quoted = false;
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                item.keep(None);
            }
            '\\' => {
                let decoded = match chars.next() {
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some('x') => {
                        let mut code = 0u32;
                        while let Some(digit) = chars.peek().and_then(|c| c.to_digit(16)) {
                            code = code.saturating_mul(16).saturating_add(digit);
                            chars.next();
                        }
                        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
                    }
                    Some(other) => other,
                    None => '\\',
                };
                item.keep(Some(decoded));
            }
            ';' if !quoted => break,
            ',' if !quoted => items.push(std::mem::take(&mut item).finish()),
            c if c.is_whitespace() && !quoted => item.text.push(c),
            c => item.keep(Some(c)),
        }
    }
    items.push(item.finish());
    items
}

/// A list item as it grows. White space around it goes, unless it was quoted or escaped.
#[derive(Default)]
struct Item {
    text: String,
    /// Where it begins, once something came that is not unquoted white space.
    start: Option<usize>,
    /// Where it ends, as far as is known.
    end: usize,
}

impl Item {
    /// Takes a character that stays, or notes a quote: what is in it stays, even if it is a space.
    fn keep(&mut self, c: Option<char>) {
        self.start.get_or_insert(self.text.len());
        self.text.extend(c);
        self.end = self.text.len();
    }

    fn finish(self) -> String {
        self.start.map(|start| self.text[start..self.end].to_string()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(line: &str) -> Vec<String> {
        Document::parse(&format!("[s]\n{line}\n"), "f").find("s", "k").expect("the key is there").items.clone()
    }

    #[test]
    fn an_unquoted_semicolon_starts_a_comment() {
        assert_eq!(items("k=ab ;c"), ["ab"]);
        assert_eq!(items(r#"k="ab;c""#), ["ab;c"]);
    }

    #[test]
    fn a_hash_inside_a_value_is_part_of_it() {
        assert_eq!(items("k=ab#c"), ["ab#c"]);
    }

    #[test]
    fn commas_make_a_list_unless_quoted() {
        assert_eq!(items("k=a,b"), ["a", "b"]);
        assert_eq!(items(r#"k="a", "b""#), ["a", "b"]);
        assert_eq!(items(r#"k="a,b""#), ["a,b"]);
    }

    #[test]
    fn spaces_around_values_go_and_quoted_ones_stay() {
        assert_eq!(items("k =  a b  "), ["a b"]);
        assert_eq!(items(r#"k=" a ""#), [" a "]);
        assert_eq!(items(r"k=a\t"), ["a\t"]);
    }

    #[test]
    fn escapes_are_decoded_and_hex_takes_all_digits() {
        assert_eq!(items(r#"k="a\\b\"c\n\x41""#), ["a\\b\"c\nA"]);
        assert_eq!(items(r"k=\x0041z"), ["Az"]);
    }

    #[test]
    fn the_last_of_equal_keys_counts_and_case_matters() {
        assert_eq!(items("k=1\nk=2\nK=3"), ["2"]);
    }

    #[test]
    fn an_empty_value_is_one_empty_item() {
        assert_eq!(items("k="), [""]);
    }

    #[test]
    fn a_line_without_equals_sign_is_a_warning_with_its_line() {
        let document = Document::parse("[s]\nwhat\n", "f");
        assert_eq!(document.warnings[0].place, Place { file: "f".into(), line: 2 });
    }
}
