// SPDX-License-Identifier: AGPL-3.0-or-later
//! The little language of content filters: `%X`, `%(argument)X`, and `%%` for a percent sign (GRIP, format language).
//!
//! Content may come in pieces. What could be the beginning of a directive is held back until the rest is there.

/// Bytes that filled-in content may have. A short directive can stand for much, and content has room for many of them.
pub const MAX_FILLED: usize = 16 << 20;
/// Bytes that an argument may have, as it is written. So much is kept of content that comes in pieces, and looked at again
/// with each of them.
pub const MAX_ARGUMENT: usize = 4096;

/// Why content can not be filled in. Positions count bytes from the beginning of the content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// There is no such directive.
    #[error("Unknown directive '{0}' at position {1}")]
    Unknown(char, usize),
    /// The content ends after a percent sign.
    #[error("Expected directive after '%' at position {0}")]
    NoDirective(usize),
    /// The content ends after an opening parenthesis.
    #[error("Expected character after '(' at position {0}")]
    NoArgument(usize),
    /// The content ends after a backslash.
    #[error("Expected character after '\\' at position {0}")]
    NoEscaped(usize),
    /// A parenthesis is never closed.
    #[error("Unterminated field starting at position {0}")]
    Unterminated(usize),
    /// The content ends after a closing parenthesis.
    #[error("Expected directive after ')' at position {0}")]
    NoDirectiveAfterArgument(usize),
    /// An argument is longer than [`MAX_ARGUMENT`].
    #[error("Field starting at position {0} is longer than {MAX_ARGUMENT} bytes")]
    TooLong(usize),
    /// The content would become larger than [`MAX_FILLED`].
    #[error("Content is larger than {MAX_FILLED} bytes when it is filled in")]
    TooLarge,
    /// What a directive stands for is not known.
    #[error("{0} at position {1}")]
    Value(String, usize),
}

/// A directive: its letter and its argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directive<'a> {
    /// The letter.
    pub letter: char,
    /// What stands in parentheses, without escapes.
    pub argument: Option<&'a [u8]>,
}

/// Fills in content that may come in pieces.
#[derive(Clone, Debug, Default)]
pub struct Formatter {
    /// The beginning of a directive whose end has not come yet.
    held: Vec<u8>,
    /// Bytes before `held`.
    position: usize,
}

