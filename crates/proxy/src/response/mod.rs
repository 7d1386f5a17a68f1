//! What a client gets: responses of backends, and those that the proxy gives itself.

pub mod answer;
pub mod backend;
pub mod test_target;
