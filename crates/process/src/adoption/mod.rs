// SPDX-License-Identifier: AGPL-3.0-or-later
//! A component outlives its runner for a while, so that the next runner can go on with it.
//!
//! Each waits at a door in the run directory that only its own user can use. A runner that starts looks for doors, connects to each, and
//! asks who is there ([`WHO`]). The component says what it is ([`About`]), and hands over copies of its listening sockets. Then the runner
//! has it end, or takes it over ([`TAKE`]) with four files: the line, on which the component tells from then on what it tells every
//! runner, the pipe for orders, and what becomes its stdout and stderr. So there is no list of processes that could be wrong, and no
//! process id that could be another one's: whoever answers is there.
//!
//! - `orphan`: when a process without runner ends.
//! - `waiting`: the thread of a component that waits for the end of its runner, and for another.

mod orphan;
mod waiting;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

pub(crate) use self::waiting::{DoorFile, Keeper, wait};

/// Version of what is said at the door. Others do not take each other over.
pub const PROTOCOL: u32 = 1;

/// A runner's first message.
pub const WHO: &[u8] = b"who";
/// Its second, with [`TAKEN`] files.
pub const TAKE: &[u8] = b"take";
/// The line, the pipe for orders, stdout, stderr.
pub const TAKEN: usize = 4;

/// What a component says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Of the sender. If it is not [`PROTOCOL`], the rest means nothing.
    pub protocol: u32,
    /// Which process it is: `pushpin-proxy`, `pushpin-frontend-1`.
    pub name: String,
    /// Since when it serves, in milliseconds since 1970.
    pub since: u64,
    /// Its command line, without the program.
    pub arguments: Vec<String>,
    /// The configuration, and the secret if there is one, that it was handed down.
    #[serde(with = "tnetstring::bytes")]
    pub handed_down: Vec<u8>,
    /// It was replaced, and only finishes its work.
    pub leaving: bool,
    /// It is ending already.
    pub ending: bool,
    /// The sockets whose copies come with this, in their order: `http:127.0.0.1:7999`.
    pub sockets: Vec<String>,
}

impl About {
    /// As a message.
    pub fn to_bytes(&self) -> Vec<u8> {
        tnetstring::to_vec(self).unwrap_or_default()
    }

    /// A message of a component; none if it is of another version.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        tnetstring::from_slice(bytes).ok().filter(|about: &Self| about.protocol == PROTOCOL)
    }

    /// The time since which it serves.
    pub fn since(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(self.since)
    }
}

/// What begins the names of doors in a run directory; the name of the process and its id follow.
pub fn door_prefix(ipc_prefix: &str) -> String {
    format!("{ipc_prefix}door-")
}

/// The door of a process.
pub fn door(rundir: &Path, ipc_prefix: &str, name: &str, pid: u32) -> PathBuf {
    rundir.join(format!("{}{name}-{pid}", door_prefix(ipc_prefix)))
}

/// Whether this process has a successor.
static LEAVING: AtomicBool = AtomicBool::new(false);

/// This process has a successor, and only finishes its work from now on: others have its listening sockets.
pub fn leave() {
    LEAVING.store(true, Ordering::Relaxed);
    crate::inherit::forget_copies();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(protocol: u32) -> About {
        About {
            protocol,
            name: "pushpin-frontend-1".into(),
            since: 1_000,
            arguments: vec!["--config=/p.conf".into()],
            handed_down: vec![0, 255],
            leaving: true,
            ending: false,
            sockets: vec!["http:127.0.0.1:1".into()],
        }
    }

    #[test]
    fn what_is_said_is_understood() {
        let said = about(PROTOCOL);
        assert_eq!(About::from_bytes(&said.to_bytes()), Some(said.clone()));
        assert_eq!(said.since(), SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1));
    }

    #[test]
    fn another_version_and_nonsense_are_not() {
        assert_eq!(About::from_bytes(&about(PROTOCOL + 1).to_bytes()), None);
        let bytes = about(PROTOCOL).to_bytes();
        for length in 0..bytes.len() {
            assert_eq!(About::from_bytes(&bytes[..length]), None);
        }
    }

    #[test]
    fn doors_have_names_of_their_own() {
        assert_eq!(door("run".as_ref(), "p1-", "pushpin-proxy", 7), Path::new("run/p1-door-pushpin-proxy-7"));
    }
}
