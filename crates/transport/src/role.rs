// SPDX-License-Identifier: AGPL-3.0-or-later
//! The socket types of ZeroMQ that the suite uses, and which of them go together (ZMTP 3.0, socket semantics).

/// A socket type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Push,
    Pull,
    Pub,
    Xpub,
    Sub,
    Router,
    Dealer,
}

impl Role {
    /// The name that peers tell each other.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Push => "PUSH",
            Role::Pull => "PULL",
            Role::Pub => "PUB",
            Role::Xpub => "XPUB",
            Role::Sub => "SUB",
            Role::Router => "ROUTER",
            Role::Dealer => "DEALER",
        }
    }

    /// The names of the types that may be at the other end.
    pub(crate) fn partners(self) -> &'static [&'static str] {
        match self {
            Role::Push => &["PULL"],
            Role::Pull => &["PUSH"],
            Role::Pub | Role::Xpub => &["SUB", "XSUB"],
            Role::Sub => &["PUB", "XPUB"],
            Role::Router => &["ROUTER", "DEALER", "REQ"],
            Role::Dealer => &["ROUTER", "DEALER", "REP"],
        }
    }

    /// Whether messages go to one peer after the other.
    pub(crate) fn takes_turns(self) -> bool {
        matches!(self, Role::Push | Role::Dealer)
    }

    /// Whether messages go to whom they are of interest to.
    pub(crate) fn publishes(self) -> bool {
        matches!(self, Role::Pub | Role::Xpub)
    }

    /// Whether what comes from peers is for the owner of the socket.
    pub(crate) fn receives(self) -> bool {
        !matches!(self, Role::Push | Role::Pub)
    }
}
