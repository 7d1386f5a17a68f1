// SPDX-License-Identifier: AGPL-3.0-or-later
//! Clients that know which message must come next.

use std::io;
use std::time::Instant;

use pushpin_tests::client::Client;

use crate::news::News;
use crate::trouble::{Deaths, Part};

/// How a client has fared.
pub struct Ending {
    /// What it is.
    pub kind: &'static str,
    /// When each message came, by its number from 1. WebSockets that had to come back lack some.
    pub arrivals: Vec<Option<Instant>>,
    /// How often it had to come back, which it may after some deaths.
    pub comebacks: usize,
    /// How often its connection was broken off before.
    pub broken: usize,
    /// What went wrong, if anything.
    pub error: Option<String>,
}

impl Ending {
    fn new(kind: &'static str) -> Self {
        Ending { kind, arrivals: Vec::new(), comebacks: 0, broken: 0, error: None }
    }

    fn finish(mut self, result: io::Result<()>) -> Self {
        let last = self.arrivals.len();
        self.error = result.err().map(|error| format!("{} after message {last}: {error}", self.kind));
        self
    }

    /// A message has come: the next one, or any later one if `first`.
    fn note(&mut self, number: usize, first: bool) -> io::Result<()> {
        let next = self.arrivals.len() + 1;
        if number != next && !(first && number > next) {
            return Err(io::Error::other(format!("{number} instead of {next}")));
        }
        self.arrivals.resize(number - 1, None);
        self.arrivals.push(Some(Instant::now()));
        Ok(())
    }
}

/// Takes whole numbers off the beginning of a text.
fn numbers(text: &mut String) -> io::Result<Vec<usize>> {
    let end = text.rfind(';').map_or(0, |end| end + 1);
    let whole: String = text.drain(..end).collect();
    let numbers = whole.split_terminator(';').map(|number| number.parse());
    numbers.collect::<Result<_, _>>().map_err(|_| io::Error::other(format!("`{whole}` is not a message")))
}

/// A stream, which nothing may end.
pub fn stream(port: u16, path: &str, news: &News) -> Ending {
    let mut ending = Ending::new("stream");
    let result = (|| {
        let mut client = Client::connect(port)?;
        client.get(path)?;
        client.head()?;
        client.expect("[stream opened]\n")?;
        news.wait();
        let mut text = String::new();
        loop {
            let chunk = client.chunk()?;
            if chunk.is_empty() {
                return Err(io::Error::other("the stream has ended"));
            }
            text.push_str(&String::from_utf8_lossy(&chunk));
            for number in numbers(&mut text)? {
                ending.note(number, false)?;
                if news.is_late_enough(number) {
                    return Ok(());
                }
            }
        }
    })();
    ending.finish(result)
}

/// Long-polls, one after the other, that say what they have.
pub fn polls(port: u16, news: &News, deaths: &Deaths) -> Ending {
    let mut ending = Ending::new("long-poll");
    let result = (|| {
        let mut client = Client::connect(port)?;
        news.wait();
        loop {
            let before = deaths.of(Part::Proxy);
            let seen = ending.arrivals.len();
            let answer = client.get(&format!("/poll?{seen}")).and_then(|()| client.response());
            match answer {
                Ok(response) if response.head.status == 200 => {
                    for number in numbers(&mut response.text())? {
                        ending.note(number, false)?;
                        if news.is_late_enough(number) {
                            return Ok(());
                        }
                    }
                }
                // It was under way.
                Ok(_) if deaths.since(Part::Proxy, before) => {
                    ending.comebacks += 1;
                    client = Client::connect(port)?;
                }
                Err(_) if deaths.since(Part::Proxy, before) => {
                    ending.broken += 1;
                    client = Client::connect(port)?;
                }
                Ok(response) => {
                    return Err(io::Error::other(format!("{} {}", response.head.status, response.text())));
                }
                Err(error) => return Err(error),
            }
        }
    })();
    ending.finish(result)
}

/// A WebSocket, and the next one when it has been closed and may be.
pub fn websockets(port: u16, news: &News, deaths: &Deaths) -> Ending {
    let mut ending = Ending::new("WebSocket");
    let mut begun = false;
    let result = loop {
        let before = deaths.of(Part::Proxy);
        match websocket(port, news, &mut ending, &mut begun) {
            Err(_) if deaths.since(Part::Proxy, before) => ending.comebacks += 1,
            result => break result,
        }
    };
    ending.finish(result)
}

fn websocket(port: u16, news: &News, ending: &mut Ending, begun: &mut bool) -> io::Result<()> {
    let mut client = Client::connect(port)?;
    let request = "GET /test/ws?channel=s HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.send(request.as_bytes())?;
    match client.head()?.status {
        101 => {}
        status => return Err(io::Error::other(format!("{status}"))),
    }
    if !std::mem::replace(begun, true) {
        news.wait();
    }
    let mut first = true;
    loop {
        let header = exactly(&mut client, 2)?;
        let [0x81, length @ ..126] = header[..] else {
            let text = client.rest().unwrap_or_default();
            return Err(io::Error::other(format!("{header:02x?} {}", String::from_utf8_lossy(&text))));
        };
        let mut text = String::from_utf8_lossy(&exactly(&mut client, length.into())?).into_owned();
        for number in numbers(&mut text)? {
            ending.note(number, first)?;
            first = false;
            if news.is_late_enough(number) {
                return Ok(());
            }
        }
    }
}

fn exactly(client: &mut Client, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(count);
    while bytes.len() < count {
        let some = client.some(count - bytes.len())?;
        if some.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend(some);
    }
    Ok(bytes)
}
