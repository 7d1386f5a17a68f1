// SPDX-License-Identifier: AGPL-3.0-or-later
//! TLS session tickets: what clients keep of a session, so that their next handshake is a short one.
//!
//! All frontends of a runner have the same keys, so that a ticket is good at each of them and at those that are started
//! again. The runner makes the first and hands it down; from then on each process makes the next one itself when a period
//! begins. No key leads back to the one before, which is forgotten after one more period: what has been recorded before can not
//! be read by somebody who takes hold of a process later. Keys are in memory only.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::error::Unspecified;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::server::ProducesTickets;

/// How long tickets are made with a key. They are good for so long at least, and for twice as long at most.
pub const PERIOD: Duration = Duration::from_secs(12 * 3600);
/// Length of a secret.
const SECRET: usize = 32;
/// Length of the name by which a ticket's key is found.
const NAME: usize = 16;
/// No ticket of ours is longer: they have no certificates of clients in them.
const MAX_TICKET: usize = 2048;

/// The keys of all periods from one on: that before the present one, whose tickets are still good.
pub struct Chain {
    period: u64,
    secret: [u8; SECRET],
}

impl Chain {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(now: SystemTime) -> Result<Self, Unspecified> {
        let mut secret = [0; SECRET];
        SystemRandom::new().fill(&mut secret)?;
        Ok(Chain { period: before(now), secret })
    }

    /// The one that [`to_bytes`](Self::to_bytes) was called on, if it is one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (period, secret) = bytes.split_first_chunk()?;
        Some(Chain { period: u64::from_be_bytes(*period), secret: secret.try_into().ok()? })
    }

    /// For another process.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.period.to_be_bytes()[..], &self.secret].concat()
    }

    /// Forgets keys whose tickets are not good any more; tells whether there were any. A clock that is set back changes nothing.
    pub fn advance(&mut self, now: SystemTime) -> bool {
        let period = before(now);
        let is_behind = self.period < period;
        while self.period < period {
            self.secret = self.next();
            self.period += 1;
        }
        is_behind
    }

    fn next(&self) -> [u8; SECRET] {
        derive(&self.secret, b"next period")
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("period", &self.period).finish_non_exhaustive()
    }
}

/// The period before that of `now`.
fn before(now: SystemTime) -> u64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (since.as_secs() / PERIOD.as_secs()).saturating_sub(1)
}

fn derive(secret: &[u8; SECRET], label: &[u8]) -> [u8; SECRET] {
    let mut derived = [0; SECRET];
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), label);
    derived.copy_from_slice(tag.as_ref());
    derived
}

/// The key of one period.
struct Key {
    name: [u8; NAME],
    key: LessSafeKey,
}

impl Key {
    fn of(secret: &[u8; SECRET]) -> Result<Self, Unspecified> {
        let mut name = [0; NAME];
        name.copy_from_slice(&derive(secret, b"name")[..NAME]);
        Ok(Key { name, key: LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &derive(secret, b"key"))?) })
    }

    /// What a ticket is bound to: a session of one port is none of another, which may have other certificates.
    fn bound_to(&self, port: u16) -> Aad<Vec<u8>> {
        Aad::from([&self.name[..], &port.to_be_bytes()].concat())
    }

    fn seal(&self, port: u16, plain: &[u8]) -> Result<Vec<u8>, Unspecified> {
        // Random, because all processes have the same keys and can not count together.
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce)?;
        let mut sealed = plain.to_vec();
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), self.bound_to(port), &mut sealed)?;
        Ok([&self.name[..], &nonce, &sealed].concat())
    }

    fn open(&self, port: u16, nonce: [u8; NONCE_LEN], sealed: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let len = self.key.open_in_place(nonce, self.bound_to(port), &mut plain)?.len();
        plain.truncate(len);
        Ok(plain)
    }
}

/// The keys in use, for all ports.
pub struct Keys(Mutex<InUse>);

struct InUse {
    chain: Chain,
    previous: Key,
    present: Key,
}

impl InUse {
    fn of(chain: Chain) -> Result<Self, Unspecified> {
        Ok(InUse { previous: Key::of(&chain.secret)?, present: Key::of(&chain.next())?, chain })
    }

    fn advance(&mut self, now: SystemTime) -> Result<(), Unspecified> {
        if self.chain.advance(now) {
            self.previous = Key::of(&self.chain.secret)?;
            self.present = Key::of(&self.chain.next())?;
        }
        Ok(())
    }
}

