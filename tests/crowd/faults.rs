// SPDX-License-Identifier: AGPL-3.0-or-later
//! What has happened to the processes that may end connections.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What is closed is closed within a second, and the last of it is read a little later.
const AFTERMATH: Duration = Duration::from_secs(3);

/// Something that may end connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The proxy ends.
    Proxy,
    /// The outbound process ends.
    Outbound,
    /// The handler ends, and the proxy does not answer its successor.
    Both,
}

#[derive(Clone, Copy, Default)]
struct Times {
    under_way: bool,
    last: Option<Instant>,
}

/// See the module.
#[derive(Default)]
pub struct Faults(Mutex<[Times; 3]>);

impl Faults {
    pub fn begin(&self, fault: Fault) {
        self.0.lock().unwrap()[fault as usize] = Times { under_way: true, last: Some(Instant::now()) };
    }

    /// All that are under way are over.
    pub fn end(&self) {
        for times in self.0.lock().unwrap().iter_mut().filter(|times| times.under_way) {
            *times = Times { under_way: false, last: Some(Instant::now()) };
        }
    }

    /// Whether it was under way at that moment or afterwards, and not long ago.
    pub fn since(&self, fault: Fault, moment: Instant) -> bool {
        let times = self.0.lock().unwrap()[fault as usize];
        times.under_way || times.last.is_some_and(|last| last >= moment && last.elapsed() < AFTERMATH)
    }
}
