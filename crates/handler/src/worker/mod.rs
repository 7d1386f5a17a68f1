//! The worker: sockets, clock and timers around the engine.
//!
//! One thread. Requests to hold come from the proxy's `accept` socket, items from PULL, SUB, the command socket and the
//! HTTP control port, credits and ends of clients from the frontends' ROUTER sockets. Packets to clients leave through
//! XPUB or ROUTER. While the frontends take no more, publishers are not read from: they wait, and nothing is lost.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use grip::Instruct;
use process::Limited;
use rpc::Call;
use rpc::command::ZmqUris;
use settings::Handler;
use tnetstring::Writer;
use transport::{
    Change, Context, Event, Feed, Options, Publisher, Pull, Push, Reactor, Replier, Router, Subscriber, Waker,
};
use zhttp::{Packet, PeerId, Peers};

use crate::engine::{Decision, Engine, Limits, Outlet};
use crate::publish::command::{self, Effect};
use crate::publish::submission::{Submission, Work};
use crate::take_over::accept::{self, Accept, failure, reply};

const ACCEPT: usize = 0;
const INSPECT: usize = 1;
const STREAM: usize = 2;
const OUT: usize = 3;
const PULL: usize = 4;
const SUB: usize = 5;
const COMMAND: usize = 6;
const STATS: usize = 7;
const RETRY: usize = 8;
/// Messages taken from one socket in a turn.
const MESSAGES_A_TURN: usize = 256;
/// Packets that wait for busy frontends, beyond what the kernel keeps for them, before publishers are made to wait. So few
/// because what is published in the meantime is then taken at once and joined: with 1000, deliveries to 10,000 streams
/// are 0.6 as many a second.
const CONGESTED: usize = 16;
/// The same for packets that leave by ROUTER, where some may wait for a peer that is only just connecting.
const CONGESTED_ROUTER: usize = 1_000;
/// How long the proxy need not ask `inspect` again, in ms: this handler has no sharing and no sessions to tell of.
const INSPECT_AGAIN: i64 = 10_000;
/// How often sequences are looked at.
const SECOND: Duration = Duration::from_secs(1);

/// The sockets towards frontends and publishers.
struct Sockets {
    instance: Vec<u8>,
    out: Publisher,
    stream: Router,
    sub: Option<Subscriber>,
    peers: Peers,
    writer: Writer,
    now: Instant,
    warnings: Limited,
}

impl Outlet for Sockets {
    fn send(&mut self, to: PeerId, by_router: bool, packet: &Packet<'_>) {
        let packet = Packet { from: &self.instance, ..*packet };
        let name = self.peers.name(to);
        let sent = if by_router {
            self.stream.send(name, packet.encode(None, &mut self.writer))
        } else {
            self.out.send(name, packet.encode(Some(name), &mut self.writer))
        };
        if let Err(error) = sent {
            let name = String::from_utf8_lossy(name);
            self.warnings.warn("send", self.now, format_args!("a packet for {name} is lost: {error}"));
        }
    }

    fn follow(&mut self, channel: &str) {
        if let Some(Err(error)) = self.sub.as_ref().map(|sub| sub.subscribe(channel.as_bytes())) {
            tracing::error!("unable to subscribe to {channel}: {error}");
        }
    }

    fn unfollow(&mut self, channel: &str) {
        if let Some(Err(error)) = self.sub.as_ref().map(|sub| sub.unsubscribe(channel.as_bytes())) {
            tracing::error!("unable to unsubscribe from {channel}: {error}");
        }
    }
}

/// The handler's event loop.
pub struct Worker {
    reactor: Reactor,
    accept: Replier,
    inspect: Replier,
    pull: Option<Pull>,
    command: Option<Replier>,
    /// Bound so that consumers can connect.
    _stats: Option<Feed>,
    /// Connected so that a proxy finds its peer.
    _retry: Push,
    sockets: Sockets,
    engine: Engine,
    submissions: Receiver<Submission>,
    sender: SyncSender<Submission>,
    uris: ZmqUris,
    paused: bool,
    next_second: Instant,
}

