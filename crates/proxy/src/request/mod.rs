//! What a backend gets: URI, headers, signatures.

pub mod forwarded;
pub mod headers;
pub mod signatures;
pub mod uri;
