// SPDX-License-Identifier: AGPL-3.0-or-later
//! A client that waits to be sent something: its session at the frontend, its terms, and what waits for it. Most are held
//! requests; a WebSocket into which we push is one more kind. [`table`] keeps all of them.
//!
//! [`response`], [`stream`] and [`push`] are the kinds, one a file. [`terms`] is what the backend wants, [`opening`] how the
//! response begins, [`queue`] what waits.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod opening;
pub mod push;
pub mod queue;
pub mod response;
pub mod stream;
pub mod table;
pub mod terms;
pub mod timers;

use std::time::{Duration, Instant};

use bytes::Bytes;
use grip::HoldMode;
use zhttp::session::server;

use crate::cohort::table::Membership;
use crate::context::{Address, Way};
use crate::fetch::Ask;
use crate::subscribe::channels::Place;
use crate::subscribe::channels::SocketKey;
use crate::subscribe::few::Few;

use self::push::PushHold;
use self::queue::Queue;
use self::response::ResponseHold;
use self::stream::StreamHold;
use self::terms::Terms;

/// See the module.
pub struct Hold {
    /// The client's session, at its frontend.
    pub session: server::Session,
    /// Long-poll, stream, or WebSocket.
    pub kind: Kind,
    /// Its places in the lists of its channels.
    pub places: Few<Place>,
    /// Content that waits; most clients never need a queue.
    queue: Option<Box<Queue>>,
    /// The response ends when the queue is empty.
    pub ending: bool,
    /// Will be looked at: at the end of the turn, or when its frontend's link has room.
    pub ready: bool,
    /// The client may see what goes wrong.
    pub debug: bool,
    /// Tells this hold from an earlier one at the same index.
    pub birth: u64,
    /// Which note among the timers counts: its last, a number that no other hold has.
    pub watch: u32,
    /// Its place among those who go on in the same way.
    pub membership: Option<Membership>,
    /// What its backend is told when it ends.
    pub farewell: Option<Box<Ask>>,
    /// Its frontend keeps what a successor of this handler must know.
    pub is_recorded: bool,
    /// Its frontend has been told that something waits here.
    pub lags: bool,
    /// The last run that it had from a predecessor; those that are new here have none to come.
    pub run: u64,
}

/// What depends on how a client is held.
pub enum Kind {
    /// Long-poll.
    Response(ResponseHold),
    /// Streaming.
    Stream(StreamHold),
    /// The second lane of a WebSocket.
    Push(PushHold),
}

impl Hold {
    /// A hold that has just been taken over.
    pub fn new(session: server::Session, terms: &Terms, birth: u64, now: Instant, jitter: Duration) -> Self {
        let kind = match terms {
            Terms::Response(terms) => Kind::Response(ResponseHold::new(terms.clone(), now)),
            Terms::Stream(terms) => Kind::Stream(StreamHold::new(terms.clone(), now, jitter)),
        };
        Hold::of_kind(session, kind, birth)
    }

    /// A WebSocket that is pushed into from now on.
    pub fn pushing(session: server::Session, socket: SocketKey, birth: u64) -> Self {
        Hold::of_kind(session, Kind::Push(PushHold { socket, after: None, pushed_at: None }), birth)
    }

    fn of_kind(session: server::Session, kind: Kind, birth: u64) -> Self {
        Hold {
            session,
            kind,
            places: Few::None,
            queue: None,
            ending: false,
            ready: false,
            debug: false,
            birth,
            watch: 0,
            membership: None,
            farewell: None,
            is_recorded: false,
            lags: false,
            run: u64::MAX,
        }
    }

    /// How it is held. A WebSocket is in no channel as a hold.
    pub fn mode(&self) -> HoldMode {
        match self.kind {
            Kind::Response(_) => HoldMode::Response,
            Kind::Stream(_) | Kind::Push(_) => HoldMode::Stream,
        }
    }

    /// The WebSocket that it is the second lane of.
    pub fn socket(&self) -> Option<SocketKey> {
        match &self.kind {
            Kind::Push(push) => Some(push.socket),
            Kind::Response(_) | Kind::Stream(_) => None,
        }
    }

    /// How packets get to its session.
    pub fn way(&self) -> Way {
        Way { by_router: self.session.by_router(), lane: u8::from(self.socket().is_some()) }
    }

    /// Whether something must come first that only the proxy knows of.
    pub fn is_barred(&self) -> bool {
        matches!(&self.kind, Kind::Push(push) if push.after.is_none())
    }

    /// The way to its frontend.
    pub fn address(&self) -> Address {
        Address { peer: self.session.client(), by_router: self.session.by_router() }
    }

    /// Whether `bytes` can be sent at once, in order.
    pub fn takes(&self, bytes: usize) -> bool {
        self.queue.is_none() && self.session.credits() as usize >= bytes && !self.ending && !self.is_barred()
    }

    /// Lets content wait. Nothing is added to a response that is about to end.
    pub fn enqueue(&mut self, content: Bytes) {
        if !self.ending && !content.is_empty() {
            self.queue.get_or_insert_default().push(content);
        }
    }

    /// What waits, if anything does.
    pub fn queue(&self) -> Option<&Queue> {
        self.queue.as_deref()
    }

    /// The same, to be changed.
    pub fn queue_mut(&mut self) -> Option<&mut Queue> {
        self.queue.as_deref_mut()
    }

    /// Bytes that wait.
    pub fn queued(&self) -> usize {
        self.queue().map_or(0, Queue::bytes)
    }

    /// Takes the next `len` bytes out of the queue and counts them as sent. Returns the packet's number.
    pub fn send_queued(&mut self, len: usize) -> u32 {
        if let Some(queue) = &mut self.queue {
            queue.advance(len);
            if queue.is_empty() {
                self.queue = None;
            }
        }
        self.session.send_body(len).seq
    }

    /// Content was sent or has begun to wait.
    pub fn on_content(&mut self, now: Instant) {
        match &mut self.kind {
            Kind::Stream(stream) => stream.on_sent(now),
            Kind::Push(push) => push.pushed_at = Some(now),
            Kind::Response(_) => {}
        }
    }

    /// When the response is to be sent, or a keep-alive of the stream.
    pub fn next_due(&self) -> Option<Instant> {
        match &self.kind {
            Kind::Response(response) => response.ends_at,
            Kind::Stream(stream) => stream.keep_alive_at,
            Kind::Push(_) => None,
        }
    }
}
