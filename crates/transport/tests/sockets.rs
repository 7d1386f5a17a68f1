//! The sockets against each other, over `inproc:` and a reactor, as a worker would use them.

use std::time::{Duration, Instant};

use transport::{Change, Context, Dealer, Event, Options, Publisher, Pull, Push, Reactor, Replier, Router, Subscriber};

const LIMIT: Duration = Duration::from_secs(10);

/// Turns the reactor until `step` returns a value.
fn until<T>(reactor: &mut Reactor, mut step: impl FnMut(&[Event]) -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    let mut ready = Vec::new();
    loop {
        reactor.wait(Some(Duration::from_millis(100)), &mut ready).unwrap();
        if let Some(value) = step(&ready) {
            return value;
        }
        assert!(Instant::now() < end, "nothing happened in {LIMIT:?}");
    }
}

#[test]
fn what_is_pushed_is_pulled_in_order_and_nothing_is_lost_beyond_the_high_water_mark() {
    let context = Context::new();
    let tight = Options { high_water_mark: 5, ..Options::default() };
    let push = Push::new(&context, &tight).unwrap();
    let pull = Pull::new(&context, &tight).unwrap();
    pull.bind("inproc://order").unwrap();
    push.connect("inproc://order").unwrap();
    let mut reactor = Reactor::new().unwrap();
    reactor.add(1, &push).unwrap();
    reactor.add(2, &pull).unwrap();
    for i in 0..1000u32 {
        push.send(&i.to_be_bytes()).unwrap();
    }
    assert!(push.waiting() > 0, "the high-water mark did not hold anything back");
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
}

#[test]
fn a_full_backlog_refuses() {
    let push = Push::new(&Context::new(), &Options { backlog: 2, linger: 0, ..Options::default() }).unwrap();
    assert!(push.send(b"1").is_ok() && push.send(b"2").is_ok());
    assert_eq!(push.send(b"3"), Err(transport::error::SendError::Full));
    assert_eq!(push.counters().refused, 1);
}

#[test]
fn a_packet_for_an_instance_that_subscribes_late_is_not_lost() {
    let context = Context::new();
    let mut publisher = Publisher::new(&context, &Options::default()).unwrap();
    publisher.bind("inproc://late").unwrap();
    let now = Instant::now();
    publisher.send(b"proxy_1", b"proxy_1 early", now).unwrap();
    let subscriber = Subscriber::new(&context, &Options::default()).unwrap();
    subscriber.connect("inproc://late").unwrap();
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
    assert_eq!(joined, [Change::Joined(b"proxy_1".to_vec())]);
}

#[test]
fn the_end_of_an_instance_is_seen() {
    let context = Context::new();
    let mut publisher = Publisher::new(&context, &Options::default()).unwrap();
    publisher.bind("inproc://end").unwrap();
    let subscriber = Subscriber::new(&context, &Options::default()).unwrap();
    subscriber.connect("inproc://end").unwrap();
    subscriber.subscribe_instance("f").unwrap();
    let mut reactor = Reactor::new().unwrap();
    reactor.add(1, &publisher).unwrap();
    until(&mut reactor, |_| publisher.changes().next());
    assert!(publisher.is_present(b"f"));
    drop(subscriber);
    assert_eq!(until(&mut reactor, |_| publisher.changes().next()), Change::Left(b"f".to_vec()));
    assert!(!publisher.is_present(b"f"));
}

#[test]
fn packets_for_an_instance_that_never_comes_are_given_up() {
    let mut publisher = Publisher::new(&Context::new(), &Options::default()).unwrap();
    let now = Instant::now();
    publisher.send(b"gone", b"gone x", now).unwrap();
    assert_eq!(publisher.forget_absent(now + Duration::from_secs(1)), 0);
    assert_eq!(publisher.forget_absent(now + Duration::from_secs(6)), 1);
}

#[test]
fn a_router_reaches_a_peer_by_name_even_if_it_connects_a_little_later() {
    let context = Context::new();
    let bound = Router::new(&context, &Options::named("frontend")).unwrap();
    bound.bind("inproc://router").unwrap();
    bound.send(b"proxy", b"first").unwrap();
    bound.send(b"proxy", b"second").unwrap();
    let other = Router::new(&context, &Options::named("proxy")).unwrap();
    other.connect("inproc://router").unwrap();
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
}

#[test]
fn a_packet_for_a_peer_that_does_not_come_is_given_up_and_counted() {
    let bound = Router::new(&Context::new(), &Options::named("frontend")).unwrap();
    bound.bind("inproc://router").unwrap();
    bound.send(b"nobody", b"x").unwrap();
    assert_eq!(bound.waiting(), 1);
    let mut reactor = Reactor::new().unwrap();
    reactor.add(1, &bound).unwrap();
    until(&mut reactor, |_| (bound.waiting() == 0).then_some(()));
    assert_eq!(bound.counters().refused, 1);
}

#[test]
fn a_request_is_answered_to_whoever_asked() {
    let context = Context::new();
    let dealer = Dealer::new(&context, &Options::default()).unwrap();
    dealer.bind("inproc://rpc").unwrap();
    assert!(!dealer.writable());
    let replier = Replier::new(&context, &Options::default()).unwrap();
    replier.connect("inproc://rpc").unwrap();
    let mut reactor = Reactor::new().unwrap();
    reactor.add(1, &dealer).unwrap();
    reactor.add(2, &replier).unwrap();
    until(&mut reactor, |_| dealer.writable().then_some(()));
    dealer.send(b"question").unwrap();
    let (envelope, question) = until(&mut reactor, |_| replier.recv());
    assert_eq!(&question[..], b"question");
    replier.reply(&envelope, b"answer").unwrap();
    assert_eq!(&until(&mut reactor, |_| dealer.recv())[..], b"answer");
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
    let context = Context::new();
    let push = Push::new(&context, &Options::default()).unwrap();
    let pull = Pull::new(&context, &Options::default()).unwrap();
    pull.bind("inproc://pause").unwrap();
    push.connect("inproc://pause").unwrap();
    let mut reactor = Reactor::new().unwrap();
    reactor.add(1, &pull).unwrap();
    reactor.pause(1, true);
    push.send(b"x").unwrap();
    let mut ready = Vec::new();
    for _ in 0..3 {
        reactor.wait(Some(Duration::from_millis(1)), &mut ready).unwrap();
        assert_eq!(ready, []);
    }
    reactor.pause(1, false);
    assert_eq!(
        &until(&mut reactor, |ready| ready.contains(&Event::Socket(1)).then(|| pull.recv()).flatten())[..],
        b"x"
    );
}
