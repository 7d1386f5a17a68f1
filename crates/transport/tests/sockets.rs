// SPDX-License-Identifier: AGPL-3.0-or-later
//! The sockets against each other through a reactor, as a worker would use them; once with our own I/O (`ipc:`) and once
//! with libzmq's (`inproc:`).

use std::time::{Duration, Instant};

use transport::error::{SendError, Taken};
use transport::{
    Answer, Change, Context, Dealer, Event, Incoming, Load, Options, Publisher, Pull, Push, Reactor, Reason, Replier,
    Router, Subscriber,
};

const LIMIT: Duration = Duration::from_secs(10);

/// Where the sockets of a test are.
struct Place {
    context: Context,
    spec: String,
    _dir: tempfile::TempDir,
}

/// Runs a test with each kind of I/O.
fn with_each(test: impl Fn(&Place)) {
    for own in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let spec = if own { format!("ipc://{}/s", dir.path().display()) } else { "inproc://s".to_string() };
        test(&Place { context: Context::new(), spec, _dir: dir });
    }
}

macro_rules! bind {
    ($kind:ident, $place:expr, $options:expr) => {
        $kind::bind(&$place.context, &$place.spec, $options).unwrap()
    };
}

macro_rules! connect {
    ($kind:ident, $place:expr, $options:expr) => {
        $kind::connect(&$place.context, &[&$place.spec], $options).unwrap()
    };
}

/// Turns the reactor until `step` returns a value.
fn until<T>(reactor: &mut Reactor, mut step: impl FnMut(&[Event]) -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    let mut ready = Vec::new();
    loop {
        reactor.wait(Some(Duration::from_millis(20)), &mut ready).unwrap();
        if let Some(value) = step(&ready) {
            return value;
        }
        assert!(Instant::now() < end, "nothing happened in {LIMIT:?}");
    }
}

#[test]
fn what_is_pushed_is_pulled_in_order_and_nothing_is_lost_beyond_the_high_water_mark() {
    with_each(|place| {
        let tight = Options { high_water_mark: 5, ..Options::default() };
        let pull = bind!(Pull, place, &tight);
        let push = connect!(Push, place, &tight);
        let mut reactor = Reactor::new().unwrap();
        reactor.add(1, &push).unwrap();
        reactor.add(2, &pull).unwrap();
        for i in 0..1000u32 {
            push.send(&i.to_be_bytes()).unwrap();
        }
        assert!(push.load().messages > 0, "the high-water mark did not hold anything back");
        let mut next = 0u32;
        until(&mut reactor, |ready| {
            if ready.contains(&Event::Socket(2)) {
                // Few a turn: the rest must be reported again.
                for _ in 0..7 {
                    let Some(message) = pull.recv() else { break };
                    assert_eq!(message[..], next.to_be_bytes());
                    next += 1;
                }
            }
            (next == 1000).then_some(())
        });
        assert_eq!((push.counters().sent, pull.counters().received), (1000, 1000));
    });
}

#[test]
fn messages_of_any_size_arrive_whole() {
    with_each(|place| {
        let pull = bind!(Pull, place, &Options::default());
        let push = connect!(Push, place, &Options::default());
        let mut reactor = Reactor::new().unwrap();
        reactor.add(1, &push).unwrap();
        reactor.add(2, &pull).unwrap();
        let sizes = [0, 1, 254, 255, 256, 65_535, 65_536, 3_000_000, 5];
        for (i, size) in sizes.into_iter().enumerate() {
            push.send(&vec![i as u8; size]).unwrap();
        }
        for (i, size) in sizes.into_iter().enumerate() {
            let message = until(&mut reactor, |_| pull.recv());
            assert_eq!(message.len(), size);
            assert!(message.iter().all(|&b| b == i as u8));
        }
    });
}

