//! The order in which items leave, and how fast.

pub mod rate;
pub mod sequencer;
