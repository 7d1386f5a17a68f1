// SPDX-License-Identifier: AGPL-3.0-or-later
//! The worker: sockets, clock and timers around the engine.
//!
//! One thread. Requests to hold come from the proxy's `accept` socket, items from PULL, SUB, the command socket and the
//! HTTP control port, credits and ends of clients from the frontends' ROUTER sockets. Packets to clients leave through
//! XPUB or ROUTER. While the frontends take no more, publishers are not read from: they wait, and nothing is lost.

mod accepting;
mod arrears;
mod measures;
mod outputs;
mod pressure;
mod publishing;
mod recovering;
mod telling;

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use metrics::{Histogram, Minutes};
use rpc::command::ZmqUris;
use rpc::ws_control;
use settings::Handler;
use transport::{
    Change, Dealer, Envelope, Event, Feed, Incoming, Message, Options, Publisher, Pull, Push, Reactor, Replier, Router,
    Subscriber, Waker,
};
use zhttp::{Packet, recovery};

use self::arrears::ArrearsFile;
use self::measures::Inputs;
use self::outputs::{News, Outputs, Sockets};
use self::pressure::LOOK_AGAIN;
use self::publishing::{Input, Ticket};
use crate::context::Context;
use crate::engine::recovering::Recovering;
use crate::engine::{Engine, Limits};
use crate::order::backlog::Backlog;
use crate::publish::forwarded::Forwarded;
use crate::publish::submission::Submission;
use crate::statistics::Statistics;

const ACCEPT: usize = 0;
const INSPECT: usize = 1;
const STREAM: usize = 2;
const OUT: usize = 3;
const PULL: usize = 4;
const SUB: usize = 5;
const COMMAND: usize = 6;
const STATS: usize = 7;
const RETRY: usize = 8;
const INTERNAL_IN: usize = 9;
const INTERNAL_STREAM: usize = 10;
const INTERNAL_OUT: usize = 11;
const CONTROL_IN: usize = 12;
const CONTROL_OUT: usize = 13;
const PROXY_STATS: usize = 14;
const PROXY_COMMAND: usize = 15;
/// Messages taken from one socket in a turn.
const MESSAGES_A_TURN: usize = 256;
/// Deliveries made in a turn before sockets are looked at again; each item counts as one beside.
const DELIVERIES_A_TURN: usize = 20_000;
/// Orders that may wait before further publish commands are refused. The control port has bounds of its own.
const MAX_WAITING_ORDERS: usize = 2_000;
/// How often sequences are looked at.
const SECOND: Duration = Duration::from_secs(1);

/// The handler's event loop.
pub struct Worker {
    reactor: Reactor,
    accept: Replier,
    /// Requests to hold that came before those of a predecessor were taken up.
    early: VecDeque<(Envelope, Message)>,
    inspect: Replier,
    /// Responses to requests of our own, from proxies that do not answer through ROUTER.
    internal_in: Subscriber,
    /// From the proxy, about WebSockets.
    control_in: Pull,
    pull: Option<Pull>,
    command: Option<Replier>,
    /// Our instance id.
    instance: String,
    /// Where statistics are told.
    stats: Option<Feed>,
    /// Whether they are told in JSON.
    json: bool,
    /// Statistics of the proxy.
    proxy_stats: Subscriber,
    statistics: Statistics,
    outputs: Outputs,
    engine: Engine,
    /// What is being published.
    backlog: Backlog<Ticket>,
    /// Where it came from.
    inputs: Inputs,
    minutes: Minutes,
    /// From when items came until they had left.
    publish_times: Histogram,
    /// Commands that the proxy is asked about.
    forwarded: Forwarded<Envelope>,
    submissions: Receiver<Submission>,
    sender: SyncSender<Submission>,
    uris: ZmqUris,
    /// Clients that ask for the same share one request.
    share_all: bool,
    /// Nothing is published for now.
    paused: bool,
    /// Nothing is taken from PULL and SUB for now.
    inputs_paused: bool,
    next_second: Instant,
    recovering: Recovering,
    arrears: ArrearsFile,
    /// Publishers whose items have been given to the links, but have not left yet.
    leaving: Vec<Ticket>,
    /// Since when something for a frontend has not left. Publishers do not wait for that for long.
    unsent_since: Option<Instant>,
    /// Since when something for WebSockets waits for the proxy, or for its successor.
    proxy_behind_since: Option<Instant>,
}

