// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is shown: the last snapshot, rates, orders.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::cmp::Reverse;
use std::time::Instant;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::history::History;
use super::theme::Theme;
use crate::snapshot::{Channel, Snapshot};

/// See the module.
#[derive(Debug)]
pub struct View {
    /// What the runner told last.
    pub snapshot: Snapshot,
    /// Of that and what it told before.
    pub history: History,
    /// Why it tells no more, since when.
    pub trouble: Option<(String, Instant)>,
    /// The order of processes.
    pub processes_by: ProcessOrder,
    /// The order of channels.
    pub channels_by: ChannelOrder,
    /// How it looks.
    pub theme: Theme,
}

/// By what processes are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessOrder {
    /// As the status has them.
    Name,
    /// The busiest first.
    Processor,
    /// The largest first.
    Memory,
    /// The one with the most clients, requests or holds first.
    Open,
}

/// By what channels are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelOrder {
    /// The largest first.
    Subscribers,
    /// Those largest ones, by name.
    Name,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To go on.
    GoOn,
    /// To end.
    Quit,
}

/// One process, as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Row<'a> {
    /// `proxy`, `frontend-1`, `runner`.
    pub name: &'a str,
    /// As in the status; `serving` for the runner.
    pub state: &'a str,
    /// While it runs.
    pub pid: Option<u32>,
    /// While it runs.
    pub uptime_seconds: Option<u64>,
    /// How often it was started again.
    pub restarts: u64,
    /// Clients, requests or holds.
    pub open: Option<u64>,
    /// Part of one processor.
    pub processor: Option<f64>,
    /// Memory that is not swapped out.
    pub memory_bytes: Option<u64>,
}

impl View {
    /// Begins with what the runner tells first.
    pub fn new(snapshot: Snapshot, theme: Theme, now: Instant) -> Self {
        let mut history = History::default();
        history.add(&snapshot, now);
        let (processes_by, channels_by) = (ProcessOrder::Name, ChannelOrder::Subscribers);
        Self { snapshot, history, trouble: None, processes_by, channels_by, theme }
    }

    /// Takes what the runner tells, or why it does not.
    pub fn apply(&mut self, told: Result<Snapshot, String>, now: Instant) {
        match told {
            Ok(snapshot) => {
                self.history.add(&snapshot, now);
                self.snapshot = snapshot;
                self.trouble = None;
            }
            Err(text) => {
                let since = self.trouble.take().map_or(now, |(_, since)| since);
                self.trouble = Some((text, since));
            }
        }
    }

