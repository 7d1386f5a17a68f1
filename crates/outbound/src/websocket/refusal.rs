// SPDX-License-Identifier: AGPL-3.0-or-later
//! An answer that refuses a WebSocket: the requester gets it whole.

use wire::http1::ResponseHead;

/// The head of an answer that refuses a WebSocket.
#[derive(Debug, Default)]
pub struct Refusing {
    /// Its status.
    pub code: u16,
    /// Its text.
    pub reason: String,
    /// Its headers, without those about the body's form.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Refusing {
    /// Of such an answer.
    pub fn of(head: &ResponseHead<'_>) -> Self {
        let own = |name: &str| {
            ["Content-Length", "Transfer-Encoding", "Connection"].iter().any(|other| name.eq_ignore_ascii_case(other))
        };
        Refusing {
            code: head.code,
            reason: String::from_utf8_lossy(head.reason).into_owned(),
            headers: head
                .headers
                .iter()
                .filter(|field| !own(field.name))
                .map(|field| (field.name.to_owned(), field.value.to_vec()))
                .collect(),
        }
    }
}
