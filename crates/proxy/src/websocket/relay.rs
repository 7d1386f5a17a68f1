// SPDX-License-Identifier: AGPL-3.0-or-later
//! One WebSocket: the client's session, the backend's, and what passes between them.
//!
//! - [`state`]: what it is made of; [`side`] is one of its sides, and [`kept`] what its frontend keeps of it.
//! - [`opening`]: from its first packet to its response.
//! - [`client`]: the client's side.
//! - [`origin`]: the backend's, and [`over_http`] if that is spoken to by requests.
//! - [`handler`]: what the handler and the WebSocket tell each other.
//! - [`closing`]: how it ends, and [`resume`]: how it goes on when the proxy does, with [`counted`] if the backend's connection is to
//!   be taken over.
//! - [`account`]: what is told of it, in the log and to statistics.

mod account;
mod client;
mod closing;
mod counted;
mod handler;
mod kept;
mod opening;
mod origin;
mod over_http;
mod resume;
mod side;
mod state;

pub use self::handler::message;
pub use self::side::{index_of_origin, origin_index};
pub use self::state::{Arrival, Relay, Scene};
