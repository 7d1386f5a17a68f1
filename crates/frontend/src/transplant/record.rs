// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a frontend writes down for its successor. Times are ages, and peers the numbers of their names in a list that comes first.
//!
//! All of it has one version: a process that understands another one leaves everything where it is.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wire::websocket::Standing;
use zhttp::session::RestoreError;

use crate::http1::response::{Response, Terms};
use crate::websocket::lanes::Lanes;

/// The version that is written, and the only one that is read. To be changed with whatever is written, here or in `transport`.
pub const VERSION: u8 = 2;

/// Why something can not be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It was written by a newer or older process.
    #[error("it is of version {0}, and {VERSION} is understood")]
    Version(u8),
    /// It is none.
    #[error("it is malformed")]
    Malformed,
    /// Its parts do not fit together.
    #[error("its {0} does not fit")]
    Unfit(&'static str),
    /// The session of a client can not be gone on with.
    #[error("{0}")]
    Session(#[from] RestoreError),
}

/// Writes a message, with the version in front.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    // There is no limit that could be exceeded, and nothing of unknown length; a reader would say if there was.
    postcard::to_extend(message, vec![VERSION]).unwrap_or_default()
}

/// Reads a message.
///
/// # Errors
/// It is of another version, or none.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| RecordError::Malformed),
        Some((&other, _)) => Err(RecordError::Version(other)),
        None => Err(RecordError::Malformed),
    }
}

/// How long ago something was.
pub fn age(now: Instant, then: Instant) -> Duration {
    now.saturating_duration_since(then)
}

/// When something was that is so old; `now` if the clock does not reach back that far.
pub fn before(now: Instant, age: Duration) -> Instant {
    now.checked_sub(age).unwrap_or(now)
}

/// What a successor says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The addresses that it is going to have. They must be the same.
    pub addresses: [String; 3],
}

/// What a predecessor says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Offer {
    /// What all clients share. With it come the door, and the relays to predecessors of the predecessor.
    State(Box<State>),
    /// One of its ZeroMQ sockets, in the order of the addresses, with its files.
    Socket(Vec<u8>),
    /// Clients, with a file for each.
    Clients(Vec<Moving>),
    /// Sessions without client.
    Unheard(Vec<ExchangeRecord>),
    /// That was all.
    End,
    /// It is the successor's from now on, but for these sessions, of which packets are to be relayed.
    Commit(Vec<(u32, u64)>),
}

/// What a successor answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It can go on with all but the clients in these slots.
    Ready(Vec<u32>),
    /// It has begun.
    Done,
}

/// What all clients share.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The instance id.
    pub instance: String,
    /// Proxies and handlers by name, and whether they answer through the ROUTER.
    pub peers: Vec<(Vec<u8>, bool)>,
    /// Servers that have gone so far.
    pub departures: u32,
    /// The number of the next session.
    pub serials: u64,
    /// The age of the time from which the times of records count, in ms.
    pub ms: u32,
    /// See [`crate::keep::places`].
    pub places: Vec<PlaceRecord>,
    /// Predecessors that are not drained yet.
    pub relays: Vec<RelayRecord>,
}

/// A place of the suite.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceRecord {
    /// Its name.
    pub name: Vec<u8>,
    /// Who has it, and who waits for it.
    pub owner: Option<u32>,
    pub(crate) waits: Option<u32>,
    pub(crate) is_vacant: bool,
    pub(crate) run: u64,
    /// Runs, channels and ids.
    pub(crate) ring: Vec<(u64, Vec<u8>, Vec<u8>)>,
    /// The last message of each channel.
    pub(crate) last: Vec<(Vec<u8>, u64, Vec<u8>)>,
}

/// The way to a predecessor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRecord {
    /// Sessions that are its.
    pub(crate) sessions: Vec<(u32, u64)>,
    /// What has not been sent.
    pub(crate) out: Vec<Vec<u8>>,
    /// What has come of a message.
    pub(crate) begun: Vec<u8>,
}

/// A client and what it waits for.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Moving {
    /// The client.
    pub client: ClientRecord,
    /// Its session, if there is one.
    pub exchange: Option<ExchangeRecord>,
}

