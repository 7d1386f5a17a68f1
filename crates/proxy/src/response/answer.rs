// SPDX-License-Identifier: AGPL-3.0-or-later
//! Short plain-text responses that the proxy gives itself (proxy, complete list of proxy-generated answers).

/// A short plain-text response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub code: u16,
    /// Status text.
    pub reason: &'static str,
    /// Text; a line end is added when it is sent.
    pub text: String,
}

impl Answer {
    /// An answer with this text.
    pub fn new(code: u16, reason: &'static str, text: impl Into<String>) -> Self {
        Answer { code, reason, text: text.into() }
    }

    /// What `Pushpin-Check` asks for.
    pub fn notice() -> Self {
        let text = concat!(
            "pushpin-proxy ",
            env!("CARGO_PKG_VERSION"),
            ", a realtime reverse proxy compatible with Pushpin. Licence: AGPL-3.0-or-later."
        );
        Answer::new(200, "OK", text)
    }
}
