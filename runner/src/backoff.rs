// SPDX-License-Identifier: AGPL-3.0-or-later
//! How long to wait before a process that died is started again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const MAX: Duration = Duration::from_secs(5);
/// A process that has lived this long has not died of its start.
const SOUND: Duration = Duration::from_secs(10);

/// At once the first time, then twice as long each time, until the process lives a while.
#[derive(Debug, Default)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// The process ended after it had `lived` so long; how long to wait now.
    pub fn died(&mut self, lived: Duration) -> Duration {
        if lived >= SOUND {
            self.next = Duration::ZERO;
        }
        let wait = self.next;
        self.next = (wait * 2).clamp(FIRST, MAX);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_at_once_and_the_wait_doubles_up_to_a_limit() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..10).map(|_| backoff.died(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [0, 50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn a_process_that_lived_a_while_is_restarted_at_once() {
        let mut backoff = Backoff::default();
        backoff.died(Duration::ZERO);
        backoff.died(Duration::ZERO);
        assert_eq!(backoff.died(SOUND), Duration::ZERO);
    }
}
