// SPDX-License-Identifier: AGPL-3.0-or-later
//! One connection to a peer: its stream, what is half read, and what waits to be written.
//!
//! The stream is a unix socket that does not block, or in tests a pipe in memory.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::io::{self, Read, Write};

use bytes::Bytes;

use super::outgoing::Outgoing;
use super::topics::Topics;
use crate::change::Reason;
use crate::counters::Load;
use crate::message::Message;
use crate::moving::PeerRecord;
use crate::role::Role;
use crate::zmtp::{Decoder, Step, Violation, frame, greeting};

/// Parts of one message at most.
const MAX_PARTS: usize = 16;
/// What one peer may subscribe to: prefixes, and bytes of them all.
const MAX_TOPICS: usize = 1_000_000;
const MAX_TOPIC_BYTES: usize = 64 << 20;
/// Bytes of answers to its PINGs that a peer may leave unread.
const MAX_CONTROL: usize = 4096;
/// Bytes that wait for the end of the turn before they are written; more is written at once, so that the peer can begin
/// with the first packets of a burst while we make the others. Measured against 64 KB: holds opened a second 1.1x, the
/// first of 1000 deliveries 0.87 of the time, proxied requests the same; with 4 KB those fell to 0.93.
const WRITE_SIZE: usize = 16 * 1024;
/// Capacity that is kept for half a frame when there is none, in bytes.
const IDLE_CAPACITY: usize = 128 * 1024;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("it was closed by the peer")]
    Closed,
    #[error("another connection has taken the peer's name")]
    Replaced,
    #[error("the peer did not say in time who it is")]
    Anonymous,
    #[error("many others that have not said who they are want its place")]
    Crowded,
    #[error("the peer took nothing for too long while {messages} messages of {bytes} bytes waited for it")]
    Stuck { messages: usize, bytes: usize },
    #[error("the peer has begun a message of {bytes} bytes, and all peers together have begun too many")]
    Hoarding { bytes: usize },
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Violation(#[from] Violation),
}

impl From<&Broken> for Reason {
    fn from(broken: &Broken) -> Self {
        match broken {
            Broken::Closed | Broken::Io(_) => Reason::Closed,
            Broken::Replaced => Reason::Replaced,
            Broken::Stuck { .. } => Reason::Stuck,
            Broken::Anonymous | Broken::Crowded | Broken::Hoarding { .. } | Broken::Violation(_) => Reason::Expelled,
        }
    }
}

/// What reading a link has brought, in order.
pub(crate) enum Received<'a> {
    /// The handshake is done.
    Ready,
    /// All parts of a message, to be taken out.
    Message(&'a mut Vec<Message>),
    /// The peer subscribes to a prefix it was not subscribed to, or ends a subscription.
    Topic(Bytes, bool),
    /// Another process listens at the peer's address now.
    Moved,
}

/// A connection.
pub(crate) struct Link<S> {
    pub(crate) stream: S,
    role: Role,
    decoder: Decoder,
    /// Bytes of a frame that is not complete.
    input: Vec<u8>,
    /// Parts of a message that is not complete.
    parts: Vec<Message>,
    outgoing: Outgoing,
    /// What the peer calls itself, or is called here if it does not.
    pub(crate) identity: Bytes,
    topics: Topics,
    /// The handshake is done.
    pub(crate) ready: bool,
    /// The handshake is just done: what came with it has not been read.
    fresh: bool,
    /// There may be something to read.
    readable: bool,
    /// The peer has closed its side; what it sent before may not have been read.
    ended: bool,
    /// The kernel takes more.
    writable: bool,
    /// Writing has failed.
    deaf: bool,
    /// The peer has taken something since that was last asked.
    progress: bool,
}

impl<S: Read + Write> Link<S> {
    /// A connection that begins with a handshake, in which we call ourselves `ours`. The peer is called `theirs` unless
    /// it has a name of its own. A message from it has at most `max_message` bytes.
    pub(crate) fn new(stream: S, role: Role, ours: &[u8], theirs: Bytes, max_message: usize) -> Self {
        let mut outgoing = Outgoing::default();
        outgoing.push_control(|out| {
            out.extend_from_slice(&greeting::GREETING);
            greeting::write_ready(out, role, ours);
        });
        Link {
            stream,
            role,
            decoder: Decoder::new(role, max_message),
            input: Vec::new(),
            parts: Vec::new(),
            outgoing,
            identity: theirs,
            topics: Topics::default(),
            ready: false,
            fresh: false,
            readable: true,
            ended: false,
            writable: true,
            deaf: false,
            progress: false,
        }
    }

