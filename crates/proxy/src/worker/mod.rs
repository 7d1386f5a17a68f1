// SPDX-License-Identifier: AGPL-3.0-or-later
//! The event loop: sockets, clock, signals and the routes file around the [`Engine`].
//!
//! One thread. A turn takes what has come on each socket, up to a limit so that no peer starves the others, and gives it
//! to the engine, which sends its packets through the same sockets at once.

mod config;
mod measures;
mod recovering;
pub mod routes_file;
mod sockets;
mod zmq_backends;

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use limited::Limited;
use metrics::Minutes;
use mio::unix::SourceFd;
use mio::{Interest, Token};
use process::{Reporter, Signal, Signals};
use rpc::stats::ConnMaxNotice;
use tnetstring::Writer;
use transport::{
    Answer, Change, Context, Dealer, Event, Feed, Incoming, Options, Publisher, Pull, Push, Reactor, Replier, Router,
    Subscriber,
};
use zhttp::Packet;

use crate::context::{Links, Note};
use crate::engine::Engine;
use crate::handler::command;
use crate::websocket::recovering::Recovering;
use config::config;
use routes_file::RoutesFile;
use sockets::Sockets;
use zmq_backends::{Source, ZmqBackends};

/// Packets taken from one socket in a turn.
const PACKETS_A_TURN: usize = 256;
/// How often the routes file is looked at and the clock compared.
const HOUSEKEEPING: Duration = Duration::from_millis(500);
/// How long the end may take to send what is left.
const DRAIN: Duration = Duration::from_secs(1);

const REQUESTS: usize = 0;
const STREAM: usize = 1;
const RESPONSES: usize = 2;
const ORIGIN_OUT: usize = 3;
const ORIGIN_STREAM: usize = 4;
const ORIGIN_IN: usize = 5;
const INSPECT: usize = 6;
const ACCEPT: usize = 7;
const RETRY: usize = 8;
const COMMAND: usize = 9;
const STATS: usize = 10;
const INTERNAL: usize = 11;
const INTERNAL_STREAM: usize = 12;
const INTERNAL_OUT: usize = 13;
const CONTROL_IN: usize = 14;
const CONTROL_OUT: usize = 15;
const SIGNALS: Token = Token(0);
const REPORT: Token = Token(1);

/// The proxy's event loop.
pub struct Worker {
    reactor: Reactor,
    requests: Pull,
    origin_in: Subscriber,
    retry: Pull,
    /// Requests of handlers.
    internal: Pull,
    /// From handlers, about WebSockets.
    control_in: Pull,
    command: Replier,
    /// Statistics for handlers.
    stats: Feed,
    /// Our instance id.
    instance: String,
    sockets: Sockets,
    engine: Engine,
    signals: Signals,
    routes: RoutesFile,
    minutes: Minutes,
    /// How many of the lost packets the log knows of.
    lost_logged: u64,
    /// Requests are not taken, because there are as many as may be.
    full: bool,
    /// How many outbound processes take no requests any more.
    origins_left: u64,
    /// How many handlers are told nothing about WebSockets any more.
    listeners_left: u64,
    /// Frontends are asked for the WebSockets of a predecessor, and the handler is told of all.
    recovering: Recovering,
}

