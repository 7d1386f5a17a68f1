// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is known of an upgrade that is under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::control::upgrade::Upgrade;
use crate::kept::Kept;

/// An upgrade that is under way.
#[derive(Default)]
pub(super) struct Upgrading {
    pub(super) ledger: Upgrade,
    /// What ran before.
    pub(super) kept: BTreeMap<usize, Arc<Kept>>,
    /// When the report is due at the latest, if all that was to be done is done.
    pub(super) report_due: Option<Instant>,
    /// Why the way back ended.
    pub(super) stuck: Option<String>,
}

impl Upgrading {
    /// Whether its processes go back to what they had.
    pub(super) fn goes_back(&self) -> bool {
        self.ledger.reason().is_some()
    }
}
