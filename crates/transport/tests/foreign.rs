// SPDX-License-Identifier: AGPL-3.0-or-later
//! Our own I/O against sockets of libzmq, as the original's processes use them.

use std::time::{Duration, Instant};

use transport::{
    Change, Context, Dealer, Incoming, Options, Publisher, Pull, Push, Reactor, Reason, Replier, Router, Subscriber,
};

const LIMIT: Duration = Duration::from_secs(10);

struct Place {
    dir: tempfile::TempDir,
    ours: Context,
    theirs: zmq::Context,
    reactor: Reactor,
}

impl Place {
    fn new() -> Self {
        Place {
            dir: tempfile::tempdir().unwrap(),
            ours: Context::new(),
            theirs: zmq::Context::new(),
            reactor: Reactor::new().unwrap(),
        }
    }

    fn spec(&self) -> String {
        format!("ipc://{}/s", self.dir.path().display())
    }

    /// A socket of libzmq that gives up instead of waiting for ever.
    fn foreign(&self, kind: zmq::SocketType) -> zmq::Socket {
        let socket = self.theirs.socket(kind).unwrap();
        socket.set_linger(0).unwrap();
        socket
    }

    fn until<T>(&mut self, mut step: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + LIMIT;
        let mut ready = Vec::new();
        loop {
            self.reactor.wait(Some(Duration::from_millis(5)), &mut ready).unwrap();
            if let Some(value) = step() {
                return value;
            }
            assert!(Instant::now() < end, "nothing happened in {LIMIT:?}");
        }
    }

    /// The next message of a foreign socket.
    fn next(&mut self, socket: &zmq::Socket) -> Vec<Vec<u8>> {
        self.until(|| socket.recv_multipart(zmq::DONTWAIT).ok())
    }
}

fn numbered(i: usize) -> Vec<u8> {
    [format!("{i} ").as_bytes(), &vec![b'x'; i * 37 % 1000]].concat()
}

#[test]
fn their_push_reaches_our_pull_and_ours_theirs_in_order() {
    for we_bind in [true, false] {
        let mut place = Place::new();
        let (spec, other_spec) = (place.spec(), format!("{}2", place.spec()));
        let (their_push, their_pull) = (place.foreign(zmq::PUSH), place.foreign(zmq::PULL));
        let options = Options::default();
        let (pull, push) = if we_bind {
            let sockets = (
                Pull::bind(&place.ours, &spec, &options).unwrap(),
                Push::bind(&place.ours, &other_spec, &options).unwrap(),
            );
            their_push.connect(&spec).unwrap();
            their_pull.connect(&other_spec).unwrap();
            sockets
        } else {
            their_push.bind(&spec).unwrap();
            their_pull.bind(&other_spec).unwrap();
            (
                Pull::connect(&place.ours, &[&spec], &options).unwrap(),
                Push::connect(&place.ours, &[&other_spec], &options).unwrap(),
            )
        };
        place.reactor.add(0, &pull).unwrap();
        place.reactor.add(1, &push).unwrap();
        for i in 0..5000 {
            push.send(&numbered(i)).unwrap();
        }
        let (mut sent, mut ours, mut theirs) = (0, 0, 0);
        place.until(|| {
            // As fast as libzmq takes them.
            while sent < 5000 && their_push.send(numbered(sent), zmq::DONTWAIT).is_ok() {
                sent += 1;
            }
            while let Some(message) = pull.recv() {
                assert_eq!(&message[..], numbered(ours));
                ours += 1;
            }
            while let Ok(message) = their_pull.recv_bytes(zmq::DONTWAIT) {
                assert_eq!(message, numbered(theirs));
                theirs += 1;
            }
            (ours == 5000 && theirs == 5000).then_some(())
        });
    }
}