impl Formatter {
    /// Takes a piece, and appends to `out` what is complete. `fill` gives what a directive stands for; `None` means that
    /// there is no such directive.
    ///
    /// # Errors
    /// The content is not in the language, or `fill` fails.
    pub fn push(
        &mut self,
        piece: &[u8],
        out: &mut Vec<u8>,
        mut fill: impl FnMut(Directive<'_>) -> Option<Result<Vec<u8>, String>>,
    ) -> Result<(), FormatError> {
        let joined;
        let mut rest = piece;
        if !self.held.is_empty() {
            joined = [std::mem::take(&mut self.held), piece.to_vec()].concat();
            rest = &joined;
        }
        while !rest.is_empty() {
            let plain = rest.iter().position(|&b| b == b'%').unwrap_or(rest.len());
            out.extend_from_slice(&rest[..plain]);
            (self.position, rest) = (self.position + plain, &rest[plain..]);
            if rest.is_empty() {
                break;
            }
            let length = match scan(rest, self.position)? {
                Scan::Incomplete(_) => {
                    self.held = rest.to_vec();
                    break;
                }
                Scan::Percent => {
                    out.push(b'%');
                    2
                }
                Scan::Directive { letter, argument, length } => {
                    let at = self.position + length - 1;
                    let directive = Directive { letter, argument: argument.as_deref() };
                    let value = fill(directive).ok_or(FormatError::Unknown(letter, at))?;
                    let value = value.map_err(|text| FormatError::Value(text, at))?;
                    if out.len() + value.len() > MAX_FILLED {
                        return Err(FormatError::TooLarge);
                    }
                    out.extend_from_slice(&value);
                    length
                }
            };
            (self.position, rest) = (self.position + length, &rest[length..]);
        }
        Ok(())
    }

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// A directive is not complete.
    pub fn finish(self) -> Result<(), FormatError> {
        if self.held.is_empty() {
            return Ok(());
        }
        match scan(&self.held, self.position)? {
            Scan::Incomplete(error) => Err(error),
            _ => Ok(()),
        }
    }
}

enum Scan {
    Percent,
    Directive { letter: char, argument: Option<Vec<u8>>, length: usize },
    Incomplete(FormatError),
}

/// Reads what begins with a percent sign. `position` is that of the sign.
fn scan(text: &[u8], position: usize) -> Result<Scan, FormatError> {
    let letter = |byte: u8, at: usize| match byte {
        byte if byte.is_ascii_alphabetic() => Ok(byte as char),
        byte => Err(FormatError::Unknown(byte as char, position + at)),
    };
    match text.get(1) {
        None => return Ok(Scan::Incomplete(FormatError::NoDirective(position))),
        Some(b'%') => return Ok(Scan::Percent),
        Some(b'(') => {}
        Some(&byte) => return Ok(Scan::Directive { letter: letter(byte, 1)?, argument: None, length: 2 }),
    }
    if text.len() == 2 {
        return Ok(Scan::Incomplete(FormatError::NoArgument(position + 1)));
    }
    let mut argument = Vec::new();
    let mut at = 2;
    loop {
        if at > 2 + MAX_ARGUMENT {
            return Err(FormatError::TooLong(position + 1));
        }
        match text.get(at) {
            None => return Ok(Scan::Incomplete(FormatError::Unterminated(position + 1))),
            Some(b'\\') => match text.get(at + 1) {
                None => return Ok(Scan::Incomplete(FormatError::NoEscaped(position + at))),
                Some(&byte) => {
                    argument.push(byte);
                    at += 2;
                }
            },
            Some(b')') => break,
            Some(&byte) => {
                argument.push(byte);
                at += 1;
            }
        }
    }
    match text.get(at + 1) {
        None => Ok(Scan::Incomplete(FormatError::NoDirectiveAfterArgument(position + at))),
        Some(&byte) => Ok(Scan::Directive { letter: letter(byte, at + 1)?, argument: Some(argument), length: at + 2 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Fills in `%(x)s` as `<x>` and `%s` as `<>`.
    fn fill(pieces: &[&[u8]]) -> Result<String, String> {
        let (mut formatter, mut out) = (Formatter::default(), Vec::new());
        for piece in pieces {
            let each = |directive: Directive<'_>| {
                let argument = directive.argument.unwrap_or_default();
                (directive.letter == 's').then(|| Ok([b"<", argument, b">"].concat()))
            };
            formatter.push(piece, &mut out, each).map_err(|e| e.to_string())?;
        }
        formatter.finish().map_err(|e| e.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn directives_are_replaced_and_all_else_stays() {
        assert_eq!(fill(&[b"a %s b %(name)s 100%%"]).unwrap(), "a <> b <name> 100%");
        assert_eq!(fill(&[br"%(a\)\\b)s"]).unwrap(), r"<a)\b>");
        assert_eq!(fill(&[b"%()s"]).unwrap(), "<>");
    }

    #[test]
    fn each_mistake_has_its_text_and_place() {
        for (text, message) in [
            ("a%", "Expected directive after '%' at position 1"),
            ("%(", "Expected character after '(' at position 1"),
            ("%(a", "Unterminated field starting at position 1"),
            (r"%(a\", r"Expected character after '\' at position 3"),
            ("%(a)", "Expected directive after ')' at position 3"),
            ("%x", "Unknown directive 'x' at position 1"),
            ("ab%(a)x", "Unknown directive 'x' at position 6"),
            ("% ", "Unknown directive ' ' at position 1"),
        ] {
            assert_eq!(fill(&[text.as_bytes()]).unwrap_err(), message, "{text}");
        }
    }

    #[test]
    fn positions_count_from_the_beginning_of_all_pieces() {
        assert_eq!(fill(&[b"abc%", b"s%", b"x"]).unwrap_err(), "Unknown directive 'x' at position 6");
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_gives(text in "[a%()s\\\\]{0,20}", at in 0usize..20) {
            let bytes = text.as_bytes();
            let at = at.min(bytes.len());
            prop_assert_eq!(fill(&[&bytes[..at], &bytes[at..]]), fill(&[bytes]));
        }

        #[test]
        fn arbitrary_bytes_never_panic(text in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut formatter = Formatter::default();
            let _ = formatter.push(&text, &mut Vec::new(), |_| Some(Ok(Vec::new())));
            let _ = formatter.finish();
        }
    }
}
