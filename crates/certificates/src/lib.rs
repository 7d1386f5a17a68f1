// SPDX-License-Identifier: AGPL-3.0-or-later
//! Certificates for those who come with TLS: clients, and publishers (configuration, certificates).
//!
//! `NAME.crt` and `NAME.key` in the directory of certificates are for the site of that name, `_.PARENT.crt` for all names one
//! level below, `default_PORT.crt` for everybody else on that port. Files are looked at when a client comes, at most once a
//! second for each name, and read again when they have changed. A pair that can not be used leaves the one before in force.

#![forbid(unsafe_code)]

mod expiry;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// How long a pair is used without a look at its files.
const FRESH: Duration = Duration::from_secs(1);
/// Names that are remembered.
const MAX_NAMES: usize = 10_000;

/// Why a pair of files can not be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file can not be read, or has no PEM of that kind.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The key is not the certificate's, or of a kind that is not supported.
    #[error("{path}: {reason}")]
    Pair {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        reason: rustls::Error,
    },
    /// Nobody could be answered on a port.
    #[error("TLS: there is neither {0} nor a certificate for any name")]
    None(PathBuf),
}

/// All certificates of a directory.
#[derive(Debug)]
pub struct Certificates {
    directory: PathBuf,
    provider: Arc<CryptoProvider>,
    known: Mutex<HashMap<String, Known>>,
}

#[derive(Debug)]
struct Known {
    pair: Arc<CertifiedKey>,
    /// In seconds since 1970.
    expires: Option<i64>,
    changed: Option<(SystemTime, SystemTime)>,
    looked_at: Instant,
}

impl Certificates {
    /// Those in this directory.
    pub fn new(directory: &Path) -> Arc<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Arc::new(Certificates { directory: directory.into(), provider, known: Mutex::default() })
    }

    /// How TLS is spoken on a port, without tickets.
    ///
    /// # Errors
    /// There is no certificate that could be used there.
    pub fn for_port(self: &Arc<Self>, port: u16) -> Result<ServerConfig, CertificateError> {
        let default = format!("default_{port}");
        if self.find(&default).is_none() {
            let file = self.file(&default, "crt");
            if file.exists() {
                self.read(&default)?;
            }
            if !self.has_any() {
                return Err(CertificateError::None(file));
            }
        }
        let resolver = Arc::new(Resolver { certificates: self.clone(), default });
        let builder = ServerConfig::builder_with_provider(self.provider.clone()).with_safe_default_protocol_versions();
        // ring has what these versions need.
        let builder = builder.unwrap_or_else(|error| unreachable!("{error}"));
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// When those that are used expire, in seconds since 1970: up to `max` by name, those that expire first. Used are those of
    /// ports, and of names that clients have asked for.
    pub fn expiries(&self, max: usize) -> Vec<(String, i64)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |(name, entry): (&String, &Known)| Some((name.clone(), entry.expires?));
        let mut expiries: Vec<_> = known.iter().filter_map(of).collect();
        expiries.sort_by(|(one, its), (other, others)| its.cmp(others).then_with(|| one.cmp(other)));
        expiries.truncate(max);
        expiries
    }

    fn has_any(&self) -> bool {
        let files = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        files.map(|file| file.path()).any(|path| path.extension().is_some_and(|extension| extension == "crt"))
    }

    fn file(&self, name: &str, extension: &str) -> PathBuf {
        self.directory.join(format!("{name}.{extension}"))
    }

    /// The pair of this name, if there is one that can be used.
    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(entry) = known.get(name).filter(|entry| now.duration_since(entry.looked_at) < FRESH) {
            return Some(entry.pair.clone());
        }
        let changed = self.changed(name);
        if let Some(entry) = known.get_mut(name) {
            entry.looked_at = now;
            // Files that are gone, or half replaced, do not take away what worked.
            if changed.is_none() || changed == entry.changed {
                return Some(entry.pair.clone());
            }
        } else if changed.is_none() || known.len() >= MAX_NAMES {
            return None;
        }
        match self.read(name) {
            Ok(pair) => {
                if known.contains_key(name) {
                    tracing::info!("the certificate {name} has changed and is used from now on");
                }
                let pair = Arc::new(pair);
                let expires = pair.cert.first().and_then(|der| expiry::not_after(der));
                known.insert(name.to_owned(), Known { pair: pair.clone(), expires, changed, looked_at: now });
                Some(pair)
            }
            Err(error) => {
                let before = known.get_mut(name).map(|entry| {
                    entry.changed = changed;
                    entry.pair.clone()
                });
                let kept = if before.is_some() { "; the one before stays in use" } else { "" };
                tracing::error!("a certificate can not be used: {error}{kept}");
                before
            }
        }
    }

    fn changed(&self, name: &str) -> Option<(SystemTime, SystemTime)> {
        let time = |extension| fs::metadata(self.file(name, extension)).and_then(|file| file.modified()).ok();
        Some((time("crt")?, time("key")?))
    }

    fn read(&self, name: &str) -> Result<CertifiedKey, CertificateError> {
        let path = self.file(name, "crt");
        let error = |path: &Path, reason: String| CertificateError::File { path: path.into(), reason };
        let chain = CertificateDer::pem_file_iter(&path).and_then(|chain| chain.collect::<Result<Vec<_>, _>>());
        let chain = chain.map_err(|reason| error(&path, reason.to_string()))?;
        if chain.is_empty() {
            return Err(error(&path, "there is no certificate in it".into()));
        }
        let key_path = self.file(name, "key");
        let key = PrivateKeyDer::from_pem_file(&key_path).map_err(|reason| error(&key_path, reason.to_string()))?;
        CertifiedKey::from_der(chain, key, &self.provider).map_err(|reason| CertificateError::Pair { path, reason })
    }
}

