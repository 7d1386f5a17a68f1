// SPDX-License-Identifier: AGPL-3.0-or-later
//! JSON as publishers and backends write it.
//!
//! Some of what is on the way every day is not JSON by the letter: editors put a byte order mark in front, scripts put
//! texts of several lines between the quotes as they are, and a text that was cut in the middle of an emoji ends in half a
//! surrogate pair. The original reads all of it, so it is read here too. What is JSON by the letter costs nothing more.

use serde_json::{Error, Value};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const REPLACEMENT: &[u8] = br"\ufffd";

/// Reads a document. Nesting is limited by the parser, to 128 levels.
///
/// # Errors
/// The document is no JSON even with the lenience described above.
pub fn parse(document: &[u8]) -> Result<Value, Error> {
    let document = document.strip_prefix(BYTE_ORDER_MARK).unwrap_or(document);
    serde_json::from_slice(document).or_else(|error| match mend(document) {
        Some(mended) => serde_json::from_slice(&mended),
        None => Err(error),
    })
}

/// Writes by the letter what texts contain: control characters, halves of surrogate pairs, and escapes of characters that
/// need none. The result is at most six times as long. `None` if there is nothing to mend, or no way to.
fn mend(document: &[u8]) -> Option<Vec<u8>> {
    let mut mended = Vec::with_capacity(document.len());
    let mut changed = false;
    let mut in_text = false;
    let mut at = 0;
    while let Some(&byte) = document.get(at) {
        let rest = &document[at..];
        let length = match byte {
            b'"' => {
                in_text = !in_text;
                1
            }
            b'\\' if in_text => match escape(rest) {
                Escape::Sound(length) => length,
                Escape::Broken => return None,
                Escape::HalfPair => {
                    changed = true;
                    mended.extend_from_slice(REPLACEMENT);
                    at += br"\uXXXX".len();
                    continue;
                }
                Escape::Needless => {
                    changed = true;
                    at += 1;
                    continue;
                }
            },
            0..0x20 if in_text => {
                changed = true;
                mended.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
                at += 1;
                continue;
            }
            _ => 1,
        };
        mended.extend_from_slice(&rest[..length]);
        at += length;
    }
    changed.then_some(mended)
}

enum Escape {
    /// These many bytes stay as they are.
    Sound(usize),
    /// It has no end or no number, and nothing can mend the document.
    Broken,
    /// One half of a pair without the other.
    HalfPair,
    /// The character after the backslash stands for itself.
    Needless,
}

/// Looks at what begins with a backslash.
fn escape(text: &[u8]) -> Escape {
    match text.get(1) {
        None => Escape::Broken,
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Escape::Sound(2),
        Some(b'u') => match code_unit(text) {
            None => Escape::Broken,
            Some(0xd800..0xdc00) => match text.get(6..).and_then(code_unit) {
                Some(0xdc00..0xe000) => Escape::Sound(12),
                _ => Escape::HalfPair,
            },
            Some(0xdc00..0xe000) => Escape::HalfPair,
            Some(_) => Escape::Sound(6),
        },
        Some(_) => Escape::Needless,
    }
}

/// The number in `\uXXXX`, if the text begins with that.
fn code_unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(br"\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | (digit as char).to_digit(16)? as u16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(document: &[u8]) -> Option<Value> {
        parse(document).ok()
    }

    #[test]
    fn a_byte_order_mark_may_stand_in_front_once() {
        assert_eq!(read(b"\xef\xbb\xbf[1]"), Some(json!([1])));
        assert_eq!(read(b"\xef\xbb\xbf\xef\xbb\xbf[1]"), None);
        assert_eq!(read(b" \xef\xbb\xbf[1]"), None);
    }

    #[test]
    fn control_characters_in_texts_stand_for_themselves() {
        assert_eq!(read(b"[\"a\tb\r\nc\0\x1f\"]"), Some(json!(["a\tb\r\nc\0\u{1f}"])));
        assert_eq!(read(b"{\"a\nb\":\n\t1}"), Some(json!({"a\nb": 1})));
        assert_eq!(read(b"[\x01]"), None);
    }

    #[test]
    fn half_a_surrogate_pair_is_replaced() {
        assert_eq!(read(br#"["\ud83d"]"#), Some(json!(["\u{fffd}"])));
        assert_eq!(read(br#"["\ud83dx\ude00"]"#), Some(json!(["\u{fffd}x\u{fffd}"])));
        assert_eq!(read(br#"["\ud83d\ud83d\ude00"]"#), Some(json!(["\u{fffd}\u{1f600}"])));
        assert_eq!(read(br#"["\ude00\ud83d"]"#), Some(json!(["\u{fffd}\u{fffd}"])));
        assert_eq!(read(br#"["\ud83d\n\\ud83d"]"#), Some(json!(["\u{fffd}\n\\ud83d"])));
    }

    #[test]
    fn what_needs_no_escape_may_have_one() {
        assert_eq!(read(br#"["\q\'\"]"#), None);
        assert_eq!(read(br#"["\q\'"]"#), Some(json!(["q'"])));
        assert_eq!(read(b"[\"a\\\nb\"]"), Some(json!(["a\nb"])));
        assert_eq!(read("[\"\\ü\"]".as_bytes()), Some(json!(["ü"])));
    }

    #[test]
    fn what_is_wrong_otherwise_stays_wrong() {
        for document in [
            &b""[..],
            b"[",
            b"[1,]",
            b"[1] x",
            b"{'a':1}",
            b"[\"\xff\"]",
            br#"["\u12"]"#,
            br#"["\u12"#,
            br#"["\"#,
            b"[01]",
            b"[1/**/]",
            b"[\"\t",
        ] {
            assert_eq!(read(document), None, "{:?}", String::from_utf8_lossy(document));
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        for depth in [200, 500_000] {
            assert_eq!(read("[".repeat(depth).as_bytes()), None);
            assert_eq!(read("{\"\t\":".repeat(depth).as_bytes()), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_json_by_the_letter_has_nothing_to_mend(text in any::<String>(), number in any::<i64>()) {
            let document = json!({ text.clone(): [text, number] });
            prop_assert_eq!(mend(document.to_string().as_bytes()), None);
        }

        #[test]
        fn a_text_of_any_characters_is_read_as_it_stands(text in "[^\"\\\\]{0,40}") {
            prop_assert_eq!(read(format!("[\"{text}\"]").as_bytes()), Some(json!([text])));
        }

        #[test]
        fn mending_ends_and_leaves_nothing_to_mend(
            pieces in prop::collection::vec(prop::sample::select(vec!["\"", "\\", "u", "d83d", "\\ude00", "\t", "\u{1}", "[", "x"]), 0..40),
        ) {
            let document = pieces.concat();
            if let Some(mended) = mend(document.as_bytes()) {
                prop_assert!(mended.len() <= 6 * document.len());
                prop_assert_eq!(mend(&mended), None);
            }
        }
    }
}
