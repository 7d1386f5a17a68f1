// SPDX-License-Identifier: AGPL-3.0-or-later
//! The content published in a turn, until it leaves at the end of the turn. Content of streams and frames for WebSockets are
//! apart.
//!
//! What goes to the same streams is joined into a *run*. Channels have their runs side by side: each piece of content has
//! a number in the order of publishing, and a run is a list of numbers. A stream that listens to several of the channels
//! gets their runs as one, in the order of the numbers. Equal lists are the same content, so classes of subscribers for
//! which filters have changed nothing share their packets.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use foldhash::fast::RandomState;
use zhttp::Run;

use super::sender::Sender;
use crate::context::Context;
use crate::subscribe::audience::Audience;
use crate::subscribe::channels::{Channels, GroupKey, HoldKey, Mode, Place, RunNumber};

/// Bytes of one run: a small part of what a frontend grants a client, so that a run seldom meets one without credits.
const MAX_RUN: usize = 8_192;
/// Bytes and pieces of all runs together.
const MAX_BYTES: usize = 256 * 1024;
const MAX_PIECES: usize = 4_096;
/// Lists of numbers that are kept for the next turn, and numbers for which each keeps room.
const IDLE: usize = 64;

/// See the module.
pub struct Runs {
    /// Whom they are for.
    mode: Mode,
    /// By number, each with where in `items` the message is that it is of; nowhere if that has no id.
    pieces: Vec<(Bytes, Range<usize>)>,
    /// Messages as they stand in packets.
    items: Vec<u8>,
    bytes: usize,
    /// Groups with a run; some may be gone.
    touched: Vec<(GroupKey, RunNumber)>,
    /// By number; those behind the ones in use are empty.
    runs: Vec<GroupRun>,
    full: bool,
    /// Answers to long-polls have left with the number of the run.
    begun: bool,
}

/// What some of a group get of what is published in a turn.
#[derive(Default)]
struct GroupRun {
    /// Numbers of the pieces, in the order of publishing.
    pieces: Vec<u32>,
    /// Their bytes.
    bytes: usize,
}

impl Runs {
    /// None yet, for subscribers of a mode.
    pub fn new(mode: Mode) -> Self {
        Runs {
            mode,
            pieces: Vec::new(),
            items: Vec::new(),
            bytes: 0,
            touched: Vec::new(),
            runs: Vec::new(),
            full: false,
            begun: false,
        }
    }

    /// Answers to long-polls leave with the number of the run.
    pub fn begin(&mut self) {
        self.begun = true;
    }

    /// Adds a piece of content, and of which message it is; returns its number.
    pub fn add(&mut self, content: Bytes, channel: &str, id: Option<&str>) -> u32 {
        self.bytes += content.len();
        let start = self.items.len();
        id.into_iter().for_each(|id| Run::push(&mut self.items, channel, id));
        self.pieces.push((content, start..self.items.len()));
        self.full |= self.bytes >= MAX_BYTES || self.pieces.len() >= MAX_PIECES;
        self.pieces.len() as u32 - 1
    }

    /// Adds the piece to the run of a group.
    pub fn extend(&mut self, key: GroupKey, piece: u32, channels: &mut Channels) {
        let Some(group) = channels.group_mut(key) else { return };
        let number = match group.run(self.mode).or_else(|| RunNumber::at(self.touched.len())) {
            Some(number) => number,
            // There are never as many groups as numbers.
            None => return,
        };
        if group.run(self.mode).is_none() {
            group.set_run(self.mode, Some(number));
            self.touched.push((key, number));
            if self.runs.len() < self.touched.len() {
                self.runs.push(GroupRun::default());
            }
        }
        let run = &mut self.runs[number.index()];
        run.pieces.push(piece);
        let (content, item) = &self.pieces[piece as usize];
        run.bytes += content.len() + item.len();
        self.full |= run.bytes >= MAX_RUN;
    }

