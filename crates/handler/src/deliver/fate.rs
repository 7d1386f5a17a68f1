// SPDX-License-Identifier: AGPL-3.0-or-later
//! What becomes of a published item.

use serde::Serialize;

use crate::subscribe::counts::Counts;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", content = "receivers", rename_all = "lowercase")]
pub enum Fate {
    /// It has been given to these: subscribers at that moment, without those from whom filters keep it. Those who have missed
    /// another item and ask their backend instead are not among them.
    Published(Counts),
    /// Nothing, since an item with its id was there before.
    Repeated,
    /// It waits for the item before it, `prev-id`.
    Waiting,
    /// Nothing, since too many wait for the item before it, or another one in its place.
    Dropped,
}
