// SPDX-License-Identifier: AGPL-3.0-or-later
//! Programs on disk that are to replace those that run: whether they can, asked before anything is ended.
//!
//! Each is asked for its version, and whether it takes the configuration that it would be handed. It touches neither sockets nor logs
//! for that, so it can be asked while its predecessor serves.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use process::{RUNNER, inherit};
use settings::Part;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use crate::line;

/// How long a program may take for an answer.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How many lines of what it says are told.
const WORDS: usize = 10;

/// A program, and what it would be started with.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What it is to be.
    pub part: Part,
    /// Its file.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// One that can replace its predecessor, as far as can be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Its version.
    pub version: String,
    /// Whether it has looked at the configuration. Older ones can not be asked to.
    pub has_checked: bool,
}

/// Why one can not.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It is not there, or no program for this machine.
    #[error("{} can not be run: {reason}", program.display())]
    Run {
        /// Its file.
        program: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// It is a program, but not this one.
    #[error("{} is not {}: asked for its version, it says `{said}`", program.display(), part.program())]
    Other {
        /// Its file.
        program: PathBuf,
        /// What it should be.
        part: Part,
        /// Its answer.
        said: String,
    },
    /// It has found a mistake.
    #[error("{} {version} does not take the configuration: {said}", program.display())]
    Refuses {
        /// Its file.
        program: PathBuf,
        /// Its version.
        version: String,
        /// The reason.
        said: String,
    },
    /// Nobody knows: its examination has ended without an outcome.
    #[error("{} has not been examined to the end: {reason}", program.display())]
    Unexamined {
        /// Its file.
        program: PathBuf,
        /// Why.
        reason: JoinError,
    },
    /// It hangs.
    #[error("{} does not answer to {question} within {} ms", program.display(), patience.as_millis())]
    Silent {
        /// Its file.
        program: PathBuf,
        /// What it was asked.
        question: &'static str,
        /// For how long.
        patience: Duration,
    },
}

/// The outcome of the examination of a program in a task of its own. One that has panicked is no reason to wait for ever.
pub async fn verdict(program: PathBuf, task: JoinHandle<Result<Fit, Unfit>>) -> Result<Fit, Unfit> {
    task.await.unwrap_or_else(|reason| Err(Unfit::Unexamined { program, reason }))
}

impl Candidate {
    /// Asks it, and waits so long for each answer.
    ///
    /// # Errors
    /// It can not replace the process that runs.
    pub async fn examine(&self, configuration: Arc<[u8]>, patience: Duration) -> Result<Fit, Unfit> {
        let version = self.version(patience).await?;
        let (ours, theirs) = line::line().map_err(|reason| self.can_not_run(reason))?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(theirs).env(RUNNER, std::process::id().to_string());
        // What it does not read is no mistake of ours.
        tokio::spawn(async move {
            let mut line = ours;
            if line.write_all(&configuration).await.is_ok() {
                let _ = line.shutdown().await;
            }
        });
        let answer = self.ask(command, CHECK, patience).await?;
        let said = words(&answer.stderr);
        match answer.status.code() {
            Some(0) => Ok(Fit { version, has_checked: true }),
            Some(2) if said.contains(CHECK) => Ok(Fit { version, has_checked: false }),
            _ => {
                let said = if said.is_empty() { answer.status.to_string() } else { said };
                Err(Unfit::Refuses { program: self.program.clone(), version, said })
            }
        }
    }

    async fn version(&self, patience: Duration) -> Result<String, Unfit> {
        let mut command = Command::new(&self.program);
        command.stdin(Stdio::null());
        let answer = self.ask(command, "--version", patience).await?;
        let said = words(&answer.stdout);
        let version = said.strip_prefix(self.part.program()).and_then(|rest| rest.strip_prefix(' '));
        match version {
            Some(version) if answer.status.success() => Ok(version.lines().next().unwrap_or_default().to_string()),
            _ => {
                let said = [said, words(&answer.stderr)].into_iter().find(|words| !words.is_empty());
                let said = said.unwrap_or_else(|| answer.status.to_string());
                Err(Unfit::Other { program: self.program.clone(), part: self.part, said })
            }
        }
    }

