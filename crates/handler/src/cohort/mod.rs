// SPDX-License-Identifier: AGPL-3.0-or-later
//! Holds that have the same: the same place in their channels, and the same next link.
//!
//! They would all ask their backend the same at the same moment, so they ask it once: a cohort has one position, one timer,
//! one request at a time, and its streams share the bytes of the answer. Holds without a `prev-id` and without a next link
//! are in no cohort.
//!
//! A cohort knows no sockets and makes no requests. [`table`] keeps all of them, [`schedule`] says when they may ask,
//! `engine` does what follows. GRIP, sections on prev-id, link fetch and updates.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod page;
pub mod schedule;
pub mod table;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use grip::item::HttpStream;
use grip::{Action, HoldMode, Item};

use self::page::Page;
use crate::fetch::FetchKey;
use crate::subscribe::channels::HoldKey;

/// Messages that wait while a page is fetched.
const MAX_KEPT: usize = 100;
/// How often a page is asked for again.
const MAX_TRIES: u32 = 5;

/// Where streams go on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// Absolute URI.
    pub uri: String,
    /// How long the channels may be silent before it is fetched.
    pub timeout: Duration,
}

/// What the requests of a cohort have from its clients' own: the route, and what it gives to holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Site {
    /// The route's id.
    pub route: String,
    /// What the clients have asked for, as far as the authority: links there go by the route's targets.
    pub root: String,
    /// Put before each channel name that the backend gives.
    pub prefix: String,
    /// Channels of the route, full names.
    pub implicit: Vec<String>,
    /// The route's target may be on a private network, and so may be links.
    pub trusted: bool,
}

/// A channel, and the last message that the clients have of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tracked {
    /// Its full name.
    pub channel: String,
    /// How much of the name is the route's prefix.
    pub prefix: usize,
    /// Id of the last message; `None`: what is missed is not noticed.
    pub prev_id: Option<String>,
}

impl Tracked {
    /// The name as the backend knows it.
    pub fn name(&self) -> &str {
        self.channel.get(self.prefix..).unwrap_or_default()
    }

    /// Whether an item comes next. To say that nothing came before is the same as to say nothing.
    fn is_followed_by(&self, item: &Item) -> bool {
        self.prev_id.as_deref() == Some(item.prev_id.as_deref().unwrap_or_default())
    }
}

/// What the holds of a cohort have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Likeness {
    /// How they are held.
    pub mode: HoldMode,
    /// Their channels, in the order of the instruct.
    pub position: Vec<Tracked>,
    /// Where they go on; none for long-polls.
    pub link: Option<Link>,
    /// Whence their requests go.
    pub site: Rc<Site>,
}

/// What a cohort is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for messages.
    Holding,
    /// It will ask its backend in a moment. With a gap in a channel, or while filters ask, it takes no messages before that.
    Waiting {
        /// A message was missed.
        gap: bool,
    },
    /// A page is being fetched.
    Fetching,
    /// A page has come and goes on elsewhere; that is fetched when a client has room.
    Turning,
    /// A page could not be fetched, and is asked for again at this time.
    BackingOff(Instant),
}

/// What a message is for a cohort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next one.
    Deliver,
    /// It comes while a page is fetched: keep it.
    Keep,
    /// It is not the next one: something was missed. Told once for each gap.
    Gap,
    /// Nothing more is to be done.
    Drop,
}

/// How urgent it is to ask the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// With others, in turns.
    Low,
    /// Now.
    High,
}

/// See the module.
pub struct Cohort {
    /// Tells it from others that had its index.
    pub serial: u64,
    /// The holds.
    pub members: Vec<HoldKey>,
    /// What they have in common.
    pub like: Likeness,
    /// What it is doing.
    pub state: State,
    /// Its long-polls are on their way back to the proxy, and stay no longer than that takes.
    leaving: bool,
    /// The page that is being fetched.
    pub page: Option<Box<Page>>,
    /// The request for it.
    pub fetch: Option<FetchKey>,
    /// Whether the backend is to be asked once more after the page.
    again: Option<Urgency>,
    kept: VecDeque<Item>,
    kept_bytes: usize,
    /// The number of the message that was judged last.
    judged: u64,
    verdict: Verdict,
    /// Channels with a message since the link's time has begun, as bits.
    active: u64,
    /// All channels have had one: the link waits once more.
    refreshed: bool,
    /// When the next link is fetched if nothing happens.
    link_at: Option<Instant>,
    tries: u32,
    /// When the timer comes up; others in the wheel are stale.
    watched: Option<Instant>,
}

impl Cohort {
    fn new(serial: u64, like: Likeness, state: State) -> Self {
        Cohort {
            serial,
            members: Vec::new(),
            like,
            state,
            leaving: false,
            page: None,
            fetch: None,
            again: None,
            kept: VecDeque::new(),
            kept_bytes: 0,
            judged: 0,
            verdict: Verdict::Drop,
            active: 0,
            refreshed: false,
            link_at: None,
            tries: 0,
            watched: None,
        }
    }

    /// Whether another hold with the same position may join.
    fn is_open(&self) -> bool {
        !self.leaving && matches!(self.state, State::Holding | State::Waiting { .. })
    }

