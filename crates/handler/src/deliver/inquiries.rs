// SPDX-License-Identifier: AGPL-3.0-or-later
//! Messages that wait while filters ask a backend about them (GRIP, http-check and http-modify).
//!
//! Each group of subscribers has a queue in each of its modes. Only the first message of a queue is asked about, so the others
//! stay in order behind it. So many wait in all queues together, and so many bytes; what comes when there are more is dropped.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::fast::RandomState;
use grip::Item;
use grip::filter::{Filter, FilterError, Reason};

use crate::fetch::FetchKey;
use crate::hold::terms::ResponseTerms;
use crate::subscribe::channels::{Apart, CohortKey, Kin, Mode};
use crate::subscribe::classes::{Named, Progress};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of content, or of a header, that is sent, and bytes of an answer.
pub const MAX_BYTES: usize = 100_000;

/// A message on its way through the filters of a group.
pub struct Inquiry {
    /// The message.
    pub item: Rc<Item>,
    /// The group.
    pub kin: Kin,
    /// How those are held whom it is for.
    pub mode: Mode,
    /// Who has come later does not get it.
    pub last_birth: u64,
    /// It is only for long-polls with these terms, because it was made of their response.
    pub terms: Option<Rc<ResponseTerms>>,
    /// Content as the filters so far have made it.
    pub content: Bytes,
    /// What the clients had when it was published: values of `Grip-Last`.
    pub grip_last: Vec<String>,
    /// Filters look at it. What is no content (close) only waits for its turn.
    is_content: bool,
    channels: Named,
    /// The filter that is next.
    next: usize,
    is_dropped: bool,
    /// Bytes that it had when it began to wait.
    bytes: usize,
}

impl Inquiry {
    /// One that no filter has seen yet. Without `content` it is none.
    pub fn new(item: Rc<Item>, kin: Kin, mode: Mode, content: Option<Bytes>) -> Self {
        let channels = kin.class.as_ref().map(|class| class.channels()).unwrap_or_default();
        let (is_content, content) = (content.is_some(), content.unwrap_or_default());
        Inquiry {
            item,
            kin,
            mode,
            last_birth: u64::MAX,
            terms: None,
            bytes: content.len(),
            content,
            grip_last: Vec::new(),
            is_content,
            channels,
            next: 0,
            is_dropped: false,
        }
    }

    /// Runs filters up to the next one that asks.
    ///
    /// # Errors
    /// A filter fails; the message is not delivered.
    pub fn proceed(&self) -> Result<Progress, FilterError> {
        match &self.kin.class {
            _ if self.is_dropped => Ok(Progress::Done(None)),
            Some(class) if self.is_content => class.proceed(self.next, &self.channels, &self.item.meta, &self.content),
            _ => Ok(Progress::Done(Some(self.content.clone()))),
        }
    }

    /// The filter that has asked, or will.
    pub fn filter(&self) -> Filter {
        self.kin.class.as_ref().and_then(|class| class.filter(self.next)).unwrap_or(Filter::HttpCheck)
    }
}

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Its status.
    pub code: u16,
    /// It says that the message is not to be delivered.
    pub drops: bool,
}

/// The answer as far as it has come.
#[derive(Default)]
struct Answer {
    head: Option<Head>,
    body: Vec<u8>,
}

/// Whose messages are in a queue: channel, group, mode.
type Station = (String, Option<Apart>, Mode);

struct Queue {
    station: Station,
    waiting: VecDeque<Inquiry>,
    /// The request about the first message.
    fetch: Option<FetchKey>,
    answer: Answer,
}

/// See the module.
pub struct Inquiries {
    queues: HashMap<u64, Queue, RandomState>,
    /// Channel names may be chosen by clients of backends, hence the standard library's keyed hash.
    numbers: HashMap<Station, u64>,
    last: u64,
    /// Queues that can go on.
    ready: VecDeque<u64>,
    /// How many messages wait for a cohort.
    cohorts: HashMap<CohortKey, usize, RandomState>,
    deadlines: VecDeque<(Instant, u64, FetchKey)>,
    waiting: usize,
    bytes: usize,
    max: usize,
    max_bytes: usize,
}

