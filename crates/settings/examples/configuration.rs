// SPDX-License-Identifier: AGPL-3.0-or-later
//! Prints the reference of all settings, `docs/configuration.md`.

fn main() {
    print!("{}", settings::docs::markdown());
}
