// SPDX-License-Identifier: AGPL-3.0-or-later
//! Many held connections, read cheaply by a few threads.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};
use rustls::ClientConfig;

use crate::check::{Faults, SequenceCheck};
use crate::decode::{Decoder, Fault, Framing, Records};
use crate::filter::FilterArgs;
use crate::http::{self, Body, Chunked};
use crate::message::{now_ns, Message};
use crate::publish::Format;
use crate::secure::Stream;
use crate::ws::{Frames, HANDSHAKE_HEADERS};

#[derive(Clone)]
pub struct Plan {
    pub target: SocketAddr,
    /// Clients speak TLS, as this says.
    pub tls: Option<Arc<ClientConfig>>,
    pub format: Format,
    pub connections: usize,
    /// Every connection on its own channel `c<index>`, else all on `c0`.
    pub own_channels: bool,
    pub message_size: usize,
    /// Which connections are to get messages.
    pub filter: FilterArgs,
    pub threads: usize,
    /// Connections being opened at any one time.
    pub opening: usize,
    /// Connections that other processes open before these; decides the source addresses.
    pub before: usize,
}

#[derive(Default)]
pub struct Progress {
    pub held: AtomicUsize,
    pub failed: AtomicUsize,
    /// Connections that ended after they were held.
    pub closed: AtomicUsize,
    /// By connection: whether it is held now.
    pub alive: Vec<AtomicBool>,
    pub warmed: AtomicUsize,
    pub delivered: AtomicU64,
    /// When the latest hold was reached.
    pub last_hold_ns: AtomicU64,
    stop: AtomicBool,
}

pub struct Receivers {
    pub progress: Arc<Progress>,
    threads: Vec<JoinHandle<io::Result<Tally>>>,
}

/// What the receivers saw, summed over threads.
pub struct Tally {
    /// Publish to each client, microseconds.
    pub latency: Histogram<u64>,
    /// By sequence number.
    pub receipts: Vec<Receipt>,
    /// Connect to held, microseconds.
    pub time_to_hold: Histogram<u64>,
    pub faults: Faults,
    pub malformed: u64,
    /// Messages that a filter was to keep back.
    pub unwanted: u64,
    pub closed: u64,
    pub first_error: Option<String>,
    checks: Vec<SequenceCheck>,
}

/// When a message was published, and when its first and last client got it.
#[derive(Default, Clone, Copy, Debug, PartialEq)]
pub struct Receipt {
    pub sent_ns: u64,
    pub first_ns: u64,
    pub last_ns: u64,
}

impl Receipt {
    pub fn add(&mut self, other: Receipt) {
        if self.last_ns == 0 {
            *self = other;
        } else if other.last_ns > 0 {
            self.first_ns = self.first_ns.min(other.first_ns);
            self.last_ns = self.last_ns.max(other.last_ns);
        }
    }
}

/// Adds up receipts of the same messages, both by sequence number.
pub fn add_receipts(mine: &mut Vec<Receipt>, theirs: &[Receipt]) {
    mine.resize(mine.len().max(theirs.len()), Receipt::default());
    mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| mine.add(*theirs));
}

/// Publish to the time of `receipt` that `until` picks, microseconds, over all messages received.
pub fn latency_until(receipts: &[Receipt], until: impl Fn(&Receipt) -> u64) -> Histogram<u64> {
    let mut histogram = latency_histogram();
    for receipt in receipts.iter().filter(|r| r.last_ns > 0) {
        histogram.saturating_record(until(receipt).saturating_sub(receipt.sent_ns) / 1000);
    }
    histogram
}

impl Tally {
    fn new() -> Self {
        Tally {
            latency: latency_histogram(),
            receipts: Vec::new(),
            time_to_hold: latency_histogram(),
            faults: Faults::default(),
            malformed: 0,
            unwanted: 0,
            closed: 0,
            first_error: None,
            checks: Vec::new(),
        }
    }

    fn add(&mut self, other: Tally) {
        let _ = self.latency.add(&other.latency);
        let _ = self.time_to_hold.add(&other.time_to_hold);
        add_receipts(&mut self.receipts, &other.receipts);
        self.faults.duplicated += other.faults.duplicated;
        self.faults.out_of_order += other.faults.out_of_order;
        self.malformed += other.malformed;
        self.unwanted += other.unwanted;
        self.closed += other.closed;
        self.first_error = self.first_error.take().or(other.first_error);
        self.checks.extend(other.checks);
    }

    /// Messages lost, given how many were published on each connection's channel. Connections that are to get none lose none.
    pub fn lost(&self, published_per_connection: u32) -> u64 {
        self.checks.iter().map(|c| c.lost(published_per_connection)).sum()
    }
}

pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("valid bounds")
}

impl Receivers {
    /// Starts opening the connections.
    pub fn open(plan: &Plan) -> Self {
        let alive = (0..plan.connections).map(|_| AtomicBool::new(false)).collect();
        let progress = Arc::new(Progress { alive, ..Progress::default() });
        let threads = (0..plan.threads)
            .map(|thread| {
                let (plan, progress) = (plan.clone(), progress.clone());
                thread::spawn(move || Worker::new(plan, progress, thread)?.run())
            })
            .collect();
        Receivers { progress, threads }
    }

    /// Waits until every connection is held or has failed; returns how many are held.
    pub fn wait_held(&self, connections: usize, timeout: Duration) -> usize {
        let deadline = Instant::now() + timeout;
        let p = &self.progress;
        while p.held.load(Relaxed) + p.failed.load(Relaxed) < connections && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        p.held.load(Relaxed)
    }

    pub fn finish(self) -> io::Result<Tally> {
        self.progress.stop.store(true, Relaxed);
        let mut total = Tally::new();
        for thread in self.threads {
            total.add(thread.join().map_err(|_| io::Error::other("receiver thread panicked"))??);
        }
        Ok(total)
    }
}

/// The request for a connection held on channel `c<channel>`, with what its query says of a filter.
pub fn hold_request(format: Format, channel: usize, filter: &str) -> Vec<u8> {
    let (path, extra) = match format {
        Format::Ws => ("ws", HANDSHAKE_HEADERS),
        Format::Sse => ("sse", "Accept: text/event-stream\r\n"),
        Format::Stream | Format::Response => ("stream", ""),
    };
    format!("GET /{path}?channel=c{channel}{filter} HTTP/1.1\r\nHost: bench\r\n{extra}\r\n").into_bytes()
}

/// The status of the response that holds.
pub fn held_status(format: Format) -> u16 {
    if format == Format::Ws {
        101
    } else {
        200
    }
}

struct Worker {
    plan: Plan,
    progress: Arc<Progress>,
    poll: Poll,
    connections: Vec<Connection>,
    /// Index in the whole plan of the next connection this thread opens.
    next: usize,
    opening: usize,
    tally: Tally,
}

struct Connection {
    /// Index in the whole plan.
    index: usize,
    stream: Option<Stream>,
    started: Instant,
    phase: Phase,
    check: SequenceCheck,
    warmed: bool,
}

enum Phase {
    Connecting { request: Vec<u8> },
    Head(Vec<u8>),
    Held(Decoder),
}

impl Worker {
    fn new(plan: Plan, progress: Arc<Progress>, next: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let connections = Vec::with_capacity(plan.connections / plan.threads + 1);
        Ok(Worker { plan, progress, poll, connections, next, opening: 0, tally: Tally::new() })
    }

