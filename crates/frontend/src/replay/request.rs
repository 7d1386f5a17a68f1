// SPDX-License-Identifier: AGPL-3.0-or-later
//! One request that is kept.

use zhttp::{Packet, PeerId};

use crate::transplant::record::{RecordError, RequestRecord};
use zhttp::budget::Share;

/// How often a request is sent again at most: one that ends each proxy that gets it must not go through all of them.
const TIMES: u8 = 2;

/// What has been sent of a request, and where.
#[derive(Debug)]
pub(crate) struct KeptRequest {
    /// The first packet.
    first: Box<[u8]>,
    /// What has been sent of the body so far, to whichever proxy.
    body: Vec<u8>,
    max_body: usize,
    /// The first packet says that it follows.
    has_body: bool,
    /// There is no more of it.
    is_complete: bool,
    /// What the present proxy has got of it, and whether it knows that there is no more.
    sent: usize,
    is_ended: bool,
    /// Done twice, it does what it does once.
    is_idempotent: bool,
    /// The proxy that has said that the request may go to another.
    proxy: Option<PeerId>,
    /// It is with no proxy.
    pub(crate) waits: bool,
    times: u8,
    share: Share,
}

impl KeptRequest {
    pub(super) fn new(first: &[u8], packet: &Packet<'_>, max_body: usize, share: Share) -> Self {
        KeptRequest {
            first: first.into(),
            body: Vec::new(),
            max_body,
            has_body: packet.more,
            is_complete: !packet.more,
            sent: 0,
            is_ended: !packet.more,
            is_idempotent: is_idempotent(packet.method.unwrap_or_default()),
            proxy: None,
            waits: false,
            times: 0,
            share,
        }
    }

    /// Writes it down for another process; none if it is with no proxy.
    pub(crate) fn snapshot(&self) -> Option<RequestRecord> {
        (!self.waits).then(|| RequestRecord {
            first: self.first.to_vec(),
            body: self.body.clone(),
            has_body: self.has_body,
            is_complete: self.is_complete,
            sent: self.sent as u64,
            is_ended: self.is_ended,
            is_idempotent: self.is_idempotent,
            proxy: self.proxy.map(|proxy| proxy.index() as u32),
            times: self.times,
        })
    }

    /// Reads it back.
    pub(super) fn restore(
        record: RequestRecord,
        max_body: usize,
        share: Share,
        peers: &[PeerId],
    ) -> Result<Self, RecordError> {
        let sent = usize::try_from(record.sent).ok().filter(|sent| *sent <= record.body.len());
        let proxy = record.proxy.map(|proxy| peers.get(proxy as usize).copied().ok_or(RecordError::Unfit("proxy")));
        Ok(KeptRequest {
            first: record.first.into(),
            body: record.body,
            max_body,
            has_body: record.has_body,
            is_complete: record.is_complete,
            sent: sent.ok_or(RecordError::Unfit("body"))?,
            is_ended: record.is_ended,
            is_idempotent: record.is_idempotent,
            proxy: proxy.transpose()?,
            waits: false,
            times: record.times,
            share,
        })
    }

    /// The first packet, with the number of the session that it was for.
    pub(crate) fn first(&self) -> Option<Packet<'_>> {
        Packet::decode(&self.first).ok()
    }

    /// A part of the body is sent; `false` if that is too much to be kept.
    pub(crate) fn add(&mut self, body: &[u8], more: bool) -> bool {
        if self.body.len() + body.len() > self.max_body || !self.share.grow(body.len()) {
            return false;
        }
        self.body.extend_from_slice(body);
        self.sent = self.body.len();
        (self.is_complete, self.is_ended) = (!more, !more);
        true
    }

    /// It goes to another proxy, or waits for one. It counts if the one before may have got it.
    pub(crate) fn begin_again(&mut self, counts: bool) {
        (self.sent, self.proxy) = (0, None);
        self.is_ended = !self.has_body;
        self.times += u8::from(counts);
    }

    /// Whether the present proxy lacks something that another has got.
    pub(crate) fn is_behind(&self) -> bool {
        self.sent < self.body.len() || self.is_complete && !self.is_ended
    }

    /// What it gets next of that, up to so many bytes, and whether there is more.
    pub(crate) fn next(&mut self, most: usize) -> Option<(&[u8], bool)> {
        let begin = self.sent;
        let end = self.body.len().min(begin.saturating_add(most));
        let ends = self.is_complete && end == self.body.len();
        if !self.is_behind() || end == begin && !ends {
            return None;
        }
        (self.sent, self.is_ended) = (end, ends);
        Some((&self.body[begin..end], !ends))
    }

    /// `server` has sent something that is no part of the response; `offers`: it has said that the request may go to another.
    /// Whether the request is to be kept further.
    pub(crate) fn on_answer(&mut self, server: Option<PeerId>, offers: bool) -> bool {
        if offers {
            self.proxy = server;
        }
        // Whoever else has the session now may have it for long.
        self.is_idempotent && self.proxy.is_some() && self.proxy == server
    }

    /// Whether this proxy has it, and has said that it may go to another.
    pub(crate) fn is_with(&self, proxy: PeerId) -> bool {
        self.proxy == Some(proxy)
    }

    /// Whether it may be sent again though a proxy may have got it.
    pub(crate) fn may_be_sent_again(&self) -> bool {
        self.is_idempotent && self.times < TIMES
    }
}

/// See RFC 9110, section 9.2.2, and for QUERY its own specification.
fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"QUERY" | b"PUT" | b"DELETE")
}
