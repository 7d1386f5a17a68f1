//! Bodies on their way: bounded by credits in both directions.

pub mod download;
pub mod upload;
