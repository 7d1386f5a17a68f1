// SPDX-License-Identifier: AGPL-3.0-or-later
//! Minutes for which clients have been connected.

use std::time::{Duration, Instant};

/// Adds up the time of connections, without a timer for each: how many there are is looked at once a second.
#[derive(Debug, Default)]
pub struct Minutes {
    looked_at: Option<Instant>,
    spent: Duration,
}

impl Minutes {
    /// There are so many connections now. Gives the whole minutes that they, and those before them, have spent.
    pub fn look(&mut self, connections: u64, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.looked_at.replace(now).unwrap_or(now));
        let spent = since.saturating_mul(u32::try_from(connections).unwrap_or(u32::MAX));
        self.spent = self.spent.saturating_add(spent);
        self.spent.as_secs() / 60
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_all_connections_adds_up() {
        let (mut minutes, start) = (Minutes::default(), Instant::now());
        assert_eq!(minutes.look(1_000, start), 0);
        let mut last = 0;
        for second in 1..=60 {
            last = minutes.look(3, start + Duration::from_secs(second));
        }
        assert_eq!(last, 3);
        assert_eq!(minutes.look(0, start + Duration::from_secs(3600)), 3);
    }
}
