// SPDX-License-Identifier: AGPL-3.0-or-later
//! A site that lets clients wait for messages, and answers those of WebSockets. All its connections are in one thread.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use wire::websocket::accept_value;

use crate::frames;
use crate::http::{self, Head, take_message};
use crate::news::{News, To};
use crate::socket::Socket;
use crate::told::Told;

const LISTENER: Token = Token(0);

/// See the module.
pub struct Backend {
    pub port: u16,
    listener: TcpListener,
    poll: Poll,
    site: Site,
}

/// What it knows.
struct Site {
    news: Arc<News>,
    told: Arc<Told>,
}

/// One connection to it.
struct Visit {
    socket: Socket,
    /// It speaks WebSocket from now on.
    is_websocket: bool,
}

impl Backend {
    pub fn new(news: Arc<News>, told: Arc<Told>) -> Self {
        let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let poll = Poll::new().unwrap();
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).unwrap();
        let port = listener.local_addr().unwrap().port();
        Backend { port, listener, poll, site: Site { news, told } }
    }

    /// Serves until it is over.
    pub fn run(mut self, is_over: impl Fn() -> bool) {
        let mut events = Events::with_capacity(1024);
        let (mut visits, mut next) = (HashMap::<usize, Visit>::new(), 1);
        while !is_over() {
            // It may be interrupted.
            let _ = self.poll.poll(&mut events, Some(Duration::from_millis(100)));
            for event in &events {
                if event.token() == LISTENER {
                    while let Ok((stream, _)) = self.listener.accept() {
                        let socket = Socket::new(stream, Token(next), self.poll.registry()).unwrap();
                        visits.insert(next, Visit { socket, is_websocket: false });
                        next += 1;
                    }
                    continue;
                }
                let index = event.token().0;
                let Some(visit) = visits.get_mut(&index) else { continue };
                let read = visit.socket.read().is_ok();
                if self.site.serve(visit).is_none() || !read || visit.socket.write().is_err() {
                    visits.remove(&index);
                }
            }
        }
    }
}

impl Site {
    /// Answers what has come, or nothing more.
    fn serve(&self, visit: &mut Visit) -> Option<()> {
        let Socket { input, output, .. } = &mut visit.socket;
        while !visit.is_websocket {
            let Some((head, body)) = take_message(input).ok()? else { return Some(()) };
            visit.is_websocket = self.answer(&head, &String::from_utf8_lossy(&body), output)?;
        }
        while let Some((kind, content)) = frames::take(input) {
            match kind {
                frames::TEXT => frames::text(&answer_to(&String::from_utf8_lossy(&content)), output),
                _ => return None,
            }
        }
        Some(())
    }

    /// Answers a request. Tells whether WebSocket follows.
    fn answer(&self, head: &Head, body: &str, out: &mut Vec<u8>) -> Option<bool> {
        let (path, query) = head.path().split_once('?').unwrap_or((head.path(), ""));
        let mut parts = path[1..].splitn(3, '/');
        let (kind, letters, rest) = (parts.next()?, parts.next()?, parts.next().unwrap_or_default());
        match kind {
            "stream" => {
                let channels: String = letters.chars().map(|letter| format!("Grip-Channel: {letter}\r\n")).collect();
                let headers = format!("Content-Type: text/plain\r\nGrip-Hold: stream\r\n{channels}");
                http::response(&headers, b"s0;", out);
            }
            "poll" => {
                let to = letters.chars().next().and_then(To::of)?;
                let newest = self.news.channel(to).newest();
                let seen: usize = query.parse().ok()?;
                let page: String = (seen + 1..=newest).map(|number| format!("{letters}{number};")).collect();
                let hold = match page.is_empty() {
                    true => format!(
                        "Grip-Hold: response\r\nGrip-Channel: {letters}; prev-id={seen}\r\nGrip-Timeout: 120\r\n"
                    ),
                    false => String::new(),
                };
                http::response(&format!("Content-Type: text/plain\r\n{hold}"), page.as_bytes(), out);
            }
            "over" => {
                let uncertain =
                    head.header("Content-Bytes-Uncertain").and_then(|value| value.parse().ok()).unwrap_or(0);
                let (answer, messages) = over_http(body, letters);
                self.told.tell(rest, &messages, uncertain);
                let headers = "Content-Type: application/websocket-events\r\nSec-WebSocket-Extensions: grip\r\n";
                http::response(headers, answer.as_bytes(), out);
            }
            "direct" => {
                let accept = accept_value(head.header("Sec-WebSocket-Key")?.as_bytes());
                let head = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Extensions: grip\r\n\r\n"
                );
                out.extend(head.bytes());
                letters.chars().for_each(|letter| frames::text(&subscribe_to(letter), out));
                return Some(true);
            }
            // Whether it is there, asks one who has no client.
            _ => http::response("Content-Type: text/plain\r\n", b"here", out),
        }
        Some(false)
    }
}

fn subscribe_to(channel: char) -> String {
    format!(r#"c:{{"type":"subscribe","channel":"{channel}"}}"#)
}

fn answer_to(message: &str) -> String {
    format!("m:{}", message.replace('e', "a"))
}

/// Answers events; the messages that were among them.
fn over_http(mut body: &str, letters: &str) -> (String, Vec<String>) {
    let (mut answer, mut messages) = (String::new(), Vec::new());
    let mut add = |text: &str| answer += &format!("TEXT {:x}\r\n{text}\r\n", text.len());
    let mut opened = false;
    while let Some((line, rest)) = body.split_once("\r\n") {
        let (kind, length) = line.split_once(' ').unwrap_or((line, ""));
        let length = usize::from_str_radix(length, 16).ok();
        let content = length.and_then(|length| rest.get(..length)).unwrap_or_default();
        body = length.and_then(|length| rest.get(length + 2..)).unwrap_or(rest);
        match kind {
            "OPEN" => {
                opened = true;
                letters.chars().for_each(|letter| add(&subscribe_to(letter)));
            }
            "TEXT" => {
                add(&answer_to(content));
                messages.push(content.to_string());
            }
            _ => {}
        }
    }
    (if opened { format!("OPEN\r\n{answer}") } else { answer }, messages)
}
