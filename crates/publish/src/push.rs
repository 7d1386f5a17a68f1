//! Publishing by a ZeroMQ PUSH socket.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use transport::{Context, Options, Push};

use crate::Error;

/// How long to wait for a connection, and then for the message to leave, in ms.
const PATIENCE: i32 = 10_000;

/// Sends one message to the socket at `spec`.
pub fn send(spec: &str, message: &[u8]) -> Result<(), Error> {
    let failed = |e: &dyn std::fmt::Display| Error::Connection(format!("{spec}: {e}"));
    if let Some(address) = spec.strip_prefix("tcp://") {
        check(address).map_err(|e| failed(&e))?;
    }
    let context = Context::new();
    let socket = Push::new(&context, &Options { linger: PATIENCE, ..Options::default() }).map_err(|e| failed(&e))?;
    socket.connect(spec).map_err(|e| failed(&e))?;
    socket.send(message).map_err(|e| failed(&e))?;
    // Dropping socket and context waits until the message has left.
    Ok(())
}

/// Whether anyone listens. ZeroMQ would wait for somebody to come and not say that there is nobody.
fn check(address: &str) -> std::io::Result<()> {
    let mut last = std::io::Error::other("the address has no host");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, Duration::from_millis(PATIENCE as u64)) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}
