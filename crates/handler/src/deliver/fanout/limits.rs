// SPDX-License-Identifier: AGPL-3.0-or-later
//! Deliveries that wait for their turn, when `message_rate` is set and exceeded.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use foldhash::fast::RandomState;
use grip::HttpResponse;

use super::Fanout;
use crate::context::Context;
use crate::deliver::responses::{self, Target};
use crate::notice::Notice;
use crate::order::rate::{Bucket, Limiter};
use crate::subscribe::audience::Audience;
use crate::subscribe::channels::HoldKey;
use crate::subscribe::channels::SocketKey;
use crate::websocket::reply::Reply;

/// What one hold is to get, when deliveries are limited and wait for their turn.
pub(in crate::deliver) enum Delivery {
    /// More content of a stream.
    Content(Bytes),
    /// The end of a stream.
    Close,
    /// The response of a long-poll, with its body.
    Response(Rc<HttpResponse>, Bytes),
    /// What the proxy is told of a WebSocket.
    Socket(Reply),
}

/// Whom a delivery is for, with the number by which it is told from another one in its place.
#[derive(Clone, Copy)]
pub(in crate::deliver) enum Receiver {
    /// A hold.
    Hold(HoldKey, u64),
    /// A WebSocket.
    Socket(SocketKey, u64),
}

impl Fanout {
    /// Notes the bucket of a hold.
    pub fn count_apart(&mut self, birth: u64, bucket: Bucket) {
        if bucket.is_some() && self.limiter.is_some() {
            self.buckets.insert(birth, bucket);
        }
    }

    /// How many deliveries one counts for: one for each block.
    pub(in crate::deliver) fn weight(&self, size: Option<u64>, len: usize) -> usize {
        let Some(block) = self.block_size.filter(|&block| block > 0) else { return 1 };
        usize::try_from(size.unwrap_or(len as u64).div_ceil(u64::from(block))).unwrap_or(usize::MAX).max(1)
    }

    /// Blocks of content, if they are counted.
    pub(super) fn blocks(&self, size: Option<u64>, len: Option<usize>) -> Option<u32> {
        let block = self.block_size.filter(|&block| block > 0)?;
        let bytes = size.unwrap_or(len? as u64);
        Some(u32::try_from(bytes.div_ceil(u64::from(block))).unwrap_or(u32::MAX))
    }

    /// Whether deliveries that count for so much may leave at once.
    pub(in crate::deliver) fn admits(&mut self, weight: usize, now: Instant) -> bool {
        self.limiter.as_mut().is_none_or(|limiter| limiter.admit(weight, now))
    }

    pub(super) fn limit_hold(
        &mut self,
        key: HoldKey,
        weight: usize,
        delivery: Delivery,
        audience: &Audience,
        cx: &mut Context<'_>,
    ) {
        let birth = audience.holds[key].birth;
        let bucket = self.buckets.get(&birth).cloned().flatten();
        self.limit(Receiver::Hold(key, birth), bucket, weight, delivery, cx);
    }

    /// Lets a delivery wait for its turn; what exceeds the mark is dropped.
    pub(in crate::deliver) fn limit(
        &mut self,
        receiver: Receiver,
        bucket: Bucket,
        weight: usize,
        delivery: Delivery,
        cx: &mut Context<'_>,
    ) {
        let Some(limiter) = &mut self.limiter else { return };
        if limiter.add(bucket.clone(), weight, (receiver, delivery)).is_err() {
            cx.report(Notice::RateExceeded { hwm: self.message_hwm.unwrap_or(0), route: bucket.as_deref() });
        }
    }

    /// Deliveries dropped because more than `message_hwm` waited.
    pub fn over_rate(&self) -> u64 {
        self.limiter.as_ref().map_or(0, |limiter| limiter.dropped)
    }

    /// Delivers what the rate allows now, and closes clients that are too slow.
    pub fn on_timer(&mut self, audience: &mut Audience, cx: &mut Context<'_>) {
        self.sender.on_timer(audience, cx);
        let Some(limiter) = &mut self.limiter else { return };
        let due = limiter.take(cx.now);
        for (receiver, delivery) in due {
            let (Receiver::Hold(key, _) | Receiver::Socket(key, _)) = receiver;
            let is_there = match receiver {
                Receiver::Hold(key, birth) => audience.holds.is_there(key, birth),
                Receiver::Socket(key, birth) => audience.sockets.is_there(key, birth),
            };
            if !is_there {
                continue;
            }
            match delivery {
                Delivery::Socket(reply) => self.tell(key, reply, audience, cx),
                Delivery::Content(content) => {
                    let (holds, links) = (&mut audience.holds, &mut audience.links);
                    self.sender.give(key, &content, holds, links, cx);
                    self.sender.finish(&content, holds, links, cx);
                }
                Delivery::Close => self.sender.end(key, &mut audience.holds),
                Delivery::Response(response, body) => {
                    responses::respond(vec![Target::new(key, body)], Some(&response), &mut self.sender, audience, cx);
                }
            }
        }
        self.sender.flush(audience, cx);
        self.forget_buckets(audience);
    }

    /// Forgets the buckets of holds that are gone, now and then.
    fn forget_buckets(&mut self, audience: &Audience) {
        if self.buckets.len() > audience.holds.len() * 2 + 64 {
            let alive: HashSet<u64, RandomState> = audience.holds.iter().map(|hold| hold.birth).collect();
            self.buckets.retain(|birth, _| alive.contains(birth));
        }
    }

    /// When [`Fanout::on_timer`] is to be called.
    pub fn next_due(&self) -> Option<Instant> {
        let limiter = self.limiter.as_ref().and_then(Limiter::next_due);
        [self.sender.next_due(), limiter].into_iter().flatten().min()
    }
}