#[test]
fn a_full_backlog_refuses() {
    with_each(|place| {
        let push = bind!(Push, place, &Options { backlog: 2, linger: 0, ..Options::default() });
        assert!(push.send(b"1").is_ok() && push.send(b"2").is_ok());
        assert_eq!(push.send(b"3"), Err(SendError::Full));
        assert_eq!(push.counters().refused, 1);
    });
}

#[test]
fn a_packet_for_an_instance_that_subscribes_late_is_not_lost() {
    with_each(|place| {
        let publisher = bind!(Publisher, place, &Options::default());
        publisher.send(b"proxy_1", b"proxy_1 early").unwrap();
        let subscriber = connect!(Subscriber, place, &Options::default());
        subscriber.subscribe_instance("proxy_1").unwrap();
        let mut reactor = Reactor::new().unwrap();
        reactor.add(1, &publisher).unwrap();
        reactor.add(2, &subscriber).unwrap();
        let mut joined = Vec::new();
        let received = until(&mut reactor, |_| {
            joined.extend(publisher.changes());
            subscriber.recv()
        });
        assert_eq!(&received[..], b"proxy_1 early");
        assert_eq!(joined, [Change::Joined("proxy_1".into())]);
    });
}

#[test]
fn the_end_of_an_instance_is_seen() {
    with_each(|place| {
        let publisher = bind!(Publisher, place, &Options::default());
        let subscriber = connect!(Subscriber, place, &Options::default());
        subscriber.subscribe_instance("f").unwrap();
        let mut reactor = Reactor::new().unwrap();
        reactor.add(1, &publisher).unwrap();
        let mut others = Reactor::new().unwrap();
        others.add(1, &subscriber).unwrap();
        let mut ready = Vec::new();
        until(&mut reactor, |_| {
            others.wait(Some(Duration::ZERO), &mut ready).unwrap();
            publisher.changes().next()
        });
        assert!(publisher.is_present(b"f"));
        drop((subscriber, others));
        assert_eq!(until(&mut reactor, |_| publisher.changes().next()), Change::Left("f".into(), Reason::Closed));
        assert!(!publisher.is_present(b"f"));
    });
}

#[test]
fn packets_for_an_instance_that_never_comes_are_given_up() {
    with_each(|place| {
        let publisher = bind!(Publisher, place, &Options::default());
        let mut reactor = Reactor::new().unwrap();
        reactor.add(1, &publisher).unwrap();
        publisher.send(b"gone", b"gone x").unwrap();
        assert_eq!(publisher.load_of(b"gone"), Load { messages: 1, bytes: 6 });
        until(&mut reactor, |_| (publisher.load() == Load::default()).then_some(()));
        assert_eq!(publisher.counters().refused, 1);
    });
}

#[test]
fn a_router_reaches_a_peer_by_name_even_if_it_connects_a_little_later() {
    with_each(|place| {
        let bound = bind!(Router, place, &Options::default().named("frontend"));
        bound.send(b"proxy", b"first").unwrap();
        bound.send(b"proxy", b"second").unwrap();
        let other = connect!(Router, place, &Options::default().named("proxy"));
        let mut reactor = Reactor::new().unwrap();
        reactor.add(1, &bound).unwrap();
        reactor.add(2, &other).unwrap();
        for expected in [&b"first"[..], b"second"] {
            let (peer, packet) = until(&mut reactor, |_| {
                let _ = bound.recv();
                other.recv()
            });
            assert_eq!((&peer[..], &packet[..]), (&b"frontend"[..], expected));
        }
    });
}

