// SPDX-License-Identifier: AGPL-3.0-or-later
//! Order of published items (publishing, sequencing).
//!
//! An item whose `prev-id` is not the id of the channel's last item waits for the one between, up to a time. Only channels
//! with subscribers have a last id.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use grip::Item;

/// Items of one channel that may wait.
const MAX_PENDING: usize = 100;
/// Items of all channels together that may wait.
const MAX_PENDING_IN_ALL: usize = 100_000;
/// Channels whose last id is remembered at most.
const MAX_CHANNELS: usize = 1_000_000;

/// What has become of an item.
#[derive(Debug, PartialEq)]
pub enum Pushed {
    /// It was given out, perhaps with others that waited for it.
    Passed,
    /// It waits for another.
    Waits,
    /// It would have to wait, but an item with the same `prev-id` or too many others do. It is given back, to be dropped.
    Dropped(Box<Item>),
}

/// See the module.
pub struct Sequencer {
    wait: Duration,
    last: HashMap<String, String>,
    pending: HashMap<String, Vec<(Instant, Item)>>,
    /// Items in `pending`.
    waiting: usize,
}

impl Sequencer {
    /// `wait` is `message_wait`.
    pub fn new(wait: Duration) -> Self {
        Sequencer { wait, last: HashMap::new(), pending: HashMap::new(), waiting: 0 }
    }

    /// An item has come. `deliver` gets it, and those that have waited for it, now or not at all.
    pub fn push(&mut self, item: Item, subscribed: bool, now: Instant, deliver: &mut impl FnMut(Item)) -> Pushed {
        if item.no_seq || !subscribed {
            deliver(item);
            return Pushed::Passed;
        }
        if let (Some(last), Some(prev)) = (self.last.get(&item.channel), &item.prev_id)
            && last != prev
        {
            let room = self.waiting < MAX_PENDING_IN_ALL;
            let pending = self.pending.entry(item.channel.clone()).or_default();
            if !room || pending.len() >= MAX_PENDING || pending.iter().any(|(_, other)| other.prev_id == item.prev_id) {
                if pending.is_empty() {
                    self.pending.remove(&item.channel);
                }
                return Pushed::Dropped(Box::new(item));
            }
            pending.push((now, item));
            self.waiting += 1;
            return Pushed::Waits;
        }
        self.release(item, deliver);
        Pushed::Passed
    }

    /// Delivers an item and all that follow it.
    fn release(&mut self, item: Item, deliver: &mut impl FnMut(Item)) {
        let mut next = Some(item);
        while let Some(item) = next.take() {
            let (channel, id) = (item.channel.clone(), item.id.clone());
            deliver(item);
            let Some(id) = id else {
                self.last.remove(&channel);
                return;
            };
            if let Some(pending) = self.pending.get_mut(&channel) {
                if let Some(i) = pending.iter().position(|(_, item)| item.prev_id.as_ref() == Some(&id)) {
                    next = Some(pending.remove(i).1);
                    self.waiting -= 1;
                }
                if pending.is_empty() {
                    self.pending.remove(&channel);
                }
            }
            if self.last.len() < MAX_CHANNELS || self.last.contains_key(&channel) {
                self.last.insert(channel, id);
            }
        }
    }

    /// Gives up on what is missing before items that have waited long enough. Call once a second.
    pub fn expire(&mut self, now: Instant, deliver: &mut impl FnMut(Item)) {
        // All in one look: thousands of channels may miss an item at the same time.
        let mut due: Vec<(Instant, String)> = Vec::new();
        for (channel, items) in &self.pending {
            let late = items.iter().filter(|(since, _)| now.duration_since(*since) >= self.wait);
            due.extend(late.map(|(since, _)| (*since, channel.clone())));
        }
        due.sort();
        for (since, channel) in due {
            // It may have left behind one that it waited for.
            let Some(items) = self.pending.get_mut(&channel) else { continue };
            let Some(i) = Self::first(items, since) else { continue };
            let (_, item) = items.remove(i);
            self.waiting -= 1;
            if items.is_empty() {
                self.pending.remove(&channel);
            }
            self.release(item, deliver);
        }
    }