#[test]
fn their_router_and_ours_speak_by_name() {
    let mut place = Place::new();
    let router = Router::bind(&place.ours, &place.spec(), &Options::default().named("frontend")).unwrap();
    place.reactor.add(0, &router).unwrap();
    let theirs = place.foreign(zmq::ROUTER);
    theirs.set_identity(b"proxy").unwrap();
    theirs.set_router_mandatory(true).unwrap();
    theirs.connect(&place.spec()).unwrap();
    place.until(|| theirs.send_multipart(["frontend", "", "hello"], zmq::DONTWAIT).ok());
    let (peer, packet) = place.until(|| router.recv());
    assert_eq!((&peer[..], &packet[..]), (&b"proxy"[..], &b"hello"[..]));
    router.send(b"proxy", b"and you").unwrap();
    assert_eq!(place.next(&theirs), [&b"frontend"[..], b"", b"and you"]);
    // A probe is answered.
    theirs.send_multipart(["frontend", ""], 0).unwrap();
    place.until(|| {
        assert!(router.recv().is_none());
        theirs.recv_multipart(zmq::DONTWAIT).ok().map(|parts| assert_eq!(parts[2], b"probe-ack"))
    });
}

#[test]
fn their_requests_are_answered_and_ours_by_them() {
    let mut place = Place::new();
    let replier = Replier::bind(&place.ours, &place.spec(), &Options::default()).unwrap();
    place.reactor.add(0, &replier).unwrap();
    // One that has no name, as REQ and DEALER sockets have none.
    for kind in [zmq::REQ, zmq::DEALER] {
        let asker = place.foreign(kind);
        asker.connect(&place.spec()).unwrap();
        if kind == zmq::DEALER {
            asker.send_multipart(["", "question"], 0).unwrap();
        } else {
            asker.send("question", 0).unwrap();
        }
        let (envelope, question) = place.until(|| replier.recv());
        assert_eq!(&question[..], b"question");
        replier.reply(&envelope, b"answer").unwrap();
        assert_eq!(place.next(&asker).last().unwrap(), b"answer");
    }
    let dealer_spec = format!("{}-rpc", place.spec());
    let dealer = Dealer::bind(&place.ours, &dealer_spec, &Options::default()).unwrap();
    place.reactor.add(1, &dealer).unwrap();
    let rep = place.foreign(zmq::REP);
    rep.connect(&dealer_spec).unwrap();
    place.until(|| dealer.writable().then_some(()));
    dealer.send(b"ours").unwrap();
    assert_eq!(place.next(&rep), [b"ours"]);
    rep.send("theirs", 0).unwrap();
    assert_eq!(&place.until(|| dealer.recv())[..], b"theirs");
}

#[test]
fn their_subscriptions_are_honoured_and_their_end_is_seen() {
    let mut place = Place::new();
    let publisher = Publisher::bind(&place.ours, &place.spec(), &Options::default()).unwrap();
    place.reactor.add(0, &publisher).unwrap();
    let sub = place.foreign(zmq::SUB);
    sub.set_subscribe(b"one ").unwrap();
    sub.connect(&place.spec()).unwrap();
    assert_eq!(place.until(|| publisher.changes().next()), Change::Joined("one".into()));
    publisher.send(b"two", b"two x").unwrap();
    publisher.send(b"one", b"one y").unwrap();
    assert_eq!(place.next(&sub), [b"one y"]);
    sub.set_unsubscribe(b"one ").unwrap();
    assert_eq!(place.until(|| publisher.changes().next()), Change::Left("one".into(), Reason::Closed));
}

