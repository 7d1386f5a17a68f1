//! Asking the handler about a request before it is proxied (internal RPC, inspect), and when not to.

use std::time::{Duration, Instant};

use tnetstring::{Item, Writer};
use zhttp::Headers;

use crate::handler::call::{self, TIMEOUT};

/// Bytes of the body that the handler gets to see.
pub const PREFETCH: usize = 10_000;
/// How often a handler that does not answer is tried.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What the handler knows of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// The entries of the answer, to be repeated to the handler later.
    pub encoded: Vec<u8>,
    /// Do not ask a backend.
    pub no_proxy: bool,
    /// Tells sessions of a client apart.
    pub session_id: Option<Vec<u8>>,
    /// The last message the client has seen on each channel.
    pub last_ids: Vec<(Vec<u8>, Vec<u8>)>,
    /// How long the handler need not be asked again; ours says this, originals don't.
    pub again: Option<Duration>,
}

impl Inspected {
    /// Reads the value of an answer, or the copy of it in a retry.
    ///
    /// # Errors
    /// A required field is missing or one is of a wrong type.
    pub fn parse(value: Item<'_>) -> Result<Self, tnetstring::Error> {
        let mut inspected = Inspected { encoded: value.payload.to_vec(), ..Inspected::default() };
        let mut no_proxy = None;
        for field in value.entries()? {
            match field? {
                (b"no-proxy", item) => no_proxy = Some(item.as_bool()?),
                (b"sid", item) => inspected.session_id = Some(item.as_bytes()?.to_vec()),
                (b"last-ids", item) => {
                    for id in item.entries()? {
                        let (channel, id) = id?;
                        inspected.last_ids.push((channel.to_vec(), id.as_bytes()?.to_vec()));
                    }
                }
                (b"inspect-again", item) => {
                    inspected.again = u64::try_from(item.as_int_or_digits()?).ok().map(Duration::from_millis);
                }
                _ => {}
            }
        }
        inspected.no_proxy = no_proxy.ok_or(tnetstring::Error::MissingValue)?;
        Ok(inspected)
    }

    /// The values of `Grip-Last`.
    pub fn grip_last(&self) -> Vec<Vec<u8>> {
        self.last_ids.iter().map(|(channel, id)| [channel, &b"; last-id="[..], id].concat()).collect()
    }
}

/// A question about a request.
pub struct Question<'a> {
    /// Request method.
    pub method: &'a [u8],
    /// The client's URI.
    pub uri: &'a [u8],
    /// The client's headers.
    pub headers: Headers<'a>,
    /// The beginning of the body.
    pub body: &'a [u8],
    /// More body follows.
    pub truncated: bool,
    /// Session information is wanted.
    pub get_session: bool,
}

impl Question<'_> {
    /// Writes the call.
    pub fn encode<'w>(&self, id: &[u8], out: &'w mut Writer) -> &'w [u8] {
        call::encode_call(out, None, id, "inspect", |out| {
            call::flag(out, "get-session", self.get_session);
            call::flag(out, "truncated", self.truncated);
            call::entry(out, "body", self.body);
            call::headers(out, self.headers);
            call::entry(out, "uri", self.uri);
            call::entry(out, "method", self.method);
        })
    }
}

/// What to do about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Ask, and wait for the answer.
    Wait,
    /// Ask to learn whether the handler is there again; do not wait.
    Probe,
    /// Do not ask.
    No,
}

/// Whether the handler answers, and whether it wants to be asked at all.
#[derive(Debug)]
pub struct Availability {
    available: bool,
    /// When silence means absence.
    countdown: Option<Instant>,
    /// Questions whose answers are waited for.
    outstanding: usize,
    /// The handler has said that it need not be asked until then.
    quiet_until: Option<Instant>,
    next_probe: Option<Instant>,
}

impl Default for Availability {
    fn default() -> Self {
        Availability { available: true, countdown: None, outstanding: 0, quiet_until: None, next_probe: None }
    }
}

