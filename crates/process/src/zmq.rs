// SPDX-License-Identifier: AGPL-3.0-or-later
//! ZeroMQ sockets as the settings want them.

use settings::Zmq;
use transport::Options;

/// The options of a process's sockets; what is peculiar to one of them is added to these.
pub fn options(settings: &Zmq) -> Options {
    Options {
        file_mode: settings.ipc_file_mode,
        max_message: settings.max_message,
        max_peers: settings.max_peers,
        handshake: settings.handshake_timeout,
        ..Options::default()
    }
}