    fn run(mut self) -> io::Result<Tally> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0u8; 256 * 1024];
        while !self.progress.stop.load(Relaxed) {
            self.open_more();
            match self.poll.poll(&mut events, Some(Duration::from_millis(20))) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
            for event in &events {
                self.ready(event.token().0, &mut buffer);
            }
        }
        let filter = self.plan.filter;
        let passing = self.connections.into_iter().filter(|c| filter.passes(c.index));
        self.tally.checks = passing.map(|c| c.check).collect();
        Ok(self.tally)
    }

    fn open_more(&mut self) {
        let most = (self.plan.opening / self.plan.threads).max(1);
        while self.opening < most && self.next < self.plan.connections {
            let slot = self.connections.len();
            let (target, tls) = (self.plan.target, self.plan.tls.as_ref());
            let stream = Stream::connect(target, self.plan.before + self.next, tls).and_then(|mut stream| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(&mut stream, Token(slot), interest)?;
                Ok(stream)
            });
            let channel = if self.plan.own_channels { self.next } else { 0 };
            let request = hold_request(self.plan.format, channel, &self.plan.filter.query(self.next));
            let index = self.next;
            self.next += self.plan.threads;
            self.opening += 1;
            let failure = stream.as_ref().err().map(|e| format!("connect: {e}"));
            self.connections.push(Connection {
                index,
                stream: stream.ok(),
                started: Instant::now(),
                phase: Phase::Connecting { request },
                check: SequenceCheck::default(),
                warmed: false,
            });
            if let Some(failure) = failure {
                self.drop_connection(slot, failure);
            }
        }
    }

    /// Reads what there is. A short read means the socket is drained, so the next data raises a
    /// new edge and no further read is needed.
    fn ready(&mut self, slot: usize, buffer: &mut [u8]) {
        loop {
            let connection = &mut self.connections[slot];
            let Some(stream) = &mut connection.stream else { return };
            if let Phase::Connecting { request } = &connection.phase {
                match stream.write(request) {
                    Ok(_) => connection.phase = Phase::Head(Vec::new()),
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => return,
                    Err(e) => return self.drop_connection(slot, format!("send: {e}")),
                }
            }
            let size = match stream.read(buffer) {
                Ok(0) => return self.drop_connection(slot, "closed by the server".into()),
                Ok(size) => size,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => return self.drop_connection(slot, format!("receive: {e}")),
            };
            if let Err(reason) = self.received(slot, &buffer[..size]) {
                return self.drop_connection(slot, reason);
            }
            if size < buffer.len() {
                return;
            }
        }
    }

    fn received(&mut self, slot: usize, bytes: &[u8]) -> Result<(), String> {
        match &mut self.connections[slot].phase {
            Phase::Connecting { .. } => Ok(()),
            Phase::Held(_) => self.decode(slot, bytes),
            Phase::Head(head) => {
                head.extend_from_slice(bytes);
                let parsed = http::response_head(head).map_err(|_| "malformed response head")?;
                let Some(parsed) = parsed else { return Ok(()) };
                let rest = head.split_off(parsed.size);
                self.hold(slot, parsed)?;
                if rest.is_empty() {
                    Ok(())
                } else {
                    self.decode(slot, &rest)
                }
            }
        }
    }

    fn hold(&mut self, slot: usize, head: http::ResponseHead) -> Result<(), String> {
        if head.status != held_status(self.plan.format) {
            return Err(format!("status {}", head.status));
        }
        let framing = match (self.plan.format, head.body) {
            (Format::Ws, _) => Framing::Frames { frames: Frames::default(), partial: Vec::new() },
            (_, Body::Chunked) => Framing::Chunked(Chunked::default()),
            (_, Body::UntilClose) => Framing::Plain,
            (_, Body::Length(_)) => return Err("response is not held".into()),
        };
        let records = match self.plan.format {
            Format::Sse => Records::events(),
            _ => Records::fixed(self.plan.message_size),
        };
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Held(Decoder { framing, records });
        let stream = connection.stream.as_mut().expect("held connection has a socket");
        let _ = self.poll.registry().reregister(stream, Token(slot), Interest::READABLE);
        self.opening -= 1;
        self.tally.time_to_hold.saturating_record(connection.started.elapsed().as_micros() as u64);
        self.progress.last_hold_ns.fetch_max(now_ns(), Relaxed);
        self.progress.alive[connection.index].store(true, Relaxed);
        self.progress.held.fetch_add(1, Relaxed);
        Ok(())
    }

    fn decode(&mut self, slot: usize, bytes: &[u8]) -> Result<(), String> {
        let connection = &mut self.connections[slot];
        let Phase::Held(decoder) = &mut connection.phase else { return Ok(()) };
        let passes = self.plan.filter.passes(connection.index);
        let (check, warmed) = (&mut connection.check, &mut connection.warmed);
        let (tally, progress) = (&mut self.tally, &self.progress);
        let now = now_ns();
        let mut delivered = 0;
        let outcome = decoder.feed(bytes, &mut |message: Message| {
            if message.warm_up {
                if !*warmed {
                    *warmed = true;
                    progress.warmed.fetch_add(1, Relaxed);
                }
            } else if !passes {
                tally.unwanted += 1;
            } else if check.see(message.seq, &mut tally.faults) {
                delivered += 1;
                tally.latency.saturating_record(now.saturating_sub(message.sent_ns) / 1000);
                let seq = message.seq as usize;
                if seq >= tally.receipts.len() {
                    tally.receipts.resize(seq + 1, Receipt::default());
                }
                tally.receipts[seq].add(Receipt { sent_ns: message.sent_ns, first_ns: now, last_ns: now });
            }
        });
        if delivered > 0 {
            self.progress.delivered.fetch_add(delivered, Relaxed);
        }
        outcome.map_err(|fault| match fault {
            Fault::Malformed => {
                self.tally.malformed += 1;
                "malformed data on a held connection".into()
            }
            Fault::Ended => "ended by the server".into(),
        })
    }

    fn drop_connection(&mut self, slot: usize, reason: String) {
        let connection = &mut self.connections[slot];
        if let Phase::Held(_) = connection.phase {
            self.tally.closed += 1;
            self.progress.closed.fetch_add(1, Relaxed);
            self.progress.alive[connection.index].store(false, Relaxed);
        } else {
            self.opening -= 1;
            self.progress.failed.fetch_add(1, Relaxed);
        }
        connection.stream = None;
        self.tally.first_error.get_or_insert(reason);
    }
}
