// SPDX-License-Identifier: AGPL-3.0-or-later
//! The handler dies, and its clients notice nothing.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pushpin_tests::client::Client;
use pushpin_tests::suite::{Stopped, Suite, is_alive};
use pushpin_tests::until;

const STREAMS: usize = 200;
const POLLS: usize = 50;
const MESSAGES: usize = 300;
/// The handler dies with each of so many messages.
const STEP: usize = 50;

fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().stack_size(256 * 1024).spawn(run).unwrap()
}

/// A stream that gets all messages from 1 to the last in order, each once.
fn stream(port: u16, ready: &Barrier) -> io::Result<()> {
    let mut client = Client::connect(port)?;
    client.get("/stream?channel=r")?;
    client.head()?;
    client.expect("[stream opened]\n")?;
    ready.wait();
    (1..=MESSAGES).try_for_each(|number| client.expect(&format!("{number};")))
}

/// Long-polls one after the other. Each gets a message that is later than those before. Returns how many there were.
fn poll(port: u16, ready: &Barrier, end: &AtomicBool) -> io::Result<usize> {
    let mut client = Client::connect(port)?;
    let (mut last, mut count) = (0, 0);
    client.get("/response?channel=r")?;
    ready.wait();
    loop {
        let response = client.response()?;
        let text = response.text();
        let number: usize = text.trim_end_matches(';').parse().map_err(|_| io::Error::other(text.clone()))?;
        if response.head.status != 200 || number <= last {
            return Err(io::Error::other(format!("{} {text} after {last}", response.head.status)));
        }
        (last, count) = (number, count + 1);
        if end.load(Ordering::Relaxed) {
            return Ok(count);
        }
        client.get("/response?channel=r")?;
    }
}

/// Publishes a message once, with an id.
fn publish_once(suite: &Suite, number: usize, sent: impl FnOnce()) -> io::Result<bool> {
    let body = format!(
        r#"{{"items":[{{"channel":"r","id":"{number}","formats":{{"http-stream":{{"content":"{number};"}},"http-response":{{"body":"{number};"}}}}}}]}}"#
    );
    let mut client = Client::connect(suite.publish_port)?;
    client.stream().set_read_timeout(Some(Duration::from_secs(5)))?;
    let length = body.len();
    client.send(format!("POST /publish/ HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())?;
    sent();
    Ok(client.response()?.head.status == 200)
}

/// Publishes it until that is acknowledged.
fn publish(suite: &Suite, number: usize, sent: impl FnOnce()) {
    let mut sent = Some(sent);
    until("a message is acknowledged", || {
        let sent = sent.take();
        publish_once(suite, number, || sent.into_iter().for_each(|sent| sent())).unwrap_or(false)
    });
}

fn nothing_is_lost(signal: Signal) {
    let mut suite = Suite::prepare("* test", "[runner]\nrecover_wait=10\n");
    suite.launch();
    let ready = Arc::new(Barrier::new(STREAMS + POLLS + 1));
    let end = Arc::new(AtomicBool::new(false));
    let port = suite.port;
    let streams: Vec<_> = (0..STREAMS).map(|_| (port, ready.clone())).collect();
    let streams: Vec<_> = streams.into_iter().map(|(port, ready)| spawn(move || stream(port, &ready))).collect();
    let polls: Vec<_> = (0..POLLS).map(|_| (ready.clone(), end.clone())).collect();
    let polls: Vec<_> = polls.into_iter().map(|(ready, end)| spawn(move || poll(port, &ready, &end))).collect();
    ready.wait();
    for number in 1..=MESSAGES {
        if number % STEP != 0 {
            publish(&suite, number, || {});
            continue;
        }
        let handler = suite.pid("handler");
        let start = Instant::now();
        publish(&suite, number, || kill(Pid::from_raw(handler), signal).unwrap());
        println!("message {number} was acknowledged {:?} after {signal} of the handler", start.elapsed());
        until("that handler has ended", || !is_alive(handler));
    }
    for stream in streams {
        stream.join().unwrap().expect("a stream has all messages in order");
    }
    end.store(true, Ordering::Relaxed);
    let mut number = MESSAGES;
    until("all long-polls have got an answer since", || {
        number += 1;
        publish(&suite, number, || {});
        polls.iter().all(JoinHandle::is_finished)
    });
    for poll in polls {
        let count = poll.join().unwrap().expect("long-polls get later and later messages");
        assert!(count > MESSAGES / STEP, "a client had only {count} answers");
    }
    let logs = suite.logs();
    logs.lines().filter(|line| line.contains("are held again")).for_each(|line| println!("{line}"));
    assert!(logs.contains("are held again"), "{logs}");
}

#[test]
fn streams_and_long_polls_survive_a_handler_that_is_killed_time_and_again() {
    nothing_is_lost(Signal::SIGKILL);
}

#[test]
fn streams_and_long_polls_survive_a_handler_that_is_restarted_time_and_again() {
    nothing_is_lost(Signal::SIGTERM);
}

/// A publisher does not wait for a frontend that hangs. What that has not taken is lost with the handler, so its clients must come back.
#[test]
fn nobody_has_a_hole_after_a_frontend_hung_while_its_handler_died() {
    // On a channel each, and together more than the kernel keeps for the frontend.
    const CLIENTS: usize = 200;
    let text = "x".repeat(4_000);
    let mut suite = Suite::prepare("* test", "[runner]\nrecover_wait=10\n");
    suite.launch();
    let streams = (0..CLIENTS).map(|number| {
        let mut client = Client::connect(suite.port).unwrap();
        client.get(&format!("/stream?channel={number}")).unwrap();
        client.head().unwrap();
        client.expect("[stream opened]\n").unwrap();
        client
    });
    let streams: Vec<_> = streams.collect();
    let publish = |round: usize| {
        let items = (0..CLIENTS).map(|number| {
            format!(
                r#"{{"channel":"{number}","id":"{round}-{number}","formats":{{"http-stream":{{"content":"{round}{text};"}}}}}}"#
            )
        });
        let body = format!(r#"{{"items":[{}]}}"#, items.collect::<Vec<_>>().join(","));
        until("messages are acknowledged", || {
            pushpin_tests::publish::post(&suite, &body).is_ok_and(|response| response.head.status == 200)
        });
    };
    let frontend = Stopped::new(suite.pid("frontend"));
    publish(1);
    let handler = suite.pid("handler");
    suite.kill("handler");
    until("that handler has ended", || !is_alive(handler));
    until("there is another one", || suite.children().contains_key("pushpin-handler"));
    drop(frontend);
    publish(2);
    let mut closed = 0;
    for mut client in streams {
        let both = client.expect(&format!("1{text};")).and_then(|()| client.expect(&format!("2{text};")));
        let Err(error) = both else { continue };
        let is_closed = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
        assert!(is_closed, "a client is held, and has a hole or is deaf: {error:.100}");
        closed += 1;
    }
    assert!(closed > 0, "the kernel has kept everything for the frontend, so nothing is shown");
}
