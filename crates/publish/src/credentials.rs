// SPDX-License-Identifier: AGPL-3.0-or-later
//! What an address says of how to authenticate, as the official libraries read it from `GRIP_URL`: `key`, and with `iss` a token that is
//! signed with that key, else the key as the token.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use grip::signature::SigningKey;
use percent_encoding::percent_decode_str;

use crate::Error;

/// The token that the query of an address asks for; `now` is in seconds since 1970.
///
/// # Errors
/// The key can not be read.
pub fn token(spec: &str, now: u64) -> Result<Option<String>, Error> {
    let wrong = |what: &str| Error::Argument(format!("the key of the address {what}"));
    let Some((_, query)) = spec.split_once('?') else { return Ok(None) };
    let parameter = |name: &str| {
        let pairs = query.split(['&', '#']).filter_map(|pair| pair.split_once('='));
        pairs.filter(|(other, _)| *other == name).map(|(_, value)| percent_decode_str(value)).next_back()
    };
    let Some(key) = parameter("key") else { return Ok(None) };
    let key = key.decode_utf8().map_err(|_| wrong("is not UTF-8"))?;
    let secret = match key.strip_prefix("base64:") {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| wrong("is not the base64 that it says it is"))?,
        None => key.as_bytes().to_vec(),
    };
    let Some(issuer) = parameter("iss") else {
        let token = String::from_utf8(secret).map_err(|_| wrong("can be no token without `iss`: it is not text"))?;
        return Ok(Some(token));
    };
    let token = SigningKey::from_secret(&secret).token(&issuer.decode_utf8_lossy(), now);
    token.map(Some).ok_or_else(|| wrong("can not sign"))
}

#[cfg(test)]
mod tests {
    use grip::signature::VerifyingKey;

    use super::*;

    #[test]
    fn a_key_with_an_issuer_signs_and_one_without_is_the_token() {
        for (key, secret) in [("s%65cret", &b"secret"[..]), ("base64:AAE%3D", &[0, 1]), ("base64:c2+/", b"s\x6f\xbf")] {
            let token = token(&format!("http://h/?iss=a%20b&verify-iss=x&key={key}#z"), 1000).unwrap().unwrap();
            let verifying = VerifyingKey::from_secret(secret);
            assert!(verifying.accepts(token.as_bytes(), 1000), "{key}");
            assert_eq!(verifying.claims(token.as_bytes()).unwrap()["iss"], "a b");
        }
        for (spec, expected) in [
            ("http://h/?key=base64:c2VjcmV0", Some("secret")),
            ("http://h/?key=a%2Bb&other", Some("a+b")),
            ("http://h/?iss=x", None),
            ("http://h/", None),
            ("tcp://h:1", None),
        ] {
            assert_eq!(token(spec, 1000).unwrap().as_deref(), expected, "{spec}");
        }
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        for (key, what) in
            [("base64:!", "is not the base64"), ("%ff", "is not UTF-8"), ("base64:/w==", "can be no token")]
        {
            let error = token(&format!("http://h/?key={key}"), 0).unwrap_err().to_string();
            assert!(error.starts_with("the key of the address ") && error.contains(what), "{error}");
        }
    }
}
