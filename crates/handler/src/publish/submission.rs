// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a publisher asks for over HTTP, on its way to the worker and back.
//!
//! The worker may be busy for longer than the publisher cares to wait. Exactly one of two things happens then: either the
//! worker begins and the publisher hears how it went, or the publisher gives up first and nothing is published.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::deliver::fate::Fate;
use crate::subscribe::counts::{Counts, Listing, Page};
use crate::subscribe::presence::{Asked, Users};

/// What is asked for.
#[derive(Debug, PartialEq)]
pub enum Work {
    /// Deliver these, all of them.
    Publish(Vec<grip::Item>),
    /// Forget last ids.
    Recover,
    /// Tell how many are subscribed to this channel, and which users, if they are asked for.
    Count(String, Option<Asked>),
    /// Tell who is subscribed to channels.
    List(Listing),
}

/// What came of work.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// What has become of each item, in their order.
    Published(Vec<Fate>),
    /// Last ids are forgotten.
    Recovered,
    /// The channel's subscribers, and its users, if they were asked for; nothing if it is not known.
    Counted(Option<(Counts, Option<Users>)>),
    /// Channels.
    Listed(Page),
}

/// Work that the worker has not begun.
#[derive(Debug)]
pub struct Submission {
    slot: Slot,
    done: oneshot::Sender<Output>,
}

/// The publisher's side of a [`Submission`].
#[derive(Debug)]
pub struct Waiting {
    slot: Slot,
    done: oneshot::Receiver<Output>,
}

/// Tells the publisher when its work is done. The publisher hears of a failure if this is dropped instead.
#[derive(Debug)]
pub struct Receipt {
    done: oneshot::Sender<Output>,
    fates: Vec<Fate>,
}

/// How a submission ended, as far as the publisher waited for it.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is done.
    Done(Output),
    /// None of it was done, and none will be.
    NotBegun,
    /// It was begun, and how far it came is not known.
    Unfinished,
}

/// Whoever takes the work out first decides whether it is done. What is given up takes no memory from then on.
#[derive(Clone, Debug)]
struct Slot(Arc<Mutex<Option<Work>>>);

impl Slot {
    fn take(&self) -> Option<Work> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Both sides of one piece of work.
pub fn submit(work: Work) -> (Submission, Waiting) {
    let slot = Slot(Arc::new(Mutex::new(Some(work))));
    let (sender, receiver) = oneshot::channel();
    (Submission { slot: slot.clone(), done: sender }, Waiting { slot, done: receiver })
}

impl Submission {
    /// Begins the work; `None` if the publisher has given up, so that it must not be done.
    pub fn begin(self) -> Option<(Work, Receipt)> {
        Some((self.slot.take()?, Receipt { done: self.done, fates: Vec::new() }))
    }
}

impl Receipt {
    /// What has become of the next item.
    pub fn note(&mut self, fate: Fate) {
        self.fates.push(fate);
    }

    /// Everything that was to be published has been handed to the links of the frontends.
    pub fn complete(mut self) {
        let fates = std::mem::take(&mut self.fates);
        self.answer(Output::Published(fates));
    }

    /// This came of the work.
    pub fn answer(self, output: Output) {
        // The publisher may be gone; what it asked for is done all the same.
        let _ = self.done.send(output);
    }
}

impl Waiting {
    /// Waits up to `patience` for the work to begin, and as long again for work that has begun to end.
    pub async fn outcome(mut self, patience: Duration) -> Outcome {
        match tokio::time::timeout(patience, &mut self.done).await {
            Ok(Ok(output)) => return Outcome::Done(output),
            Ok(Err(_)) | Err(_) if self.slot.take().is_some() => return Outcome::NotBegun,
            Ok(Err(_)) => return Outcome::Unfinished,
            Err(_) => {}
        }
        match tokio::time::timeout(patience, &mut self.done).await {
            Ok(Ok(output)) => Outcome::Done(output),
            _ => Outcome::Unfinished,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // A publisher that hung up before the work began will ask again.
        self.slot.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(60);

    fn wait(waiting: Waiting, patience: Duration) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(waiting.outcome(patience))
    }

    #[test]
    fn work_that_is_done_is_reported() {
        let (submission, waiting) = submit(Work::Recover);
        let (work, receipt) = submission.begin().unwrap();
        assert_eq!(work, Work::Recover);
        receipt.answer(Output::Recovered);
        assert_eq!(wait(waiting, LONG), Outcome::Done(Output::Recovered));
    }

    #[test]
    fn a_publisher_hears_of_each_item() {
        let (submission, waiting) = submit(Work::Publish(Vec::new()));
        let (_, mut receipt) = submission.begin().unwrap();
        receipt.note(Fate::Waiting);
        receipt.note(Fate::Published(Counts::default()));
        receipt.complete();
        let fates = vec![Fate::Waiting, Fate::Published(Counts::default())];
        assert_eq!(wait(waiting, LONG), Outcome::Done(Output::Published(fates)));
    }

    #[test]
    fn work_that_was_given_up_is_never_begun() {
        let (submission, waiting) = submit(Work::Recover);
        assert_eq!(wait(waiting, SHORT), Outcome::NotBegun);
        assert!(submission.begin().is_none());
    }

    #[test]
    fn work_whose_publisher_hung_up_is_never_begun() {
        let (submission, waiting) = submit(Work::Recover);
        drop(waiting);
        assert!(submission.begin().is_none());
    }

    #[test]
    fn work_that_takes_too_long_is_unfinished_and_not_called_undone() {
        let (submission, waiting) = submit(Work::Recover);
        let begun = submission.begin();
        assert_eq!(wait(waiting, SHORT), Outcome::Unfinished);
        drop(begun);
    }

    #[test]
    fn a_worker_that_ends_is_noticed_at_once() {
        let (submission, waiting) = submit(Work::Recover);
        drop(submission);
        assert_eq!(wait(waiting, LONG), Outcome::NotBegun);
        let (submission, waiting) = submit(Work::Recover);
        drop(submission.begin());
        assert_eq!(wait(waiting, LONG), Outcome::Unfinished);
    }
}
