// SPDX-License-Identifier: AGPL-3.0-or-later
//! Headers by which a held stream asks the proxies between the suite and the client to pass on each piece at once.

/// RFC 10036; and nginx, with those that read its header.
const WANTED: [(&[u8], &[u8]); 2] = [(b"Incremental", b"?1"), (b"X-Accel-Buffering", b"no")];

/// Those that a response with `headers` lacks: a backend's own stay as they are.
pub fn missing<'a>(headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<(&'static [u8], &'static [u8])> {
    let mut missing = WANTED.to_vec();
    for (name, _) in headers {
        missing.retain(|(wanted, _)| !wanted.eq_ignore_ascii_case(name));
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backends_own_headers_count() {
        let headers: [(&[u8], &[u8]); 2] = [(b"A", b"b"), (b"x-accel-buffering", b"yes")];
        assert_eq!(missing(headers.into_iter()), [(&b"Incremental"[..], &b"?1"[..])]);
        assert_eq!(missing([].into_iter()).len(), 2);
    }
}
