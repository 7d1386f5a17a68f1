// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the runner makes in the file system, and takes away again.

use std::fs;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use process::adoption;
use settings::{Settings, specs};

/// A directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// It is not there and cannot be made.
    #[error("failed to create directory: {} ({reason})", path.display())]
    Create {
        /// Which.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// A file in it cannot be written.
    #[error("can't write {}: {reason}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// Two suites would take each other's sockets.
    #[error("another pushpin-runner uses {} with the ipc_prefix `{prefix}`; give this one another rundir, or use --id", rundir.display())]
    Taken {
        /// The run directory.
        rundir: PathBuf,
        /// Of socket names.
        prefix: String,
    },
}

/// Files that are made for programs of Pushpin's, but for those of each port.
const GENERATED: [&str; 5] = ["pushpin.conf", "m2adapter.conf", "mongrel2.conf", "mongrel2.sqlite", "zurl.conf"];

/// Directories of this instance, locked against another one.
#[derive(Debug)]
pub struct RunFiles {
    rundir: PathBuf,
    logdir: Option<PathBuf>,
    prefix: String,
    /// Begins the names of sockets and generated files.
    socket_prefix: String,
    /// Socket files of all processes.
    sockets: Vec<PathBuf>,
    lock: (PathBuf, Flock<fs::File>),
}

impl RunFiles {
    /// Makes run and log directory. With `merge` there are no log files. `prefix` begins the names of files.
    pub fn prepare(settings: &Settings, prefix: String, merge: bool) -> Result<Self, FilesError> {
        let rundir = settings.global.rundir.clone();
        let logdir = (!merge).then(|| settings.runner.logdir.clone());
        // The parts trust whoever reaches their sockets. Others get in only if a mode of socket files says so.
        let open = [settings.proxy.zmq.ipc_file_mode, settings.handler.zmq.ipc_file_mode];
        let inside = settings.runner.local_ports.iter().filter(|port| port.path.starts_with(&rundir));
        let shared =
            open.into_iter().flatten().any(|mode| mode & 0o077 != 0) || inside.into_iter().any(|p| p.is_shared());
        let mode = if shared { 0o755 } else { 0o700 };
        for (path, mode) in [(Some(&rundir), mode), (logdir.as_ref(), 0o755)] {
            let Some(path) = path else { continue };
            let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
            made.map_err(|reason| FilesError::Create { path: path.clone(), reason })?;
        }
        warn_of_strangers(&rundir);
        let lock = lock(&rundir, &settings.global.ipc_prefix)?;
        let sockets = settings.bound_specs().iter().filter_map(|s| specs::ipc_path(s)).map(Path::to_path_buf).collect();
        let socket_prefix = settings.global.ipc_prefix.clone();
        Ok(Self { rundir, logdir, prefix, socket_prefix, sockets, lock })
    }

    /// Log file of a program; none when logs are merged.
    pub fn log(&self, name: &str) -> Option<PathBuf> {
        Some(self.logdir.as_ref()?.join(format!("{}{name}.log", self.prefix)))
    }

    /// A file that is made for a program of Pushpin's.
    pub fn generated(&self, name: &str) -> PathBuf {
        self.rundir.join(format!("{}{name}", self.socket_prefix))
    }

