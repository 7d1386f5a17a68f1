// SPDX-License-Identifier: AGPL-3.0-or-later
//! What WebSockets have been sent by way of the proxy lately. What of it is lost with a proxy, its successor is sent again, who
//! says how far each client is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashMapExt as _};
use rpc::ws_control::Mark;

use super::cid::Cid;
use super::reply::Reply;

/// For how long something is remembered: what a proxy had for longer without passing it on, it did not get rid of.
const AGE: Duration = Duration::from_secs(10);
/// Receivers of messages that are remembered.
const MAX_RECEIVERS: usize = 200_000;
/// Bytes of messages that are remembered.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// A message, and who has been sent it.
#[derive(Debug)]
struct Message {
    mark: Mark<'static>,
    reply: Reply,
    at: Instant,
    /// Each with the number of the message before.
    receivers: Vec<(Cid, u64)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Sent {
    messages: VecDeque<Message>,
    receivers: usize,
    bytes: usize,
    /// The number of the last message of each WebSocket.
    last: HashMap<Cid, u64>,
    /// Messages that have been forgotten.
    forgotten: u64,
    /// There while a successor of the proxy names WebSockets.
    index: Option<Index>,
}

/// Which messages each WebSocket has been sent.
#[derive(Debug)]
struct Index {
    until: Instant,
    /// By their places among all messages, with the number of the message before.
    places: HashMap<Cid, Vec<(u64, u64)>>,
}

/// A client has missed something that is not known any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole;

impl Sent {
    /// Something is sent to a WebSocket. It is of the message of this number, of which the last one may be.
    pub fn note(&mut self, cid: &Cid, mark: &Mark<'static>, reply: &Reply, now: Instant) {
        let before = self.last.insert(cid.clone(), mark.run).unwrap_or(0);
        self.receivers += 1;
        match self.messages.back_mut().filter(|last| last.mark.run == mark.run && last.reply == *reply) {
            Some(last) => last.receivers.push((cid.clone(), before)),
            None => {
                self.bytes += reply.len();
                let (mark, reply) = (Mark { first: 0, count: 0, ..mark.clone() }, reply.clone());
                self.messages.push_back(Message { mark, reply, at: now, receivers: vec![(cid.clone(), before)] });
            }
        }
        let is_over = |sent: &Sent| sent.receivers > MAX_RECEIVERS || sent.bytes > MAX_BYTES;
        while let Some(first) = self.messages.front().filter(|first| is_over(self) || first.at + AGE <= now) {
            self.receivers -= first.receivers.len();
            self.bytes -= first.reply.len();
            self.messages.pop_front();
            self.forgotten += 1;
        }
        self.index.take_if(|index| index.until <= now);
        if let Some(index) = &mut self.index {
            let place = self.forgotten + self.messages.len() as u64 - 1;
            index.places.entry(cid.clone()).or_default().push((place, before));
        }
    }

    /// A WebSocket is known whose client has had its messages up to this one.
    pub fn begin(&mut self, cid: &Cid, run: u64) {
        self.last.insert(cid.clone(), run);
    }

    /// A WebSocket is gone.
    pub fn forget(&mut self, cid: &Cid) {
        self.last.remove(cid);
    }

    /// What a client has missed that has had the messages up to this one.
    ///
    /// # Errors
    /// Some of that is not known any more.
    pub fn missed(&mut self, cid: &Cid, run: u64, now: Instant) -> Result<Vec<(Mark<'static>, Reply)>, Hole> {
        if self.last.get(cid).is_none_or(|last| *last <= run) {
            return Ok(Vec::new());
        }
        let index = match self.index.take() {
            Some(index) => index,
            None => self.index(now),
        };
        let index = self.index.insert(index);
        let (mut missed, mut first) = (Vec::new(), None);
        for (place, before) in index.places.get(cid).into_iter().flatten() {
            let message = place.checked_sub(self.forgotten).and_then(|at| self.messages.get(at as usize));
            if let Some(message) = message.filter(|message| message.mark.run > run) {
                first.get_or_insert(*before);
                missed.push((message.mark.clone(), message.reply.clone()));
            }
        }
        if first.is_some_and(|before| before <= run) { Ok(missed) } else { Err(Hole) }
    }

    fn index(&self, now: Instant) -> Index {
        let mut places: HashMap<Cid, Vec<(u64, u64)>> = HashMap::new();
        for (place, message) in (self.forgotten..).zip(&self.messages) {
            for (cid, before) in &message.receivers {
                places.entry(cid.clone()).or_default().push((place, *before));
            }
        }
        Index { until: now + AGE, places }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(run: u64) -> Mark<'static> {
        Mark { run, ..Mark::default() }
    }

    fn runs(sent: &mut Sent, cid: &[u8], run: u64) -> Result<Vec<u64>, Hole> {
        sent.missed(&Cid::from(cid), run, Instant::now())
            .map(|missed| missed.iter().map(|(mark, _)| mark.run).collect())
    }

    #[test]
    fn a_client_is_sent_what_it_has_missed_or_it_is_said_that_this_is_not_known() {
        let (mut sent, now) = (Sent::default(), Instant::now());
        let [a, b] = [b"a", b"b"].map(|cid| Cid::from(&cid[..]));
        for (run, receivers) in [(1, vec![&a]), (2, vec![&a, &b]), (3, vec![&b]), (4, vec![&a])] {
            receivers.into_iter().for_each(|cid| sent.note(cid, &mark(run), &Reply::Refresh, now));
        }
        for (cid, run, expected) in [
            (&b"a"[..], 0, vec![1, 2, 4]),
            (b"a", 2, vec![4]),
            (b"a", 4, vec![]),
            (b"b", 2, vec![3]),
            (b"c", 0, vec![]),
        ] {
            assert_eq!(runs(&mut sent, cid, run), Ok(expected), "{cid:?} {run}");
        }
        // Long after.
        sent.note(&a, &mark(5), &Reply::Refresh, now + AGE);
        assert_eq!(runs(&mut sent, b"a", 4), Ok(vec![5]));
        assert_eq!(runs(&mut sent, b"a", 2), Err(Hole));
        assert_eq!((runs(&mut sent, b"b", 2), runs(&mut sent, b"b", 3)), (Err(Hole), Ok(vec![])));
        sent.forget(&b);
        assert_eq!((sent.last.len(), sent.receivers), (1, 1));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let (mut sent, now) = (Sent::default(), Instant::now());
        let cid = Cid::from(&b"a"[..]);
        (0..MAX_RECEIVERS as u64 + 9).for_each(|run| sent.note(&cid, &mark(run), &Reply::Refresh, now));
        assert_eq!((sent.receivers, sent.messages.len(), sent.last.len()), (MAX_RECEIVERS, MAX_RECEIVERS, 1));
    }
}
