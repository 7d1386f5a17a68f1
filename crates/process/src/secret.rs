// SPDX-License-Identifier: AGPL-3.0-or-later
//! A secret that the runner hands down to processes that have to have it alike.
//!
//! It follows the configuration on the same socket, as a second tnetstring, which programs of an older version do not look
//! at. It is in no file, in no environment and in no log.

use std::fmt;
use std::ops::Deref;

/// Bytes that are not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// What a process is handed that gets this configuration and the secret.
    pub fn append_to(&self, configuration: &[u8]) -> Vec<u8> {
        [configuration, format!("{}:", self.0.len()).as_bytes(), &self.0, b","].concat()
    }

    /// The secret that came with a configuration, if one did.
    pub fn behind_configuration(bytes: &[u8]) -> Option<Self> {
        let (_, rest) = tnetstring::split(bytes).ok()?;
        let (secret, _) = tnetstring::split(rest).ok()?;
        Some(Secret(secret.as_bytes().ok()?.to_vec()))
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Secret(bytes)
    }
}

impl Deref for Secret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_behind_the_configuration_which_is_read_as_without_it() {
        let configuration = settings::Raw::read(&settings::Source {
            origin: settings::Origin::Text("[proxy]\ndebug=true\n".into()),
            ..settings::Source::default()
        });
        let configuration = configuration.unwrap();
        let bytes = configuration.to_bytes();
        assert_eq!(Secret::behind_configuration(&bytes), None);
        let secret = Secret::from(vec![0, b',', 255]);
        let both = secret.append_to(&bytes);
        assert_eq!(Secret::behind_configuration(&both), Some(secret));
        assert_eq!(settings::Raw::from_bytes(&both).unwrap(), configuration);
        for i in bytes.len()..both.len() {
            assert_eq!(Secret::behind_configuration(&both[..i]), None);
        }
    }

    #[test]
    fn it_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::from(b"key".to_vec())), "Secret(..)");
    }
}
