//! Sequence numbers: each direction of a session counts its packets from 0 (ZHTTP, sequence numbers).

/// What a peer did that its session does not survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A packet was lost, repeated or sent to the wrong owner.
    #[error("packet {got} came where {expected} was due")]
    Sequence {
        /// The number that was due.
        expected: u32,
        /// The number the packet had.
        got: u32,
    },
    /// More body bytes than were granted.
    #[error("{excess} body bytes more than were granted")]
    Overrun {
        /// Bytes above the grant.
        excess: u32,
    },
    /// A packet type that is not allowed now.
    #[error("a {0} packet is not allowed at this point")]
    Unexpected(&'static str),
}

/// The numbers of the packets due next, in and out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// The number the next packet received should have.
    pub next_in: u32,
    /// The number the next packet sent will have.
    pub next_out: u32,
}

impl Sequence {
    /// Checks a received packet's number. One without a number is accepted and not counted.
    pub fn accept(&mut self, seq: Option<u32>) -> Result<(), Violation> {
        match seq {
            None => Ok(()),
            Some(seq) if seq == self.next_in => {
                self.next_in += 1;
                Ok(())
            }
            Some(got) => Err(Violation::Sequence { expected: self.next_in, got }),
        }
    }

    /// The number for a packet that is sent now.
    pub fn take(&mut self) -> u32 {
        let seq = self.next_out;
        self.next_out += 1;
        seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_must_come_without_gap_and_without_repetition() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.accept(Some(0)), Ok(()));
        assert_eq!(sequence.accept(None), Ok(()));
        assert_eq!(sequence.accept(Some(1)), Ok(()));
        assert_eq!(sequence.accept(Some(1)), Err(Violation::Sequence { expected: 2, got: 1 }));
        assert_eq!(sequence.accept(Some(3)), Err(Violation::Sequence { expected: 2, got: 3 }));
    }
}