impl Worker {
    /// Opens all sockets and reads the routes.
    ///
    /// # Errors
    /// A socket can't be set up, bound or connected.
    pub fn new(settings: &settings::Proxy, signals: Signals) -> Result<Self, process::Failure> {
        let instance = process::instance_id("proxy");
        let context = Context::new();
        let options = process::zmq::options(&settings.zmq);
        let named = options.clone().named(&instance);

        let brief = Options { linger: 0, ..options.clone() };
        let inspect = Dealer::bind(&context, &settings.inspect_spec, &brief)?;
        let accept = Dealer::bind(&context, &settings.accept_spec, &brief)?;
        let retry = Pull::bind(&context, &settings.retry_spec, &options)?;
        let command = Replier::bind(&context, &settings.command_spec, &options)?;
        let internal = Pull::bind(&context, &settings.intreq_in_spec, &options)?;
        let internal_stream = Router::bind(&context, &settings.intreq_in_stream_spec, &named)?;
        let internal_out = Publisher::bind(&context, &settings.intreq_out_spec, &options)?;
        let control_in = Pull::bind(&context, &settings.ws_control_in_spec, &options)?;
        let control_out = Push::bind(&context, &settings.ws_control_out_spec, &brief)?;
        let stats = Feed::bind(&context, &settings.stats_spec, &options)?;
        // Responses must find their way before the first request comes.
        let origin_in = Subscriber::connect(&context, &settings.origin_in_specs, &options)?;
        origin_in.subscribe_instance(&instance)?;
        let origin_stream = Router::connect(&context, &settings.origin_out_stream_specs, &named)?;
        let origin_out = Push::connect(&context, &settings.origin_out_specs, &brief)?;
        let responses = Publisher::connect(&context, &settings.client_out_specs, &options)?;
        let stream = Router::connect(&context, &settings.client_in_stream_specs, &named)?;
        let requests = Pull::connect(&context, &settings.client_in_specs, &options)?;

        let mut reactor = Reactor::new()?;
        reactor.add(REQUESTS, &requests)?;
        reactor.add(STREAM, &stream)?;
        reactor.add(RESPONSES, &responses)?;
        reactor.add(ORIGIN_OUT, &origin_out)?;
        reactor.add(ORIGIN_STREAM, &origin_stream)?;
        reactor.add(ORIGIN_IN, &origin_in)?;
        reactor.add(INSPECT, &inspect)?;
        reactor.add(ACCEPT, &accept)?;
        reactor.add(RETRY, &retry)?;
        reactor.add(COMMAND, &command)?;
        reactor.add(STATS, &stats)?;
        reactor.add(INTERNAL, &internal)?;
        reactor.add(INTERNAL_STREAM, &internal_stream)?;
        reactor.add(INTERNAL_OUT, &internal_out)?;
        reactor.add(CONTROL_IN, &control_in)?;
        reactor.add(CONTROL_OUT, &control_out)?;
        let signal_fd = signals.as_raw_fd();
        reactor.registry().register(&mut SourceFd(&signal_fd), SIGNALS, Interest::READABLE)?;

        let now = Instant::now();
        let mut routes = RoutesFile::new(settings.routes.clone());
        let first = routes.load();
        let mut zmq_backends = ZmqBackends::new(context, &instance, options);
        zmq_backends.open(&first, &mut reactor);
        let mut engine = Engine::new(&instance, config(settings), Arc::new(first), now, unix());
        let frontends = recovering::frontends(settings);
        if frontends > 0 {
            engine.expect_strangers(now + settings.recover_wait);
        }
        let writer = Writer::new(16 * 1024);
        let sockets = Sockets {
            stream,
            responses,
            origin_out,
            origin_stream,
            zmq_backends,
            inspect,
            accept,
            internal_stream,
            internal_out,
            control_out,
            writer,
            now,
            warnings: Limited::default(),
            lost: 0,
        };
        Ok(Worker {
            reactor,
            requests,
            origin_in,
            retry,
            internal,
            control_in,
            command,
            stats,
            instance,
            sockets,
            engine,
            signals,
            routes,
            minutes: Minutes::default(),
            lost_logged: 0,
            full: false,
            origins_left: 0,
            listeners_left: 0,
            recovering: Recovering::new(frontends, now),
        })
    }

