// SPDX-License-Identifier: AGPL-3.0-or-later
//! Man pages and shell completions, made from the definitions that `--help` is made of.
//!
//! `cargo run --example manual -- DIRECTORY` writes them; nothing of it is kept, so nothing can be out of date.

#![forbid(unsafe_code)]

pub mod man;

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

/// Where each shell's completions are within the directory.
pub const SHELLS: [(Shell, &str); 3] = [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")];

/// The command line of each program.
pub fn commands() -> Vec<Command> {
    let components = [frontend::COMPONENT, proxy::COMPONENT, handler::COMPONENT, outbound::COMPONENT];
    let mut commands = vec![
        runner::arguments::Arguments::command(),
        runner::top::arguments::Arguments::command(),
        publish::arguments::Arguments::command(),
    ];
    commands.extend(components.iter().map(process::Component::command));
    commands
}

/// Writes `man/NAME.1`, and a file for each program and shell, into `directory`.
pub fn write(directory: &Path) -> io::Result<()> {
    let pages = directory.join("man");
    fs::create_dir_all(&pages)?;
    for command in commands() {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        man::write(command.clone(), &pages)?;
        let name = command.get_name().to_string();
        for (shell, place) in SHELLS {
            let place = directory.join(place);
            fs::create_dir_all(&place)?;
            clap_complete::generate_to(shell, &mut command, &name, &place)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown, and what is hidden: long options of a command.
    fn options(command: &Command, hidden: bool) -> Vec<String> {
        let arguments = command.get_arguments().filter(|argument| argument.is_hide_set() == hidden);
        arguments.filter_map(|argument| argument.get_long()).map(str::to_string).collect()
    }

    #[test]
    fn every_program_has_a_page_and_completions_with_all_options_that_it_shows() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path()).unwrap();
        for command in commands() {
            let name = command.get_name();
            let page = fs::read_to_string(directory.path().join(format!("man/{name}.1"))).unwrap();
            let bash = fs::read_to_string(directory.path().join(format!("bash/{name}.bash"))).unwrap();
            let zsh = fs::read_to_string(directory.path().join(format!("zsh/_{name}"))).unwrap();
            let fish = fs::read_to_string(directory.path().join(format!("fish/{name}.fish"))).unwrap();
            let shown = options(&command, false);
            assert!(!shown.is_empty());
            for option in shown {
                assert!(
                    page.contains(&format!("--{option}").replace('-', "\\-")),
                    "{name}: --{option} is not in the page"
                );
                assert!(bash.contains(&format!("--{option}")), "{name}: --{option} is not completed by bash");
                assert!(zsh.contains(&format!("--{option}")), "{name}: --{option} is not completed by zsh");
                assert!(fish.contains(&format!("-l {option}")), "{name}: --{option} is not completed by fish");
            }
            for option in options(&command, true) {
                assert!(
                    !page.contains(&format!("--{option}").replace('-', "\\-")),
                    "{name}: hidden --{option} is in the page"
                );
            }
        }
    }

    #[test]
    fn the_programs_are_those_of_the_suite() {
        let names: Vec<_> = commands().iter().map(|command| command.get_name().to_string()).collect();
        for (program, _) in runner::services::BUILT_IN {
            assert!(names.iter().any(|name| name == program), "{program} has no page");
        }
    }
}
