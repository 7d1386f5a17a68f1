// SPDX-License-Identifier: AGPL-3.0-or-later
//! `pushpin-publish`. See the library.

fn main() -> std::process::ExitCode {
    publish::main()
}
