// SPDX-License-Identifier: AGPL-3.0-or-later
//! All groups: who is in them, what a latecomer is given, and how fast their sources may go on.
//!
//! The fastest member sets the pace. What the others have not passed on waits in their exchanges, up to a bound; one that stays
//! beyond it for too long is cut off, and meanwhile the source waits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

use zhttp::INITIAL_BODY;

use super::{GroupId, Member};

/// Bytes of a response that are kept for latecomers. With more, nobody can join any more.
const KEPT: usize = 100_000;

/// What the engine is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Work {
    /// Grant the source credits, in a packet of this number.
    Grant {
        /// The source.
        source: Member,
        /// The packet's number.
        seq: u32,
        /// Bytes.
        credits: u32,
    },
    /// Nobody waits for the response any more.
    End(Member),
    /// Cut a member off that is too slow.
    Cut(Member),
}

/// A packet of a source, and the target that it is from.
pub type Kept = (usize, Rc<[u8]>);

struct Group {
    source: Member,
    /// What others must be to join; none if nobody can any more.
    text: Option<Rc<[u8]>>,
    /// By place in the table of exchanges.
    members: BTreeMap<usize, Progress>,
    /// The response so far, for latecomers.
    kept: Vec<Kept>,
    /// Bytes of the body that have come.
    received: u64,
    /// Bytes that the source may send in all.
    granted: u64,
    /// Number of the next packet to the source.
    seq: u32,
    /// Since when a member keeps the source waiting.
    late_since: Option<Instant>,
    /// It is in the list of looks.
    is_watched: bool,
}

struct Progress {
    serial: u64,
    /// Bytes that have been passed on.
    passed: u64,
}

/// See the module.
pub struct Table {
    groups: HashMap<GroupId, Group>,
    by_text: HashMap<Rc<[u8]>, GroupId>,
    /// Groups in which something has changed.
    touched: BTreeSet<GroupId>,
    /// When it is looked whether a group still waits for a member; once for each.
    looks: BTreeSet<(Instant, GroupId)>,
    /// Bytes that a member may be behind the fastest.
    lag: u64,
    /// How long it may be further behind.
    patience: Duration,
}

impl Table {
    /// Without any.
    pub fn new(lag: usize, patience: Duration) -> Self {
        Table {
            groups: HashMap::new(),
            by_text: HashMap::new(),
            touched: BTreeSet::new(),
            looks: BTreeSet::new(),
            lag: lag as u64,
            patience,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.groups.len()
    }

    /// Lets a request join those that are the same, if there are any: their group, and what it has missed.
    pub fn join(&mut self, text: &[u8], member: Member) -> Option<(GroupId, Vec<Kept>)> {
        let id = *self.by_text.get(text)?;
        let group = self.groups.get_mut(&id)?;
        group.members.insert(member.index, Progress { serial: member.serial, passed: 0 });
        self.touched.insert(id);
        Some((id, group.kept.clone()))
    }

    /// Makes a group with one member. Its source may send [`INITIAL_BODY`] bytes.
    pub fn found(&mut self, text: Box<[u8]>, source: Member, member: Member) -> GroupId {
        let (id, text): (GroupId, Rc<[u8]>) = (source.serial, text.into());
        let members = BTreeMap::from([(member.index, Progress { serial: member.serial, passed: 0 })]);
        let group = Group {
            source,
            text: Some(text.clone()),
            members,
            kept: Vec::new(),
            received: 0,
            granted: INITIAL_BODY as u64,
            // That of the first was 0.
            seq: 1,
            late_since: None,
            is_watched: false,
        };
        self.groups.insert(id, group);
        self.by_text.insert(text, id);
        id
    }

    /// Takes in a packet of a source with `bytes` of body: who gets it. After the last one the group is no more.
    pub fn receive(&mut self, id: GroupId, bytes: usize, last: bool, packet: Kept) -> Vec<Member> {
        let Some(group) = self.groups.get_mut(&id) else { return Vec::new() };
        group.received += bytes as u64;
        let members =
            group.members.iter().map(|(&index, progress)| Member { index, serial: progress.serial }).collect();
        if last || group.received > KEPT as u64 {
            group.close(&mut self.by_text);
        } else if group.text.is_some() {
            group.kept.push(packet);
        }
        if last {
            self.groups.remove(&id);
        }
        members
    }

    /// A member is done with so many bytes.
    pub fn passed(&mut self, id: GroupId, member: Member, bytes: usize) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let received = group.received;
        if let Some(progress) = group.members.get_mut(&member.index).filter(|it| it.serial == member.serial) {
            progress.passed = (progress.passed + bytes as u64).min(received);
            self.touched.insert(id);
        }
    }

    /// A member does not wait any more.
    pub fn left(&mut self, id: GroupId, member: Member) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if group.members.get(&member.index).is_some_and(|it| it.serial == member.serial) {
            group.members.remove(&member.index);
            self.touched.insert(id);
        }
    }

    /// What comes of what has changed.
    pub fn settle(&mut self, now: Instant) -> Vec<Work> {
        let mut work = Vec::new();
        for id in std::mem::take(&mut self.touched) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            if group.members.is_empty() {
                group.close(&mut self.by_text);
                work.push(Work::End(group.source));
                self.groups.remove(&id);
                continue;
            }
            let late = group.is_late(self.lag);
            group.late_since = late.then(|| group.late_since.unwrap_or(now));
            if late && !std::mem::replace(&mut group.is_watched, true) {
                self.looks.insert((now + self.patience, id));
            }
            work.extend(group.grant(self.lag));
        }
        work
    }

    /// When [`Table::on_timer`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        self.looks.first().map(|(due, _)| *due)
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant) -> Vec<Work> {
        let mut work = Vec::new();
        while self.looks.first().is_some_and(|(due, _)| *due <= now) {
            let Some((_, id)) = self.looks.pop_first() else { break };
            let Some(group) = self.groups.get_mut(&id) else { continue };
            group.is_watched = false;
            let Some(since) = group.late_since else { continue };
            if now < since + self.patience {
                group.is_watched = true;
                self.looks.insert((since + self.patience, id));
                continue;
            }
            let limit = group.fastest().saturating_sub(self.lag);
            let slow = group.members.iter().filter(|(_, progress)| progress.passed < limit);
            work.extend(slow.map(|(&index, it)| Work::Cut(Member { index, serial: it.serial })));
        }
        work
    }
}

