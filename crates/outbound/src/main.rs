// SPDX-License-Identifier: AGPL-3.0-or-later
//! The program; everything is in the library.

fn main() -> std::process::ExitCode {
    outbound::main()
}