impl Worker {
    /// Binds and connects the sockets.
    ///
    /// # Errors
    /// A socket can not be bound, connected or set up.
    pub fn new(instance: &str, settings: &Handler) -> Result<Self, transport::Error> {
        let context = transport::Context::new();
        let options = process::zmq::options(&settings.zmq);
        let named = options.clone().named(instance);
        let brief = Options { linger: 0, ..options.clone() };
        let accept = Replier::connect(&context, &settings.proxy_accept_specs, &options)?;
        let inspect = Replier::connect(&context, &settings.proxy_inspect_specs, &options)?;
        let retry = Push::connect(&context, &settings.proxy_retry_specs, &brief)?;
        // A frontend that takes no more has a queue, and time, of its own.
        let bounded = |options: Options| Options {
            peer_bytes: settings.link_queue_bytes,
            stuck_after: settings.link_timeout,
            ..options
        };
        let stream = Router::connect(&context, &settings.client_in_stream_specs, &bounded(named))?;
        let out = Publisher::connect(&context, &settings.client_out_specs, &bounded(options.clone()))?;
        // Responses must find their way before the first request leaves.
        let internal_in = Subscriber::connect(&context, &settings.proxy_intreq_in_specs, &options)?;
        internal_in.subscribe_instance(instance)?;
        let named = options.clone().named(instance);
        let internal_stream = Router::connect(&context, &settings.proxy_intreq_out_stream_specs, &named)?;
        let internal_out = Push::connect(&context, &settings.proxy_intreq_out_specs, &brief)?;
        let proxy_stats = Subscriber::connect(&context, &settings.proxy_stats_specs, &brief)?;
        let control_in = Pull::connect(&context, &[&settings.proxy_ws_control_in_spec], &options)?;
        let control_out = Push::connect(&context, &[&settings.proxy_ws_control_out_spec], &bounded(brief.clone()))?;
        let commands = Dealer::connect(&context, &[&settings.proxy_command_spec], &bounded(brief.clone()))?;
        let mut reactor = Reactor::new()?;
        reactor.add(PROXY_COMMAND, &commands)?;
        reactor.add(PROXY_STATS, &proxy_stats)?;
        reactor.add(CONTROL_IN, &control_in)?;
        reactor.add(CONTROL_OUT, &control_out)?;
        reactor.add(INTERNAL_IN, &internal_in)?;
        reactor.add(INTERNAL_STREAM, &internal_stream)?;
        reactor.add(INTERNAL_OUT, &internal_out)?;
        // Before the answers to `accept`, so that a request that the proxy knows to be taken is known to its frontend too.
        reactor.add(STREAM, &stream)?;
        reactor.add(ACCEPT, &accept)?;
        reactor.add(INSPECT, &inspect)?;
        reactor.add(OUT, &out)?;
        reactor.add(RETRY, &retry)?;

        let pull = settings.push_in_spec.as_ref().map(|spec| {
            let pull = Pull::bind(&context, spec, &options)?;
            reactor.add(PULL, &pull)?;
            Ok::<_, transport::Error>(pull)
        });
        let sub = settings.push_in_sub_specs.first().map(|first| {
            let sub = match settings.push_in_sub_connect {
                true => Subscriber::connect(&context, &settings.push_in_sub_specs, &options)?,
                false => Subscriber::bind(&context, first, &options)?,
            };
            reactor.add(SUB, &sub)?;
            Ok::<_, transport::Error>(sub)
        });
        let command = settings.command_spec.as_ref().map(|spec| {
            let command = Replier::bind(&context, spec, &options)?;
            reactor.add(COMMAND, &command)?;
            Ok::<_, transport::Error>(command)
        });
        let stats = settings.stats_spec.as_ref().map(|spec| {
            let stats = Feed::bind(&context, spec, &brief)?;
            reactor.add(STATS, &stats)?;
            Ok::<_, transport::Error>(stats)
        });
        let now = Instant::now();
        let sockets = Sockets { out, stream, retry, internal_out, internal_stream, control_out, commands };
        let outputs = Outputs::new(instance, sockets, sub.transpose()?, settings.publish_queue_bytes, now);
        // Where frontends keep nothing, nobody is asked.
        let frontends = recovering::frontends(&settings.client_in_stream_specs);
        let recovering = Recovering::new(if settings.recover_wait.is_zero() { 0 } else { frontends }, now);
        let arrears = ArrearsFile::open((!settings.recover_wait.is_zero()).then(|| settings.arrears.clone()));
        if recovering.is_under_way() {
            reactor.pause(COMMAND, true);
        }
        let limits = Limits {
            subscriptions: settings.connection_subscription_max,
            records: !settings.recover_wait.is_zero(),
            unbuffer_streams: settings.unbuffer_streams,
            linger: settings.subscription_linger,
            queue_bytes: settings.session_queue_bytes,
            queue_time: settings.session_queue_time,
            message_rate: settings.message_rate,
            message_hwm: settings.message_hwm,
            message_block_size: settings.message_block_size,
            message_wait: settings.message_wait,
            id_cache_ttl: settings.id_cache_ttl,
            id_cache_max: settings.id_cache_max,
            update_on_first_subscription: settings.update_on_first_subscription,
            link_requests: settings.link_requests_max,
            gone_requests: settings.gone_requests_max,
            filter_requests: settings.filter_requests_max,
            filter_messages: settings.filter_messages_max,
            filter_bytes: settings.filter_queue_bytes,
        };
        let mut engine = Engine::new(limits, now);
        if recovering.is_under_way() {
            engine.expect_websockets(now + settings.recover_wait);
        }
        let bound_sub = settings.push_in_sub_specs.first().filter(|_| !settings.push_in_sub_connect);
        let uris = ZmqUris {
            command: settings.command_spec.clone(),
            publish_pull: settings.push_in_spec.clone(),
            publish_sub: bound_sub.cloned(),
        };
        let (sender, submissions) = sync_channel(settings.push_in_http_max_waiting);
        Ok(Worker {
            reactor,
            accept,
            early: VecDeque::new(),
            inspect,
            pull: pull.transpose()?,
            command: command.transpose()?,
            instance: instance.into(),
            stats: stats.transpose()?,
            json: settings.stats.json,
            proxy_stats,
            statistics: Statistics::new(settings.stats, now),
            internal_in,
            control_in,
            outputs,
            engine,
            backlog: Backlog::default(),
            publish_times: Histogram::default(),
            inputs: Inputs::default(),
            minutes: Minutes::default(),
            forwarded: Forwarded::default(),
            submissions,
            sender,
            uris,
            share_all: settings.share_all,
            paused: false,
            inputs_paused: false,
            next_second: now + SECOND,
            recovering,
            arrears,
            leaving: Vec::new(),
            unsent_since: None,
            proxy_behind_since: None,
        })
    }