#[test]
fn a_router_peer_that_comes_back_under_its_name_takes_the_place_of_the_old_one() {
    with_each(|place| {
        let bound = bind!(Router, place, &Options::default().named("frontend"));
        let mut reactor = Reactor::new().unwrap();
        reactor.add(1, &bound).unwrap();
        let old = connect!(Router, place, &Options::default().named("proxy"));
        let mut olds = Reactor::new().unwrap();
        olds.add(1, &old).unwrap();
        let mut ready = Vec::new();
        bound.send(b"proxy", b"to the old one").unwrap();
        until(&mut reactor, |_| {
            olds.wait(Some(Duration::ZERO), &mut ready).unwrap();
            let _ = bound.recv();
            old.recv()
        });
        // From here on the old one's reactor does not turn, as if its process hung.
        let new = connect!(Router, place, &Options::default().named("proxy"));
        let mut news = Reactor::new().unwrap();
        news.add(1, &new).unwrap();
        let (_, packet) = until(&mut reactor, |_| {
            news.wait(Some(Duration::ZERO), &mut ready).unwrap();
            let _ = (bound.recv(), bound.send(b"proxy", b"to the new one"));
            new.recv()
        });
        assert_eq!(&packet[..], b"to the new one");
    });
}

#[test]
fn a_packet_for_a_peer_that_does_not_come_is_given_up_and_counted() {
    with_each(|place| {
        let bound = bind!(Router, place, &Options::default().named("frontend"));
        bound.send(b"nobody", b"x").unwrap();
        assert_eq!(bound.load().messages, 1);
        let mut reactor = Reactor::new().unwrap();
        reactor.add(1, &bound).unwrap();
        until(&mut reactor, |_| (bound.load() == Load::default()).then_some(()));
        assert_eq!(bound.counters().refused, 1);
    });
}

#[test]
fn a_request_is_answered_to_whoever_asked() {
    with_each(|place| {
        let dealer = bind!(Dealer, place, &Options::default());
        assert!(!dealer.writable());
        let replier = connect!(Replier, place, &Options::default());
        let mut reactor = Reactor::new().unwrap();
        reactor.add(1, &dealer).unwrap();
        reactor.add(2, &replier).unwrap();
        until(&mut reactor, |_| dealer.writable().then_some(()));
        dealer.send(b"question").unwrap();
        let (envelope, question) = until(&mut reactor, |_| replier.recv());
        assert_eq!(&question[..], b"question");
        replier.reply(&envelope, b"answer").unwrap();
        assert_eq!(&until(&mut reactor, |_| dealer.recv())[..], b"answer");
    });
}

#[test]
fn an_asker_is_told_who_can_be_asked_and_who_left_after_its_last_answer() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place { context: Context::new(), spec: format!("ipc://{}/s", dir.path().display()), _dir: dir };
    let dealer = bind!(Dealer, place, &Options::default());
    let replier = connect!(Replier, place, &Options::default().named("handler"));
    let (mut reactor, mut others) = (Reactor::new().unwrap(), Reactor::new().unwrap());
    reactor.add(1, &dealer).unwrap();
    others.add(1, &replier).unwrap();
    let mut ready = Vec::new();
    let mut heard = Vec::new();
    let mut hear = |count: usize, others: Option<&mut Reactor>| {
        let mut others = others;
        until(&mut reactor, |_| {
            others.iter_mut().for_each(|other| other.wait(Some(Duration::ZERO), &mut ready).unwrap());
            heard.extend(std::iter::from_fn(|| dealer.incoming()).map(|answer| match answer {
                Answer::Reply(reply) => String::from_utf8_lossy(&reply).into_owned(),
                Answer::Change(change) => format!("{change:?}"),
            }));
            (heard.len() >= count).then(|| heard.clone())
        })
    };
    assert_eq!(hear(1, Some(&mut others)), ["Joined(b\"handler\")"]);
    dealer.send(b"question").unwrap();
    let (envelope, _) = until(&mut others, |_| {
        assert_eq!(hear(1, None).len(), 1);
        replier.recv()
    });
    replier.reply(&envelope, b"answer").unwrap();
    assert!(others.drain(LIMIT));
    drop((replier, others));
    assert_eq!(hear(3, None)[1..], ["answer", "Left(b\"handler\", Closed)"]);
    assert!(!dealer.writable());
}

