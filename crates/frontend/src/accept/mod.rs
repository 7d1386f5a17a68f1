//! Where clients come in.
//!
//! - [`listeners`]: the listening sockets.
//! - [`admission`]: how many clients there may be, without I/O.

pub mod admission;
pub mod listeners;

pub use admission::Admission;
pub use listeners::Listeners;
