// SPDX-License-Identifier: AGPL-3.0-or-later
//! The links between the processes: a queue for each pair and purpose, in order and without loss while both live.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::random::Random;

/// A process by its place in the suite; a successor has the place of its predecessor, and another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// One of the frontends.
    Frontend(u8),
    /// The proxy.
    Proxy,
    /// The handler.
    Handler,
    /// The outbound process.
    Outbound,
}

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// First packets of sessions.
    First,
    /// Packets by ROUTER.
    Stream,
    /// Packets by PUB.
    Published,
    /// Calls of the proxy to the handler, and their answers.
    Accept,
    /// The same about requests.
    Inspect,
    /// Long-polls that go back to the proxy.
    Retry,
    /// What the proxy tells the handler about WebSockets.
    Control,
    /// What the handler tells the proxy about them.
    Told,
}

impl Lane {
    /// Whether its packets are for whoever is there: what one that dies has got nothing of goes to its successor.
    fn is_for_any(self) -> bool {
        matches!(self, Lane::First | Lane::Retry | Lane::Control | Lane::Told)
    }
}

/// What comes out of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Bytes.
    Packet(Vec<u8>),
    /// Between frontends and servers, about what a predecessor had; with the sender's name.
    Recovery(Vec<u8>, Vec<u8>),
    /// The sender of this name is there.
    Joined(Vec<u8>),
    /// The sender of this name is gone.
    Left(Vec<u8>),
    /// The receiver takes packets again.
    Room(Vec<u8>),
}

/// Packets that a link of a handler takes before it says that it is full.
pub const LINK: usize = 8;
/// Packets that no link may ever have.
const BOUND: usize = 4_000;

type Key = (Part, Part, Lane);

/// All links.
#[derive(Default)]
pub struct Net {
    links: BTreeMap<Key, VecDeque<Message>>,
    names: BTreeMap<Part, Vec<u8>>,
    /// Links whose sender waits for room.
    full: BTreeSet<Key>,
    /// Where handler and proxy have sent to in their turns.
    turns: Vec<Key>,
    /// Processes that do not run.
    pub stopped: BTreeSet<Part>,
}

impl Net {
    /// A process comes, and is known by a name.
    pub fn join(&mut self, part: Part, name: &[u8]) {
        self.names.insert(part, name.to_vec());
        let others: Vec<Part> = self.names.keys().copied().collect();
        others.into_iter().for_each(|other| self.meet(part, other));
    }

    /// Two processes have links. Those hear of it who do something then.
    fn meet(&mut self, a: Part, b: Part) {
        let pairs = [(a, b), (b, a)];
        for (from, to) in pairs {
            let lanes = match (from, to) {
                (Part::Frontend(_), Part::Handler | Part::Proxy) => &[Lane::Stream, Lane::Published][..],
                (Part::Proxy, Part::Frontend(_)) => &[Lane::First],
                (Part::Handler, Part::Proxy) => &[Lane::Accept],
                (Part::Outbound, Part::Proxy) => &[Lane::Stream],
                _ => &[],
            };
            let Some(name) = self.names.get(&from) else { return };
            for &lane in lanes {
                self.links.entry((from, to, lane)).or_default().push_back(Message::Joined(name.clone()));
            }
        }
    }

    /// What a process has sent so far has left it.
    pub fn end_turn(&mut self, part: Part) {
        self.turns.retain(|(from, ..)| *from != part);
    }

    /// Packets that the handler has sent and that its links have no room for.
    pub fn overflow(&self, to: Part) -> usize {
        let links = [Lane::Stream, Lane::Published].map(|lane| self.links.get(&(Part::Handler, to, lane)));
        links.into_iter().flatten().map(|link| link.len().saturating_sub(LINK)).sum()
    }

    /// Packets that the handler has for the proxy about WebSockets, and that have not left it.
    pub fn untold(&self) -> usize {
        let told = self.links.get(&(Part::Handler, Part::Proxy, Lane::Told)).map_or(0, VecDeque::len);
        let is_linked =
            self.names.contains_key(&Part::Proxy) && !self.is_of_the_dead(Part::Proxy, Part::Handler, Lane::Told);
        if is_linked { told.saturating_sub(LINK) } else { told }
    }

