//! GRIP on WebSockets.

pub mod control;
