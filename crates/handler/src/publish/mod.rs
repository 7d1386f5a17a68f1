// SPDX-License-Identifier: AGPL-3.0-or-later
//! Where items enter: the HTTP control port and the command socket; the ZeroMQ inputs are read by the worker.

pub mod command;
pub mod forwarded;
pub mod http;
pub mod submission;
