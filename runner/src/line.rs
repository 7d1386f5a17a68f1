// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a child and the runner tell each other over: a line for what it is handed and what it tells, a pipe for orders.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use tokio::net::UnixStream;

/// Both ends of the line to a child: ours, and what becomes its stdin.
pub fn line() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}

/// Both ends of the pipe for orders: the one that a child started now keeps open, and ours, which does not block.
pub(crate) fn pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    fcntl(reader.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
    fcntl(writer.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((reader, writer))
}
