// SPDX-License-Identifier: AGPL-3.0-or-later
//! The sockets by which packets leave, and the lines of the log.

use std::time::Instant;

use limited::Limited;
use tnetstring::Writer;
use transport::{Dealer, Publisher, Push, Router, SendError};
use zhttp::Packet;

use super::zmq_backends::ZmqBackends;
use crate::access_log::{Line, Text};
use crate::context::{Links, Note};

/// The sockets that packets leave by.
pub(super) struct Sockets {
    pub(super) stream: Router,
    pub(super) responses: Publisher,
    pub(super) origin_out: Push,
    pub(super) origin_stream: Router,
    /// Backends that speak ZHTTP themselves.
    pub(super) zmq_backends: ZmqBackends,
    pub(super) inspect: Dealer,
    pub(super) accept: Dealer,
    /// To handlers, about their own requests.
    pub(super) internal_stream: Router,
    pub(super) internal_out: Publisher,
    /// To handlers, about WebSockets.
    pub(super) control_out: Push,
    pub(super) writer: Writer,
    pub(super) now: Instant,
    pub(super) warnings: Limited,
    /// Packets that could not be sent, because their receiver is gone or takes no more.
    pub(super) lost: u64,
}

/// The line of a request; its fields are for those who want JSON.
fn log(line: &Line<'_>) {
    let outcome = line.outcome.name();
    let (status, bytes) = line.outcome.response().unzip();
    tracing::info!(
        target: process::log::REQUESTS,
        method = %Text(line.request.method.unwrap_or_default()),
        uri = %Text(line.uri),
        backend = line.target,
        from = line.from.map(Text).map(display),
        route = line.route,
        id = line.id,
        outcome,
        status,
        bytes,
        seconds = line.duration.as_secs_f64(),
        "{line}"
    );
}

impl Links for Sockets {
    fn log(&mut self, note: &Note<'_>) {
        match note {
            Note::Request(line) => log(line),
            Note::Warning { kind, text } => self.warnings.warn(kind, self.now, text),
        }
    }

    fn to_client(&mut self, to: &[u8], by_router: bool, packet: &Packet<'_>) -> bool {
        let sent = if by_router {
            self.stream.send(to, packet.encode(None, &mut self.writer))
        } else {
            self.responses.send(to, packet.encode(Some(to), &mut self.writer))
        };
        self.lost += u64::from(sent.is_err());
        // For one that is not there, its session's end is being told anyway.
        sent != Err(SendError::Full)
    }

    fn to_handler(&mut self, to: &[u8], by_router: bool, packet: &Packet<'_>) -> bool {
        let sent = if by_router {
            self.internal_stream.send(to, packet.encode(None, &mut self.writer))
        } else {
            self.internal_out.send(to, packet.encode(Some(to), &mut self.writer))
        };
        self.lost += u64::from(sent.is_err());
        sent != Err(SendError::Full)
    }

    fn open_origin(&mut self, packet: &Packet<'_>) -> bool {
        self.origin_out.send(packet.encode(None, &mut self.writer)).is_ok()
    }

    fn open_zmq(&mut self, spec: &str, packet: &Packet<'_>) -> bool {
        self.zmq_backends.begin(spec, packet.encode(None, &mut self.writer))
    }

    fn ask_zmq(&mut self, spec: &str, packet: &Packet<'_>) -> bool {
        self.zmq_backends.ask(spec, packet.encode(None, &mut self.writer))
    }

    fn to_origin(&mut self, to: &[u8], packet: &Packet<'_>) -> bool {
        let router = self.zmq_backends.router_to(to).unwrap_or(&self.origin_stream);
        let sent = router.send(to, packet.encode(None, &mut self.writer));
        self.lost += u64::from(sent.is_err());
        sent != Err(SendError::Full)
    }

    fn control(&mut self, packet: &[u8]) -> bool {
        self.control_out.send(packet).is_ok()
    }

    fn inspect(&mut self, call: &[u8]) -> bool {
        self.inspect.writable() && self.inspect.send(call).is_ok()
    }

    fn accept(&mut self, call: &[u8]) -> bool {
        // Without a handler it waits, unlike a question: the runner is starting one, and the client is better off with a
        // hold a moment later than with an error.
        self.accept.send(call).is_ok()
    }
}

impl Sockets {
    /// Tells a handler of numbers of connections.
    pub(super) fn count(&mut self, notice: &[u8]) {
        let sent = self.accept.writable() && self.accept.send(notice).is_ok();
        self.lost += u64::from(!sent);
    }
}
