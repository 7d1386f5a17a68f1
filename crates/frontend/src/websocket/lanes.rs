// SPDX-License-Identifier: AGPL-3.0-or-later
//! Two servers that send to one WebSocket: lane 0 is the session itself (the proxy), lane 1 has pushes (the handler).
//!
//! Each lane keeps its order. They change only between messages, so that no message is torn; control frames of one may
//! stand within a message of the other, as RFC 6455 allows. Lane 1 waits at a barrier while packets of lane 0 are under way
//! that its server knows to come first: what a backend sent before it subscribed reaches the client before what is
//! published then.
//!
//! What waits here is bounded by the windows of the two sessions: credits go back for what has left.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// One of a session's servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lane {
    /// The session itself.
    First,
    /// Who pushes into it.
    Second,
}

/// What an item is for the messages of its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// A frame that may stand within a message.
    Control,
    /// A piece of a message.
    Message {
        /// It is the last one.
        end: bool,
    },
}

/// Items of each lane that wait.
type Waiting<T> = [VecDeque<(T, Part)>; 2];

/// The order of what two servers send.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lanes<T> {
    /// The lane whose message has begun and not ended.
    open: Option<Lane>,
    /// Items that may not leave yet.
    waiting: Option<Box<Waiting<T>>>,
    /// The second lane's server is within a message, whether or not it has left.
    within: bool,
    /// Packets of the first lane that come before anything else of the second.
    after: u32,
    /// The barrier is passed.
    passed: bool,
}

impl<T> Lanes<T> {
    /// A second server is about to speak. `within` says whether the first is within a message.
    pub fn new(within: bool) -> Self {
        Lanes { open: within.then_some(Lane::First), waiting: None, within: false, after: 0, passed: false }
    }

    /// The same with other items.
    pub(crate) fn map<U>(&self, item: impl Fn(&T) -> U) -> Lanes<U> {
        let all = |lane: &VecDeque<(T, Part)>| lane.iter().map(|(waiting, part)| (item(waiting), *part)).collect();
        Lanes {
            open: self.open,
            waiting: self.waiting.as_ref().map(|waiting| Box::new(waiting.each_ref().map(all))),
            within: self.within,
            after: self.after,
            passed: self.passed,
        }
    }

    /// What the second lane sends from now on comes after so many packets of the first.
    pub fn wait_for(&mut self, after: u32) {
        self.after = self.after.max(after);
        self.passed = false;
    }

    /// So many packets of the first lane have come, and the client takes messages; `leave` gets what may leave now.
    pub fn on_received(&mut self, packets: u32, leave: &mut impl FnMut(Lane, T)) {
        if !self.passed && packets >= self.after {
            self.passed = true;
            self.settle(leave);
        }
    }

    /// A server has sent something; `leave` gets what may leave now.
    pub fn put(&mut self, lane: Lane, part: Part, item: T, leave: &mut impl FnMut(Lane, T)) {
        if let (Lane::Second, Part::Message { end }) = (lane, part) {
            self.within = !end;
        }
        let is_first = self.waiting.as_ref().is_none_or(|waiting| waiting[lane as usize].is_empty());
        if is_first && self.may_leave(lane, part) {
            self.leave(lane, part, item, leave);
            self.settle(leave);
        } else {
            self.waiting.get_or_insert_default()[lane as usize].push_back((item, part));
        }
    }

    /// Whether the second server is within a message, which nobody can complete but itself.
    pub fn is_within(&self) -> bool {
        self.within
    }

    fn may_leave(&self, lane: Lane, part: Part) -> bool {
        let free = self.open.is_none_or(|open| open == lane);
        match (lane, part) {
            (Lane::First, Part::Control) => true,
            (Lane::First, Part::Message { .. }) => free,
            (Lane::Second, Part::Control) => self.passed,
            (Lane::Second, Part::Message { .. }) => free && self.passed,
        }
    }

