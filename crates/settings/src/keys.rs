// SPDX-License-Identifier: AGPL-3.0-or-later
//! Keys of the GRIP signature as they are written in settings and routes.

use std::fmt;
use std::path::Path;

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine as _, GeneralPurpose, GeneralPurposeConfig};

use crate::plain_file;

/// Bytes that a file with a key or certificates may have.
const MAX_FILE: u64 = 1 << 20;

/// A key to sign or verify with.
#[derive(Clone, PartialEq, Eq)]
pub enum Key {
    /// Shared secret for HS256.
    Secret(Vec<u8>),
    /// PEM text, an EC or RSA key.
    Pem(String),
}

/// Where the texts of key files come from.
pub trait KeyFiles {
    /// The text of the file that stands behind `file:`, or why there is none.
    fn read(&self, name: &str) -> Result<String, String>;
}

/// Key files on disk, relative to this directory.
impl KeyFiles for Path {
    fn read(&self, name: &str) -> Result<String, String> {
        let path = self.join(name);
        plain_file::read_text(&path, MAX_FILE).map_err(|e| format!("can't read {}: {e}", path.display()))
    }
}

impl Key {
    /// Reads a key string: `base64:...` (padding may be missing; `-` and `_` are skipped as in Pushpin), `file:...` (PEM, or the secret in
    /// hexadecimal), or the secret itself. An empty string is no key.
    pub fn parse(text: &str, files: &(impl KeyFiles + ?Sized)) -> Result<Option<Self>, String> {
        if let Some(encoded) = text.strip_prefix("base64:") {
            let secret =
                decode_base64(encoded).map_err(|e| format!("what follows `base64:` cannot be decoded ({e})"))?;
            return Ok(Some(Self::Secret(secret)));
        }
        if let Some(name) = text.strip_prefix("file:") {
            let content = files.read(name)?;
            if content.starts_with("-----BEGIN") {
                return Ok(Some(Self::Pem(content)));
            }
            let secret = decode_hex(content.trim())
                .ok_or_else(|| format!("{name} must hold a PEM key or a secret in hexadecimal"))?;
            return Ok(Some(Self::Secret(secret)));
        }
        Ok((!text.is_empty()).then(|| Self::Secret(text.as_bytes().to_vec())))
    }
}

fn decode_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    // Libraries of backends do the same, so that keys with these are in use.
    GeneralPurpose::new(&alphabet::STANDARD, LENIENT).decode(text.replace(['-', '_'], ""))
}

impl fmt::Debug for Key {
    /// Never shows the key: settings are printed in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret(..)",
            Self::Pem(_) => "Pem(..)",
        })
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() || !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<Key>, String> {
        Key::parse(text, Path::new("."))
    }

    #[test]
    fn plain_text_is_the_secret() {
        assert_eq!(parse("changeme"), Ok(Some(Key::Secret(b"changeme".to_vec()))));
        assert_eq!(parse(""), Ok(None));
    }

    #[test]
    fn base64_is_decoded_or_refused() {
        assert_eq!(parse("base64:AAE="), Ok(Some(Key::Secret(vec![0, 1]))));
        for text in ["base64:c2VjcmV0LWtleQ==", "base64:c2VjcmV0LWtleQ"] {
            assert_eq!(parse(text), Ok(Some(Key::Secret(b"secret-key".to_vec()))));
        }
        assert_eq!(parse("base64:aGk_-2Zvb29v"), parse("base64:aGk2Zvb29v"));
        assert!(parse("base64:!").unwrap_err().contains("base64:"));
    }

    #[test]
    fn a_missing_key_file_is_named() {
        assert!(parse("file:/nowhere/key").unwrap_err().contains("/nowhere/key"));
    }

    #[test]
    fn hexadecimal_is_decoded() {
        assert_eq!(decode_hex("00fF"), Some(vec![0, 255]));
        assert_eq!(decode_hex("0"), None);
        assert_eq!(decode_hex("zz"), None);
    }
}