    /// Judges a message; `true` if the position has changed. Each has a number, by which a repeated question is known.
    fn judge(&mut self, number: u64, item: &Item) -> (Verdict, bool) {
        if self.judged == number {
            return (self.verdict, false);
        }
        let before = self.like.position.iter().find(|tracked| tracked.channel == item.channel);
        let before = before.and_then(|tracked| tracked.prev_id.clone());
        let verdict = self.check(item);
        self.judged = number;
        // What is done once is not done again for another class of the same channel.
        self.verdict = if verdict == Verdict::Deliver { Verdict::Deliver } else { Verdict::Drop };
        (verdict, verdict == Verdict::Deliver && before.is_some() && before != item.id)
    }

    fn check(&mut self, item: &Item) -> Verdict {
        let later = match self.like.mode {
            HoldMode::Stream => Verdict::Keep,
            // It is about to be asked for again, and will be answered with what it has missed.
            HoldMode::Response => Verdict::Drop,
        };
        match self.state {
            State::Holding | State::Waiting { gap: false } => {}
            State::Waiting { gap: true } | State::Fetching | State::Turning | State::BackingOff(_) => return later,
        }
        let Some(at) = self.like.position.iter().position(|tracked| tracked.channel == item.channel) else {
            return Verdict::Deliver;
        };
        let tracked = &mut self.like.position[at];
        if tracked.prev_id.is_some() {
            if !tracked.is_followed_by(item) {
                return Verdict::Gap;
            }
            tracked.prev_id = item.id.clone();
        }
        self.active |= 1 << at.min(63);
        let all = u64::MAX >> (64 - self.like.position.len().clamp(1, 64));
        if self.active & all == all {
            (self.active, self.refreshed) = (0, true);
        }
        Verdict::Deliver
    }

    /// Keeps a message for after the page; `false` if too many wait.
    pub fn keep(&mut self, item: Item, max_bytes: usize) -> bool {
        let bytes = match &item.formats.http_stream {
            Some(Action::Send(HttpStream { content, .. })) => content.len(),
            _ => 0,
        };
        let fits = self.kept.len() < MAX_KEPT && self.kept_bytes + bytes <= max_bytes;
        if fits {
            self.kept_bytes += bytes;
            self.kept.push_back(item);
        }
        fits
    }

    /// The messages that were kept, without those at the front that the page has made superfluous.
    pub fn take_kept(&mut self) -> VecDeque<Item> {
        self.kept_bytes = 0;
        let mut kept = std::mem::take(&mut self.kept);
        while let Some(item) = kept.front() {
            let tracked = self.like.position.iter().find(|tracked| tracked.channel == item.channel);
            match tracked {
                Some(tracked) if tracked.prev_id.is_none() || tracked.is_followed_by(item) => break,
                _ => drop(kept.pop_front()),
            }
        }
        kept
    }

    /// Forgets the messages that were kept: the backend knows better.
    pub fn forget_kept(&mut self) {
        self.kept.clear();
        self.kept_bytes = 0;
    }

    /// The backend should be asked. Says whether that is to be done now, or to be put into the schedule; while a page is
    /// fetched it is remembered.
    pub fn wish(&mut self, urgency: Urgency, gap: bool) -> Option<Urgency> {
        match self.state {
            State::Holding => {
                self.state = State::Waiting { gap };
                Some(urgency)
            }
            State::Waiting { gap: before } => {
                self.state = State::Waiting { gap: gap || before };
                (urgency == Urgency::High).then_some(Urgency::High)
            }
            State::Fetching | State::Turning | State::BackingOff(_) => {
                self.again = self.again.max(Some(urgency));
                None
            }
        }
    }

    /// It takes no message before it has asked its backend.
    pub fn take_no_more(&mut self) {
        self.state = State::Waiting { gap: true };
    }

    /// Whether it will ask its backend in a moment.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// A page has come.
    pub fn succeeded(&mut self) {
        self.tries = 0;
    }

    /// The hold begins, or goes on after a page. Returns how urgent it is to ask again, if it is.
    fn settle(&mut self, now: Instant) -> Option<Urgency> {
        self.state = State::Holding;
        self.tries = 0;
        self.start_link_timer(now);
        self.again.take()
    }

    fn start_link_timer(&mut self, now: Instant) {
        (self.active, self.refreshed) = (0, false);
        self.link_at = self.like.link.as_ref().map(|link| now + link.timeout);
    }

    /// A page could not be fetched; says when to try again, or `None` if that is over. `jitter` spreads many.
    pub fn back_off(&mut self, jitter: Duration, now: Instant) -> Option<Instant> {
        if self.tries == MAX_TRIES {
            return None;
        }
        let at = now + Duration::from_secs(1 << self.tries) + jitter;
        self.tries += 1;
        self.state = State::BackingOff(at);
        Some(at)
    }

    fn next_due(&self) -> Option<Instant> {
        match self.state {
            State::Holding => self.link_at,
            State::BackingOff(at) => Some(at),
            _ => None,
        }
    }

    /// The values of `Grip-Last` for its requests.
    pub fn grip_last(&self) -> Vec<String> {
        self.last_ids().map(|(name, id)| format!("{name}; last-id={id}")).collect()
    }

    /// Channels as the backend names them, with the ids of the last messages that the clients have.
    pub fn last_ids(&self) -> impl Iterator<Item = (&str, &str)> {
        let ids = self.like.position.iter().filter_map(|tracked| Some((tracked.name(), tracked.prev_id.as_deref()?)));
        ids.filter(|(name, _)| !name.is_empty())
    }
}
