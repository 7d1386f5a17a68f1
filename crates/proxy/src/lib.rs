//! The proxy: takes requests from the frontend, finds their routes, has them answered by backends through the outbound
//! process, and hands those that are to be held to the handler.
//!
//! # Layout
//! - [`worker`]: the event loop with the sockets; [`engine`]: which request a packet is for; [`exchange`]: one request,
//!   from its first packet to its end.
//! - [`uri`], [`request`], [`forwarded`], [`upload`]: what a backend gets.
//! - [`response`], [`download`], [`answer`]: what a client gets.
//! - [`rpc`], [`inspect`], [`accept`], [`retry`], [`command`]: talking to the handler.
//! - [`test_target`]: the backend that is built in. [`access_log`]: the line for each request.
//!
//! Only `worker` knows sockets and the clock.

#![forbid(unsafe_code)]

pub mod accept;
pub mod access_log;
pub mod answer;
pub mod command;
pub mod desk;
pub mod download;
pub mod engine;
pub mod exchange;
pub mod forwarded;
pub mod inspect;
pub mod request;
pub mod response;
pub mod retry;
pub mod rpc;
pub mod test_target;
pub mod upload;
pub mod uri;
pub mod worker;
