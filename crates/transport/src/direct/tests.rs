// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a socket has the system report.

use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::*;

/// A socket and what reports its readiness.
struct Side {
    socket: Socket,
    poll: Poll,
    events: Events,
}

impl Side {
    fn new(role: Role) -> Self {
        let (socket, poll) = (Socket::new(role, &Options::default()), Poll::new().unwrap());
        socket.attach(poll.registry().try_clone().unwrap(), 0).unwrap();
        Side { socket, poll, events: Events::with_capacity(64) }
    }

    /// Does all that can be done now; gives how many events there were.
    fn turn(&mut self) -> usize {
        let now = Instant::now();
        self.socket.flush(now);
        self.poll.poll(&mut self.events, Some(Duration::ZERO)).unwrap();
        for event in &self.events {
            let ended = event.is_read_closed();
            self.socket.on_ready(event.token().0, event.is_readable(), event.is_writable(), ended, now);
        }
        self.socket.flush(now);
        self.events.iter().count()
    }

    fn received(&mut self) -> usize {
        std::iter::from_fn(|| self.socket.next_arrival()).count()
    }
}

fn pair(dir: &tempfile::TempDir) -> [Side; 2] {
    let spec = format!("ipc://{}", dir.path().join("s").display());
    let (mut from, mut to) = (Side::new(Role::Push), Side::new(Role::Pull));
    to.socket.bind(&spec).unwrap();
    from.socket.connect(&spec).unwrap();
    while !from.socket.is_writable() || from.turn() + to.turn() > 0 {
        from.turn();
        to.turn();
    }
    [from, to]
}

#[test]
fn that_a_peer_has_read_is_no_event_for_who_has_nothing_more_to_say() {
    let dir = tempfile::tempdir().unwrap();
    let [mut from, mut to] = pair(&dir);
    from.socket.send(&[b"x"]).unwrap();
    assert_eq!(from.turn(), 0);
    assert!(to.turn() > 0);
    assert_eq!(to.received(), 1);
    assert_eq!(from.turn(), 0);
}

#[test]
fn what_a_peer_does_not_take_leaves_when_it_has_read_and_then_that_is_no_event_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let [mut from, mut to] = pair(&dir);
    let (mut sent, mut received) = (0, 0);
    while from.socket.load().messages == 0 {
        from.socket.send(&[&[b'x'; 30_000]]).unwrap();
        sent += 1;
        from.turn();
    }
    while received < sent {
        to.turn();
        received += to.received();
        from.turn();
    }
    assert_eq!((from.socket.load(), from.socket.queued()), (Load::default(), 0));
    while from.turn() + to.turn() > 0 {}
    from.socket.send(&[b"x"]).unwrap();
    from.turn();
    to.turn();
    assert_eq!((to.received(), from.turn()), (1, 0));
}
