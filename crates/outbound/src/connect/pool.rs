//! Connections that wait for their next request, by where they go.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::connect::target::Endpoint;

/// Idle connections; the numbers are the owner's.
#[derive(Debug)]
pub struct Pool {
    endpoints: HashMap<Endpoint, VecDeque<(usize, Instant)>, RandomState>,
    len: usize,
    capacity: usize,
    patience: Duration,
}

impl Pool {
    /// A pool for at most `capacity` connections, each for as long as `patience`.
    pub fn new(capacity: usize, patience: Duration) -> Self {
        Pool { endpoints: HashMap::default(), len: 0, capacity, patience }
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

    /// Keeps a connection. `false` if the pool is full; the connection should be closed then.
    #[must_use]
    pub fn put(&mut self, endpoint: &Endpoint, connection: usize, now: Instant) -> bool {
        if self.len >= self.capacity {
            return false;
        }
        self.len += 1;
        match self.endpoints.get_mut(endpoint) {
            Some(waiting) => waiting.push_back((connection, now)),
            None => drop(self.endpoints.insert(endpoint.clone(), VecDeque::from([(connection, now)]))),
        }
        true
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
        let (len, patience) = (&mut self.len, self.patience);
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
        Endpoint { host: "h".into(), port }
    }

    #[test]
    fn the_connection_used_last_is_taken_first_and_only_for_its_place() {
        let now = Instant::now();
        let mut pool = Pool::new(10, Duration::from_secs(55));
        assert!(pool.put(&endpoint(1), 7, now) && pool.put(&endpoint(1), 8, now) && pool.put(&endpoint(2), 9, now));
        assert_eq!(pool.take(&endpoint(3), |_| true), None);
        assert_eq!(pool.take(&endpoint(1), |_| true), Some(8));
        assert_eq!(pool.take(&endpoint(1), |_| false), None);
        assert_eq!(pool.take(&endpoint(1), |_| true), Some(7));
        assert_eq!(pool.take(&endpoint(1), |_| true), None);
        assert_eq!(pool.len(), 1);
    }

    #[test]
    fn a_full_pool_takes_no_more() {
        let now = Instant::now();
        let mut pool = Pool::new(1, Duration::from_secs(55));
        assert!(pool.put(&endpoint(1), 7, now));
        assert!(!pool.put(&endpoint(2), 8, now));
        pool.remove(&endpoint(1), 7);
        assert!(pool.put(&endpoint(2), 8, now));
    }

    #[test]
    fn what_has_waited_too_long_is_given_out() {
        let now = Instant::now();
        let mut pool = Pool::new(10, Duration::from_secs(55));
        assert!(pool.put(&endpoint(1), 7, now) && pool.put(&endpoint(1), 8, now + Duration::from_secs(10)));
        let mut closed = Vec::new();
        pool.expire(now + Duration::from_secs(54), |connection| closed.push(connection));
        assert_eq!(closed, []);
        pool.expire(now + Duration::from_secs(55), |connection| closed.push(connection));
        assert_eq!((closed, pool.len()), (vec![7], 1));
    }
}