#[test]
fn a_sender_knows_how_many_of_its_receivers_have_gone() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place { context: Context::new(), spec: format!("ipc://{}/s", dir.path().display()), _dir: dir };
    let push = bind!(Push, place, &Options::default());
    let mut reactor = Reactor::new().unwrap();
    reactor.add(1, &push).unwrap();
    for gone in 1..=2 {
        let pull = connect!(Pull, place, &Options::default());
        let mut others = Reactor::new().unwrap();
        others.add(1, &pull).unwrap();
        push.send(b"to whoever is there").unwrap();
        let mut ready = Vec::new();
        until(&mut reactor, |_| {
            others.wait(Some(Duration::ZERO), &mut ready).unwrap();
            pull.recv()
        });
        assert_eq!(push.counters().left, gone - 1);
        drop((pull, others));
        until(&mut reactor, |_| (push.counters().left == gone).then_some(()));
    }
}

#[test]
fn another_thread_can_end_the_wait() {
    let mut reactor = Reactor::new().unwrap();
    let waker = reactor.waker();
    let thread = std::thread::spawn(move || waker.wake());
    let mut ready = Vec::new();
    let end = Instant::now() + LIMIT;
    while !ready.contains(&Event::Wake) {
        assert!(Instant::now() < end);
        reactor.wait(Some(LIMIT), &mut ready).unwrap();
    }
    thread.join().unwrap();
}

#[test]
fn a_paused_socket_is_not_reported_and_nothing_of_it_is_lost() {
    with_each(|place| {
        let pull = bind!(Pull, place, &Options::default());
        let push = connect!(Push, place, &Options::default());
        let mut reactor = Reactor::new().unwrap();
        reactor.add(1, &pull).unwrap();
        reactor.add(2, &push).unwrap();
        reactor.pause(1, true);
        push.send(b"x").unwrap();
        let mut ready = Vec::new();
        for _ in 0..10 {
            reactor.wait(Some(Duration::from_millis(1)), &mut ready).unwrap();
            assert_eq!(ready, []);
        }
        reactor.pause(1, false);
        assert_eq!(
            &until(&mut reactor, |ready| ready.contains(&Event::Socket(1)).then(|| pull.recv()).flatten())[..],
            b"x"
        );
    });
}

#[test]
fn what_a_peer_had_not_begun_to_take_when_it_went_away_goes_to_another() {
    let dir = tempfile::tempdir().unwrap();
    let spec = format!("ipc://{}/s", dir.path().display());
    let context = Context::new();
    let push = Push::bind(&context, &spec, &Options::default()).unwrap();
    let mut reactor = Reactor::new().unwrap();
    reactor.add(1, &push).unwrap();
    let idle = Pull::connect(&context, &[&spec], &Options::default()).unwrap();
    let mut others = Reactor::new().unwrap();
    others.add(1, &idle).unwrap();
    let mut ready = Vec::new();
    // More than the kernel keeps for a peer that does not read.
    let numbered = |i: u32| [&i.to_be_bytes()[..], &[0; 10_000]].concat();
    for i in 0..100u32 {
        push.send(&numbered(i)).unwrap();
    }
    until(&mut reactor, |_| {
        others.wait(Some(Duration::ZERO), &mut ready).unwrap();
        (push.load().messages > 0 && push.load().messages < 100).then_some(())
    });
    let left = push.load().messages;
    drop((idle, others));
    let second = Pull::connect(&context, &[&spec], &Options::default()).unwrap();
    reactor.add(2, &second).unwrap();
    let mut last = None;
    let mut count = 0;
    until(&mut reactor, |_| {
        while let Some(message) = second.recv() {
            assert_eq!(message.len(), 10_004, "a message was cut");
            let number = u32::from_be_bytes(message[..4].try_into().unwrap());
            assert!(last.is_none_or(|last| number == last + 1), "{number} came after {last:?}");
            last = Some(number);
            count += 1;
        }
        (last == Some(99)).then_some(())
    });
    // All but the one that was written in part.
    assert!(count + 1 >= left, "{count} of {left} have come");
}

