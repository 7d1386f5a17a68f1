// SPDX-License-Identifier: AGPL-3.0-or-later
//! Orders to publish, taken in steps.
//!
//! A publisher may order thousands of items at once. They are taken a few at a time, orders in turns, so that other
//! publishers, and clients that grant credits, are attended to meanwhile. Orders with a channel in common do not take
//! turns: they are taken one after the other, since their publisher may have placed them in that order. An order is finished
//! when its last item has been taken; whoever placed it is told after what has been taken has left.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::time::Instant;
use std::vec;

use foldhash::fast::RandomState;

use grip::{Action, HttpResponse, Item, ResponseBody};
use slab::Slab;

/// Items of one order taken before the next order has its turn.
const SHARE: usize = 64;
/// Items that may wait before no more should be added, and bytes of their contents.
const MAX_ITEMS: usize = 1_000;
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Orders under way, each with a `T` by which it is known to whoever placed it, and items that nobody waits for.
pub struct Backlog<T> {
    /// Orders that are taken one after the other.
    lanes: Slab<VecDeque<Order<T>>>,
    /// The lanes in the order of their turns.
    turns: VecDeque<usize>,
    /// The lane in which a channel's items are, and how many. By the hash of the name: should two names have the same, their
    /// orders do not take turns either.
    claims: HashMap<u64, Claim, RandomState>,
    /// Orders in all lanes.
    orders: usize,
    /// Items that nobody waits for, and when they came.
    single: VecDeque<(Item, Instant)>,
    /// When those came that have been taken, and how many did then.
    single_taken: Vec<(Instant, u64)>,
    /// Whether it is the turn of the single items; otherwise it is that of the first order.
    single_next: bool,
    /// Items taken in this turn.
    taken: usize,
    /// Items in all lanes.
    ordered: usize,
    /// Bytes of all contents.
    bytes: usize,
    finished: Vec<T>,
    /// The order that the last item was of.
    last: Last,
}

#[derive(Clone, Copy)]
enum Last {
    /// It was of none.
    None,
    /// The first one of this lane.
    Lane(usize),
    /// The one that was finished last.
    Finished,
}

struct Claim {
    lane: usize,
    items: usize,
}

struct Order<T> {
    items: vec::IntoIter<Item>,
    ticket: T,
}

impl<T> Default for Backlog<T> {
    fn default() -> Self {
        Backlog {
            lanes: Slab::new(),
            turns: VecDeque::new(),
            claims: HashMap::default(),
            orders: 0,
            single: VecDeque::new(),
            single_taken: Vec::new(),
            single_next: false,
            taken: 0,
            ordered: 0,
            bytes: 0,
            finished: Vec::new(),
            last: Last::None,
        }
    }
}

impl<T> Backlog<T> {
    /// Adds an order. One without items is finished at once.
    pub fn push(&mut self, items: Vec<Item>, ticket: T) {
        if items.is_empty() {
            return self.finished.push(ticket);
        }
        self.ordered += items.len();
        self.bytes += items.iter().map(size).sum::<usize>();
        self.orders += 1;
        let lane = self.lane_for(&items);
        self.lanes[lane].push_back(Order { items: items.into_iter(), ticket });
    }

    /// The lane for an order: that of the orders with which it has a channel in common, or a new one.
    fn lane_for(&mut self, items: &[Item]) -> usize {
        let channels: Vec<u64> = items.iter().map(|item| self.claims.hasher().hash_one(&*item.channel)).collect();
        let mut shared: Vec<usize> = channels.iter().filter_map(|hash| Some(self.claims.get(hash)?.lane)).collect();
        shared.sort_unstable();
        shared.dedup();
        let lane = match shared[..] {
            [] => {
                let lane = self.lanes.insert(VecDeque::new());
                self.turns.push_back(lane);
                lane
            }
            [lane] => lane,
            _ => self.join(&shared),
        };
        for hash in channels {
            self.claims.entry(hash).or_insert(Claim { lane, items: 0 }).items += 1;
        }
        lane
    }

    /// Makes one lane of several, in the order of their turns. Returns it.
    fn join(&mut self, shared: &[usize]) -> usize {
        let mut in_turn: Vec<usize> = self.turns.iter().copied().filter(|lane| shared.contains(lane)).collect();
        let lane = in_turn.remove(0);
        for other in &in_turn {
            let mut orders = self.lanes.remove(*other);
            self.lanes[lane].append(&mut orders);
        }
        self.turns.retain(|other| !in_turn.contains(other));
        self.claims.values_mut().filter(|claim| in_turn.contains(&claim.lane)).for_each(|claim| claim.lane = lane);
        lane
    }

