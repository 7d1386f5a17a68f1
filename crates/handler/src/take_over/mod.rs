// SPDX-License-Identifier: AGPL-3.0-or-later
//! Requests that the proxy hands over to be held: [`accept`] reads the call, [`admission`] decides, [`asked`] is what is kept to
//! give a request back, [`returned`] tells which of a predecessor's have been, [`record`] and [`arrears`] are what a successor is
//! to know.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod accept;
pub mod admission;
pub mod arrears;
pub mod asked;
pub mod record;
pub mod returned;
