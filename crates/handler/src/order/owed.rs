// SPDX-License-Identifier: AGPL-3.0-or-later
//! Messages that a predecessor of this handler has sent, perhaps not to all.
//!
//! A publisher that has not been answered repeats its message. Frontends say which they have had from the predecessor, and
//! which runs each of their sessions has: a repeated message is for those who have not had its run. Those who are held since know
//! what comes from then on.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use zhttp::PeerId;

use crate::hold::Hold;

/// How long a publisher may take to repeat a message.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who has had a message: frontends, each with the run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Owed(Vec<(PeerId, u64)>);

impl Owed {
    /// Whether a hold has not had it. One of a frontend that does not know of it has not.
    pub fn is_for(&self, hold: &Hold) -> bool {
        hold.run != u64::MAX && self.is_after(hold.session.client(), hold.run)
    }

    /// Whether a WebSocket has not had it that has had all up to a run by this proxy.
    pub fn is_for_socket(&self, proxy: Option<PeerId>, run: u64) -> bool {
        run != u64::MAX && proxy.is_none_or(|proxy| self.is_after(proxy, run))
    }

    fn has(&self, frontend: PeerId) -> bool {
        self.0.iter().any(|(peer, _)| *peer == frontend)
    }

    fn is_after(&self, frontend: PeerId, run: u64) -> bool {
        self.0.iter().find(|(peer, _)| *peer == frontend).is_none_or(|(_, number)| run < *number)
    }
}

/// What a frontend has had: its latest messages in order, and the last of each channel, with their runs.
#[derive(Debug, Default)]
struct Had {
    latest: Vec<(u64, String, String)>,
    last: HashMap<String, (u64, String)>,
}

