// SPDX-License-Identifier: AGPL-3.0-or-later
//! Keys that sign tokens, and keys that verify them: a secret for both, or the private and the public half of a pair.
//!
//! The kind of the key decides about the algorithm, never the token. Pairs are on the curve P-256, or RSA of 2048 to 8192
//! bits. `ring` does the arithmetic; for signatures on the curve it asks the system for random numbers.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, RsaKeyPair, UnparsedPublicKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use sha2::Sha256;

/// Why a key in PEM can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no block of the kind that is wanted.
    #[error("the file has no {0} key in PEM (`{1}`)")]
    NoKey(&'static str, &'static str),
    /// It is a private key, but of another kind, or damaged.
    #[error("the private key is neither EC on the curve P-256 nor RSA of 2048 bits or more: {0}")]
    Private(String),
    /// It is a public key, but of another kind, or damaged.
    #[error("the public key is neither EC on the curve P-256 nor RSA of 2048 bits or more")]
    Public,
}

/// How a token says which algorithm it was signed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Hs256,
    Es256,
    Rs256,
}

impl Algorithm {
    pub(super) fn name(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Es256 => "ES256",
            Algorithm::Rs256 => "RS256",
        }
    }
}

/// A key that signs.
#[derive(Clone)]
pub struct SigningKey(Signing);

#[derive(Clone)]
enum Signing {
    Secret(Hmac<Sha256>),
    Ec(Arc<EcdsaKeyPair>),
    Rsa(Arc<RsaKeyPair>),
}

impl SigningKey {
    /// A secret shared with whoever verifies.
    pub fn from_secret(secret: &[u8]) -> Self {
        SigningKey(Signing::Secret(hmac(secret)))
    }

    /// The first private key of a text in PEM.
    ///
    /// # Errors
    /// There is none, or it is of a kind that is not supported.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes());
        let refused = |reason: ring::error::KeyRejected| KeyError::Private(reason.to_string());
        let curve = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let random = SystemRandom::new();
        let ec = |pair: EcdsaKeyPair| Signing::Ec(Arc::new(pair));
        let rsa = |pair: RsaKeyPair| Signing::Rsa(Arc::new(pair));
        match key.map_err(|_| KeyError::NoKey("private", "-----BEGIN PRIVATE KEY-----"))? {
            PrivateKeyDer::Pkcs8(key) => {
                let der = key.secret_pkcs8_der();
                let as_ec = EcdsaKeyPair::from_pkcs8(curve, der, &random).map(ec);
                as_ec.or_else(|_| RsaKeyPair::from_pkcs8(der).map(rsa)).map_err(refused)
            }
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()).map(rsa).map_err(refused),
            PrivateKeyDer::Sec1(key) => {
                let parts = der::ec_private_key(key.secret_sec1_der());
                let (number, point) = parts.ok_or_else(|| KeyError::Private("without its public half".into()))?;
                EcdsaKeyPair::from_private_key_and_public_key(curve, number, point, &random).map(ec).map_err(refused)
            }
            _ => Err(KeyError::Private("unknown kind".into())),
        }
        .map(SigningKey)
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self.0 {
            Signing::Secret(_) => Algorithm::Hs256,
            Signing::Ec(_) => Algorithm::Es256,
            Signing::Rsa(_) => Algorithm::Rs256,
        }
    }

    /// `None` if the system has no random numbers.
    pub(super) fn sign(&self, text: &[u8]) -> Option<Vec<u8>> {
        match &self.0 {
            Signing::Secret(hmac) => Some(hmac.clone().chain_update(text).finalize().into_bytes().to_vec()),
            Signing::Ec(pair) => Some(pair.sign(&SystemRandom::new(), text).ok()?.as_ref().to_vec()),
            Signing::Rsa(pair) => {
                let mut tag = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut tag).ok()?;
                Some(tag)
            }
        }
    }
}

/// A key that verifies.
#[derive(Clone)]
pub struct VerifyingKey(Verifying);

#[derive(Clone)]
enum Verifying {
    Secret(Hmac<Sha256>),
    /// A point of the curve.
    Ec(Vec<u8>),
    /// Modulus and exponent, in DER.
    Rsa(Vec<u8>),
}