    /// Does what a key asks for.
    pub fn press(&mut self, key: KeyEvent) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::GoOn;
        }
        let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Esc => return Wish::Quit,
            KeyCode::Char('c' | 'd') if with_control => return Wish::Quit,
            KeyCode::Char(_) if with_control => {}
            KeyCode::Char(letter) => match letter.to_ascii_lowercase() {
                'q' => return Wish::Quit,
                'n' => self.processes_by = ProcessOrder::Name,
                'c' => self.processes_by = ProcessOrder::Processor,
                'm' => self.processes_by = ProcessOrder::Memory,
                'o' => self.processes_by = ProcessOrder::Open,
                's' => self.channels_by = ChannelOrder::Subscribers,
                'a' => self.channels_by = ChannelOrder::Name,
                _ => {}
            },
            _ => {}
        }
        Wish::GoOn
    }

    /// The runner and its processes, in order.
    pub fn processes(&self) -> Vec<Row<'_>> {
        let status = &self.snapshot.status;
        let of_machine = |name: &str| self.snapshot.usage.get(name).map(|usage| usage.memory_bytes);
        let runner = Row {
            name: "runner",
            state: "serving",
            pid: Some(status.pid),
            uptime_seconds: Some(status.uptime_seconds),
            restarts: 0,
            open: None,
            processor: self.history.processor("runner"),
            memory_bytes: of_machine("runner"),
        };
        let others = status.processes.iter().map(|process| Row {
            name: &process.name,
            state: &process.state,
            pid: process.pid,
            uptime_seconds: process.uptime_seconds,
            restarts: process.restarts,
            open: process.open,
            processor: self.history.processor(&process.name),
            memory_bytes: of_machine(&process.name),
        });
        let mut rows: Vec<_> = std::iter::once(runner).chain(others).collect();
        // What is equal stays in the order of the status.
        match self.processes_by {
            ProcessOrder::Name => {}
            ProcessOrder::Processor => rows.sort_by(|one, other| {
                other.processor.unwrap_or_default().total_cmp(&one.processor.unwrap_or_default())
            }),
            ProcessOrder::Memory => rows.sort_by_key(|row| Reverse(row.memory_bytes)),
            ProcessOrder::Open => rows.sort_by_key(|row| Reverse(row.open)),
        }
        rows
    }

    /// The largest channels, in order.
    pub fn channels(&self) -> Vec<&Channel> {
        let mut channels: Vec<_> = self.snapshot.channels.list.iter().collect();
        match self.channels_by {
            ChannelOrder::Subscribers => channels.sort_by_key(|channel| Reverse(subscribers(channel))),
            ChannelOrder::Name => channels.sort_by(|one, other| one.channel.cmp(&other.channel)),
        }
        channels
    }

    /// What was lost with how often a second; what is being lost first, then what was lost most often.
    pub fn losses(&self) -> Vec<(&crate::snapshot::Loss, f64)> {
        let rated = self.snapshot.losses.iter().map(|loss| (loss, self.history.loss(&loss.kind, &loss.reason)));
        let mut losses: Vec<_> = rated.collect();
        losses.sort_by(|(one, its_rate), (other, others_rate)| {
            others_rate.total_cmp(its_rate).then(other.count.cmp(&one.count))
        });
        losses
    }
}

