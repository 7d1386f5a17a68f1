// SPDX-License-Identifier: AGPL-3.0-or-later
//! Sessions that survive their process: written to bytes, and read back by a successor.
//!
//! The first byte is a version, the second says which end it is. Peers are written by name and times as ages, since numbers of peers and points in time
//! mean nothing to another process. A clock that does not reach back as far as the session is old begins it anew.

use std::time::{Duration, Instant};

use crate::id::{Id, PeerId, Peers};

use super::credits::{Credits, Window};
use super::handoff::Ownership;
use super::sequence::Sequence;
use super::timing::Timing;
use super::{Protocol, client, server};

/// The version that is written, and the only one that is read.
const VERSION: u8 = 1;
/// The second byte: whose end it is.
const CLIENT: u8 = b'c';
const SERVER: u8 = b's';

/// Why a session can not be restored. Its connection can only be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// It was written by a newer or much older process.
    #[error("the session was written in version {0}; version {VERSION} is understood")]
    Version(u8),
    /// The bytes end too early.
    #[error("the session ends in the middle of {0}")]
    Truncated(&'static str),
    /// A field has a value that was never written.
    #[error("the session has an unknown value for {0}")]
    Value(&'static str),
    /// Something follows.
    #[error("{0} bytes follow the session")]
    Trailing(usize),
}

impl client::Session {
    /// Appends the session to `out`.
    pub fn snapshot(&self, peers: &Peers, now: Instant, out: &mut Vec<u8>) {
        out.extend([VERSION, CLIENT]);
        self.write(peers, now, out);
        out.push(u8::from(self.second.is_some()));
        if let Some(second) = &self.second {
            second.write(peers, now, out);
        }
    }

    fn write(&self, peers: &Peers, now: Instant, out: &mut Vec<u8>) {
        write_timing(&self.timing, now, out);
        write_numbers(&[self.sequence.next_in, self.sequence.next_out], out);
        match self.server {
            client::Server::Unknown => out.push(0),
            client::Server::Moving => out.push(1),
            client::Server::At(peer) => {
                out.push(2);
                write_bytes(peers.name(peer), out);
            }
        }
        write_numbers(&self.window.parts(), out);
        write_numbers(&[self.credits.available(), self.owed_since], out);
        out.extend([protocol_byte(self.protocol), u8::from(self.complete)]);
    }

    /// Reads what [`snapshot`](Self::snapshot) has written, as it is at the time `now`.
    ///
    /// # Errors
    /// The bytes are of another version or not of a session.
    pub fn restore(bytes: &[u8], peers: &mut Peers, now: Instant) -> Result<Self, RestoreError> {
        let mut input = Input::begin(bytes, CLIENT)?;
        let mut session = Self::read(&mut input, peers, now)?;
        if input.flag("second")? {
            session.second = Some(Box::new(Self::read(&mut input, peers, now)?));
        }
        input.end()?;
        Ok(session)
    }

    fn read(input: &mut Input<'_>, peers: &mut Peers, now: Instant) -> Result<Self, RestoreError> {
        Ok(client::Session {
            timing: input.timing(now)?,
            sequence: input.sequence()?,
            server: match input.byte("server")? {
                0 => client::Server::Unknown,
                1 => client::Server::Moving,
                2 => client::Server::At(input.peer(peers)?),
                _ => return Err(RestoreError::Value("server")),
            },
            window: input.window()?,
            credits: Credits::new(input.number("credits")?),
            owed_since: input.number("owed credits")?,
            protocol: input.protocol()?,
            complete: input.flag("complete")?,
            second: None,
        })
    }
}

impl server::Session {
    /// Appends the session to `out`.
    pub fn snapshot(&self, peers: &Peers, now: Instant, out: &mut Vec<u8>) {
        out.extend([VERSION, SERVER]);
        write_timing(&self.timing, now, out);
        write_numbers(&[self.sequence.next_in, self.sequence.next_out], out);
        write_bytes(peers.name(self.client), out);
        write_bytes(self.id.as_bytes(), out);
        write_numbers(&self.window.parts(), out);
        write_numbers(&[self.credits.available()], out);
        let ownership = match self.ownership {
            Ownership::Own => 0,
            Ownership::JustTakenOver => 1,
            Ownership::Offered => 2,
            Ownership::Given => 3,
        };
        out.extend([protocol_byte(self.protocol), ownership]);
        out.extend([self.by_router, self.multi, self.complete].map(u8::from));
    }

    /// Reads what [`snapshot`](Self::snapshot) has written, as it is at the time `now`.
    ///
    /// # Errors
    /// The bytes are of another version or not of a session.
    pub fn restore(bytes: &[u8], peers: &mut Peers, now: Instant) -> Result<Self, RestoreError> {
        let mut input = Input::begin(bytes, SERVER)?;
        let (timing, sequence, client) = (input.timing(now)?, input.sequence()?, input.peer(peers)?);
        let id = Id::new(input.bytes("id")?).ok_or(RestoreError::Value("id"))?;
        let (window, credits) = (input.window()?, Credits::new(input.number("credits")?));
        let protocol = input.protocol()?;
        let ownership = match input.byte("ownership")? {
            0 => Ownership::Own,
            1 => Ownership::JustTakenOver,
            2 => Ownership::Offered,
            3 => Ownership::Given,
            _ => return Err(RestoreError::Value("ownership")),
        };
        let (by_router, multi, complete) = (input.flag("by_router")?, input.flag("multi")?, input.flag("complete")?);
        input.end()?;
        Ok(server::Session {
            timing,
            sequence,
            client,
            credits,
            window,
            id: id.into(),
            by_router,
            multi,
            protocol,
            ownership,
            complete,
        })
    }
}

fn write_numbers(numbers: &[u32], out: &mut Vec<u8>) {
    numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
}

/// Names and ids have at most 64 bytes.
fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

fn write_timing(timing: &Timing, now: Instant, out: &mut Vec<u8>) {
    let (opened, heard, kept_alive) = timing.ages();
    let age = now.saturating_duration_since(opened).as_nanos();
    out.extend(u64::try_from(age).unwrap_or(u64::MAX).to_le_bytes());
    write_numbers(&[heard, kept_alive], out);
}

fn protocol_byte(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Http => 0,
        Protocol::WebSocket => 1,
    }
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn begin(bytes: &'a [u8], end: u8) -> Result<Self, RestoreError> {
        let mut input = Input(bytes);
        match input.byte("version")? {
            VERSION => {}
            other => return Err(RestoreError::Version(other)),
        }
        if input.byte("end")? == end { Ok(input) } else { Err(RestoreError::Value("end")) }
    }

    fn end(self) -> Result<(), RestoreError> {
        if self.0.is_empty() { Ok(()) } else { Err(RestoreError::Trailing(self.0.len())) }
    }

    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], RestoreError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(RestoreError::Truncated(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], RestoreError> {
        self.take(N, what)?.try_into().map_err(|_| RestoreError::Truncated(what))
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, RestoreError> {
        self.array(what).map(|[byte]| byte)
    }

    fn flag(&mut self, what: &'static str) -> Result<bool, RestoreError> {
        match self.byte(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RestoreError::Value(what)),
        }
    }

    fn number(&mut self, what: &'static str) -> Result<u32, RestoreError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], RestoreError> {
        let count = self.byte(what)?;
        self.take(usize::from(count), what)
    }

    fn peer(&mut self, peers: &mut Peers) -> Result<PeerId, RestoreError> {
        peers.intern(self.bytes("peer")?).ok_or(RestoreError::Value("peer"))
    }

    fn timing(&mut self, now: Instant) -> Result<Timing, RestoreError> {
        let age = Duration::from_nanos(u64::from_le_bytes(self.array("age")?));
        let (heard, kept_alive) = (self.number("last packet")?, self.number("last keep-alive")?);
        Ok(match now.checked_sub(age) {
            Some(opened) => Timing::restore(opened, heard, kept_alive),
            None => Timing::start(now),
        })
    }

    fn sequence(&mut self) -> Result<Sequence, RestoreError> {
        Ok(Sequence { next_in: self.number("next_in")?, next_out: self.number("next_out")? })
    }

    fn window(&mut self) -> Result<Window, RestoreError> {
        Ok(Window::restore([self.number("window")?, self.number("granted")?, self.number("owed")?]))
    }

    fn protocol(&mut self) -> Result<Protocol, RestoreError> {
        match self.byte("protocol")? {
            0 => Ok(Protocol::Http),
            1 => Ok(Protocol::WebSocket),
            _ => Err(RestoreError::Value("protocol")),
        }
    }
}
