//! PUB and SUB: responses, addressed by a prefix that names the receiving instance, and published messages.
//!
//! Sending is by XPUB, which sees the subscriptions of its peers. So a packet for an instance whose subscription has not
//! arrived yet (both sides have just started) is kept back instead of lost, and the end of an instance is noticed when
//! its connection breaks instead of a minute later.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::change::{Change, Reason};
use crate::error::{Error, SendError};
use crate::message::Message;
use crate::role::Role;
use crate::socket::{Handle, socket_common};

/// Packets kept for one instance until it subscribes.
const MAX_EARLY: usize = 1_000;
/// Instances for which packets are kept.
const MAX_EARLY_INSTANCES: usize = 100;
/// How long they are kept.
const EARLY_PATIENCE: Duration = Duration::from_secs(5);

/// Sends packets to instances by name.
///
/// A packet starts with the instance's name and one space, which the instance subscribes to. Nothing is dropped when an
/// instance is slow: the packets wait, here and in the sender.
pub struct Publisher {
    core: Handle,
    present: HashSet<Vec<u8>>,
    early: HashMap<Vec<u8>, Early>,
    changes: VecDeque<Change>,
}

struct Early {
    since: Instant,
    packets: Vec<Vec<u8>>,
}

socket_common!(Publisher, Role::Xpub, present, early, changes);

impl Publisher {
    /// Sends `packet`, which starts with `to` and a space.
    pub fn send(&mut self, to: &[u8], packet: &[u8], now: Instant) -> Result<(), SendError> {
        debug_assert!(packet.starts_with(to) && packet.get(to.len()) == Some(&b' '));
        if self.present.contains(to) {
            return self.core.send(&[packet]);
        }
        let room = self.early.len() < MAX_EARLY_INSTANCES;
        let early = match self.early.get_mut(to) {
            Some(early) => early,
            None if room => self.early.entry(to.to_vec()).or_insert_with(|| Early { since: now, packets: Vec::new() }),
            None => return self.refuse(SendError::Full),
        };
        if early.packets.len() >= MAX_EARLY {
            return self.refuse(SendError::Full);
        }
        early.packets.push(packet.to_vec());
        Ok(())
    }

    fn refuse(&self, error: SendError) -> Result<(), SendError> {
        self.core.count(|c| c.refused += 1);
        Err(error)
    }

    /// Reads the subscriptions that have arrived, and returns who came and went. Call when the socket is readable.
    pub fn changes(&mut self) -> impl Iterator<Item = Change> + '_ {
        while let Some(notice) = self.core.recv_single() {
            let Some((&flag, topic)) = notice.split_first() else { continue };
            // The space that ends the name keeps `proxy_1` from matching `proxy_10`.
            let Some(name) = topic.strip_suffix(b" ") else { continue };
            if flag == 1 {
                self.present.insert(name.to_vec());
                for packet in self.early.remove(name).map(|e| e.packets).unwrap_or_default() {
                    let _ = self.core.send(&[&packet]);
                }
                self.changes.push_back(Change::Joined(Bytes::copy_from_slice(name)));
            } else if self.present.remove(name) {
                self.changes.push_back(Change::Left(Bytes::copy_from_slice(name), Reason::Closed));
            }
        }
        self.changes.drain(..)
    }

    /// Whether the instance is known to listen.
    pub fn is_present(&self, name: &[u8]) -> bool {
        self.present.contains(name)
    }

    /// Gives up on instances that have not subscribed in 5 s; returns how many packets were dropped. Call now and then.
    pub fn forget_absent(&mut self, now: Instant) -> usize {
        let mut dropped = 0;
        self.early.retain(|_, early| {
            let keep = now.duration_since(early.since) < EARLY_PATIENCE;
            dropped += if keep { 0 } else { early.packets.len() };
            keep
        });
        self.core.count(|c| c.refused += dropped as u64);
        dropped
    }
}

/// Sends to whoever subscribes, and drops what a slow one does not take; for statistics only.
pub struct Feed {
    core: Handle,
}

socket_common!(Feed, Role::Pub);

impl Feed {
    /// Sends a message to all that subscribe to a prefix of it.
    pub fn send(&self, message: &[u8]) -> Result<(), SendError> {
        self.core.send(&[message])
    }
}

/// Receives what is addressed to one instance, or the messages of subscribed channels.
pub struct Subscriber {
    core: Handle,
}

socket_common!(Subscriber, Role::Sub);

impl Subscriber {
    /// Listens to messages that begin with `prefix`.
    pub fn subscribe(&self, prefix: &[u8]) -> Result<(), Error> {
        self.core.subscribe(prefix)
    }

    /// Listens to what is addressed to the instance: its name and a space.
    pub fn subscribe_instance(&self, name: &str) -> Result<(), Error> {
        self.subscribe(format!("{name} ").as_bytes())
    }

    /// Ends a subscription made by [`Subscriber::subscribe`].
    pub fn unsubscribe(&self, prefix: &[u8]) -> Result<(), Error> {
        self.core.unsubscribe(prefix)
    }

    /// The next message of one part. Others are skipped and counted.
    pub fn recv(&self) -> Option<Message> {
        self.core.recv_single()
    }

    /// The next message of two parts, topic and content. Others are skipped and counted.
    pub fn recv_topic(&self) -> Option<(Message, Message)> {
        loop {
            let topic = self.core.recv_part()?;
            if !topic.more() {
                self.core.count(|c| c.malformed += 1);
                continue;
            }
            let content = self.core.recv_part()?;
            if content.more() {
                self.core.skip_rest();
                continue;
            }
            self.core.count(|c| c.received += 1);
            return Some((topic, content));
        }
    }
}

/// The name a packet of a [`Publisher`] is addressed to, and what follows the space.
pub fn split_address(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = message.iter().position(|&b| b == b' ')?;
    Some((&message[..space], &message[space + 1..]))
}
