// SPDX-License-Identifier: AGPL-3.0-or-later
//! The routes file: when it is read, and what is done about a broken one.
//!
//! It is looked at instead of watched, because it may be replaced, be on a network, or not be there yet; two looks a
//! second cost nothing. While the proxy runs, a file with any mistake is refused as a whole and the routes read before stay, since
//! half of somebody's routes is worse than yesterday's. At the start there are none to keep, so what can be used of the file is
//! used, as in Pushpin, and every mistake is an error in the log.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use routes::{ClientCertificate, Files, Problem, Table};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use settings::keys::{Key, KeyFiles};
use settings::plain_file;
use settings::routes::RoutesSource;

use crate::request::signatures::signing_key;

/// A changed file is read when it has not changed again for so long, because editors and scripts write in several steps.
const QUIET: Duration = Duration::from_secs(1);
/// A file that keeps changing is read after so long all the same.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a file with a certificate or its key.
const MAX_PEM: usize = 65_536;
/// Bytes that the file may have.
const MAX_FILE: u64 = 64 << 20;
/// Mistakes that one line in the log tells of.
const TOLD: usize = 10;

/// The routes file.
pub struct RoutesFile {
    source: RoutesSource,
    seen: Option<Stamp>,
    changes: Option<Changes>,
    /// Number of routes in use.
    count: usize,
}

/// What tells one version of the file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    /// Of the content or of the permissions: it may be that only now it can be read.
    changed: (i64, i64),
    inode: u64,
    length: u64,
}

/// Changes that have been seen and not read.
#[derive(Clone, Copy)]
struct Changes {
    first: Instant,
    last: Instant,
}

impl RoutesFile {
    /// Nothing has been read yet.
    pub fn new(source: RoutesSource) -> Self {
        RoutesFile { source, seen: None, changes: None, count: 0 }
    }

    /// Reads the routes at the start: whatever of them can be used.
    pub fn load(&mut self) -> Table {
        self.note_version();
        match read(&self.source) {
            Ok((routes, problems)) => {
                problems.iter().for_each(|problem| tracing::error!("{problem}"));
                self.count = routes.len();
                tracing::info!("routes loaded with {} entries", self.count);
                routes
            }
            Err(reason) => {
                tracing::error!("{reason}; there are no routes until it can be read");
                Table::default()
            }
        }
    }

    /// Reads the routes again; `None`, with the reason in the log, if those read before are to stay.
    pub fn reload(&mut self) -> Option<Table> {
        self.note_version();
        let reason = match read(&self.source) {
            Ok((routes, problems)) if problems.is_empty() && (!routes.is_empty() || self.count == 0) => {
                self.count = routes.len();
                tracing::info!("routes loaded with {} entries", self.count);
                return Some(routes);
            }
            Ok((_, problems)) if problems.is_empty() => "the file has no routes".to_string(),
            Ok((_, problems)) => summary(&problems),
            Err(reason) => reason,
        };
        tracing::error!("routes not loaded, the {} read before stay: {reason}", self.count);
        None
    }

    fn note_version(&mut self) {
        self.seen = self.look();
        self.changes = None;
    }

    fn path(&self) -> Option<&PathBuf> {
        match &self.source {
            RoutesSource::File(path) => Some(path),
            RoutesSource::BuiltIn | RoutesSource::Lines(_) => None,
        }
    }

    fn look(&self) -> Option<Stamp> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(self.path()?).ok()?;
        Some(Stamp {
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            length: metadata.len(),
        })
    }

    /// Whether the file has changed, and has been left alone since.
    pub fn has_changed(&mut self, now: Instant) -> bool {
        let seen = self.look();
        // One that is gone is probably about to be replaced.
        if seen.is_some() && seen != self.seen {
            self.seen = seen;
            self.changes = Some(Changes { first: self.changes.map_or(now, |changes| changes.first), last: now });
        }
        self.changes.is_some_and(|changes| {
            now.duration_since(changes.last) >= QUIET || now.duration_since(changes.first) >= PATIENCE
        })
    }
}

