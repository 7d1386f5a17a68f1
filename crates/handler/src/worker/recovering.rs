//! After a start, the holds and WebSockets of a predecessor are taken up. Nothing is published or accepted before all
//! frontends and the proxy have been heard, or for a second.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use grip::Instruct;
use rpc::ws_control;
use transport::Change;
use zhttp::PeerId;
use zhttp::recovery::{self, Held, Message};

use super::Worker;
use crate::context::{Actions as _, Context};
use crate::take_over::admission::{Decision, Prepared};
use crate::take_over::record::{self, PLACE};

/// How long frontends are waited for.
const PATIENCE: Duration = Duration::from_secs(1);

type Frontends = HashSet<PeerId, RandomState>;

/// See the module.
pub(super) struct Recovering {
    /// Until then frontends are waited for; none when they are not any more.
    until: Option<Instant>,
    since: Instant,
    /// How many frontends there should be.
    expected: usize,
    /// Frontends that can be asked.
    able: Frontends,
    /// Frontends with a link by which to ask them.
    linked: Frontends,
    asked: Frontends,
    done: Frontends,
    /// Frontends whose link has been lost, with what was on its way: what they have kept has a hole.
    lost: Frontends,
    holds: usize,
    /// Holds and WebSockets of a predecessor are taken up at all.
    takes_up: bool,
    /// The proxy has not named all its WebSockets yet.
    awaits_proxy: bool,
}

impl Recovering {
    /// With frontends at these addresses. Only of those on this machine the end of a link is known.
    pub(super) fn new(specs: &[String], now: Instant) -> Self {
        let local = !specs.is_empty() && specs.iter().all(|spec| spec.starts_with("ipc:"));
        Recovering {
            until: local.then(|| now + PATIENCE),
            since: now,
            expected: specs.len(),
            able: Frontends::default(),
            linked: Frontends::default(),
            asked: Frontends::default(),
            done: Frontends::default(),
            lost: Frontends::default(),
            holds: 0,
            takes_up: local,
            awaits_proxy: local,
        }
    }

    /// Whether frontends are waited for.
    pub(super) fn is_under_way(&self) -> bool {
        self.until.is_some()
    }

    /// A frontend that is to be asked now.
    fn next(&mut self) -> Option<PeerId> {
        let next = self.able.intersection(&self.linked).find(|&frontend| !self.asked.contains(frontend)).copied();
        self.asked.extend(next);
        next
    }
}

impl Worker {
    /// A frontend has come or gone, or says that it can be asked. Whether that was all that the change says.
    pub(super) fn note_for_recovery(&mut self, change: &Change, by_router: bool) -> bool {
        let (Change::Joined(name) | Change::Left(name, _) | Change::Room(name)) = change;
        let (name, is_topic) = match recovery::instance(name) {
            Some(instance) if !by_router => (instance, true),
            _ => (&name[..], false),
        };
        let Some(frontend) = self.outputs.peers.intern(name) else { return is_topic };
        let recovering = &mut self.recovering;
        match change {
            Change::Joined(_) if is_topic => drop(recovering.able.insert(frontend)),
            Change::Joined(_) if by_router => drop(recovering.linked.insert(frontend)),
            Change::Left(..) if is_topic => drop(recovering.able.remove(&frontend)),
            Change::Left(..) if by_router => {
                recovering.lost.insert(frontend);
                for all in [&mut recovering.linked, &mut recovering.asked, &mut recovering.done] {
                    all.remove(&frontend);
                }
            }
            _ => {}
        }
        while let Some(frontend) = self.recovering.next() {
            let name = self.outputs.peers.name(frontend).clone();
            if let Err(error) = self.outputs.stream.send(&name, &Message::Recover(PLACE).encode()) {
                let text = format_args!("a frontend can not be asked for what it has kept: {error}");
                self.outputs.warnings.warn("recover", self.outputs.now, text);
            }
        }
        is_topic
    }

