// SPDX-License-Identifier: AGPL-3.0-or-later
//! Publishing by a ZeroMQ PUSH socket.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use transport::{Context, Options, Push, Reactor};

use crate::Error;

/// How long to wait for a connection, and then for the message to leave.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends one message to the socket at `spec`.
pub fn send(spec: &str, message: &[u8]) -> Result<(), Error> {
    let failed = |e: &dyn std::fmt::Display| Error::Connection(format!("{spec}: {e}"));
    if let Some(address) = spec.strip_prefix("tcp://") {
        check(address).map_err(|e| failed(&e))?;
    }
    let context = Context::new();
    let options = Options { linger: PATIENCE.as_millis() as i32, ..Options::default() };
    let socket = Push::connect(&context, &[spec], &options).map_err(|e| failed(&e))?;
    let mut reactor = Reactor::new().map_err(|e| failed(&e))?;
    reactor.add(0, &socket).map_err(|e| failed(&e))?;
    socket.send(message).map_err(|e| failed(&e))?;
    if !reactor.drain(PATIENCE) {
        return Err(failed(&format_args!("nobody has taken the message in {} s", PATIENCE.as_secs())));
    }
    // What libzmq has taken leaves when socket and context are dropped.
    Ok(())
}

/// Whether anyone listens. ZeroMQ would wait for somebody to come and not say that there is nobody.
fn check(address: &str) -> std::io::Result<()> {
    let mut last = std::io::Error::other("the address has no host");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}
