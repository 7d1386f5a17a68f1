// SPDX-License-Identifier: AGPL-3.0-or-later
//! A process that this runner has not started, and goes on with: like one of [`crate::child`], but for the way in which its end is seen.

use std::io::{self, PipeReader};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Instant, SystemTime};

use nix::sys::signal::Signal;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use crate::child::{self, Ended, Handle, News};
use crate::line;
use crate::orphans::{Orphan, Stranger};

/// Goes on with a process as service number `index`, called `name` in the log and started from `program`, which serves since then.
///
/// # Errors
/// It has ended, or there are no descriptors left.
pub fn adopt(
    index: usize,
    name: String,
    program: PathBuf,
    since: SystemTime,
    orphan: Orphan,
    news: mpsc::UnboundedSender<News>,
) -> io::Result<Handle> {
    let (ours, theirs) = line::line()?;
    let (read_orders, orders) = line::pipe()?;
    let ((stdout, their_stdout), (stderr, their_stderr)) = (io::pipe()?, io::pipe()?);
    orphan.take([theirs.as_fd(), read_orders.as_fd(), their_stdout.as_fd(), their_stderr.as_fd()])?;
    let (stdout, stderr) = (receiver(stdout)?, receiver(stderr)?);
    let pid = orphan.process.pid;
    let age = SystemTime::now().duration_since(since).unwrap_or_default();
    let started = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
    let process = Arc::new(orphan.process);
    let (end, ended) = oneshot::channel();
    let waits = process.clone();
    // A thread of its own, for those few that there are: tokio waits for such descriptors only if it is trusted blindly.
    thread::Builder::new().name("adopted".into()).spawn(move || {
        waits.wait();
        let _ = end.send(());
    })?;
    let (signals, received) = mpsc::unbounded_channel();
    tokio::spawn(child::listen(ours, index, pid, news.clone()));
    let watched = child::pass_on(name, Some(stdout), Some(stderr));
    tokio::spawn(async move {
        pass_on(&process, ended, received).await;
        let last_words = child::last_words(watched).await;
        let _ = news.send(News::Ended(Ended { service: index, pid, status: None, started, last_words }));
    });
    Ok(Handle::new(pid, program, signals, Some(orders)))
}

fn receiver(pipe: PipeReader) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(OwnedFd::from(pipe))
}

/// Passes on signals until it has ended.
async fn pass_on(process: &Stranger, mut ended: oneshot::Receiver<()>, mut signals: mpsc::UnboundedReceiver<Signal>) {
    loop {
        tokio::select! {
            _ = &mut ended => return,
            Some(signal) = signals.recv() => process.signal(signal),
        }
    }
}
