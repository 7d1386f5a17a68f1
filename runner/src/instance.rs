// SPDX-License-Identifier: AGPL-3.0-or-later
//! How an operator says which suite is meant: by its configuration file, and by a number if several run from one.

use std::path::Path;

use settings::{Origin, Source};

/// The configuration of the suite that was started with these options.
pub fn source(config: Option<&Path>, id: Option<u16>) -> Source {
    Source {
        origin: Origin::find(config),
        ipc_prefix: id.map(|id| format!("p{id}-")),
        port_offset: id.map(|id| id * 10),
        routes: Vec::new(),
        supervised: true,
    }
}
