// SPDX-License-Identifier: AGPL-3.0-or-later
//! The body of a request on its way from the client to the backend.
//!
//! Bytes come in within the window of the client's session, and leave as the backend grants credits. As long as the whole
//! body is small it is kept to the end: to send it again to the next target, to show it to the handler, and because
//! a held request must be repeatable.

/// Bytes of a request body that are kept (proxy, body).
pub const KEEP: usize = 100_000;

/// The body so far.
#[derive(Debug)]
pub struct Upload {
    /// From the first byte on while the body is kept, later only what has not been sent.
    bytes: Vec<u8>,
    /// How many of `bytes` have been sent to the current target.
    sent: usize,
    /// How many of `bytes` have been counted as passed on. Never goes back, unlike `sent`.
    counted: usize,
    /// Bytes passed on since [`Upload::take_passed`].
    passed: usize,
    /// Sent bytes that are not there any more.
    dropped: u64,
    /// All bytes have come.
    complete: bool,
    /// The current target knows that all bytes have come.
    end_sent: bool,
    /// Nobody takes the bytes any more; they are only counted or kept.
    unclaimed: bool,
}

impl Upload {
    /// A body of which `first` has come with the first packet, and more may follow.
    pub fn new(first: &[u8], more: bool) -> Self {
        Upload {
            bytes: first.to_vec(),
            sent: 0,
            // What the first packet brings needs no credits, so none come back for it.
            counted: first.len(),
            passed: 0,
            dropped: 0,
            complete: !more,
            end_sent: false,
            unclaimed: false,
        }
    }

    /// Takes in what a packet has brought.
    pub fn receive(&mut self, body: &[u8], more: bool) {
        self.bytes.extend_from_slice(body);
        self.complete = !more;
        if self.unclaimed {
            self.unclaim();
        }
    }

    /// How many bytes have left, or were given up, since the last time: as many may come again.
    pub fn take_passed(&mut self) -> usize {
        std::mem::take(&mut self.passed)
    }

    /// The next bytes for the target, at most `credits`, and whether more follow; `None` if there is nothing to send.
    pub fn next(&self, credits: usize) -> Option<(&[u8], bool)> {
        let waiting = &self.bytes[self.sent..];
        let chunk = &waiting[..waiting.len().min(credits)];
        let last = self.complete && chunk.len() == waiting.len();
        let nothing = if last { self.end_sent } else { chunk.is_empty() };
        (!nothing).then_some((chunk, !last))
    }

    /// Takes note that the first `count` bytes of [`Upload::next`] have been sent, and the end if `more` is false.
    pub fn sent(&mut self, count: usize, more: bool) {
        self.sent += count;
        self.end_sent |= !more;
        self.account();
    }

    /// The target is gone or has answered: what comes is not sent on. Bytes within the limit are still kept.
    pub fn unclaim(&mut self) {
        self.unclaimed = true;
        self.sent = self.bytes.len();
        self.account();
    }

    /// Begins anew for another target; `false` if bytes are missing by now.
    pub fn rewind(&mut self) -> bool {
        if self.dropped == 0 {
            self.sent = 0;
            self.end_sent = false;
        }
        self.dropped == 0
    }

    fn account(&mut self) {
        self.passed += self.sent.saturating_sub(self.counted);
        self.counted = self.counted.max(self.sent);
        // By halves, so that no byte is moved more than once.
        if (self.dropped > 0 || self.bytes.len() > KEEP) && self.sent * 2 >= self.bytes.len() {
            self.dropped += self.sent as u64;
            self.bytes.drain(..self.sent);
            self.counted -= self.sent;
            self.sent = 0;
        }
    }

    /// The kept bytes, from the first one on; `None` if there were too many.
    pub fn kept(&self) -> Option<&[u8]> {
        (!self.is_too_large()).then_some(&self.bytes[..])
    }

    /// Whether the body is larger than what is kept.
    pub fn is_too_large(&self) -> bool {
        self.dropped > 0 || self.bytes.len() > KEEP
    }

    /// Whether all bytes have come.
    pub fn is_complete(&self) -> bool {
        self.complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends all that `credits` allow, as an owner does.
    fn send(upload: &mut Upload, credits: usize) -> Option<(usize, bool)> {
        let (count, more) = upload.next(credits).map(|(chunk, more)| (chunk.len(), more))?;
        upload.sent(count, more);
        Some((count, more))
    }

    #[test]
    fn an_empty_body_ends_once() {
        let mut upload = Upload::new(b"", false);
        assert_eq!(send(&mut upload, 0), Some((0, false)));
        assert_eq!(send(&mut upload, 0), None);
    }

    #[test]
    fn bytes_leave_as_credits_allow_and_the_end_needs_none() {
        let mut upload = Upload::new(b"", true);
        assert_eq!(send(&mut upload, 10), None);
        upload.receive(b"0123456789", true);
        assert_eq!(send(&mut upload, 4), Some((4, true)));
        assert_eq!(send(&mut upload, 6), Some((6, true)));
        upload.receive(b"", false);
        assert_eq!(send(&mut upload, 0), Some((0, false)));
        assert_eq!(upload.kept(), Some(&b"0123456789"[..]));
    }

    #[test]
    fn only_what_has_left_and_needed_credits_counts_as_passed_on() {
        let mut upload = Upload::new(b"first", true);
        upload.receive(&[0; 200_000], true);
        assert_eq!(upload.take_passed(), 0);
        send(&mut upload, 1005);
        assert_eq!(upload.take_passed(), 1000);
        send(&mut upload, 1);
        assert_eq!(upload.take_passed(), 1);
    }

    #[test]
    fn a_small_body_can_be_sent_again_and_counts_once() {
        let mut upload = Upload::new(b"", true);
        upload.receive(&[0; 60_000], true);
        assert_eq!(send(&mut upload, 200_000), Some((60_000, true)));
        assert_eq!(upload.take_passed(), 60_000);
        assert!(upload.rewind());
        assert_eq!(send(&mut upload, 200_000), Some((60_000, true)));
        assert_eq!(upload.take_passed(), 0);
    }

    #[test]
    fn a_large_body_is_not_kept_once_it_was_sent() {
        let mut upload = Upload::new(b"", true);
        upload.receive(&[0; KEEP + 1], true);
        assert!(upload.is_too_large());
        assert!(upload.rewind());
        send(&mut upload, 60_000);
        assert!(!upload.rewind());
        assert_eq!(upload.kept(), None);
        assert_eq!(send(&mut upload, 200_000), Some((KEEP + 1 - 60_000, true)));
    }

    #[test]
    fn an_unclaimed_body_is_swallowed_and_kept_while_it_is_small() {
        let mut upload = Upload::new(b"ab", true);
        upload.unclaim();
        upload.receive(b"cd", true);
        assert_eq!(upload.next(1000), None);
        assert_eq!(upload.kept(), Some(&b"abcd"[..]));
        upload.receive(&[0; KEEP], false);
        assert_eq!(upload.kept(), None);
    }
}
