// SPDX-License-Identifier: AGPL-3.0-or-later
//! Files that routes name.

use settings::keys::Key;

/// A certificate for backends that want to know who connects, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, and those between it and its authority.
    pub chain: String,
    /// Its private key.
    pub key: String,
}

/// Reads what lines name: files are the caller's business.
pub trait Files {
    /// A key as it is written in a line: `base64:...`, `file:...` or the secret itself.
    ///
    /// # Errors
    /// It can not be read, or is of no use.
    fn key(&self, text: &str) -> Result<Option<Key>, String>;

    /// The text of a file with certificates or keys.
    ///
    /// # Errors
    /// It can not be read.
    fn pem(&self, file: &str) -> Result<String, String>;

    /// Whether a backend can be shown a certificate and its key.
    ///
    /// # Errors
    /// One of them is damaged, or they do not belong together.
    fn pair(&self, pair: &ClientCertificate) -> Result<(), String>;
}

/// No files: there is no key, and no certificate.
impl Files for () {
    fn key(&self, _: &str) -> Result<Option<Key>, String> {
        Ok(None)
    }

    fn pem(&self, file: &str) -> Result<String, String> {
        Err(format!("{file} is not there"))
    }

    fn pair(&self, _: &ClientCertificate) -> Result<(), String> {
        Ok(())
    }
}
