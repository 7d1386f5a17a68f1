// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is published: messages with numbers, a row of its own for each channel.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pushpin_tests::client::Client;

/// For so long a publisher repeats a message without an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What messages are for, which is a channel of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum To {
    /// Those who are held all the time. They are published over HTTP, each again until it is acknowledged.
    Held,
    /// Those who ask for what follows the last they have. They are published in the same way.
    Polls,
    /// The held again, over ZeroMQ PUSH, where nothing is acknowledged.
    Pushed,
    /// The held again, over ZeroMQ PUB, where the handler subscribes to them.
    Subscribed,
}

impl To {
    /// All of them.
    pub const ALL: [To; 4] = [To::Held, To::Polls, To::Pushed, To::Subscribed];

    /// Its letter, which is the name of the channel.
    pub fn letter(self) -> char {
        match self {
            To::Held => 's',
            To::Polls => 'p',
            To::Pushed => 'q',
            To::Subscribed => 'b',
        }
    }

    /// The one of this letter.
    pub fn of(letter: char) -> Option<Self> {
        To::ALL.into_iter().find(|to| to.letter() == letter)
    }

    /// Its publisher knows when a message has arrived.
    pub fn is_acknowledged(self) -> bool {
        matches!(self, To::Held | To::Polls)
    }
}

/// Messages of a channel so far.
#[derive(Default)]
pub struct Channel {
    /// The newest, which may be on its way.
    newest: AtomicUsize,
    /// With this one clients have heard enough. 0 is none.
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
    pub fn newest(&self) -> usize {
        self.newest.load(Ordering::SeqCst)
    }

    /// Whether a client that has got this message has heard enough.
    pub fn is_late_enough(&self, number: usize) -> bool {
        let enough = self.enough.load(Ordering::SeqCst);
        enough > 0 && number >= enough
    }

    /// All that are published.
    pub fn published(&self) -> Vec<Published> {
        self.published.lock().unwrap().clone()
    }

    /// When a message was sent for the first time.
    pub fn sent(&self, number: usize) -> Option<Instant> {
        let published = self.published.lock().unwrap();
        number.checked_sub(1).and_then(|index| published.get(index)).map(|published| published.sent)
    }

    /// The first message that was not acknowledged at a moment.
    pub fn first_after(&self, moment: Instant) -> Option<usize> {
        let published = self.published.lock().unwrap();
        let index = published.partition_point(|published| published.acknowledged <= moment);
        (index < published.len()).then_some(index + 1)
    }

    /// When the message behind this one was published, if it has been.
    pub fn next_came(&self, number: usize) -> Option<Instant> {
        self.published.lock().unwrap().get(number).map(|published| published.acknowledged)
    }
}

/// All channels.
#[derive(Default)]
pub struct News {
    channels: [Channel; 4],
    stopped: AtomicBool,
}

/// One message in so many is for long-polls as well, each of which costs a request.
const POLLS_SHARE: usize = 4;

impl News {
    pub fn channel(&self, to: To) -> &Channel {
        &self.channels[to as usize]
    }

    /// Clients have heard enough with any message from now on.
    pub fn end(&self) {
        for channel in &self.channels {
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
            let is_for_polls = round % POLLS_SHARE == 0;
            let mut items = vec![self.next_item(To::Held).1];
            if is_for_polls {
                items.push(self.next_item(To::Polls).1);
            }
            // The one before again, as a publisher does whose answer was lost with the handler.
            if let Some(before) = &before {
                post(port, before);
            }
            let body = format!(r#"{{"items":[{}]}}"#, items.join(","));
            let published = post(port, &body);
            before = Some(body);
            self.channel(To::Held).published.lock().unwrap().push(published);
            if is_for_polls {
                self.channel(To::Polls).published.lock().unwrap().push(published);
            }
            thread::sleep(pace);
        }
    }

    /// Sends one after the other over a ZeroMQ socket.
    pub fn send(&self, to: To, socket: &zmq::Socket, pace: Duration) {
        while !self.is_stopped() {
            let (channel, item) = self.next_item(to);
            let sent = Instant::now();
            let frames = match to {
                To::Subscribed => vec![channel, format!("J{item}")],
                _ => vec![format!("J{item}")],
            };
            // It can not send while too much waits, and is asked then whether it is over.
            while !self.is_stopped() {
                match socket.send_multipart(&frames, zmq::DONTWAIT) {
                    Ok(()) => break,
                    Err(zmq::Error::EAGAIN) => thread::sleep(Duration::from_millis(5)),
                    Err(error) => panic!("{error}"),
                }
            }
            let published = Published { sent, acknowledged: Instant::now(), attempts: 1 };
            self.channel(to).published.lock().unwrap().push(published);
            thread::sleep(pace);
        }
    }

    /// The next message of a channel: the channel's name, and the item.
    fn next_item(&self, to: To) -> (String, String) {
        // As a site does: what is stored first can be asked for as soon as anybody is told.
        let number = self.channel(to).newest.fetch_add(1, Ordering::SeqCst) + 1;
        let letter = to.letter();
        let (text, before) = (format!("{letter}{number};"), number - 1);
        let rest = match to {
            To::Polls => format!(r#""prev-id":"{before}","formats":{{"http-response":{{"body":"{text}"}}}}"#),
            _ => format!(r#""formats":{{"http-stream":{{"content":"{text}"}},"ws-message":{{"content":"{text}"}}}}"#),
        };
        (letter.to_string(), format!(r#"{{"channel":"{letter}","id":"{number}",{rest}}}"#))
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
