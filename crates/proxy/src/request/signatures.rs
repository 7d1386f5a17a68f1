// SPDX-License-Identifier: AGPL-3.0-or-later
//! Grip-Sig tokens.

use std::collections::HashMap;

use grip::signature::{KeyError, Signer, SigningKey, VerifyingKey};
use routes::Route;
use settings::keys::Key;

/// Grip-Sig tokens, made at most once a second for each issuer and key.
pub struct Signatures {
    issuer: String,
    key: Option<Key>,
    general: Option<Signer>,
    /// Those of routes that have an issuer or a key of their own, by the line of the route. Ids may be shared.
    by_route: HashMap<usize, Option<Signer>>,
}

impl Signatures {
    /// Those of an issuer with a key, where routes have none of their own.
    pub fn new(issuer: &str, key: Option<&Key>) -> Self {
        Signatures { issuer: issuer.into(), key: key.cloned(), general: signer(issuer, key), by_route: HashMap::new() }
    }

    /// The token for requests of a route, if they are signed.
    pub fn token(&mut self, route: &Route, unix: u64) -> Option<&str> {
        if route.grip { self.token_for_events(route, unix) } else { None }
    }

    /// The token for requests with WebSocket events, which are signed on every route: backends take events from nobody else.
    pub fn token_for_events(&mut self, route: &Route, unix: u64) -> Option<&str> {
        let signer = if route.sig_iss.is_none() && route.sig_key.is_none() {
            &mut self.general
        } else {
            if !self.by_route.contains_key(&route.line) {
                let issuer = route.sig_iss.as_deref().unwrap_or(&self.issuer);
                let key = route.sig_key.as_ref().or(self.key.as_ref());
                self.by_route.insert(route.line, signer(issuer, key));
            }
            self.by_route.get_mut(&route.line)?
        };
        signer.as_mut()?.token(unix)
    }

    /// Forgets the routes' keys, because the routes have changed.
    pub fn forget_routes(&mut self) {
        self.by_route.clear();
    }
}

fn signer(issuer: &str, key: Option<&Key>) -> Option<Signer> {
    let key = key.filter(|_| !issuer.is_empty())?;
    // Keys that can't be used were refused when they were read.
    signing_key(key).ok().map(|key| Signer::new(key, issuer))
}

/// A key in the form that signs.
///
/// # Errors
/// It is no private key of a kind that is supported.
pub fn signing_key(key: &Key) -> Result<SigningKey, KeyError> {
    match key {
        Key::Secret(secret) => Ok(SigningKey::from_secret(secret)),
        Key::Pem(text) => SigningKey::from_pem(text),
    }
}

/// A key in the form that verifies.
///
/// # Errors
/// It is no public key of a kind that is supported.
pub fn verifying_key(key: &Key) -> Result<VerifyingKey, KeyError> {
    match key {
        Key::Secret(secret) => Ok(VerifyingKey::from_secret(secret)),
        Key::Pem(text) => VerifyingKey::from_pem(text),
    }
}
