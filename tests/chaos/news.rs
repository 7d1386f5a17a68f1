// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is published: messages with numbers, each repeated until it is acknowledged.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pushpin_tests::PATIENCE;
use pushpin_tests::client::Client;
use pushpin_tests::origin::{Origin, respond};
use pushpin_tests::suite::Suite;

/// All messages so far are those up to a number.
pub struct News {
    /// The newest, which may be on its way.
    newest: AtomicUsize,
    /// With this one clients have seen enough.
    enough: AtomicUsize,
    stopped: AtomicBool,
    waiting: AtomicUsize,
}

impl Default for News {
    fn default() -> Self {
        News {
            newest: AtomicUsize::new(0),
            enough: AtomicUsize::new(usize::MAX),
            stopped: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        }
    }
}

/// When a message was published.
pub struct Published {
    /// The first attempt.
    pub sent: Instant,
    /// The answer.
    pub acknowledged: Instant,
    /// How often it was sent.
    pub attempts: usize,
}

impl News {
    /// One more client is ready.
    pub fn wait(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }

    /// How many clients are ready.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// The newest message.
    pub fn newest(&self) -> usize {
        self.newest.load(Ordering::SeqCst)
    }

    /// Whether a client that has got this message has seen enough.
    pub fn is_late_enough(&self, number: usize) -> bool {
        number >= self.enough.load(Ordering::SeqCst)
    }

    /// Clients have seen enough with any message from now on.
    pub fn end(&self) {
        self.enough.store(self.newest() + 1, Ordering::SeqCst);
    }

    /// Nobody is there any more.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Publishes one after the other.
    pub fn publish(&self, suite: &Suite, pace: Duration) -> Vec<Published> {
        let mut published = Vec::new();
        while !self.stopped.load(Ordering::SeqCst) {
            let number = published.len() + 1;
            // As a site does: what is stored first can be asked for as soon as anybody is told.
            self.newest.store(number, Ordering::SeqCst);
            // The one before again, as a publisher does whose answer was lost with the handler.
            if number > 1 {
                publish(suite, number - 1);
            }
            published.push(publish(suite, number));
            thread::sleep(pace);
        }
        published
    }
}

fn publish(suite: &Suite, number: usize) -> Published {
    let (sent, mut attempts) = (Instant::now(), 0);
    loop {
        attempts += 1;
        match attempt(suite, number) {
            Ok(200) => return Published { sent, acknowledged: Instant::now(), attempts },
            // The handler is being ended, and says so to who is connected to it.
            Ok(503) if sent.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(5)),
            Ok(status) => panic!("message {number}: {status}"),
            Err(error) if sent.elapsed() > PATIENCE => panic!("message {number} is not acknowledged: {error}"),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn attempt(suite: &Suite, number: usize) -> io::Result<u16> {
    let previous = number - 1;
    let all = format!(
        r#"{{"channel":"s","id":"{number}","formats":{{"http-stream":{{"content":"{number};"}},"ws-message":{{"content":"{number};"}}}}}}"#
    );
    let polls = format!(
        r#"{{"channel":"p","id":"{number}","prev-id":"{previous}","formats":{{"http-response":{{"body":"{number};"}}}}}}"#
    );
    let body = format!(r#"{{"items":[{all},{polls}]}}"#);
    let mut client = Client::connect(suite.publish_port)?;
    client.stream().set_read_timeout(Some(Duration::from_secs(5)))?;
    let length = body.len();
    client.send(format!("POST /publish/ HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())?;
    Ok(client.response()?.head.status)
}

/// A site that lets clients of `/stream` and of `/poll?N` wait for messages; those of the latter for what follows N.
pub fn origin(news: Arc<News>) -> Origin {
    Origin::start(move |request, stream| match request.target.split_once("/poll?") {
        None => {
            let headers = "Content-Type: text/plain\r\nGrip-Hold: stream\r\nGrip-Channel: s\r\n";
            respond(stream, "200 OK", headers, b"[stream opened]\n")
        }
        Some((_, seen)) => {
            let (seen, newest): (usize, usize) = (seen.parse().map_err(io::Error::other)?, news.newest());
            let page: String = (seen + 1..=newest).map(|number| format!("{number};")).collect();
            let headers = match page.is_empty() {
                true => format!("Grip-Hold: response\r\nGrip-Channel: p; prev-id={seen}\r\nGrip-Timeout: 120\r\n"),
                false => String::new(),
            };
            respond(stream, "200 OK", &format!("Content-Type: text/plain\r\n{headers}"), page.as_bytes())
        }
    })
}
