//! Held requests.

pub mod session;
pub mod terms;
