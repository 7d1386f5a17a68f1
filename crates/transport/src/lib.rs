// SPDX-License-Identifier: AGPL-3.0-or-later
//! The ZeroMQ sockets of the suite, and the event loop that serves them together with TCP sockets.
//!
//! Packets come in from peers as [`Message`]s and go out as byte slices; what they mean is the business of the crates
//! above (`zhttp`, and the RPCs of proxy and handler). This is the only crate that touches libzmq; no type of it leaves.
//!
//! # Layout
//! - [`reactor`]: one thread's event loop. It waits on ZeroMQ sockets, TCP sockets and wake-ups at once.
//! - `sockets`: one file a pair of socket types, each with its framing.
//! - `socket`: what all socket types share: non-blocking sending and receiving, and the bounded backlog.
//! - [`moving`]: a socket on its way to another process.
//! - `waiting`: messages for peers that are not there, or for which libzmq has no room; a queue for each.
//! - `direct`: I/O of sockets that have `ipc:` addresses only, by ourselves; `zmtp`: the protocol they speak.
//! - `libzmq`: I/O of all others, by libzmq.
//!
//! # Why no thread between sockets and state machines, and two engines
//! A wake-up of another thread costs 30 to 50 us of CPU, a message taken from a socket that is already awake 0.5 us.
//! So a worker polls its ZeroMQ sockets beside its TCP sockets and calls its state machines directly. libzmq's own
//! thread is such a wake-up on either side of every packet, so on the way of requests and deliveries, between processes
//! of one machine, the workers read and write themselves. libzmq stays where peers are strangers of any age, on other
//! machines, and where its thread costs little beside what they do: publishers, commands, suites that are spread out.

mod change;
mod counters;
mod direct;
pub mod error;
mod libzmq;
mod message;
pub mod moving;
mod options;
pub mod reactor;
mod role;
mod socket;
mod sockets;
mod waiting;
mod zmtp;

pub use change::{Change, Reason};
pub use counters::{Counters, Load};
pub use error::{Error, SendError, Taken};
pub use libzmq::Context;
pub use message::Message;
pub use moving::{MoveError, Packed};
pub use options::Options;
pub use reactor::{Event, Reactor, Waker};
pub use sockets::pub_sub::{Feed, Publisher, Subscriber, split_address};
pub use sockets::push_pull::{Pull, Push};
pub use sockets::router::{Incoming, Router};
pub use sockets::rpc::{Answer, Dealer, Envelope, Replier};
#[doc(hidden)]
pub use zmtp::explain as explain_zmtp;
