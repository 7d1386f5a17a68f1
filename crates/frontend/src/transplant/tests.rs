// SPDX-License-Identifier: AGPL-3.0-or-later
//! What has been written down is the same when it has been read back.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use process::passing::{Channel, Door};
use proptest::option;
use proptest::prelude::*;
use wire::http1::{BodyFraming, Version};
use wire::websocket::{Header, Opcode, Reader, Role, Standing};
use zhttp::session::Protocol;
use zhttp::session::client::Session;
use zhttp::{Packet, Peers};

use super::record::*;
use super::talk::{Giving, Taking, TalkError};
use crate::client::Client;
use crate::context::Config;
use crate::exchange::Exchanges;
use crate::http1::response::{Response, Terms};
use crate::replay;
use crate::websocket::lanes::{Lane, Lanes, Part};

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..300)
}

fn age_of() -> impl Strategy<Value = Duration> {
    (0..100_000_000_000u64).prop_map(Duration::from_nanos)
}

fn pacing() -> impl Strategy<Value = PacingRecord> {
    let wait = prop::sample::select(vec![Wait::Idle, Wait::Head, Wait::Body, Wait::Server]);
    let lag = option::of((age_of(), age_of(), any::<u64>()));
    (age_of(), age_of(), lag, wait, any::<bool>()).prop_map(|(since, heard, lag, wait, used)| PacingRecord {
        since,
        heard,
        lag,
        wait,
        used,
    })
}

fn response() -> impl Strategy<Value = Response> {
    let framing = prop_oneof![
        Just(BodyFraming::None),
        Just(BodyFraming::Chunked),
        Just(BodyFraming::UntilClose),
        any::<u64>().prop_map(BodyFraming::Length),
    ];
    let running = (framing, any::<bool>()).prop_map(|(framing, bodiless)| Response::Running { framing, bodiless });
    prop_oneof![Just(Response::Waiting), running]
}

fn terms() -> impl Strategy<Value = Terms> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(old, head_only, persistent)| Terms {
        version: if old { Version::Http10 } else { Version::Http11 },
        head_only,
        persistent,
    })
}

/// A reader somewhere within some fragments of text.
fn standing() -> impl Strategy<Value = Standing> {
    (0..40usize).prop_map(|length| {
        let frame = |opcode, fin, text: &str| {
            let header = Header { opcode, fin, compressed: false, key: Some([0; 4]) };
            [&*header.encode(text.len()), text.as_bytes()].concat()
        };
        let mut input = [frame(Opcode::Text, false, "aé🦀"), frame(Opcode::Continuation, true, "ü")].concat();
        input.truncate(length);
        let (mut reader, mut at) = (Reader::new(Role::Server, 1000, true), 0);
        while let Ok((used @ 1.., _)) = reader.read(&mut input[at..]) {
            at += used;
        }
        reader.standing()
    })
}

fn lanes() -> impl Strategy<Value = Lanes<FrameRecord>> {
    let frame = (bytes(), any::<u32>(), any::<bool>()).prop_map(|(bytes, credits, close)| FrameRecord {
        bytes: [&b"x"[..], &bytes].concat(),
        credits: u64::from(credits),
        close,
    });
    let part = prop_oneof![Just(Part::Control), any::<bool>().prop_map(|end| Part::Message { end })];
    let lane = any::<bool>().prop_map(|first| if first { Lane::First } else { Lane::Second });
    (any::<bool>(), any::<u32>(), prop::collection::vec((lane, part, frame), 0..5)).prop_map(
        |(within, after, items)| {
            let mut lanes = Lanes::new(within);
            lanes.wait_for(after);
            items.into_iter().for_each(|(lane, part, frame)| lanes.put(lane, part, frame, &mut |_, _| ()));
            lanes
        },
    )
}

