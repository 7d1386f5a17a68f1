// SPDX-License-Identifier: AGPL-3.0-or-later
use super::*;
use proptest::prelude::*;

fn keys(secret: &[u8]) -> (SigningKey, VerifyingKey) {
    (SigningKey::from_secret(secret), VerifyingKey::from_secret(secret))
}

/// Pairs for these tests alone, made by openssl.
const PAIRS: [(&str, &str, &str); 4] = [
    ("ES256", include_str!("test_keys/ec.pem"), include_str!("test_keys/ec_public.pem")),
    ("ES256", include_str!("test_keys/ec_sec1.pem"), include_str!("test_keys/ec_public.pem")),
    ("RS256", include_str!("test_keys/rsa.pem"), include_str!("test_keys/rsa_public.pem")),
    ("RS256", include_str!("test_keys/rsa_pkcs1.pem"), include_str!("test_keys/rsa_public.pem")),
];

#[test]
fn a_token_has_head_claims_and_tag() {
    // Checked against another implementation: HMAC-SHA256 with the key "changeme".
    let token = SigningKey::from_secret(b"changeme").token("pushpin", 1_600_000_000).unwrap();
    let mut parts = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
    assert_eq!(parts.next().unwrap(), br#"{"typ":"JWT","alg":"HS256"}"#);
    assert_eq!(parts.next().unwrap(), br#"{"exp":1600003600,"iss":"pushpin"}"#);
    assert_eq!(parts.next().unwrap().len(), 32);
}

#[test]
fn a_token_is_good_for_its_key_and_its_hour() {
    let mut pairs = vec![keys(b"k")];
    for (algorithm, private, public) in PAIRS {
        let (private, public) = (SigningKey::from_pem(private).unwrap(), VerifyingKey::from_pem(public).unwrap());
        assert_eq!(format!("{private:?} {public:?}"), format!("SigningKey({algorithm}) VerifyingKey({algorithm})"));
        pairs.push((private, public));
    }
    for (at, (private, public)) in pairs.iter().enumerate() {
        let token = private.token("i", 1000).unwrap();
        assert!(public.accepts(token.as_bytes(), 1000));
        assert!(public.accepts(token.as_bytes(), 1000 + LIFETIME - 1));
        assert!(!public.accepts(token.as_bytes(), 1000 + LIFETIME));
        assert!(!VerifyingKey::from_secret(b"other").accepts(token.as_bytes(), 1000));
        let others = pairs.iter().filter(|(_, other)| format!("{other:?}") != format!("{public:?}"));
        assert_eq!(others.filter(|(_, other)| other.accepts(token.as_bytes(), 1000)).count(), 0, "{at}");
    }
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let (_, _, public) = PAIRS[0];
    let forged = SigningKey::from_secret(public.as_bytes()).token("i", 1000).unwrap();
    assert!(!VerifyingKey::from_pem(public).unwrap().accepts(forged.as_bytes(), 1000));
}

#[test]
fn keys_of_other_kinds_are_refused_with_a_reason() {
    let (_, private, public) = PAIRS[0];
    for text in ["", "6368616e67656d65", public, "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----"] {
        let refused = SigningKey::from_pem(text).unwrap_err();
        assert!(matches!(refused, KeyError::NoKey("private", _)), "{text}: {refused}");
    }
    assert!(matches!(VerifyingKey::from_pem(private).unwrap_err(), KeyError::NoKey("public", _)));
    let wrong = include_str!("test_keys/p384.pem");
    assert!(matches!(SigningKey::from_pem(wrong).unwrap_err(), KeyError::Private(_)));
    let short = include_str!("test_keys/rsa_1024_public.pem");
    assert_eq!(VerifyingKey::from_pem(short).unwrap_err(), KeyError::Public);
}

#[test]
fn a_changed_token_is_refused() {
    let (private, public) = keys(b"k");
    let token = private.token("i", 1000).unwrap();
    let (signed, _) = token.rsplit_once('.').unwrap();
    assert!(!public.accepts(signed.as_bytes(), 1000));
    assert!(!public.accepts(format!("{signed}.").as_bytes(), 1000));
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    assert!(!public.accepts(format!("{none}.{}.", URL_SAFE_NO_PAD.encode("{}")).as_bytes(), 1000));
}

#[test]
fn the_known_vector_of_rfc_7515_verifies() {
    // RFC 7515, appendix A.1.
    let secret = URL_SAFE_NO_PAD
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let key = VerifyingKey::from_secret(&secret);
    assert!(key.accepts(token.as_bytes(), 1_300_819_379));
    assert!(!key.accepts(token.as_bytes(), 1_300_819_380));
}

#[test]
fn a_signer_signs_once_a_second() {
    let mut signer = Signer::new(SigningKey::from_pem(PAIRS[0].1).unwrap(), "i");
    let first = signer.token(5).unwrap().to_string();
    assert_eq!(signer.token(5).unwrap(), first);
    assert_ne!(signer.token(6).unwrap(), first);
}

#[test]
fn a_token_that_never_runs_out_is_not_trusted() {
    let (private, public) = keys(b"k");
    for (claims, trusted) in [(r#"{"iss":"x"}"#, false), (r#"{"exp":"2000"}"#, false), (r#"{"exp":2000}"#, true)] {
        let signed = [r#"{"alg":"HS256"}"#, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let tag = URL_SAFE_NO_PAD.encode(private.sign(signed.as_bytes()).unwrap());
        assert_eq!(public.accepts(format!("{signed}.{tag}").as_bytes(), 1000), trusted, "{claims}");
    }
}

proptest! {
    #[test]
    fn arbitrary_tokens_never_panic_nor_verify(token in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(!VerifyingKey::from_secret(b"k").accepts(&token, 0));
        prop_assert!(!VerifyingKey::from_pem(PAIRS[0].2).unwrap().accepts(&token, 0));
    }

    #[test]
    fn damaged_keys_never_panic(pair in 0..PAIRS.len(), at in any::<prop::sample::Index>(), byte in any::<char>()) {
        for text in [PAIRS[pair].1, PAIRS[pair].2] {
            let mut damaged: Vec<char> = text.chars().collect();
            let at = at.index(damaged.len());
            damaged[at] = byte;
            let damaged: String = damaged.into_iter().collect();
            let _ = (SigningKey::from_pem(&damaged), VerifyingKey::from_pem(&damaged));
        }
    }
}
