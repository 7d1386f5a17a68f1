//! Talking to the handler process.

pub mod accept;
pub mod call;
pub mod command;
pub mod inspect;
pub mod retry;
