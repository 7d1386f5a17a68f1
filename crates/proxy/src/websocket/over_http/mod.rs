// SPDX-License-Identifier: AGPL-3.0-or-later
//! A WebSocket that its backend sees as a row of requests (WebSocket-over-HTTP).
//!
//! The first request carries `OPEN`, each later one what the client has said since; responses carry what the backend says.
//! One request is under way at a time. [`Conversation`] says what the next one carries and what an answer means. Who sends
//! requests and passes events on to the client is the relay.
//!
//! - [`queue`]: what the backend has not accepted yet.
//! - [`request`]: which headers of the client go with each request.
//! - [`asking`]: one request on its way, and its answer as it comes.
//! - [`answer`]: what the head of an answer says.

pub mod answer;
pub mod asking;
pub mod queue;
pub mod request;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use bytes::Bytes;
use grip::websocket::events::{self, Event, EventError, Events};
use wire::websocket::is_sendable;

use self::answer::Answer;
use self::queue::{Offer, Overflow, Queue, Source};
use super::pipe::{Frame, Status};

/// Content of an answer that refuses the connection, in bytes. As in Pushpin: it is a page that says why.
pub const MAX_REFUSAL: usize = 100_000;
/// Before the first repetition; each further one waits twice as long. With the number of them as in Pushpin: a backend that
/// restarts has half a minute.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Repetitions of one request.
const MAX_RETRIES: u32 = 5;
/// How often a request is repeated that the backend may have acted on: it may be what ends outbound processes.
const MAX_REPETITIONS: u32 = 2;
/// Names that a backend may set for a connection, over all of its answers.
const MAX_META: usize = 64;
/// Bytes of these names and their values. They go with each request, and have to fit its head.
const MAX_META_BYTES: usize = 65_536;

/// One WebSocket towards its backend.
#[derive(Debug)]
pub struct Conversation {
    phase: Phase,
    /// A request carries one event.
    one_event: bool,
    /// What the client has said; none until it has said something, and again when that is done with.
    queue: Option<Box<Queue>>,
    /// What the backend wants later requests to be like; most want nothing.
    wishes: Option<Box<Wishes>>,
    under_way: Option<Box<UnderWay>>,
    /// A request must be made even if there is nothing to say.
    must_ask: bool,
    close: Option<Box<Close>>,
    /// The backend has said `CLOSE`.
    closed_by_backend: bool,
    /// The client is gone; the backend is still to hear of it.
    parting: bool,
    /// Makes repetitions of many connections come at different times, in milliseconds.
    jitter: u16,
}

/// How a backend wants to be asked later.
#[derive(Debug, Default)]
struct Wishes {
    /// Names and values that go with each request.
    meta: Vec<(Vec<u8>, Vec<u8>)>,
    /// The backend is asked again after so much silence.
    interval: Option<Duration>,
    /// When that is.
    keep_alive_at: Option<Instant>,
}

/// A request whose answer has not come.
#[derive(Debug)]
struct UnderWay {
    ask: Ask,
    /// How often it has been repeated.
    retries: u32,
    /// When it is repeated.
    retry_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The backend has not accepted.
    Opening,
    /// It has.
    Open,
    /// Nothing more is to be said.
    Over,
}

/// A close frame of the client, or our own.
#[derive(Debug)]
struct Close {
    status: Option<Status>,
    accepted: bool,
    source: Source,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Its body: events.
    pub body: Bytes,
    /// Bytes at the beginning of its content that an earlier request had, for `Content-Bytes-Replayed`.
    pub replayed: usize,
    /// Bytes at the beginning that the backend may have got by a request whose answer was lost with a proxy or an outbound
    /// process; for `Content-Bytes-Uncertain`.
    pub uncertain: Option<usize>,
    offer: Offer,
    /// Content of the `CLOSE` that it carries, in bytes.
    close: Option<usize>,
    last: bool,
}

/// What is lost when a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The request: the backend can not have acted on it.
    Request,
    /// Its answer: the backend may have acted on it, and is to be asked again with a mark.
    Answer,
    /// Both, and it can not be repeated.
    Both,
}

