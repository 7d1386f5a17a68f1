// SPDX-License-Identifier: AGPL-3.0-or-later
//! How many clients there are and for how long, by variables of the environment.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::client::Kind;
use crate::trouble::Part;

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
    /// `CHAOS_STAY`: seconds that a connection stays on the average before its client leaves it. 0: as long as it may.
    pub stay: Duration,
    /// `CHAOS_PARTS`: to which parts something is done, of `handler,proxy,outbound,frontend`.
    pub parts: Vec<Part>,
    /// `CHAOS_PROGRAMS`: where the suite's programs are, if not where this test was built.
    pub programs: Option<PathBuf>,
    /// `CHAOS_PUSHPIN`: the runner of Pushpin's own suite, which is tried instead.
    pub pushpin: Option<PathBuf>,
}

fn number(name: &str, default: u64) -> u64 {
    let Ok(text) = env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number"))
}

fn parts() -> Vec<Part> {
    let Ok(names) = env::var("CHAOS_PARTS") else { return Part::ALL.to_vec() };
    let part = |name: &str| {
        let part = Part::ALL.into_iter().find(|part| part.name() == name);
        part.unwrap_or_else(|| panic!("CHAOS_PARTS={names}: {name} is no part"))
    };
    names.split(',').map(part).collect()
}

impl Load {
    /// As the environment has it, or one that two cores take in a debug build, with as much other work: what a proxy that does not keep up has not
    /// got when its handler ends is lost.
    pub fn chosen() -> Self {
        Load {
            seed: number("CHAOS_SEED", std::process::id().into()),
            time: Duration::from_secs(number("CHAOS_SECONDS", 120)),
            streams: number("CHAOS_STREAMS", 100) as usize,
            polls: number("CHAOS_POLLS", 30) as usize,
            websockets: number("CHAOS_WEBSOCKETS", 60) as usize,
            pace: Duration::from_millis(number("CHAOS_PACE", 80)),
            stay: Duration::from_secs(number("CHAOS_STAY", 0)),
            parts: parts(),
            programs: env::var_os("CHAOS_PROGRAMS").map(PathBuf::from),
            pushpin: env::var_os("CHAOS_PUSHPIN").map(PathBuf::from),
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
        write!(f, "CHAOS_WEBSOCKETS={websockets} CHAOS_PACE={} CHAOS_STAY={} ", pace.as_millis(), self.stay.as_secs())?;
        let names: Vec<&str> = self.parts.iter().map(|part| part.name()).collect();
        write!(f, "CHAOS_PARTS={}", names.join(","))
    }
}