    /// Whether the runs should leave before anything is added.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Gives all runs to their streams or WebSockets.
    pub fn flush(&mut self, sender: &mut Sender, audience: &mut Audience, cx: &mut Context<'_>) {
        let (mode, mut touched) = (self.mode, std::mem::take(&mut self.touched));
        let (channels, used) = (&audience.channels, touched.len());
        touched.retain(|&(key, number)| channels.group(key).is_some_and(|group| group.run(mode) == Some(number)));
        let run = |number: RunNumber| self.runs[number.index()].pieces.as_slice();
        if touched.len() > 1 {
            touched.sort_by(|a, b| run(a.1).cmp(run(b.1)));
        }
        let mut several = Several::new(mode, &self.runs);
        for equal in touched.chunk_by(|a, b| run(a.1) == run(b.1)) {
            let content = self.join(run(equal[0].1), &mut sender.items);
            let (holds, links, sockets) = (&mut audience.holds, &mut audience.links, &audience.sockets);
            for &(group, _) in equal {
                for &member in channels.group_at(group).list(mode) {
                    let key = match mode {
                        Mode::Stream | Mode::Response => member,
                        Mode::Socket => match sockets[member].lane.opened() {
                            Some(key) => key,
                            // The proxy has been told what it gets.
                            None => continue,
                        },
                    };
                    if touched.len() > 1 {
                        let taken = match mode {
                            Mode::Stream | Mode::Response => {
                                several.takes(key, group, holds[key].places.iter(), channels)
                            }
                            Mode::Socket => several.takes(key, group, sockets[member].places(), channels),
                        };
                        if taken {
                            continue;
                        }
                    }
                    sender.give(key, &content, holds, links, cx);
                }
            }
            sender.finish(&content, holds, links, cx);
        }
        several.holds.sort_by_key(|(list, _)| *list);
        for equal in several.holds.chunk_by(|a, b| a.0 == b.0) {
            let content = self.join(&several.lists[equal[0].0 as usize], &mut sender.items);
            let (holds, links) = (&mut audience.holds, &mut audience.links);
            equal.iter().for_each(|&(_, key)| sender.give(key, &content, holds, links, cx));
            sender.finish(&content, holds, links, cx);
        }
        for &(key, _) in &touched {
            if let Some(group) = audience.channels.group_mut(key) {
                group.set_run(mode, None);
            }
        }
        for run in &mut self.runs[..used] {
            run.bytes = 0;
            run.pieces.clear();
            run.pieces.shrink_to(IDLE);
        }
        self.runs.truncate(IDLE);
        // What WebSockets have got is kept for no successor.
        if std::mem::take(&mut self.begun) || mode != Mode::Socket && !touched.is_empty() {
            sender.run += 1;
        }
        touched.clear();
        self.touched = touched;
        self.pieces.clear();
        self.items.clear();
        (self.bytes, self.full) = (0, false);
    }

    fn join(&self, list: &[u32], items: &mut Vec<u8>) -> Bytes {
        items.clear();
        list.iter().for_each(|&piece| items.extend_from_slice(&self.items[self.pieces[piece as usize].1.clone()]));
        if let [one] = list {
            return self.pieces[*one as usize].0.clone();
        }
        let pieces = || list.iter().map(|&piece| &self.pieces[piece as usize].0);
        let mut joined = Vec::with_capacity(pieces().map(Bytes::len).sum());
        pieces().for_each(|piece| joined.extend_from_slice(piece));
        joined.into()
    }
}

/// Those who listen to several channels with a run.
struct Several<'r> {
    mode: Mode,
    runs: &'r [GroupRun],
    /// The list of each set of groups.
    sets: HashMap<Vec<GroupKey>, u32, RandomState>,
    /// Their runs as one.
    lists: Vec<Vec<u32>>,
    holds: Vec<(u32, HoldKey)>,
    set: Vec<GroupKey>,
}

impl<'r> Several<'r> {
    fn new(mode: Mode, runs: &'r [GroupRun]) -> Self {
        Several { mode, runs, sets: HashMap::default(), lists: Vec::new(), holds: Vec::new(), set: Vec::new() }
    }

    /// Takes a hold of a group if it is in other groups with a run as well; it is taken with the first of them.
    fn takes<'p>(
        &mut self,
        key: HoldKey,
        group: GroupKey,
        places: impl ExactSizeIterator<Item = &'p Place>,
        channels: &Channels,
    ) -> bool {
        if places.len() < 2 {
            return false;
        }
        let run = |group: GroupKey| channels.group_at(group).run(self.mode);
        self.set.clear();
        self.set.extend(places.map(|place| place.group).filter(|&group| run(group).is_some()));
        if self.set.len() < 2 {
            return false;
        }
        self.set.sort_unstable();
        if self.set[0] != group {
            return true;
        }
        let list = match self.sets.get(&self.set[..]) {
            Some(&list) => list,
            None => {
                let numbers = self.set.iter().filter_map(|&group| run(group));
                let mut list: Vec<u32> =
                    numbers.flat_map(|number| &self.runs[number.index()].pieces).copied().collect();
                list.sort_unstable();
                self.lists.push(list);
                self.sets.insert(self.set.clone(), self.lists.len() as u32 - 1);
                self.lists.len() as u32 - 1
            }
        };
        self.holds.push((list, key));
        true
    }
}