    async fn ask(&self, mut command: Command, question: &'static str, patience: Duration) -> Result<Output, Unfit> {
        command.arg(question).env_remove(inherit::LISTEN_FDS);
        // One that takes too long ends with the attempt.
        let output = command.kill_on_drop(true).process_group(0).output();
        match timeout(patience, output).await {
            Ok(output) => output.map_err(|reason| self.can_not_run(reason)),
            Err(_) => Err(Unfit::Silent { program: self.program.clone(), question, patience }),
        }
    }

    fn can_not_run(&self, reason: io::Error) -> Unfit {
        Unfit::Run { program: self.program.clone(), reason }
    }
}

const CHECK: &str = "--check";

/// The beginning of what a program says.
fn words(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    text.trim().lines().take(WORDS).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// What comes of a shell script in the place of the proxy.
    async fn examine(script: &str) -> Result<Fit, String> {
        examine_within(script, PATIENCE).await
    }

    async fn examine_within(script: &str, patience: Duration) -> Result<Fit, String> {
        let directory = tempfile::tempdir().unwrap();
        let text = directory.path().join("text");
        let program = directory.path().join("program");
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
        // By another process, so that no test in this one holds it open for writing when it is to be started.
        assert!(std::process::Command::new("/bin/cp").arg(&text).arg(&program).status().unwrap().success());
        let candidate = Candidate { part: Part::Proxy, program, arguments: vec!["--loglevel=2".into()] };
        candidate.examine(b"0:}".as_slice().into(), patience).await.map_err(|unfit| unfit.to_string())
    }

    const VERSION: &str = "[ $1 = --version ] && echo pushpin-proxy 9.8 && exit";

    #[tokio::test]
    async fn one_that_answers_both_is_fit() {
        let script = format!("{VERSION}\n[ \"$1 $2\" = '--loglevel=2 --check' ] && [ \"$(cat)\" = '0:}}' ]");
        assert_eq!(examine(&script).await, Ok(Fit { version: "9.8".into(), has_checked: true }));
    }

    #[tokio::test]
    async fn one_that_does_not_know_the_second_question_may_be_fit() {
        let script = format!("{VERSION}\necho \"error: unexpected argument '--check' found\" >&2; exit 2");
        assert_eq!(examine(&script).await, Ok(Fit { version: "9.8".into(), has_checked: false }));
    }

    #[tokio::test]
    async fn others_are_unfit_and_say_why() {
        let refuses = format!("{VERSION}\necho 'pushpin-proxy: pushpin.conf:3: debug: `x`' >&2; exit 1");
        for (script, said) in [
            (&*refuses, "program 9.8 does not take the configuration: pushpin-proxy: pushpin.conf:3: debug: `x`"),
            ("echo pushpin-handler 9.8", "is not pushpin-proxy: asked for its version, it says `pushpin-handler 9.8`"),
            ("echo pushpin-proxyling 9", "it says `pushpin-proxyling 9`"),
            ("echo pushpin-proxy 9; exit 1", "is not pushpin-proxy"),
            ("exit 127", "exit status: 127"),
            ("echo cannot open shared object >&2; exit 127", "cannot open shared object"),
        ] {
            let error = examine(script).await.unwrap_err();
            assert!(error.contains(said), "{script}: {error}");
        }
        let nowhere = Candidate { part: Part::Proxy, program: "/nowhere".into(), arguments: Vec::new() };
        let error = nowhere.examine(b"".as_slice().into(), PATIENCE).await.unwrap_err().to_string();
        assert!(error.starts_with("/nowhere can not be run: No such file"), "{error}");
    }

    #[tokio::test]
    async fn an_examination_that_panics_is_a_verdict_too() {
        let verdict = verdict("/p".into(), tokio::spawn(async { panic!("out of luck") })).await;
        let error = verdict.unwrap_err().to_string();
        assert!(error.starts_with("/p has not been examined to the end") && error.contains("panic"), "{error}");
    }

    #[tokio::test]
    async fn one_that_hangs_is_not_waited_for() {
        let error = examine_within("exec sleep 1000", Duration::from_millis(50)).await.unwrap_err();
        assert!(error.contains("does not answer to --version within 50 ms"), "{error}");
    }
}