    /// Runs until it is told to stop, and tells the runner how it is.
    ///
    /// # Errors
    /// The system does not let us wait.
    pub fn run(&mut self, mut reporter: Reporter) -> Result<(), process::Failure> {
        if let Some(fd) = reporter.descriptor() {
            self.reactor.registry().register(&mut SourceFd(&fd), REPORT, Interest::READABLE)?;
        }
        let mut ready = Vec::new();
        let mut housekeeping = Instant::now();
        loop {
            let now = Instant::now();
            let next = self.engine.next_due().map_or(housekeeping, |next| next.min(housekeeping));
            let next = self.recovering.next_due().map_or(next, |due| next.min(due));
            self.reactor.wait(Some(next.saturating_duration_since(now)), &mut ready)?;
            let now = Instant::now();
            self.sockets.now = now;
            self.look_for_lost_requests(now);
            self.look_for_lost_items();
            let (mut signalled, mut report) = (false, false);
            for event in &ready {
                match *event {
                    Event::Socket(number) => self.socket(number, now),
                    Event::Source { token, .. } if Token(token) == REPORT => report = true,
                    Event::Source { .. } => signalled = true,
                    Event::Wake => {}
                }
            }
            self.greet_handler(now);
            self.engine.on_timer(now, &mut self.sockets);
            self.tell_statistics(now);
            // While there is no room, requests wait where they are: at the frontends, which may ask another proxy.
            let full = !self.engine.has_room();
            if full != self.full {
                self.full = full;
                self.reactor.pause(REQUESTS, full);
                self.reactor.pause(INTERNAL, full);
                if full {
                    let text = "max_open_requests is reached: requests wait until others have ended";
                    self.sockets.log(&Note::Warning { kind: "full", text: &text });
                }
            }
            while signalled && let Some(signal) = self.signals.take() {
                match signal {
                    Signal::Stop => {
                        self.stop(now);
                        return Ok(());
                    }
                    Signal::GiveWay => process::signals::ignore_give_way(),
                    Signal::Reload => {
                        process::log::reopen();
                        self.reload();
                    }
                }
            }
            if report {
                reporter.attend(|page| self.measure(page));
            }
            if now >= housekeeping {
                housekeeping = now + HOUSEKEEPING;
                self.engine.set_time(now, unix());
                let lost = self.sockets.lost - self.lost_logged;
                if lost > 0 {
                    self.lost_logged = self.sockets.lost;
                    tracing::warn!("{lost} packets could not be sent: their receivers are gone or take no more");
                }
                if self.routes.has_changed(now) {
                    tracing::info!("routes file changed, reloading");
                    self.reload();
                }
            }
        }
    }

    /// Tells a handler that has come which WebSockets there are.
    fn greet_handler(&mut self, now: Instant) {
        let sockets = &self.sockets;
        let left = self.control_in.counters().left.min(sockets.control_out.counters().left);
        let has_heard = left >= sockets.accept.counters().left;
        if self.recovering.tells(has_heard, now) {
            self.engine.handler_joined(now, &mut self.sockets);
        }
    }

    /// What has been sent to an outbound process may be lost when that has ended. The kernel takes apart one link of a process
    /// after the other, so the end of this one may be later than that of the link by which it answers.
    fn look_for_lost_requests(&mut self, now: Instant) {
        let left = self.sockets.origin_out.counters().left;
        if std::mem::replace(&mut self.origins_left, left) != left {
            self.engine.outbound_left(b"", now, &mut self.sockets);
        }
    }

    /// Tells handlers what has happened, if one listens.
    fn tell_statistics(&mut self, now: Instant) {
        self.engine.set_heard(self.stats.is_heard(), now);
        let statistics = self.engine.statistics();
        if !statistics.is_heard() {
            return;
        }
        for mut packet in statistics.take(now) {
            packet.set_from(&self.instance);
            // Who does not keep up with statistics misses some.
            let _ = self.stats.send(&packet.encode().unwrap_or_default());
        }
        let conn_max = statistics.take_maxima(&self.instance, now);
        if !conn_max.is_empty() {
            // Behind the requests that were handed over before. Without a handler it is lost, and repeated in its time.
            let call = rpc::call::encode(Some(self.instance.as_bytes()), None, &ConnMaxNotice { conn_max });
            self.sockets.count(&call.unwrap_or_default());
        }
    }

