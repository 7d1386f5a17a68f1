// SPDX-License-Identifier: AGPL-3.0-or-later
//! How text looks: in colours, or for `NO_COLOR` without.

use ratatui::style::{Color, Modifier, Style};

/// Styles by meaning.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    /// The first line.
    pub title: Style,
    /// Headings of tables.
    pub heading: Style,
    /// What is as it should be.
    pub good: Style,
    /// What should not be so.
    pub bad: Style,
    /// What explains something else.
    pub quiet: Style,
}

impl Theme {
    /// The sixteen colours of the terminal's own theme, so that both light and dark ones stay readable.
    pub const COLOURED: Self = Self {
        title: Style::new().add_modifier(Modifier::BOLD),
        heading: Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD),
        good: Style::new().fg(Color::Green),
        bad: Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        quiet: Style::new().add_modifier(Modifier::DIM),
    };

    /// Without colours.
    pub const PLAIN: Self = Self {
        title: Style::new().add_modifier(Modifier::BOLD),
        heading: Style::new().add_modifier(Modifier::REVERSED),
        good: Style::new(),
        bad: Style::new().add_modifier(Modifier::BOLD.union(Modifier::UNDERLINED)),
        quiet: Style::new().add_modifier(Modifier::DIM),
    };

    /// The one for a terminal with this `NO_COLOR` (<https://no-color.org>).
    pub fn of(no_color: Option<&std::ffi::OsStr>) -> Self {
        if no_color.is_some_and(|value| !value.is_empty()) { Self::PLAIN } else { Self::COLOURED }
    }
}
