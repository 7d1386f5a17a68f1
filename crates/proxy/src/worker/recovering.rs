// SPDX-License-Identifier: AGPL-3.0-or-later
//! Asks frontends for the WebSockets of a predecessor, and hears them.

use std::time::Instant;

use transport::{Change, Incoming};
use zhttp::inquiry::News;
use zhttp::recovery;

use super::{PACKETS_A_TURN, Worker, requester_changed};
use crate::context::{Links as _, Note};
use crate::websocket::recovering::Recovering;

/// How many frontends are to be asked. Only on this machine the end of a link is known.
pub(super) fn frontends(settings: &settings::Proxy) -> usize {
    let specs = &settings.client_in_stream_specs;
    let local = specs.iter().all(|spec| spec.starts_with("ipc:"));
    if local && !settings.recover_wait.is_zero() { specs.len() } else { 0 }
}

impl Worker {
    /// Takes further packets of clients, and changes among their frontends.
    pub(super) fn take_from_frontends(&mut self, now: Instant) {
        for _ in 0..PACKETS_A_TURN {
            match self.sockets.stream.incoming() {
                None => break,
                Some(Incoming::Packet(from, message)) if message.first() == Some(&recovery::MARK) => {
                    let Some(frontend) = self.engine.peer(&from) else { continue };
                    if self.engine.on_kept(frontend, &message, now, &mut self.sockets) {
                        self.recovering.on_done(frontend);
                    }
                }
                Some(Incoming::Packet(_, message)) => self.engine.client_packet(&message, now, &mut self.sockets),
                Some(Incoming::Change(change)) => {
                    self.note_frontend(&change, true);
                    requester_changed(change, &mut self.engine, now, &mut self.sockets);
                }
            }
        }
    }

    /// Takes changes among those who listen to responses.
    pub(super) fn note_listeners(&mut self, now: Instant) {
        let changes: Vec<_> = self.sockets.responses.changes().collect();
        for change in changes {
            if !self.note_frontend(&change, false) {
                requester_changed(change, &mut self.engine, now, &mut self.sockets);
            }
        }
    }

    /// A frontend has come or gone, or says that it can be asked. Whether that was all that the change says.
    fn note_frontend(&mut self, change: &Change, by_router: bool) -> bool {
        let (name, joins) = change.parts();
        let News { instance, is_topic, change } = News::of(name, joins, by_router);
        let Some(frontend) = self.engine.peer(instance) else { return is_topic };
        if let Some(change) = change
            && self.recovering.on_change(frontend, change)
            && let Err(error) = self.sockets.stream.send(instance, &Recovering::question())
        {
            let text = format!("a frontend can not be asked for what it has kept: {error}");
            self.sockets.log(&Note::Warning { kind: "recover", text: &text });
        }
        is_topic
    }
}
