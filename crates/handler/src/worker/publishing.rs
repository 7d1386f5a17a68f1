// SPDX-License-Identifier: AGPL-3.0-or-later
//! Items on their way in: from the control port, the command socket, PULL and SUB into the backlog, and from there, in
//! steps, to the engine.

use std::time::{Duration, Instant};

use rpc::{Call, Reply};
use transport::{Answer, Change, Envelope, Pull, Replier, Subscriber};

use super::pressure::STALLED;
use super::{DELIVERIES_A_TURN, MAX_WAITING_ORDERS, MESSAGES_A_TURN, Worker};
use crate::context::Context;
use crate::publish::command::{self, Effect};
use crate::publish::submission::{Output, Receipt, Work};

/// How long the proxy is waited for, or its successor: the runner waits 5 s before it starts one that has ended time and again.
const PROXY_PATIENCE: Duration = Duration::from_secs(6);

/// An order under way.
pub(super) struct Ticket {
    by: Publisher,
    /// When it came.
    since: Instant,
}

/// Who waits for an order to be done.
enum Publisher {
    /// A client of the control port.
    Http(Receipt),
    /// A client of the command socket, with its answer.
    Command(Envelope, Vec<u8>),
}

/// A ZeroMQ socket of publishers.
#[derive(Clone, Copy)]
pub(super) enum Input {
    /// Items as they are.
    Pull,
    /// Items behind the names of their channels.
    Sub,
}

impl Worker {
    pub(super) fn take_commands(&mut self, now: Instant) {
        for _ in 0..MESSAGES_A_TURN {
            let Some((envelope, message)) = self.command.as_ref().and_then(Replier::recv) else { return };
            let call = match Call::decode(&message) {
                Ok(call) => call,
                Err(error) => {
                    self.outputs.warnings.warn("command", now, format_args!("a command is skipped: {error}"));
                    continue;
                }
            };
            let known = |id: &[u8]| self.engine.is_held(id, &self.outputs.peers);
            let (answer, effect) = command::answer(&call, &self.uris, known);
            let answer = match effect {
                Effect::Publish(_) if self.backlog.orders() >= MAX_WAITING_ORDERS || self.backlog.is_large() => {
                    self.outputs.warnings.warn("busy", now, "a publish command is refused: too many wait");
                    command::busy(&call)
                }
                Effect::Publish(items) => {
                    self.inputs.command += items.len() as u64;
                    self.backlog.push(items, Ticket { by: Publisher::Command(envelope, answer), since: now });
                    continue;
                }
                Effect::Recover => {
                    self.engine.recover(&mut Context::new(now, &mut self.outputs));
                    answer
                }
                Effect::Forward(question) => {
                    let commands = &self.outputs.commands;
                    // Without a proxy that takes it at once, the asker hears so instead of waiting.
                    let send = |call: &[u8]| commands.writable() && commands.send(call).is_ok();
                    let failed = self.forwarded.ask(envelope, call.id, question, now, send);
                    self.answer_commands(failed);
                    continue;
                }
                Effect::RefreshChannel(channel) => {
                    self.engine.refresh_channel(&channel, &mut Context::new(now, &mut self.outputs));
                    answer
                }
                Effect::None => answer,
            };
            self.answer_command(&envelope, &answer);
        }
    }

    /// Takes in what the proxy says to commands that it was asked about, and gives up those that have waited too long.
    pub(super) fn take_proxy_answers(&mut self, ready: bool, now: Instant) {
        for _ in 0..if ready { MESSAGES_A_TURN } else { 0 } {
            let answers = match self.outputs.commands.incoming() {
                None => break,
                Some(Answer::Reply(message)) => match Reply::decode(&message) {
                    Ok(reply) => self.forwarded.on_reply(&reply).into_iter().collect(),
                    Err(error) => {
                        let text = format_args!("an answer of the proxy is skipped: {error}");
                        self.outputs.warnings.warn("command", now, text);
                        continue;
                    }
                },
                Some(Answer::Change(Change::Left(..))) => self.forwarded.on_proxy_gone(),
                Some(Answer::Change(_)) => continue,
            };
            self.answer_commands(answers);
        }
        let over = self.forwarded.expire(now);
        self.answer_commands(over);
    }

    fn answer_commands(&self, answers: impl IntoIterator<Item = (Envelope, Vec<u8>)>) {
        answers.into_iter().for_each(|(envelope, answer)| self.answer_command(&envelope, &answer));
    }

    fn answer_command(&self, envelope: &Envelope, answer: &[u8]) {
        if let Some(command) = &self.command {
            // Whoever asked may be gone.
            let _ = command.reply(envelope, answer);
        }
    }