/// Everything that is wrong with the routes, a line each.
pub fn mistakes(source: &RoutesSource) -> Vec<String> {
    match read(source) {
        Ok((routes, problems)) if problems.is_empty() && routes.is_empty() => {
            vec![format!("{}: there are no routes: every request is answered with 502", name(source))]
        }
        Ok((_, problems)) => problems.iter().map(Problem::to_string).collect(),
        Err(reason) => vec![reason],
    }
}

/// What to call the routes in messages.
fn name(source: &RoutesSource) -> String {
    match source {
        RoutesSource::BuiltIn => "built-in routes".into(),
        RoutesSource::Lines(_) => "--route".into(),
        RoutesSource::File(path) => path.display().to_string(),
    }
}

/// As many mistakes as fit a line.
fn summary(problems: &[Problem]) -> String {
    let mut text = String::new();
    for (index, problem) in problems.iter().take(TOLD).enumerate() {
        let separator = if index > 0 { "; " } else { "" };
        // Writing to a string does not fail.
        let _ = write!(text, "{separator}{problem}");
    }
    if problems.len() > TOLD {
        let _ = write!(text, "; and {} more", problems.len() - TOLD);
    }
    text
}

/// Reads the routes. Only a file can fail; what is wrong in it comes back beside what is right.
fn read(source: &RoutesSource) -> Result<(Table, Vec<Problem>), String> {
    let parse = |text: &[u8], file: &str, directory: &Path| Table::parse(text, file, &Beside(directory));
    let file = name(source);
    Ok(match source {
        RoutesSource::BuiltIn => parse(settings::BUILT_IN_ROUTES.as_bytes(), &file, Path::new("")),
        RoutesSource::Lines(lines) => parse(lines.join("\n").as_bytes(), &file, Path::new("")),
        RoutesSource::File(path) => {
            let text = plain_file::read(path, MAX_FILE)
                .map_err(|reason| format!("unable to open routes file: {}: {reason}", path.display()))?;
            parse(&text, &file, path.parent().unwrap_or(Path::new("")))
        }
    })
}

/// Files in the directory of the routes.
struct Beside<'a>(&'a Path);

impl Files for Beside<'_> {
    fn key(&self, text: &str) -> Result<Option<Key>, String> {
        let key = Key::parse(text, self.0)?;
        if let Some(key) = &key {
            signing_key(key).map_err(|error| error.to_string())?;
        }
        Ok(key)
    }

    fn pem(&self, file: &str) -> Result<String, String> {
        let text = KeyFiles::read(self.0, file)?;
        match text.len() {
            // It goes with every request to the target.
            ..=MAX_PEM => Ok(text),
            length => Err(format!("{file} has {length} bytes, more than {MAX_PEM}")),
        }
    }

    /// Does what the outbound process will do with it, which would find out with the first request only.
    fn pair(&self, pair: &ClientCertificate) -> Result<(), String> {
        let chain = CertificateDer::pem_slice_iter(pair.chain.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| format!("the certificate {}", damage(&error)))?;
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes());
        let key = key.map_err(|error| format!("the key {}", damage(&error)))?;
        let pair = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider());
        pair.map(drop).map_err(|error| error.to_string())
    }
}

