// SPDX-License-Identifier: AGPL-3.0-or-later
//! `pushpin-runner`, and under other names every process that it starts. See the library.

fn main() -> std::process::ExitCode {
    runner::main()
}
