// SPDX-License-Identifier: AGPL-3.0-or-later
//! A minimal single-threaded HTTP/1.1 server on epoll, shared by `origin` and `limit`.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::http::{self, Body, Chunked, Piece, RequestHead};
use crate::net;

const LISTENER: Token = Token(usize::MAX - 1);
/// Tokens from here up belong to the caller.
pub const FOREIGN: usize = usize::MAX / 2;
/// A connection whose unsent output grows beyond this is dropped.
const MAX_UNSENT: usize = 16 << 20;

pub trait App {
    /// Appends the response to `out`; may leave it empty to answer later.
    fn respond(&mut self, connection: usize, request: &RequestHead, body: &[u8], out: &mut Vec<u8>);
    fn gone(&mut self, _connection: usize) {}
    /// Whether the client speaks WebSocket after the response.
    fn upgrades(&self, _request: &RequestHead) -> bool {
        false
    }
    /// Appends what is said to frames; gives the bytes of those that are whole.
    fn frames(&mut self, input: &[u8], _out: &mut Vec<u8>) -> usize {
        input.len()
    }
}

pub struct Server<A> {
    pub app: A,
    pub poll: Poll,
    events: Events,
    listener: TcpListener,
    connections: Slab<Connection>,
    buffer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    unsent: Vec<u8>,
    close: bool,
    websocket: bool,
}

impl<A: App> Server<A> {
    /// `shared`: other processes may listen on the same address.
    pub fn bind(addr: SocketAddr, shared: bool, app: A) -> io::Result<Self> {
        net::raise_open_files();
        let poll = Poll::new()?;
        let mut listener = net::listen(addr, shared)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let (events, buffer) = (Events::with_capacity(1024), vec![0; 64 * 1024]);
        Ok(Server { app, poll, events, listener, connections: Slab::new(), buffer })
    }

    /// Waits for events and serves them; returns the foreign tokens that became ready.
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<Vec<Token>> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
            _ => {}
        }
        let ready: Vec<_> = self.events.iter().map(|e| (e.token(), e.is_readable(), e.is_writable())).collect();
        let mut foreign = Vec::new();
        for (token, readable, writable) in ready {
            match token {
                LISTENER => self.accept()?,
                Token(t) if t >= FOREIGN => foreign.push(token),
                Token(slot) => {
                    if writable {
                        self.flush(slot);
                    }
                    if readable {
                        self.read(slot);
                    }
                }
            }
        }
        Ok(foreign)
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            stream.set_nodelay(true)?;
            let entry = self.connections.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(entry.key()), interest)?;
            entry.insert(Connection { stream, input: Vec::new(), unsent: Vec::new(), close: false, websocket: false });
        }
    }

    fn read(&mut self, slot: usize) {
        loop {
            let Some(connection) = self.connections.get_mut(slot) else { return };
            let size = match connection.stream.read(&mut self.buffer) {
                Ok(0) => return self.remove(slot),
                Ok(size) => size,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.remove(slot),
            };
            connection.input.extend_from_slice(&self.buffer[..size]);
            if self.serve(slot).is_err() {
                return self.remove(slot);
            }
            if size < self.buffer.len() {
                return;
            }
        }
    }

    /// Answers every complete request in the connection's input.
    fn serve(&mut self, slot: usize) -> Result<(), http::Malformed> {
        let Some(connection) = self.connections.get_mut(slot) else { return Ok(()) };
        let input = std::mem::take(&mut connection.input);
        let (mut rest, mut out) = (&input[..], Vec::new());
        while !connection.websocket {
            let Some(request) = http::request_head(rest)? else { break };
            let after_head = &rest[request.size..];
            let Some((body, used)) = take_body(request.body, after_head)? else { break };
            connection.close |= request.close;
            connection.websocket = self.app.upgrades(&request);
            self.app.respond(slot, &request, &body, &mut out);
            rest = &after_head[used..];
        }
        if connection.websocket {
            let used = self.app.frames(rest, &mut out);
            rest = &rest[used..];
        }
        connection.input = rest.to_vec();
        if !out.is_empty() {
            self.send(slot, &out);
        }
        Ok(())
    }

    /// Sends `bytes` after whatever is still unsent on the connection.
    pub fn send(&mut self, slot: usize, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.unsent.is_empty() {
            return self.write(slot, bytes);
        }
        connection.unsent.extend_from_slice(bytes); // the socket will say when it takes more
        if connection.unsent.len() > MAX_UNSENT {
            self.remove(slot);
        }
    }

    fn flush(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let unsent = std::mem::take(&mut connection.unsent);
        self.write(slot, &unsent);
    }

    fn write(&mut self, slot: usize, mut bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        while !bytes.is_empty() {
            match connection.stream.write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && bytes.len() < MAX_UNSENT => {
                    connection.unsent = bytes.to_vec();
                    return;
                }
                Err(_) => return self.remove(slot),
            }
        }
        if connection.close {
            self.remove(slot);
        }
    }

    fn remove(&mut self, slot: usize) {
        if self.connections.try_remove(slot).is_some() {
            self.app.gone(slot);
        }
    }
}

/// The request body and the bytes it takes up, or `None` while it is incomplete.
fn take_body(framing: Body, mut input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, http::Malformed> {
    let available = input.len();
    match framing {
        Body::Length(length) => Ok(input.get(..length).map(|body| (body.to_vec(), length))),
        Body::UntilClose => Err(http::Malformed),
        Body::Chunked => {
            let (mut chunked, mut body) = (Chunked::default(), Vec::new());
            loop {
                match chunked.next(&mut input)? {
                    Piece::Data(data) => body.extend_from_slice(data),
                    Piece::NeedMore => return Ok(None),
                    Piece::End => return Ok(Some((body, available - input.len()))),
                }
            }
        }
    }
}

/// Appends a complete response with a body of known length.
pub fn write_response(headers: &str, body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    out.extend_from_slice(headers.as_bytes());
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(body.len().to_string().as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}
