//! What the stages note for statistics, while somebody listens to them.

use zhttp::{Id, PeerId};

use crate::subscribe::channels::Mode;

/// See the module.
#[derive(Debug, Default)]
pub struct Notes {
    /// Channels that subscribers of a mode have joined or left.
    pub changed: Vec<(Mode, Box<str>)>,
    /// Holds that have ended.
    pub ended: Vec<(PeerId, Id)>,
    /// Items that have met subscribers.
    pub messages: Vec<Published>,
    /// Keep-alives sent.
    pub keep_alives: u32,
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
}
