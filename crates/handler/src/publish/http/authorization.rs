// SPDX-License-Identifier: AGPL-3.0-or-later
//! Who may publish over HTTP: whoever has a token (RFC 6750) that is known, or signed with the right key.
//!
//! A signed token is a JSON Web Token (RFC 7519) with the claim `exp`, as the client libraries of GRIP send it. `iss` must be
//! the one that is set, if one is; `nbf` counts. `channels`, an array of names, limits what it is good for; a name that ends
//! with `*` stands for all that begin so.

use grip::signature::{KeyError, VerifyingKey};
use serde_json::Value;
use settings::keys::Key;
use sha2::{Digest as _, Sha256};

use crate::subscribe::counts::is_among;

/// Seconds by which the clock of whoever made a token may be ahead of ours.
const AHEAD: f64 = 60.0;

/// What is known of tokens.
#[derive(Debug, Default)]
pub struct Gate {
    key: Option<VerifyingKey>,
    issuer: Option<String>,
    /// The hash of the token that is good as it is, so that comparing takes as long whatever is sent.
    token: Option<[u8; 32]>,
}

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Everything.
    All,
    /// Publishing to these channels, each the name of one or, with `*` at its end, the beginning of several.
    Channels(Vec<String>),
}

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no bearer token.
    #[error("Unauthorized: send a token as `Authorization: Bearer TOKEN`.")]
    Missing,
    /// It is not known, or not good (any more). The reason is told only of those that were signed with our key.
    #[error("Unauthorized: {0}.")]
    Invalid(&'static str),
    /// It is good, but not for this.
    #[error("Forbidden: the token does not allow {0}.")]
    Forbidden(String),
}

impl Gate {
    /// Checks against a key, an issuer, and a token. With neither key nor token everybody is let in.
    ///
    /// # Errors
    /// The key is in PEM, and not a public one of a kind that is supported.
    pub fn new(key: Option<&Key>, issuer: Option<&str>, token: Option<&Key>) -> Result<Self, KeyError> {
        let key = match key {
            None => None,
            Some(Key::Secret(secret)) => Some(VerifyingKey::from_secret(secret)),
            Some(Key::Pem(text)) => Some(VerifyingKey::from_pem(text)?),
        };
        let token = token.map(|token| match token {
            Key::Secret(secret) => hash(secret),
            Key::Pem(text) => hash(text.as_bytes()),
        });
        Ok(Gate { key, issuer: issuer.map(str::to_string), token })
    }

    /// Whether anybody is turned away.
    pub fn is_closed(&self) -> bool {
        self.key.is_some() || self.token.is_some()
    }

    /// Looks at the value of an `Authorization` header. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// There is no token, or it is not good.
    pub fn admit(&self, authorization: Option<&[u8]>, now: u64) -> Result<Grant, Refusal> {
        if !self.is_closed() {
            return Ok(Grant::All);
        }
        let token = authorization.and_then(bearer).ok_or(Refusal::Missing)?;
        if self.token.is_some_and(|good| good == hash(token)) {
            return Ok(Grant::All);
        }
        let claims = self.key.as_ref().and_then(|key| key.claims(token));
        let claims = claims.ok_or(Refusal::Invalid("the token is not known, or not signed with our key"))?;
        self.check(&claims, now as f64)
    }

    fn check(&self, claims: &Value, now: f64) -> Result<Grant, Refusal> {
        let invalid = |reason| Err(Refusal::Invalid(reason));
        match claims.get("exp").map(Value::as_f64) {
            Some(Some(exp)) if exp > now => {}
            Some(Some(_)) => return invalid("the token has run out"),
            Some(None) | None => return invalid("the token does not say when it runs out (`exp`)"),
        }
        match claims.get("nbf").map(Value::as_f64) {
            None => {}
            Some(Some(nbf)) if nbf <= now + AHEAD => {}
            Some(_) => return invalid("the token is not good yet (`nbf`)"),
        }
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return invalid("the token is of another issuer (`iss`)");
        }
        let Some(channels) = claims.get("channels") else { return Ok(Grant::All) };
        let names =
            channels.as_array().and_then(|names| names.iter().map(|n| n.as_str().map(str::to_string)).collect());
        names.map(Grant::Channels).ok_or(Refusal::Invalid("`channels` of the token is not an array of names"))
    }
}