    /// Makes one. It may have keys in it, so nobody else may read it.
    pub fn generate(&self, name: &str, text: &str) -> Result<(), FilesError> {
        let path = self.generated(name);
        let write = || {
            let mut options = fs::File::options();
            let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&path)?;
            file.write_all(text.as_bytes())
        };
        write().map_err(|reason| FilesError::Write { path: path.clone(), reason })
    }

    /// Has nobody else read one that another program has made.
    pub fn protect(&self, name: &str) -> Result<(), FilesError> {
        let path = self.generated(name);
        let set = fs::set_permissions(&path, fs::Permissions::from_mode(0o600));
        set.map_err(|reason| FilesError::Write { path, reason })
    }

    /// Notes the process id of a program.
    pub fn write_pid(&self, name: &str, pid: u32) {
        if let Err(error) = fs::write(self.pid_file(name), format!("{pid}\n")) {
            tracing::warn!("can't write {}: {error}", self.pid_file(name).display());
        }
    }

    /// Forgets the process id of a program.
    pub fn remove_pid(&self, name: &str) {
        // It may not have been written.
        let _ = fs::remove_file(self.pid_file(name));
    }

    /// Removes the door of a process that has ended, which one that was killed could not.
    pub fn remove_door(&self, name: &str, pid: u32) {
        // Those that end in order have removed it, and programs of others have none.
        let _ = fs::remove_file(adoption::door(&self.rundir, &self.socket_prefix, name, pid));
    }

    fn pid_file(&self, name: &str) -> PathBuf {
        self.rundir.join(format!("{}{name}.pid", self.prefix))
    }

    /// Removes what processes that were killed could not: their sockets. Then the lock.
    pub fn remove(self) {
        for socket in &self.sockets {
            if fs::symlink_metadata(socket).is_ok_and(|m| m.file_type().is_socket()) {
                let _ = fs::remove_file(socket);
            }
        }
        for name in GENERATED {
            // Most suites have none of them.
            let _ = fs::remove_file(self.generated(name));
        }
        let _ = fs::remove_file(&self.lock.0);
    }
}

/// Whoever may write to the run directory can put sockets of their own in the place of ours.
fn warn_of_strangers(rundir: &Path) {
    let mode = fs::metadata(rundir).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        tracing::warn!("other users may write to {}, where the sockets are: chmod go-w it", rundir.display());
    }
}

/// The kernel drops the lock when the runner ends, however it ends.
fn lock(rundir: &Path, prefix: &str) -> Result<(PathBuf, Flock<fs::File>), FilesError> {
    let path = rundir.join(format!("{prefix}runner.lock"));
    let file = fs::File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|reason| FilesError::Write { path: path.clone(), reason })?;
    let taken = |_| FilesError::Taken { rundir: rundir.into(), prefix: prefix.into() };
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(taken)?;
    Ok((path, lock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use settings::{Origin, Source};

    fn settings(directory: &Path) -> Settings {
        let text = format!("[global]\nrundir={0}/run\n[runner]\nlogdir={0}/log\n", directory.display());
        Settings::load(&Source { origin: Origin::Text(text), ..Source::default() }).unwrap().0
    }

    #[test]
    fn a_second_runner_with_the_same_sockets_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let first = RunFiles::prepare(&settings, String::new(), false).unwrap();
        let error = RunFiles::prepare(&settings, String::new(), false).unwrap_err().to_string();
        assert!(error.contains("another pushpin-runner"), "{error}");
        first.remove();
        RunFiles::prepare(&settings, String::new(), false).unwrap();
    }

    #[test]
    fn the_run_directory_is_for_others_only_if_its_sockets_are() {
        for (setting, mode) in [
            ("", 0o700),
            ("[handler]\nipc_file_mode=777\n", 0o755),
            ("[proxy]\nipc_file_mode=600\n", 0o700),
            ("[runner]\nlocal_ports={rundir}/s?mode=666\n", 0o755),
            ("[runner]\nlocal_ports=/s?mode=666\n", 0o700),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let rundir = directory.path().join("run");
            let text = format!("[global]\nrundir={}\n{setting}", rundir.display());
            let settings = Settings::load(&Source { origin: Origin::Text(text), ..Source::default() }).unwrap().0;
            RunFiles::prepare(&settings, String::new(), true).unwrap();
            assert_eq!(fs::metadata(&rundir).unwrap().permissions().mode() & 0o777, mode, "{setting}");
        }
    }

    #[test]
    fn sockets_of_the_dead_are_removed_and_other_files_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let files = RunFiles::prepare(&settings(directory.path()), String::new(), true).unwrap();
        let socket = directory.path().join("run/pushpin-frontend-out");
        let other = directory.path().join("run/pushpin-accept");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        fs::write(&other, "not a socket").unwrap();
        files.remove();
        assert!(!socket.exists() && other.exists());
        assert!(!directory.path().join("log").exists());
    }
}