impl Availability {
    /// Decides about a request. `needed`: the answer is wanted even from a handler that said it has none to give.
    pub fn decide(&mut self, needed: bool, now: Instant) -> Ask {
        if self.countdown.is_some_and(|end| now >= end) {
            self.countdown = None;
            self.available = false;
        }
        if self.available && (needed || self.quiet_until.is_none()) {
            return Ask::Wait;
        }
        let quiet = self.quiet_until.is_some_and(|end| now < end);
        if (self.available && quiet) || self.next_probe.is_some_and(|next| now < next) {
            return Ask::No;
        }
        self.next_probe = Some(now + PROBE_INTERVAL);
        Ask::Probe
    }

    /// A question was sent whose answer is waited for.
    pub fn asked(&mut self, now: Instant) {
        self.outstanding += 1;
        self.countdown.get_or_insert(now + TIMEOUT);
    }

    /// An answer has come, of any sort. `again` is what the handler says about being asked again.
    pub fn answered(&mut self, again: Option<Duration>, now: Instant) {
        self.available = true;
        self.quiet_until = again.map(|again| now + again);
        self.next_probe = None;
        self.countdown = (self.outstanding > 0).then(|| now + TIMEOUT);
    }

    /// An answer is not waited for any more: it has come, or its request is gone.
    pub fn done_waiting(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if self.outstanding == 0 {
            self.countdown = None;
        }
    }

    /// No answer has come in time.
    pub fn timed_out(&mut self) {
        self.done_waiting();
        if self.outstanding == 0 {
            self.available = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(text: &[u8]) -> Item<'_> {
        tnetstring::split(text).unwrap().0
    }

    #[test]
    fn the_answer_of_an_original_says_only_whether_to_proxy() {
        let inspected = Inspected::parse(item(b"19:8:no-proxy,5:false!}")).unwrap();
        assert!(!inspected.no_proxy && inspected.again.is_none());
        assert_eq!(inspected.encoded, b"8:no-proxy,5:false!");
    }

    #[test]
    fn last_ids_become_grip_last_headers() {
        let inspected = Inspected::parse(item(b"42:8:no-proxy,5:false!8:last-ids,9:1:c,2:42,}}"));
        assert_eq!(inspected.unwrap().grip_last(), [b"c; last-id=42"]);
    }

    #[test]
    fn an_answer_without_no_proxy_is_refused() {
        assert!(Inspected::parse(item(b"0:}")).is_err());
        assert!(Inspected::parse(item(b"1:1#")).is_err());
    }

    #[test]
    fn a_handler_that_answers_is_asked_and_waited_for() {
        let mut availability = Availability::default();
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(availability.decide(false, now), Ask::Wait);
            availability.asked(now);
            availability.done_waiting();
            availability.answered(None, now);
        }
    }

    #[test]
    fn a_handler_that_said_so_is_left_alone_and_then_probed_once() {
        let mut availability = Availability::default();
        let now = Instant::now();
        availability.answered(Some(Duration::from_secs(60)), now);
        assert_eq!(availability.decide(false, now + Duration::from_secs(59)), Ask::No);
        assert_eq!(availability.decide(true, now + Duration::from_secs(59)), Ask::Wait);
        let later = now + Duration::from_secs(60);
        assert_eq!(availability.decide(false, later), Ask::Probe);
        assert_eq!(availability.decide(false, later), Ask::No);
        availability.answered(Some(Duration::from_secs(60)), later);
        assert_eq!(availability.decide(false, later + Duration::from_secs(2)), Ask::No);
    }

    #[test]
    fn after_a_silence_of_eight_seconds_nobody_waits_until_an_answer_comes() {
        let mut availability = Availability::default();
        let now = Instant::now();
        availability.asked(now);
        availability.asked(now);
        let later = now + TIMEOUT;
        assert_eq!(availability.decide(false, later), Ask::Probe);
        assert_eq!(availability.decide(false, later), Ask::No);
        assert_eq!(availability.decide(false, later + PROBE_INTERVAL), Ask::Probe);
        availability.answered(None, later + PROBE_INTERVAL);
        assert_eq!(availability.decide(false, later + PROBE_INTERVAL), Ask::Wait);
    }
}