impl Grant {
    /// Whether this channel may be published to.
    ///
    /// # Errors
    /// It may not.
    pub fn check(&self, channel: &str) -> Result<(), Refusal> {
        match self {
            Grant::Channels(names) if !is_among(channel, names) => {
                Err(Refusal::Forbidden(format!("the channel `{}`", channel.escape_debug())))
            }
            _ => Ok(()),
        }
    }

    /// The names, and beginnings with `*`, to which it is limited.
    pub fn names(&self) -> Option<Vec<String>> {
        match self {
            Grant::All => None,
            Grant::Channels(names) => Some(names.clone()),
        }
    }

    /// Whether more than publishing is allowed.
    ///
    /// # Errors
    /// It is not: the grant is for channels.
    pub fn check_all(&self) -> Result<(), Refusal> {
        match self {
            Grant::All => Ok(()),
            Grant::Channels(_) => Err(Refusal::Forbidden("this, since it is limited to channels".into())),
        }
    }
}

/// The token of an `Authorization` header.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

fn hash(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use hmac::{Hmac, KeyInit as _, Mac as _};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn gate() -> Gate {
        let token = Key::Secret(b"plain-token".to_vec());
        Gate::new(Some(&Key::Secret(b"secret".to_vec())), Some("site"), Some(&token)).unwrap()
    }

    /// Signed by HS256 with any head and claims.
    fn jwt_with(head: &str, claims: &str, secret: &[u8]) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
        let tag = Hmac::<Sha256>::new_from_slice(secret).unwrap().chain_update(&signed).finalize().into_bytes();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    fn jwt(claims: &str) -> String {
        jwt_with(r#"{"typ":"JWT","alg":"HS256"}"#, claims, b"secret")
    }

    fn admit(authorization: &str) -> Result<Grant, Refusal> {
        gate().admit(Some(authorization.as_bytes()), NOW)
    }

    const GOOD: &str = r#"{"iss":"site","exp":1800000001}"#;

    #[test]
    fn wrong_expired_and_missing_tokens_are_turned_away() {
        let good = jwt(GOOD);
        let (signed, tag) = good.rsplit_once('.').unwrap();
        let (head, claims) = signed.split_once('.').unwrap();
        let none = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let table = [
            String::new(),
            "Bearer".into(),
            "Bearer ".into(),
            "Basic cGxhaW4tdG9rZW46".into(),
            "plain-token".into(),
            "Bearer plain-toke".into(),
            "Bearer plain-token2".into(),
            "Bearer PLAIN-TOKEN".into(),
            "Bearer plain-token plain-token".into(),
            "Token plain-token".into(),
            "Bearer secret".into(),
            "Bearer \u{fffd}".into(),
            good.clone(),
            format!("Basic {good}"),
            format!("Bearer {signed}"),
            format!("Bearer {signed}."),
            format!("Bearer {signed}.{}", &tag[1..]),
            format!("Bearer {head}.{claims}A.{tag}"),
            format!("Bearer .{claims}.{tag}"),
            format!("Bearer {}.{claims}.", none(r#"{"typ":"JWT","alg":"none"}"#)),
            format!("Bearer {}", jwt_with(r#"{"typ":"JWT","alg":"none"}"#, GOOD, b"secret")),
            format!("Bearer {}", jwt_with(r#"{"typ":"JWT","alg":"RS256"}"#, GOOD, b"secret")),
            format!("Bearer {}", jwt_with(r#"{"typ":"JWT","alg":"HS512"}"#, GOOD, b"secret")),
            format!("Bearer {}", jwt_with(r#"{"typ":"JWT"}"#, GOOD, b"secret")),
            format!("Bearer {}", jwt_with(r#"{"typ":"JWT","alg":"HS256"}"#, GOOD, b"")),
            format!("Bearer {}", jwt_with(r#"{"typ":"JWT","alg":"HS256"}"#, GOOD, b"other")),
            format!("Bearer {}", jwt(r#"{"iss":"site","exp":1800000000}"#)),
            format!("Bearer {}", jwt(r#"{"iss":"site","exp":0}"#)),
            format!("Bearer {}", jwt(r#"{"iss":"site","exp":"1900000000"}"#)),
            format!("Bearer {}", jwt(r#"{"iss":"site"}"#)),
            format!("Bearer {}", jwt(r#"{"iss":"other","exp":1800000001}"#)),
            format!("Bearer {}", jwt(r#"{"exp":1800000001}"#)),
            format!("Bearer {}", jwt(r#"{"iss":["site"],"exp":1800000001}"#)),
            format!("Bearer {}", jwt(r#"{"iss":"site","exp":1800000001,"nbf":1800000061}"#)),
            format!("Bearer {}", jwt(r#"{"iss":"site","exp":1800000001,"nbf":"now"}"#)),
            format!("Bearer {}", jwt(r#"{"iss":"site","exp":1800000001,"channels":"news"}"#)),
            format!("Bearer {}", jwt(r#"{"iss":"site","exp":1800000001,"channels":["a",1]}"#)),
            format!("Bearer {}", jwt(r#"["iss","site"]"#)),
            format!("Bearer {}", jwt("")),
        ];
        for authorization in &table {
            let outcome = admit(authorization);
            assert!(matches!(outcome, Err(Refusal::Missing | Refusal::Invalid(_))), "{authorization}: {outcome:?}");
        }
        assert_eq!(gate().admit(None, NOW), Err(Refusal::Missing));
        // What the table is made from is good.
        for authorization in [format!("Bearer {good}"), format!("bearer  {good} "), "BEARER plain-token".into()] {
            assert_eq!(admit(&authorization), Ok(Grant::All), "{authorization}");
        }
        assert_eq!(admit(&format!("Bearer {}", jwt(r#"{"iss":"site","exp":1.9e9,"nbf":1800000060}"#))), Ok(Grant::All));
    }

    #[test]
    fn a_token_may_be_for_some_channels_only() {
        let token = jwt(r#"{"iss":"site","exp":1800000001,"channels":["news","user-7-*"]}"#);
        let grant = admit(&format!("Bearer {token}")).unwrap();
        for channel in ["news", "user-7-", "user-7-x"] {
            assert_eq!(grant.check(channel), Ok(()), "{channel}");
        }
        for channel in ["", "new", "news2", "News", "user-7", "user-70-x", "*"] {
            let refusal = Refusal::Forbidden(format!("the channel `{channel}`"));
            assert_eq!(grant.check(channel), Err(refusal));
        }
        assert!(grant.check_all().is_err() && Grant::All.check_all().is_ok());
        assert!(Grant::Channels(Vec::new()).check("news").is_err());
        assert_eq!(Grant::Channels(vec!["*".into()]).check("any"), Ok(()));
    }

    #[test]
    fn without_key_and_token_everybody_is_let_in() {
        let open = Gate::new(None, Some("site"), None).unwrap();
        assert_eq!(open.admit(None, NOW), Ok(Grant::All));
        assert_eq!(open.admit(Some(b"Bearer nonsense"), NOW), Ok(Grant::All));
    }

    #[test]
    fn pairs_of_keys_work_as_well_and_a_public_key_is_no_secret() {
        let file = |name| format!("{}/../grip/src/signature/test_keys/{name}.pem", env!("CARGO_MANIFEST_DIR"));
        let read = |name| std::fs::read_to_string(file(name)).unwrap();
        for (private, public) in [("ec", "ec_public"), ("rsa", "rsa_public")] {
            let public = read(public);
            let gate = Gate::new(Some(&Key::Pem(public.clone())), None, None).unwrap();
            let token = grip::signature::SigningKey::from_pem(&read(private)).unwrap().token("i", NOW).unwrap();
            assert_eq!(gate.admit(Some(format!("Bearer {token}").as_bytes()), NOW), Ok(Grant::All));
            let forged = jwt_with(r#"{"alg":"HS256"}"#, GOOD, public.as_bytes());
            assert!(gate.admit(Some(format!("Bearer {forged}").as_bytes()), NOW).is_err());
        }
        assert!(Gate::new(Some(&Key::Pem(read("ec"))), None, None).is_err(), "a private key is none to check with");
    }
}
