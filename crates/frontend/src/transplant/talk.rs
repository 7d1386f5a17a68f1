// SPDX-License-Identifier: AGPL-3.0-or-later
//! What predecessor and successor say to each other. Neither does anything else meanwhile; clients wait in the kernel.
//!
//! 1. The successor asks ([`Question`]).
//! 2. The predecessor offers everything, and goes on having it.
//! 3. The successor sets itself up, touches nothing, and says that it is ready.
//! 4. The predecessor commits, and the successor says that it has begun.
//!
//! Until the last word is said the predecessor can go on as if nothing had been: on any error, and if the successor is gone. If
//! the last word does not come in time, the predecessor closes its ear and looks once more, so both know the same.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use process::passing::{Channel, Received};

use super::record::{self, Answer, Offer, Question, RecordError};

/// How long a successor waits until the predecessor has time for it.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long one waits for a word of the other.
const WORD: Duration = Duration::from_secs(2);
/// How long clients may wait for all of it.
const ALL: Duration = Duration::from_secs(5);
/// How long a question takes at most once somebody has come.
const QUESTION: Duration = Duration::from_millis(100);

/// Why clients stay where they are.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    /// The connection is broken, or too much time has passed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other end has gone.
    #[error("the other process has ended the connection")]
    Ended,
    /// What it says is not understood.
    #[error("what the other process says is not understood: {0}")]
    Record(#[from] RecordError),
    /// A ZeroMQ socket can not move.
    #[error("a ZeroMQ socket can not move: {0}")]
    Socket(#[from] transport::MoveError),
    /// The event loop of the successor can not be set up.
    #[error("{0}")]
    Setup(#[from] transport::Error),
    /// What it says does not go with what it said before.
    #[error("the other process says something else than it should: {0}")]
    Unexpected(&'static str),
    /// The two have different addresses.
    #[error("the addresses of its sockets are others now")]
    Addresses,
    /// It takes too long.
    #[error("clients would have to wait for more than {} s", ALL.as_secs())]
    Slow,
}

fn next(channel: &mut Channel) -> Result<Received, TalkError> {
    channel.receive()?.ok_or(TalkError::Ended)
}

/// The predecessor's end.
#[derive(Debug)]
pub struct Giving {
    channel: Channel,
    end: Instant,
}

impl Giving {
    /// Somebody has come: what does it ask?
    ///
    /// # Errors
    /// Nothing in time, or nothing that is understood.
    pub fn hear(mut channel: Channel) -> Result<(Channel, Question), TalkError> {
        channel.wait_for(Some(QUESTION))?;
        let (question, _) = next(&mut channel)?;
        Ok((channel, record::decode(&question)?))
    }

    /// Begins to answer. From now on clients wait.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn begin(channel: Channel, now: Instant) -> Result<Self, TalkError> {
        channel.wait_for(Some(WORD))?;
        Ok(Giving { channel, end: now + ALL })
    }

    /// Offers something.
    ///
    /// # Errors
    /// The other end takes nothing, or clients have waited for too long.
    pub fn offer(&self, offer: &Offer, files: &[BorrowedFd<'_>]) -> Result<(), TalkError> {
        if Instant::now() > self.end {
            return Err(TalkError::Slow);
        }
        Ok(self.channel.send(&record::encode(offer), files)?)
    }

    /// That was all: which clients are refused?
    ///
    /// # Errors
    /// No answer comes.
    pub fn end(&mut self) -> Result<Vec<u32>, TalkError> {
        self.offer(&Offer::End, &[])?;
        self.channel.wait_for(Some(self.end.saturating_duration_since(Instant::now())))?;
        match record::decode(&next(&mut self.channel)?.0)? {
            Answer::Ready(refused) => Ok(refused),
            Answer::Done => Err(TalkError::Unexpected("it has begun too early")),
        }
    }

    /// Commits. If that succeeds everything is the successor's; packets of these sessions come through the channel from then on.
    ///
    /// # Errors
    /// Nothing has changed.
    pub fn commit(mut self, remaining: Vec<(u32, u64)>) -> Result<Channel, TalkError> {
        self.channel.wait_for(Some(WORD))?;
        self.channel.send(&record::encode(&Offer::Commit(remaining)), &[])?;
        let word = match self.channel.receive() {
            Ok(word) => word,
            Err(_) => {
                // Either it has been said before this, or it can not be said any more.
                self.channel.close_to()?;
                self.channel.receive()?
            }
        };
        match record::decode(&word.ok_or(TalkError::Ended)?.0)? {
            Answer::Done => Ok(self.channel),
            Answer::Ready(_) => Err(TalkError::Unexpected("it is ready twice")),
        }
    }
}

/// The successor's end.
#[derive(Debug)]
pub struct Taking {
    channel: Channel,
}

impl Taking {
    /// Asks the predecessor that waits there.
    ///
    /// # Errors
    /// There is none.
    pub fn ask(door: &Path, question: &Question) -> Result<Self, TalkError> {
        let channel = Channel::connect(door)?;
        channel.send(&record::encode(question), &[])?;
        channel.wait_for(Some(PATIENCE))?;
        Ok(Taking { channel })
    }

    /// What is offered next.
    ///
    /// # Errors
    /// Nothing comes, or what comes is not understood.
    pub fn hear(&mut self) -> Result<(Offer, Vec<OwnedFd>), TalkError> {
        let (offer, files) = next(&mut self.channel)?;
        self.channel.wait_for(Some(WORD))?;
        Ok((record::decode(&offer)?, files))
    }

    /// Says that all is set up; gives the sessions that stay with the predecessor, and the way to it. From then on
    /// everything is ours.
    ///
    /// # Errors
    /// Everything stays the predecessor's.
    pub fn begin(self, refused: Vec<u32>) -> Result<(Channel, Vec<(u32, u64)>), TalkError> {
        self.begin_when(refused, || ())
    }

    /// The same, with something to be done before the last word.
    pub(super) fn begin_when(
        mut self,
        refused: Vec<u32>,
        before: impl FnOnce(),
    ) -> Result<(Channel, Vec<(u32, u64)>), TalkError> {
        self.channel.send(&record::encode(&Answer::Ready(refused)), &[])?;
        let (Offer::Commit(remaining), _) = self.hear()? else {
            return Err(TalkError::Unexpected("it does not commit"));
        };
        before();
        self.channel.send(&record::encode(&Answer::Done), &[])?;
        Ok((self.channel, remaining))
    }
}
