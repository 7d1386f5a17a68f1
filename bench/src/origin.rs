// SPDX-License-Identifier: AGPL-3.0-or-later
//! The origin server behind the proxy under test: instructs it with GRIP headers.

use std::io;
use std::net::SocketAddr;

use crate::filter;
use crate::http::{query, RequestHead};
use crate::server::{write_response, App, Server};
use crate::ws;

const MAX_PLAIN: usize = 16 << 20;

pub fn run(addr: SocketAddr) -> io::Result<()> {
    let mut server = Server::bind(addr, false, Origin { filler: Vec::new() })?;
    loop {
        server.turn(None)?;
    }
}

struct Origin {
    filler: Vec<u8>,
}

impl App for Origin {
    fn respond(&mut self, _: usize, request: &RequestHead, body: &[u8], out: &mut Vec<u8>) {
        let channel = query(request.target, "channel").unwrap_or("c0");
        let user = || query(request.target, "user").and_then(|user| user.parse().ok()).unwrap_or(0);
        let subscription = match query(request.target, "filter") {
            Some(filter) => filter::instruct(channel, filter, user()),
            None => format!("Grip-Channel: {channel}\r\n"),
        };
        let hold = |mode: &str, kind: &str| format!("Content-Type: {kind}\r\nGrip-Hold: {mode}\r\n{subscription}");
        match request.target.split('?').next().unwrap_or_default() {
            "/plain" => {
                let size = query(request.target, "size").and_then(|s| s.parse().ok()).unwrap_or(100).min(MAX_PLAIN);
                if self.filler.len() < size {
                    self.filler.resize(size, b'x');
                }
                write_response("Content-Type: text/plain\r\n", &self.filler[..size], out);
            }
            "/stream" => write_response(&hold("stream", "text/plain"), b"", out),
            "/sse" => write_response(&hold("stream", "text/event-stream"), b"", out),
            "/response" => write_response(&hold("response", "text/plain"), b"timed out", out),
            "/check" => write_response(filter::verdict(user()), b"", out),
            "/ws" => {
                let headers = "Content-Type: application/websocket-events\r\nSec-WebSocket-Extensions: grip\r\n";
                write_response(headers, &websocket_events(body, channel), out);
            }
            "/echo" if request.key.is_some() => {
                let accept = ws::accept(request.key.unwrap_or_default());
                let head = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: {accept}\r\n\r\n"
                );
                out.extend_from_slice(head.as_bytes());
            }
            _ => out.extend_from_slice(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        }
    }

    fn upgrades(&self, request: &RequestHead) -> bool {
        request.target == "/echo" && request.key.is_some()
    }

    fn frames(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        ws::echo(input, out)
    }
}

/// Accepts and subscribes a new WebSocket; otherwise echoes what must be acknowledged.
fn websocket_events(events: &[u8], channel: &str) -> Vec<u8> {
    if events.starts_with(b"OPEN") {
        let subscribe = format!("c:{{\"type\":\"subscribe\",\"channel\":\"{channel}\"}}");
        return format!("OPEN\r\nTEXT {:x}\r\n{subscribe}\r\n", subscribe.len()).into_bytes();
    }
    if events.starts_with(b"CLOSE") {
        events.to_vec()
    } else {
        Vec::new()
    }
}
