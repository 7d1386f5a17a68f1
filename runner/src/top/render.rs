// SPDX-License-Identifier: AGPL-3.0-or-later
//! The screen: how the suite is, numbers, then three tables that share what room there is.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};

use super::tables::Table;
use super::text;
use super::view::{ChannelOrder, ProcessOrder, View};
use crate::snapshot::Counters;
use crate::status::duration;

/// Columns from which channels and losses stand side by side.
const WIDE: u16 = 120;
/// Lines from which there is one of nothing between tables.
const HIGH: u16 = 20;
/// Between two numbers of a line, and two tables side by side.
const GAP: u16 = 3;

/// Draws all.
pub fn render(view: &View, now: Instant, frame: &mut Frame<'_>) {
    let area = frame.area();
    let mut lines = vec![title(view)];
    if let Some((text, since)) = &view.trouble {
        let seconds = now.saturating_duration_since(*since).as_secs();
        lines.push(Line::styled(format!("no answer for {}: {text}", duration(seconds)), view.theme.bad));
    }
    lines.extend(wrapped(connections(view), area.width));
    lines.extend(wrapped(traffic(view), area.width));
    let mut rows = area.rows();
    for line in lines.into_iter().take(area.height.into()) {
        if let Some(row) = rows.next() {
            frame.render_widget(line, row);
        }
    }
    let Some(rest) = rows.next() else { return };
    let rest = Rect { height: area.bottom() - rest.y, ..rest };
    let (tables, last) =
        rest.rows().next_back().map_or((rest, rest), |last| (Rect { height: rest.height - 1, ..rest }, last));
    frame.render_widget(keys(view, area.width), last);
    draw_tables(view, tables, frame);
}

fn draw_tables(view: &View, area: Rect, frame: &mut Frame<'_>) {
    let gap = u16::from(frame.area().height >= HIGH);
    let (processes, channels, losses) = (Table::of_processes(view), Table::of_channels(view), Table::of_losses(view));
    let wanted = [&processes, &channels, &losses].map(|table| table.height() + gap);
    // A part of the area, below a gap.
    let part =
        |y: u16, height: u16| Rect { y: area.y + y + gap.min(height), height: height.saturating_sub(gap), ..area };
    if area.width < WIDE {
        let [first, second, third] = shared(area.height, wanted);
        processes.render(view, part(0, first), frame);
        channels.render(view, part(first, second), frame);
        losses.render(view, part(first + second, third), frame);
        return;
    }
    let [first, second, _] = shared(area.height, [wanted[0], wanted[1].max(wanted[2]), 0]);
    processes.render(view, part(0, first), frame);
    let below = part(first, second);
    let left = (area.width - GAP) * 3 / 5;
    channels.render(view, Rect { width: left, ..below }, frame);
    losses.render(view, Rect { x: below.x + left + GAP, width: area.width - left - GAP, ..below }, frame);
}

/// Gives lines to those who want them in turns, two to the first and one to each other, while there are any.
fn shared<const N: usize>(mut lines: u16, wanted: [u16; N]) -> [u16; N] {
    let mut given = [0; N];
    let mut are_wanted = true;
    while lines > 0 && are_wanted {
        are_wanted = false;
        for (number, (given, wanted)) in given.iter_mut().zip(wanted).enumerate() {
            let turn = if number == 0 { 2 } else { 1 };
            let more = lines.min(turn).min(wanted - *given);
            *given += more;
            lines -= more;
            are_wanted |= more > 0;
        }
    }
    given
}

fn title(view: &View) -> Line<'_> {
    let status = &view.snapshot.status;
    let ready = match status.missing.as_slice() {
        [] => Span::styled("ready", view.theme.good),
        missing => Span::styled(format!("not ready: {}", missing.join(", ")), view.theme.bad),
    };
    Line::from(vec![
        Span::styled(format!("pushpin {}", status.version), view.theme.title),
        Span::raw("  "),
        ready,
        Span::raw(format!("  up {}  {}", duration(status.uptime_seconds), status.config)),
    ])
}

/// A number and what it is of.
type Fact = (&'static str, String);

fn connections(view: &View) -> Vec<Fact> {
    let gauges = &view.snapshot.gauges;
    let held = |mode: &str| text::count(gauges.holds.get(mode).copied().unwrap_or_default());
    vec![
        ("clients", text::count(gauges.clients)),
        ("sessions", text::count(gauges.sessions)),
        ("streams", held("stream")),
        ("long-polls", held("response")),
        ("WebSockets", held("ws")),
    ]
}

fn traffic(view: &View) -> Vec<Fact> {
    let counters = &view.snapshot.counters;
    let of = |counter: fn(&Counters) -> u64| {
        format!("{} ({}/s)", text::count(counter(counters)), text::rate(view.history.rate(counter)))
    };
    let content = text::bytes(view.history.rate(|counters| counters.content));
    vec![
        ("requests", of(|counters| counters.requests)),
        ("published", of(|counters| counters.published)),
        ("delivered", of(|counters| counters.deliveries)),
        ("content", format!("{content}/s")),
    ]
}

/// Facts in as few lines as the width allows.
fn wrapped(facts: Vec<Fact>, width: u16) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = Vec::new();
    for (label, number) in facts {
        let fact = Line::from(format!("{label} {number}"));
        match lines.last_mut() {
            Some(line) if line.width() + usize::from(GAP) + fact.width() <= usize::from(width) => {
                line.push_span(" ".repeat(GAP.into()));
                line.extend(fact);
            }
            _ => lines.push(fact),
        }
    }
    lines
}