#[test]
fn what_a_peer_sent_before_it_went_away_arrives_even_if_writing_to_it_failed_first() {
    let dir = tempfile::tempdir().unwrap();
    let spec = format!("ipc://{}/s", dir.path().display());
    let context = Context::new();
    let bound = Router::bind(&context, &spec, &Options::default().named("frontend")).unwrap();
    let mut reactor = Reactor::new().unwrap();
    reactor.add(1, &bound).unwrap();
    let peer = Router::connect(&context, &[&spec], &Options::default().named("handler")).unwrap();
    let mut peers = Reactor::new().unwrap();
    peers.add(1, &peer).unwrap();
    let mut ready = Vec::new();
    peer.send(b"frontend", b"hello").unwrap();
    until(&mut reactor, |_| {
        peers.wait(Some(Duration::ZERO), &mut ready).unwrap();
        bound.recv()
    });
    peer.send(b"frontend", b"farewell").unwrap();
    assert!(peers.drain(LIMIT));
    drop((peer, peers));
    // The first thing that is tried is to write.
    bound.send(b"handler", b"too late").unwrap();
    assert!(reactor.drain(LIMIT));
    let (name, packet) = until(&mut reactor, |_| bound.recv());
    assert_eq!((&name[..], &packet[..]), (&b"handler"[..], &b"farewell"[..]));
}

#[test]
fn a_socket_file_that_a_dead_process_left_is_replaced_and_a_successors_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let spec = format!("ipc://{}", path.display());
    let (context, options) = (Context::new(), Options { file_mode: Some(0o600), ..Options::default() });
    let first = Pull::bind(&context, &spec, &options).unwrap();
    let second = Pull::bind(&context, &spec, &options).unwrap();
    drop(first);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    drop(second);
    assert!(!path.exists());
    let error = Pull::bind(&context, "ipc:///does/not/exist/s", &options).err().unwrap().to_string();
    assert!(error.contains("/does/not/exist/s") && error.contains("directory"), "{error}");
}

/// What a router tells, in words.
/// What has come until `count` messages have, in some order; `others` take part.
fn pulled(reactor: &mut Reactor, others: &mut [&mut Reactor], pull: &Pull, count: usize) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    until(reactor, |_| {
        for other in &mut *others {
            other.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
        }
        got.extend(std::iter::from_fn(|| pull.recv()).map(|message| message.to_vec()));
        (got.len() >= count).then_some(())
    });
    got.sort();
    got
}

#[test]
fn peers_of_one_that_gives_way_are_connected_to_its_successor_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let (context, spec) = (Context::new(), format!("ipc://{}/s", dir.path().display()));
    let one = |push: &Push| {
        let mut reactor = Reactor::new().unwrap();
        reactor.add(0, push).unwrap();
        reactor
    };
    let pull = Pull::connect(&context, &[&spec], &Options::default()).unwrap();
    let mut reactor = Reactor::new().unwrap();
    reactor.add(0, &pull).unwrap();
    let old = Push::bind(&context, &spec, &Options::default()).unwrap();
    let mut old_reactor = one(&old);
    old.send(b"1").unwrap();
    assert_eq!(pulled(&mut reactor, &mut [&mut old_reactor], &pull, 1), [b"1"]);
    let new = Push::bind(&context, &spec, &Options::default()).unwrap();
    let mut new_reactor = one(&new);
    new.send(b"2").unwrap();
    old_reactor.give_way();
    old.send(b"3").unwrap();
    assert_eq!(pulled(&mut reactor, &mut [&mut old_reactor, &mut new_reactor], &pull, 2), [b"2", b"3"]);
    // The end of the old link is no reason for another one.
    drop((old_reactor, old));
    for text in [b"4", b"5", b"6"] {
        new.send(text).unwrap();
    }
    assert_eq!(pulled(&mut reactor, &mut [&mut new_reactor], &pull, 3), [b"4", b"5", b"6"]);
}

