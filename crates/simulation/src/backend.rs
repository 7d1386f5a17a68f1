// SPDX-License-Identifier: AGPL-3.0-or-later
//! The backend: it reads requests of HTTP/1.1 from its connections as they come, writes its [`answers`](crate::answers) as there is room,
//! and in bad weather refuses, breaks off and is slow. It remembers whom it has done that to, since only these may notice.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use wire::http1::{
    BodyDecoder, BodyFraming, CHUNK_SUFFIX, LAST_CHUNK, Limits, StatusLine, Version, chunk_prefix, parse_request,
    write_response_head,
};
use wire::websocket::accept_value;

use crate::answers::{Answer, answer};
use crate::conversations::{Asked, Conversations, NAME};
use crate::direct::{Direct, Directs};
use crate::random::Random;
use crate::wires::{Wires, addresses};

/// One of so many requests, or connections, has a bad time in bad weather.
const RARITY: usize = 12;

/// One connection.
#[derive(Default)]
struct Conn {
    buffer: Vec<u8>,
    request: Option<Request>,
    /// Of the answer, what is to be written.
    out: Vec<u8>,
    /// It ends with what is to be written.
    is_last: bool,
    /// It breaks off when so many bytes are left to be written.
    breaks_at: Option<usize>,
    /// It neither reads nor writes for now.
    is_lazy: bool,
    /// The last request that it carried.
    tag: String,
    /// It has become a WebSocket.
    socket: Option<Direct>,
}

/// A request that is being read.
struct Request {
    path: String,
    /// What the proxy says the client has of the channel r.
    last: Option<u64>,
    asked: Asked,
    decoder: BodyDecoder,
    body: Vec<u8>,
    is_answered: bool,
}

/// See the module.
#[derive(Default)]
pub struct Backend {
    conns: BTreeMap<u32, Conn>,
    /// WebSockets over HTTP, and others.
    pub conversations: Conversations,
    /// See `conversations`.
    pub directs: Directs,
    /// Items of the channel r that are stored.
    pub stored: u64,
    /// It misbehaves.
    pub is_rough: bool,
    /// How often it has done what any request may have noticed: refused a connection, let one wait, or closed one.
    pub troubles: usize,
    /// Requests that have noticed something, by what makes their paths unique.
    hurt: BTreeSet<String>,
    /// Requests that may not be repeated, and have come.
    once: BTreeSet<String>,
    /// Connections that it does not answer.
    ignored: BTreeSet<u32>,
    /// Requests that have come by a connection that had carried others.
    pub reused: usize,
}

impl Backend {
    /// A backend without connections.
    pub fn new(is_rough: bool) -> Self {
        Backend { is_rough, ..Backend::default() }
    }

    /// Whether a request was broken off, or got no answer for some time.
    pub fn has_hurt(&self, tag: &str) -> bool {
        self.hurt.contains(tag)
    }

    /// How many it has done that to.
    pub fn hurt(&self) -> usize {
        self.hurt.len()
    }

    /// It is kind from now on.
    pub fn calm(&mut self) {
        self.is_rough = false;
        self.conns.values_mut().for_each(|conn| conn.is_lazy = false);
    }

    /// Connections on which it has something to do.
    pub fn ready(&self, wires: &Wires) -> Vec<u32> {
        let has_work = |id: &u32| match self.conns.get(id) {
            None => wires.asks(*id).is_some() && !self.ignored.contains(id),
            Some(conn) => {
                let writes = !conn.out.is_empty() && wires.room(*id) > 0;
                !conn.is_lazy && (writes || wires.waiting(*id) > 0 || wires.is_at_end(*id))
            }
        };
        wires.ids().into_iter().filter(has_work).collect()
    }

    /// Goes on with one connection.
    pub fn act(&mut self, id: u32, wires: &mut Wires, random: &mut Random) {
        if let Some(address) = wires.asks(id) {
            return self.take(id, address == addresses()[0], wires, random);
        }
        if wires.is_left(id) {
            // What it has not read by now would come behind what is sent again.
            wires.read(id, usize::MAX);
        }
        self.read(id, wires, random);
        self.write(id, wires, random);
        if wires.is_at_end(id) && self.conns.contains_key(&id) {
            self.end(id, false, wires);
        }
    }

