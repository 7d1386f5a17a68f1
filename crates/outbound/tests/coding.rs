// SPDX-License-Identifier: AGPL-3.0-or-later
//! Bodies with a coding, over real sockets: as they are for our proxy, without it for another.
#![allow(missing_docs)]

mod peer;

use std::io::Write as _;
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use peer::{Answer, Outbound, Requester, backend};
use zhttp::{Ext, Ids, Kind, Packet};

const OURS: Ext<'static> = Ext { coded: true, ..Ext::MULTI };

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// A response whose body is this and is said to be packed so.
fn response(coding: &str, body: &[u8], chunked: bool) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 200 OK\r\nA: b\r\nContent-Encoding: {coding}\r\n").into_bytes();
    if !chunked {
        out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        out.extend_from_slice(body);
        return out;
    }
    out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    for chunk in body.chunks(7) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// A backend that answers every request of a connection with this.
fn answering(response: Vec<u8>) -> String {
    backend(move |_, mut peer| {
        while peer.request().is_some() {
            peer.send(&response);
        }
    })
}

fn start() -> (Outbound, Requester) {
    let outbound = Outbound::start();
    let requester = Requester::connect(&outbound, "proxy_1");
    (outbound, requester)
}

fn ask(requester: &mut Requester, id: &str, uri: &str, ext: Ext<'_>, credits: u32) {
    let packet = Packet { uri: Some(uri.as_bytes()), ext, credits: Some(credits), ..Packet::default() };
    requester.ask(id, packet);
}

fn names(answer: &Answer) -> Vec<&str> {
    answer.headers.iter().map(|(name, _)| &**name).collect()
}

#[test]
fn a_proxy_of_another_kind_gets_the_body_without_its_coding_as_far_as_its_credits_reach() {
    let (_outbound, mut requester) = start();
    let text = b"some text, some text, and more. ".repeat(2000);
    for (index, chunked) in [false, true].into_iter().enumerate() {
        let uri = answering(response("gzip", &gzip(&text), chunked));
        let id = format!("a{index}");
        ask(&mut requester, &id, &uri, Ext::MULTI, 0);
        let head = requester.next_real(&id);
        assert_eq!((head.code, head.body.len(), head.more), (Some(200), 0, true));
        let kept = if chunked { vec!["A", "Transfer-Encoding"] } else { vec!["A"] };
        assert_eq!(names(&head), kept);
        let (mut body, mut seq, mut more) = (Vec::new(), 1, true);
        while more {
            let ids = Ids::One(id.as_bytes(), Some(seq));
            requester.follow(Packet { ids, kind: Kind::Credit, credits: Some(9999), ..Packet::default() });
            seq += 1;
            let expected = (text.len() - body.len()).min(9999);
            let mut got = 0;
            while got < expected {
                let answer = requester.next_real(&id);
                assert_eq!(answer.kind, Kind::Data);
                got += answer.body.len();
                body.extend_from_slice(&answer.body);
                more = answer.more;
            }
            assert_eq!(got, expected);
            // The end may come by itself, behind the last of the content.
            if body.len() == text.len() && more {
                more = requester.next_real(&id).more;
            }
        }
        assert!(body == text);
    }
}

#[test]
fn our_proxy_gets_the_body_as_it_is_and_the_backend_is_asked_for_no_coding() {
    let (_outbound, mut requester) = start();
    let packed = gzip(b"some text");
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (seen, answer) = (requests.clone(), response("gzip", &packed, false));
    let uri = backend(move |_, mut peer| {
        while let Some(request) = peer.request() {
            seen.lock().unwrap().push(request);
            peer.send(&answer);
        }
    });
    ask(&mut requester, "a", &uri, OURS, 1000);
    let answer = requester.next_real("a");
    assert_eq!((names(&answer), &answer.body), (vec!["A", "Content-Encoding", "Content-Length"], &packed));
    ask(&mut requester, "b", &uri, Ext::MULTI, 1000);
    // On the same connection: what was unpacked has left it usable.
    assert_eq!(requester.response("b"), (200, b"some text".to_vec()));
    let requests = requests.lock().unwrap();
    assert!(!requests[0].contains("Accept-Encoding"));
    assert!(requests[1].contains("\r\nAccept-Encoding: deflate, gzip\r\n"));
}

#[test]
fn what_can_not_be_unpacked_ends_the_response_visibly() {
    let (_outbound, mut requester) = start();
    let packed = gzip(&b"some text, some text, and more. ".repeat(100));
    let cut = &packed[..packed.len() - 3];
    let until_close = [&b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"[..], cut].concat();
    let cases = [
        ("gzip", response("gzip", b"plain text", false)),
        ("short", response("gzip", cut, false)),
        ("short chunked", response("gzip", cut, true)),
        ("br", response("br", b"whatever", false)),
    ];
    for (id, response) in cases {
        ask(&mut requester, id, &answering(response), Ext::MULTI, 100_000);
        let mut answer = requester.next_real(id);
        while answer.kind == Kind::Data && answer.more {
            answer = requester.next_real(id);
        }
        assert_eq!((answer.kind, &*answer.condition), (Kind::Error, "undefined-condition"), "{id}");
        assert!(answer.reason.contains("can not be unpacked"), "{id}: {}", answer.reason);
    }
    let uri = backend(move |_, mut peer| {
        peer.request();
        peer.send(&until_close);
    });
    ask(&mut requester, "close", &uri, Ext::MULTI, 100_000);
    let mut answer = requester.next_real("close");
    while answer.kind == Kind::Data && answer.more {
        answer = requester.next_real("close");
    }
    assert_eq!(answer.kind, Kind::Error);
}

/// The most memory that a process has had, in KB.
fn peak(outbound: &Outbound) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", outbound.process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_bomb_is_no_more_than_its_requester_takes() {
    let (outbound, mut requester) = start();
    let uri = answering(response("gzip", &gzip(&vec![0; 256 << 20]), false));
    ask(&mut requester, "a", &uri, Ext::MULTI, 1);
    requester.next_real("a");
    let before = peak(&outbound);
    ask(&mut requester, "b", &uri, Ext::MULTI, 1_000_000);
    let mut got = 0;
    while got < 1_000_000 {
        let answer = requester.next_real("b");
        assert!(answer.more && answer.body.iter().all(|&byte| byte == 0));
        got += answer.body.len();
    }
    assert_eq!(got, 1_000_000);
    let most = Packet { max_size: Some(1000), ..Packet::default() };
    requester.ask("c", Packet { uri: Some(uri.as_bytes()), credits: Some(1_000_000), ..most });
    assert_eq!(requester.next_real("c").condition, "max-size-exceeded");
    let grown = peak(&outbound) - before;
    assert!(grown < 8 << 10, "{grown} KB");
}
