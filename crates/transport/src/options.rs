//! What the owner of a socket chooses.

/// Limits of a socket.
#[derive(Clone, Debug)]
pub struct Options {
    /// Messages that may be queued for one peer, each way.
    pub high_water_mark: i32,
    /// Messages that may wait beyond that.
    pub backlog: usize,
    /// How long closing waits for queued messages to leave, in ms; to peers on this machine, [`Reactor::drain`] does that.
    ///
    /// [`Reactor::drain`]: crate::Reactor::drain
    pub linger: i32,
    /// The routing identity that peers see; for ROUTER sockets that peers address.
    pub identity: Option<Vec<u8>>,
    /// Permission bits of the file of a bound `ipc:` socket.
    pub file_mode: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Options { high_water_mark: 10_000, backlog: 100_000, linger: 500, identity: None, file_mode: None }
    }
}

impl Options {
    /// The defaults, with the identity that peers address.
    pub fn named(identity: &str) -> Self {
        Options { identity: Some(identity.as_bytes().to_vec()), ..Options::default() }
    }
}
