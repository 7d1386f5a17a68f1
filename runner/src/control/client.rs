// SPDX-License-Identifier: AGPL-3.0-or-later
//! Asks a running runner, at its socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Take, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use settings::{Settings, Source};

use crate::control::{Answer, Request};

/// Bytes of an answer, of which a suite with hundreds of frontends needs less.
const MAX_ANSWER: u64 = 4 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The configuration, which says where the socket is, can not be used.
    #[error("{0}; --socket names the runner's socket without reading the configuration")]
    Configuration(#[from] settings::Error),
    /// Nobody is there.
    #[error(
        "no pushpin-runner answers at {}: none runs with this configuration; \
         give --config and --id as it was started with, or its --socket", .0.display()
    )]
    NobodyThere(PathBuf),
    /// It is of another user.
    #[error("{} is open to the user of the suite and to root only: use sudo", .0.display())]
    NotOurs(PathBuf),
    /// The system does not let us.
    #[error("unable to reach pushpin-runner at {}: {}", .0.display(), .1)]
    Unreachable(PathBuf, io::Error),
    /// It takes too long.
    #[error("the runner at {} has not answered for {} s", .0.display(), .1.as_secs())]
    Silent(PathBuf, Duration),
    /// The connection broke.
    #[error("the runner at {} broke off: {}", .0.display(), .1)]
    BrokeOff(PathBuf, io::Error),
    /// The connection ended early.
    #[error("the runner at {} ended before it was done", .0.display())]
    Ended(PathBuf),
    /// The other side is of another version, or no runner.
    #[error("the runner at {} answers what is not understood: {}", .0.display(), .1)]
    NotUnderstood(PathBuf, serde_json::Error),
}

/// Where a runner listens: at the file that was named, else where its configuration says.
///
/// # Errors
/// The configuration is not good.
pub fn socket(named: Option<&Path>, source: &Source) -> Result<PathBuf, AskError> {
    let path = match named {
        Some(path) => path.into(),
        None => Settings::load(source)?.0.global.control_socket(),
    };
    Ok(std::path::absolute(&path).unwrap_or(path))
}

/// Asks the runner that listens at `path`, with so much patience for each line of the answer.
///
/// # Errors
/// It can not be asked.
pub fn ask(path: &Path, request: &Request, patience: Duration) -> Result<Answers, AskError> {
    let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NobodyThere(path.into()),
        io::ErrorKind::PermissionDenied => AskError::NotOurs(path.into()),
        _ => AskError::Unreachable(path.into(), error),
    })?;
    let answers =
        Answers { reader: BufReader::new(stream.take(MAX_ANSWER)), path: path.into(), patience, is_over: false };
    answers.send(request).map_err(|error| answers.explain(error))?;
    Ok(answers)
}

/// The lines of an answer, up to the last or an error.
#[derive(Debug)]
pub struct Answers {
    reader: BufReader<Take<UnixStream>>,
    path: PathBuf,
    patience: Duration,
    is_over: bool,
}

impl Answers {
    fn send(&self, request: &Request) -> io::Result<()> {
        let mut stream = self.reader.get_ref().get_ref();
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        let mut question = serde_json::to_vec(request)?;
        question.push(b'\n');
        stream.write_all(&question)
    }

    fn read(&mut self) -> Result<Answer, AskError> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Err(AskError::Ended(self.path.clone())),
            Ok(_) => serde_json::from_str(&line).map_err(|error| AskError::NotUnderstood(self.path.clone(), error)),
            Err(error) => Err(self.explain(error)),
        }
    }

    fn explain(&self, error: io::Error) -> AskError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => AskError::Silent(self.path.clone(), self.patience),
            _ => AskError::BrokeOff(self.path.clone(), error),
        }
    }
}

impl Iterator for Answers {
    type Item = Result<Answer, AskError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let answer = self.read();
        self.is_over = answer.as_ref().map_or(true, Answer::is_last);
        Some(answer)
    }
}