/// A client.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientRecord {
    /// Its place in the table.
    pub slot: u32,
    /// It is one of a Unix socket.
    pub local: bool,
    /// Its protocol.
    pub http: HttpRecord,
    /// What it has not taken.
    pub output: Vec<u8>,
    /// What it has been through.
    pub pacing: PacingRecord,
}

/// The protocol of a client.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpRecord {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) last: bool,
    pub(crate) phase: PhaseRecord,
    pub(crate) input: Vec<u8>,
    pub(crate) unwritten: [u32; 2],
}

/// Where it stands.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum PhaseRecord {
    Head,
    Serving { exchange: u32, response: Response, terms: Terms },
    WebSocket(WebSocketRecord),
}

/// A WebSocket.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WebSocketRecord {
    pub(crate) exchange: u32,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) reader: Standing,
    pub(crate) debt: u64,
    pub(crate) deflates: bool,
    pub(crate) within: bool,
    pub(crate) torn: bool,
    pub(crate) lanes: Option<Lanes<FrameRecord>>,
    pub(crate) close_sent: bool,
    pub(crate) close_received: bool,
}

/// A frame that may not leave yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FrameRecord {
    pub(crate) bytes: Vec<u8>,
    pub(crate) credits: u64,
    pub(crate) close: bool,
}

/// What a connection has been through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacingRecord {
    pub(crate) since: Duration,
    pub(crate) heard: Duration,
    /// Since when it lags, when it last took something, and how much since.
    pub(crate) lag: Option<(Duration, Duration, u64)>,
    pub(crate) wait: Wait,
    pub(crate) used: bool,
}

/// Stages by what is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Wait {
    Idle,
    Head,
    Body,
    Server,
    Closing,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeRecord {
    pub(crate) slot: u32,
    pub(crate) serial: u64,
    /// The client's slot; without client, how long the server may take to end.
    pub(crate) audience: Result<u32, Duration>,
    pub(crate) session: Vec<u8>,
    /// The place whose server has left a record, and the record.
    pub(crate) record: Option<(u32, Vec<u8>)>,
    pub(crate) since: u32,
    pub(crate) since_run: u64,
    pub(crate) run: u64,
    pub(crate) lags: bool,
    pub(crate) request: Option<RequestRecord>,
    pub(crate) underway: Option<UnderwayRecord>,
}

/// What is kept of a WebSocket for a successor of its proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderwayRecord {
    pub(crate) is_torn: bool,
    /// The position in front of the first packet.
    pub(crate) from: u64,
    pub(crate) packets: Vec<SentRecord>,
    /// How much has come of the backend's, and whether that is in the middle of a message.
    pub(crate) came: Option<(u64, bool)>,
}

/// One packet of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentRecord {
    pub(crate) seq: u32,
    /// Its place in a list ([`crate::exchange`]).
    pub(crate) kind: u8,
    pub(crate) binary: bool,
    pub(crate) more: bool,
    pub(crate) code: Option<u16>,
    pub(crate) body: Vec<u8>,
}

/// A request that can be sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    pub(crate) first: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) has_body: bool,
    pub(crate) is_complete: bool,
    pub(crate) sent: u64,
    pub(crate) is_ended: bool,
    pub(crate) is_idempotent: bool,
    pub(crate) proxy: Option<u32>,
    pub(crate) times: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_told_from_nonsense() {
        let question = Question { addresses: ["a".into(), "b".into(), "c".into()] };
        let mut bytes = encode(&question);
        assert_eq!(decode::<Question>(&bytes), Ok(question));
        assert_eq!(decode::<Question>(&bytes[..3]), Err(RecordError::Malformed));
        assert_eq!(decode::<Question>(b""), Err(RecordError::Malformed));
        bytes[0] = 99;
        assert_eq!(decode::<Question>(&bytes), Err(RecordError::Version(99)));
    }

    #[test]
    fn a_clock_that_does_not_reach_back_gives_no_time_before_its_beginning() {
        let now = Instant::now();
        assert_eq!(before(now, age(now, now)), now);
        assert_eq!(before(now, Duration::MAX), now);
    }
}