impl Group {
    fn close(&mut self, by_text: &mut HashMap<Rc<[u8]>, GroupId>) {
        if let Some(text) = self.text.take() {
            by_text.remove(&text);
            self.kept = Vec::new();
        }
    }

    fn fastest(&self) -> u64 {
        self.members.values().map(|it| it.passed).max().unwrap_or(0)
    }

    fn slowest(&self) -> u64 {
        self.members.values().map(|it| it.passed).min().unwrap_or(0)
    }

    fn is_late(&self, lag: u64) -> bool {
        self.slowest() + lag < self.fastest()
    }

    /// Grants what may come, once that is worth a packet.
    fn grant(&mut self, lag: u64) -> Option<Work> {
        let window = INITIAL_BODY as u64;
        let may = window + self.fastest().min(self.slowest() + lag);
        let credits = may.saturating_sub(self.granted);
        if credits < window / 2 {
            return None;
        }
        self.granted += credits;
        let seq = self.seq;
        self.seq += 1;
        Some(Work::Grant { source: self.source, seq, credits: u32::try_from(credits).unwrap_or(u32::MAX) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Member = Member { index: 9, serial: 90 };
    const A: Member = Member { index: 1, serial: 10 };
    const B: Member = Member { index: 2, serial: 20 };
    const PATIENCE: Duration = Duration::from_secs(5);

    fn packet() -> Kept {
        (0, b"p"[..].into())
    }

    fn group() -> (Table, GroupId, Instant) {
        let mut table = Table::new(1_000_000, PATIENCE);
        let id = table.found(b"x"[..].into(), SOURCE, A);
        (table, id, Instant::now())
    }

    #[test]
    fn who_asks_the_same_joins_and_gets_what_it_has_missed() {
        let (mut table, id, _) = group();
        assert_eq!(table.join(b"y", B), None);
        table.receive(id, 5, false, packet());
        assert_eq!(table.join(b"x", B), Some((id, vec![packet()])));
        let mut members = table.receive(id, 5, true, packet());
        members.sort_by_key(|member| member.index);
        assert_eq!(members, [A, B]);
        assert_eq!((table.count(), table.join(b"x", B)), (0, None));
    }

    #[test]
    fn nobody_joins_a_response_that_is_larger_than_what_is_kept() {
        let (mut table, id, _) = group();
        table.receive(id, KEPT, false, packet());
        assert!(table.join(b"x", B).is_some());
        table.receive(id, 1, false, packet());
        assert_eq!(table.join(b"x", B), None);
        assert_eq!(table.receive(id, 1, false, packet()).len(), 2);
    }

    #[test]
    fn the_source_ends_with_the_last_member_and_another_of_the_same_place_is_not_meant() {
        let (mut table, id, now) = group();
        table.join(b"x", B);
        table.left(id, A);
        table.left(id, Member { serial: 21, ..B });
        assert_eq!(table.settle(now), []);
        table.left(id, B);
        assert_eq!(table.settle(now), [Work::End(SOURCE)]);
        assert_eq!((table.count(), table.join(b"x", B)), (0, None));
    }

    #[test]
    fn the_fastest_sets_the_pace_until_another_is_too_far_behind() {
        let (mut table, id, now) = group();
        table.join(b"x", B);
        let (mut granted, mut sent) = (INITIAL_BODY as u64, 0);
        for _ in 0..100 {
            let bytes = granted - sent;
            sent = granted;
            table.receive(id, bytes as usize, false, packet());
            table.passed(id, A, bytes as usize);
            for work in table.settle(now) {
                let Work::Grant { credits, .. } = work else { panic!("{work:?}") };
                granted += u64::from(credits);
            }
        }
        assert_eq!(granted, INITIAL_BODY as u64 + 1_000_000);
        assert_eq!(table.next_due(), Some(now + PATIENCE));
        assert_eq!(table.on_timer(now + PATIENCE), [Work::Cut(B)]);
        table.left(id, B);
        assert!(matches!(table.settle(now)[..], [Work::Grant { seq, .. }] if seq > 1));
    }

    #[test]
    fn one_that_catches_up_in_time_stays() {
        let (mut table, id, now) = group();
        table.join(b"x", B);
        table.receive(id, 2_000_000, false, packet());
        table.passed(id, A, 1_500_000);
        table.settle(now);
        table.passed(id, B, 600_000);
        table.settle(now);
        assert_eq!(table.on_timer(now + PATIENCE), []);
        assert_eq!(table.next_due(), None);
    }

    #[test]
    fn nobody_can_pass_on_more_than_has_come() {
        let (mut table, id, now) = group();
        table.passed(id, A, usize::MAX / 2);
        table.passed(id, A, usize::MAX / 2);
        assert_eq!(table.settle(now), []);
    }
}
