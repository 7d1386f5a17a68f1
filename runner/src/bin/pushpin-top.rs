// SPDX-License-Identifier: AGPL-3.0-or-later
//! `pushpin-top`: a running suite in the terminal, live. See [`runner::top`].

fn main() -> std::process::ExitCode {
    runner::top::main()
}