/// Finds the certificate for what a client asks for.
#[derive(Debug)]
struct Resolver {
    certificates: Arc<Certificates>,
    default: String,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        names(name.as_deref()).chain([self.default.clone()]).find_map(|name| self.certificates.find(&name))
    }
}

/// The files that may have the certificate for a name. What could lead out of the directory is none.
fn names(name: Option<&str>) -> impl Iterator<Item = String> {
    let harmless = |name: &&str| {
        !name.starts_with(['.', '_', '-'])
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    let name = name.filter(harmless);
    let parent = name.and_then(|name| name.split_once('.')).map(|(_, parent)| format!("_.{parent}"));
    name.map(str::to_owned).into_iter().chain(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_itself_and_then_its_parent() {
        let found = |name| names(name).collect::<Vec<_>>();
        assert_eq!(found(Some("www.example.com")), ["www.example.com", "_.example.com"]);
        assert_eq!(found(Some("localhost")), ["localhost"]);
        for name in ["../etc", "a/b", ".hidden", "_.example.com", "default_443/../x", ""] {
            let names = found(Some(name));
            assert!(names.iter().all(|name| !name.contains('/') && !name.starts_with('.')), "{names:?}");
        }
        assert_eq!(found(None), [""; 0]);
    }

    fn write(directory: &Path, name: &str, site: &str) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new([site.to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::write(directory.join(format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_port_without_any_certificate_says_which_file_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let error = Certificates::new(directory.path()).for_port(443).unwrap_err().to_string();
        assert!(error.contains("default_443.crt"), "{error}");
        write(directory.path(), "default_443", "h");
        assert!(Certificates::new(directory.path()).for_port(443).is_ok());
        fs::write(directory.path().join("default_443.key"), "nonsense").unwrap();
        let error = Certificates::new(directory.path()).for_port(443).unwrap_err().to_string();
        assert!(error.contains("default_443.key"), "{error}");
    }

    #[test]
    fn a_pair_that_changes_is_read_again_and_a_bad_one_leaves_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "a.com", "a.com");
        let certificates = Certificates::new(directory.path());
        let look_again = || {
            for entry in certificates.known.lock().unwrap().values_mut() {
                entry.looked_at -= FRESH;
                entry.changed = None;
            }
            certificates.find("a.com").map(|pair| pair.cert[0].to_vec())
        };
        let first = look_again().unwrap();
        assert_eq!(look_again().as_ref(), Some(&first));
        write(directory.path(), "a.com", "a.com");
        let second = look_again().unwrap();
        assert_ne!(first, second);
        // The key of another certificate.
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(directory.path().join("a.com.key"), key.serialize_pem()).unwrap();
        assert_eq!(look_again().as_ref(), Some(&second));
        fs::remove_file(directory.path().join("a.com.crt")).unwrap();
        assert_eq!(look_again().as_ref(), Some(&second));
        assert!(certificates.find("b.com").is_none());
    }
}