    /// What no handler has got about WebSockets is not for a successor that is told all again: it would take the end of that for its
    /// own.
    fn look_for_lost_items(&mut self) {
        let left = self.sockets.control_out.counters().left;
        let has_ended = std::mem::replace(&mut self.listeners_left, left) != left;
        if has_ended && self.engine.tells_all_again(left > self.sockets.accept.counters().left) {
            self.sockets.control_out.take_unsent();
        }
    }

    fn socket(&mut self, number: usize, now: Instant) {
        let (engine, sockets) = (&mut self.engine, &mut self.sockets);
        match number {
            REQUESTS => {
                for _ in 0..PACKETS_A_TURN {
                    if !engine.has_room() {
                        break;
                    }
                    let Some(message) = self.requests.recv() else { break };
                    engine.request(&message, now, sockets);
                }
            }
            STREAM => self.take_from_frontends(now),
            RESPONSES => self.note_listeners(now),
            ORIGIN_IN => {
                for _ in 0..PACKETS_A_TURN {
                    let Some(message) = self.origin_in.recv() else { break };
                    if let Some((_, packet)) = transport::split_address(&message) {
                        engine.origin_packet(packet, now, sockets);
                    }
                }
            }
            ORIGIN_STREAM => {
                for _ in 0..PACKETS_A_TURN {
                    match sockets.origin_stream.incoming() {
                        None => break,
                        Some(Incoming::Packet(_, message)) => engine.origin_packet(&message, now, sockets),
                        Some(Incoming::Change(Change::Left(name, reason))) => {
                            tracing::warn!("outbound process {} left ({reason:?})", name.escape_ascii());
                            engine.outbound_left(&name, now, sockets);
                        }
                        Some(Incoming::Change(Change::Room(name))) => engine.room(&name, sockets),
                        Some(Incoming::Change(Change::Joined(name))) => engine.outbound_joined(&name, now, sockets),
                    }
                }
            }
            INSPECT => {
                for _ in 0..PACKETS_A_TURN {
                    match sockets.inspect.incoming() {
                        None => break,
                        Some(Answer::Reply(message)) => engine.inspect_reply(&message, now, sockets),
                        Some(Answer::Change(Change::Left(..))) => engine.inspect_lost(now, sockets),
                        Some(Answer::Change(_)) => {}
                    }
                }
            }
            ACCEPT => {
                for _ in 0..PACKETS_A_TURN {
                    match sockets.accept.incoming() {
                        None => break,
                        Some(Answer::Reply(message)) => engine.accept_reply(&message, now, sockets),
                        Some(Answer::Change(Change::Left(name, reason))) => {
                            tracing::warn!("handler {} left ({reason:?})", name.escape_ascii());
                            self.recovering.on_handler_left();
                            engine.accept_lost(now, sockets);
                        }
                        Some(Answer::Change(Change::Joined(_))) => self.recovering.on_handler_joined(now),
                        Some(Answer::Change(_)) => {}
                    }
                }
            }
            RETRY => {
                for _ in 0..PACKETS_A_TURN {
                    let Some(message) = self.retry.recv() else { break };
                    engine.retry(&message, now, sockets);
                }
            }
            INTERNAL => {
                for _ in 0..PACKETS_A_TURN {
                    if !engine.has_room() {
                        break;
                    }
                    let Some(message) = self.internal.recv() else { break };
                    engine.internal_request(&message, now, sockets);
                }
            }
            INTERNAL_STREAM => self.take_further(|sockets| &sockets.internal_stream, now),
            INTERNAL_OUT => self.take_changes(|sockets| &sockets.internal_out, now),
            CONTROL_IN => {
                for _ in 0..PACKETS_A_TURN {
                    let Some(message) = self.control_in.recv() else { break };
                    engine.control_packet(&message, now, sockets);
                }
            }
            COMMAND => {
                for _ in 0..PACKETS_A_TURN {
                    let Some((envelope, message)) = self.command.recv() else { break };
                    if let Some(reply) = command::answer(&message, now, engine, sockets) {
                        // Whoever asked may be gone.
                        let _ = self.command.reply(&envelope, &reply);
                    }
                }
            }
            _ => self.zmq_backend(number, now),
        }
    }

