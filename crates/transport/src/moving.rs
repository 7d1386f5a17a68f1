// SPDX-License-Identifier: AGPL-3.0-or-later
//! A socket on its way to another process: addresses, links, and what is half read or half written, so that peers notice
//! nothing.
//!
//! It is packed, which changes nothing, and unpacked elsewhere. Until one of both has it for sure, neither may use it; then the
//! one [claims](crate::Reactor::claim) it and the other [lets go](crate::Reactor::let_go). Only sockets that we serve
//! ourselves (`ipc:`) can move, and only kinds that keep nothing of what peers subscribe to.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::waiting::Parts;

/// The version that is written, and the only one that is read.
const VERSION: u8 = 1;

/// A packed socket.
#[derive(Debug)]
pub struct Packed {
    /// Everything but the files, with a version.
    pub record: Vec<u8>,
    /// Listening sockets and connections, as the record counts them.
    pub files: Vec<OwnedFd>,
}

/// Why a socket can not move.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// It is libzmq's, or of a kind that does not move.
    #[error("it is not of a kind that can move")]
    Kind,
    /// It was written by a newer or much older process.
    #[error("it was written in version {0}; version {VERSION} is understood")]
    Version(u8),
    /// The record is none.
    #[error("its record is malformed")]
    Malformed,
    /// There are more files than the record says, or fewer.
    #[error("{got} files came with it, where there should be {expected}")]
    Files {
        /// As many as its record says.
        expected: usize,
        /// As many as there are.
        got: usize,
    },
    /// The system does not let it.
    #[error("{0}")]
    System(String),
}

/// A socket.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SocketRecord {
    pub(crate) role: String,
    pub(crate) address: String,
    /// Paths or names of its listeners.
    pub(crate) listeners: Vec<String>,
    pub(crate) serial: u32,
    /// What it subscribes to, each as often as it was asked.
    pub(crate) topics: Vec<(Vec<u8>, u32)>,
    pub(crate) inbox: Vec<ArrivalRecord>,
    /// Encoded messages for anybody.
    pub(crate) unsent: Vec<Vec<u8>>,
    /// Messages for absent peers, by name.
    pub(crate) absent: Vec<(Vec<u8>, Vec<Parts>)>,
    pub(crate) peers: Vec<PeerRecord>,
}

/// What waits for the owner.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ArrivalRecord {
    Part(Vec<u8>, bool),
    Joined(Vec<u8>),
    Left(Vec<u8>, u8),
    Room(Vec<u8>),
}

/// A link whose handshake is done.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerRecord {
    pub(crate) serial: u32,
    pub(crate) identity: Vec<u8>,
    pub(crate) refused: Vec<Vec<u8>>,
    /// Bytes of a frame that is not complete, and parts of a message that is not, each with whether more follow.
    pub(crate) input: Vec<u8>,
    pub(crate) parts: Vec<(Vec<u8>, bool)>,
    pub(crate) fresh: bool,
    /// Bytes that have not been written, where messages begin and end in them, and how many are none.
    pub(crate) output: Vec<u8>,
    pub(crate) messages: Vec<(i64, u64)>,
    pub(crate) control: u64,
}

impl SocketRecord {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, MoveError> {
        postcard::to_extend(self, vec![VERSION]).map_err(|_| MoveError::Malformed)
    }

    pub(crate) fn decode(record: &[u8]) -> Result<Self, MoveError> {
        match record.split_first() {
            Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| MoveError::Malformed),
            Some((&other, _)) => Err(MoveError::Version(other)),
            None => Err(MoveError::Malformed),
        }
    }
}
