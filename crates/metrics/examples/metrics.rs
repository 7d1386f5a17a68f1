// SPDX-License-Identifier: AGPL-3.0-or-later
//! Prints the reference of all metrics, `docs/metrics.md`.

fn main() {
    print!("{}", metrics::docs::markdown());
}