    fn end(&mut self, id: u32, at_once: bool, wires: &mut Wires) {
        if let Some(socket) = self.conns.remove(&id).and_then(|conn| conn.socket) {
            self.directs.end(&socket.name);
        }
        wires.hang_up(id, at_once);
    }

    /// `is_first`: at the address that is tried first.
    fn take(&mut self, id: u32, is_first: bool, wires: &mut Wires, random: &mut Random) {
        let is_away = random.once_in(RARITY) && (is_first || self.is_rough);
        if !is_away {
            self.conns.insert(id, Conn::default());
            return wires.accept(id);
        }
        self.troubles += usize::from(!is_first);
        match random.once_in(3) {
            true => drop(self.ignored.insert(id)),
            false => wires.refuse(id),
        }
    }

    /// Something that a kind backend does not do.
    pub fn misbehave(&mut self, wires: &mut Wires, random: &mut Random) {
        let ids: Vec<u32> = self.conns.keys().copied().collect();
        let Some(&id) = ids.get(random.below(ids.len())) else { return };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        self.hurt.insert(conn.tag.clone());
        self.troubles += 1;
        match random.below(3) {
            0 => conn.is_lazy = !conn.is_lazy,
            how => {
                // A body that only the end of its connection ends would seem complete.
                let at_once = how == 1 || conn.is_last;
                self.end(id, at_once, wires);
            }
        }
    }

