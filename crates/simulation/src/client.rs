// SPDX-License-Identifier: AGPL-3.0-or-later
//! A client that knows what it should get: every byte of a plain response, every item of a stream in order.

use std::collections::BTreeMap;

use wire::http1::{BodyDecoder, BodyFraming, Limits, parse_response};

use crate::answers::plain;
use crate::conversations::NAME;
use crate::facts::{Facts, Item};
use crate::socket::Socket;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// So many bytes.
    Plain(usize),
    /// To take so many bytes.
    Upload(usize),
    /// To take so many bytes, and to give as many while they come.
    Both(usize),
    /// A stream of these channels.
    Stream(Vec<&'static str>),
    /// One message of a channel.
    Poll(&'static str),
    /// The items of the channel r that it does not have.
    Reliable,
    /// A WebSocket that is subscribed to these channels, and goes to the backend over HTTP.
    Socket(Vec<&'static str>),
    /// The same to a backend that speaks WebSocket.
    Direct(Vec<&'static str>),
}

impl Ask {
    /// Whether the response is held by a handler once it has begun.
    pub fn is_held(&self) -> bool {
        matches!(self, Ask::Stream(_) | Ask::Poll(_) | Ask::Reliable)
    }
}

/// How many servers have died, and what else requests may have noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deaths {
    /// Proxies.
    pub proxies: usize,
    /// Handlers.
    pub handlers: usize,
    /// Outbound processes.
    pub outbounds: usize,
    /// How often a backend has done what any request may have noticed.
    pub troubles: usize,
}

impl Deaths {
    /// Those that were not among `before`.
    pub fn since(self, before: Deaths) -> Self {
        Deaths {
            proxies: self.proxies - before.proxies,
            handlers: self.handlers - before.handlers,
            outbounds: self.outbounds - before.outbounds,
            troubles: self.troubles - before.troubles,
        }
    }
}

/// One client on one connection.
pub struct Client {
    id: u32,
    /// The frontend it is connected to.
    pub frontend: u8,
    /// What it waits for.
    pub ask: Option<Ask>,
    /// What makes the path of that unique.
    pub tag: String,
    asks: u32,
    /// Who had died when it asked.
    pub deaths_before: Deaths,
    /// The head of the response has come.
    pub begun: bool,
    /// The status in it.
    pub code: u16,
    /// It reads nothing for now.
    pub lazy: bool,
    /// The upload that is still to be sent.
    pub unsent: usize,
    /// For a stream: what had been published of each channel when the head came, and the last item that has come.
    pub channels: BTreeMap<String, (u64, u64)>,
    /// Its WebSocket, once it has been opened.
    pub socket: Option<Socket>,
    last: u64,
    /// The last item of the channel r that it has.
    pub reliable: u64,
    buffer: Vec<u8>,
    decoder: Option<BodyDecoder>,
    content: Vec<u8>,
    length: usize,
    persistent: bool,
}

impl Client {
    /// A client that has just connected to a frontend.
    pub fn new(id: u32, frontend: u8) -> Self {
        Client {
            id,
            frontend,
            ask: None,
            tag: String::new(),
            asks: 0,
            deaths_before: Deaths::default(),
            begun: false,
            code: 0,
            lazy: false,
            unsent: 0,
            channels: BTreeMap::new(),
            socket: None,
            last: 0,
            reliable: 0,
            buffer: Vec::new(),
            decoder: None,
            content: Vec::new(),
            length: 0,
            persistent: true,
        }
    }

    /// Begins a request, when so many servers have died; gives its head.
    pub fn ask(&mut self, ask: Ask, deaths_before: Deaths) -> Vec<u8> {
        self.deaths_before = deaths_before;
        self.asks += 1;
        self.tag = format!("{}-{}", self.id, self.asks);
        let tag = &self.tag;
        let head = match &ask {
            Ask::Plain(length) => format!("GET /plain/{length}?{tag} HTTP/1.1\r\nHost: x\r\n\r\n"),
            Ask::Upload(length) => {
                self.unsent = *length;
                format!("POST /upload/{length}?{tag} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")
            }
            Ask::Both(length) => {
                self.unsent = *length;
                format!("POST /both/{length}?{tag} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")
            }
            Ask::Stream(channels) => format!("GET /stream/{}?{tag} HTTP/1.1\r\nHost: x\r\n\r\n", channels.join(",")),
            Ask::Reliable => format!("GET /reliable/{}?{tag} HTTP/1.1\r\nHost: x\r\n\r\n", self.reliable),
            Ask::Socket(channels) | Ask::Direct(channels) => format!(
                "GET /{}/{}/{}?{tag} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                if matches!(ask, Ask::Direct(_)) { "direct" } else { "socket" },
                self.id,
                channels.join(",")
            ),
            Ask::Poll(channel) => format!("GET /poll/{channel}?{tag} HTTP/1.1\r\nHost: x\r\n\r\n"),
        };
        self.ask = Some(ask);
        self.begun = false;
        head.into_bytes()
    }

    /// Bytes have come. Gives what has been answered by that, and with which status.
    pub fn on_bytes(&mut self, bytes: &[u8], facts: &Facts) -> Option<(Ask, u16)> {
        if let Some(socket) = &mut self.socket {
            socket.on_bytes(bytes, facts);
            return None;
        }
        self.buffer.extend_from_slice(bytes);
        let mut answered = None;
        loop {
            if self.ask.is_none() {
                assert!(self.buffer.is_empty(), "{} bytes that nobody asked for", self.buffer.len());
                return answered;
            }
            if self.decoder.is_none() {
                let (code, framing, persistent, name, used) = {
                    let Some((head, used)) =
                        parse_response(&self.buffer, &Limits::default(), "GET").expect("heads are well-formed")
                    else {
                        return answered;
                    };
                    let name = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(NAME));
                    let name = name.map(|field| String::from_utf8_lossy(field.value).into_owned());
                    (head.code, head.framing, head.persistent, name, used)
                };
                self.buffer.drain(..used);
                if code == 101 {
                    let is_direct = matches!(self.ask, Some(Ask::Direct(_)));
                    let is_socket = is_direct || matches!(self.ask, Some(Ask::Socket(_)));
                    assert!(is_socket, "{:?} becomes a WebSocket", self.ask);
                    (self.begun, self.code, self.persistent) = (true, code, false);
                    let name = name.expect("the backend tells its name");
                    let mut socket = if is_direct { Socket::direct(&name, &self.tag) } else { Socket::new(&name) };
                    socket.on_bytes(&std::mem::take(&mut self.buffer), facts);
                    self.socket = Some(socket);
                    return answered;
                }
                self.decoder = Some(BodyDecoder::new(framing));
                (self.begun, self.code, self.persistent) = (true, code, persistent);
                assert!(framing != BodyFraming::UntilClose, "a response to HTTP/1.1 that only its connection ends");
                (self.length, self.last) = (0, 0);
                self.content.clear();
                if let Some(Ask::Stream(channels)) = &self.ask {
                    self.channels =
                        channels.iter().map(|name| (name.to_string(), (facts.published(name), 0))).collect();
                }
            }
            let Some(decoder) = &mut self.decoder else { return answered };
            let mut used = 0;
            while !decoder.is_done() {
                let decoded = decoder.decode(&self.buffer[used..], usize::MAX).expect("bodies are well-formed");
                self.content.extend_from_slice(decoded.payload);
                used += decoded.consumed;
                if decoded.consumed == 0 {
                    break;
                }
            }
            let done = decoder.is_done();
            self.buffer.drain(..used);
            if self.code == 200 {
                self.check(done);
            }
            if !done {
                return answered;
            }
            self.decoder = None;
            answered = self.ask.take().map(|ask| (ask, self.code));
            // What is left of an upload is wanted no more.
            self.unsent = 0;
            self.channels.clear();
        }
    }

    /// Whether another request may be sent.
    pub fn is_free(&self) -> bool {
        self.ask.is_none() && self.persistent
    }

    fn check(&mut self, done: bool) {
        match self.ask.clone() {
            Some(Ask::Plain(length) | Ask::Both(length)) => {
                self.length += self.content.len();
                let (from, to) = (self.length - self.content.len(), self.length);
                assert!(
                    to <= length && self.content == plain(length)[from..to],
                    "a plain response is not what was sent"
                );
                self.content.clear();
                assert!(!done || to == length, "a response ends after {to} of {length} bytes");
            }
            Some(Ask::Upload(length)) if done => {
                assert_eq!(
                    String::from_utf8_lossy(&self.content),
                    length.to_string(),
                    "an upload is not what was sent"
                );
            }
            Some(Ask::Reliable) if done => {
                let text = String::from_utf8(std::mem::take(&mut self.content)).expect("items are text");
                if text != "timeout;" {
                    let numbers = text.trim_end_matches(';').split_once(',').expect("a range of items");
                    let (from, to): (u64, u64) =
                        (numbers.0.parse().expect("a number"), numbers.1.parse().expect("a number"));
                    assert_eq!(from, self.reliable + 1, "items of the channel r up to {} are there", self.reliable);
                    self.reliable = to;
                }
            }
            Some(Ask::Upload(_) | Ask::Reliable | Ask::Socket(_) | Ask::Direct(_)) | None => {}
            Some(Ask::Stream(_) | Ask::Poll(_)) => {
                while let Some(end) = self.content.iter().position(|&byte| byte == b';') {
                    let item: Vec<u8> =
                        self.content.drain(..=end).filter(|&byte| byte != b'~' && byte != b';').collect();
                    self.take_item(&String::from_utf8(item).expect("items are text"));
                }
            }
        }
    }

    fn take_item(&mut self, item: &str) {
        let Some(Item { global, channel, number }) = Item::read(item) else {
            assert!(item == "hello" || item == "timeout", "{item:?} was never published");
            return;
        };
        assert!(global > self.last, "item {global} comes after {}: the order of publishing is lost", self.last);
        self.last = global;
        if let Some((known, last)) = self.channels.get_mut(channel) {
            let gap = if *last == 0 { number > *known + 1 } else { number != *last + 1 };
            assert!(!gap, "of channel {channel}, item {number} comes after {last} (when it began there were {known})");
            *last = number;
        }
    }

    /// Channels of a stream of which items are missing, though nobody has more to send.
    pub fn missing(&self, facts: &Facts) -> Vec<String> {
        let missing = |name: &str, known: u64, last: u64| {
            let latest = facts.published(name);
            (latest > known && last != latest).then(|| format!("{name}: {last} of {latest}, {known} before"))
        };
        let of_socket = self.socket.iter().flat_map(|socket| socket.missing(facts));
        self.channels.iter().filter_map(|(name, (known, last))| missing(name, *known, *last)).chain(of_socket).collect()
    }
}
