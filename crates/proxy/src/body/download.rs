// SPDX-License-Identifier: AGPL-3.0-or-later
//! The body of a response on its way to the client: what has come and waits for the client's credits.

/// The response as far as it has been sent.
#[derive(Debug, Default)]
pub struct Download {
    /// Status, once head and status have been sent.
    pub code: Option<u16>,
    /// Body bytes sent.
    pub bytes_sent: u64,
    waiting: Vec<u8>,
    /// How many of `waiting` have been sent.
    sent: usize,
    /// Nothing more will come.
    complete: bool,
    /// The client has been told so.
    end_sent: bool,
}

impl Download {
    /// Takes `body`, and returns how much of it is to be sent at once, within `credits`, and whether more follows it. The
    /// rest waits. The caller sends that much even if it is nothing when there is a head to send or `more` is false.
    pub fn offer(&mut self, body: &[u8], last: bool, credits: u32) -> (usize, bool) {
        self.complete = last;
        let now = if self.is_waiting() { 0 } else { body.len().min(credits as usize) };
        self.waiting.extend_from_slice(&body[now..]);
        let more = !last || self.is_waiting();
        self.count(now, more);
        (now, more)
    }

    /// The next bytes that waited, within `credits`, and whether more follow; `None` if there is nothing to send.
    pub fn next(&self, credits: u32) -> Option<(&[u8], bool)> {
        let waiting = &self.waiting[self.sent..];
        let chunk = &waiting[..waiting.len().min(credits as usize)];
        let last = self.complete && chunk.len() == waiting.len();
        let nothing = if last { self.end_sent } else { chunk.is_empty() };
        (!nothing).then_some((chunk, !last))
    }

    /// Takes note that what [`Download::next`] gave has been sent.
    pub fn sent(&mut self, count: usize, more: bool) {
        self.sent += count;
        if self.sent == self.waiting.len() {
            // Also gives the memory back: most responses never wait again.
            self.waiting = Vec::new();
            self.sent = 0;
        } else if self.sent * 2 >= self.waiting.len() {
            // A response that keeps coming never waits for nothing, so what was sent is let go on the way. By halves, so
            // that no byte is moved more than once.
            self.waiting.drain(..self.sent);
            self.sent = 0;
        }
        self.count(count, more);
    }

    fn count(&mut self, bytes: usize, more: bool) {
        self.bytes_sent += bytes as u64;
        self.end_sent |= !more;
    }

    /// Whether bytes wait for credits.
    pub fn is_waiting(&self) -> bool {
        self.sent < self.waiting.len()
    }

    /// Whether everything has been sent.
    pub fn is_finished(&self) -> bool {
        self.end_sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_credits_allow_is_sent_without_waiting() {
        let mut download = Download::default();
        assert_eq!(download.offer(b"hello", true, 100), (5, false));
        assert!(download.is_finished());
        assert_eq!(download.bytes_sent, 5);
    }

    #[test]
    fn the_rest_waits_for_credits_in_order() {
        let mut download = Download::default();
        assert_eq!(download.offer(b"hello", false, 2), (2, true));
        assert_eq!(download.offer(b" world", true, 100), (0, true));
        assert_eq!(download.next(0), None);
        assert_eq!(download.next(4), Some((&b"llo "[..], true)));
        download.sent(4, true);
        assert_eq!(download.next(100), Some((&b"world"[..], false)));
        download.sent(5, false);
        assert!(download.is_finished() && !download.is_waiting());
        assert_eq!(download.next(100), None);
    }

    #[test]
    fn what_was_sent_is_let_go_even_if_something_always_waits() {
        let mut download = Download::default();
        download.offer(&[0; 200], false, 0);
        for _ in 0..1000 {
            assert_eq!(download.offer(&[0; 100], false, 0), (0, true));
            let (count, more) = download.next(100).map(|(chunk, more)| (chunk.len(), more)).unwrap();
            download.sent(count, more);
            assert!(download.waiting.len() <= 500, "{}", download.waiting.len());
        }
    }

    #[test]
    fn the_end_needs_no_credits() {
        let mut download = Download::default();
        assert_eq!(download.offer(b"ab", false, 2), (2, true));
        assert_eq!(download.offer(b"", true, 0), (0, false));
        assert!(download.is_finished());
    }

    #[test]
    fn an_end_behind_waiting_bytes_waits_with_them() {
        let mut download = Download::default();
        download.offer(b"abc", false, 1);
        assert_eq!(download.offer(b"", true, 0), (0, true));
        assert!(!download.is_finished());
        assert_eq!(download.next(2), Some((&b"bc"[..], false)));
    }
}