/// What is wrong with a section of PEM.
fn damage(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "is cut off: its end marker is missing".into(),
        pem::Error::NoItemsFound => "is missing".into(),
        other => format!("is damaged: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        directory: tempfile::TempDir,
        now: Instant,
    }

    impl Files {
        fn new() -> Self {
            Files { directory: tempfile::tempdir().unwrap(), now: Instant::now() }
        }

        fn routes(&self, text: &str) -> RoutesFile {
            self.write(text);
            RoutesFile::new(RoutesSource::File(self.directory.path().join("routes")))
        }

        /// Replaces the file, as careful editors do, so that a version differs from the one before at any speed.
        fn write(&self, text: &str) {
            let new = self.directory.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, self.directory.path().join("routes")).unwrap();
        }
    }

    #[test]
    fn at_the_start_what_can_be_used_is_used() {
        let files = Files::new();
        assert_eq!(files.routes("* o:1\nbroken\n*,path_beg=/x,future o:2\n").load().len(), 2);
        assert_eq!(RoutesFile::new(RoutesSource::File("/nowhere/routes".into())).load().len(), 0);
    }

    #[test]
    fn a_pipe_in_the_place_of_the_file_is_not_waited_for() {
        let files = Files::new();
        let mut routes = files.routes("* o:1\n");
        routes.load();
        let path = files.directory.path().join("routes");
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(routes.reload().is_none());
        assert_eq!(RoutesFile::new(RoutesSource::File(path)).load().len(), 0);
    }

    #[test]
    fn a_file_with_a_mistake_or_without_routes_never_replaces_a_good_one() {
        let files = Files::new();
        let mut routes = files.routes("* o:1\n");
        routes.load();
        for bad in [
            "",
            "# all gone\n",
            "* o:1\nbroken\n",
            "*,path_bge=/x o:1\n",
            "*,session o:1\n",
            "* o:99999\n",
            "* \"o",
            "* o:1\n* o:2\n",
        ] {
            files.write(bad);
            assert!(routes.reload().is_none(), "{bad:?}");
        }
        std::fs::remove_file(files.directory.path().join("routes")).unwrap();
        assert!(routes.reload().is_none());
        files.write("* o:1\na.com o:2\n");
        assert_eq!(routes.reload().unwrap().len(), 2);
    }

    #[test]
    fn a_change_is_read_once_the_file_is_left_alone_or_keeps_changing_for_long() {
        let files = Files::new();
        let mut routes = files.routes("* o:1\n");
        routes.load();
        let after = |millis| files.now + Duration::from_millis(millis);
        assert!(!routes.has_changed(after(0)));
        files.write("* o:22\n");
        assert!(!routes.has_changed(after(500)));
        files.write("* o:333\n");
        assert!(!routes.has_changed(after(1400)));
        assert!(!routes.has_changed(after(2300)));
        assert!(routes.has_changed(after(2400)));
        routes.reload();
        assert!(!routes.has_changed(after(2500)));
        for step in 0..20u64 {
            files.write(&format!("* o:{}\n", 1000 + step));
            assert!(!routes.has_changed(after(3000 + step * 500)), "{step}");
        }
        files.write("* o:9999\n");
        assert!(routes.has_changed(after(13_000)));
    }

    #[test]
    fn a_certificate_that_no_backend_could_be_shown_is_a_mistake_of_the_file() {
        let files = Files::new();
        let write = |name: &str, text: &str| std::fs::write(files.directory.path().join(name), text).unwrap();
        let pair = || {
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(["us".to_owned()]).unwrap().self_signed(&key).unwrap();
            (certificate.pem(), key.serialize_pem())
        };
        let (ours, other) = (pair(), pair());
        write("cert", &ours.0);
        write("key", &ours.1);
        write("both", &format!("{}{}", ours.0, ours.1));
        write("other", &other.1);
        // As it is when a file is copied by hand and its end is missing, or a part of it.
        write("short", &ours.0[..ours.0.len() / 2]);
        write("torn", &[&ours.0[..100], &ours.0[165..]].concat());
        let mistakes = |options: &str| mistakes(&files.routes(&format!("* o:1,ssl,{options}\n")).source);
        for good in ["client_cert=both", "client_cert=cert,client_key=key"] {
            assert_eq!(mistakes(good), [""; 0]);
        }
        for bad in ["cert=short", "cert=torn", "cert=cert,client_key=other"] {
            let said = mistakes(&format!("client_{bad}{}", if bad.contains(',') { "" } else { ",client_key=key" }));
            assert_eq!(said.len(), 1, "{bad}: {said:?}");
            assert!(said[0].contains("routes:1: client_cert="), "{said:?}");
        }
        assert!(
            mistakes("client_cert=short,client_key=key")[0]
                .ends_with("the certificate is cut off: its end marker is missing")
        );
    }

    #[test]
    fn a_line_in_the_log_tells_of_ten_mistakes_at_most() {
        let files = Files::new();
        let (_, problems) = read(&files.routes(&"broken\n".repeat(12)).source).unwrap();
        let text = summary(&problems);
        assert_eq!(text.matches("routes:").count(), 10);
        assert!(text.ends_with("; and 2 more"));
    }
}