impl VerifyingKey {
    /// A secret shared with whoever signs.
    pub fn from_secret(secret: &[u8]) -> Self {
        VerifyingKey(Verifying::Secret(hmac(secret)))
    }

    /// The first public key of a text in PEM.
    ///
    /// # Errors
    /// There is none, or it is of a kind that is not supported.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let key = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes());
        let key = key.map_err(|_| KeyError::NoKey("public", "-----BEGIN PUBLIC KEY-----"))?;
        match der::public_key(&key).ok_or(KeyError::Public)? {
            der::PublicKey::P256(point) => Ok(VerifyingKey(Verifying::Ec(point.to_vec()))),
            der::PublicKey::Rsa(numbers) => Ok(VerifyingKey(Verifying::Rsa(numbers.to_vec()))),
        }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self.0 {
            Verifying::Secret(_) => Algorithm::Hs256,
            Verifying::Ec(_) => Algorithm::Es256,
            Verifying::Rsa(_) => Algorithm::Rs256,
        }
    }

    /// Compares in constant time.
    pub(super) fn verify(&self, text: &[u8], tag: &[u8]) -> bool {
        match &self.0 {
            Verifying::Secret(hmac) => hmac.clone().chain_update(text).verify_slice(tag).is_ok(),
            Verifying::Ec(point) => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(text, tag).is_ok()
            }
            Verifying::Rsa(numbers) => {
                UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, numbers).verify(text, tag).is_ok()
            }
        }
    }
}

fn hmac(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret).expect("HMAC takes keys of any length")
}

/// Never shows the key.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.algorithm().name())
    }
}

/// Never shows the key.
impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.algorithm().name())
    }
}

/// The little of DER that stands between files and `ring`.
mod der {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    const BIT_STRING: u8 = 0x03;
    const OCTET_STRING: u8 = 0x04;
    const OBJECT_ID: u8 = 0x06;
    /// Parts of a private key.
    const CURVE: u8 = 0xa0;
    const POINT: u8 = 0xa1;
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    /// Shorter modulus and exponent have fewer than 2048 bits.
    const LEAST_RSA: usize = 256;

    pub enum PublicKey<'a> {
        /// An uncompressed point.
        P256(&'a [u8]),
        /// Modulus and exponent.
        Rsa(&'a [u8]),
    }

    /// What is in a `SubjectPublicKeyInfo` (RFC 5280, section 4.1).
    pub fn public_key(info: &[u8]) -> Option<PublicKey<'_>> {
        let (info, _) = element(SEQUENCE, info)?;
        let (algorithm, rest) = element(SEQUENCE, info)?;
        let (kind, parameters) = element(OBJECT_ID, algorithm)?;
        let key = element(BIT_STRING, rest)?.0.strip_prefix(&[0])?;
        match kind {
            RSA if key.len() >= LEAST_RSA => Some(PublicKey::Rsa(key)),
            EC if element(OBJECT_ID, parameters)?.0 == P256 && key.len() == 65 => Some(PublicKey::P256(key)),
            _ => None,
        }
    }

    /// The number and the point of an `ECPrivateKey` (RFC 5915, section 3).
    pub fn ec_private_key(key: &[u8]) -> Option<(&[u8], &[u8])> {
        let (key, _) = element(SEQUENCE, key)?;
        let (_version, rest) = element(INTEGER, key)?;
        let (number, rest) = element(OCTET_STRING, rest)?;
        let rest = element(CURVE, rest).map_or(rest, |(_, rest)| rest);
        let point = element(BIT_STRING, element(POINT, rest)?.0)?.0.strip_prefix(&[0])?;
        Some((number, point))
    }

    /// Takes an element off the front: its content, and what follows.
    fn element(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
        let (&found, rest) = input.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            ..=0x7f => (usize::from(first), rest),
            0x81 | 0x82 => {
                let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
                (length.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)), rest)
            }
            _ => return None,
        };
        (found == tag).then_some(())?;
        rest.split_at_checked(length)
    }
}