    pub(super) fn take_submissions(&mut self, now: Instant) {
        while !self.backlog.is_full() {
            let Ok(submission) = self.submissions.try_recv() else { return };
            let Some((work, receipt)) = submission.begin() else { continue };
            match work {
                Work::Publish(items) => {
                    self.inputs.http += items.len() as u64;
                    self.backlog.push(items, Ticket { by: Publisher::Http(receipt), since: now });
                }
                Work::Recover => {
                    self.engine.recover(&mut Context::new(now, &mut self.outputs));
                    receipt.answer(Output::Recovered);
                }
                Work::Count(channel, users) => {
                    receipt.answer(Output::Counted(self.engine.subscribers(&channel, users.as_ref())));
                }
                Work::List(listing) => receipt.answer(Output::Listed(self.engine.channels().page(&listing))),
            }
        }
    }

    /// Takes items from a socket that has some, as far as there is room for them.
    pub(super) fn take_items(&mut self, input: Input, ready: bool, now: Instant) {
        for _ in 0..if ready { MESSAGES_A_TURN } else { 0 } {
            if self.backlog.is_full() {
                return;
            }
            let item = match input {
                Input::Pull => {
                    let Some(message) = self.pull.as_ref().and_then(Pull::recv) else { return };
                    grip::item::from_message(&message, None)
                }
                Input::Sub => {
                    let Some((topic, message)) = self.outputs.sub.as_ref().and_then(Subscriber::recv_topic) else {
                        return;
                    };
                    let Ok(topic) = std::str::from_utf8(&topic) else {
                        let text = "IN sub: received message with invalid topic, skipping";
                        self.outputs.warnings.warn("sub", now, text);
                        continue;
                    };
                    grip::item::from_message(&message, Some(topic))
                }
            };
            match item {
                Ok(item) => {
                    match input {
                        Input::Pull => self.inputs.pull += 1,
                        Input::Sub => self.inputs.sub += 1,
                    }
                    self.backlog.push_single(item, now);
                }
                Err(error) => {
                    let name = match input {
                        Input::Pull => "pull",
                        Input::Sub => "sub",
                    };
                    let text = format_args!("IN {name}: received message with {error}, skipping");
                    self.outputs.warnings.warn(name, now, text);
                }
            }
        }
    }

    /// Publishes some of what waits.
    pub(super) fn publish(&mut self, now: Instant) {
        let mut deliveries = 0;
        let cx = &mut Context::new(now, &mut self.outputs);
        while deliveries < DELIVERIES_A_TURN
            && let Some(item) = self.backlog.take()
        {
            let (receivers, fate) = self.engine.publish(item, cx);
            deliveries += 1 + receivers;
            if let Some(Ticket { by: Publisher::Http(receipt), .. }) = self.backlog.ticket() {
                receipt.note(fate);
            }
        }
    }

    /// Tells publishers whose items have left for the frontends: they are not lost if this process ends. A frontend that does
    /// not keep up is not waited for; a successor is told of it first. A proxy is, until it has taken what is for WebSockets, and so is its
    /// successor until it has named them.
    pub(super) fn answer_publishers(&mut self, now: Instant) {
        self.leaving.extend(self.backlog.finished());
        let single = self.backlog.single_taken();
        if self.leaving.is_empty() && single.len() == 0 {
            return;
        }
        self.reactor.flush();
        // The time of the turn is from before the work.
        let left = Instant::now();
        single.for_each(|(since, count)| self.publish_times.observe(left.saturating_duration_since(since), count));
        if self.leaving.is_empty() {
            return;
        }
        // A successor of ours would not know what of it the proxy has got.
        let behind_proxy = self.engine.goes_on_without_proxy() && self.outputs.has_for_proxy();
        if !behind_proxy && !self.engine.waits_for_names() {
            self.proxy_behind_since = None;
        } else if now.duration_since(*self.proxy_behind_since.get_or_insert(now)) < PROXY_PATIENCE {
            return;
        }
        let behind = self.outputs.behind(&self.engine);
        if behind.iter().all(|(_, lags)| *lags) && !self.outputs.waits_for_proxy() {
            self.unsent_since = None;
        } else if now.duration_since(*self.unsent_since.get_or_insert(now)) < STALLED {
            return;
        }
        self.owe(behind.iter().map(|(name, _)| &name[..]), now);
        let done = Instant::now();
        for Ticket { by, since } in std::mem::take(&mut self.leaving) {
            self.publish_times.observe(done.saturating_duration_since(since), 1);
            match by {
                Publisher::Http(receipt) => receipt.complete(),
                Publisher::Command(envelope, answer) => self.answer_command(&envelope, &answer),
            }
        }
    }
}