    /// Adds an item that nobody waits for, and that came at `since`.
    pub fn push_single(&mut self, item: Item, since: Instant) {
        self.bytes += size(&item);
        self.single.push_back((item, since));
    }

    /// The next item to publish.
    pub fn take(&mut self) -> Option<Item> {
        self.last = Last::None;
        let item = self.next()?;
        self.bytes -= size(&item);
        Some(item)
    }

    fn next(&mut self) -> Option<Item> {
        if self.taken == SHARE {
            self.next_turn();
        }
        if self.single_next == self.single.is_empty() {
            // Whoever has something may go on.
            self.single_next = !self.single.is_empty();
        }
        self.taken += 1;
        if self.single_next {
            let (item, since) = self.single.pop_front()?;
            match self.single_taken.last_mut() {
                Some((other, count)) if *other == since => *count += 1,
                _ => self.single_taken.push((since, 1)),
            }
            return Some(item);
        }
        let lane = *self.turns.front()?;
        let order = self.lanes[lane].front_mut()?;
        let item = order.items.next()?;
        let done = order.items.len() == 0;
        self.ordered -= 1;
        let hash = self.claims.hasher().hash_one(&*item.channel);
        if let Some(claim) = self.claims.get_mut(&hash) {
            claim.items -= 1;
            if claim.items == 0 {
                self.claims.remove(&hash);
            }
        }
        self.last = if done { Last::Finished } else { Last::Lane(lane) };
        if done {
            let order = self.lanes[lane].pop_front();
            self.finished.extend(order.map(|order| order.ticket));
            self.orders -= 1;
            let empty = self.lanes[lane].is_empty();
            self.next_turn();
            if empty {
                self.lanes.remove(lane);
                self.turns.retain(|other| *other != lane);
            }
        }
        Some(item)
    }

    fn next_turn(&mut self) {
        self.taken = 0;
        if !self.single_next && !self.turns.is_empty() {
            self.turns.rotate_left(1);
        }
        self.single_next = !self.single_next;
    }

    /// By what the order is known that the item was of that has just been taken; nothing may have been added since.
    pub fn ticket(&mut self) -> Option<&mut T> {
        match self.last {
            Last::None => None,
            Last::Lane(lane) => self.lanes.get_mut(lane)?.front_mut().map(|order| &mut order.ticket),
            Last::Finished => self.finished.last_mut(),
        }
    }

    /// Orders of which every item has been taken since the last call.
    pub fn finished(&mut self) -> impl Iterator<Item = T> + '_ {
        self.finished.drain(..)
    }

    /// When the items came that nobody waits for and that have been taken since the last call, and how many did then.
    pub fn single_taken(&mut self) -> impl ExactSizeIterator<Item = (Instant, u64)> + '_ {
        self.single_taken.drain(..)
    }

    /// Orders that wait.
    pub fn orders(&self) -> usize {
        self.orders
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.ordered + self.single.len()
    }

    /// Whether so much waits that publishers should wait too. A single order may be larger than that.
    pub fn is_full(&self) -> bool {
        self.len() >= MAX_ITEMS || self.is_large()
    }

    /// Whether the contents that wait are too many bytes.
    pub fn is_large(&self) -> bool {
        self.bytes >= MAX_BYTES
    }

    /// Bytes of the contents of all items that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Bytes of an item's contents.