/// All of a channel, in whatever format.
pub fn subscribers(channel: &Channel) -> u64 {
    channel.subscribers.values().sum()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::snapshot::usage::Usage;
    use crate::snapshot::{Channels, Counters, Gauges, Loss};
    use crate::status::Status;
    use crate::status::{LastEnd, Process};

    /// A suite with a bit of everything.
    pub(crate) fn snapshot() -> Snapshot {
        let process = |name: &str, pid, open| Process {
            name: name.into(),
            state: "serving".into(),
            pid: Some(pid),
            uptime_seconds: Some(270_000),
            open: Some(open),
            ..Process::default()
        };
        let mut processes = vec![
            process("frontend", 4712, 1204),
            process("outbound", 4713, 3),
            process("proxy", 4790, 14),
            process("handler", 4715, 1190),
        ];
        processes[2].uptime_seconds = Some(125);
        processes[2].restarts = 1;
        processes[2].last_end = Some(LastEnd { reason: "SIGKILL".into(), seconds_ago: 126 });
        let usage = |pid, cpu_seconds, megabytes: u64| Usage { pid, cpu_seconds, memory_bytes: megabytes << 20 };
        let channel = |name: &str, stream, response, ws| Channel {
            channel: name.into(),
            subscribers: BTreeMap::from([
                ("http-stream".into(), stream),
                ("http-response".into(), response),
                ("ws-message".into(), ws),
            ]),
        };
        let loss = |kind: &str, reason: &str, count| Loss {
            kind: kind.into(),
            reason: reason.into(),
            help: String::new(),
            count,
        };
        Snapshot {
            time: 1,
            status: Status {
                version: "2.0.0".into(),
                program: "/usr/bin/pushpin-runner".into(),
                config: "/etc/pushpin/pushpin.conf".into(),
                pid: 4711,
                uptime_seconds: 270_003,
                ready: true,
                missing: Vec::new(),
                processes,
            },
            usage: BTreeMap::from([
                ("runner".into(), usage(4711, 1.0, 12)),
                ("frontend".into(), usage(4712, 100.0, 34)),
                ("outbound".into(), usage(4713, 2.0, 9)),
                ("proxy".into(), usage(4790, 3.0, 11)),
                ("handler".into(), usage(4715, 50.0, 130)),
            ]),
            gauges: Gauges {
                clients: 1204,
                sessions: 1204,
                holds: BTreeMap::from([("response".into(), 20), ("stream".into(), 1000), ("ws".into(), 170)]),
                channels: 250,
            },
            counters: Counters { requests: 9000, published: 1000, deliveries: 1_000_000, content: 50_000_000 },
            losses: vec![loss("dropped", "filtered", 5), loss("client closed", "deadline", 70)],
            channels: Channels {
                list: vec![channel("news", 900, 100, 0), channel("chat", 0, 0, 170), channel("zoo", 4, 0, 1)],
                missing: None,
            },
        }
    }

    fn key(code: KeyCode, modifiers: KeyModifiers) -> KeyEvent {
        KeyEvent::new(code, modifiers)
    }

    fn letter(letter: char) -> KeyEvent {
        key(KeyCode::Char(letter), KeyModifiers::NONE)
    }

    #[test]
    fn q_escape_and_control_c_end_it_and_other_keys_do_not() {
        let mut view = View::new(snapshot(), Theme::PLAIN, Instant::now());
        for quit in [letter('q'), letter('Q'), key(KeyCode::Esc, KeyModifiers::NONE)] {
            assert_eq!(view.press(quit), Wish::Quit, "{quit:?}");
        }
        assert_eq!(view.press(key(KeyCode::Char('c'), KeyModifiers::CONTROL)), Wish::Quit);
        for other in [letter('x'), letter('c'), key(KeyCode::Enter, KeyModifiers::NONE)] {
            assert_eq!(view.press(other), Wish::GoOn, "{other:?}");
        }
        let released = KeyEvent { kind: KeyEventKind::Release, ..letter('q') };
        assert_eq!(view.press(released), Wish::GoOn);
    }

    #[test]
    fn keys_choose_the_order() {
        let now = Instant::now();
        let mut view = View::new(snapshot(), Theme::PLAIN, now);
        let mut later = snapshot();
        later.usage.get_mut("handler").unwrap().cpu_seconds += 0.5;
        later.usage.get_mut("proxy").unwrap().cpu_seconds += 0.9;
        view.apply(Ok(later), now + Duration::from_secs(1));
        let mut first = |pressed| {
            view.press(letter(pressed));
            view.processes().iter().map(|row| row.name).take(2).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(first('x'), "runner frontend");
        assert_eq!(first('c'), "proxy handler");
        assert_eq!(first('m'), "handler frontend");
        assert_eq!(first('o'), "frontend handler");
        assert_eq!(first('n'), "runner frontend");
        let mut channels = |pressed| {
            view.press(letter(pressed));
            view.channels().iter().map(|channel| channel.channel.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(channels('x'), "news chat zoo");
        assert_eq!(channels('a'), "chat news zoo");
        assert_eq!(channels('s'), "news chat zoo");
    }

    #[test]
    fn what_is_being_lost_comes_first() {
        let now = Instant::now();
        let mut view = View::new(snapshot(), Theme::PLAIN, now);
        let first = |view: &View| view.losses()[0].0.reason.clone();
        assert_eq!(first(&view), "deadline");
        let mut later = snapshot();
        later.losses[0].count += 1;
        view.apply(Ok(later), now + Duration::from_secs(1));
        assert_eq!(first(&view), "filtered");
    }

    #[test]
    fn what_was_told_stays_while_the_runner_does_not_answer() {
        let now = Instant::now();
        let mut view = View::new(snapshot(), Theme::PLAIN, now);
        view.apply(Err("gone".into()), now);
        view.apply(Err("still gone".into()), now + Duration::from_secs(9));
        assert_eq!(view.trouble, Some(("still gone".into(), now)));
        assert_eq!(view.processes().len(), 5);
        view.apply(Ok(snapshot()), now);
        assert_eq!(view.trouble, None);
    }
}