    fn read(&mut self, id: u32, wires: &mut Wires, random: &mut Random) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let most = 1 + random.below(3_000);
        conn.buffer.extend(wires.read(id, most));
        loop {
            let Some(conn) = self.conns.get_mut(&id) else { return };
            if let Some(socket) = &mut conn.socket {
                socket.on_bytes(&mut conn.buffer, &mut conn.out, &mut self.directs);
                // It closes when the client has.
                conn.is_last = socket.is_closed();
                return;
            }
            let Some(request) = &mut conn.request else {
                if conn.is_last || !self.read_head(id, random) {
                    return;
                }
                continue;
            };
            while !request.decoder.is_done() {
                let decoded = request.decoder.decode(&conn.buffer, usize::MAX).expect("bodies are well-formed");
                request.body.extend_from_slice(decoded.payload);
                let consumed = decoded.consumed;
                conn.buffer.drain(..consumed);
                if consumed == 0 {
                    break;
                }
            }
            let is_done = request.decoder.is_done();
            if !request.is_answered && (is_done || request.path.starts_with("both/")) {
                request.is_answered = true;
                let (path, last, asked) = (request.path.clone(), request.last, request.asked.clone());
                let made = answer(&path, last, &asked, &request.body, self.stored, &mut self.conversations);
                Self::begin(conn, made, self.is_rough, random);
                if conn.breaks_at.is_some() {
                    self.hurt.insert(conn.tag.clone());
                }
            }
            if !is_done || !conn.out.is_empty() {
                return;
            }
            conn.request = None;
        }
    }

    /// Reads the head of a request. Whether there is one.
    fn read_head(&mut self, id: u32, random: &mut Random) -> bool {
        let Some(conn) = self.conns.get_mut(&id) else { return false };
        let (request, tag, used, is_unsafe) = {
            let Some((head, used)) = parse_request(&conn.buffer, &Limits::default()).expect("requests are well-formed")
            else {
                return false;
            };
            let (path, tag) = head.path.split_once('?').expect("paths have tags");
            if head.websocket {
                let name = format!("{tag}#{id}");
                let channels = path.rsplit_once('/').map_or("", |(_, channels)| channels);
                let accept = accept_value(head.header("Sec-WebSocket-Key").expect("handshakes have keys"));
                let (socket, begins) = self.directs.open(&name, channels);
                conn.out.extend_from_slice(
                    format!(
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Extensions: grip\r\n{NAME}: {name}\r\n\r\n"
                    )
                    .as_bytes(),
                );
                conn.out.extend_from_slice(&begins);
                (conn.socket, conn.tag) = (Some(socket), tag.to_string());
                conn.buffer.drain(..used);
                return true;
            }
            let header = |name: &str| head.header(name).map(|value| String::from_utf8_lossy(value).into_owned());
            let last = header("Grip-Last").and_then(|value| value.strip_prefix("r; last-id=")?.parse().ok());
            let uncertain = header("Content-Bytes-Uncertain").map(|bytes| bytes.parse().expect("a number of bytes"));
            let request = Request {
                path: path.trim_start_matches('/').to_string(),
                last,
                asked: Asked { name: header("Connection-Id").unwrap_or_default(), uncertain },
                decoder: BodyDecoder::new(head.framing),
                body: Vec::new(),
                is_answered: false,
            };
            let is_unsafe = head.method == "POST" && !path.starts_with("/socket/");
            (request, tag.to_string(), used, is_unsafe)
        };
        conn.buffer.drain(..used);
        self.reused += usize::from(!conn.tag.is_empty());
        if is_unsafe {
            assert!(self.once.insert(tag.clone()), "the request {tag} may not be repeated, and comes twice");
        }
        conn.tag = tag;
        conn.request = Some(request);
        if self.is_rough && random.once_in(RARITY * 4) {
            conn.is_lazy = true;
            self.hurt.insert(conn.tag.clone());
        }
        true
    }

    /// Begins an answer, framed in one of the ways that there are.
    fn begin(conn: &mut Conn, answer: Answer, is_rough: bool, random: &mut Random) {
        let framing = match random.below(6) {
            0 => BodyFraming::UntilClose,
            1..3 => BodyFraming::Chunked,
            _ => BodyFraming::Length(answer.body.len() as u64),
        };
        conn.is_last = framing == BodyFraming::UntilClose || random.once_in(6);
        let headers = answer.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let status = StatusLine { version: Version::Http11, code: 200, reason: b"OK" };
        let before = conn.out.len();
        write_response_head(&mut conn.out, status, headers, framing, !conn.is_last).expect("headers are good");
        match framing {
            BodyFraming::Chunked => {
                for piece in answer.body.chunks(1 + random.below(900)) {
                    conn.out
                        .extend_from_slice(chunk_prefix(NonZeroUsize::new(piece.len()).expect("not empty")).as_slice());
                    conn.out.extend_from_slice(piece);
                    conn.out.extend_from_slice(CHUNK_SUFFIX);
                }
                conn.out.extend_from_slice(LAST_CHUNK);
            }
            _ => conn.out.extend_from_slice(&answer.body),
        }
        if is_rough && random.once_in(RARITY) {
            conn.breaks_at = Some(1 + random.below(conn.out.len() - before));
        }
    }

    fn write(&mut self, id: u32, wires: &mut Wires, random: &mut Random) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let left = conn.breaks_at.unwrap_or(0);
        let most = wires.room(id).min(1 + random.below(2_000)).min(conn.out.len() - left.min(conn.out.len()));
        if most > 0 {
            let bytes: Vec<u8> = conn.out.drain(..most).collect();
            wires.write(id, &bytes);
        }
        let breaks = conn.breaks_at.is_some_and(|left| conn.out.len() <= left);
        let is_over = conn.out.is_empty() && conn.request.as_ref().is_none_or(|request| request.decoder.is_done());
        if breaks || (conn.is_last && is_over) {
            let at_once = breaks && (conn.is_last || random.once_in(2));
            return self.end(id, at_once, wires);
        }
        if conn.out.is_empty() {
            // What has come meanwhile may be the next request.
            if conn.request.as_ref().is_some_and(|request| request.is_answered && request.decoder.is_done()) {
                conn.request = None;
                self.read(id, wires, random);
            }
        }
    }
}
