// SPDX-License-Identifier: AGPL-3.0-or-later
//! Messages and open files from one process of the suite to another, through a Unix socket.
//!
//! A message goes in pieces, which the kernel keeps apart (`SOCK_SEQPACKET`); its files come with the first. All files that are
//! under way count against the limit of open files, but no more are than the socket's buffer has messages for.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::cmsg_space;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr,
    accept4, bind, connect, getsockopt, listen, recvmsg, sendmsg, setsockopt, shutdown, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::time::TimeVal;
use nix::unistd::Uid;

/// Files that one message may have; the kernel has a limit of its own.
pub const MAX_FILES: usize = 253;
/// Bytes of a piece, its first byte not counted: it says whether another follows.
const PIECE: usize = 64 * 1024;
const LAST: u8 = 0;
const MORE: u8 = 1;
/// Bytes of a message.
const MAX_MESSAGE: usize = 256 << 20;

/// A message and the files that came with it.
pub type Received = (Vec<u8>, Vec<OwnedFd>);

/// One end of a connection.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
    /// Pieces that have not been sent.
    out: VecDeque<Vec<u8>>,
    /// What has come of a message that is not complete.
    begun: Vec<u8>,
}

/// Where a successor connects to.
#[derive(Debug)]
pub struct Door {
    fd: OwnedFd,
    path: PathBuf,
    /// The file, if it is ours to remove.
    inode: Option<u64>,
}

impl Door {
    /// Listens at a path. A file that is there is replaced.
    ///
    /// # Errors
    /// The system refuses.
    pub fn open(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let fd = new_socket(SockFlag::SOCK_NONBLOCK)?;
        // Before there is a file, so that it never has more permissions.
        fchmod(&fd, Mode::from_bits_truncate(0o600))?;
        bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listen(&fd, Backlog::new(1)?)?;
        Ok(Door { fd, path: path.to_owned(), inode: inode(path) })
    }

    /// The door of another process, whose file is not ours before [`Door::claim`].
    pub fn taken_over(fd: OwnedFd, path: &Path) -> Self {
        Door { fd, path: path.to_owned(), inode: None }
    }

    /// The file is ours from now on.
    pub fn claim(&mut self) {
        self.inode = inode(&self.path);
    }

    /// Whether the file is gone, or another process has put its own there.
    pub fn is_displaced(&self) -> bool {
        self.inode.is_some() && inode(&self.path) != self.inode
    }

    /// The file is another process's from now on.
    pub fn let_go(mut self) {
        self.inode = None;
    }

