//! Requests that the proxy hands over to be held: [`accept`] reads the call, [`admission`] decides.

pub mod accept;
pub mod admission;