    /// Takes further packets of requests, and changes among those who send them.
    fn take_further(&mut self, router: fn(&Sockets) -> &Router, now: Instant) {
        let (engine, sockets) = (&mut self.engine, &mut self.sockets);
        for _ in 0..PACKETS_A_TURN {
            match router(sockets).incoming() {
                None => break,
                Some(Incoming::Packet(_, message)) => engine.client_packet(&message, now, sockets),
                Some(Incoming::Change(change)) => requester_changed(change, engine, now, sockets),
            }
        }
    }

    /// Takes changes among those who listen to responses.
    fn take_changes(&mut self, publisher: fn(&Sockets) -> &Publisher, now: Instant) {
        let (engine, sockets) = (&mut self.engine, &mut self.sockets);
        let changes: Vec<_> = publisher(sockets).changes().collect();
        changes.into_iter().for_each(|change| requester_changed(change, engine, now, sockets));
    }

    /// Something has come from a backend that speaks ZHTTP itself.
    fn zmq_backend(&mut self, number: usize, now: Instant) {
        let (engine, sockets) = (&mut self.engine, &mut self.sockets);
        for _ in 0..PACKETS_A_TURN {
            match sockets.zmq_backends.source(number) {
                Some(Source::Responses(index)) => {
                    let message = sockets.zmq_backends.streaming.get(index).and_then(|known| known.responses.recv());
                    let Some(message) = message else { return };
                    let Some((_, packet)) = transport::split_address(&message) else { continue };
                    // Nobody else's packets go to one that calls itself as an outbound process does.
                    if let Ok(decoded) = Packet::decode(packet)
                        && !sockets.origin_stream.is_present(decoded.from)
                    {
                        sockets.zmq_backends.learn(index, decoded.from);
                    }
                    engine.origin_packet(packet, now, sockets);
                }
                Some(Source::Stream(index)) => {
                    let known = sockets.zmq_backends.streaming.get(index);
                    match known.and_then(|known| known.stream.incoming()) {
                        None => return,
                        // Responses come by the other socket.
                        Some(Incoming::Packet(..)) => {}
                        Some(Incoming::Change(Change::Left(name, _))) => {
                            sockets.zmq_backends.forget(&name);
                            engine.backend_left(&name, now, sockets);
                        }
                        Some(Incoming::Change(Change::Room(name))) => engine.room(&name, sockets),
                        Some(Incoming::Change(Change::Joined(name))) => engine.backend_joined(&name),
                    }
                }
                Some(Source::Answers(index)) => {
                    match sockets.zmq_backends.asked.get(index).and_then(|(_, dealer)| dealer.incoming()) {
                        None => return,
                        Some(Answer::Reply(message)) => engine.origin_packet(&message, now, sockets),
                        Some(Answer::Change(_)) => {}
                    }
                }
                None => return,
            }
        }
    }

    fn reload(&mut self) {
        if let Some(routes) = self.routes.reload() {
            self.sockets.zmq_backends.open(&routes, &mut self.reactor);
            self.engine.set_routes(Arc::new(routes));
        }
    }

    fn stop(&mut self, now: Instant) {
        tracing::info!("stopping...");
        self.engine.stop(now, &mut self.sockets);
        self.reactor.drain(DRAIN);
        tracing::info!("stopped");
    }
}

/// A frontend, or a handler with requests of its own, has come, has left, or takes packets again.
fn requester_changed(change: Change, engine: &mut Engine, now: Instant, sockets: &mut Sockets) {
    match change {
        Change::Left(name, _) => engine.client_instance_left(&name, now, sockets),
        Change::Room(name) => engine.room(&name, sockets),
        Change::Joined(_) => {}
    }
}

/// Runs the proxy of a process.
///
/// # Errors
/// See [`Worker::new`] and [`Worker::run`].
pub fn run(started: process::Started) -> Result<(), process::Failure> {
    let mut worker = Worker::new(&started.settings.proxy, started.signals)?;
    worker.run(started.ready.tell()?)
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
