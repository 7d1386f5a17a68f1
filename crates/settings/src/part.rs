// SPDX-License-Identifier: AGPL-3.0-or-later
//! The parts of the suite.

/// A process of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What clients connect to.
    Frontend,
    /// What connects to backends.
    Outbound,
    /// What is in between.
    Proxy,
    /// What holds and publishes.
    Handler,
}

/// All of them, in the order of their start: those that others connect to come first.
pub const PARTS: [Part; 4] = [Part::Frontend, Part::Outbound, Part::Proxy, Part::Handler];

impl Part {
    /// Our program's name.
    pub fn program(self) -> &'static str {
        match self {
            Self::Frontend => "pushpin-frontend",
            Self::Outbound => "pushpin-outbound",
            Self::Proxy => "pushpin-proxy",
            Self::Handler => "pushpin-handler",
        }
    }

    /// Name of one of its processes in names of files: `pushpin-proxy`, `pushpin-frontend-1`.
    pub fn file_name(self, process: usize) -> String {
        match process {
            0 => self.program().into(),
            n => format!("{}-{n}", self.program()),
        }
    }

    /// The part of ours that a name in `services` asks for.
    pub(crate) fn named(name: &str) -> Option<Self> {
        PARTS.into_iter().find(|part| matches!(part.program().strip_prefix("pushpin-"), Some(short) if short == name))
    }
}
