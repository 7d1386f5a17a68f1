// SPDX-License-Identifier: AGPL-3.0-or-later
//! One man page a program, and one for each of its subcommands.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

/// Writes the page of `command`, which has been built, and those of its subcommands.
pub fn write(command: Command, directory: &Path) -> io::Result<()> {
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        write(subcommand.clone(), directory)?;
    }
    let notes = command.get_after_help().map(ToString::to_string);
    let subcommands = command.has_subcommands();
    // Of a subcommand it is as git-log of `git log`.
    let name = command.get_display_name().unwrap_or(command.get_name()).to_string();
    let man = Man::new(command);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if subcommands {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(notes) = notes {
        page.write_all(b".SH NOTES\n")?;
        page.write_all(roff(&notes).as_bytes())?;
    }
    fs::write(directory.join(format!("{name}.1")), page)
}

/// Text as `--help` shows it. Paragraphs may be filled; lines that begin with a space are examples, and stay as they are.
fn roff(text: &str) -> String {
    let mut page = String::new();
    let mut example = false;
    for line in text.lines() {
        if line.starts_with(' ') != example {
            example = !example;
            page.push_str(if example { ".nf\n" } else { ".fi\n" });
        }
        if line.is_empty() {
            page.push_str(".PP\n");
            continue;
        }
        // A point or an apostrophe that begins a line would be a request to the formatter.
        page.push_str("\\&");
        page.push_str(&line.replace('\\', "\\\\").replace('-', "\\-").replace('\'', "\\(aq"));
        page.push('\n');
    }
    page.push_str(if example { ".fi\n" } else { "" });
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_keep_their_lines_and_text_is_filled() {
        let text = "One\ntwo:\n  a --b 'c'\n\n.Three";
        let page = "\\&One\n\\&two:\n.nf\n\\&  a \\-\\-b \\(aqc\\(aq\n.fi\n.PP\n\\&.Three\n";
        assert_eq!(roff(text), page);
    }

    #[test]
    fn subcommands_have_pages_and_hidden_ones_none() {
        let directory = tempfile::tempdir().unwrap();
        let command = Command::new("a").subcommand(Command::new("b")).subcommand(Command::new("c").hide(true));
        let mut command = command.disable_help_subcommand(true);
        command.build();
        write(command, directory.path()).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a-b.1", "a.1"]);
    }
}