    /// A process dies in its turn, before what it has for some links has left; what the links of a handler have no room for is lost in
    /// any case.
    pub fn lose_turn(&mut self, part: Part, of: impl Fn(Part, Lane) -> bool) {
        let of_it = |key: &Key| key.0 == part;
        for key in self.turns.extract_if(.., |key| of_it(key)).collect::<Vec<_>>().into_iter().rev() {
            if let Some(link) = self.links.get_mut(&key).filter(|_| of(key.1, key.2))
                && let Some(Message::Packet(_)) = link.back()
            {
                link.pop_back();
            }
        }
        for ((from, to, lane), link) in &mut self.links {
            let has_queue = matches!(to, Part::Frontend(_)) || *lane == Lane::Told;
            if part == Part::Handler && *from == part && has_queue {
                link.truncate(of_predecessors(link) + LINK);
            }
        }
    }

    /// The name of a process that is there.
    pub fn name(&self, part: Part) -> Option<&[u8]> {
        self.names.get(&part).map(Vec::as_slice)
    }

    /// The process of a name.
    pub fn part(&self, name: &[u8]) -> Option<Part> {
        self.names.iter().find(|(_, known)| *known == name).map(|(part, _)| *part)
    }

    /// A process goes. What it has sent still arrives, followed by the news; what was sent to it is lost, but for what it has got
    /// nothing of and any other can take.
    pub fn leave(&mut self, part: Part, random: &mut Random) {
        let Some(name) = self.names.remove(&part) else { return };
        self.stopped.remove(&part);
        self.full.retain(|(from, to, _)| *from != part && *to != part);
        // What has not left it, because nobody was there, or it had not noticed who.
        let untold: Vec<Key> = self.links.keys().copied().filter(|key| key.0 == part && !self.is_open(*key)).collect();
        untold.into_iter().for_each(|key| drop(self.links.remove(&key)));
        self.links.retain(|(_, to, lane), link| {
            if *to == part {
                // What somebody has sent who is gone as well has left that one.
                let of_the_dead = link.iter().rposition(|message| matches!(message, Message::Left(_)));
                let count = match lane.is_for_any() {
                    true => random.below(link.len() + 1).max(of_the_dead.map_or(0, |at| at + 1)),
                    false => link.len(),
                };
                link.drain(..count);
            }
            !link.is_empty()
        });
        for &other in self.names.keys() {
            // Everybody who has ever had a link with it hears of it, on each.
            for lane in lanes(part, other) {
                self.links.entry((part, other, lane)).or_default().push_back(Message::Left(name.clone()));
            }
        }
    }

    /// A handler's link takes nothing for too long: what it has not delivered is lost, in both directions. The handler knows; the
    /// frontend hears of it. Then there is a new one.
    pub fn cut(&mut self, from: Part, to: Part) {
        let Some(sender) = self.names.get(&from).cloned() else { return };
        for lane in [Lane::Stream, Lane::Published] {
            // A part is in the kernel's buffers and arrives.
            let link = self.links.entry((from, to, lane)).or_default();
            link.truncate(of_predecessors(link) + LINK / 2);
            self.full.remove(&(from, to, lane));
        }
        for lane in lanes(from, to) {
            self.links.entry((from, to, lane)).or_default().push_back(Message::Left(sender.clone()));
        }
        for lane in lanes(to, from) {
            self.links.remove(&(to, from, lane));
        }
        self.meet(from, to);
    }

    /// Takes back what nobody has got anything of.
    pub fn take_unsent(&mut self, from: Part, to: Part, lane: Lane) -> Vec<Vec<u8>> {
        let link = self.links.remove(&(from, to, lane)).unwrap_or_default();
        link.into_iter()
            .filter_map(|message| if let Message::Packet(bytes) = message { Some(bytes) } else { None })
            .collect()
    }

    /// Whether the sender of what has come last is gone: what is answered goes nowhere, though it can be sent.
    pub fn is_of_the_dead(&self, from: Part, to: Part, lane: Lane) -> bool {
        let link = self.links.get(&(from, to, lane));
        link.is_some_and(|link| link.iter().any(|message| matches!(message, Message::Left(_))))
    }

    /// Whether the sender has a link to the receiver that is there, as far as it knows.
    fn is_open(&self, (from, to, lane): Key) -> bool {
        self.names.contains_key(&to) && !(lane.is_for_any() && self.is_of_the_dead(to, from, lane))
    }

