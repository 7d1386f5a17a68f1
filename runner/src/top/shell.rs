// SPDX-License-Identifier: AGPL-3.0-or-later
//! The terminal, signals, and the runner that is asked once a second.

use std::io::{self, IsTerminal as _, Stdout, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, raise};
use process::Failure;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event as FromTerminal};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};

use super::render::render;
use super::theme::Theme;
use super::view::{View, Wish};
use crate::control::{Answer, Request, client};
use crate::snapshot::Snapshot;

/// From one question to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the runner may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Events that wait; whoever has more waits.
const MAX_EVENTS: usize = 64;
/// Signals that end a program: the terminal is restored before they do.
const ENDING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// What happens.
enum Event {
    Told(Result<Box<Snapshot>, String>),
    Terminal(FromTerminal),
    Signal(Signal),
    /// The terminal can not be read any more.
    Lost(io::Error),
}

/// Shows the suite whose runner listens at this socket, until somebody has seen enough.
///
/// # Errors
/// There is no terminal, or no runner.
pub fn run(socket: &Path) -> Result<ExitCode, Failure> {
    if !stdout().is_terminal() {
        return Err(
            "this is for a terminal, and the output is none; `pushpin-runner ctl status` prints how the suite is"
                .into(),
        );
    }
    let theme = Theme::of(std::env::var_os("NO_COLOR").as_deref());
    // What is wrong with the first answer is told where it can be read afterwards.
    let view = View::new(*ask(socket)?, theme, Instant::now());
    // Threads that are started later inherit it.
    let signals: SigSet = ENDING.into_iter().collect();
    signals.thread_block()?;
    let (sender, events) = sync_channel(MAX_EVENTS);
    let screen = Screen::take()?;
    begin(&sender, {
        let socket = socket.to_path_buf();
        move |sender| look(&socket, sender)
    });
    begin(&sender, read_terminal);
    begin(&sender, move |sender| {
        while let Ok(signal) = signals.wait() {
            if sender.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
    let ended_by = show(view, &events, screen)?;
    if let Some(signal) = ended_by {
        // As it would have ended without us; whoever waits for this process is told the truth.
        SigSet::from(signal).thread_unblock()?;
        raise(signal)?;
        // It is ignored, as `nohup` has it.
        return Ok(ExitCode::from(128 + signal as u8));
    }
    Ok(ExitCode::SUCCESS)
}

fn begin(sender: &SyncSender<Event>, work: impl FnOnce(&SyncSender<Event>) + Send + 'static) {
    let sender = sender.clone();
    // They end with the process.
    thread::spawn(move || work(&sender));
}

/// Draws after every event. Says by which signal it was ended, if it was.
fn show(mut view: View, events: &Receiver<Event>, mut screen: Screen) -> Result<Option<Signal>, Failure> {
    loop {
        screen.terminal.draw(|frame| render(&view, Instant::now(), frame))?;
        // The threads hold the other end.
        let Ok(first) = events.recv() else { return Ok(None) };
        // One picture of all that has happened.
        for event in std::iter::once(first).chain(events.try_iter().take(MAX_EVENTS)) {
            match event {
                Event::Told(told) => view.apply(told.map(|snapshot| *snapshot), Instant::now()),
                Event::Terminal(FromTerminal::Key(key)) if view.press(key) == Wish::Quit => return Ok(None),
                // A new size is noticed when it is drawn.
                Event::Terminal(_) => {}
                Event::Signal(signal) => return Ok(Some(signal)),
                Event::Lost(error) => return Err(format!("the terminal can not be read: {error}").into()),
            }
        }
    }
}

fn read_terminal(sender: &SyncSender<Event>) {
    loop {
        let event = event::read().map_or_else(Event::Lost, Event::Terminal);
        let is_last = matches!(event, Event::Lost(_));
        if sender.send(event).is_err() || is_last {
            return;
        }
    }
}

fn look(socket: &Path, sender: &SyncSender<Event>) {
    loop {
        thread::sleep(INTERVAL);
        if sender.send(Event::Told(ask(socket).map_err(|error| error.to_string()))).is_err() {
            return;
        }
    }
}

fn ask(socket: &Path) -> Result<Box<Snapshot>, Failure> {
    for answer in client::ask(socket, &Request::Snapshot, PATIENCE)? {
        match answer? {
            Answer::Snapshot(snapshot) => return Ok(snapshot),
            Answer::Failed(text) => return Err(text.into()),
            _ => {}
        }
    }
    Err("the runner has nothing to tell".into())
}

/// The terminal while it is ours. It is as it was when this is dropped, or when something panics.
struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    fn take() -> io::Result<Self> {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            hook(panic);
        }));
        enable_raw_mode()?;
        let taken =
            execute!(stdout(), EnterAlternateScreen).and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        match taken {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// A terminal that has gone needs nothing.
fn give_back() {
    let _ = disable_raw_mode();
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Run by the test below, in a terminal.
    #[test]
    #[ignore = "it panics"]
    fn something_panics_while_the_terminal_is_ours() {
        let _screen = Screen::take().unwrap();
        panic!("for a test");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_and_is_read_afterwards() {
        let test = "top::shell::tests::something_panics_while_the_terminal_is_ours";
        let own = std::env::current_exe().unwrap();
        let panicking = format!("{} --exact --ignored --nocapture {test}", own.display());
        let line = format!("stty -a >before; {panicking}; stty -a >after");
        let directory = tempfile::tempdir().unwrap();
        let script =
            Command::new("script").args(["--quiet", "--command", &line, "output"]).current_dir(&directory).output();
        script.expect("script is installed");
        let read = |name| std::fs::read(directory.path().join(name)).unwrap();
        assert_eq!(read("before"), read("after"));
        let output = String::from_utf8_lossy(&read("output")).into_owned();
        let (_, ours) = output.split_once("\x1b[?1049h").expect("it had a screen of its own");
        let (_, afterwards) = ours.split_once("\x1b[?1049l").expect("it was given back");
        assert!(afterwards.contains("\x1b[?25h") && afterwards.contains("for a test"), "{output}");
    }
}
