// SPDX-License-Identifier: AGPL-3.0-or-later
//! The dispatcher with peers that are made of bytes in memory, and a clock that is turned by hand.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::error::{SendError, Taken};
use crate::zmtp::{frame, greeting};

const SECOND: Duration = Duration::from_secs(1);

/// A connection whose other end is the test.
#[derive(Clone, Default)]
struct Wire(Rc<RefCell<Ends>>);

#[derive(Default)]
struct Ends {
    to_us: VecDeque<u8>,
    closed: bool,
    from_us: Vec<u8>,
    room: usize,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ends = &mut *self.0.borrow_mut();
        if ends.to_us.is_empty() && !ends.closed {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        io::Read::read(&mut ends.to_us, buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let ends = &mut *self.0.borrow_mut();
        if ends.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let n = bytes.len().min(ends.room);
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        ends.room -= n;
        ends.from_us.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire {
    fn say(&self, bytes: &[u8]) {
        self.0.borrow_mut().to_us.extend(bytes);
    }

    fn send(&self, parts: &[&[u8]]) {
        let mut bytes = Vec::new();
        frame::write_message(&mut bytes, parts);
        self.say(&bytes);
    }

    fn give_room(&self, bytes: usize) {
        self.0.borrow_mut().room += bytes;
    }

    /// The texts of the messages that have come whole, after the handshake; the last part of each.
    fn heard(&self) -> Vec<String> {
        let ends = self.0.borrow();
        let (mut at, mut texts) = (greeting::LEN, Vec::new());
        while let Some(header) = ends.from_us.get(at..).and_then(frame::Header::read) {
            let Some(body) = ends.from_us.get(at + header.used..at + header.used + header.len as usize) else { break };
            at += header.used + body.len();
            if !header.command && !header.more {
                texts.push(String::from_utf8_lossy(body).trim_end_matches('.').to_string());
            }
        }
        texts
    }
}

/// A dispatcher and its time.
struct Bed {
    dispatcher: Dispatcher<Wire>,
    role: Role,
    now: Instant,
}

impl Bed {
    fn new(role: Role, options: Options) -> Self {
        Bed { dispatcher: Dispatcher::new(role, &options), role, now: Instant::now() }
    }

    /// Connects a peer that has said who it is and takes `room` bytes after the handshake.
    fn join(&mut self, name: &str, room: usize) -> (usize, Wire) {
        let (slot, wire) = self.connect();
        let partner = match self.role {
            Role::Push => Role::Pull,
            Role::Xpub | Role::Pub => Role::Sub,
            _ => Role::Router,
        };
        let mut opening = greeting::GREETING.to_vec();
        greeting::write_ready(&mut opening, partner, name.as_bytes());
        wire.say(&opening);
        self.dispatcher.flush(self.now);
        self.dispatcher.on_ready(slot, true, false, false);
        wire.0.borrow_mut().room = room;
        (slot, wire)
    }

    /// Connects a peer that says nothing.
    fn connect(&mut self) -> (usize, Wire) {
        let wire = Wire::default();
        wire.give_room(1000);
        let slot = self.dispatcher.next_slot();
        self.dispatcher.admit(wire.clone(), None, self.now);
        (slot, wire)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.dispatcher.flush(self.now);
    }

    /// What the owner gets, in words.
    fn told(&mut self) -> Vec<String> {
        let (mut told, mut sender) = (Vec::new(), None);
        while let Some(arrival) = self.dispatcher.next_arrival() {
            match arrival {
                Arrival::Change(Change::Joined(name)) => told.push(format!("{} joined", text(&name))),
                Arrival::Change(Change::Left(name, reason)) => told.push(format!("{} left: {reason:?}", text(&name))),
                Arrival::Change(Change::Room(name)) => told.push(format!("{} has room", text(&name))),
                Arrival::Part(part) if part.more() => sender = sender.or(Some(text(&part))),
                Arrival::Part(part) => told.push(format!("{}: {}", sender.take().unwrap_or_default(), text(&part))),
            }
        }
        told
    }

    fn ended(&mut self) -> Vec<String> {
        self.dispatcher.ended().map(|ended| ended.broken.to_string()).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A message that is `len` bytes long when it is sent, between 3 and 256.
fn padded(text: &str, len: usize) -> Vec<u8> {
    format!("{text:.<width$}", width = len - 2).into_bytes()
}

#[test]
fn a_peer_that_takes_nothing_is_in_nobodys_way_and_is_left_after_a_while() {
    let mut bed = Bed::new(Role::Router, Options { peer_bytes: 10_000, ..Options::default().named("us") });
    let (_, sick) = bed.join("sick", 100);
    let (_, well) = bed.join("well", usize::MAX / 2);
    assert_eq!(bed.told(), ["sick joined", "well joined"]);
    let mut refused = 0;
    for i in 0..100 {
        let message = padded(&i.to_string(), 250);
        refused += usize::from(bed.dispatcher.send_to(b"sick", &[&message]) == Err(SendError::Full));
        assert_eq!(bed.dispatcher.send_to(b"well", &[&message]), Ok(Taken::More));
        bed.pass(SECOND / 100);
    }
    assert_eq!(well.heard().len(), 100);
    // One that filled the queue was taken.
    assert_eq!((refused, bed.dispatcher.load_of(b"sick")), (59, Load { messages: 41, bytes: 41 * 250 - 100 }));
    assert_eq!(bed.dispatcher.load(), bed.dispatcher.load_of(b"sick"));
    assert_eq!(bed.dispatcher.load_of(b"well"), Load::default());
    sick.send(&[b"", b"sent before"]);
    bed.pass(8 * SECOND);
    assert_eq!(bed.told(), [""; 0]);
    bed.pass(SECOND + SECOND / 100);
    assert_eq!(bed.told(), ["sick: sent before", "sick left: Stuck"]);
    assert!(bed.ended()[0].contains("41 messages of 10150 bytes"));
    assert_eq!((bed.dispatcher.load(), bed.dispatcher.counters().stuck), (Load::default(), 1));
    assert_eq!(bed.dispatcher.counters().refused, 59 + 41);
    assert_eq!(bed.dispatcher.next_due(bed.now), None);
}

#[test]
fn a_peer_that_takes_a_little_now_and_then_is_kept() {
    let mut bed = Bed::new(Role::Router, Options::default().named("us"));
    let (slot, slow) = bed.join("slow", 0);
    for i in 0..10 {
        bed.dispatcher.send_to(b"slow", &[&padded(&i.to_string(), 200)]).unwrap();
    }
    for _ in 0..19 {
        bed.pass(9 * SECOND);
        slow.give_room(100);
        bed.dispatcher.on_ready(slot, false, true, false);
    }
    bed.pass(9 * SECOND);
    assert_eq!((bed.ended(), slow.heard().len()), (vec![], 9));
}

#[test]
fn a_peer_is_not_left_because_we_were_stopped() {
    let mut bed = Bed::new(Role::Router, Options::default().named("us"));
    let (_, wire) = bed.join("peer", 10);
    bed.dispatcher.send_to(b"peer", &[&padded("text", 100)]).unwrap();
    bed.pass(SECOND);
    // The peer has taken what there was long ago, but that has not been reported.
    wire.give_room(1000);
    bed.pass(3600 * SECOND);
    assert_eq!((bed.ended(), wire.heard()), (vec![], vec!["text".to_string()]));
}

#[test]
fn the_sender_is_told_when_a_full_peer_has_room_again() {
    let mut bed = Bed::new(Role::Xpub, Options { peer_bytes: 1000, ..Options::default() });
    let (slot, wire) = bed.join("", 0);
    wire.send(&[b"\x01name "]);
    bed.dispatcher.on_ready(slot, true, false, false);
    assert_eq!(bed.told(), ["name  joined"]);
    let message = padded("name text", 100);
    let results: Vec<_> = (0..12).map(|_| bed.dispatcher.send_to(b"name ", &[&message])).collect();
    let (full, refused) = (Ok(Taken::Full), Err(SendError::Full));
    assert_eq!(results[8..], [Ok(Taken::More), full, refused, refused]);
    bed.pass(SECOND);
    wire.give_room(450);
    bed.dispatcher.on_ready(slot, false, true, false);
    assert_eq!(bed.told(), [""; 0], "more than half is used");
    wire.give_room(50);
    bed.dispatcher.on_ready(slot, false, true, false);
    assert_eq!(bed.told(), ["name  has room"]);
    assert_eq!(bed.dispatcher.send_to(b"name ", &[&message]), Ok(Taken::More));
}

#[test]
fn messages_for_anybody_wait_for_no_peer_that_is_held_up() {
    let mut bed = Bed::new(Role::Push, Options::default());
    let (_, sick) = bed.join("", 150);
    let (_, well) = bed.join("", usize::MAX / 2);
    for i in 0..20 {
        bed.dispatcher.send(&[&padded(&i.to_string(), 100)]).unwrap();
        bed.pass(Duration::ZERO);
    }
    assert_eq!(sick.heard(), ["0"]);
    assert_eq!(well.heard().len(), 18);
    assert_eq!(bed.dispatcher.load(), Load { messages: 1, bytes: 50 });
    // What the other one had not begun to take goes to the one that takes.
    bed.pass(10 * SECOND);
    assert_eq!((bed.ended().len(), bed.dispatcher.load()), (1, Load::default()));
}

#[test]
fn messages_for_anybody_wait_for_the_first_who_comes_in_order() {
    let mut bed = Bed::new(Role::Push, Options { high_water_mark: 3, backlog: 50, ..Options::default() });
    for i in 0..50 {
        let full = if i == 49 { Taken::Full } else { Taken::More };
        assert_eq!(bed.dispatcher.send(&[i.to_string().as_bytes()]), Ok(full));
    }
    assert_eq!(bed.dispatcher.send(&[b"too many"]), Err(SendError::Full));
    let (_, wire) = bed.join("", usize::MAX / 2);
    while bed.dispatcher.queued() > 0 {
        bed.pass(Duration::ZERO);
    }
    assert_eq!(wire.heard(), (0..50).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[test]
fn silent_connections_give_way_and_are_closed() {
    let mut bed = Bed::new(Role::Router, Options::default().named("us"));
    bed.join("known", 1000);
    for _ in 0..MAX_HANDSHAKES + 10 {
        bed.connect();
    }
    assert_eq!(bed.ended().len(), 10);
    let (_, late) = bed.join("late", 1000);
    assert_eq!(bed.told(), ["known joined", "late joined"]);
    assert_eq!(bed.ended().len(), 1);
    bed.pass(10 * SECOND);
    assert_eq!(bed.ended().len(), MAX_HANDSHAKES - 1);
    bed.dispatcher.send_to(b"late", &[b"there"]).unwrap();
    bed.pass(SECOND);
    assert_eq!(late.heard(), ["there"]);
    assert_eq!(bed.dispatcher.next_due(bed.now), None);
}

#[test]
fn pings_are_answered_as_long_as_the_answers_are_read() {
    let mut bed = Bed::new(Role::Pub, Options::default());
    let (slot, wire) = bed.join("", usize::MAX / 2);
    let mut ping = Vec::new();
    frame::write_command(&mut ping, "PING", b"\0\0sixteen bytes...");
    for _ in 0..10_000 {
        wire.say(&ping);
    }
    while !wire.0.borrow().to_us.is_empty() {
        bed.dispatcher.on_ready(slot, true, false, false);
        bed.pass(Duration::ZERO);
    }
    assert_eq!(bed.ended(), [""; 0]);
    wire.0.borrow_mut().room = 0;
    for _ in 0..1000 {
        wire.say(&ping);
    }
    bed.dispatcher.on_ready(slot, true, false, false);
    assert!(bed.ended()[0].contains("PING"));
}

#[test]
fn a_peer_that_only_talks_to_a_socket_that_only_sends_takes_no_more_than_its_turn() {
    let mut bed = Bed::new(Role::Push, Options::default());
    let (slot, wire) = bed.join("", 1000);
    wire.say(&[&[0, 200][..], &[b'x'; 200]].concat().repeat(20_000));
    bed.dispatcher.on_ready(slot, true, false, false);
    let left = wire.0.borrow().to_us.len();
    assert!(left > 2_000_000, "{left}");
    assert_eq!(bed.dispatcher.next_due(bed.now), Some(bed.now), "the rest is read in the next turns");
    while !wire.0.borrow().to_us.is_empty() {
        bed.pass(Duration::ZERO);
    }
    assert_eq!(bed.ended(), [""; 0]);
}

#[test]
fn messages_that_are_never_completed_are_bounded_and_who_has_begun_most_goes() {
    let mut bed = Bed::new(Role::Router, Options { max_message: 1000, ..Options::default().named("us") });
    let half = |bed: &mut Bed, slot: usize, wire: &Wire, len: usize| {
        wire.say(&[&[2, 0, 0, 0, 0, 0, 0, 3, 0xe8][..], &vec![b'x'; len]].concat());
        bed.dispatcher.on_ready(slot, true, false, false);
        bed.told()
    };
    let (slot, honest) = bed.join("honest", 1000);
    half(&mut bed, slot, &honest, 10);
    for i in 0..6 {
        let (slot, wire) = bed.join(&format!("hoarder {i}"), 1000);
        let told = half(&mut bed, slot, &wire, 990);
        assert_eq!(told.iter().any(|line| line.ends_with("left: Expelled")), i >= 3, "{told:?}");
    }
    honest.say(&[b'y'; 990]);
    bed.dispatcher.on_ready(slot, true, false, false);
    assert_eq!(bed.ended().len(), 3);
    honest.send(&[b"", b"on"]);
    bed.dispatcher.on_ready(slot, true, false, false);
    assert_eq!(bed.told().last().unwrap(), "honest: on");
}

#[derive(Clone, Debug)]
enum Step {
    Join(u8),
    Leave(u8),
    PeerSends(u8),
    PeerTakes(u8, u16),
    Send(u8),
    Pass(u16),
    Receive,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..4u8;
    prop_oneof![
        name.clone().prop_map(Step::Join),
        name.clone().prop_map(Step::Leave),
        name.clone().prop_map(Step::PeerSends),
        (name.clone(), 0..600u16).prop_map(|(name, room)| Step::PeerTakes(name, room)),
        name.prop_map(Step::Send),
        (0..4000u16).prop_map(Step::Pass),
        Just(Step::Receive),
    ]
}

/// What the model knows of a name: the connection that has it now, and what it has been sent and has sent.
#[derive(Default)]
struct Known {
    current: Option<(usize, Wire)>,
    /// What the owner must be told of the name, in order.
    expected: VecDeque<String>,
    /// What the current connection was sent.
    sent: Vec<String>,
}

proptest! {
    #[test]
    fn each_join_and_leave_is_told_once_in_order_with_the_packets(steps in proptest::collection::vec(step(), 1..200)) {
        let mut bed = Bed::new(Role::Router, Options { peer_bytes: 2000, backlog: 20, high_water_mark: 10, ..Options::default().named("us") });
        let mut known: [Known; 4] = Default::default();
        let mut count = 0;
        let check = |bed: &mut Bed, known: &mut [Known; 4]| {
            let told = bed.told();
            for line in told.iter().filter(|line| !line.ends_with("has room")) {
                let name = usize::from(line.as_bytes()[0] - b'a');
                let line = if line.contains(" left: ") { &line[..6] } else { line };
                prop_assert_eq!(Some(line.to_string()), known[name].expected.pop_front());
            }
            for known in known.iter() {
                prop_assert!(known.expected.is_empty(), "{:?}", known.expected);
                // What has come is a beginning of what was sent; nothing is lost, cut or doubled on the way.
                if let Some((_, wire)) = &known.current {
                    prop_assert!(known.sent.starts_with(&wire.heard()), "{:?} {:?}", known.sent, wire.heard());
                }
            }
            Ok(())
        };
        for step in steps {
            count += 1;
            match step {
                Step::Join(i) => {
                    let name = char::from(b'a' + i).to_string();
                    let known = &mut known[usize::from(i)];
                    if known.current.is_some() {
                        known.expected.push_back(format!("{name} left"));
                    }
                    known.expected.push_back(format!("{name} joined"));
                    let waiting = bed.dispatcher.load_of(name.as_bytes());
                    // What waited for an absent one is the first that the new one gets.
                    let sent = std::mem::take(&mut known.sent);
                    known.sent = if known.current.is_none() { sent[sent.len() - waiting.messages..].to_vec() } else { vec![] };
                    known.current = Some(bed.join(&name, 100));
                }
                Step::Leave(i) => {
                    let known = &mut known[usize::from(i)];
                    if let Some((slot, wire)) = known.current.take() {
                        wire.0.borrow_mut().closed = true;
                        bed.dispatcher.on_ready(slot, true, true, true);
                        known.expected.push_back(format!("{} left", char::from(b'a' + i)));
                    }
                }
                Step::PeerSends(i) => {
                    let known = &mut known[usize::from(i)];
                    if let Some((slot, wire)) = &known.current {
                        wire.send(&[b"", count.to_string().as_bytes()]);
                        bed.dispatcher.on_ready(*slot, true, false, false);
                        known.expected.push_back(format!("{}: {count}", char::from(b'a' + i)));
                    }
                }
                Step::PeerTakes(i, room) => {
                    if let Some((slot, wire)) = &known[usize::from(i)].current {
                        wire.give_room(usize::from(room));
                        bed.dispatcher.on_ready(*slot, false, true, false);
                    }
                }
                Step::Send(i) => {
                    let name = [b'a' + i];
                    if bed.dispatcher.send_to(&name, &[b"", &padded(&count.to_string(), 100)]).is_ok() {
                        known[usize::from(i)].sent.push(count.to_string());
                    }
                    prop_assert!(bed.dispatcher.load_of(&name).bytes < 2100);
                }
                Step::Pass(ms) => bed.pass(Duration::from_millis(ms.into())),
                Step::Receive => check(&mut bed, &mut known)?,
            }
            // Whom we have left has nothing more to say.
            for ended in bed.dispatcher.ended().filter(|ended| matches!(ended.broken, Broken::Stuck { .. })) {
                let known = &mut known[usize::from(ended.name[0] - b'a')];
                known.expected.push_back(format!("{} left", text(&ended.name)));
                known.current = None;
            }
        }
        bed.pass(Duration::ZERO);
        check(&mut bed, &mut known)?;
        for (i, known) in known.iter().enumerate() {
            // One that takes gets all.
            if let Some((slot, wire)) = &known.current {
                wire.0.borrow_mut().room = usize::MAX / 2;
                bed.dispatcher.on_ready(*slot, false, true, false);
                bed.pass(Duration::ZERO);
                prop_assert_eq!(wire.heard(), known.sent.clone(), "{}", i);
            }
        }
        bed.pass(Duration::from_secs(20));
        prop_assert_eq!(bed.dispatcher.load(), Load::default());
    }
}
