// SPDX-License-Identifier: AGPL-3.0-or-later
//! A program in a terminal of its own, with what is to be seen there.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::until;

/// A terminal of 80 columns and 24 lines with a program in it, made by `script` of util-linux.
#[derive(Debug)]
pub struct Terminal {
    script: Child,
    keys: Option<ChildStdin>,
    output: Arc<Mutex<Vec<u8>>>,
    directory: TempDir,
}

impl Terminal {
    /// Starts a shell command there.
    pub fn start(command: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let line =
            format!("tty >tty; stty rows 24 cols 80; stty -g >before; {command}; code=$?; stty -g >after; exit $code");
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"]);
        script.env("SHELL", "/bin/sh").env("TERM", "xterm-256color").env_remove("NO_COLOR").current_dir(&directory);
        let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script is installed");
        let output = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, shared) = (script.stdout.take().unwrap(), output.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                shared.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self { keys: script.stdin.take(), script, output, directory }
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keys.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Gives it another size.
    pub fn resize(&self, columns: u16, lines: u16) {
        let device = fs::read_to_string(self.path("tty")).unwrap();
        let size = ["cols".into(), columns.to_string(), "rows".into(), lines.to_string()];
        assert!(Command::new("stty").args(["-F", device.trim()]).args(size).status().unwrap().success());
    }

    /// All that was written to it.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned()
    }

    /// What is to be seen.
    pub fn screen(&self) -> String {
        seen(&self.output())
    }

    /// Waits for the end of the program.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the program has ended", || {
            status = self.script.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// How the terminal was set before the program, and after it.
    pub fn settings(&self) -> (String, String) {
        let read = |name| fs::read_to_string(self.path(name)).unwrap();
        (read("before"), read("after"))
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.directory.path()).join(name)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The program gets HUP.
        let _ = self.script.kill();
        let _ = self.script.wait();
        if std::thread::panicking() {
            eprintln!("--- the terminal\n{}", self.screen());
        }
    }
}

/// The screen after this output: cursor movements and erasing are done, styles are left out.
fn seen(output: &str) -> String {
    let mut lines: Vec<Vec<char>> = Vec::new();
    let (mut line, mut column) = (0, 0);
    let mut rest = output.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' if rest.next_if_eq(&'[').is_some() => {
                let mut parameters = String::new();
                let last = loop {
                    match rest.next() {
                        Some(c @ '\x40'..='\x7e') => break c,
                        Some(c) => parameters.push(c),
                        None => break ' ',
                    }
                };
                match last {
                    'H' => {
                        let mut numbers = parameters.split(';').map(|number| number.parse().unwrap_or(1_usize) - 1);
                        line = numbers.next().unwrap_or(0);
                        column = numbers.next().unwrap_or(0);
                    }
                    'J' => lines.clear(),
                    _ => {}
                }
            }
            '\r' => column = 0,
            '\n' => line += 1,
            c if !c.is_control() => {
                lines.resize(lines.len().max(line + 1), Vec::new());
                let of_line = &mut lines[line];
                of_line.resize(of_line.len().max(column + 1), ' ');
                of_line[column] = c;
                column += 1;
            }
            _ => {}
        }
    }
    let lines = lines.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_over_is_not_seen() {
        assert_eq!(seen("a\r\nb\x1b[1;1Hc\x1b[31md\x1b[2;3H\u{e4}\x1b[?25l"), "cd\nb \u{e4}");
        assert_eq!(seen("old\x1b[2J\x1b[1;1Hnew"), "new");
    }
}