    /// Who has come, if somebody has: only processes of our own user are let in.
    ///
    /// # Errors
    /// The system refuses.
    pub fn accept(&self) -> io::Result<Option<Channel>> {
        let fd = match accept4(self.fd.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Ok(fd) => own(fd),
            Err(nix::Error::EAGAIN | nix::Error::EINTR | nix::Error::ECONNABORTED) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let caller = Uid::from_raw(getsockopt(&fd, sockopt::PeerCredentials)?.uid());
        Ok((caller == Uid::effective() || caller.is_root()).then(|| Channel::new(fd)))
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if self.inode.is_some() && inode(&self.path) == self.inode {
            // It may be gone together with its directory.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Channel {
    fn new(fd: OwnedFd) -> Self {
        Channel { fd, out: VecDeque::new(), begun: Vec::new() }
    }

    /// To whoever listens there.
    ///
    /// # Errors
    /// Nobody does.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let fd = new_socket(SockFlag::empty())?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Channel::new(fd))
    }

    /// The same, but does not wait longer than this until whoever listens there has room, nor later for it to send or take anything.
    ///
    /// # Errors
    /// Nobody listens, or has no room.
    pub fn connect_within(path: &Path, patience: Duration) -> io::Result<Self> {
        let channel = Channel::new(new_socket(SockFlag::empty())?);
        channel.wait_for(Some(patience))?;
        connect(channel.fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(channel)
    }

    /// Goes on where another process has stopped: with these pieces to be sent, and these bytes of a message.
    pub fn resume(fd: OwnedFd, out: Vec<Vec<u8>>, begun: Vec<u8>) -> Self {
        Channel { fd, out: out.into(), begun }
    }

    /// The pieces that have not been sent, and what has come of a message.
    pub fn standing(&self) -> (Vec<Vec<u8>>, Vec<u8>) {
        (self.out.iter().cloned().collect(), self.begun.clone())
    }

    /// From now on sending and receiving wait for so long at most; with `None`, not at all.
    ///
    /// # Errors
    /// The system refuses.
    pub fn wait_for(&self, patience: Option<Duration>) -> io::Result<()> {
        let flags = OFlag::from_bits_truncate(fcntl(&self.fd, FcntlArg::F_GETFL)?);
        let flags = if patience.is_none() { flags | OFlag::O_NONBLOCK } else { flags - OFlag::O_NONBLOCK };
        fcntl(&self.fd, FcntlArg::F_SETFL(flags))?;
        if let Some(patience) = patience {
            // Zero would be without end.
            let patience = patience.max(Duration::from_millis(1));
            let time = TimeVal::new(patience.as_secs() as i64, i64::from(patience.subsec_micros()));
            setsockopt(&self.fd, sockopt::SendTimeout, &time)?;
            setsockopt(&self.fd, sockopt::ReceiveTimeout, &time)?;
        }
        Ok(())
    }

    /// Sends a message with files, or waits until it can be.
    ///
    /// # Errors
    /// The other end is gone or takes nothing.
    pub fn send(&self, message: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut files = files;
        for (piece, more) in pieces(message) {
            self.send_piece(&[&[if more { MORE } else { LAST }], piece], std::mem::take(&mut files))?;
        }
        Ok(())
    }

    fn send_piece(&self, parts: &[&[u8]], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let files: Vec<RawFd> = files.iter().map(|file| file.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&files)];
        let control = if files.is_empty() { &[][..] } else { &rights[..] };
        loop {
            match sendmsg::<UnixAddr>(self.fd.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(_) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Queues a message; gives how many bytes wait now.
    pub fn queue(&mut self, message: &[u8]) -> usize {
        for (piece, more) in pieces(message) {
            self.out.push_back([&[if more { MORE } else { LAST }], piece].concat());
        }
        self.out.iter().map(Vec::len).sum()
    }

    /// Sends what has been queued, as far as the other end takes it; whether that was all.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn flush(&mut self) -> io::Result<bool> {
        while let Some(piece) = self.out.front() {
            match self.send_piece(&[piece], &[]) {
                Ok(()) => drop(self.out.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The next message; none if nothing more comes.
    ///
    /// # Errors
    /// Nothing has come in time ([`WouldBlock`](io::ErrorKind::WouldBlock)), or what came is no message.
    pub fn receive(&mut self) -> io::Result<Option<Received>> {
        let mut files = Vec::new();
        let mut buffer = vec![0; PIECE + 1];
        loop {
            let (n, cut) = self.receive_piece(&mut buffer, &mut files)?;
            let Some((&kind, piece)) = buffer[..n].split_first() else { return Ok(None) };
            if cut || kind > MORE || self.begun.len() + piece.len() > MAX_MESSAGE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it can not be received whole"));
            }
            self.begun.extend_from_slice(piece);
            if kind == LAST {
                return Ok(Some((std::mem::take(&mut self.begun), files)));
            }
        }
    }

    fn receive_piece(&self, buffer: &mut [u8], files: &mut Vec<OwnedFd>) -> io::Result<(usize, bool)> {
        let mut control = cmsg_space!([RawFd; MAX_FILES]);
        loop {
            let mut parts = [IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<UnixAddr>(self.fd.as_raw_fd(), &mut parts, Some(&mut control), flags) {
                Ok(message) => {
                    for control in message.cmsgs()? {
                        if let ControlMessageOwned::ScmRights(received) = control {
                            files.extend(received.into_iter().map(own));
                        }
                    }
                    let cut = message.flags.intersects(MsgFlags::MSG_CTRUNC | MsgFlags::MSG_TRUNC);
                    return Ok((message.bytes, cut));
                }
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The other end can send nothing from now on; what it has sent can still be received.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn close_to(&self) -> io::Result<()> {
        Ok(shutdown(self.fd.as_raw_fd(), Shutdown::Read)?)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The pieces of a message, each with whether another follows.
fn pieces(message: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
    let count = message.len().div_ceil(PIECE).max(1);
    (0..count).map(move |i| (&message[i * PIECE..message.len().min((i + 1) * PIECE)], i + 1 < count))
}

fn new_socket(flags: SockFlag) -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, flags | SockFlag::SOCK_CLOEXEC, None)?)
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().map(|metadata| metadata.ino())
}

/// A file descriptor that the kernel has just made for us.
#[allow(unsafe_code)]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the only callers pass numbers that accept4 and recvmsg have returned in the same call, each once: they are open,
    // and nothing else has them.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair(dir: &tempfile::TempDir) -> (Channel, Channel) {
        let door = Door::open(&dir.path().join("door")).unwrap();
        let ours = Channel::connect(&dir.path().join("door")).unwrap();
        (ours, door.accept().unwrap().unwrap())
    }

    #[test]
    fn messages_of_any_length_come_whole_and_with_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, mut theirs) = pair(&dir);
        let (mut kept, passed) = UnixStream::pair().unwrap();
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE] {
            ours.send(&vec![7; length], &[passed.as_fd()]).unwrap();
            let (message, mut files) = theirs.receive().unwrap().unwrap();
            assert_eq!((message, files.len()), (vec![7; length], 1), "{length}");
            let mut stream = UnixStream::from(files.remove(0));
            kept.write_all(b"x").unwrap();
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
        }
        drop(ours);
        assert!(theirs.receive().unwrap().is_none());
    }

    #[test]
    fn what_is_not_taken_waits_and_goes_on_from_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ours, mut theirs) = pair(&dir);
        ours.wait_for(None).unwrap();
        theirs.wait_for(None).unwrap();
        for i in 0..100u8 {
            let _ = ours.queue(&vec![i; 3 * PIECE / 2]);
        }
        assert!(!ours.flush().unwrap());
        let (out, begun) = ours.standing();
        let mut again = Channel::resume(ours.as_fd().try_clone_to_owned().unwrap(), out, begun);
        drop(ours);
        for i in 0..100u8 {
            let message = loop {
                again.flush().unwrap();
                match theirs.receive() {
                    Ok(message) => break message.unwrap().0,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            };
            assert_eq!(message, vec![i; 3 * PIECE / 2]);
        }
    }

    #[test]
    fn whoever_says_nothing_is_not_waited_for_longer_than_agreed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ours, theirs) = pair(&dir);
        ours.wait_for(Some(Duration::from_millis(20))).unwrap();
        assert_eq!(ours.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        theirs.send(b"late", &[]).unwrap();
        ours.close_to().unwrap();
        assert!(theirs.send(b"too late", &[]).is_err());
        assert_eq!(ours.receive().unwrap().unwrap().0, b"late");
        assert!(ours.receive().unwrap().is_none());
    }

    #[test]
    fn a_door_at_which_many_wait_is_not_waited_at_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("door");
        let _door = Door::open(&path).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match Channel::connect_within(&path, Duration::from_millis(20)) {
                Ok(channel) => waiting.push(channel),
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), waiting.is_empty()), (io::ErrorKind::WouldBlock, false));
    }

    #[test]
    fn a_door_removes_only_its_own_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("door");
        let first = Door::open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        let second = Door::open(&path).unwrap();
        drop(first);
        assert!(path.exists());
        second.let_go();
        assert!(path.exists());
        drop(Door::open(&path).unwrap());
        assert!(!path.exists());
    }
}