    /// The way in for the HTTP control port.
    pub fn submissions(&self) -> (SyncSender<Submission>, Waker) {
        (self.sender.clone(), self.reactor.waker())
    }

    /// Where further sources, such as signals, are registered.
    pub fn registry(&self) -> &mio::Registry {
        self.reactor.registry()
    }

    /// Waits for events and attends to them. `foreign` is told of sources that are not the worker's.
    ///
    /// # Errors
    /// The system refuses to wait.
    pub fn turn(&mut self, ready: &mut Vec<Event>, mut foreign: impl FnMut(usize)) -> Result<(), transport::Error> {
        self.apply_back_pressure();
        let due = self.engine.next_due().map_or(self.next_second, |due| due.min(self.next_second));
        let due = self.forwarded.next_due().map_or(due, |next| due.min(next));
        let due = if self.engine.takes_notes() { due.min(self.statistics.next_due()) } else { due };
        // What is left of an order goes on at once.
        let goes_on = !self.backlog.is_empty() && !self.paused;
        let wait = match due.saturating_duration_since(Instant::now()) {
            _ if goes_on => Duration::ZERO,
            wait if self.paused || self.outputs.control_waits() || !self.leaving.is_empty() => wait.min(LOOK_AGAIN),
            wait => wait,
        };
        self.reactor.wait(Some(wait), ready)?;
        let now = Instant::now();
        self.outputs.now = now;
        self.look_for_proxy(now);
        let has = |number| ready.contains(&Event::Socket(number));
        if has(OUT) {
            self.take_changes(now);
        }
        if has(STREAM) {
            self.take_packets(now);
        }
        self.end_recovery(now);
        if has(INTERNAL_IN) || has(INTERNAL_STREAM) {
            self.take_responses(now);
        }
        if has(INSPECT) {
            self.take_inspects();
        }
        if has(ACCEPT) || !self.early.is_empty() {
            self.take_accepts(now);
        }
        self.outputs.send_control_overflow();
        self.look_for_listeners(now);
        if has(PROXY_STATS) {
            self.take_proxy_statistics(now);
        }
        if has(CONTROL_IN) {
            self.take_control(now);
        }
        self.take_proxy_answers(has(PROXY_COMMAND), now);
        if has(COMMAND) {
            self.take_commands(now);
        }
        if !self.paused {
            self.take_submissions(now);
            self.take_items(Input::Pull, has(PULL), now);
            self.take_items(Input::Sub, has(SUB), now);
            self.publish(now);
        }
        let cx = &mut Context::new(now, &mut self.outputs);
        self.engine.flush(cx);
        self.engine.on_timer(cx);
        if now >= self.next_second {
            self.next_second = now + SECOND;
            self.engine.expire_sequences(cx);
        }
        self.settle_arrears(now);
        self.tell_statistics(now);
        self.answer_publishers(now);
        for event in ready.iter() {
            if let Event::Source { token, .. } = event {
                foreign(*token);
            }
        }
        Ok(())
    }