    fn leave(&mut self, lane: Lane, part: Part, item: T, leave: &mut impl FnMut(Lane, T)) {
        if let Part::Message { end } = part {
            self.open = (!end).then_some(lane);
        }
        leave(lane, item);
    }

    /// Lets all leave that may. The first lane goes first: it was there before.
    fn settle(&mut self, leave: &mut impl FnMut(Lane, T)) {
        while let Some((lane, (item, part))) = self.next() {
            self.leave(lane, part, item, leave);
        }
        // An idle connection keeps no room.
        self.waiting.take_if(|waiting| waiting.iter().all(VecDeque::is_empty));
    }

    /// The next item of those that wait, if one may leave.
    fn next(&mut self) -> Option<(Lane, (T, Part))> {
        let waiting = self.waiting.as_ref()?;
        let is_next =
            |&lane: &Lane| waiting[lane as usize].front().is_some_and(|&(_, part)| self.may_leave(lane, part));
        let lane = [Lane::First, Lane::Second].into_iter().find(is_next)?;
        Some((lane, self.waiting.as_mut()?[lane as usize].pop_front()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: Part = Part::Message { end: true };
    const BEGUN: Part = Part::Message { end: false };

    /// What has left.
    struct Bench {
        lanes: Lanes<&'static str>,
        left: Vec<&'static str>,
    }

    impl Bench {
        fn new(within: bool) -> Self {
            Bench { lanes: Lanes::new(within), left: Vec::new() }
        }

        fn put(&mut self, lane: Lane, part: Part, item: &'static str) {
            self.lanes.put(lane, part, item, &mut |_, item| self.left.push(item));
        }

        fn received(&mut self, packets: u32) {
            self.lanes.on_received(packets, &mut |_, item| self.left.push(item));
        }
    }

    #[test]
    fn a_push_waits_for_the_end_of_a_message() {
        let mut bench = Bench::new(true);
        bench.received(3);
        bench.put(Lane::Second, WHOLE, "push");
        bench.put(Lane::First, Part::Control, "ping");
        bench.put(Lane::First, BEGUN, "b");
        assert_eq!(bench.left, ["ping", "b"]);
        bench.put(Lane::First, WHOLE, "c");
        assert_eq!(bench.left, ["ping", "b", "c", "push"]);
    }

    #[test]
    fn a_message_waits_for_the_end_of_a_push_and_a_close_does_not() {
        let mut bench = Bench::new(false);
        bench.received(0);
        bench.put(Lane::Second, BEGUN, "1");
        assert!(bench.lanes.is_within());
        bench.put(Lane::First, Part::Control, "ping");
        bench.put(Lane::First, WHOLE, "a");
        bench.put(Lane::Second, WHOLE, "2");
        assert!(!bench.lanes.is_within());
        assert_eq!(bench.left, ["1", "ping", "2", "a"]);
    }

    #[test]
    fn a_push_waits_until_what_was_sent_before_it_has_come() {
        let mut bench = Bench::new(false);
        bench.lanes.wait_for(2);
        bench.received(1);
        bench.put(Lane::Second, WHOLE, "push");
        bench.put(Lane::First, WHOLE, "snapshot");
        bench.received(2);
        bench.put(Lane::Second, WHOLE, "next");
        assert_eq!(bench.left, ["snapshot", "push", "next"]);
        // A subscription more.
        bench.lanes.wait_for(3);
        bench.put(Lane::Second, WHOLE, "later");
        assert_eq!(bench.left.len(), 3);
        bench.received(3);
        assert_eq!(bench.left.last(), Some(&"later"));
    }

    #[test]
    fn a_pushed_close_keeps_its_place_and_does_not_wait_for_the_end_of_a_message() {
        let mut bench = Bench::new(true);
        bench.received(3);
        bench.put(Lane::Second, Part::Control, "close");
        assert_eq!(bench.left, ["close"]);
        let mut bench = Bench::new(true);
        bench.received(3);
        bench.put(Lane::Second, WHOLE, "push");
        bench.put(Lane::Second, Part::Control, "close");
        assert!(bench.left.is_empty());
        bench.put(Lane::First, WHOLE, "end");
        assert_eq!(bench.left, ["end", "push", "close"]);
    }

    #[test]
    fn what_was_held_up_of_the_first_lane_leaves_before_later_pushes() {
        let mut bench = Bench::new(false);
        bench.received(0);
        bench.put(Lane::Second, BEGUN, "1");
        bench.put(Lane::First, WHOLE, "snapshot");
        bench.put(Lane::Second, WHOLE, "2");
        bench.put(Lane::Second, WHOLE, "push");
        assert_eq!(bench.left, ["1", "2", "snapshot", "push"]);
    }

    /// What a server sends: messages of so many pieces (0: a control frame).
    fn messages() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(0usize..5, 0..20)
    }

    /// As items: number of the message, number of the piece, what it is.
    fn items(messages: &[usize], controls: bool) -> VecDeque<(usize, usize, Part)> {
        let pieces = messages.iter().enumerate().flat_map(|(message, &pieces)| match pieces {
            0 if controls => vec![(message, 0, Part::Control)],
            0 => vec![(message, 0, WHOLE)],
            _ => (0..pieces).map(|at| (message, at, Part::Message { end: at + 1 == pieces })).collect(),
        });
        pieces.collect()
    }

    proptest! {
        #[test]
        fn in_any_interleaving_messages_stay_whole_lanes_keep_their_order_and_nothing_is_lost(
            first in messages(),
            second in messages(),
            turns in prop::collection::vec(0u8..8, 0..200),
        ) {
            let sent = [items(&first, true), items(&second, false)];
            let mut rest = sent.clone();
            let mut lanes = Lanes::new(false);
            let (mut left, mut packets, mut barriers) = (Vec::new(), 0, Vec::new());
            // Whatever the turns say, all is sent in the end.
            for turn in turns.into_iter().chain(std::iter::repeat_n([0, 4], 200).flatten()) {
                let mut leave = |lane: Lane, item: (usize, usize, Part)| left.push((lane, item));
                match turn {
                    0..4 => if let Some(item) = rest[0].pop_front() {
                        lanes.put(Lane::First, item.2, item, &mut leave);
                        packets += 1;
                        lanes.on_received(packets, &mut leave);
                    },
                    4..7 => if let Some(item) = rest[1].pop_front() {
                        lanes.put(Lane::Second, item.2, item, &mut leave);
                    },
                    // The second server knows of one packet that has not come yet, unless there is none.
                    _ => if !rest[0].is_empty() {
                        lanes.wait_for(packets + 1);
                        barriers.push((sent[1].len() - rest[1].len(), packets as usize + 1));
                    },
                }
                lanes.on_received(packets, &mut leave);
            }
            for lane in [Lane::First, Lane::Second] {
                let got: Vec<_> = left.iter().filter(|(of, _)| *of == lane).map(|(_, item)| *item).collect();
                prop_assert_eq!(got, Vec::from(sent[lane as usize].clone()));
            }
            let mut open = None;
            for (lane, (message, _, part)) in &left {
                if let Part::Message { end } = part {
                    prop_assert!(open.is_none_or(|open| open == (*lane, *message)), "{:?} is torn", open);
                    open = (!end).then_some((*lane, *message));
                } else {
                    prop_assert_eq!(*lane, Lane::First);
                }
            }
            prop_assert_eq!(open, None);
            for (pushed, after) in barriers {
                // What the second lane sent after a barrier left when so many items of the first had left or, within
                // one of its own messages, were held up by it.
                let Some(at) = left.iter().enumerate().filter(|(_, (lane, _))| *lane == Lane::Second).nth(pushed) else { continue };
                let begins = matches!(at.1.1, (_, 0, _));
                let before = left[..at.0].iter().filter(|(lane, _)| *lane == Lane::First).count();
                prop_assert!(!begins || before >= after, "{} of {} items of the first lane", before, after);
            }
            prop_assert!(lanes.waiting.is_none());
        }
    }
}
