//! The ZeroMQ sockets of the suite, and the event loop that serves them together with TCP sockets.
//!
//! This is the only crate that touches libzmq; no type of it leaves. Packets come in from peers as [`Message`]s and go
//! out as byte slices; what they mean is the business of the crates above (`zhttp`, and the RPCs of proxy and handler).
//!
//! # Layout
//! - [`reactor`]: one thread's event loop. It waits on ZeroMQ sockets, TCP sockets and wake-ups at once.
//! - [`socket`]: what all socket types share: non-blocking sending and receiving, and the bounded backlog.
//! - [`push_pull`], [`pub_sub`], [`router`], [`rpc`]: one file a pair of socket types, each with its framing.
//!
//! # Why no thread between sockets and state machines
//! A wake-up of another thread costs 30 to 50 us of CPU, a message taken from a socket that is already awake 0.5 us.
//! So a worker polls the file descriptors of its ZeroMQ sockets beside its TCP sockets and calls its state machines
//! directly.

pub mod error;
pub mod pub_sub;
pub mod push_pull;
pub mod reactor;
pub mod router;
pub mod rpc;
pub mod socket;

pub use error::Error;
pub use pub_sub::{Change, Feed, Publisher, Subscriber};
pub use push_pull::{Pull, Push};
pub use reactor::{Event, Reactor, Waker};
pub use router::Router;
pub use rpc::{Dealer, Envelope, Replier};
pub use socket::{Context, Counters, Message, Options};
