// SPDX-License-Identifier: AGPL-3.0-or-later
//! Where routes are written. What they say is the `routes` crate's.

use std::path::PathBuf;

/// Where routes are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoutesSource {
    /// In the program: everything to the test backend.
    BuiltIn,
    /// In a file, which may change.
    File(PathBuf),
    /// On the command line.
    Lines(Vec<String>),
}
