// SPDX-License-Identifier: AGPL-3.0-or-later
//! What operators can measure: every metric there is, pages of their values, and the page of the whole suite.
//!
//! A process counts with plain numbers of its own. Once a second it writes them on a [`Page`] and sends that to the runner,
//! which keeps the last page of each process and joins them when somebody asks ([`Suite`]). Without I/O and clock.
//!
//! The crates for metrics give every counter an atomic number and a name in a registry, for threads that share them. Here
//! nothing is shared: a counter is a `u64` of the worker. What is left is the text format, which is a page of code; and
//! `prometheus-client` could not write Pushpin's names, because it ends those of all counters with `_total`.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod catalogue;
pub mod docs;
mod histogram;
mod minutes;
mod page;
mod suite;

pub use catalogue::{Metric, Type};
pub use histogram::Histogram;
pub use minutes::Minutes;
pub use page::Page;
pub use suite::{FRESH, Suite};
