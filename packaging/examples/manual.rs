// SPDX-License-Identifier: AGPL-3.0-or-later
//! Writes man pages and shell completions into a directory: `cargo run --example manual -- DIRECTORY`

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("Error: name the directory to write to");
        return ExitCode::from(2);
    };
    match packaging::write(directory.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}
