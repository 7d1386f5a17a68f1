//! What a socket counts.

/// What a socket has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages received.
    pub received: u64,
    /// Messages on their way to a peer.
    pub sent: u64,
    /// Messages that could not be sent: the peer was gone, or the backlog full.
    pub refused: u64,
    /// Messages received in a shape that the socket type does not have, and skipped.
    pub malformed: u64,
}
