//! `Grip-Sig`: a token that shows a backend that a request came through its proxy, and a proxy that a request came from
//! a proxy it trusts (proxy, GRIP headers). A JSON Web Token with the claims `exp` and `iss`, signed by HMAC-SHA256.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::tree::decode_base64;

/// Seconds for which a token is good.
pub const LIFETIME: u64 = 3600;

/// `{"typ":"JWT","alg":"HS256"}` as it stands in a token.
const HEAD: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9";

/// A secret shared with the backend.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(secret)")
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let tag = |key: &Key| key.0.clone().chain_update(b"").finalize().into_bytes();
        tag(self) == tag(other)
    }
}

impl Eq for Key {}

/// Why a key setting can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file of a `file:` key can't be read.
    #[error("can't read the key file {path}: {reason}")]
    Unreadable {
        /// The path as it was configured.
        path: String,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The file holds neither a PEM block nor hex digits.
    #[error("the key file {path} must hold the secret as hex digits")]
    NotHex {
        /// The path as it was configured.
        path: String,
    },
    /// The file holds a public or private key, for signatures that are not supported yet.
    #[error("the key file {path} holds a PEM key; only shared secrets (HS256) are supported")]
    Pem {
        /// The path as it was configured.
        path: String,
    },
}

impl Key {
    /// A key from the secret's bytes.
    pub fn new(secret: &[u8]) -> Self {
        // HMAC takes keys of any length, so this can't fail.
        Key(Hmac::new_from_slice(secret).expect("HMAC takes keys of any length"))
    }

    /// A key from a setting: `base64:...`, `file:path` (hex digits), or the secret itself. Empty means no key. `read`
    /// reads a file, with a relative path as it was written.
    ///
    /// # Errors
    /// The key file can't be read or holds something else than hex digits.
    pub fn from_setting(
        setting: &str,
        read: impl FnOnce(&str) -> std::io::Result<Vec<u8>>,
    ) -> Result<Option<Self>, KeyError> {
        if let Some(encoded) = setting.strip_prefix("base64:") {
            return Ok(Some(Key::new(&decode_base64(encoded.as_bytes()))));
        }
        if let Some(path) = setting.strip_prefix("file:") {
            let path = path.to_string();
            let content = match read(&path) {
                Ok(content) => content,
                Err(reason) => return Err(KeyError::Unreadable { path, reason }),
            };
            if content.trim_ascii_start().starts_with(b"-----BEGIN") {
                return Err(KeyError::Pem { path });
            }
            return match hex(content.trim_ascii()) {
                Some(secret) => Ok(Some(Key::new(&secret))),
                None => Err(KeyError::NotHex { path }),
            };
        }
        Ok((!setting.is_empty()).then(|| Key::new(setting.as_bytes())))
    }

    fn tag(&self, signed: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.0.clone().chain_update(signed.as_bytes()).finalize().into_bytes())
    }

    /// A token for `issuer` that is good for an hour. `now` is in seconds since 1970.
    pub fn sign(&self, issuer: &str, now: u64) -> String {
        // Written by hand for the order of the members; the issuer is escaped as JSON wants it.
        let issuer = serde_json::Value::from(issuer);
        let claims = format!("{{\"exp\":{},\"iss\":{issuer}}}", now.saturating_add(LIFETIME));
        let signed = format!("{HEAD}.{}", URL_SAFE_NO_PAD.encode(claims));
        let tag = self.tag(&signed);
        format!("{signed}.{tag}")
    }

    /// Whether a token was signed with this key, says when it runs out, and has not. Compares in constant time.
    pub fn verify(&self, token: &[u8], now: u64) -> bool {
        let claims = self.claims(token);
        claims.and_then(|claims| claims.get("exp")?.as_f64()).is_some_and(|exp| exp > now as f64)
    }

    /// The claims of a token that was signed with this key, whether or not it has run out.
    fn claims(&self, token: &[u8]) -> Option<serde_json::Value> {
        let token = std::str::from_utf8(token).ok()?.trim();
        let (signed, tag) = token.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        let json = |part: &str| -> Option<serde_json::Value> {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
        };
        // Whoever signs does not choose the algorithm; otherwise a token could ask for none.
        if json(head)?.get("alg")?.as_str()? != "HS256" {
            return None;
        }
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        self.0.clone().chain_update(signed.as_bytes()).verify_slice(&tag).ok()?;
        json(claims).filter(serde_json::Value::is_object)
    }
}

/// Signs for one issuer, and gives the same token again within a second: a token is good for an hour, and signing
/// costs more than most of what else happens to a proxied request.
#[derive(Clone, Debug)]
pub struct Signer {
    key: Key,
    issuer: String,
    last: (u64, String),
}

