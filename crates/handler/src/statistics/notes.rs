// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the stages note for statistics, while somebody listens to them.

use std::collections::BTreeMap;
use std::rc::Rc;

use zhttp::{Id, PeerId};

use crate::order::rate::Bucket;
use crate::subscribe::channels::Mode;

/// See the module.
#[derive(Debug, Default)]
pub struct Notes {
    /// Channels that subscribers of a mode have joined or left.
    pub changed: Vec<(Mode, Box<str>)>,
    /// Holds that have begun.
    pub begun: Vec<(PeerId, Id)>,
    /// Holds that have ended.
    pub ended: Vec<(PeerId, Id)>,
    /// Long-polls that the proxy has again.
    pub given_back: Vec<(PeerId, Id)>,
    /// Items that have met subscribers.
    pub messages: Vec<Published>,
    /// Keep-alives sent, by route if that is counted apart.
    pub keep_alives: BTreeMap<Bucket, u32>,
    /// Deliveries to WebSockets whose route is counted apart, and their blocks.
    pub sent_apart: BTreeMap<Rc<str>, (u32, u32)>,
    /// Messages pushed into WebSockets and their bytes, by route if that is counted apart. Of others the proxy knows.
    pub pushed: BTreeMap<Bucket, (u32, u32)>,
}

impl Notes {
    /// A message has been pushed into a WebSocket.
    pub fn pushed(&mut self, route: &Bucket, bytes: usize) {
        let (messages, all) = self.pushed.entry(route.clone()).or_default();
        *messages = messages.wrapping_add(1);
        *all = all.wrapping_add(bytes as u32);
    }
}

/// An item that has met subscribers of a mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The channel's full name.
    pub channel: Box<str>,
    /// The item's id.
    pub item_id: Option<Box<str>>,
    /// How they get it.
    pub mode: Mode,
    /// How many they are.
    pub receivers: u32,
    /// Blocks of its content, if they are counted.
    pub blocks: Option<u32>,
}