    /// Sends; `None` if nobody is there, otherwise whether there is room for more.
    pub fn send(&mut self, from: Part, to: Part, lane: Lane, bytes: &[u8]) -> Option<bool> {
        if !self.names.contains_key(&to) && !lane.is_for_any() {
            return None;
        }
        let link = self.links.entry((from, to, lane)).or_default();
        link.push_back(Message::Packet(bytes.to_vec()));
        if matches!(from, Part::Handler | Part::Proxy) {
            self.turns.push((from, to, lane));
        }
        assert!(link.len() < BOUND, "the link of {from:?} to {to:?} ({lane:?}) has {} packets", link.len());
        if link.len() >= LINK {
            self.full.insert((from, to, lane));
        }
        Some(link.len() < LINK)
    }

    /// Sends a packet of a recovery.
    pub fn tell(&mut self, from: Part, to: Part, packet: Vec<u8>) {
        if let Some(name) = self.names.get(&from).cloned() {
            let link = self.links.entry((from, to, Lane::Stream)).or_default();
            link.push_back(Message::Recovery(name, packet));
        }
    }

    /// Links that have something for a process that is there and runs.
    pub fn ready(&self) -> Vec<(Part, Part, Lane)> {
        let runs = |part| self.names.contains_key(part) && !self.stopped.contains(part);
        let ready = self.links.iter().filter(|((_, to, _), link)| !link.is_empty() && runs(to));
        ready.map(|(key, _)| *key).filter(|key| self.is_open(*key)).collect()
    }

    /// The next message of a link, for people.
    pub fn peek(&self, key: (Part, Part, Lane)) -> String {
        match self.links.get(&key).and_then(VecDeque::front) {
            Some(Message::Packet(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            Some(Message::Joined(name)) => format!("joined {}", String::from_utf8_lossy(name)),
            Some(Message::Left(name)) => format!("left {}", String::from_utf8_lossy(name)),
            Some(Message::Room(name)) => format!("room at {}", String::from_utf8_lossy(name)),
            Some(Message::Recovery(name, bytes)) => {
                format!("recovery from {}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(bytes))
            }
            None => String::new(),
        }
    }

    /// Takes the next message of a link.
    pub fn take(&mut self, key: (Part, Part, Lane)) -> Option<Message> {
        let link = self.links.get_mut(&key)?;
        let message = link.pop_front();
        let (from, to, lane) = key;
        if link.len() <= LINK / 2
            && self.full.remove(&key)
            && let Some(name) = self.names.get(&to)
        {
            self.links.entry((to, from, lane)).or_default().push_back(Message::Room(name.clone()));
        }
        message
    }

    /// Whether a link has no room.
    pub fn is_full(&self, from: Part, to: Part) -> bool {
        self.full.iter().any(|(a, b, _)| (*a, *b) == (from, to))
    }
}

/// How much of a link is what processes have left behind that are gone.
fn of_predecessors(link: &VecDeque<Message>) -> usize {
    link.iter().rposition(|message| matches!(message, Message::Left(_))).map_or(0, |last| last + 1)
}

/// The links by whose end `to` hears that `from` is gone.
fn lanes(from: Part, to: Part) -> Vec<Lane> {
    match (from, to) {
        (Part::Frontend(_), Part::Frontend(_)) => Vec::new(),
        (Part::Frontend(_), Part::Outbound) | (Part::Outbound, Part::Frontend(_)) => Vec::new(),
        (Part::Outbound, Part::Handler) | (Part::Handler, Part::Outbound) => Vec::new(),
        (Part::Proxy, Part::Handler) | (Part::Handler, Part::Proxy) => {
            vec![Lane::Stream, Lane::Accept, Lane::Inspect, Lane::Control, Lane::Told]
        }
        (Part::Proxy, Part::Frontend(_)) => vec![Lane::Stream, Lane::First],
        (Part::Frontend(_), _) => vec![Lane::Stream, Lane::Published],
        (Part::Outbound, Part::Proxy) => vec![Lane::Stream, Lane::First],
        (Part::Proxy, Part::Outbound) => vec![Lane::Stream, Lane::Published],
        _ => vec![Lane::Stream],
    }
}