    /// Writes down what is half read and half written, for another process that gets the stream.
    pub(crate) fn pack(&self, serial: u32, refused: Vec<Vec<u8>>) -> PeerRecord {
        let (output, messages, control) = self.outgoing.pack();
        PeerRecord {
            serial,
            identity: self.identity.to_vec(),
            refused,
            input: self.input.clone(),
            parts: self.parts.iter().map(|part| (part.to_vec(), part.more())).collect(),
            fresh: self.fresh,
            output,
            messages,
            control,
        }
    }

    /// Goes on with what another process has packed; none if that does not fit together.
    pub(crate) fn unpack(stream: S, role: Role, max_message: usize, record: PeerRecord) -> Option<Self> {
        // The first part of a message to a ROUTER is ours.
        let ours = usize::from(role == Role::Router);
        let begun = record.parts.iter().skip(ours).map(|(part, _)| part.len()).sum();
        Some(Link {
            stream,
            role,
            decoder: Decoder::after_handshake(role, max_message, begun),
            input: record.input,
            parts: record.parts.into_iter().map(|(part, more)| Message::new(part.into(), more)).collect(),
            outgoing: Outgoing::unpack(record.output, &record.messages, record.control)?,
            identity: record.identity.into(),
            topics: Topics::default(),
            ready: true,
            fresh: record.fresh,
            readable: true,
            ended: false,
            writable: true,
            deaf: false,
            progress: false,
        })
    }

    /// Whether the peer has not taken what waits for it; what is only collected in this turn does not count.
    pub(crate) fn is_held_up(&self) -> bool {
        self.deaf || !self.writable
    }

    /// Whether the kernel is to tell when it takes more.
    pub(crate) fn waits_for_room(&self) -> bool {
        !self.writable && !self.deaf
    }

    /// What the peer has not taken so far, if it is held up.
    pub(crate) fn held_up(&self) -> Load {
        if self.writable || self.deaf { Load::default() } else { self.outgoing.load() }
    }

    /// What waits, for whatever reason.
    pub(crate) fn queued(&self) -> Load {
        if self.deaf { Load::default() } else { self.outgoing.load() }
    }

    /// Bytes that are kept of a message that is not complete.
    pub(crate) fn begun(&self) -> usize {
        self.input.len() + self.decoder.begun()
    }

    /// Messages that the peer has not taken to their end.
    pub(crate) fn unwritten(&self) -> usize {
        self.outgoing.load().messages
    }

    /// Whether something is to be written now.
    pub(crate) fn wants_to_write(&self) -> bool {
        !self.is_held_up() && !self.outgoing.is_empty()
    }

    /// Whether the peer can get messages.
    pub(crate) fn is_open(&self) -> bool {
        self.ready && !self.deaf
    }