/// Where a session is in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position<'a> {
    /// Where it was when it was held: nothing has come since.
    Begin,
    /// It has all up to this message.
    At(&'a str),
    /// It has not had the last message; it has this one, or is where it was.
    Behind(Option<&'a str>),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Sent {
    /// By channel and id.
    messages: HashMap<(String, String), Owed>,
    /// When nobody repeats any of them any more.
    until: Option<Instant>,
    /// What each frontend has had, as long as holds are taken up from it.
    frontends: HashMap<PeerId, Had>,
    /// The last run.
    run: u64,
    /// Holds are not taken up any more.
    is_over: bool,
}

impl Sent {
    /// A frontend has had a message. Once holds are not taken up any more, that matters only for messages that are known already:
    /// others are ours, and a proxy names them again and again.
    pub fn note(&mut self, frontend: PeerId, run: u64, channel: &str, id: &str, now: Instant) {
        self.run = self.run.max(run);
        let message = (channel.to_string(), id.to_string());
        if self.is_over {
            self.forget_old(now);
            if let Some(Owed(had)) = self.messages.get_mut(&message).filter(|owed| !owed.has(frontend)) {
                had.push((frontend, run));
            }
            return;
        }
        self.until = Some(now + PATIENCE);
        self.messages.entry(message).or_default().0.push((frontend, run));
        self.frontends.entry(frontend).or_default().latest.push((run, channel.to_string(), id.to_string()));
    }

    /// A channel's last message, as a frontend knows it.
    pub fn note_last(&mut self, frontend: PeerId, run: u64, channel: &str, id: &str) {
        if self.is_over {
            return;
        }
        let last = &mut self.frontends.entry(frontend).or_default().last;
        last.insert(channel.to_string(), (run, id.to_string()));
    }

    /// The last run that any frontend has had.
    pub fn note_run(&mut self, run: u64) {
        self.run = self.run.max(run);
    }

    /// The number of the last run.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// Where a session of a frontend is in a channel, that is held since one run and has had all up to another.
    pub fn position(&self, frontend: PeerId, channel: &str, since: u64, run: u64) -> Position<'_> {
        let Some(had) = self.frontends.get(&frontend) else { return Position::Begin };
        match had.last.get(channel) {
            Some((number, _)) if *number <= since => Position::Begin,
            Some((number, id)) if *number <= run => Position::At(id),
            Some(_) => {
                let before =
                    |(number, other, _): &&(u64, String, String)| *number > since && *number <= run && other == channel;
                Position::Behind(had.latest.iter().rev().find(before).map(|(_, _, id)| id.as_str()))
            }
            None => Position::Begin,
        }
    }

    /// The ids of all channels' last messages, by the frontend that is farthest. Holds are not taken up any more.
    pub fn take_last(&mut self) -> impl Iterator<Item = (String, String)> + use<> {
        self.is_over = true;
        let mut all: HashMap<String, (u64, String)> = HashMap::new();
        for (channel, last) in std::mem::take(&mut self.frontends).into_values().flat_map(|had| had.last) {
            if all.get(&channel).is_none_or(|(known, _)| *known < last.0) {
                all.insert(channel, last);
            }
        }
        all.into_iter().map(|(channel, (_, id))| (channel, id))
    }

    /// Who is owed a message that is published now, if it is a repeated one. It is so once: then it is known as any other.
    pub fn take(&mut self, channel: &str, id: &str, now: Instant) -> Option<Owed> {
        self.forget_old(now);
        self.until?;
        self.messages.remove(&(channel.to_string(), id.to_string()))
    }

    fn forget_old(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            (self.messages, self.until) = (HashMap::new(), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zhttp::Peers;

    #[test]
    fn a_message_is_owed_to_those_who_have_not_had_its_run_and_only_once() {
        let (mut peers, mut sent, now) = (Peers::default(), Sent::default(), Instant::now());
        let [a, b] = [&b"a"[..], b"b"].map(|name| peers.intern(name).unwrap());
        sent.note(a, 7, "c", "1", now);
        let owed = sent.take("c", "1", now).unwrap();
        assert_eq!(
            [(a, 6), (a, 7), (a, 8), (b, 8)].map(|(peer, run)| owed.is_after(peer, run)),
            [true, false, false, true]
        );
        assert_eq!((sent.take("c", "1", now), sent.run()), (None, 7));
    }

    #[test]
    fn nobody_repeats_a_message_after_a_minute() {
        let (mut peers, mut sent, now) = (Peers::default(), Sent::default(), Instant::now());
        let a = peers.intern(b"a").unwrap();
        sent.note(a, 7, "c", "1", now);
        assert_eq!(sent.take("c", "1", now + PATIENCE), None);
    }

    #[test]
    fn proxies_that_come_one_after_the_other_leave_nothing_behind() {
        let (mut peers, mut sent, now) = (Peers::default(), Sent::default(), Instant::now());
        let [a, b] = [&b"a"[..], b"b"].map(|name| peers.intern(name).unwrap());
        sent.note(a, 7, "c", "1", now);
        assert_eq!(sent.take_last().count(), 0);
        for run in 8..1000 {
            let successor = peers.intern(run.to_string().as_bytes()).unwrap();
            sent.note(successor, run, "c", &run.to_string(), now);
            sent.note_last(successor, 0, "c", &run.to_string());
        }
        (0..2).for_each(|_| sent.note(b, 7, "c", "1", now));
        assert_eq!((sent.messages.len(), sent.frontends.len(), sent.run()), (1, 0, 999));
        // The successor has it too.
        assert_eq!(sent.take("c", "1", now), Some(Owed(vec![(a, 7), (b, 7)])));
        sent.note(b, 1000, "c", "x", now + PATIENCE);
        assert_eq!((sent.messages.len(), sent.until), (0, None));
    }

    #[test]
    fn the_newest_run_says_which_message_of_a_channel_is_the_last() {
        let (mut peers, mut sent, now) = (Peers::default(), Sent::default(), Instant::now());
        let [a, b] = [&b"a"[..], b"b"].map(|name| peers.intern(name).unwrap());
        [5, 7].into_iter().for_each(|run| sent.note(a, run, "c", &run.to_string(), now));
        sent.note_last(a, 7, "c", "7");
        sent.note_last(b, 5, "c", "5");
        let position = |frontend, since, run| sent.position(frontend, "c", since, run);
        assert_eq!(position(a, 7, 7), Position::Begin);
        assert_eq!(position(a, 4, 8), Position::At("7"));
        assert_eq!(position(a, 4, 6), Position::Behind(Some("5")));
        assert_eq!(position(a, 5, 5), Position::Behind(None));
        assert_eq!(position(b, 4, 5), Position::At("5"));
        assert_eq!(sent.take_last().collect::<Vec<_>>(), [("c".to_string(), "7".to_string())]);
    }
}
