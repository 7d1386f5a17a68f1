// SPDX-License-Identifier: AGPL-3.0-or-later
//! Flow control: body bytes that a side may send, granted by the other (ZHTTP, flow control).
//!
//! The sender's half is a count, [`Credits`]. The receiver's half is a [`Window`], which gives credits back late on
//! purpose: when half of the window has been used, or when [`Window::take_owed`] is called for a session that has gone
//! quiet, so that a stream of small messages does not cause a packet back for each.

use super::violation::Violation;

/// The sender's half: body bytes that may be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credits(u32);

impl Credits {
    /// `count` bytes may be sent.
    pub fn new(count: u32) -> Self {
        Credits(count)
    }

    /// Bytes that may be sent.
    pub fn available(self) -> u32 {
        self.0
    }

    /// Adds what the peer has granted. Beyond the range of the count nothing is added.
    pub fn add(&mut self, granted: u32) {
        self.0 = self.0.saturating_add(granted);
    }

    /// Counts bytes that are sent. The caller has looked at [`Credits::available`]; sending more is our own mistake, and
    /// leaves no credits.
    pub fn spend(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.0 as usize, "{bytes} bytes sent with {} credits", self.0);
        self.0 = self.0.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
    }
}

/// The receiver's half: what was granted, what has come, and what is to be granted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    size: u32,
    /// Granted and not used by the sender yet.
    granted: u32,
    /// Passed on, and not granted again yet.
    owed: u32,
}

impl Window {
    /// A window of `size` bytes, all of it granted (in the packet that opens the session).
    pub fn granted(size: u32) -> Self {
        Window { size, granted: size, owed: 0 }
    }

    /// A window of `size` bytes of which nothing has been granted yet.
    pub fn closed(size: u32) -> Self {
        Window { size, granted: 0, owed: size }
    }

    /// A window of `size` bytes of which `granted` are the sender's, and the others are owed.
    pub(super) fn partly(size: u32, granted: u32) -> Self {
        Window { size, granted, owed: size.saturating_sub(granted) }
    }

    /// Counts received bytes against the grant.
    pub fn receive(&mut self, bytes: usize) -> Result<(), Violation> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        match self.granted.checked_sub(bytes) {
            Some(left) => {
                self.granted = left;
                Ok(())
            }
            None => Err(Violation::Overrun { excess: bytes - self.granted }),
        }
    }

    /// Counts bytes that have left for where they go, so that as many may come again. `true` once this is worth a
    /// packet.
    pub fn pass_on(&mut self, bytes: usize) -> bool {
        self.owed = self.owed.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.owed >= self.size / 2
    }

    /// Whether there is anything to grant.
    pub fn owes(&self) -> bool {
        self.owed > 0
    }

    /// Grants what is owed; the number goes into a packet's `credits`.
    pub fn take_owed(&mut self) -> u32 {
        let owed = std::mem::take(&mut self.owed);
        self.granted = self.granted.saturating_add(owed);
        owed
    }

    /// Writes the three counts.
    pub(super) fn parts(&self) -> [u32; 3] {
        [self.size, self.granted, self.owed]
    }

    /// Restores what [`Window::parts`] gave.
    pub(super) fn restore([size, granted, owed]: [u32; 3]) -> Self {
        Window { size, granted, owed }
    }

    /// Bytes the sender may still send.
    pub fn open(&self) -> u32 {
        self.granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn credits_go_back_when_half_the_window_was_used() {
        let mut window = Window::granted(1000);
        window.receive(499).unwrap();
        assert!(!window.pass_on(499));
        window.receive(1).unwrap();
        assert!(window.pass_on(1));
        assert_eq!(window.take_owed(), 500);
        assert_eq!(window.open(), 1000);
    }

    #[test]
    fn a_sender_that_ignores_the_grant_is_caught() {
        let mut window = Window::granted(10);
        assert_eq!(window.receive(11), Err(Violation::Overrun { excess: 1 }));
    }

    proptest! {
        #[test]
        fn never_more_than_the_window_is_under_way_or_waiting(steps in prop::collection::vec((0u32..2000, any::<bool>()), 0..100)) {
            let mut window = Window::granted(1000);
            let mut held = 0u32;
            for (bytes, grant) in steps {
                let bytes = bytes.min(window.open());
                window.receive(bytes as usize).unwrap();
                held += bytes;
                let passed = held / 2;
                held -= passed;
                window.pass_on(passed as usize);
                if grant {
                    window.take_owed();
                }
                prop_assert_eq!(window.open() + held + window.owed, 1000);
            }
        }
    }
}