#[test]
fn an_address_is_taken_back_from_a_successor_that_failed() {
    let dir = tempfile::tempdir().unwrap();
    let (context, spec) = (Context::new(), format!("ipc://{}/s", dir.path().display()));
    let push = Push::bind(&context, &spec, &Options::default()).unwrap();
    let mut reactor = Reactor::new().unwrap();
    reactor.add(0, &push).unwrap();
    reactor.bind_again().unwrap();
    drop(Push::bind(&context, &spec, &Options::default()).unwrap());
    reactor.bind_again().unwrap();
    let pull = Pull::connect(&context, &[&spec], &Options::default()).unwrap();
    reactor.add(1, &pull).unwrap();
    push.send(b"1").unwrap();
    assert_eq!(pulled(&mut reactor, &mut [], &pull, 1), [b"1"]);
}

fn told(incoming: Incoming) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match incoming {
        Incoming::Packet(peer, packet) => format!("{}: {}", text(&peer), text(&packet)),
        Incoming::Change(Change::Joined(peer)) => format!("{} joined", text(&peer)),
        Incoming::Change(Change::Left(peer, reason)) => format!("{} left: {reason:?}", text(&peer)),
        Incoming::Change(Change::Room(peer)) => format!("{} has room", text(&peer)),
    }
}

/// A bound router and a way to connect peers to it, each with a reactor of its own.
struct Bound {
    router: Router,
    reactor: Reactor,
    context: Context,
    spec: String,
    _dir: tempfile::TempDir,
}

impl Bound {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spec = format!("ipc://{}/s", dir.path().display());
        let context = Context::new();
        let router = Router::bind(&context, &spec, &Options::default().named("frontend")).unwrap();
        let mut reactor = Reactor::new().unwrap();
        reactor.add(1, &router).unwrap();
        Bound { router, reactor, context, spec, _dir: dir }
    }

    fn peer(&self, name: &str) -> (Router, Reactor) {
        let peer = Router::connect(&self.context, &[&self.spec], &Options::default().named(name)).unwrap();
        let mut reactor = Reactor::new().unwrap();
        reactor.add(1, &peer).unwrap();
        (peer, reactor)
    }

    /// The next `count` things that the router tells, while the peers' reactors turn.
    fn hear(&mut self, count: usize, peers: &mut [&mut Reactor]) -> Vec<String> {
        let (mut heard, mut ready) = (Vec::new(), Vec::new());
        let router = &self.router;
        until(&mut self.reactor, |_| {
            peers.iter_mut().for_each(|peer| peer.wait(Some(Duration::ZERO), &mut ready).unwrap());
            heard.extend(std::iter::from_fn(|| router.incoming()).map(told));
            (heard.len() >= count).then_some(())
        });
        heard
    }
}

#[test]
fn a_router_tells_who_joins_before_the_first_packet_and_who_left_after_the_last() {
    let mut bound = Bound::new();
    let (peer, mut reactor) = bound.peer("proxy");
    peer.send(b"frontend", b"first").unwrap();
    assert_eq!(bound.hear(2, &mut [&mut reactor]), ["proxy joined", "proxy: first"]);
    // More than is read at once.
    let large = "x".repeat(100_000);
    for _ in 0..5 {
        peer.send(b"frontend", large.as_bytes()).unwrap();
    }
    let mut heard = Vec::new();
    while !reactor.drain(Duration::ZERO) {
        heard.extend(bound.hear(1, &mut [&mut reactor]));
    }
    drop((peer, reactor));
    heard.extend(bound.hear(6 - heard.len(), &mut []));
    let packet = format!("proxy: {large}");
    assert_eq!(heard, [&packet, &packet, &packet, &packet, &packet, "proxy left: Closed"]);
    bound.router.send(b"proxy", b"too late").unwrap();
    assert_eq!(bound.router.load_of(b"proxy").messages, 1, "it waits for a peer of the name");
}