    /// Whether the peer has taken something since this was last asked.
    pub(crate) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }

    /// The messages that can go to another peer when this one is gone.
    pub(crate) fn untouched(&self) -> impl Iterator<Item = &[u8]> {
        self.outgoing.untouched()
    }

    /// What the peer has subscribed to.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Bytes> {
        self.topics.iter()
    }

    /// Adds a message, which leaves at the end of the turn.
    pub(crate) fn push(&mut self, parts: &[&[u8]]) {
        self.outgoing.push(parts);
        self.write_large();
    }

    /// Adds a message that is encoded already.
    pub(crate) fn push_encoded(&mut self, message: &[u8]) {
        self.outgoing.push_encoded(message);
        self.write_large();
    }

    /// Tells the peer that another process listens at our address.
    pub(crate) fn push_moved(&mut self) {
        self.outgoing.push_control(frame::write_moved);
    }

    fn write_large(&mut self) {
        if self.outgoing.load().bytes >= WRITE_SIZE {
            self.write();
        }
    }

    /// The kernel reports what it knows.
    pub(crate) fn on_ready(&mut self, readable: bool, writable: bool, ended: bool) {
        self.readable |= readable;
        self.ended |= ended;
        self.writable |= writable;
    }

    /// Writes although the kernel has not said that it takes more, in case that was missed; whether it took something.
    pub(crate) fn try_again(&mut self) -> bool {
        self.writable = true;
        self.write();
        self.progress
    }

    /// Writes what waits, as far as the kernel takes it.
    pub(crate) fn write(&mut self) {
        if !self.writable || self.deaf {
            return;
        }
        let before = self.outgoing.load().bytes;
        match self.outgoing.write_to(&mut self.stream) {
            Ok(all) => self.writable = all,
            // The peer is gone. What it sent before is still to be read; the end of that ends the link.
            Err(_) => (self.deaf, self.readable, self.ended) = (true, true, true),
        }
        self.progress |= self.outgoing.load().bytes < before;
    }

    /// Whether there may be something to read.
    pub(crate) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Looks once more, in case there is something that was not reported.
    pub(crate) fn look_again(&mut self) {
        self.readable = true;
    }

    /// Reads once, through `buffer`, and tells what has come.
    ///
    /// The end of the handshake is told alone, so that the peer can be made known before its first message: what came
    /// with it is told by the next call.
    pub(crate) fn read(&mut self, buffer: &mut [u8], mut tell: impl FnMut(Received<'_>)) -> Result<(), Broken> {
        if std::mem::take(&mut self.fresh) {
            return self.read_input(&[], &mut tell);
        }
        let n = loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(Broken::Closed),
                Ok(n) => break n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        };
        // Less than asked for is all there is. The end has an edge of its own, unless it came with this one.
        self.readable = n == buffer.len() || self.ended;
        self.read_input(&buffer[..n], &mut tell)?;
        // There may be more in the kernel, whatever was seen when this was read.
        self.readable |= self.fresh;
        Ok(())
    }

    /// Takes what is complete of the input so far and `bytes`.
    fn read_input(&mut self, bytes: &[u8], tell: &mut impl FnMut(Received<'_>)) -> Result<(), Broken> {
        if self.input.is_empty() {
            let used = self.take(bytes, tell)?;
            self.input.extend_from_slice(&bytes[used..]);
        } else {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(bytes);
            let used = self.take(&input, tell)?;
            input.drain(..used);
            if input.is_empty() {
                input.shrink_to(IDLE_CAPACITY);
            }
            self.input = input;
        }
        Ok(())
    }

    /// Takes all complete frames from `input`; returns their length.
    fn take(&mut self, input: &[u8], tell: &mut impl FnMut(Received<'_>)) -> Result<usize, Broken> {
        let mut at = 0;
        while let Some((used, step)) = self.decoder.next(&input[at..])? {
            at += used;
            match step {
                Step::Nothing => {}
                Step::Ready(identity) => {
                    if !identity.is_empty() {
                        self.identity = Bytes::copy_from_slice(identity);
                    }
                    (self.ready, self.fresh) = (true, true);
                    tell(Received::Ready);
                    break;
                }
                Step::Part(bytes, more) => self.take_part(bytes, more, tell)?,
                Step::Subscribe(topic) => self.take_topic(topic, true, tell)?,
                Step::Cancel(topic) => self.take_topic(topic, false, tell)?,
                Step::Ping(context) => self.answer(context)?,
                Step::Moved => tell(Received::Moved),
            }
        }
        Ok(at)
    }

    fn take_part(&mut self, bytes: &[u8], more: bool, tell: &mut impl FnMut(Received<'_>)) -> Result<(), Broken> {
        if self.role.publishes() {
            // In version 3.0 a subscription is a message whose first byte says which way.
            return match bytes.split_first() {
                Some((&flag @ (0 | 1), topic)) if !more => self.take_topic(topic, flag == 1, tell),
                _ => Ok(()),
            };
        }
        if !self.role.receives() {
            return Ok(());
        }
        if self.parts.is_empty() && self.role == Role::Router {
            self.parts.push(Message::new(self.identity.clone(), true));
        }
        if self.parts.len() == MAX_PARTS {
            return Err(Violation::Malformed("message: it has too many parts").into());
        }
        self.parts.push(Message::new(Bytes::copy_from_slice(bytes), more));
        if !more {
            tell(Received::Message(&mut self.parts));
            self.parts.clear();
        }
        Ok(())
    }

    fn take_topic(&mut self, topic: &[u8], on: bool, tell: &mut impl FnMut(Received<'_>)) -> Result<(), Broken> {
        if on && (self.topics.len() >= MAX_TOPICS || self.topics.bytes() + topic.len() > MAX_TOPIC_BYTES) {
            return Err(Violation::Malformed("subscription: there are too many").into());
        }
        let changed = if on { self.topics.add(topic) } else { self.topics.remove(topic) };
        if let Some(topic) = changed {
            tell(Received::Topic(topic, on));
        }
        Ok(())
    }

    /// Answers a PING, if the peer reads the answers.
    fn answer(&mut self, context: &[u8]) -> Result<(), Broken> {
        self.outgoing.push_control(|out| frame::write_command(out, "PONG", context));
        if self.outgoing.control() > MAX_CONTROL {
            self.write();
        }
        match self.outgoing.control() {
            control if control > MAX_CONTROL => Err(Violation::Malformed("PING: the answers are not read").into()),
            _ => Ok(()),
        }
    }
}