fn websocket() -> impl Strategy<Value = WebSocketRecord> {
    let flags = any::<[bool; 5]>();
    (any::<u32>(), option::of(bytes()), standing(), any::<u32>(), flags, option::of(lanes())).prop_map(
        |(exchange, key, reader, debt, [deflates, within, torn, close_sent, close_received], lanes)| WebSocketRecord {
            exchange,
            key,
            reader,
            debt: u64::from(debt),
            deflates,
            within,
            torn,
            lanes,
            close_sent,
            close_received,
        },
    )
}

fn client() -> impl Strategy<Value = ClientRecord> {
    let serving = (any::<u32>(), response(), terms());
    let phase = prop_oneof![
        Just(()).prop_map(|()| PhaseRecord::Head),
        serving.prop_map(|(exchange, response, terms)| PhaseRecord::Serving { exchange, response, terms }),
        websocket().prop_map(PhaseRecord::WebSocket),
    ];
    let peer = option::of(any::<(std::net::IpAddr, u16)>().prop_map(std::net::SocketAddr::from));
    let http = (peer, any::<bool>(), phase, bytes(), any::<[u32; 2]>());
    (any::<u32>(), http, bytes(), pacing()).prop_map(|(slot, (peer, last, phase, input, unwritten), output, pacing)| {
        let http = HttpRecord { peer, last, phase, input, unwritten };
        ClientRecord { slot, local: true, http, output, pacing }
    })
}

fn request() -> impl Strategy<Value = RequestRecord> {
    let flags = any::<[bool; 4]>();
    (bytes(), bytes(), flags, any::<prop::sample::Index>(), option::of(0..2u32), any::<u8>()).prop_map(
        |(first, body, [has_body, is_complete, is_ended, is_idempotent], sent, proxy, times)| {
            let sent = sent.index(body.len() + 1) as u64;
            RequestRecord { first, body, has_body, is_complete, sent, is_ended, is_idempotent, proxy, times }
        },
    )
}

fn underway() -> impl Strategy<Value = UnderwayRecord> {
    let sent = (any::<u32>(), 0..4u8, any::<[bool; 2]>(), option::of(any::<u16>()), bytes())
        .prop_map(|(seq, kind, [binary, more], code, body)| SentRecord { seq, kind, binary, more, code, body });
    let packets = option::of(prop::collection::vec(sent, 0..4));
    let came = option::of((any::<u64>(), any::<bool>()));
    (packets, any::<u32>(), came).prop_map(|(packets, from, came)| UnderwayRecord {
        is_torn: packets.is_none(),
        from: from.into(),
        packets: packets.unwrap_or_default(),
        came,
    })
}

