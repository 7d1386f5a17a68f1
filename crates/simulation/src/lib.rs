// SPDX-License-Identifier: AGPL-3.0-or-later
//! The engines of the suite in one process, joined by queues and one clock, with everything that happens decided by a
//! seed: who is next, what a client does, what is published, who stops, who dies and is replaced.
//!
//! The four processes are the real ones, without their sockets: ZeroMQ's are queues, those of clients and backends are bytes with bounds
//! in both directions. Names are looked up, connections are refused, let wait, closed and broken off as by a system.
//!
//! What must hold at every step, in every weather:
//! - nobody breaks the rules of sessions (a violation is a panic), and no queue grows without bound;
//! - a stream gets every item of its channels once and in the order of publishing, or it is seen to end;
//! - a long-poll that says what it has gets what follows, whatever is published between its backend's answer and the hold;
//! - a WebSocket over HTTP gets every item of a channel once and in the order of publishing, from when a handler has subscribed it, or
//!   it is seen to end; its backend hears every message of the client in order, and twice only where the request says so;
//! - a WebSocket whose backend speaks WebSocket does the same; of either side every byte comes once and in order;
//! - a response is what the backend sent, or it is seen to be cut off;
//! - a request that may not be repeated comes to the backend once at most;
//! - where backends break off and outbound processes die, others than those who have asked them notice nothing, and a request whose
//!   response had not begun gets 502 or is sent again;
//! - the outbound process has no more connections than its requests and its pool may have;
//! - where only proxies die, nothing that is held ends, and a request whose response had not begun is answered: by the next proxy, or
//!   with 502 if it must not, or may no more, be sent again;
//! - where only proxies or only handlers die, no WebSocket ends for that, but for one in the middle of a message, and one that a handler
//!   has not heard of yet. Where both do, some also end because a handler begins to publish before a proxy has named them. Then
//!   items are missed only of those that were published before the second died, if it had not been named the WebSockets of the first one's
//!   successor, or had not named its own to that ([`facts`]).
//!
//! And at the end: who was not cut off has got everything; and when all clients have gone, no part has a session or a connection left, and backends
//! have been told of the end of each WebSocket, unless frontends that keep nothing die or servers halt.
//!
//! - [`net`], [`random`]: links and chance. [`frontend`], [`proxy`], [`handler`], [`outbound`]: the processes. [`wires`], [`backend`]: what is
//!   behind them; [`answers`], [`conversations`], [`direct`]: what the backend says to requests, and to WebSockets over HTTP and
//!   others. [`client`], [`socket`]: who knows what it should get, by the [`facts`].
//! - [`world`]: all of them and the clock. [`weather`]: what goes wrong. [`report`]: what has happened.
//!
//! `cargo test -p simulation` makes 150 runs in each weather. `SIMULATION_SEEDS=n` makes so many, `SIMULATION_SEED=n` repeats
//! one, `SIMULATION_LOG=1` shows what the engines would have logged, `SIMULATION_TRACE=1` each packet.

#![forbid(unsafe_code)]

pub mod answers;
pub mod backend;
pub mod client;
pub mod conversations;
pub mod direct;
pub mod facts;
pub mod frontend;
pub mod handler;
pub mod messages;
pub mod net;
pub mod outbound;
pub mod proxy;
pub mod random;
pub mod report;
pub mod socket;
pub mod weather;
pub mod wires;
pub mod world;

pub use report::Report;
pub use weather::Weather;
pub use world::World;
