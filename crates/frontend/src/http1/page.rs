// SPDX-License-Identifier: AGPL-3.0-or-later
//! Responses of the frontend itself: error pages (frontend, error responses).

use wire::http1::Version;

/// A page for a client whose request was refused or could not be served. The connection ends behind it.
pub fn error_page(version: Version, code: u16, text: &str) -> Vec<u8> {
    let reason = match code {
        400 => "Bad Request",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    };
    let version = if version == Version::Http10 { "1.0" } else { "1.1" };
    let length = text.len();
    format!(
        "HTTP/{version} {code} {reason}\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}"
    )
    .into_bytes()
}
