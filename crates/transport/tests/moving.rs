// SPDX-License-Identifier: AGPL-3.0-or-later
//! Sockets that move to another owner while their peers use them.

use std::time::{Duration, Instant};

use transport::{
    Change, Context, Dealer, Event, Incoming, MoveError, Options, Packed, Publisher, Pull, Push, Reactor, Router,
    Subscriber,
};

const LIMIT: Duration = Duration::from_secs(10);

fn until<T>(reactors: &mut [&mut Reactor], mut step: impl FnMut() -> Option<T>) -> T {
    let (end, mut ready) = (Instant::now() + LIMIT, Vec::<Event>::new());
    loop {
        for reactor in &mut *reactors {
            reactor.wait(Some(Duration::from_millis(5)), &mut ready).unwrap();
        }
        if let Some(value) = step() {
            return value;
        }
        assert!(Instant::now() < end, "nothing happened in {LIMIT:?}");
    }
}

struct Place(tempfile::TempDir);

impl Place {
    fn spec(&self, name: &str) -> String {
        format!("ipc://{}/{name}", self.0.path().display())
    }
}

fn packets(router: &Router) -> Vec<Vec<u8>> {
    let incoming = std::iter::from_fn(|| router.incoming());
    let packet = |incoming| match incoming {
        Incoming::Packet(_, packet) => Some(packet.to_vec()),
        Incoming::Change(Change::Left(name, reason)) => panic!("{name:?} left: {reason:?}"),
        Incoming::Change(_) => None,
    };
    incoming.filter_map(packet).collect()
}

#[test]
fn peers_of_sockets_that_move_notice_nothing() {
    let place = Place(tempfile::tempdir().unwrap());
    let (context, options) = (Context::new(), Options::default());
    let mut owner = Reactor::new().unwrap();
    let router = Router::bind(&context, &place.spec("router"), &options.clone().named("owner")).unwrap();
    let push = Push::bind(&context, &place.spec("push"), &options).unwrap();
    let sub = Subscriber::bind(&context, &place.spec("sub"), &options).unwrap();
    sub.subscribe_instance("owner").unwrap();
    owner.add(0, &router).unwrap();
    owner.add(1, &push).unwrap();
    owner.add(2, &sub).unwrap();
    let mut peers = Reactor::new().unwrap();
    let peer = Router::connect(&context, &[place.spec("router")], &options.clone().named("peer")).unwrap();
    let pull = Pull::connect(&context, &[place.spec("push")], &options).unwrap();
    let publisher = Publisher::connect(&context, &[place.spec("sub")], &options).unwrap();
    peers.add(0, &peer).unwrap();
    peers.add(1, &pull).unwrap();
    peers.add(2, &publisher).unwrap();
    until(&mut [&mut owner, &mut peers], || {
        let _ = (packets(&router), packets(&peer), publisher.changes().count());
        (router.is_present(b"peer") && peer.is_present(b"owner") && publisher.is_present(b"owner") && push.has_peer())
            .then_some(())
    });
    // Sent, and not received or not written yet.
    peer.send(b"owner", b"before").unwrap();
    publisher.send(b"owner", b"owner before").unwrap();
    peers.flush();
    router.send(b"peer", b"to the peer").unwrap();
    push.send(b"request").unwrap();
    let packed = [router.pack().unwrap(), push.pack().unwrap(), sub.pack().unwrap()];
    let [packed_router, packed_push, packed_sub] = packed;
    let mut heir = Reactor::new().unwrap();
    let new_router = Router::unpack(&options.clone().named("owner"), packed_router).unwrap();
    let new_push = Push::unpack(&options, packed_push).unwrap();
    let new_sub = Subscriber::unpack(&options, packed_sub).unwrap();
    heir.add(0, &new_router).unwrap();
    heir.add(1, &new_push).unwrap();
    heir.add(2, &new_sub).unwrap();
    owner.let_go();
    heir.claim();
    drop((router, push, sub, owner));
    peer.send(b"owner", b"after").unwrap();
    publisher.send(b"owner", b"owner after").unwrap();
    let (mut got, mut published, mut requests, mut replies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    until(&mut [&mut heir, &mut peers], || {
        got.extend(packets(&new_router));
        published.extend(std::iter::from_fn(|| new_sub.recv()).map(|message| message.to_vec()));
        requests.extend(std::iter::from_fn(|| pull.recv()).map(|message| message.to_vec()));
        replies.extend(packets(&peer));
        (got.len() == 2 && published.len() == 2 && requests.len() == 1 && replies.len() == 1).then_some(())
    });
    assert_eq!(got, [&b"before"[..], b"after"]);
    assert_eq!(published, [&b"owner before"[..], b"owner after"]);
    assert_eq!((requests, replies), (vec![b"request".to_vec()], vec![b"to the peer".to_vec()]));
    // The addresses are those of the new owner.
    let late = Dealer::connect(&context, &[place.spec("router")], &options.clone().named("late")).unwrap();
    peers.add(3, &late).unwrap();
    until(&mut [&mut heir, &mut peers], || {
        let _ = packets(&new_router);
        new_router.is_present(b"late").then_some(())
    });
}

#[test]
fn what_is_not_of_this_version_or_kind_is_refused() {
    let place = Place(tempfile::tempdir().unwrap());
    let (context, options) = (Context::new(), Options::default());
    let push = Push::bind(&context, &place.spec("push"), &options).unwrap();
    let packed = push.pack().unwrap();
    let with = |record: Vec<u8>| Packed { record, files: Vec::new() };
    let mut newer = packed.record.clone();
    newer[0] = 99;
    assert_eq!(Push::unpack(&options, with(newer)).err(), Some(MoveError::Version(99)));
    assert_eq!(Push::unpack(&options, with(Vec::new())).err(), Some(MoveError::Malformed));
    let expected = Some(MoveError::Files { expected: 1, got: 0 });
    assert_eq!(Push::unpack(&options, with(packed.record.clone())).err(), expected);
    assert_eq!(Router::unpack(&options, packed).err(), Some(MoveError::Kind));
    let pull = Pull::bind(&context, &place.spec("pull"), &options).unwrap();
    assert_eq!(pull.pack().err(), Some(MoveError::Kind));
}