#[test]
fn a_router_peer_that_comes_back_under_its_name_leaves_and_joins_with_its_packets_in_between() {
    let mut bound = Bound::new();
    let (old, mut olds) = bound.peer("proxy");
    assert_eq!(bound.hear(1, &mut [&mut olds]), ["proxy joined"]);
    old.send(b"frontend", b"sent by the old one").unwrap();
    assert!(olds.drain(LIMIT));
    let (new, mut news) = bound.peer("proxy");
    new.send(b"frontend", b"sent by the new one").unwrap();
    let heard = bound.hear(4, &mut [&mut news]);
    assert_eq!(
        heard,
        ["proxy: sent by the old one", "proxy left: Replaced", "proxy joined", "proxy: sent by the new one"]
    );
    // The end of what was replaced is not told again.
    drop((old, olds, new, news));
    assert_eq!(bound.hear(1, &mut []), ["proxy left: Closed"]);
}

#[test]
fn an_instance_that_hangs_holds_up_no_other_and_is_left_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let spec = format!("ipc://{}/s", dir.path().display());
    let context = Context::new();
    let stuck_after = Duration::from_millis(500);
    let options = Options { peer_bytes: 1 << 20, stuck_after, ..Options::default() };
    let publisher = Publisher::bind(&context, &spec, &options).unwrap();
    let mut reactor = Reactor::new().unwrap();
    reactor.add(1, &publisher).unwrap();
    let subscriber = |name: &str| {
        let subscriber = Subscriber::connect(&context, &[&spec], &Options::default()).unwrap();
        subscriber.subscribe_instance(name).unwrap();
        let mut reactor = Reactor::new().unwrap();
        reactor.add(1, &subscriber).unwrap();
        (subscriber, reactor)
    };
    let ((_sick, mut sicks), (well, mut wells)) = (subscriber("sick"), subscriber("well"));
    let mut ready = Vec::new();
    until(&mut reactor, |_| {
        sicks.wait(Some(Duration::ZERO), &mut ready).unwrap();
        wells.wait(Some(Duration::ZERO), &mut ready).unwrap();
        let _ = publisher.changes().count();
        (publisher.is_present(b"sick") && publisher.is_present(b"well")).then_some(())
    });
    // From here on the sick one's reactor does not turn, as if its process hung.
    let start = Instant::now();
    let (mut count, mut full, mut changes) = (0, 0, Vec::new());
    until(&mut reactor, |_| {
        let body = [b'x'; 10_000];
        changes.extend(publisher.changes());
        if changes.is_empty() {
            let sent = publisher.send(b"sick", &[b"sick ", &body[..]].concat());
            full += usize::from(sent == Err(SendError::Full));
        }
        publisher.send(b"well", &[b"well ", &body[..]].concat()).unwrap();
        wells.wait(Some(Duration::ZERO), &mut ready).unwrap();
        while well.recv().is_some() {
            count += 1;
        }
        assert!(publisher.load_of(b"sick").bytes < (1 << 20) + 20_000);
        assert_eq!(publisher.load_of(b"well"), Load::default());
        (!changes.is_empty()).then_some(())
    });
    assert_eq!(changes, [Change::Left("sick".into(), Reason::Stuck)]);
    assert!(start.elapsed() >= stuck_after);
    assert!(count > 20 && full <= count, "{count} messages came, {full} were refused");
    assert_eq!((publisher.load(), publisher.counters().stuck), (Load::default(), 1));
}