    /// Makes publishers wait while frontends do not keep up, or items wait that have been taken already.
    fn apply_back_pressure(&mut self) {
        self.paused = self.outputs.must_wait(Instant::now()) || self.recovering.is_under_way();
        let pause = self.paused || self.backlog.is_full();
        if pause != self.inputs_paused {
            self.inputs_paused = pause;
            self.reactor.pause(PULL, pause);
            self.reactor.pause(SUB, pause);
        }
    }

    fn take_changes(&mut self, now: Instant) {
        for change in self.outputs.changes() {
            self.on_change(change, false, now);
        }
    }

    /// A frontend has come or gone, as the ROUTER or the PUB socket sees it.
    fn on_change(&mut self, change: Change, by_router: bool, now: Instant) {
        if let Change::Left(name, reason) = &change
            && by_router
        {
            self.note_end(name, *reason, now);
        }
        if self.note_for_recovery(&change, by_router) {
            return;
        }
        let Some((address, news)) = self.outputs.note(change, by_router) else { return };
        let cx = &mut Context::new(now, &mut self.outputs);
        match news {
            News::Gone => self.engine.on_peer_gone(address, cx),
            News::Room => self.engine.on_room(address.peer, cx),
        }
    }

    fn take_packets(&mut self, now: Instant) {
        for _ in 0..MESSAGES_A_TURN {
            let message = match self.outputs.stream.incoming() {
                None => return,
                Some(Incoming::Packet(from, message)) if message.first() == Some(&recovery::MARK) => {
                    self.on_recovery(&from, &message, now);
                    continue;
                }
                Some(Incoming::Packet(_, message)) => message,
                Some(Incoming::Change(change)) => {
                    self.on_change(change, true, now);
                    continue;
                }
            };
            match Packet::decode(&message) {
                Ok(packet) => {
                    if let Some(peer) = self.outputs.peers.find(packet.from) {
                        self.engine.on_packet(peer, &packet, &mut Context::new(now, &mut self.outputs));
                    }
                }
                Err(error) => {
                    let text = format_args!("a packet of a frontend is skipped: {error}");
                    self.outputs.warnings.warn("packet", now, text);
                }
            }
        }
    }

    /// Responses to requests of our own.
    fn take_responses(&mut self, now: Instant) {
        for _ in 0..MESSAGES_A_TURN {
            let Some(message) = self.internal_in.recv() else { break };
            if let Some((_, packet)) = transport::split_address(&message) {
                self.take_response(packet, now);
            }
        }
        for _ in 0..MESSAGES_A_TURN {
            match self.outputs.internal_stream.incoming() {
                None => return,
                Some(Incoming::Packet(_, message)) => self.take_response(&message, now),
                Some(Incoming::Change(Change::Left(name, _))) => {
                    if let Some(peer) = self.outputs.peers.find(&name) {
                        self.engine.on_proxy_gone(peer, &mut Context::new(now, &mut self.outputs));
                    }
                }
                Some(Incoming::Change(_)) => {}
            }
        }
    }

    /// What the proxy tells about WebSockets.
    fn take_control(&mut self, now: Instant) {
        for _ in 0..MESSAGES_A_TURN {
            let Some(message) = self.control_in.recv() else { return };
            match ws_control::Packet::decode(&message) {
                Ok(packet) => {
                    self.note_marks(&packet, now);
                    self.engine.on_control(&packet, &mut Context::new(now, &mut self.outputs));
                    if packet.named_all {
                        self.on_all_named(now);
                    }
                }
                Err(error) => {
                    let text = format_args!("IN wscontrol: received message with invalid format, skipping: {error}");
                    self.outputs.warnings.warn("ws-control", now, text);
                }
            }
        }
    }

    fn take_response(&mut self, message: &[u8], now: Instant) {
        match Packet::decode(message) {
            Ok(packet) => {
                let from = self.outputs.peers.intern(packet.from);
                self.engine.on_proxy_packet(from, &packet, &mut Context::new(now, &mut self.outputs));
            }
            Err(error) => {
                let text = format_args!("a packet of a proxy is skipped: {error}");
                self.outputs.warnings.warn("response", now, text);
            }
        }
    }

    /// Ends all holds and tells the frontends, but leaves those to a successor that it can go on with: if there is none, their
    /// frontends end them.
    pub fn shut_down(&mut self) {
        self.engine.shut_down(&mut Context::new(self.outputs.now, &mut self.outputs));
        self.reactor.drain(SECOND);
    }
}