proptest! {
    #[test]
    fn a_client_is_the_same_after_the_move(record in client()) {
        let (now, encoded) = (Instant::now(), encode(&record));
        let decoded: ClientRecord = decode(&encoded).unwrap();
        prop_assert_eq!(&decoded, &record);
        let file = OwnedFd::from(UnixStream::pair().unwrap().0);
        let client = Client::restore(decoded, file, &Config::default(), now).unwrap();
        prop_assert_eq!(client.snapshot(record.slot, now).unwrap(), record);
    }

    #[test]
    fn a_session_is_the_same_after_the_move(
        (slot, serial, heard, kept, lags) in (0..1000u32, any::<u64>(), 0..50u64, any::<[u32; 3]>(), any::<bool>()),
        is_heard in any::<bool>(),
        record in option::of((0..3u32, bytes())),
        request in option::of(request()),
        underway in option::of(underway()),
    ) {
        let start = Instant::now();
        let (now, mut peers) = (start + Duration::from_secs(heard), Peers::default());
        let numbers = [peers.intern(b"proxy").unwrap(), peers.intern(b"handler").unwrap()];
        let mut session = Session::start(Protocol::Http, 1000, start);
        let packet = Packet { kind: zhttp::Kind::KeepAlive, ..Packet::default() };
        session.on_packet(&packet, Some(numbers[1]), Some(0), now).unwrap();
        let mut written = Vec::new();
        session.snapshot(&peers, now, &mut written);
        let [since, since_run, run] = kept;
        let record = ExchangeRecord {
            slot,
            serial,
            audience: if is_heard { Ok(slot) } else { Err(Duration::from_secs(1)) },
            session: written,
            record,
            since,
            since_run: u64::from(since_run),
            run: u64::from(run),
            lags,
            request,
            underway,
        };
        let terms = replay::Terms { wait: Duration::from_secs(1), body: 1000, memory: 100_000 };
        let mut exchanges = Exchanges::for_clients(1).replaying(terms);
        let exchange = exchanges.restore(decode(&encode(&record)).unwrap(), &mut peers, &numbers, now).unwrap();
        exchanges.take_over(vec![exchange], 0, 0, now);
        prop_assert_eq!(exchanges.snapshot(slot, &peers, now).unwrap(), record);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in bytes()) {
        let bytes = [&[VERSION][..], &bytes].concat();
        let _ = decode::<Offer>(&bytes);
        let _ = decode::<Answer>(&bytes);
        if let Ok(record) = decode::<ClientRecord>(&bytes) {
            let file = OwnedFd::from(UnixStream::pair().unwrap().0);
            let _ = Client::restore(record, file, &Config::default(), Instant::now());
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (mut peers, now) = (Peers::default(), Instant::now());
    let mut exchanges = Exchanges::for_clients(1);
    let mut session = Vec::new();
    Session::start(Protocol::Http, 1000, now).snapshot(&peers, now, &mut session);
    session[0] = 99;
    let record = ExchangeRecord {
        slot: 0,
        serial: 0,
        audience: Ok(0),
        session,
        record: None,
        since: 0,
        since_run: 0,
        run: 0,
        lags: false,
        request: None,
        underway: None,
    };
    let error = exchanges.restore(record, &mut peers, &[], now).unwrap_err();
    assert!(matches!(error, RecordError::Session(_)), "{error}");
    let place = PlaceRecord { name: b"h0".to_vec(), owner: Some(7), ..PlaceRecord::default() };
    assert!(exchanges.restore_places(vec![place], &[]).is_err());
}

/// A predecessor that has been asked, and the successor that has.
fn talk(dir: &tempfile::TempDir) -> (Giving, Taking) {
    let path = dir.path().join("door");
    let door = Door::open(&path).unwrap();
    let question = Question { addresses: ["a".into(), "b".into(), "c".into()] };
    let taking = Taking::ask(&path, &question).unwrap();
    let (channel, heard) = Giving::hear(door.accept().unwrap().unwrap()).unwrap();
    assert_eq!(heard, question);
    (Giving::begin(channel, Instant::now()).unwrap(), taking)
}

#[test]
fn both_know_that_all_has_moved() {
    let dir = tempfile::tempdir().unwrap();
    let (mut giving, mut taking) = talk(&dir);
    let successor = std::thread::spawn(move || {
        assert_eq!(taking.hear().unwrap().0, Offer::End);
        taking.begin(vec![3]).unwrap().1
    });
    assert_eq!(giving.end().unwrap(), [3]);
    let mut way: Channel = giving.commit(vec![(1, 2)]).unwrap();
    assert_eq!(successor.join().unwrap(), [(1, 2)]);
    assert!(way.receive().unwrap().is_none(), "it has ended");
}

#[test]
fn a_successor_that_is_too_late_with_its_last_word_knows_that_it_has_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut giving, mut taking) = talk(&dir);
    let (wait, go_on) = std::sync::mpsc::channel::<()>();
    let successor = std::thread::spawn(move || {
        assert_eq!(taking.hear().unwrap().0, Offer::End);
        taking.begin_when(Vec::new(), || _ = go_on.recv())
    });
    assert!(giving.end().unwrap().is_empty());
    let error = giving.commit(Vec::new()).unwrap_err();
    assert!(matches!(error, TalkError::Ended), "{error}");
    drop(wait);
    assert!(successor.join().unwrap().is_err());
}
