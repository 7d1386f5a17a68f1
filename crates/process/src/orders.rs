// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the runner orders while a component runs: how much it logs.
//!
//! Orders come through a pipe, a byte each. They are read by a thread of their own, because they concern only what is shared anyway:
//! the work loop has nothing to do with them.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::thread;

use crate::log;

/// Variable in which the runner tells the number of the pipe's descriptor.
pub const ORDERS: &str = "PUSHPIN_ORDERS";

/// Follows the orders of the runner, if it has left a pipe open for them.
pub(crate) fn follow() -> io::Result<()> {
    let number = std::env::var(ORDERS).ok().and_then(|number| number.parse::<u32>().ok());
    let Some(number) = number else { return Ok(()) };
    // By this name it is opened once more, which needs no trust in the number.
    read(File::open(format!("/proc/self/fd/{number}"))?)
}

/// Follows the orders that come through this pipe.
pub(crate) fn read(pipe: File) -> io::Result<()> {
    thread::Builder::new().name("orders".into()).spawn(move || {
        for order in BufReader::new(pipe).bytes().map_while(Result::ok) {
            obey(order);
        }
    })?;
    Ok(())
}

fn obey(order: u8) {
    if order <= settings::log_level::MAX {
        log::set_level(order);
        tracing::info!("log level is {order}");
    }
}
