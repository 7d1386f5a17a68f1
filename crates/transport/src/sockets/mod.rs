// SPDX-License-Identifier: AGPL-3.0-or-later
//! The typed sockets: one file a pair of socket types that talk to each other, with its framing.

pub mod pub_sub;
pub mod push_pull;
pub mod router;
pub mod rpc;
