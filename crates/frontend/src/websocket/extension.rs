// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a client offers in `Sec-WebSocket-Extensions`, and what it is answered (RFC 6455, section 9.1; RFC 7692).

use wire::http1::is_token;

/// The answer to a client that gets compression. Each message stands alone, both ways: one compressed message is the same
/// for all clients, and a connection between two messages keeps no window.
pub const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// The header is not a list of extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Whether one of the offers in these header values is compression as we do it. An offer that is not acceptable is passed
/// over, since another one may follow.
///
/// # Errors
/// A value is not a list of extensions.
pub fn offers_deflate<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<bool, Malformed> {
    let mut found = false;
    for value in values {
        // Elements of a list may be empty (RFC 9110, section 5.6.1).
        for offer in split(value, b',').map(<[u8]>::trim_ascii).filter(|offer| !offer.is_empty()) {
            let mut parts = split(offer, b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let mut parameters = Parameters::default();
            let mut acceptable = true;
            for part in parts {
                let (name, value) = parameter(part)?;
                acceptable &= parameters.take(name, value);
            }
            if !is_token(name) {
                return Err(Malformed);
            }
            found |= acceptable && name.eq_ignore_ascii_case(b"permessage-deflate");
        }
    }
    Ok(found)
}

/// Parameters of one offer that have been seen.
#[derive(Default)]
struct Parameters {
    seen: [bool; 4],
}

impl Parameters {
    /// Whether the parameter is known, new in this offer, and has a value that we can keep to.
    fn take(&mut self, name: &[u8], value: Option<&[u8]>) -> bool {
        let (place, keeps) = match name {
            b"server_no_context_takeover" => (0, value.is_none()),
            b"client_no_context_takeover" => (1, value.is_none()),
            // All clients get the same bytes, which refer back as far as is possible.
            b"server_max_window_bits" => (2, value == Some(b"15")),
            b"client_max_window_bits" => (3, value.is_none_or(is_window)),
            _ => return false,
        };
        keeps && !std::mem::replace(&mut self.seen[place], true)
    }
}

fn is_window(bits: &[u8]) -> bool {
    matches!(bits, [b'8' | b'9'] | [b'1', b'0'..=b'5'])
}

/// Name and value of a parameter; the value without the quotes that it may have.
fn parameter(part: &[u8]) -> Result<(&[u8], Option<&[u8]>), Malformed> {
    let Some(at) = part.iter().position(|&byte| byte == b'=') else {
        return if is_token(part) { Ok((part, None)) } else { Err(Malformed) };
    };
    let (name, value) = (part[..at].trim_ascii(), part[at + 1..].trim_ascii());
    let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    if is_token(name) && is_token(value) { Ok((name, Some(value))) } else { Err(Malformed) }
}

fn split(text: &[u8], at: u8) -> impl Iterator<Item = &[u8]> {
    text.split(move |&byte| byte == at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(values: &[&str]) -> Result<bool, Malformed> {
        offers_deflate(values.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn an_offer_that_can_be_kept_to_is_found_wherever_it_stands() {
        for values in [
            &["permessage-deflate"][..],
            &["Permessage-Deflate; client_max_window_bits"],
            &["permessage-deflate;client_max_window_bits=8 ; server_no_context_takeover"],
            &["permessage-deflate; server_max_window_bits=\"15\"; client_no_context_takeover"],
            &["x-other; a=b, permessage-deflate"],
            &["x-other", "", "permessage-deflate"],
            &["permessage-deflate; server_max_window_bits=10, permessage-deflate"],
        ] {
            assert_eq!(offers(values), Ok(true), "{values:?}");
        }
    }

    #[test]
    fn an_offer_that_can_not_be_kept_to_is_passed_over() {
        for value in [
            "",
            "permessage-bzip2",
            "permessage-deflate; server_max_window_bits=10",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=08",
            "permessage-deflate; client_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; unknown",
        ] {
            assert_eq!(offers(&[value]), Ok(false), "{value}");
        }
    }

    #[test]
    fn what_is_no_list_of_extensions_is_malformed() {
        for value in
            [";;", "permessage-deflate;;", "a b", "permessage-deflate; x=", "permessage-deflate; =x", "x; y=\"a", "é"]
        {
            assert_eq!(offers(&[value]), Err(Malformed), "{value}");
        }
    }
}