    /// Of the items that came at a time, one that does not wait for another of the channel, if there is one.
    fn first(items: &[(Instant, Item)], since: Instant) -> Option<usize> {
        let waits = |item: &Item| items.iter().any(|(_, other)| other.id.is_some() && other.id == item.prev_id);
        let same = || items.iter().enumerate().filter(|(_, (at, _))| *at == since);
        same().find(|(_, (_, item))| !waits(item)).or_else(|| same().next()).map(|(i, _)| i)
    }

    /// The id of a channel's last item.
    pub fn last_id(&self, channel: &str) -> Option<&str> {
        self.last.get(channel).map(String::as_str)
    }

    /// A channel's last item was sent by a predecessor of this handler.
    pub fn note_last_id(&mut self, channel: String, id: String) {
        if self.last.len() < MAX_CHANNELS && !self.last.contains_key(&channel) {
            self.last.insert(channel, id);
        }
    }

    /// Forgets it; items that wait still wait.
    pub fn forget_last_id(&mut self, channel: &str) {
        self.last.remove(channel);
    }

    /// Whether items wait.
    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The channel has no subscribers any more.
    pub fn forget(&mut self, channel: &str) {
        self.last.remove(channel);
        self.waiting -= self.pending.remove(channel).map_or(0, |items| items.len());
    }

    /// Forgets all last ids (command `recover`).
    pub fn forget_last_ids(&mut self) {
        self.last.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(5);

    fn item(id: &str, prev: &str) -> Item {
        let prev = if prev.is_empty() { String::new() } else { format!(",\"prev-id\":\"{prev}\"") };
        let text = format!(
            "J{{\"channel\":\"c\",\"id\":\"{id}\"{prev},\"formats\":{{\"http-stream\":{{\"content\":\"x\"}}}}}}"
        );
        grip::item::from_message(text.as_bytes(), None).unwrap()
    }

    fn push(sequencer: &mut Sequencer, item: Item, now: Instant) -> Vec<String> {
        let mut out = Vec::new();
        sequencer.push(item, true, now, &mut |item| out.push(item.id.unwrap()));
        out
    }

    #[test]
    fn an_item_waits_for_the_one_before_it() {
        let (mut s, now) = (Sequencer::new(WAIT), Instant::now());
        assert_eq!(push(&mut s, item("1", ""), now), ["1"]);
        assert_eq!(push(&mut s, item("3", "2"), now), [""; 0]);
        assert_eq!(push(&mut s, item("2", "1"), now), ["2", "3"]);
        assert!(!s.is_waiting());
    }

    #[test]
    fn what_never_comes_is_not_waited_for_for_ever() {
        let (mut s, now) = (Sequencer::new(WAIT), Instant::now());
        push(&mut s, item("1", ""), now);
        push(&mut s, item("3", "2"), now);
        push(&mut s, item("4", "3"), now);
        let mut out = Vec::new();
        s.expire(now + WAIT / 2, &mut |item| out.push(item.id.unwrap()));
        assert_eq!(out, [""; 0]);
        s.expire(now + WAIT, &mut |item| out.push(item.id.unwrap()));
        assert_eq!(out, ["3", "4"]);
    }

    #[test]
    fn what_is_given_up_on_together_keeps_its_order() {
        let (mut s, now) = (Sequencer::new(WAIT), Instant::now());
        push(&mut s, item("1", ""), now);
        for (id, prev) in [("6", "5"), ("4", "3"), ("5", "4")] {
            push(&mut s, item(id, prev), now);
        }
        let mut out = Vec::new();
        s.expire(now + WAIT, &mut |item| out.push(item.id.unwrap()));
        assert_eq!(out, ["4", "5", "6"]);
        assert!(!s.is_waiting());
    }

    #[test]
    fn channels_without_subscribers_have_no_order() {
        let (mut s, now) = (Sequencer::new(WAIT), Instant::now());
        let mut out = Vec::new();
        for (id, prev) in [("1", ""), ("3", "2"), ("2", "1")] {
            s.push(item(id, prev), false, now, &mut |item| out.push(item.id.unwrap()));
        }
        assert_eq!(out, ["1", "3", "2"]);
    }
}
