// SPDX-License-Identifier: AGPL-3.0-or-later
//! Certificates for those who come with TLS: clients, and publishers (configuration, certificates).
//!
//! `NAME.crt` and `NAME.key` in the directory of certificates are for the site of that name, `_.PARENT.crt` for all names one
//! level below, `default_PORT.crt` for everybody else on that port. Files are looked at when a client comes, at most once a
//! second for each name, and read again when they have changed. A pair that can not be used leaves the one before in force,
//! and the log says so once.

#![forbid(unsafe_code)]

mod expiry;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use settings::plain_file;

/// How long a pair is used without a look at its files.
const FRESH: Duration = Duration::from_secs(1);
/// Names that are remembered.
const MAX_NAMES: usize = 10_000;
/// Bytes that a file may have.
const MAX_FILE: u64 = 1 << 20;

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

/// When certificate and key, or their permissions, were changed; one that is not there has no time.
type Changed = [Option<(i64, i64)>; 2];
const NO_FILES: Changed = [None; 2];

/// A name for which there are files, or have been.
#[derive(Debug)]
struct Known {
    /// None if no pair of this name could be used yet.
    pair: Option<Arc<CertifiedKey>>,
    /// In seconds since 1970.
    expires: Option<i64>,
    changed: Changed,
    /// Whether the files as they are could be used.
    good: bool,
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
            return entry.pair.clone();
        }
        let changed = self.changed(name);
        if !known.contains_key(name) && (changed == NO_FILES || known.len() >= MAX_NAMES) {
            return None;
        }
        let none = Known { pair: None, expires: None, changed: NO_FILES, good: false, looked_at: now };
        let entry = known.entry(name.to_owned()).or_insert(none);
        entry.looked_at = now;
        let same = std::mem::replace(&mut entry.changed, changed) == changed;
        if same && entry.good {
            return entry.pair.clone();
        }
        let read = self.read(name);
        entry.good = read.is_ok();
        match read {
            Ok(pair) => {
                if entry.pair.as_ref().is_some_and(|before| before.cert != pair.cert) {
                    tracing::info!("the certificate {name} has changed and is used from now on");
                }
                entry.expires = pair.cert.first().and_then(|der| expiry::not_after(der));
                entry.pair = Some(Arc::new(pair));
            }
            Err(_) if same => {}
            // Files that are gone, or half replaced, do not take away what worked.
            Err(error) => {
                let kept = if entry.pair.is_some() { "; the one before stays in use" } else { "" };
                tracing::error!("a certificate can not be used: {error}{kept}");
            }
        }
        entry.pair.clone()
    }

    fn changed(&self, name: &str) -> Changed {
        let time =
            |extension| fs::metadata(self.file(name, extension)).ok().map(|file| (file.ctime(), file.ctime_nsec()));
        ["crt", "key"].map(time)
    }

    fn read(&self, name: &str) -> Result<CertifiedKey, CertificateError> {
        let read = |path: &Path| {
            let reason =
                |reason: std::io::Error| CertificateError::File { path: path.into(), reason: reason.to_string() };
            plain_file::read(path, MAX_FILE).map_err(reason)
        };
        let error = |path: &Path, reason: String| CertificateError::File { path: path.into(), reason };
        let path = self.file(name, "crt");
        let chain = CertificateDer::pem_slice_iter(&read(&path)?).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|reason| error(&path, reason.to_string()))?;
        if chain.is_empty() {
            return Err(error(&path, "there is no certificate in it".into()));
        }
        let key_path = self.file(name, "key");
        let key = PrivateKeyDer::from_pem_slice(&read(&key_path)?);
        let key = key.map_err(|reason| error(&key_path, reason.to_string()))?;
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
                entry.good = false;
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

    #[test]
    fn a_pair_that_can_not_be_used_is_told_once_each_time_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "a.com", "a.com");
        let certificates = Certificates::new(directory.path());
        let look_again = || {
            certificates.known.lock().unwrap().values_mut().for_each(|entry| entry.looked_at -= FRESH);
            certificates.find("a.com").is_some()
        };
        let path = |extension| directory.path().join(format!("a.com.{extension}"));
        let log = Log::default();
        tracing::subscriber::with_default(log.clone(), || {
            assert!(look_again());
            for (step, told) in [
                (&(|| fs::remove_file(path("key")).unwrap()) as &dyn Fn(), "a.com.key: No such file"),
                (&|| fs::remove_file(path("crt")).unwrap(), "a.com.crt: No such file"),
                (&|| nix::unistd::mkfifo(&path("crt"), nix::sys::stat::Mode::S_IRWXU).unwrap(), "regular file"),
            ] {
                step();
                assert!((0..5).all(|_| look_again()));
                let lines = std::mem::take(&mut *log.0.lock().unwrap());
                assert!(matches!(&lines[..], [line] if line.contains(told)), "{told}: {lines:?}");
            }
            // Not even for those that never could be used.
            fs::write(directory.path().join("b.com.crt"), "nonsense").unwrap();
            for _ in 0..5 {
                assert!(certificates.find("b.com").is_none());
                look_again();
            }
            assert_eq!(log.0.lock().unwrap().len(), 1);
            write(directory.path(), "b.com", "b.com");
            look_again();
            assert!(certificates.find("b.com").is_some());
        });
    }

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<String>>>);

    impl tracing::Subscriber for Log {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            struct Text(String);
            impl tracing::field::Visit for Text {
                fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                    self.0 += &format!("{value:?}");
                }
            }
            let mut text = Text(String::new());
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }
}