#[test]
fn we_subscribe_at_their_publisher_before_and_after_connecting() {
    let mut place = Place::new();
    let publisher = place.foreign(zmq::XPUB);
    publisher.bind(&place.spec()).unwrap();
    let subscriber = Subscriber::connect(&place.ours, &[place.spec()], &Options::default()).unwrap();
    place.reactor.add(0, &subscriber).unwrap();
    subscriber.subscribe(b"a").unwrap();
    assert_eq!(place.next(&publisher), [b"\x01a"]);
    subscriber.subscribe(b"b").unwrap();
    assert_eq!(place.next(&publisher), [b"\x01b"]);
    subscriber.unsubscribe(b"a").unwrap();
    assert_eq!(place.next(&publisher), [b"\0a"]);
    publisher.send_multipart(["b-topic", "content"], 0).unwrap();
    let (topic, content) = place.until(|| subscriber.recv_topic());
    assert_eq!((&topic[..], &content[..]), (&b"b-topic"[..], &b"content"[..]));
}

#[test]
fn we_come_back_to_a_peer_that_was_restarted_and_subscribe_again() {
    let mut place = Place::new();
    let spec = place.spec();
    let subscriber = Subscriber::connect(&place.ours, &[&spec], &Options::default()).unwrap();
    place.reactor.add(0, &subscriber).unwrap();
    subscriber.subscribe_instance("me").unwrap();
    for round in ["me first", "me second"] {
        // A context of its own, so that its end is the end of the connection.
        let context = zmq::Context::new();
        let publisher = context.socket(zmq::XPUB).unwrap();
        publisher.set_linger(0).unwrap();
        publisher.bind(&spec).unwrap();
        let seen = place.until(|| {
            // An owner reads what is reported; so the end of the first connection is noticed.
            assert!(subscriber.recv().is_none());
            publisher.recv_bytes(zmq::DONTWAIT).ok()
        });
        assert_eq!(seen, b"\x01me ");
        publisher.send(round, 0).unwrap();
        assert_eq!(&place.until(|| subscriber.recv())[..], round.as_bytes());
    }
}

#[test]
fn a_peer_of_the_wrong_type_or_of_another_protocol_harms_nobody() {
    use std::io::Write as _;
    let mut place = Place::new();
    let pull = Pull::bind(&place.ours, &place.spec(), &Options::default()).unwrap();
    place.reactor.add(0, &pull).unwrap();
    let wrong = place.foreign(zmq::PUB);
    wrong.connect(&place.spec()).unwrap();
    let path = place.dir.path().join("s");
    let mut http = std::os::unix::net::UnixStream::connect(&path).unwrap();
    http.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let _silent = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let right = place.foreign(zmq::PUSH);
    right.connect(&place.spec()).unwrap();
    right.send("through", 0).unwrap();
    assert_eq!(&place.until(|| pull.recv())[..], b"through");
    // The other one is told to go away.
    http.set_read_timeout(Some(LIMIT)).unwrap();
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut http, &mut rest);
    assert_eq!(rest.len(), 64 + 2 + 26, "a greeting and READY, then the end");
}

#[test]
fn their_subscriber_that_does_not_read_holds_up_no_other_and_is_left_in_time() {
    let mut place = Place::new();
    let options = Options { stuck_after: Duration::from_millis(300), ..Options::default() };
    let publisher = Publisher::bind(&place.ours, &place.spec(), &options).unwrap();
    place.reactor.add(0, &publisher).unwrap();
    let subscriber = |name: &[u8]| {
        let sub = place.foreign(zmq::SUB);
        // A reader that lags stops libzmq's thread from reading.
        sub.set_rcvhwm(10).unwrap();
        sub.set_subscribe(name).unwrap();
        sub.connect(&place.spec()).unwrap();
        sub
    };
    let (sick, well) = (subscriber(b"sick "), subscriber(b"well "));
    place.until(|| {
        let _ = publisher.changes().count();
        (publisher.is_present(b"sick") && publisher.is_present(b"well")).then_some(())
    });
    let (mut count, mut changes, mut waited) = (0, Vec::new(), 0);
    let body = [b'x'; 10_000];
    place.until(|| {
        if publisher.load_of(b"sick").bytes < 1_000_000 {
            publisher.send(b"sick", &[b"sick ", &body[..]].concat()).unwrap();
        }
        publisher.send(b"well", &[b"well ", &body[..]].concat()).unwrap();
        while well.recv_bytes(zmq::DONTWAIT).is_ok() {
            count += 1;
        }
        waited = waited.max(publisher.load_of(b"sick").messages);
        changes.extend(publisher.changes());
        (!changes.is_empty()).then_some(())
    });
    assert_eq!(changes, [Change::Left("sick".into(), Reason::Stuck)]);
    assert!(count > 20 && waited > 0, "{count} came, {waited} waited");
    // When it reads on, it connects and subscribes again.
    let change = place.until(|| {
        while sick.recv_bytes(zmq::DONTWAIT).is_ok() {}
        publisher.changes().next()
    });
    assert_eq!(change, Change::Joined("sick".into()));
}

