// SPDX-License-Identifier: AGPL-3.0-or-later
//! `pushpin-runner ctl`: what an operator asks of a running suite, over a Unix socket in the run directory.
//!
//! The question is one line of JSON, the answer one or more, the last of which is not [`Answer::Progress`].
//!
//! - [`client`]: asks; [`ctl`]: the command line for it.
//! - [`server`]: the socket.
//! - [`rolling`]: the order of a restart.
//! - [`upgrade`]: what an upgrade has done, and the way back.

pub mod client;
pub mod ctl;
pub mod rolling;
pub mod server;
pub mod upgrade;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::snapshot::Snapshot;
use crate::status::Status;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// How the suite is.
    Status,
    /// The same with all that is measured, for a live view.
    Snapshot,
    /// Replace processes, one after the other.
    Restart {
        /// Name of a component or process, or `all`.
        component: String,
    },
    /// Replace all of our processes by the programs on disk, or by none.
    Upgrade,
    /// Have processes log more or less.
    LogLevel {
        /// Name of a component or process, `runner`, or `all`.
        component: String,
        /// From 0 (errors) to 4 (trace).
        level: u8,
    },
}

/// A line of the answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// How the suite is.
    Status(Box<Status>),
    /// How everything is.
    Snapshot(Box<Snapshot>),
    /// What has happened so far; more will come.
    Progress(String),
    /// It is done.
    Done(String),
    /// It is not, and why.
    Failed(String),
}

impl Answer {
    /// Whether more will come.
    pub fn is_last(&self) -> bool {
        !matches!(self, Self::Progress(_))
    }
}

/// A question that waits for its answers. There are a few for each process of the suite, which bounds the queue.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Where answers go.
    pub answers: mpsc::UnboundedSender<Answer>,
}

impl Call {
    /// Sends an answer to whoever asked, who may have gone.
    pub fn answer(&self, answer: Answer) {
        let _ = self.answers.send(answer);
    }
}
