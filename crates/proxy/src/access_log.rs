// SPDX-License-Identifier: AGPL-3.0-or-later
//! The line that the log has for each request (proxy, logging).

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::fmt;
use std::time::Duration;

use zhttp::Packet;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered with this status and this many body bytes.
    Responded(u16, u64),
    /// The handler has it.
    Accepted,
    /// The client went away, the backend broke off, or nothing was sent.
    Failed,
}

impl Outcome {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Responded(..) => "responded",
            Self::Accepted => "accepted",
            Self::Failed => "failed",
        }
    }

    /// Status and body bytes of the answer.
    pub fn response(self) -> Option<(u16, u64)> {
        match self {
            Self::Responded(status, bytes) => Some((status, bytes)),
            Self::Accepted | Self::Failed => None,
        }
    }
}

/// All that stands in the line.
pub struct Line<'a> {
    /// The client's request.
    pub request: &'a Packet<'a>,
    /// Its URI, with the scheme that counts.
    pub uri: &'a [u8],
    /// Where it was sent.
    pub target: Option<&'a str>,
    /// The client's address, if it is to be logged.
    pub from: Option<&'a [u8]>,
    /// The route, if it was given an id.
    pub route: Option<&'a str>,
    /// How it ended.
    pub outcome: Outcome,
    /// From the first packet to this line.
    pub duration: Duration,
    /// It came from the handler.
    pub retry: bool,
    /// The group whose request it shares.
    pub shared: Option<u64>,
    /// Whether the User-Agent is to be logged.
    pub user_agent: bool,
    /// What the request is called in the logs of all that it goes through.
    pub id: Option<&'a str>,
}

/// Bytes of a stranger, readable.
pub struct Text<'a>(pub &'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_str("\u{fffd}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Text(self.request.method.unwrap_or_default()), Text(self.uri))?;
        if let Some(target) = self.target {
            write!(f, " -> {target}")?;
        }
        if let Some(from) = self.from {
            write!(f, " from={}", Text(from))?;
        }
        if let Some(referer) = self.request.headers.get("Referer") {
            write!(f, " ref={}", Text(referer))?;
        }
        if let Some(route) = self.route {
            write!(f, " route={route}")?;
        }
        match self.outcome {
            Outcome::Responded(code, bytes) => write!(f, " code={code} {bytes}")?,
            Outcome::Accepted => f.write_str(" accept")?,
            Outcome::Failed => f.write_str(" error")?,
        }
        if self.retry {
            f.write_str(" retry")?;
        }
        if let Some(group) = self.shared {
            write!(f, " shared={group:#x}")?;
        }
        if let Some(agent) = self.request.headers.get("User-Agent").filter(|_| self.user_agent) {
            write!(f, " ua={}", Text(agent))?;
        }
        // In seconds, to the millisecond, as `$request_time` of nginx. Behind what Pushpin writes, whose lines others parse.
        write!(f, " time={:.3}", self.duration.as_secs_f64())?;
        if let Some(id) = self.id {
            write!(f, " id={id}")?;
        }
        for value in self.request.headers.values("Grip-Last") {
            for last in grip::header::elements(value) {
                let id = grip::header::parameters(last)
                    .into_iter()
                    .flatten()
                    .find(|parameter| parameter.is("last-id"))
                    .and_then(|parameter| parameter.value);
                if let Some(id) = id {
                    write!(f, " #{}={}", Text(grip::header::first(last)), Text(&id))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zhttp::Headers;

    #[test]
    fn the_fields_stand_in_their_order() {
        let headers: &[(&[u8], &[u8])] = &[
            (b"user-agent", b"ua1"),
            (b"Referer", b"http://ref/"),
            (b"Grip-Last", b"c; last-id=5"),
            (b"X-Request-Id", b"r1"),
        ];
        let request = Packet { method: Some(b"GET"), headers: Headers::Pairs(headers), ..Packet::default() };
        let mut line = Line {
            request: &request,
            uri: b"http://127.0.0.1:7999/rt?x=1",
            target: Some("127.0.0.1:8000"),
            from: Some(b"127.0.0.1"),
            route: Some("rt"),
            outcome: Outcome::Responded(200, 6),
            duration: Duration::from_micros(12_345),
            retry: false,
            shared: None,
            user_agent: true,
            id: wire::request_id::of(request.headers.iter()),
        };
        assert_eq!(
            line.to_string(),
            "GET http://127.0.0.1:7999/rt?x=1 -> 127.0.0.1:8000 from=127.0.0.1 ref=http://ref/ route=rt code=200 6 ua=ua1 time=0.012 id=r1 #c=5"
        );
        line = Line {
            target: None,
            from: None,
            route: None,
            outcome: Outcome::Accepted,
            retry: true,
            shared: Some(26),
            user_agent: false,
            ..line
        };
        assert_eq!(
            line.to_string(),
            "GET http://127.0.0.1:7999/rt?x=1 ref=http://ref/ accept retry shared=0x1a time=0.012 id=r1 #c=5"
        );
    }
}
