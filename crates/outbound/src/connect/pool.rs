// SPDX-License-Identifier: AGPL-3.0-or-later
//! Connections that wait for their next request, by where they go.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::connect::target::Endpoint;

/// Bounds of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Connections in all.
    pub connections: usize,
    /// Connections to one endpoint.
    pub per_endpoint: usize,
    /// How long one may wait.
    pub patience: Duration,
}

/// Idle connections; the numbers are the owner's.
#[derive(Debug)]
pub struct Pool {
    endpoints: HashMap<Endpoint, VecDeque<(usize, Instant)>, RandomState>,
    len: usize,
    limits: PoolLimits,
}

impl Pool {
    /// An empty pool.
    pub fn new(limits: PoolLimits) -> Self {
        Pool { endpoints: HashMap::default(), len: 0, limits }
    }

    /// The connection to the endpoint that was used last and that is `usable`; it is taken out.
    ///
    /// The last one, so that those which are not needed get old.
    pub fn take(&mut self, endpoint: &Endpoint, mut usable: impl FnMut(usize) -> bool) -> Option<usize> {
        let waiting = self.endpoints.get_mut(endpoint)?;
        let at = waiting.iter().rposition(|(connection, _)| usable(*connection))?;
        let (connection, _) = waiting.remove(at)?;
        self.len -= 1;
        Some(connection)
    }

    /// Keeps a connection. If it is one too many, the one that should be closed comes back: the oldest to the endpoint, or
    /// the connection itself if the pool is full of others.
    #[must_use]
    pub fn put(&mut self, endpoint: &Endpoint, connection: usize, now: Instant) -> Option<usize> {
        if self.limits.per_endpoint == 0 {
            return Some(connection);
        }
        let has_room = self.len < self.limits.connections;
        if let Some(waiting) = self.endpoints.get_mut(endpoint)
            && !waiting.is_empty()
        {
            let oldest = match has_room && waiting.len() < self.limits.per_endpoint {
                true => None,
                false => waiting.pop_front().map(|(oldest, _)| oldest),
            };
            waiting.push_back((connection, now));
            self.len += usize::from(oldest.is_none());
            return oldest;
        }
        if !has_room {
            return Some(connection);
        }
        self.len += 1;
        match self.endpoints.get_mut(endpoint) {
            Some(waiting) => waiting.push_back((connection, now)),
            None => drop(self.endpoints.insert(endpoint.clone(), VecDeque::from([(connection, now)]))),
        }
        None
    }

    /// Takes out a connection that is of no use any more.
    pub fn remove(&mut self, endpoint: &Endpoint, connection: usize) {
        if let Some(waiting) = self.endpoints.get_mut(endpoint)
            && let Some(at) = waiting.iter().position(|(other, _)| *other == connection)
        {
            waiting.remove(at);
            self.len -= 1;
        }
    }

    /// Takes out all that have waited too long, and gives them to `close`. Call now and then.
    pub fn expire(&mut self, now: Instant, mut close: impl FnMut(usize)) {
        let (len, patience) = (&mut self.len, self.limits.patience);
        self.endpoints.retain(|_, waiting| {
            while waiting.front().is_some_and(|(_, since)| now.duration_since(*since) >= patience) {
                let Some((connection, _)) = waiting.pop_front() else { break };
                *len -= 1;
                close(connection);
            }
            !waiting.is_empty()
        });
    }

    /// How many connections wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint { host: "h".into(), port, tls: None }
    }

    fn pool(connections: usize, per_endpoint: usize) -> Pool {
        Pool::new(PoolLimits { connections, per_endpoint, patience: Duration::from_secs(55) })
    }

    #[test]
    fn the_connection_used_last_is_taken_first_and_only_for_its_endpoint() {
        let now = Instant::now();
        let mut pool = pool(10, 10);
        for (port, number) in [(1, 7), (1, 8), (2, 9)] {
            assert_eq!(pool.put(&endpoint(port), number, now), None);
        }
        assert_eq!(pool.take(&endpoint(3), |_| true), None);
        assert_eq!(pool.take(&endpoint(1), |_| true), Some(8));
        assert_eq!(pool.take(&endpoint(1), |_| false), None);
        assert_eq!(pool.take(&endpoint(1), |_| true), Some(7));
        assert_eq!(pool.take(&endpoint(1), |_| true), None);
        assert_eq!(pool.len(), 1);
    }

    #[test]
    fn a_full_pool_takes_no_other_endpoint_and_gives_up_the_oldest_of_the_same() {
        let now = Instant::now();
        let mut pool = pool(2, 10);
        assert_eq!(pool.put(&endpoint(1), 7, now), None);
        assert_eq!(pool.put(&endpoint(1), 8, now), None);
        assert_eq!(pool.put(&endpoint(2), 9, now), Some(9));
        assert_eq!(pool.put(&endpoint(1), 10, now), Some(7));
        assert_eq!(pool.len(), 2);
        pool.remove(&endpoint(1), 8);
        assert_eq!(pool.put(&endpoint(2), 9, now), None);
    }

    #[test]
    fn one_endpoint_can_not_use_up_the_pool() {
        let now = Instant::now();
        let mut limited = pool(10, 2);
        assert_eq!(limited.put(&endpoint(1), 7, now), None);
        assert_eq!(limited.put(&endpoint(1), 8, now), None);
        assert_eq!(limited.put(&endpoint(1), 9, now), Some(7));
        assert_eq!(limited.put(&endpoint(2), 7, now), None);
        assert_eq!(limited.len(), 3);
        assert_eq!(pool(10, 0).put(&endpoint(1), 7, now), Some(7));
        assert_eq!(pool(0, 10).put(&endpoint(1), 7, now), Some(7));
    }

    #[test]
    fn what_has_waited_too_long_is_given_out() {
        let now = Instant::now();
        let mut pool = pool(10, 10);
        assert_eq!(pool.put(&endpoint(1), 7, now), None);
        assert_eq!(pool.put(&endpoint(1), 8, now + Duration::from_secs(10)), None);
        let mut closed = Vec::new();
        pool.expire(now + Duration::from_secs(54), |connection| closed.push(connection));
        assert_eq!(closed, []);
        pool.expire(now + Duration::from_secs(55), |connection| closed.push(connection));
        assert_eq!((closed, pool.len()), (vec![7], 1));
    }

    proptest::proptest! {
        #[test]
        fn the_bounds_hold_and_no_connection_is_lost(steps in proptest::collection::vec((0u8..4, 0u16..3), 0..200)) {
            let now = Instant::now();
            let mut pool = pool(5, 3);
            let mut open = std::collections::HashMap::new();
            for (number, (step, port)) in steps.into_iter().enumerate() {
                match step {
                    0 => {
                        if let Some(taken) = pool.take(&endpoint(port), |_| true) {
                            proptest::prop_assert_eq!(open.remove(&taken), Some(port));
                        }
                    }
                    1 => {
                        if let Some(gone) = open.iter().find(|(_, at)| **at == port).map(|(number, _)| *number) {
                            open.remove(&gone);
                            pool.remove(&endpoint(port), gone);
                        }
                    }
                    _ => {
                        open.insert(number, port);
                        if let Some(superfluous) = pool.put(&endpoint(port), number, now) {
                            proptest::prop_assert!(open.remove(&superfluous).is_some());
                        }
                    }
                }
                proptest::prop_assert_eq!(pool.len(), open.len());
                proptest::prop_assert!(pool.len() <= 5);
                for port in 0..3 {
                    proptest::prop_assert!(open.values().filter(|at| **at == port).count() <= 3);
                }
            }
        }
    }
}