impl Worker {
    /// Binds and connects the sockets.
    ///
    /// # Errors
    /// A socket can not be bound, connected or set up.
    pub fn new(instance: &str, settings: &Handler) -> Result<Self, transport::Error> {
        let context = Context::new();
        let options = Options { file_mode: settings.ipc_file_mode, ..Options::default() };
        let named = Options::named(instance);
        let brief = Options { linger: 0, ..options.clone() };
        let accept = Replier::connect(&context, &settings.proxy_accept_specs, &options)?;
        let inspect = Replier::connect(&context, &settings.proxy_inspect_specs, &options)?;
        let retry = Push::connect(&context, &settings.proxy_retry_specs, &brief)?;
        let stream = Router::connect(&context, &settings.client_in_stream_specs, &named)?;
        let out = Publisher::connect(&context, &settings.client_out_specs, &options)?;
        let mut reactor = Reactor::new()?;
        reactor.add(ACCEPT, &accept)?;
        reactor.add(INSPECT, &inspect)?;
        reactor.add(STREAM, &stream)?;
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
        let limits = Limits {
            subscriptions: settings.connection_subscription_max,
            linger: settings.subscription_linger,
            queue_bytes: settings.session_queue_bytes,
            message_rate: settings.message_rate,
            message_hwm: settings.message_hwm,
            message_wait: settings.message_wait,
            id_cache_ttl: settings.id_cache_ttl,
        };
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
            inspect,
            pull: pull.transpose()?,
            command: command.transpose()?,
            _stats: stats.transpose()?,
            _retry: retry,
            sockets: Sockets {
                instance: instance.as_bytes().to_vec(),
                out,
                stream,
                sub: sub.transpose()?,
                peers: Peers::default(),
                writer: Writer::new(16_384),
                now,
                warnings: Limited::default(),
            },
            engine: Engine::new(limits, now),
            submissions,
            sender,
            uris,
            paused: false,
            next_second: now + SECOND,
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
        self.reactor.wait(Some(due.saturating_duration_since(Instant::now())), ready)?;
        let now = Instant::now();
        self.sockets.now = now;
        let has = |number| ready.contains(&Event::Socket(number));
        if has(OUT) {
            self.take_changes(now);
        }
        if has(STREAM) {
            self.take_packets(now);
        }
        if has(INSPECT) {
            self.take_inspects();
        }
        if has(ACCEPT) {
            self.take_accepts(now);
        }
        if has(COMMAND) {
            self.take_commands(now);
        }
        if !self.paused {
            self.take_items(has(PULL), has(SUB), now);
        }
        self.engine.flush_run(now, &mut self.sockets);
        self.engine.on_timer(now, &mut self.sockets);
        if now >= self.next_second {
            self.next_second = now + SECOND;
            self.engine.expire_sequences(now, &mut self.sockets);
        }
        for event in ready.iter() {
            if let Event::Source { token, .. } = event {
                foreign(*token);
            }
        }
        Ok(())
    }

    /// Makes publishers wait while frontends do not keep up.
    fn apply_back_pressure(&mut self) {
        let congested = self.sockets.out.waiting() > CONGESTED || self.sockets.stream.waiting() > CONGESTED_ROUTER;
        if congested != self.paused {
            self.paused = congested;
            self.reactor.pause(PULL, congested);
            self.reactor.pause(SUB, congested);
        }
    }

    fn take_changes(&mut self, now: Instant) {
        let changes: Vec<Change> = self.sockets.out.changes().collect();
        for change in changes {
            if let Change::Left(name, _) = change
                && let Some(peer) = self.sockets.peers.find(&name)
            {
                self.engine.on_peer_gone(peer, now, &mut self.sockets);
            }
        }
    }

    fn take_packets(&mut self, now: Instant) {
        for _ in 0..MESSAGES_A_TURN {
            let Some((_, message)) = self.sockets.stream.recv() else { return };
            match Packet::decode(&message) {
                Ok(packet) => {
                    if let Some(peer) = self.sockets.peers.find(packet.from) {
                        self.engine.on_packet(peer, &packet, now, &mut self.sockets);
                    }
                }
                Err(error) => {
                    self.sockets.warnings.warn(
                        "packet",
                        now,
                        format_args!("a packet of a frontend is skipped: {error}"),
                    );
                }
            }
        }
    }

    fn take_inspects(&mut self) {
        for _ in 0..MESSAGES_A_TURN {
            let Some((envelope, message)) = self.inspect.recv() else { return };
            let Ok(request) = Call::decode(&message) else { continue };
            let answer = if request.method == b"inspect" {
                reply(request.id, |out| {
                    let map = out.mark();
                    out.int(INSPECT_AGAIN);
                    out.bytes(b"inspect-again");
                    out.bool(false);
                    out.bytes(b"no-proxy");
                    out.map(map);
                })
            } else {
                failure(request.id, "method-not-found", None)
            };
            // A proxy that is gone needs no answer.
            let _ = self.inspect.reply(&envelope, &answer);
        }
    }

