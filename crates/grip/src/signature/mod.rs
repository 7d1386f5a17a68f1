// SPDX-License-Identifier: AGPL-3.0-or-later
//! `Grip-Sig`: a token that shows a backend that a request came through its proxy, and a proxy that a request came from
//! a proxy it trusts (proxy, GRIP headers). A JSON Web Token with the claims `exp` and `iss`, signed by HS256, ES256 or
//! RS256, as the key is.

mod keys;
#[cfg(test)]
mod tests;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub use keys::{KeyError, SigningKey, VerifyingKey};

/// Seconds for which a token is good.
pub const LIFETIME: u64 = 3600;

impl SigningKey {
    /// A token for `issuer` that is good for an hour. `now` is in seconds since 1970. `None` if the key needs random
    /// numbers and the system has none.
    pub fn token(&self, issuer: &str, now: u64) -> Option<String> {
        // Written by hand for the order of the members; the issuer is escaped as JSON wants it.
        let head = format!("{{\"typ\":\"JWT\",\"alg\":\"{}\"}}", self.algorithm().name());
        let issuer = serde_json::Value::from(issuer);
        let claims = format!("{{\"exp\":{},\"iss\":{issuer}}}", now.saturating_add(LIFETIME));
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
        let tag = URL_SAFE_NO_PAD.encode(self.sign(signed.as_bytes())?);
        Some(format!("{signed}.{tag}"))
    }
}

impl VerifyingKey {
    /// Whether a token was signed with the counterpart of this key, says when it runs out, and has not.
    pub fn accepts(&self, token: &[u8], now: u64) -> bool {
        let claims = self.claims(token);
        claims.and_then(|claims| claims.get("exp")?.as_f64()).is_some_and(|exp| exp > now as f64)
    }

    /// The claims of a token that was signed with the counterpart of this key, whether or not it has run out: an object.
    pub fn claims(&self, token: &[u8]) -> Option<serde_json::Value> {
        let token = std::str::from_utf8(token).ok()?.trim();
        let (signed, tag) = token.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        let json = |part: &str| -> Option<serde_json::Value> {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
        };
        // Whoever signs does not choose the algorithm; otherwise a token could ask for none, or for a public key to be
        // taken for a secret.
        if json(head)?.get("alg")?.as_str()? != self.algorithm().name() {
            return None;
        }
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        self.verify(signed.as_bytes(), &tag).then(|| json(claims))?.filter(serde_json::Value::is_object)
    }
}

/// Signs for one issuer, and gives the same token again within a second: a token is good for an hour, and signing
/// costs more than most of what else happens to a proxied request.
#[derive(Clone, Debug)]
pub struct Signer {
    key: SigningKey,
    issuer: String,
    last: (u64, String),
}

impl Signer {
    /// A signer; it has no token yet.
    pub fn new(key: SigningKey, issuer: &str) -> Self {
        Signer { key, issuer: issuer.to_string(), last: (0, String::new()) }
    }

    /// The token of this second; `now` is in seconds since 1970. `None` as in [`SigningKey::token`].
    pub fn token(&mut self, now: u64) -> Option<&str> {
        if self.last.0 != now || self.last.1.is_empty() {
            self.last = (now, self.key.token(&self.issuer, now)?);
        }
        Some(&self.last.1)
    }
}
