// SPDX-License-Identifier: AGPL-3.0-or-later
//! The physical limit: a bare fan-out server that only keeps sockets and writes to them.
//!
//! Serves the same requests as the systems under test, without a proxy or an origin behind it.
//! Publishes arrive on a ZeroMQ PULL socket as channel name, NUL, content.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use clap::Args;
use mio::{Interest, Token};

use crate::followers::{end_with_parent, Followers};
use crate::http::{query, RequestHead};
use crate::net::loopback;
use crate::publish::Format;
use crate::server::{write_response, App, Server, FOREIGN};
use crate::ws::{write_text_frame, HANDSHAKE_ACCEPT};
use crate::zmtp;

#[derive(Args, Clone)]
pub struct LimitArgs {
    #[arg(long, default_value = "127.0.0.1:7999", value_parser = loopback)]
    pub listen: SocketAddr,
    /// ZeroMQ PULL address for publishes
    #[arg(long, default_value = "127.0.0.1:5560", value_parser = loopback)]
    pub publish: SocketAddr,
    /// Join messages that wait together into one write per connection
    #[arg(long)]
    pub coalesce: bool,
    /// Processes to share the connections; each takes publishes on a port of its own
    #[arg(long, default_value_t = 1)]
    pub processes: u16,
    #[arg(long, hide = true)]
    pub follower: bool,
}

pub fn run(args: &LimitArgs) -> io::Result<()> {
    if args.follower {
        end_with_parent();
    }
    let mut followers = Followers::start(args.listen, args.publish, args.processes, args.coalesce)?;
    let shared = args.follower || args.processes > 1;
    let mut server = Server::bind(args.listen, shared, Holds::default())?;
    let listener = TcpListener::bind(args.publish)?;
    listener.set_nonblocking(true)?;
    let mut listener = mio::net::TcpListener::from_std(listener);
    let registry = server.poll.registry();
    registry.register(&mut listener, Token(FOREIGN), Interest::READABLE)?;
    let mut publishers: Vec<Publisher> = Vec::new();
    loop {
        for token in server.turn(None)? {
            if token.0 == FOREIGN {
                accept(&server, &listener, &mut publishers)?;
            } else if let Some(publisher) = publishers.get_mut(token.0 - FOREIGN - 1) {
                publisher.read(&mut server, &mut followers, args.coalesce)?;
            }
        }
    }
}

fn accept(server: &Server<Holds>, listener: &mio::net::TcpListener, publishers: &mut Vec<Publisher>) -> io::Result<()> {
    while let Ok((stream, _)) = listener.accept() {
        let stream: TcpStream = stream.into();
        stream.set_nonblocking(false)?;
        let Ok(stream) = zmtp::handshake(stream, "PULL") else { continue };
        stream.set_nonblocking(true)?;
        let mut stream = mio::net::TcpStream::from_std(stream);
        let token = Token(FOREIGN + 1 + publishers.len());
        server.poll.registry().register(&mut stream, token, Interest::READABLE)?;
        publishers.push(Publisher { stream, input: Vec::new() });
    }
    Ok(())
}

/// Who is held on which channel.
#[derive(Default)]
struct Holds {
    channels: HashMap<Vec<u8>, Vec<(usize, Format)>>,
    channel_of: HashMap<usize, Vec<u8>>,
}

impl App for Holds {
    fn respond(&mut self, connection: usize, request: &RequestHead, _: &[u8], out: &mut Vec<u8>) {
        let path = request.target.split('?').next().unwrap_or_default();
        let (format, head) = match path {
            "/plain" => return write_response("Content-Type: text/plain\r\n", &[b'x'; 100], out),
            "/response" => (Format::Response, String::new()),
            "/ws" => {
                let accept = format!("Sec-WebSocket-Accept: {HANDSHAKE_ACCEPT}\r\n\r\n");
                (
                    Format::Ws,
                    format!(
                        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{accept}"
                    ),
                )
            }
            _ => {
                let format = if path == "/sse" { Format::Sse } else { Format::Stream };
                (format, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_string())
            }
        };
        out.extend_from_slice(head.as_bytes());
        let channel = query(request.target, "channel").unwrap_or("c0").as_bytes().to_vec();
        self.channels.entry(channel.clone()).or_default().push((connection, format));
        self.channel_of.insert(connection, channel);
    }

    fn gone(&mut self, connection: usize) {
        let Some(channel) = self.channel_of.remove(&connection) else { return };
        if let Some(holds) = self.channels.get_mut(&channel) {
            holds.retain(|h| h.0 != connection);
        }
    }
}

struct Publisher {
    stream: mio::net::TcpStream,
    input: Vec<u8>,
}

impl Publisher {
    fn read(&mut self, server: &mut Server<Holds>, followers: &mut Followers, coalesce: bool) -> io::Result<()> {
        let mut buffer = [0u8; 64 * 1024];
        while let Ok(size @ 1..) = self.stream.read(&mut buffer) {
            self.input.extend_from_slice(&buffer[..size]);
            let mut rest = &self.input[..];
            let mut batch: Vec<(&[u8], Vec<&[u8]>)> = Vec::new();
            while let Some(frame) = zmtp::take_frame(&mut rest) {
                followers.pass_on(frame)?;
                let Some(nul) = memchr::memchr(0, frame) else { continue };
                let (channel, content) = (&frame[..nul], &frame[nul + 1..]);
                match batch.iter_mut().find(|(c, _)| coalesce && *c == channel) {
                    Some((_, contents)) => contents.push(content),
                    None => batch.push((channel, vec![content])),
                }
            }
            for (channel, contents) in batch {
                deliver(server, channel, &contents);
            }
            let used = self.input.len() - rest.len();
            self.input.drain(..used);
        }
        Ok(())
    }
}

/// Writes the messages to everyone on the channel, with one write per connection.
fn deliver(server: &mut Server<Holds>, channel: &[u8], contents: &[&[u8]]) {
    let Some(holds) = server.app.channels.get_mut(channel) else { return };
    let targets = std::mem::take(holds);
    let mut encoded: [Option<Vec<u8>>; 4] = Default::default();
    for (connection, format) in &targets {
        let bytes = encoded[*format as usize].get_or_insert_with(|| encode(*format, contents));
        server.send(*connection, bytes);
    }
    // A response ends its hold; connections found closed while sending are gone already.
    let app = &mut server.app;
    let kept = targets.into_iter().filter(|(c, f)| *f != Format::Response && app.channel_of.contains_key(c));
    let kept: Vec<_> = kept.collect();
    app.channels.entry(channel.to_vec()).or_default().extend(kept);
}

fn encode(format: Format, contents: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    match format {
        Format::Response => write_response("Content-Type: text/plain\r\n", contents[0], &mut out),
        Format::Ws => contents.iter().for_each(|content| write_text_frame(content, &mut out)),
        Format::Stream => contents.iter().for_each(|content| write_chunk(&[content], &mut out)),
        Format::Sse => contents.iter().for_each(|content| write_chunk(&[b"data: ", content, b"\n\n"], &mut out)),
    }
    out
}

fn write_chunk(parts: &[&[u8]], out: &mut Vec<u8>) {
    let size: usize = parts.iter().map(|p| p.len()).sum();
    let _ = write!(out, "{size:x}\r\n");
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b"\r\n");
}
