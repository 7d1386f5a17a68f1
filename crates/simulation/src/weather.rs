// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a run is made difficult with.

/// What may happen beside the ordinary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing. Every request must be answered, and every stream get everything.
    Fair,
    /// Processes stop for some time and go on.
    Halting,
    /// Processes die and are replaced.
    Deadly,
    /// Both.
    Stormy,
    /// Only handlers die, beside frontends that keep for their successors what they need.
    Heirs,
    /// Only proxies die, and some time passes before there is another.
    Proxies,
    /// Proxies and handlers die, one at a time or close after each other.
    Successors,
    /// Backends refuse connections, close them, break off and are slow; outbound processes die.
    Backends,
}

impl Weather {
    /// Whether servers can leave records with a frontend, and hear the end of its links.
    pub fn is_able(self, frontend: u8) -> bool {
        frontend == 0 || matches!(self, Weather::Heirs | Weather::Proxies | Weather::Successors | Weather::Backends)
    }

    /// Whether the outbound process answers proxies by ROUTER.
    pub fn by_router(self) -> bool {
        !matches!(self, Weather::Deadly)
    }

    /// Whether backends misbehave.
    pub fn is_rough(self) -> bool {
        matches!(self, Weather::Backends | Weather::Deadly | Weather::Stormy)
    }
}
