// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tables: a name that takes what is left, and columns, of which a narrow terminal gets the more important ones.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Table as Widget};
use ratatui::{Frame, text::Text};

use super::text;
use super::view::{View, subscribers};
use crate::status::duration;

/// Between columns.
const SPACING: u16 = 2;

/// A column beside the name.
#[derive(Clone, Copy, Debug)]
struct Column {
    heading: &'static str,
    width: u16,
    /// Those with less leave first.
    weight: u8,
    is_number: bool,
}

const fn text(heading: &'static str, width: u16, weight: u8) -> Column {
    Column { heading, width, weight, is_number: false }
}

const fn number(heading: &'static str, width: u16, weight: u8) -> Column {
    Column { heading, width, weight, is_number: true }
}

/// Headings, rows, and what to say of those that there is no room for.
#[derive(Debug)]
pub struct Table<'a> {
    name: String,
    /// The least that the name gets.
    name_width: u16,
    columns: &'static [Column],
    rows: Vec<Vec<Span<'a>>>,
    /// Below the rows.
    note: Option<Line<'a>>,
}

const PROCESS: &[Column] = &[
    text("STATE", 8, 9),
    number("PID", 7, 3),
    number("UPTIME", 8, 4),
    number("RESTARTS", 8, 8),
    number("OPEN", 6, 7),
    number("CPU %", 6, 10),
    number("MEMORY", 8, 6),
];
const CHANNEL: &[Column] =
    &[number("SUBSCRIBERS", 11, 9), number("STREAMS", 7, 8), number("LONG-POLLS", 10, 7), number("WEBSOCKETS", 10, 6)];
const LOSS: &[Column] = &[number("A SECOND", 8, 9), number("TOTAL", 6, 8)];

impl<'a> Table<'a> {
    /// Of the processes.
    pub fn of_processes(view: &'a View) -> Self {
        let theme = &view.theme;
        let or_dash = |text: Option<String>| Span::raw(text.unwrap_or_else(|| "-".into()));
        let rows = view.processes().into_iter().map(|process| {
            let style = if process.state == "serving" { theme.good } else { theme.bad };
            vec![
                Span::raw(process.name),
                Span::styled(process.state, style),
                or_dash(process.pid.map(|pid| pid.to_string())),
                or_dash(process.uptime_seconds.map(duration)),
                Span::styled(process.restarts.to_string(), if process.restarts > 0 { theme.bad } else { Style::new() }),
                or_dash(process.open.map(text::count)),
                or_dash(process.processor.map(|part| format!("{:.1}", part * 100.0))),
                or_dash(process.memory_bytes.map(|bytes| text::bytes(bytes as f64))),
            ]
        });
        let ends = view.snapshot.status.processes.iter().filter_map(|one| Some((&one.name, one.last_end.as_ref()?)));
        let note = ends.min_by_key(|(_, end)| end.seconds_ago).map(|(name, end)| {
            let ago = duration(end.seconds_ago);
            Line::styled(format!("{name} ended {ago} ago: {}", text::name(&end.reason)), theme.quiet)
        });
        Self { name: "PROCESS".into(), name_width: 11, columns: PROCESS, rows: rows.collect(), note }
    }

    /// Of the largest channels.
    pub fn of_channels(view: &'a View) -> Self {
        let rows = view.channels().into_iter().map(|channel| {
            let of =
                |format: &str| Span::raw(text::count(channel.subscribers.get(format).copied().unwrap_or_default()));
            let all = Span::raw(text::count(subscribers(channel)));
            let name = Span::raw(text::name(&channel.channel));
            vec![name, all, of("http-stream"), of("http-response"), of("ws-message")]
        });
        let channels = &view.snapshot.channels;
        let note = channels.missing.as_ref().map(|text| Line::styled(text.as_str(), view.theme.bad));
        let all = view.snapshot.gauges.channels;
        let name = match u64::try_from(channels.list.len()) {
            Ok(shown) if shown < all => format!("CHANNEL ({shown} of {})", text::count(all)),
            _ => "CHANNEL".into(),
        };
        Self { name, name_width: 16, columns: CHANNEL, rows: rows.collect(), note }
    }

    /// Of what was dropped, closed and failed.
    pub fn of_losses(view: &'a View) -> Self {
        let rows = view.losses().into_iter().map(|(loss, rate)| {
            let style = if rate > 0.0 { view.theme.bad } else { Style::new() };
            vec![
                Span::raw(format!("{}: {}", loss.kind, text::name(&loss.reason))),
                Span::styled(text::rate(rate), style),
                Span::raw(text::count(loss.count)),
            ]
        });
        let rows: Vec<_> = rows.collect();
        let note = rows.is_empty().then(|| Line::styled("nothing", view.theme.quiet));
        Self { name: "LOST".into(), name_width: 20, columns: LOSS, rows, note }
    }

    /// Lines that it would like to have.
    pub fn height(&self) -> u16 {
        let lines = 1 + self.rows.len() + usize::from(self.note.is_some());
        u16::try_from(lines).unwrap_or(u16::MAX)
    }

    /// Draws it with as many rows and columns as have room.
    pub fn render(self, view: &View, area: Rect, frame: &mut Frame<'_>) {
        let chosen = self.fitting(area.width);
        let aligned = |span: Span<'a>, column: &Column| {
            let line = Line::from(span);
            Cell::from(if column.is_number { line.right_aligned() } else { line })
        };
        let headings = chosen.iter().map(|at| aligned(Span::raw(self.columns[*at].heading), &self.columns[*at]));
        let header = Row::new(std::iter::once(Cell::from(self.name.clone())).chain(headings)).style(view.theme.heading);
        let widths = chosen.iter().map(|at| Constraint::Length(self.columns[*at].width));
        let widths: Vec<_> = std::iter::once(Constraint::Fill(1)).chain(widths).collect();

        // Where there is next to no room, rows say more.
        let note = self.note.filter(|_| area.height > 2 || self.rows.is_empty());
        let room = usize::from(area.height).saturating_sub(1 + usize::from(note.is_some()));
        let left_out = match self.rows.len() {
            rows if rows > room => rows - room.saturating_sub(1),
            _ => 0,
        };
        let shown = self.rows.len() - left_out;
        let rows = self.rows.into_iter().take(shown).map(|row| {
            let mut row = row.into_iter();
            let name = Cell::from(Text::from(row.next().unwrap_or_default()));
            let cells: Vec<_> = row.collect();
            let of_columns = chosen.iter().map(|at| aligned(cells[*at].clone(), &self.columns[*at]));
            Row::new(std::iter::once(name).chain(of_columns).collect::<Vec<_>>())
        });
        let table = Widget::new(rows.collect::<Vec<_>>(), widths).header(header).column_spacing(SPACING);
        frame.render_widget(table, area);
        let mut below = area.rows().skip(1 + shown);
        let more = (left_out > 0).then(|| Line::styled(format!("... {left_out} more"), view.theme.quiet));
        for line in more.into_iter().chain(note) {
            if let Some(place) = below.next() {
                frame.render_widget(line, place);
            }
        }
    }

    /// The columns that fit beside the name, as places in the table.
    fn fitting(&self, width: u16) -> Vec<usize> {
        let mut chosen: Vec<usize> = (0..self.columns.len()).collect();
        loop {
            let needed: u16 = chosen.iter().map(|at| self.columns[*at].width + SPACING).sum();
            if self.name_width + needed <= width {
                return chosen;
            }
            let lightest = (0..chosen.len()).min_by_key(|place| self.columns[chosen[*place]].weight);
            let Some(lightest) = lightest else { return chosen };
            chosen.remove(lightest);
        }
    }
}
