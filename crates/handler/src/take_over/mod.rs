//! Requests that the proxy hands over to be held.

pub mod accept;
