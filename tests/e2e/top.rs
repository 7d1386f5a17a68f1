// SPDX-License-Identifier: AGPL-3.0-or-later
//! `pushpin-runner top`, in a terminal.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pushpin_tests::client::Client;
use pushpin_tests::publish;
use pushpin_tests::suite::{Suite, program};
use pushpin_tests::terminal::Terminal;
use pushpin_tests::until;

/// Leaves the screen of its own, and shows the cursor.
const GIVEN_BACK: [&str; 2] = ["\x1b[?1049l", "\x1b[?25h"];

fn command(suite: &Suite) -> String {
    format!("{} --config={} top", program("pushpin-runner").display(), suite.path("pushpin.conf").display())
}

fn assert_given_back(terminal: &Terminal) {
    let (before, after) = terminal.settings();
    assert_eq!(before, after);
    let output = terminal.output();
    let taken = output.rfind("\x1b[?1049h").expect("it had a screen of its own");
    for sequence in GIVEN_BACK {
        assert!(output[taken..].contains(sequence), "{sequence:?} is not in {:?}", &output[taken..]);
    }
}

#[test]
fn numbers_change_with_what_happens_and_q_ends_it() {
    let suite = Suite::start("* test");
    let mut terminal = Terminal::start(&command(&suite));
    until("it shows the suite", || terminal.screen().contains("ready") && terminal.screen().contains("streams 0"));
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/stream?channel=news").unwrap();
    client.head().unwrap();
    client.expect("[stream opened]\n").unwrap();
    until("the hold is shown", || terminal.screen().contains("streams 1 "));
    let row = |start: &str| {
        let screen = terminal.screen();
        let row = screen.lines().find(|line| line.starts_with(start)).unwrap_or_default();
        row.split_whitespace().map(String::from).collect::<Vec<_>>()
    };
    until("the channel is shown", || row("news") == ["news", "1", "1", "0", "0"]);
    publish::text(&suite, "news", "hello\\n").unwrap();
    until("the message is counted", || {
        let screen = terminal.screen();
        screen.contains("published 1 (0.") && screen.contains("delivered 1 (0.")
    });
    suite.kill("proxy");
    until("the end of the proxy is shown", || {
        let proxy = row("proxy ");
        terminal.screen().contains(" ago: SIGKILL") && proxy.get(1..2) == Some(&["serving".into()]) && proxy[4] == "1"
    });
    terminal.resize(40, 12);
    until("it fits", || {
        let screen = terminal.screen();
        screen.contains("n c m o  s a") && screen.lines().all(|line| line.chars().count() <= 40)
    });
    terminal.press("q");
    assert_eq!(terminal.wait().code(), Some(0));
    assert_given_back(&terminal);
}

#[test]
fn escape_control_c_and_signals_give_the_terminal_back() {
    let suite = Suite::start("* test");
    for key in ["\x1b", "\x03"] {
        let mut terminal = Terminal::start(&command(&suite));
        until("it shows the suite", || terminal.screen().contains("PROCESS"));
        terminal.press(key);
        assert_eq!(terminal.wait().code(), Some(0), "{key:?}");
        assert_given_back(&terminal);
    }
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        let file = suite.path("top.pid").display().to_string();
        // It becomes the shell that has told its pid.
        let mut terminal = Terminal::start(&format!("sh -c 'echo $$ >{file}; exec {}'", command(&suite)));
        until("it shows the suite", || terminal.screen().contains("PROCESS"));
        let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
        assert_eq!(terminal.wait().code(), Some(128 + signal as i32), "{signal}");
        assert_given_back(&terminal);
    }
}

#[test]
fn a_runner_that_goes_is_told_and_its_successor_found() {
    let mut suite = Suite::start("* test");
    let mut terminal = Terminal::start(&format!("NO_COLOR=1 {}", command(&suite)));
    until("it shows the suite", || terminal.screen().contains("PROCESS"));
    suite.stop();
    until("it is missed", || terminal.screen().contains("no pushpin-runner answers at"));
    assert!(terminal.screen().contains("PROCESS"), "what was known stays");
    suite.launch();
    until("it is back", || !terminal.screen().contains("no pushpin-runner answers at"));
    terminal.press("q");
    assert_eq!(terminal.wait().code(), Some(0));
    let coloured = (30..38).chain(90..98).map(|colour| format!("\x1b[{colour}")).chain(["\x1b[38;5;".into()]);
    for sequence in coloured {
        assert!(!terminal.output().contains(&sequence), "{sequence:?} in spite of NO_COLOR");
    }
}

#[test]
fn without_a_suite_or_a_terminal_it_says_so() {
    let mut suite = Suite::prepare("* test", "");
    let mut terminal = Terminal::start(&command(&suite));
    assert_eq!(terminal.wait().code(), Some(1));
    let expected = format!("pushpin-top: no pushpin-runner answers at {}", suite.path("run").display());
    assert!(terminal.output().replace("\r\n", "").contains(&expected), "{}", terminal.output());
    suite.launch();
    let output = suite.run_with(&["top"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("this is for a terminal") && told.contains("pushpin-runner ctl status"), "{told}");
}
