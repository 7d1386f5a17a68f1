// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the head of a backend's answer says.

use std::time::Duration;

use grip::header::integer;
use grip::websocket::events;
use zhttp::Headers;

/// The backend is not asked more often when there is nothing to say. As in Pushpin, so that backends need no other value.
const MIN_INTERVAL: u64 = 20;

/// The head of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The body is events.
    pub events: bool,
    /// `Keep-Alive-Interval`; the inner `None` ends keep-alives.
    pub interval: Option<Option<Duration>>,
    /// `Content-Bytes-Accepted`.
    pub accepted: Option<usize>,
    /// `Set-Meta-` headers: names without that, and values, of which an empty one removes.
    pub meta: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Answer {
    /// Reads status and headers.
    pub fn read(code: u16, headers: Headers<'_>) -> Self {
        let accepted = headers.get("Content-Bytes-Accepted").and_then(integer);
        Answer {
            events: code == 200 && headers.get("Content-Type") == Some(events::CONTENT_TYPE.as_bytes()),
            interval: headers.get("Keep-Alive-Interval").map(|value| {
                let seconds = integer(value).and_then(|seconds| u64::try_from(seconds).ok());
                // No more than some days, so that the time can be added to.
                seconds
                    .filter(|seconds| *seconds > 0)
                    .map(|seconds| Duration::from_secs(seconds.clamp(MIN_INTERVAL, 1 << 20)))
            }),
            accepted: accepted.and_then(|accepted| usize::try_from(accepted).ok()),
            meta: headers
                .iter()
                .filter_map(|(name, value)| Some((meta_name(name)?.to_vec(), value.to_vec())))
                .collect(),
        }
    }
}

/// What stands behind `Set-Meta-`.
fn meta_name(name: &[u8]) -> Option<&[u8]> {
    const START: &[u8] = b"Set-Meta-";
    let (start, name) = name.split_at_checked(START.len())?;
    (start.eq_ignore_ascii_case(START) && !name.is_empty()).then_some(name)
}

/// Whether a header of the answer to `OPEN` is for the client.
pub fn is_for_client(name: &[u8]) -> bool {
    const OURS: [&str; 4] = ["Content-Length", "Content-Type", "Keep-Alive-Interval", "Content-Bytes-Accepted"];
    meta_name(name).is_none() && !OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()))
}