impl Inquiries {
    /// At most `max` messages wait, and `max_bytes` of content.
    pub fn new(max: usize, max_bytes: usize) -> Self {
        Inquiries {
            queues: HashMap::default(),
            numbers: HashMap::new(),
            last: 0,
            ready: VecDeque::new(),
            cohorts: HashMap::default(),
            deadlines: VecDeque::new(),
            waiting: 0,
            bytes: 0,
            max,
            max_bytes,
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Lets a message wait behind those of its group; `false` if too many wait.
    #[must_use]
    pub fn push(&mut self, inquiry: Inquiry) -> bool {
        if self.waiting >= self.max || self.bytes + inquiry.bytes > self.max_bytes {
            return false;
        }
        self.waiting += 1;
        self.bytes += inquiry.bytes;
        if let Some(cohort) = inquiry.kin.cohort {
            *self.cohorts.entry(cohort).or_default() += 1;
        }
        let station = (inquiry.item.channel.clone(), inquiry.kin.apart(), inquiry.mode);
        if let Some(queue) = self.numbers.get(&station).and_then(|number| self.queues.get_mut(number)) {
            queue.waiting.push_back(inquiry);
            return true;
        }
        self.last += 1;
        self.numbers.insert(station.clone(), self.last);
        let queue = Queue { station, waiting: VecDeque::from([inquiry]), fetch: None, answer: Answer::default() };
        self.queues.insert(self.last, queue);
        self.ready.push_back(self.last);
        true
    }

    /// Takes the first message from a queue; the next one can go on.
    pub fn pop(&mut self, number: u64) -> Option<Inquiry> {
        let queue = self.queues.get_mut(&number)?;
        queue.fetch = None;
        let first = queue.waiting.pop_front()?;
        if queue.waiting.is_empty() {
            self.numbers.remove(&queue.station);
            self.queues.remove(&number);
        } else {
            self.ready.push_back(number);
        }
        self.waiting -= 1;
        self.bytes -= first.bytes;
        if let Some(cohort) = first.kin.cohort
            && let Some(waiting) = self.cohorts.get_mut(&cohort)
        {
            *waiting -= 1;
            if *waiting == 0 {
                self.cohorts.remove(&cohort);
            }
        }
        Some(first)
    }

    /// Whether messages wait for a cohort.
    pub fn has_any_for(&self, cohort: CohortKey) -> bool {
        self.cohorts.contains_key(&cohort)
    }

    /// A queue whose first message can go on.
    pub fn next_ready(&mut self) -> Option<u64> {
        self.ready.pop_front()
    }

    /// The first message of a queue.
    pub fn first(&self, number: u64) -> Option<&Inquiry> {
        self.queues.get(&number)?.waiting.front()
    }

    /// The first message of a queue waits for this request now; the filter `at` has asked about `content`.
    pub fn asked(&mut self, number: u64, at: usize, content: Bytes, fetch: FetchKey, now: Instant) {
        let Some(queue) = self.queues.get_mut(&number) else { return };
        (queue.fetch, queue.answer) = (Some(fetch), Answer::default());
        if let Some(first) = queue.waiting.front_mut() {
            (first.next, first.content) = (at, content);
        }
        self.deadlines.push_back((now + PATIENCE, number, fetch));
    }

    /// A piece of an answer, with or without the head; `more` follows.
    ///
    /// # Errors
    /// The message is not delivered.
    pub fn on_answer(&mut self, number: u64, head: Option<Head>, body: &[u8], more: bool) -> Result<(), FilterError> {
        let Some(queue) = self.queues.get_mut(&number) else { return Ok(()) };
        let Some(first) = queue.waiting.front_mut() else { return Ok(()) };
        let filter = first.filter();
        let fail = |reason| Err(FilterError { filter, reason });
        queue.answer.head = queue.answer.head.or(head);
        let Some(Head { code, drops }) = queue.answer.head else { return fail(Reason::Network("general error")) };
        if code != 200 && code != 204 {
            return fail(Reason::Status(code));
        }
        let modifies = filter == Filter::HttpModify && code == 200 && !drops;
        if modifies {
            if queue.answer.body.len() + body.len() > MAX_BYTES {
                return fail(Reason::LongAnswer(MAX_BYTES));
            }
            queue.answer.body.extend_from_slice(body);
        }
        if more {
            return Ok(());
        }
        if modifies {
            first.content = std::mem::take(&mut queue.answer.body).into();
        }
        first.is_dropped = drops;
        first.next += 1;
        queue.fetch = None;
        self.ready.push_back(number);
        Ok(())
    }

    /// Whether a queue waits for this request.
    pub fn awaits(&self, number: u64, fetch: FetchKey) -> bool {
        self.queues.get(&number).is_some_and(|queue| queue.fetch == Some(fetch))
    }

    /// A request that has taken too long, with its queue.
    pub fn expired(&mut self, now: Instant) -> Option<(u64, FetchKey)> {
        while let Some(&(due, number, fetch)) = self.deadlines.front() {
            let awaited = self.awaits(number, fetch);
            if awaited && due > now {
                return None;
            }
            self.deadlines.pop_front();
            if awaited {
                return Some((number, fetch));
            }
        }
        None
    }

    /// When [`Inquiries::expired`] is to be called.
    pub fn next_due(&self) -> Option<Instant> {
        self.deadlines.front().map(|(due, ..)| *due)
    }
}
