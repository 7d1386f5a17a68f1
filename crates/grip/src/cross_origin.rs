// SPDX-License-Identifier: AGPL-3.0-or-later
//! How a response is made fit for scripts of other sites.

use crate::cors::Cors;
use crate::jsonp::Jsonp;

/// What is done to a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrossOrigin {
    /// It gets headers.
    Cors(Cors),
    /// It becomes a script.
    Jsonp(Jsonp),
}