fn size(item: &Item) -> usize {
    let stream = match &item.formats.http_stream {
        Some(Action::Send(stream)) => stream.content.len(),
        _ => 0,
    };
    let response = match &item.formats.http_response {
        Some(Action::Send(HttpResponse { body: ResponseBody::Whole(body), .. })) => body.len(),
        _ => 0,
    };
    stream + response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn items(channel: &str, count: usize) -> Vec<Item> {
        let text = format!("J{{\"channel\":\"{channel}\",\"http-stream\":{{\"content\":\"x\"}}}}");
        vec![grip::item::from_message(text.as_bytes(), None).unwrap(); count]
    }

    #[test]
    fn orders_take_turns_and_are_finished_with_their_last_item() {
        let mut backlog = Backlog::default();
        backlog.push(items("a", SHARE + 1), 'a');
        backlog.push(items("b", 2), 'b');
        assert_eq!(backlog.orders(), 2);
        let first: Vec<_> = (0..SHARE).map(|_| backlog.take().unwrap().channel).collect();
        assert!(first.iter().all(|channel| channel == "a"));
        assert_eq!(backlog.finished().count(), 0);
        assert_eq!((backlog.take().unwrap().channel, backlog.take().unwrap().channel), ("b".into(), "b".into()));
        assert_eq!(backlog.finished().collect::<Vec<_>>(), ['b']);
        assert_eq!(backlog.take().unwrap().channel, "a");
        assert_eq!(backlog.finished().collect::<Vec<_>>(), ['a']);
        assert!(backlog.take().is_none() && backlog.is_empty());
    }

    fn taken(backlog: &mut Backlog<char>) -> String {
        std::iter::from_fn(|| backlog.take()).map(|item| item.channel).collect()
    }

    #[test]
    fn orders_with_a_channel_in_common_are_taken_one_after_the_other() {
        let mut backlog = Backlog::default();
        backlog.push(items("a", SHARE * 2), '1');
        backlog.push([items("b", 1), items("a", 1)].concat(), '2');
        backlog.push(items("c", 1), '3');
        let taken = taken(&mut backlog);
        assert_eq!(taken, ["a".repeat(SHARE), "c".into(), "a".repeat(SHARE), "ba".into()].concat());
        assert_eq!(backlog.finished().collect::<Vec<_>>(), ['3', '1', '2']);
        assert!(backlog.lanes.is_empty() && backlog.turns.is_empty() && backlog.claims.is_empty());
    }

    #[test]
    fn an_order_that_follows_two_others_waits_for_both() {
        let mut backlog = Backlog::default();
        backlog.push(items("a", SHARE + 1), '1');
        backlog.push(items("b", SHARE + 1), '2');
        backlog.push([items("b", 1), items("a", 1)].concat(), '3');
        backlog.push(items("a", 1), '4');
        taken(&mut backlog);
        assert_eq!(backlog.finished().collect::<Vec<_>>(), ['1', '2', '3', '4']);
        assert_eq!((backlog.orders(), backlog.len()), (0, 0));
        assert!(backlog.lanes.is_empty() && backlog.claims.is_empty());
    }

    #[test]
    fn it_is_full_by_number_or_by_bytes_until_items_are_taken() {
        let (mut backlog, now) = (Backlog::<()>::default(), Instant::now());
        for _ in 0..MAX_ITEMS {
            assert!(!backlog.is_full());
            backlog.push_single(items("a", 1).remove(0), now);
        }
        assert!(backlog.is_full());
        backlog.take();
        assert!(!backlog.is_full());
        let text = format!("J{{\"channel\":\"a\",\"http-stream\":{{\"content\":\"{}\"}}}}", "x".repeat(MAX_BYTES));
        backlog.push(vec![grip::item::from_message(text.as_bytes(), None).unwrap()], ());
        assert!(backlog.is_full());
        while backlog.take().is_some() {}
        assert!(!backlog.is_full() && backlog.bytes == 0);
    }

    #[test]
    fn it_is_known_of_which_order_an_item_was() {
        let mut backlog = Backlog::default();
        backlog.push(items("a", SHARE + 1), 'a');
        backlog.push(items("b", 2), 'b');
        backlog.push([items("b", 1), items("a", 1)].concat(), 'c');
        backlog.push_single(items("s", 1).remove(0), Instant::now());
        let mut known = Vec::new();
        while let Some(item) = backlog.take() {
            known.push((item.channel, backlog.ticket().copied()));
        }
        let of = |channel: &str, ticket| (channel.to_string(), ticket);
        let single = known.iter().position(|(channel, _)| channel == "s").unwrap();
        assert_eq!(known.remove(single), of("s", None));
        assert_eq!(known[..=SHARE], vec![of("a", Some('a')); SHARE + 1]);
        assert_eq!(
            known[SHARE + 1..],
            [of("b", Some('b')), of("b", Some('b')), of("b", Some('c')), of("a", Some('c'))]
        );
    }

    #[test]
    fn it_is_known_when_items_came_that_nobody_waits_for() {
        let (mut backlog, now) = (Backlog::<()>::default(), Instant::now());
        let later = now + Duration::from_millis(5);
        for since in [now, now, later] {
            backlog.push_single(items("a", 1).remove(0), since);
        }
        backlog.take();
        assert_eq!(backlog.single_taken().collect::<Vec<_>>(), [(now, 1)]);
        while backlog.take().is_some() {}
        assert_eq!(backlog.single_taken().collect::<Vec<_>>(), [(now, 1), (later, 1)]);
        assert_eq!(backlog.single_taken().len(), 0);
    }

    #[test]
    fn an_order_without_items_is_finished_at_once() {
        let mut backlog = Backlog::default();
        backlog.push(Vec::new(), ());
        assert!(backlog.is_empty());
        assert_eq!(backlog.finished().count(), 1);
    }
}