/// What an answer brings.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The backend has accepted the WebSocket by this answer.
    pub opened: bool,
    /// Frames for the client, in order.
    pub frames: Vec<Frame>,
    /// Bytes that the client may send again.
    pub accepted: usize,
    /// `Set-Meta-` headers that are left out, because there are too many.
    pub left_out: usize,
    /// The connection can not go on, once the frames have been delivered.
    pub failure: Option<Failure>,
}

/// Why a connection can not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The answer to `OPEN` says what the client is to get instead.
    #[error("the backend does not accept the WebSocket")]
    Refused,
    /// A later answer is none.
    #[error("the answer must have status 200 and exactly the Content-Type {}", events::CONTENT_TYPE)]
    NoAnswer,
    /// The answer to `OPEN` does not begin with it.
    #[error("the answer to OPEN must begin with an OPEN event")]
    NotOpened,
    /// An answer has `OPEN` in another place.
    #[error("an OPEN event for a WebSocket that is open")]
    OpenedTwice,
    /// An answer is malformed.
    #[error(transparent)]
    Event(#[from] EventError),
    /// An answer accepts what was not sent, or a part of what can only be accepted whole.
    #[error("Content-Bytes-Accepted is {accepted}, and the request had {offered} bytes")]
    Accepted {
        /// What the header says.
        accepted: usize,
        /// Content of the request, in bytes.
        offered: usize,
    },
    /// There is no end to it.
    #[error("the backend accepts nothing of a request behind which more must be sent")]
    NothingAccepted,
    /// The answer to a close.
    #[error("the answer to CLOSE has neither a CLOSE event nor a Keep-Alive-Interval")]
    NotClosed,
    /// The backend says so.
    #[error("the backend has sent a DISCONNECT event")]
    Disconnected,
    /// What the client sends can not be passed on.
    #[error(transparent)]
    Overflow(#[from] Overflow),
}

impl Failure {
    /// An answer to `OPEN` with this has accepted the WebSocket first, so that its client gets what comes before.
    pub fn is_after_opening(&self) -> bool {
        matches!(self, Failure::Disconnected | Failure::OpenedTwice)
    }
}

impl Conversation {
    /// One that begins.
    pub fn new(one_event: bool, jitter: u64) -> Self {
        Conversation {
            phase: Phase::Opening,
            one_event,
            queue: None,
            wishes: None,
            under_way: None,
            must_ask: true,
            close: None,
            closed_by_backend: false,
            parting: false,
            jitter: (jitter % 1000) as u16,
        }
    }

    /// One that a predecessor of this proxy has begun, as far as it is known: no request of it is under way.
    pub fn resume(
        one_event: bool,
        jitter: u64,
        meta: Vec<(Vec<u8>, Vec<u8>)>,
        interval: Option<Duration>,
        closed_by_backend: bool,
        now: Instant,
    ) -> Self {
        let wishes = Wishes { meta, interval, keep_alive_at: interval.map(|interval| now + interval) };
        let wishes = (!wishes.meta.is_empty() || interval.is_some()).then(|| Box::new(wishes));
        Conversation {
            phase: Phase::Open,
            wishes,
            must_ask: false,
            closed_by_backend,
            ..Conversation::new(one_event, jitter)
        }
    }

    /// The number of the first packet of the client of which the backend has not accepted all, and how many bytes of the message
    /// that begins with it it has. `next` is the number of the next packet.
    pub fn position(&self, next: u32) -> (u32, u32) {
        let close = self.close.as_ref().filter(|close| !close.accepted).map(|close| (close.source.seq, 0));
        self.queue.as_ref().and_then(|queue| queue.position()).into_iter().chain(close).min().unwrap_or((next, 0))
    }

    /// After so much silence the backend is asked again.
    pub fn interval(&self) -> Option<Duration> {
        self.wishes.as_ref()?.interval
    }

    fn forget_keep_alive(&mut self) {
        if let Some(wishes) = &mut self.wishes {
            wishes.keep_alive_at = None;
        }
    }

    /// The backend has not accepted yet.
    pub fn is_opening(&self) -> bool {
        self.phase == Phase::Opening
    }

    /// Nothing is to be said any more, and nothing is waited for.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// The backend has taken our close.
    pub fn has_closed(&self) -> bool {
        self.close.as_ref().is_some_and(|close| close.accepted)
    }

    /// The backend's close has come.
    pub fn is_closed_by_backend(&self) -> bool {
        self.closed_by_backend
    }

    /// What goes with each request as `Meta-` headers.
    pub fn meta(&self) -> &[(Vec<u8>, Vec<u8>)] {
        self.wishes.as_ref().map_or(&[], |wishes| &wishes.meta)
    }

    /// Adds a frame of the client.
    ///
    /// # Errors
    /// So much waits that the connection can not go on.
    pub fn push(&mut self, frame: Frame, source: Source) -> Result<(), Failure> {
        match frame {
            Frame::Close(status) => {
                self.close.get_or_insert_with(|| Box::new(Close { status, accepted: false, source }));
                Ok(())
            }
            frame if self.close.is_none() => Ok(self.queue.get_or_insert_default().push(frame, source)?),
            // Nothing follows a close.
            _ => Ok(()),
        }
    }

    /// The backend must be asked again, whether or not there is something to say.
    pub fn refresh(&mut self) {
        self.must_ask |= self.phase == Phase::Open;
    }

    /// The client is gone without a close. The backend is told so once, after the request under way.
    pub fn part(&mut self) {
        self.parting = true;
        self.forget_keep_alive();
        let untold = self.phase == Phase::Opening && self.under_way.is_none();
        if untold || (self.has_closed() && self.closed_by_backend) {
            self.phase = Phase::Over;
        }
    }

    /// The next request, if one is to be made now. `slow`: so much waits for the client that no more is wanted.
    pub fn next(&mut self, slow: bool) -> Option<Ask> {
        if self.under_way.is_some() || self.phase == Phase::Over {
            return None;
        }
        let ask = match self.phase {
            _ if self.parting => self.request(vec![Event::Disconnect], Offer::default(), None, true),
            Phase::Opening if !self.must_ask => return None,
            Phase::Opening => self.request(vec![Event::Open], Offer::default(), None, false),
            _ => self.say(slow)?,
        };
        self.must_ask = false;
        self.forget_keep_alive();
        self.under_way = Some(Box::new(UnderWay { ask: ask.clone(), retries: 0, retry_at: None }));
        Some(ask)
    }

    fn say(&mut self, slow: bool) -> Option<Ask> {
        let closing = self.close.as_ref().is_some_and(|close| !close.accepted);
        if !self.must_ask && !closing && (slow || !self.queue.as_ref().is_some_and(|queue| queue.has_news())) {
            return None;
        }
        let mut events = Vec::new();
        let offer = match &self.queue {
            Some(queue) => queue.offer(self.one_event, &mut events),
            None => Offer::OF_NOTHING,
        };
        let has_room = offer.is_empty() || !self.one_event;
        let close = self.close.as_ref().filter(|_| closing && offer.all && has_room);
        let close = close.map(|close| {
            let status = close.status.clone();
            Event::Close(status.map(|Status { code, reason }| events::Status { code, reason }))
        });
        let length = close.as_ref().map(Event::len);
        events.extend(close);
        Some(self.request(events, offer, length, false))
    }

    fn request(&self, events: Vec<Event>, offer: Offer, close: Option<usize>, last: bool) -> Ask {
        let replayed = self.queue.as_ref().filter(|_| !offer.is_empty());
        let replayed = replayed.map_or(0, |queue| queue.replayed_bytes().min(offer.bytes));
        Ask { body: events::encode(&events), replayed, uncertain: self.uncertain(offer, close), offer, close, last }
    }

    /// For `Content-Bytes-Uncertain` of a request that carries this.
    fn uncertain(&self, offer: Offer, close: Option<usize>) -> Option<usize> {
        let of_close = self.close.as_ref().filter(|of| close.is_some() && of.source.repeated).map(|_| 0);
        self.queue.as_ref().and_then(|queue| queue.repeated_bytes(offer)).or(of_close)
    }

    /// An answer has come, whole.
    pub fn on_answer(&mut self, answer: &Answer, body: Bytes, now: Instant) -> Heard {
        let Some(ask) = self.under_way.take().map(|under_way| under_way.ask) else { return Heard::default() };
        let mut heard = Heard::default();
        let opening = self.is_opening();
        if let Err(failure) = self.take_answer(&ask, answer, body, now, &mut heard) {
            // A backend that knows the connection is still told that it has ended, unless it has just taken the client's close.
            if !self.parting || opening || failure == Failure::NotClosed {
                self.phase = Phase::Over;
            }
            heard.failure = Some(failure);
        }
        heard
    }

    fn take_answer(
        &mut self,
        ask: &Ask,
        answer: &Answer,
        body: Bytes,
        now: Instant,
        heard: &mut Heard,
    ) -> Result<(), Failure> {
        if ask.last {
            self.phase = Phase::Over;
            return Ok(());
        }
        if !answer.events {
            return Err(if self.is_opening() { Failure::Refused } else { Failure::NoAnswer });
        }
        if let Some(interval) = answer.interval.filter(|interval| interval.is_some() || self.wishes.is_some()) {
            self.wishes.get_or_insert_default().interval = interval;
        }
        heard.left_out = self.take_meta(answer);
        heard.accepted = self.take_accepted(ask, answer.accepted)?;
        let mut events = Events::new(body).peekable();
        if self.is_opening() {
            match events.next().transpose()? {
                Some(Event::Open) => {
                    self.phase = Phase::Open;
                    heard.opened = true;
                }
                // It has not decided yet.
                None if self.interval().is_some() => {}
                _ => return Err(Failure::NotOpened),
            }
        }
        for event in events {
            heard.frames.push(match event? {
                Event::Open => return Err(Failure::OpenedTwice),
                Event::Disconnect => return Err(Failure::Disconnected),
                Event::Text(body) => Frame::message(false, body),
                Event::Binary(body) => Frame::message(true, body),
                Event::Ping(body) => Frame::Ping(body),
                Event::Pong(body) => Frame::Pong(body),
                Event::Close(status) => {
                    self.closed_by_backend = true;
                    heard.frames.push(Frame::Close(self.status_for_client(status)));
                    break;
                }
            });
        }
        if self.has_closed() {
            if self.closed_by_backend {
                self.phase = Phase::Over;
            } else if self.interval().is_none() {
                return Err(Failure::NotClosed);
            }
        }
        if let Some(wishes) = &mut self.wishes {
            wishes.keep_alive_at = wishes.interval.filter(|_| !self.parting).map(|interval| now + interval);
        }
        Ok(())
    }

    /// Libraries of backends close with 0 when they are told no code. Clients take that for a breach of the protocol, so they
    /// get what they have sent themselves, or nothing.
    fn status_for_client(&self, status: Option<events::Status>) -> Option<Status> {
        let events::Status { code, reason } = status?;
        if is_sendable(code) {
            return Some(Status { code, reason });
        }
        let ours = self.close.as_ref()?.status.as_ref()?;
        Some(Status { code: ours.code, reason: Bytes::new() })
    }

    /// Gives how many there was no room for.
    fn take_meta(&mut self, answer: &Answer) -> usize {
        if answer.meta.is_empty() {
            return 0;
        }
        let mut left_out = 0;
        let meta = &mut self.wishes.get_or_insert_default().meta;
        for (name, value) in &answer.meta {
            meta.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
            if value.is_empty() {
                continue;
            }
            let bytes: usize = meta.iter().map(|(name, value)| name.len() + value.len()).sum();
            if meta.len() < MAX_META && bytes + name.len() + value.len() <= MAX_META_BYTES {
                meta.push((name.clone(), value.clone()));
            } else {
                left_out += 1;
            }
        }
        left_out
    }

    /// Gives the bytes that the client may send again.
    fn take_accepted(&mut self, ask: &Ask, accepted: Option<usize>) -> Result<usize, Failure> {
        let of_close = ask.close.unwrap_or(0);
        let offered = ask.offer.bytes + of_close;
        let accepted = accepted.unwrap_or(offered);
        let of_messages = accepted.min(ask.offer.bytes);
        let close_in_part = accepted >= ask.offer.bytes && accepted < offered;
        if accepted > offered || close_in_part {
            return Err(Failure::Accepted { accepted, offered });
        }
        // What could not be carried, or a close, is sent at once: that must have an end.
        if accepted == 0 && ask.offer.bytes > 0 && (!ask.offer.all || ask.close.is_some()) {
            return Err(Failure::NothingAccepted);
        }
        if let Some(queue) = &mut self.queue {
            queue.accept(ask.offer, of_messages);
        }
        if ask.close.is_some()
            && accepted == offered
            && let Some(close) = &mut self.close
        {
            close.accepted = true;
            self.queue.iter_mut().for_each(|queue| queue.forget_unfinished());
        }
        Ok(of_messages)
    }

    /// The request under way has failed. Gives `true` if it is repeated later.
    pub fn on_failure(&mut self, loss: Loss, now: Instant) -> bool {
        let jitter = Duration::from_millis(self.jitter.into());
        let most = if loss == Loss::Answer { MAX_REPETITIONS } else { MAX_RETRIES };
        let may_repeat = match loss {
            Loss::Request => self.phase == Phase::Open,
            // That the client has gone is told once.
            Loss::Answer => !self.parting,
            Loss::Both => false,
        };
        if let Some(mut under_way) = self.under_way.take_if(|under_way| may_repeat && under_way.retries < most) {
            let mut wait = FIRST_RETRY * (1 << under_way.retries);
            if loss == Loss::Answer {
                self.doubt(&mut under_way.ask);
                wait = Duration::ZERO;
            }
            under_way.retry_at = Some(now + wait + jitter);
            under_way.retries += 1;
            self.under_way = Some(under_way);
            return true;
        }
        let ended = self.under_way.take().is_none_or(|under_way| under_way.ask.last);
        if ended || !self.parting || self.is_opening() {
            self.phase = Phase::Over;
        }
        false
    }

    /// Marks what a request carries as what the backend may know.
    fn doubt(&mut self, ask: &mut Ask) {
        if let Some(queue) = &mut self.queue {
            queue.doubt(ask.offer);
        }
        if let Some(close) = self.close.as_mut().filter(|_| ask.close.is_some()) {
            close.source.repeated = true;
        }
        // An `OPEN` has no content that could be counted.
        let of_open = self.is_opening().then_some(0);
        ask.uncertain = self.uncertain(ask.offer, ask.close).or(of_open);
    }

    /// The request that is to be repeated now.
    pub fn repeat(&mut self, now: Instant) -> Option<Ask> {
        let under_way = self.under_way.as_mut()?;
        under_way.retry_at.take_if(|at| *at <= now)?;
        Some(under_way.ask.clone())
    }

    /// The time has come to ask although there is nothing to say.
    pub fn on_timer(&mut self, now: Instant) {
        if self.keep_alive_at().is_some_and(|at| at <= now) {
            self.forget_keep_alive();
            self.must_ask = true;
        }
    }

    fn keep_alive_at(&self) -> Option<Instant> {
        self.wishes.as_ref()?.keep_alive_at
    }

    /// When [`Conversation::repeat`] or [`Conversation::on_timer`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        let retry = self.under_way.as_ref().and_then(|under_way| under_way.retry_at);
        retry.into_iter().chain(self.keep_alive_at()).min()
    }

    /// Gives up room that is needed only while something is said.
    pub fn rest(&mut self) {
        self.queue.take_if(|queue| queue.is_empty());
        if let Some(wishes) = &mut self.wishes {
            wishes.meta.shrink_to_fit();
        }
    }
}
