// SPDX-License-Identifier: AGPL-3.0-or-later
//! PUB and SUB: responses, addressed by a prefix that names the receiving instance, and published messages.
//!
//! Sending is by XPUB, which sees the subscriptions of its peers. So a packet for an instance whose subscription has not
//! arrived yet (both sides have just started) is kept back instead of lost, and the end of an instance is noticed when
//! its connection breaks instead of a minute later.

use crate::change::{Arrival, Change};
use crate::counters::Load;
use crate::error::{Error, SendError, Taken};
use crate::message::Message;
use crate::role::Role;
use crate::socket::{Handle, socket_common};

/// Sends packets to instances by name.
///
/// A packet starts with the instance's name and one space, which the instance subscribes to. Nothing is dropped when an
/// instance is slow: its packets wait, here within limits of that instance, and then in the sender.
pub struct Publisher {
    core: Handle,
}

socket_common!(Publisher, Role::Xpub);

impl Publisher {
    /// Sends `packet`, which starts with `to` and a space. One for an instance that has not subscribed waits for 5 s; it is
    /// then counted as refused.
    ///
    /// # Errors
    /// [`SendError::Full`]: the instance does not take what waits for it, and no more may wait. [`Change::Room`] follows.
    pub fn send(&self, to: &[u8], packet: &[u8]) -> Result<Taken, SendError> {
        match packet.get(..=to.len()) {
            Some(topic) if topic.starts_with(to) && topic.ends_with(b" ") => self.core.send_to(topic, &[packet]),
            _ => Err(SendError::Unreachable),
        }
    }

    /// Reads what subscriptions have arrived, and returns who came, went, or has room again. Call when the socket is
    /// readable.
    pub fn changes(&self) -> impl Iterator<Item = Change> + '_ {
        std::iter::from_fn(|| {
            loop {
                let Arrival::Change(change) = self.core.next_arrival()? else { continue };
                // The space that ends the name keeps `proxy_1` from matching `proxy_10`. Other topics are of those who
                // listen in.
                if let Some(change) = change.map(|topic| Some(topic.slice(..topic.strip_suffix(b" ")?.len()))) {
                    return Some(change);
                }
            }
        })
    }

    /// What waits for one instance.
    pub fn load_of(&self, instance: &[u8]) -> Load {
        self.core.load_of(&[instance, b" "].concat())
    }

    /// Whether the instance is known to listen.
    pub fn is_present(&self, instance: &[u8]) -> bool {
        self.core.is_present(&[instance, b" "].concat())
    }
}

/// Sends to whoever subscribes, and drops what a slow one does not take; for statistics only.
pub struct Feed {
    core: Handle,
}

socket_common!(Feed, Role::Pub);

impl Feed {
    /// Sends a message to all that subscribe to a prefix of it.
    pub fn send(&self, message: &[u8]) -> Result<Taken, SendError> {
        self.core.send(&[message])
    }

    /// Whether anybody listens. On addresses that libzmq serves that is not known, and the answer is yes.
    pub fn is_heard(&self) -> bool {
        self.core.is_heard()
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
                self.core.count_malformed();
                continue;
            }
            let content = self.core.recv_part()?;
            if content.more() {
                self.core.skip_rest();
                continue;
            }
            self.core.count_received();
            return Some((topic, content));
        }
    }
}

/// The name a packet of a [`Publisher`] is addressed to, and what follows the space.
pub fn split_address(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = message.iter().position(|&b| b == b' ')?;
    Some((&message[..space], &message[space + 1..]))
}
