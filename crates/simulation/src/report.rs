// SPDX-License-Identifier: AGPL-3.0-or-later
//! What can be told of a run.

/// What has happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests that clients have begun.
    pub asked: usize,
    /// Responses that ended as they should.
    pub answered: usize,
    /// Connections that ended before that, visibly.
    pub cut: usize,
    /// Streams and long-polls among them that were held.
    pub held_cut: usize,
    /// Items published.
    pub published: u64,
    /// Requests held at the end.
    pub held: usize,
    /// Links of the handler that were cut because their frontend took nothing.
    pub links_cut: usize,
    /// Processes that were replaced.
    pub deaths: usize,
    /// Responses that say that a request's proxy has died.
    pub refused: usize,
    /// Held requests that a handler's successor went on with.
    pub taken_up: u64,
    /// Clients that handlers have closed because they were slow, or something waited for them with a predecessor.
    pub closed: u64,
    /// Requests to backends on connections that had waited.
    pub reused: u64,
    /// Those among them that were sent again.
    pub repeated: u64,
    /// WebSockets that a proxy's successor has claimed from an outbound process.
    pub adopted: u64,
    /// Requests that a backend has broken off, or let wait.
    pub hurt: usize,
    /// A checksum of all that went over the links, in order.
    pub trace: u64,
}

impl Report {
    /// Adds what has happened in another run.
    pub fn add(&mut self, other: &Report) {
        self.asked += other.asked;
        self.answered += other.answered;
        self.cut += other.cut;
        self.held_cut += other.held_cut;
        self.published += other.published;
        self.held += other.held;
        self.links_cut += other.links_cut;
        self.deaths += other.deaths;
        self.refused += other.refused;
        self.taken_up += other.taken_up;
        self.closed += other.closed;
        self.reused += other.reused;
        self.repeated += other.repeated;
        self.adopted += other.adopted;
        self.hurt += other.hurt;
    }
}