#[test]
fn all_that_their_router_sent_comes_before_its_end() {
    let mut place = Place::new();
    let router = Router::bind(&place.ours, &place.spec(), &Options::default().named("frontend")).unwrap();
    place.reactor.add(0, &router).unwrap();
    let context = zmq::Context::new();
    let theirs = context.socket(zmq::ROUTER).unwrap();
    theirs.set_identity(b"proxy").unwrap();
    theirs.set_router_mandatory(true).unwrap();
    theirs.set_sndhwm(5000).unwrap();
    theirs.set_linger(10_000).unwrap();
    theirs.connect(&place.spec()).unwrap();
    let mut sent = 0;
    place.until(|| {
        while sent < 2000 && theirs.send_multipart([&b"frontend"[..], b"", &numbered(sent)], zmq::DONTWAIT).is_ok() {
            sent += 1;
        }
        (sent == 2000).then_some(())
    });
    // It goes before anything of it has been read.
    let closing = std::thread::spawn(move || drop((theirs, context)));
    let (mut received, mut changes) = (0, Vec::new());
    place.until(|| {
        while let Some(incoming) = router.incoming() {
            match incoming {
                Incoming::Packet(peer, packet) => {
                    assert_eq!((&peer[..], &packet[..]), (&b"proxy"[..], &numbered(received)[..]));
                    received += 1;
                }
                Incoming::Change(change) => changes.push((received, change)),
            }
        }
        (changes.len() == 2).then_some(())
    });
    let expected = [(0, Change::Joined("proxy".into())), (2000, Change::Left("proxy".into(), Reason::Closed))];
    assert_eq!(changes, expected);
    closing.join().unwrap();
}

#[test]
fn a_ping_with_too_much_to_send_back_ends_the_connection() {
    use std::io::{Read as _, Write as _};
    let mut place = Place::new();
    let pull = Pull::bind(&place.ours, &place.spec(), &Options::default()).unwrap();
    place.reactor.add(0, &pull).unwrap();
    let mut peer = std::os::unix::net::UnixStream::connect(place.dir.path().join("s")).unwrap();
    peer.set_nonblocking(true).unwrap();
    let mut greeting = [0; 64];
    (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
    greeting[12..16].copy_from_slice(b"NULL");
    peer.write_all(&greeting).unwrap();
    peer.write_all(b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PUSH").unwrap();
    let mut heard = Vec::new();
    let mut buffer = [0; 1000];
    peer.write_all(b"\x04\x17\x04PING\0\0sixteen bytes...").unwrap();
    place.until(|| {
        assert!(pull.recv().is_none());
        let n = peer.read(&mut buffer).unwrap_or(0);
        heard.extend_from_slice(&buffer[..n]);
        heard.ends_with(b"\x04\x15\x04PONGsixteen bytes...").then_some(())
    });
    peer.write_all(b"\x04\x18\x04PING\0\0seventeen bytes..").unwrap();
    place.until(|| {
        assert!(pull.recv().is_none());
        matches!(peer.read(&mut buffer), Ok(0)).then_some(())
    });
    assert_eq!(pull.counters().expelled, 1);
}