impl Keys {
    /// Those of a chain.
    ///
    /// # Errors
    /// None in practice: keys are of the right length.
    pub fn new(chain: Chain) -> Result<Arc<Self>, Unspecified> {
        Ok(Arc::new(Keys(Mutex::new(InUse::of(chain)?))))
    }

    /// Makes and reads the tickets of a port.
    pub fn for_port(self: &Arc<Self>, port: u16) -> Arc<dyn ProducesTickets> {
        Arc::new(Tickets { keys: self.clone(), port })
    }

    fn make(&self, port: u16, plain: &[u8], now: SystemTime) -> Option<Vec<u8>> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.advance(now).ok()?;
        keys.present.seal(port, plain).ok().filter(|ticket| ticket.len() <= MAX_TICKET)
    }

    fn read(&self, port: u16, ticket: &[u8], now: SystemTime) -> Option<Vec<u8>> {
        if ticket.len() > MAX_TICKET {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk()?;
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.advance(now).ok()?;
        let key = [&keys.present, &keys.previous].into_iter().find(|key| key.name == *name)?;
        key.open(port, *nonce, sealed).ok()
    }
}

struct Tickets {
    keys: Arc<Keys>,
    port: u16,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("port", &self.port).finish_non_exhaustive()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        PERIOD.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys.make(self.port, plain, SystemTime::now())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.keys.read(self.port, ticket, SystemTime::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 443;

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + PERIOD * 1000
    }

    /// The keys of a process that was handed down this chain.
    fn process(chain: &Chain) -> Arc<Keys> {
        Keys::new(Chain::from_bytes(&chain.to_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn a_ticket_is_good_at_every_process_of_a_runner_and_at_no_other() {
        let chain = Chain::new(start()).unwrap();
        let ticket = process(&chain).make(PORT, b"session", start()).unwrap();
        assert_eq!(process(&chain).read(PORT, &ticket, start()).unwrap(), b"session");
        assert_eq!(process(&Chain::new(start()).unwrap()).read(PORT, &ticket, start()), None);
    }

    #[test]
    fn a_ticket_is_good_in_its_period_and_the_next_also_at_processes_that_start_then() {
        let mut chain = Chain::new(start()).unwrap();
        let (old, ticket) = (process(&chain), process(&chain).make(PORT, b"session", start()).unwrap());
        for (periods, good) in [(0, true), (1, true), (2, false), (3, false)] {
            let now = start() + PERIOD * periods;
            chain.advance(now);
            for keys in [&old, &process(&chain)] {
                assert_eq!(keys.read(PORT, &ticket, now).is_some(), good, "after {periods} periods");
            }
        }
        assert_eq!(old.read(PORT, &ticket, start()), None, "its key is forgotten, whatever the clock says");
    }

    #[test]
    fn processes_that_were_started_in_different_periods_have_the_same_keys() {
        let mut chain = Chain::new(start()).unwrap();
        let old = process(&chain);
        let now = start() + PERIOD * 7;
        chain.advance(now);
        let ticket = process(&chain).make(PORT, b"session", now).unwrap();
        assert_eq!(old.read(PORT, &ticket, now).unwrap(), b"session");
    }

    #[test]
    fn what_is_no_ticket_of_this_port_is_none() {
        let keys = process(&Chain::new(start()).unwrap());
        let ticket = keys.make(PORT, b"session", start()).unwrap();
        assert_eq!(keys.read(PORT + 1, &ticket, start()), None);
        for i in 0..ticket.len() {
            assert_eq!(keys.read(PORT, &ticket[..i], start()), None);
            let mut garbled = ticket.clone();
            garbled[i] ^= 1;
            assert_eq!(keys.read(PORT, &garbled, start()), None);
        }
        assert_eq!(keys.read(PORT, &[0; MAX_TICKET + 1], start()), None);
        assert_eq!(keys.make(PORT, &[0; MAX_TICKET], start()), None);
    }

    #[test]
    fn a_chain_of_another_form_is_none_and_keys_are_not_shown() {
        assert!(Chain::from_bytes(b"").is_none());
        assert!(Chain::from_bytes(&[0; 39]).is_none());
        assert!(Chain::from_bytes(&[0; 41]).is_none());
        let chain = Chain { period: 7, secret: [99; SECRET] };
        assert_eq!(format!("{chain:?}"), "Chain { period: 7, .. }");
    }
}