    /// A frontend tells what it has kept.
    pub(super) fn on_recovery(&mut self, from: &[u8], message: &[u8], now: Instant) {
        let Some(frontend) = self.outputs.peers.find(from) else { return };
        match Message::decode(message) {
            Ok(Message::Seen(seen)) => self.engine.note_seen(frontend, &seen, now),
            Ok(Message::Held { records, sessions }) => {
                for sessions in sessions.chunk_by(|a, b| a.record == b.record) {
                    let record = sessions.first().and_then(|held| records.get(held.record as usize));
                    self.take_up(frontend, record.copied().unwrap_or_default(), sessions, now);
                }
            }
            Ok(Message::Done { run }) => {
                self.engine.note_run(run);
                self.recovering.done.insert(frontend);
            }
            Ok(Message::Recover(_)) => {}
            Err(error) => {
                let text = format_args!("what a frontend has kept can not be read: {error}");
                self.outputs.warnings.warn("recovery", now, text);
            }
        }
    }

    fn take_up(&mut self, frontend: PeerId, record: &[u8], sessions: &[Held], now: Instant) {
        let prepared = match self.recovering.lost.contains(&frontend) {
            true => Err("the link to their frontend was lost".into()),
            false => self.prepare(record, now),
        };
        let cx = &mut Context::new(now, &mut self.outputs);
        match prepared {
            Ok(prepared) => self.recovering.holds += self.engine.take_up(frontend, &prepared, sessions, cx),
            Err(error) => {
                self.engine.refuse(frontend, sessions, cx);
                let count = sessions.len();
                let text = format_args!("{count} clients of the predecessor are closed: {error}");
                self.outputs.warnings.warn("record", now, text);
            }
        }
    }

    /// What is to be done with sessions of this record.
    fn prepare(&mut self, bytes: &[u8], now: Instant) -> Result<Prepared, String> {
        let mut accept = record::read(bytes, &mut self.outputs.peers).map_err(|error| error.to_string())?;
        accept.is_taken_up = true;
        let response = accept.response.clone();
        let instruct = Instruct::read(response.backend()).map_err(|error| error.to_string())?;
        match self.engine.decide(accept, &instruct, &mut Context::new(now, &mut self.outputs)) {
            Decision::Hold(prepared) => Ok(prepared),
            Decision::Pass(_) => Err("nothing is to be held".into()),
            Decision::Refuse(refusal) => Err(refusal.to_string()),
        }
    }

    /// The proxy says which messages its WebSockets may have, in front of all WebSockets.
    pub(super) fn note_marks(&mut self, packet: &ws_control::Packet<'_>, now: Instant) {
        if let Some(proxy) = packet.from.as_deref().and_then(|from| self.outputs.peers.intern(from)) {
            self.engine.note_sent_to_sockets(proxy, &packet.marks, now);
        }
    }

    /// The proxy has named all its WebSockets.
    pub(super) fn on_all_named(&mut self, now: Instant) {
        let count = self.engine.on_all_named();
        if count > 0 {
            let time = now.duration_since(self.recovering.since).as_millis();
            tracing::info!("{count} WebSockets that a predecessor knew are known again, after {time} ms");
        }
        self.recovering.awaits_proxy = false;
        if self.recovering.takes_up {
            let answer = ws_control::Packet { takes_up: true, ..ws_control::Packet::default() };
            self.outputs.control(&answer);
        }
    }

    /// Begins to publish when all frontends have been heard, or it has taken too long.
    pub(super) fn end_recovery(&mut self, now: Instant) {
        let recovering = &mut self.recovering;
        let Some(until) = recovering.until else { return };
        if (recovering.done.len() < recovering.expected || recovering.awaits_proxy) && now < until {
            return;
        }
        recovering.until = None;
        if recovering.holds > 0 {
            let time = now.duration_since(recovering.since).as_millis();
            tracing::info!("{} requests that a predecessor held are held again, after {time} ms", recovering.holds);
        }
        self.engine.on_recovered();
        [super::ACCEPT, super::COMMAND].into_iter().for_each(|socket| self.reactor.pause(socket, false));
    }
}
