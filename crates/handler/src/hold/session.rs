//! One held request: its ZHTTP session, its plan, and what waits for the client.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use grip::KeepAliveMode;
use zhttp::server;

use crate::hold::terms::Plan;
use crate::subscribe::channels::Place;

/// Bytes of queued content that go into one packet at most.
const MAX_PACKET: usize = 16_384;

/// A held request.
pub struct Hold {
    /// The client's session, at its frontend.
    pub session: server::Session,
    /// What the backend has asked for.
    pub plan: Rc<Plan>,
    /// Its places in the lists of its channels.
    pub places: Vec<Place>,
    /// Content that waits for credits.
    queue: VecDeque<Bytes>,
    queued: usize,
    /// The response ends when the queue is empty.
    pub ending: bool,
    /// When a long-poll gets the instruct's response.
    pub ends_at: Option<Instant>,
    /// When a silent stream sends its keep-alive.
    pub keep_alive_at: Option<Instant>,
    /// When the frontend is told again that the session lives.
    pub refresh_at: Instant,
    /// Tells this hold from an earlier one at the same index.
    pub birth: u64,
}

impl Hold {
    /// A hold that has just been taken over.
    pub fn new(session: server::Session, plan: Rc<Plan>, birth: u64, refresh_at: Instant) -> Self {
        Hold {
            session,
            plan,
            places: Vec::new(),
            queue: VecDeque::new(),
            queued: 0,
            ending: false,
            ends_at: None,
            keep_alive_at: None,
            refresh_at,
            birth,
        }
    }

    /// Whether `bytes` can be sent at once, in order.
    pub fn takes(&self, bytes: usize) -> bool {
        self.queue.is_empty() && self.session.credits as usize >= bytes && !self.ending
    }

    /// Lets content wait for credits. Nothing is added to a response that is about to end.
    pub fn enqueue(&mut self, content: Bytes) {
        if !self.ending && !content.is_empty() {
            self.queued += content.len();
            self.queue.push_back(content);
        }
    }

    /// Bytes that wait.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Bytes that wait and what it takes to keep them, which for small pieces is more.
    pub fn weight(&self) -> usize {
        self.queued + self.queue.len() * size_of::<Bytes>()
    }

    /// The next content that may be sent, as far as the credits go. The session's credits are not changed.
    pub fn next_content(&mut self) -> Option<Bytes> {
        let room = (self.session.credits as usize).min(MAX_PACKET);
        let front = self.queue.front_mut()?;
        if room == 0 {
            return None;
        }
        let content = if front.len() >= room {
            front.split_to(room)
        } else {
            // Small pieces share a packet.
            let mut joined = Vec::with_capacity(room.min(self.queued));
            while let Some(piece) = self.queue.front_mut() {
                let n = piece.len().min(room - joined.len());
                joined.extend_from_slice(&piece[..n]);
                piece.advance(n);
                if !piece.is_empty() {
                    break;
                }
                self.queue.pop_front();
            }
            joined.into()
        };
        if self.queue.front().is_some_and(Bytes::is_empty) {
            self.queue.pop_front();
        }
        if self.queue.is_empty() {
            // Most clients never need it again.
            self.queue = VecDeque::new();
        }
        self.queued -= content.len();
        Some(content)
    }

    /// Starts or restarts the stream's keep-alive; `jitter` spreads those of many streams over a second, or an eighth of
    /// the time if that is shorter.
    pub fn arm_keep_alive(&mut self, now: Instant, jitter: Duration) {
        self.keep_alive_at =
            self.plan.keep_alive.as_ref().map(|(_, timeout, _)| now + (*timeout - jitter.min(*timeout / 8)));
    }

    /// A message was sent: a stream that is only to send when idle waits again.
    pub fn on_sent(&mut self, now: Instant) {
        if let Some((_, timeout, KeepAliveMode::Idle)) = &self.plan.keep_alive {
            self.keep_alive_at = Some(now + *timeout);
        }
    }

    /// When something is to be done about this hold, whatever it is.
    pub fn next_due(&self) -> Instant {
        let session = self.session.expires_at().min(self.refresh_at);
        [self.ends_at, self.keep_alive_at].into_iter().flatten().fold(session, Instant::min)
    }
}