#[test]
fn an_instance_that_hangs_holds_up_no_other_where_libzmq_does_the_io() {
    let (context, spec) = (Context::new(), "inproc://s");
    let stuck_after = Duration::from_millis(500);
    let options = Options { high_water_mark: 10, peer_bytes: 100_000, stuck_after, ..Options::default() };
    let publisher = Publisher::bind(&context, spec, &options).unwrap();
    let mut reactor = Reactor::new().unwrap();
    reactor.add(1, &publisher).unwrap();
    let subscriber = |name| {
        let tight = Options { high_water_mark: 10, ..Options::default() };
        let subscriber = Subscriber::connect(&context, &[spec], &tight).unwrap();
        subscriber.subscribe_instance(name).unwrap();
        subscriber
    };
    let (sick, well) = (subscriber("sick"), subscriber("well"));
    until(&mut reactor, |_| {
        let _ = publisher.changes().count();
        (publisher.is_present(b"sick") && publisher.is_present(b"well")).then_some(())
    });
    let (mut count, mut results, mut changes) = (0, Vec::new(), Vec::new());
    until(&mut reactor, |_| {
        changes.extend(publisher.changes());
        if changes.is_empty() {
            results.push(publisher.send(b"sick", &[b"sick ", &[b'x'; 5000][..]].concat()));
        }
        publisher.send(b"well", b"well message").unwrap();
        while well.recv().is_some() {
            count += 1;
        }
        assert!(publisher.load_of(b"sick").bytes <= 110_000);
        (!changes.is_empty()).then_some(())
    });
    assert_eq!(changes, [Change::Left("sick".into(), Reason::Stuck)]);
    assert!(count > 20 && results.contains(&Ok(Taken::Full)), "{count} have come; {results:?}");
    assert_eq!(publisher.load_of(b"sick"), Load::default());
    // libzmq has its connection still, and what libzmq had taken comes.
    assert_eq!(&sick.recv().unwrap()[..5], b"sick ");
}

#[test]
fn a_socket_file_is_never_open_to_others_not_even_for_an_instant() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let spec = format!("ipc://{}", path.display());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = 0;
            while !done.load(Ordering::Relaxed) || seen == 0 {
                if let Ok(metadata) = std::fs::metadata(&path) {
                    let mode = metadata.permissions().mode() & 0o777;
                    assert_eq!(mode & 0o077, 0, "others may connect: {mode:o}");
                    seen += 1;
                }
            }
        });
        let context = Context::new();
        let mut last = None;
        for _ in 0..300 {
            last = Some(Pull::bind(&context, &spec, &Options::default()).unwrap());
        }
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap();
        drop(last);
    });
    // What is asked for is had, whatever the umask takes away.
    let options = Options { file_mode: Some(0o777), ..Options::default() };
    let _open = Pull::bind(&Context::new(), &spec, &options).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
}

#[test]
fn a_message_that_is_too_long_ends_its_senders_connection_and_no_other() {
    let ports = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for spec in [format!("ipc://{}/s", dir.path().display()), format!("tcp://{ports}")] {
        let context = Context::new();
        let pull = Pull::bind(&context, &spec, &Options { max_message: 70_000, ..Options::default() }).unwrap();
        let push = || Push::connect(&context, &[&spec], &Options { linger: 0, ..Options::default() }).unwrap();
        let (bad, good) = (push(), push());
        let mut reactor = Reactor::new().unwrap();
        reactor.add(1, &pull).unwrap();
        reactor.add(2, &bad).unwrap();
        reactor.add(3, &good).unwrap();
        bad.send(b"before").unwrap();
        assert_eq!(&until(&mut reactor, |_| pull.recv())[..], b"before");
        bad.send(&[b'x'; 70_001]).unwrap();
        bad.send(b"behind it").unwrap();
        good.send(&[b'y'; 70_000]).unwrap();
        let message = until(&mut reactor, |_| pull.recv().filter(|message| &message[..] != b"behind it"));
        assert_eq!(message.len(), 70_000, "{spec}");
    }
}