    fn take_accepts(&mut self, now: Instant) {
        for _ in 0..MESSAGES_A_TURN {
            let Some((envelope, message)) = self.accept.recv() else { return };
            let Ok(request) = Call::decode(&message) else {
                self.sockets.warnings.warn("accept", now, "a request of the proxy is skipped: it is malformed");
                continue;
            };
            let (answer, prepared) = match request.method {
                b"accept" => self.decide(&request),
                // Statistics of connections, a notice that wants no answer.
                b"conn-max" => continue,
                _ => (failure(request.id, "method-not-found", None), None),
            };
            // The proxy must hear that the requests are ours before any frontend hears of us.
            let told = self.accept.reply(&envelope, &answer);
            if let (Some(prepared), Ok(_)) = (prepared, told) {
                self.engine.take_over(prepared, now, &mut self.sockets);
            }
        }
    }

    fn decide(&mut self, request: &Call<'_>) -> (Vec<u8>, Option<crate::engine::Prepared>) {
        let accept = match Accept::read(request.args, &mut self.sockets.peers) {
            Ok(accept) => accept,
            Err(error) => {
                tracing::debug!("accept refused: {error}");
                return (failure(request.id, "bad-request", None), None);
            }
        };
        let response_sent = accept.response_sent;
        // The instruct borrows from the response, which outlives the decision.
        let response = accept.response.clone();
        let instruct = match Instruct::read(response.backend()) {
            Ok(instruct) => instruct,
            Err(error) => return (failure(request.id, "bad-format", Some(&error.to_string())), None),
        };
        match self.engine.decide(accept, &instruct) {
            Decision::Hold(prepared) => (reply(request.id, accept::accepted), Some(prepared)),
            Decision::Pass if response_sent => (reply(request.id, accept::nothing), None),
            Decision::Pass => (reply(request.id, |out| accept::respond(out, &instruct.response)), None),
        }
    }

    fn take_commands(&mut self, now: Instant) {
        for _ in 0..MESSAGES_A_TURN {
            let Some((envelope, message)) = self.command.as_ref().and_then(Replier::recv) else { return };
            let call = match Call::decode(&message) {
                Ok(call) => call,
                Err(error) => {
                    self.sockets.warnings.warn("command", now, format_args!("a command is skipped: {error}"));
                    continue;
                }
            };
            let known = |id: &[u8]| self.engine.is_held(id, &self.sockets.peers);
            let (answer, effect) = command::answer(&call, &self.uris, known);
            if let Some(command) = &self.command {
                // Whoever asked may be gone.
                let _ = command.reply(&envelope, &answer);
            }
            match effect {
                Effect::None => {}
                Effect::Publish(items) => self.publish(items, now),
                Effect::Recover => self.engine.recover(),
            }
        }
    }

    fn publish(&mut self, items: Vec<grip::Item>, now: Instant) {
        for item in items {
            self.engine.publish(item, now, &mut self.sockets);
        }
    }

    fn take_items(&mut self, pull: bool, sub: bool, now: Instant) {
        for _ in 0..MESSAGES_A_TURN {
            let Ok(submission) = self.submissions.try_recv() else { break };
            let Some((work, receipt)) = submission.begin() else { continue };
            match work {
                Work::Publish(items) => self.publish(items, now),
                Work::Recover => self.engine.recover(),
            }
            receipt.complete();
        }
        for _ in 0..if pull { MESSAGES_A_TURN } else { 0 } {
            let Some(message) = self.pull.as_ref().and_then(Pull::recv) else { break };
            self.take_item("pull", &message, None, now);
        }
        for _ in 0..if sub { MESSAGES_A_TURN } else { 0 } {
            let Some((topic, message)) = self.sockets.sub.as_ref().and_then(Subscriber::recv_topic) else { break };
            match std::str::from_utf8(&topic) {
                Ok(topic) => self.take_item("sub", &message, Some(topic), now),
                Err(_) => {
                    self.sockets.warnings.warn("sub", now, "IN sub: received message with invalid topic, skipping")
                }
            }
        }
    }

    fn take_item(&mut self, name: &'static str, message: &[u8], topic: Option<&str>, now: Instant) {
        match grip::item::from_message(message, topic) {
            Ok(item) => self.engine.publish(item, now, &mut self.sockets),
            Err(error) => {
                let text = format_args!("IN {name}: received message with invalid format: {error}, skipping");
                self.sockets.warnings.warn(name, now, text);
            }
        }
    }

    /// Ends all holds and tells the frontends.
    pub fn shut_down(&mut self) {
        self.engine.shut_down(&mut self.sockets);
        self.reactor.drain(SECOND);
    }
}