/// What keys do; the orders that are chosen stand out.
fn keys(view: &View, width: u16) -> Line<'static> {
    let chosen = |text: &'static str, is_chosen: bool| {
        let style = if is_chosen { view.theme.quiet.add_modifier(Modifier::REVERSED) } else { view.theme.quiet };
        [Span::styled(text, style), Span::raw(" ")]
    };
    let quiet = |text: &'static str| Span::styled(text, view.theme.quiet);
    let by = |order| view.processes_by == order;
    let (long, short) = (width >= 66, |long: &'static str, short| if width >= 66 { long } else { short });
    let mut spans = vec![quiet("q quit  ")];
    spans.push(quiet(if long { "processes: " } else { "" }));
    spans.extend(chosen(short("name", "n"), by(ProcessOrder::Name)));
    spans.extend(chosen(short("cpu", "c"), by(ProcessOrder::Processor)));
    spans.extend(chosen(short("memory", "m"), by(ProcessOrder::Memory)));
    spans.extend(chosen(short("open", "o"), by(ProcessOrder::Open)));
    spans.push(quiet(if long { " channels: " } else { " " }));
    spans.extend(chosen(short("subscribers", "s"), view.channels_by == ChannelOrder::Subscribers));
    spans.extend(chosen(short("a-z", "a"), view.channels_by == ChannelOrder::Name));
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::style::Color;

    use super::*;
    use crate::snapshot::{Channel, Loss};
    use crate::top::theme::Theme;
    use crate::top::view::tests::snapshot;

    /// A view that has been told twice, a second apart, and that second moment.
    fn told() -> (View, Instant) {
        let now = Instant::now();
        let mut view = View::new(snapshot(), Theme::PLAIN, now);
        let mut later = snapshot();
        later.counters.published += 12;
        later.counters.deliveries += 12_000;
        later.counters.content += 1_500_000;
        later.losses[0].count += 1;
        later.usage.get_mut("frontend").unwrap().cpu_seconds += 0.125;
        let now = now + Duration::from_secs(1);
        view.apply(Ok(later), now);
        (view, now)
    }

    fn drawn(view: &View, now: Instant, width: u16, height: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| render(view, now, frame)).unwrap();
        terminal
    }

    /// The screen as text, without blanks at the ends of lines.
    fn screen(view: &View, now: Instant, width: u16, height: u16) -> String {
        let terminal = drawn(view, now, width, height);
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned() + "\n";
        (0..height).map(line).collect()
    }

    #[test]
    fn a_terminal_of_the_usual_size_has_all() {
        let (view, now) = told();
        let expected = "\
pushpin 2.0.0  ready  up 3d 3h  /etc/pushpin/pushpin.conf
clients 1204   sessions 1204   streams 1000   long-polls 20   WebSockets 170
requests 9000 (0/s)   published 1012 (12/s)   delivered 1.0M (12.0k/s)
content 1.4 MiB/s

PROCESS          STATE         PID    UPTIME  RESTARTS    OPEN   CPU %    MEMORY
runner           serving      4711     3d 3h         0       -     0.0  12.0 MiB
frontend         serving      4712     3d 3h         0    1204    12.5  34.0 MiB
outbound         serving      4713     3d 3h         0       3     0.0   9.0 MiB
proxy            serving      4790     2m 5s         1      14     0.0  11.0 MiB
handler          serving      4715     3d 3h         0    1190     0.0   130 MiB
proxy ended 2m 6s ago: SIGKILL

CHANNEL (3 of 250)                  SUBSCRIBERS  STREAMS  LONG-POLLS  WEBSOCKETS
news                                       1000      900         100           0
chat                                        170        0           0         170
zoo                                           5        4           0           1

LOST                                                            A SECOND   TOTAL
dropped: filtered                                                    1.0       6
client closed: deadline                                                0      70


q quit  processes: name cpu memory open  channels: subscribers a-z
";
        assert_eq!(screen(&view, now, 80, 24), expected);
    }

    #[test]
    fn a_narrow_terminal_has_what_matters_most() {
        let (view, now) = told();
        let expected = "\
pushpin 2.0.0  ready  up 3d 3h  /etc/pus
clients 1204   sessions 1204
streams 1000   long-polls 20
WebSockets 170
requests 9000 (0/s)
published 1012 (12/s)
delivered 1.0M (12.0k/s)
content 1.4 MiB/s

PROCESS       STATE     RESTARTS   CPU %
runner        serving          0     0.0
frontend      serving          0    12.5
outbound      serving          0     0.0
proxy         serving          1     0.0
handler       serving          0     0.0
proxy ended 2m 6s ago: SIGKILL

CHANNEL (3 of 250)  SUBSCRIBERS  STREAMS
news                       1000      900
... 2 more

LOST                    A SECOND   TOTAL
... 2 more
q quit  n c m o  s a
";
        assert_eq!(screen(&view, now, 40, 24), expected);
    }

    #[test]
    fn a_wide_one_has_channels_and_losses_side_by_side() {
        let (view, now) = told();
        let expected = "\
pushpin 2.0.0  ready  up 3d 3h  /etc/pushpin/pushpin.conf
clients 1204   sessions 1204   streams 1000   long-polls 20   WebSockets 170
requests 9000 (0/s)   published 1012 (12/s)   delivered 1.0M (12.0k/s)   content 1.4 MiB/s
PROCESS                                                            STATE         PID    UPTIME  RESTARTS    OPEN   CPU %    MEMORY
runner                                                             serving      4711     3d 3h         0       -     0.0  12.0 MiB
frontend                                                           serving      4712     3d 3h         0    1204    12.5  34.0 MiB
outbound                                                           serving      4713     3d 3h         0       3     0.0   9.0 MiB
proxy                                                              serving      4790     2m 5s         1      14     0.0  11.0 MiB
handler                                                            serving      4715     3d 3h         0    1190     0.0   130 MiB
proxy ended 2m 6s ago: SIGKILL
CHANNEL (3 of 250)              SUBSCRIBERS  STREAMS  LONG-POLLS  WEBSOCKETS   LOST                               A SECOND   TOTAL
news                                   1000      900         100           0   dropped: filtered                       1.0       6
chat                                    170        0           0         170   client closed: deadline                   0      70
zoo                                       5        4           0           1



q quit  processes: name cpu memory open  channels: subscribers a-z
";
        assert_eq!(screen(&view, now, 130, 18), expected);
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let (mut view, now) = told();
        let channel =
            |number| Channel { channel: format!("c{number}"), subscribers: [("ws-message".into(), 1)].into() };
        view.snapshot.channels.list.extend((0..17).map(channel));
        let screen = screen(&view, now, 80, 24);
        assert!(screen.contains("CHANNEL (20 of 250)") && screen.contains("... 16 more"), "{screen}");
    }

    #[test]
    fn what_is_wrong_is_told() {
        let (mut view, now) = told();
        view.snapshot.status.missing = vec!["proxy does not run".into()];
        view.snapshot.channels.list.clear();
        view.snapshot.channels.missing = Some("The handler does not answer.".into());
        view.snapshot.losses.clear();
        view.apply(Err("none runs".into()), now);
        let screen = screen(&view, now + Duration::from_secs(3), 80, 24);
        for text in [
            "pushpin 2.0.0  not ready: proxy does not run  up 3d 3h",
            "\nno answer for 3s: none runs\n",
            "\nThe handler does not answer.\n",
            "\nnothing\n",
        ] {
            assert!(screen.contains(text), "{text} is not in\n{screen}");
        }
    }

    #[test]
    fn no_size_is_too_small_or_too_large() {
        let (mut view, now) = told();
        view.trouble = Some(("x".repeat(500), now));
        let loss = |number| Loss { reason: format!("r{number}"), ..view.snapshot.losses[0].clone() };
        view.snapshot.losses = (0..300).map(loss).collect();
        for width in [1, 2, 7, 19, 40, 65, 66, 80, 119, 120, 121, 500] {
            for height in [1, 2, 3, 5, 8, 13, 19, 20, 21, 24, 200] {
                drawn(&view, now, width, height);
            }
        }
    }

    #[test]
    fn names_of_channels_do_what_names_may_do() {
        let (mut view, now) = told();
        view.snapshot.channels.list[0].channel = format!("\x1b[31mred{}", "名".repeat(100));
        let screen = screen(&view, now, 80, 24);
        assert!(!screen.contains('\x1b') && screen.contains("\u{fffd}[31mred名"), "{screen}");
        assert!(screen.contains(" 1000 "), "a long name leaves the numbers their place: {screen}");
    }

    #[test]
    fn without_colours_there_are_none() {
        let (mut view, now) = told();
        let coloured = |view: &View| {
            let terminal = drawn(view, now, 80, 24);
            terminal.backend().buffer().content.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
        };
        for (no_color, expected) in [(None, true), (Some(""), true), (Some("1"), false)] {
            view.theme = Theme::of(no_color.map(std::ffi::OsStr::new));
            assert_eq!(coloured(&view), expected, "{no_color:?}");
        }
    }

    #[test]
    fn lines_are_shared_by_need() {
        assert_eq!(shared(10, [3, 3, 3]), [3, 3, 3]);
        assert_eq!(shared(10, [20, 2, 20]), [6, 2, 2]);
        assert_eq!(shared(3, [9, 9, 9]), [2, 1, 0]);
        assert_eq!(shared(0, [9, 9, 9]), [0, 0, 0]);
    }
}
