// SPDX-License-Identifier: AGPL-3.0-or-later
//! How many clients there are and for how long, by variables of the environment.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::client::Kind;

/// See the module.
pub struct Load {
    /// `CHAOS_SEED`
    pub seed: u64,
    /// `CHAOS_SECONDS`
    pub time: Duration,
    /// `CHAOS_STREAMS`, every fourth one of the test route.
    streams: usize,
    /// `CHAOS_POLLS`: clients with one long-poll after the other.
    polls: usize,
    /// `CHAOS_WEBSOCKETS`, every other one over HTTP, every fourth one of the test route.
    websockets: usize,
    /// `CHAOS_PACE`: milliseconds between two messages when all is well.
    pub pace: Duration,
    /// `CHAOS_PROGRAMS`: where the suite's programs are, if not where this test was built.
    pub programs: Option<PathBuf>,
}

fn number(name: &str, default: u64) -> u64 {
    let Ok(text) = env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number"))
}

impl Load {
    /// As the environment has it, or one that two cores take in a debug build.
    pub fn chosen() -> Self {
        Load {
            seed: number("CHAOS_SEED", std::process::id().into()),
            time: Duration::from_secs(number("CHAOS_SECONDS", 40)),
            streams: number("CHAOS_STREAMS", 200) as usize,
            polls: number("CHAOS_POLLS", 50) as usize,
            websockets: number("CHAOS_WEBSOCKETS", 100) as usize,
            pace: Duration::from_millis(number("CHAOS_PACE", 40)),
            programs: env::var_os("CHAOS_PROGRAMS").map(PathBuf::from),
        }
    }

    /// What each client is.
    pub fn kinds(&self) -> Vec<Kind> {
        let streams = (0..self.streams).map(|index| if index % 4 == 3 { Kind::TestStream } else { Kind::Stream });
        let polls = (0..self.polls).map(|_| Kind::Poll);
        let websockets = (0..self.websockets).map(|index| match index % 4 {
            0 | 2 => Kind::OverHttp,
            1 => Kind::Direct,
            _ => Kind::TestSocket,
        });
        streams.chain(polls).chain(websockets).collect()
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Load { seed, time, streams, polls, websockets, pace, .. } = self;
        write!(f, "CHAOS_SEED={seed} CHAOS_SECONDS={} CHAOS_STREAMS={streams} CHAOS_POLLS={polls} ", time.as_secs())?;
        write!(f, "CHAOS_WEBSOCKETS={websockets} CHAOS_PACE={}", pace.as_millis())
    }
}
