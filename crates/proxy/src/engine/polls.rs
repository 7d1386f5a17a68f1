// SPDX-License-Identifier: AGPL-3.0-or-later
//! SockJS sessions that talk by polls, between the exchanges of their requests and the relays of their WebSockets.

use std::time::Instant;

use tnetstring::Writer;
use zhttp::session::server;
use zhttp::{INITIAL_BODY, Ids, Packet};

use super::Engine;
use crate::context::{Links, Note};
use crate::request::uri::Uri;
use crate::sockjs::table::{NAME, Work};

/// The links of relays: what goes to a session's side is kept.
pub(super) struct Kept<'a> {
    pub links: &'a mut dyn Links,
    pub packets: Vec<Vec<u8>>,
}

impl Links for Kept<'_> {
    fn to_client(&mut self, to: &[u8], by_router: bool, packet: &Packet<'_>) -> bool {
        if to == NAME {
            self.packets.push(packet.encode(None, &mut Writer::default()).to_vec());
            return true;
        }
        self.links.to_client(to, by_router, packet)
    }

    fn to_handler(&mut self, to: &[u8], by_router: bool, packet: &Packet<'_>) -> bool {
        self.links.to_handler(to, by_router, packet)
    }

    fn open_origin(&mut self, packet: &Packet<'_>) -> bool {
        self.links.open_origin(packet)
    }

    fn open_zmq(&mut self, spec: &str, packet: &Packet<'_>) -> bool {
        self.links.open_zmq(spec, packet)
    }

    fn ask_zmq(&mut self, spec: &str, packet: &Packet<'_>) -> bool {
        self.links.ask_zmq(spec, packet)
    }

    fn to_origin(&mut self, to: &[u8], packet: &Packet<'_>) -> bool {
        self.links.to_origin(to, packet)
    }

    fn inspect(&mut self, call: &[u8]) -> bool {
        self.links.inspect(call)
    }

    fn accept(&mut self, call: &[u8]) -> bool {
        self.links.accept(call)
    }

    fn control(&mut self, packet: &[u8]) -> bool {
        self.links.control(packet)
    }

    fn log(&mut self, note: &Note<'_>) {
        self.links.log(note);
    }
}

impl Engine {
    /// Does what has come up for sessions, and what comes of that.
    pub(super) fn work_on_polls(&mut self, now: Instant, links: &mut dyn Links) {
        while let Some(event) = self.shared.polls.pop_front() {
            let relays = self.shared.peers.intern(&self.shared.instance);
            let work = self.polls.handle(event, relays, now);
            self.do_work(work, now, links);
        }
    }

    /// Does what is due for sessions.
    pub(super) fn poll_timers(&mut self, now: Instant, links: &mut dyn Links) {
        let work = self.polls.on_timer(now);
        self.do_work(work, now, links);
    }

    fn do_work(&mut self, work: Vec<Work>, now: Instant, links: &mut dyn Links) {
        for work in work {
            match work {
                Work::Answer(caller, page) => {
                    let waits = |entry: &super::Entry| entry.exchange.is_polling(&caller);
                    if self.exchanges.get(caller.index).is_some_and(waits) {
                        self.with_exchange(caller.index, now, links, |exchange, context| {
                            exchange.answer_for_site(page, context);
                        });
                    }
                }
                Work::Warn(excess) => links.log(&Note::Warning { kind: excess.kind(), text: &excess }),
                Work::Tell(id, seq, word) => {
                    let Some(peer) = self.shared.peers.find(NAME) else { continue };
                    let ids = Ids::One(id.as_bytes(), Some(seq));
                    let packet = Packet { from: NAME, ids, ..word.packet() };
                    self.with_websockets(now, links, |websockets, context| {
                        websockets.client_packet(&(peer, id), &packet, Some(seq), context);
                    });
                }
                Work::Open(message, route) => {
                    let packet = Packet::decode(&message).unwrap_or_default();
                    let Some(peer) = self.shared.peers.intern(NAME) else { continue };
                    let Some(uri) = Uri::parse(packet.uri.unwrap_or_default()) else { continue };
                    let Ok(session) = server::Session::open(&packet, peer, INITIAL_BODY as u32, now) else { continue };
                    self.with_websockets(now, links, |websockets, context| {
                        websockets.open(session, &packet, uri.scheme, context, |relay, scene| {
                            relay.begin_on(route, &packet, scene);
                        });
                    });
                }
            }
        }
    }
}