impl Signer {
    /// A signer; it has no token yet.
    pub fn new(key: Key, issuer: &str) -> Self {
        Signer { key, issuer: issuer.to_string(), last: (0, String::new()) }
    }

    /// The token of this second; `now` is in seconds since 1970.
    pub fn token(&mut self, now: u64) -> &str {
        if self.last.0 != now || self.last.1.is_empty() {
            self.last = (now, self.key.sign(&self.issuer, now));
        }
        &self.last.1
    }
}

fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_has_head_claims_and_tag() {
        // Checked against another implementation: HMAC-SHA256 with the key "changeme".
        let token = Key::new(b"changeme").sign("pushpin", 1_600_000_000);
        let mut parts = token.split('.');
        assert_eq!(parts.next(), Some(HEAD));
        let claims = URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap();
        assert_eq!(claims, br#"{"exp":1600003600,"iss":"pushpin"}"#);
        assert_eq!(URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap().len(), 32);
        assert_eq!(URL_SAFE_NO_PAD.decode(HEAD).unwrap(), br#"{"typ":"JWT","alg":"HS256"}"#);
    }

    #[test]
    fn a_token_is_good_for_its_key_and_its_hour() {
        let key = Key::new(b"k");
        let token = key.sign("i", 1000);
        assert!(key.verify(token.as_bytes(), 1000));
        assert!(key.verify(token.as_bytes(), 1000 + LIFETIME - 1));
        assert!(!key.verify(token.as_bytes(), 1000 + LIFETIME));
        assert!(!Key::new(b"other").verify(token.as_bytes(), 1000));
    }

    #[test]
    fn a_changed_token_is_refused() {
        let key = Key::new(b"k");
        let token = key.sign("i", 1000);
        let (signed, _) = token.rsplit_once('.').unwrap();
        assert!(!key.verify(signed.as_bytes(), 1000));
        assert!(!key.verify(format!("{signed}.").as_bytes(), 1000));
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        assert!(!key.verify(format!("{none}.{}.", URL_SAFE_NO_PAD.encode("{}")).as_bytes(), 1000));
    }

    #[test]
    fn the_known_vector_of_rfc_7515_verifies() {
        // RFC 7515, appendix A.1.
        let secret =
            decode_base64(b"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow");
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert!(Key::new(&secret).verify(token.as_bytes(), 1_300_819_379));
        assert!(!Key::new(&secret).verify(token.as_bytes(), 1_300_819_380));
    }

    #[test]
    fn keys_are_written_plain_in_base64_or_in_a_file() {
        let no_file = |_: &str| -> std::io::Result<Vec<u8>> { unreachable!() };
        let plain = Key::from_setting("changeme", no_file).unwrap();
        assert_eq!(plain, Some(Key::new(b"changeme")));
        assert_eq!(Key::from_setting("base64:Y2hhbmdlbWU=", no_file).unwrap(), plain);
        assert_eq!(Key::from_setting("file:k", |_| Ok(b"6368616e67656d65\n".to_vec())).unwrap(), plain);
        assert_eq!(Key::from_setting("", no_file).unwrap(), None);
        assert!(matches!(Key::from_setting("file:k", |_| Ok(b"xyz".to_vec())), Err(KeyError::NotHex { .. })));
        assert!(matches!(
            Key::from_setting("file:k", |_| Ok(b"-----BEGIN PRIVATE KEY-----".to_vec())),
            Err(KeyError::Pem { .. })
        ));
    }

    #[test]
    fn a_signer_signs_once_a_second() {
        let mut signer = Signer::new(Key::new(b"k"), "i");
        let first = signer.token(5).to_string();
        assert_eq!(signer.token(5), first);
        assert_ne!(signer.token(6), first);
    }

    #[test]
    fn a_token_that_never_runs_out_is_not_trusted() {
        let key = Key::new(b"k");
        for (claims, trusted) in [(r#"{"iss":"x"}"#, false), (r#"{"exp":"2000"}"#, false), (r#"{"exp":2000}"#, true)] {
            let signed = [r#"{"alg":"HS256"}"#, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
            let tag = URL_SAFE_NO_PAD.encode(key.0.clone().chain_update(signed.as_bytes()).finalize().into_bytes());
            assert_eq!(key.verify(format!("{signed}.{tag}").as_bytes(), 1000), trusted, "{claims}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_tokens_never_panic_nor_verify(token in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!Key::new(b"k").verify(&token, 0));
        }
    }
}
