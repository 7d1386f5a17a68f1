// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is published: messages with numbers, of which those for long-polls have numbers of their own.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pushpin_tests::client::Client;

/// For so long a publisher repeats a message without an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whom messages are for, which is a channel of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum To {
    /// Those who are held all the time.
    Held,
    /// Those who ask for what follows the last they have.
    Polls,
}

/// Messages of a channel so far.
pub struct Channel {
    name: &'static str,
    /// The newest, which may be on its way.
    newest: AtomicUsize,
    /// With this one clients have heard enough.
    enough: AtomicUsize,
    published: Mutex<Vec<Published>>,
}

/// When a message was published.
#[derive(Clone, Copy)]
pub struct Published {
    /// The first attempt.
    pub sent: Instant,
    /// The answer.
    pub acknowledged: Instant,
    /// How often it was sent.
    pub attempts: usize,
}

impl Channel {
    fn new(name: &'static str) -> Self {
        let (newest, enough) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
        Channel { name, newest, enough, published: Mutex::default() }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn newest(&self) -> usize {
        self.newest.load(Ordering::SeqCst)
    }

    /// Whether a client that has got this message has heard enough.
    pub fn is_late_enough(&self, number: usize) -> bool {
        number >= self.enough.load(Ordering::SeqCst)
    }

    /// All that are published.
    pub fn published(&self) -> Vec<Published> {
        self.published.lock().unwrap().clone()
    }

    /// When the message behind this one was published, if it has been.
    pub fn next_came(&self, number: usize) -> Option<Instant> {
        self.published.lock().unwrap().get(number).map(|published| published.acknowledged)
    }
}

/// All channels.
pub struct News {
    held: Channel,
    polls: Channel,
    stopped: AtomicBool,
}

/// One message in so many is for long-polls as well, each of which costs a request.
const POLLS_SHARE: usize = 8;

impl News {
    pub fn new() -> Self {
        News { held: Channel::new("s"), polls: Channel::new("p"), stopped: AtomicBool::new(false) }
    }

    pub fn channel(&self, to: To) -> &Channel {
        match to {
            To::Held => &self.held,
            To::Polls => &self.polls,
        }
    }

    pub fn channels(&self) -> [&Channel; 2] {
        [&self.held, &self.polls]
    }

    /// Clients have heard enough with any message from now on.
    pub fn end(&self) {
        for channel in self.channels() {
            channel.enough.store(channel.newest() + 1, Ordering::SeqCst);
        }
    }

    /// Nobody is there any more.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Publishes one after the other over HTTP, each again until it is acknowledged.
    pub fn publish(&self, port: u16, pace: Duration) {
        let mut before: Option<String> = None;
        for round in 0.. {
            if self.is_stopped() {
                return;
            }
            let mut items = vec![self.next_item(&self.held)];
            if round % POLLS_SHARE == 0 {
                items.push(self.next_item(&self.polls));
            }
            // The one before again, as a publisher does whose answer was lost with the handler.
            if let Some(before) = &before {
                post(port, before);
            }
            let body = format!(r#"{{"items":[{}]}}"#, items.join(","));
            let published = post(port, &body);
            before = Some(body);
            self.held.published.lock().unwrap().push(published);
            if round % POLLS_SHARE == 0 {
                self.polls.published.lock().unwrap().push(published);
            }
            thread::sleep(pace);
        }
    }

    fn next_item(&self, channel: &Channel) -> String {
        // As a site does: what is stored first can be asked for as soon as anybody is told.
        let number = channel.newest.fetch_add(1, Ordering::SeqCst) + 1;
        let name = channel.name;
        match std::ptr::eq(channel, &self.polls) {
            true => format!(
                r#"{{"channel":"{name}","id":"{number}","prev-id":"{}","formats":{{"http-response":{{"body":"{number};"}}}}}}"#,
                number - 1
            ),
            false => format!(
                r#"{{"channel":"{name}","id":"{number}","formats":{{"http-stream":{{"content":"{number};"}},"ws-message":{{"content":"{number};"}}}}}}"#
            ),
        }
    }
}

fn post(port: u16, body: &str) -> Published {
    let (sent, mut attempts) = (Instant::now(), 0);
    loop {
        attempts += 1;
        match attempt(port, body) {
            Ok(200) => return Published { sent, acknowledged: Instant::now(), attempts },
            // Too much waits.
            Ok(503) | Err(_) if sent.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(5)),
            other => panic!("{body} is not acknowledged: {other:?}"),
        }
    }
}

fn attempt(port: u16, body: &str) -> io::Result<u16> {
    let mut client = Client::connect(port)?;
    client.stream().set_read_timeout(Some(Duration::from_secs(5)))?;
    let length = body.len();
    client.send(format!("POST /publish/ HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())?;
    Ok(client.response()?.head.status)
}
