// SPDX-License-Identifier: AGPL-3.0-or-later
//! WebSockets whose requester goes, and which another one claims.
#![allow(missing_docs)]

mod peer;

use std::io::Read as _;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use peer::{Outbound, Peer, Requester, backend};
use wire::websocket::{Event, Header, Opcode, Reader, Role, accept_value};
use zhttp::{Ext, Ids, Kind, Packet};

/// What the backend is told to do.
enum Order {
    Say(&'static str),
    Close,
}

/// A backend with one WebSocket, which does what it is told and tells what it hears.
struct Backend {
    uri: String,
    orders: mpsc::Sender<Order>,
    heard: mpsc::Receiver<String>,
}

fn accept(peer: &mut Peer) {
    let request = peer.request().unwrap();
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let accept = accept_value(key.as_bytes());
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    peer.send(format!("{head}Sec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes());
}

fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    [&Header::whole(opcode).encode(payload.len()), payload].concat()
}

impl Backend {
    fn start() -> Self {
        let (orders, ordered) = mpsc::channel();
        let (hears, heard) = mpsc::channel();
        let (ordered, hears) = (Arc::new(Mutex::new(ordered)), Arc::new(Mutex::new(hears)));
        let uri = backend(move |_, mut peer| {
            accept(&mut peer);
            let mut stream = peer.0.try_clone().unwrap();
            let hears = hears.lock().unwrap().clone();
            std::thread::spawn(move || {
                let (mut reader, mut input) = (Reader::new(Role::Server, u64::MAX, false), Vec::new());
                let mut some = [0; 1000];
                while let Ok(count @ 1..) = stream.read(&mut some) {
                    input.extend_from_slice(&some[..count]);
                    let mut used = 0;
                    while let Ok((count @ 1.., event)) = reader.read(&mut input[used..]) {
                        let told = match event {
                            Some(Event::Data { payload, end, .. }) => {
                                Some(format!("{}{}", payload.escape_ascii(), if end { "." } else { "-" }))
                            }
                            Some(Event::Close(status)) => Some(format!("close {:?}", status.map(|(code, _)| code))),
                            _ => None,
                        };
                        told.into_iter().for_each(|told| _ = hears.send(told));
                        used += count;
                    }
                    input.drain(..used);
                }
                let _ = hears.send("end".into());
            });
            while let Ok(order) = ordered.lock().unwrap().recv() {
                match order {
                    Order::Say(text) => peer.send(&frame(Opcode::Text, text.as_bytes())),
                    Order::Close => peer.send(&frame(Opcode::Close, b"\x0f\xa0")),
                }
            }
        });
        Backend { uri: uri.replace("http:", "ws:"), orders, heard }
    }

    fn hears(&self) -> String {
        self.heard.recv_timeout(std::time::Duration::from_secs(10)).unwrap()
    }
}

/// A WebSocket with this name, and who serves it.
fn open(outbound: &Outbound, backend: &Backend, name: &str) -> (Requester, Vec<u8>) {
    let mut requester = Requester::connect(outbound, "proxy_1");
    let ext = Ext { name: Some(name.as_bytes()), ..Ext::MULTI };
    let uri = Some(backend.uri.as_bytes());
    requester.ask("a", Packet { uri, ext, router_resp: true, ..Packet::default() });
    let answer = requester.next_real("a");
    assert_eq!((answer.code, answer.had), (Some(101), Some(0)));
    (requester, answer.from)
}

fn send(requester: &mut Requester, id: &str, seq: u32, packet: Packet<'_>) {
    requester.follow(Packet { ids: Ids::One(id.as_bytes(), Some(seq)), ..packet });
}

fn text(body: &[u8], more: bool) -> Packet<'_> {
    Packet { content_type: Some(b"text"), body, more, ..Packet::default() }
}

#[test]
fn a_successor_goes_on_where_the_clients_side_stands() {
    let outbound = Outbound::with("[runner]\nrecover_wait=10");
    let backend = Backend::start();
    let (mut first, server) = open(&outbound, &backend, "c-1");
    backend.orders.send(Order::Say("hello")).unwrap();
    backend.orders.send(Order::Say("world")).unwrap();
    assert_eq!([first.next_real("a").body, first.next_real("a").body], [b"hello", b"world"]);
    // The client's side has had the first of them.
    let had = Ext { had: Some(6), ..Ext::default() };
    send(&mut first, "a", 1, Packet { ext: had, ..text(b"abc", true) });
    assert_eq!(backend.hears(), "abc-");
    drop(first);
    backend.orders.send(Order::Say("news")).unwrap();

    let mut second = Requester::connect(&outbound, "proxy_2");
    second.claim("b", &server, "c-1", 9);
    let answer = second.next("b");
    assert_eq!((answer.kind, answer.had, answer.closed), (Kind::KeepAlive, Some(3), 0));
    assert!(answer.credits.is_some());
    let [rest, news] = [second.next_real("b"), second.next_real("b")];
    assert_eq!([rest.body, news.body], [&b"ld"[..], b"news"]);
    send(&mut second, "b", 1, text(b"def", false));
    assert_eq!(backend.hears(), "def.");
    // And again, with nothing lost.
    drop(second);
    let mut third = Requester::connect(&outbound, "proxy_3");
    third.claim("c", &server, "c-1", 17);
    assert_eq!(third.next("c").had, Some(7));
    backend.orders.send(Order::Say("more")).unwrap();
    assert_eq!(third.next_real("c").body, b"more");
}

#[test]
fn a_close_is_kept_until_the_clients_side_has_had_it() {
    let outbound = Outbound::with("[runner]\nrecover_wait=10");
    let backend = Backend::start();
    let (mut first, server) = open(&outbound, &backend, "c-1");
    send(&mut first, "a", 1, Packet { kind: Kind::Close, code: Some(4000), ..Packet::default() });
    assert_eq!(backend.hears(), "close Some(4000)");
    backend.orders.send(Order::Close).unwrap();
    assert_eq!(first.next_real("a").kind, Kind::Close);
    drop(first);
    let mut second = Requester::connect(&outbound, "proxy_2");
    second.claim("b", &server, "c-1", 0);
    let answer = second.next("b");
    assert_eq!((answer.had, answer.closed), (Some(1), 2));
    assert_eq!((second.next_real("b").code), Some(4000));
    let ext = Ext { had: Some(1), ..Ext::default() };
    send(&mut second, "b", 1, Packet { kind: Kind::KeepAlive, ext, ..Packet::default() });
    assert_eq!(backend.hears(), "end");
}

#[test]
fn what_nobody_claims_ends_and_what_is_not_there_can_not_be_claimed() {
    let outbound = Outbound::with("[runner]\nrecover_wait=1");
    let backend = Backend::start();
    let (first, server) = open(&outbound, &backend, "c-1");
    let mut second = Requester::connect(&outbound, "proxy_2");
    for (name, had) in [("c-2", 0), ("c-1", 5)] {
        second.claim(name, &server, name, had);
        let answer = second.next(name);
        assert_eq!((answer.kind, &*answer.condition), (Kind::Error, "unknown-session"), "{name}");
    }
    drop(first);
    assert_eq!(backend.hears(), "end");
}

#[test]
fn without_recovery_they_end_with_their_requester() {
    let outbound = Outbound::start();
    let backend = Backend::start();
    let mut first = Requester::connect(&outbound, "proxy_1");
    let ext = Ext { name: Some(b"c-1"), ..Ext::MULTI };
    let uri = Some(backend.uri.as_bytes());
    first.ask("a", Packet { uri, ext, router_resp: true, ..Packet::default() });
    let answer = first.next_real("a");
    assert_eq!((answer.code, answer.had), (Some(101), None));
    drop(first);
    assert_eq!(backend.hears(), "end");
}
