// SPDX-License-Identifier: AGPL-3.0-or-later
//! What clients do, and what they may see.

use super::{CHANNELS, CLIENTS, FRONTENDS, World};
use crate::client::{Ask, Client, Deaths};
use crate::frontend::Connection;
use crate::net::Part;
use crate::socket::Socket;
use crate::weather::Weather;

/// How often a request goes to another proxy at most.
const RETRIES: usize = 2;
/// The code by which a WebSocket is closed that nobody can go on with.
const RESTARTED: u16 = 1012;

impl World {
    pub(super) fn client_acts(&mut self) {
        if self.clients.len() < CLIENTS {
            let index = self.random.below(usize::from(FRONTENDS)) as u8;
            let id = self.next_client;
            self.next_client += 1;
            if let Some(frontend) =
                self.frontends.get_mut(&index).filter(|_| !self.net.stopped.contains(&Part::Frontend(index)))
            {
                frontend.accept(id, self.now);
                self.clients.insert(id, Client::new(id, index));
            }
        }
        let ids: Vec<u32> = self.clients.keys().copied().collect();
        let Some(&id) = ids.get(self.random.below(ids.len())) else { return };
        match self.random.below(40) {
            0 => return self.hang_up(id),
            1 => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.lazy = !client.lazy;
                }
            }
            _ => {}
        }
        let most = 1 + self.random.below(600);
        if self.clients.get(&id).is_some_and(|client| !client.lazy) {
            self.serve(id, most);
        }
        self.ask(id);
        self.speak(id);
    }

    /// A WebSocket's client says something, or closes.
    fn speak(&mut self, id: u32) {
        let what = self.random.below(40);
        let Some(socket) = self.clients.get_mut(&id).and_then(|client| client.socket.as_mut()) else { return };
        match what {
            _ if !socket.may_speak() => return,
            0 => socket.close(),
            1 => socket.say(true),
            2..15 => socket.say(false),
            _ => return,
        }
        self.send(id);
    }

    /// Gives the frontend what a WebSocket's client has to send. Says whether there was anything.
    fn send(&mut self, id: u32) -> bool {
        let Some(client) = self.clients.get_mut(&id) else { return false };
        let (Some(frontend), Some(socket)) = (self.frontends.get_mut(&client.frontend), &mut client.socket) else {
            return false;
        };
        if self.net.stopped.contains(&Part::Frontend(client.frontend)) {
            return false;
        }
        let bytes = socket.take_output();
        if !bytes.is_empty() {
            frontend.push(id, &bytes, self.now, &mut self.net);
        }
        !bytes.is_empty()
    }

    /// Begins a request if the client has none.
    fn ask(&mut self, id: u32) {
        let ask = match self.random.below(20) {
            17.. => Ask::Direct(self.some_channels()),
            13.. => Ask::Socket(self.some_channels()),
            10.. => Ask::Reliable,
            0..2 => Ask::Plain(self.random.below(6_000)),
            2 => Ask::Upload(self.random.below(5_000)),
            3 => Ask::Both(3_000 + self.random.below(5_000)),
            4..6 => Ask::Poll(CHANNELS[self.random.below(CHANNELS.len())]),
            _ => Ask::Stream(self.some_channels()),
        };
        let (now, net) = (self.now, &mut self.net);
        let Some(client) = self.clients.get_mut(&id).filter(|client| client.is_free()) else { return };
        if net.stopped.contains(&Part::Frontend(client.frontend)) {
            return;
        }
        let Some(frontend) = self.frontends.get_mut(&client.frontend) else { return };
        let head = client.ask(ask, Deaths { troubles: self.backend.troubles, ..self.deaths });
        self.report.asked += 1;
        frontend.push(id, &head, now, net);
    }

    fn some_channels(&mut self) -> Vec<&'static str> {
        let first = self.random.below(CHANNELS.len());
        let count = 1 + self.random.below(2);
        (0..count).map(|i| CHANNELS[(first + i) % CHANNELS.len()]).collect()
    }

    /// A client reads and sends as far as it can; says whether anything moved.
    pub(super) fn serve(&mut self, id: u32, most: usize) -> bool {
        let (now, net) = (self.now, &mut self.net);
        let Some(client) = self.clients.get_mut(&id) else { return false };
        if net.stopped.contains(&Part::Frontend(client.frontend)) {
            return false;
        }
        let Some(frontend) = self.frontends.get_mut(&client.frontend) else { return false };
        let mut moved = false;
        if client.unsent > 0 {
            let count = client.unsent.min(most);
            client.unsent -= count;
            frontend.push(id, &vec![b'u'; count], now, net);
            moved = true;
        }
        let (bytes, connection) = frontend.pull(id, most, now, net);
        moved |= !bytes.is_empty();
        if let Some((ask, code)) = client.on_bytes(&bytes, &self.facts) {
            let since = Deaths { troubles: self.backend.troubles, ..self.deaths }.since(client.deaths_before);
            // A frontend may notice the death of a handler later.
            let deaths = Deaths { handlers: self.deaths.handlers, ..since };
            let is_hurt = self.backend.has_hurt(&client.tag) || deaths.troubles > 0;
            self.report.answered += 1;
            self.report.refused += usize::from(code == 502);
            assert!(
                may_be_answered(self.weather, &ask, code, is_hurt, deaths),
                "{ask:?} {} is answered with {code}, {deaths:?}",
                client.tag
            );
        }
        if connection != Connection::Open {
            if let Some(ask) = &client.ask {
                let is_late = frontend.is_late(id);
                let leaves = client.socket.as_ref().is_some_and(Socket::is_leaving_by_itself);
                self.report.cut += usize::from(!leaves);
                // What the backend has for a reliable one at once, no handler has held.
                let is_held = ask.is_held() && *ask != Ask::Reliable;
                self.report.held_cut += usize::from(client.begun && is_held && !is_late);
                if self.traces {
                    eprintln!("client {id} is cut off, begun {}: {ask:?}", client.begun);
                }
                let is_hasty = self.proxy.as_ref().is_some_and(|proxy| proxy.is_hasty);
                let may_be_restarted = self.may_be_restarted || self.handler.is_blind || is_hasty;
                let deaths = Deaths { troubles: self.backend.troubles, ..self.deaths }.since(client.deaths_before);
                let is_hurt = self.backend.has_hurt(&client.tag) || deaths.troubles > 0;
                let may_be = match &client.socket {
                    Some(socket) => {
                        let is_known = self.facts.subscriptions(&socket.known_as).next().is_some();
                        let deaths_borne = if socket.is_direct { 0 } else { RETRIES };
                        let is_hurt = is_hurt || deaths.outbounds > deaths_borne;
                        is_late || may_end(self.weather, socket, may_be_restarted, is_known, is_hurt)
                    }
                    None => is_late || may_be_cut(self.weather, ask, client.begun, is_hurt || deaths.outbounds > 0),
                };
                let how = client.socket.as_ref().map(|socket| (&socket.name, socket.closed));
                assert!(
                    may_be,
                    "client {id} is cut off, begun {}: {ask:?} {how:?}, slow {}",
                    client.begun, client.lazy
                );
            }
            self.forget(id);
            moved = true;
        }
        moved | self.send(id)
    }

    /// A client is gone. Of a WebSocket the backend has to hear that, unless it was closed because nobody could go on with it.
    fn forget(&mut self, id: u32) -> Option<Client> {
        let client = self.clients.remove(&id)?;
        if let Some(socket) = &client.socket
            && socket.closed.is_none_or(|closed| closed.code != RESTARTED)
        {
            self.gone.push((socket.name.clone(), socket.known_as.clone()));
        }
        Some(client)
    }

    pub(super) fn hang_up(&mut self, id: u32) {
        if let Some(client) = self.forget(id)
            && let Some(frontend) = self.frontends.get_mut(&client.frontend)
        {
            frontend.hang_up(id, self.now, &mut self.net);
        }
    }
}

/// Whether a request may be answered with such a status if so many servers have died meanwhile. `is_hurt`: its backend may have broken it
/// off.
fn may_be_answered(weather: Weather, ask: &Ask, code: u16, is_hurt: bool, deaths: Deaths) -> bool {
    let by_proxies = || match ask {
        // Done twice, it may do something else than done once.
        Ask::Upload(_) | Ask::Both(_) => deaths.proxies > 0,
        // The handler may have been giving it back to the proxy.
        Ask::Reliable => deaths.proxies > 0,
        Ask::Plain(_) | Ask::Stream(_) | Ask::Poll(_) | Ask::Socket(_) | Ask::Direct(_) => deaths.proxies > RETRIES,
    };
    match weather {
        _ if code == 200 => true,
        Weather::Fair => false,
        Weather::Proxies => code == 502 && by_proxies(),
        // A frontend that has never heard of a handler does not know that one has died, and not a proxy. If one handler after the other
        // dies, a request to hold waits for too long.
        Weather::Successors => {
            code == 502 && by_proxies() || matches!(code, 500 | 502) && ask.is_held() && deaths.handlers > 0
        }
        Weather::Backends => {
            let by_outbounds = match ask {
                // Handshakes are not sent again that an outbound process has perhaps not taken.
                Ask::Upload(_) | Ask::Both(_) | Ask::Direct(_) | Ask::Socket(_) => deaths.outbounds > 0,
                _ => deaths.outbounds > RETRIES,
            };
            code == 502 && (is_hurt || by_outbounds)
        }
        _ => true,
    }
}

/// Whether the response to a request may be broken off, or never begin. `is_hurt`: its backend may have broken it off, or its outbound
/// process has died.
fn may_be_cut(weather: Weather, ask: &Ask, begun: bool, is_hurt: bool) -> bool {
    match weather {
        Weather::Fair => matches!(ask, Ask::Stream(_)),
        Weather::Proxies => begun,
        Weather::Backends => begun && (is_hurt || matches!(ask, Ask::Stream(_))),
        _ => true,
    }
}

/// Whether a WebSocket may end. `may_be_restarted`: a handler has begun to publish before the proxy had named its WebSockets, or the
/// proxy has named some before the frontends had named all to it.
/// `is_known`: a handler has subscribed it to something. `is_hurt`: its backend may have broken off what it was asked.
fn may_end(weather: Weather, socket: &Socket, may_be_restarted: bool, is_known: bool, is_hurt: bool) -> bool {
    // Only its proxy could have finished the message.
    let torn = socket.closed.is_some_and(|closed| closed.torn) && !socket.is_direct;
    let restarted = socket.closed.is_some_and(|closed| closed.code == RESTARTED);
    socket.is_leaving_by_itself()
        || match weather {
            Weather::Fair => false,
            Weather::Backends => is_hurt,
            Weather::Heirs => torn,
            // Of one that has just been opened the handler has not heard by the proxy that died, and may have published since.
            Weather::Proxies => torn || restarted && !is_known,
            Weather::Successors => torn || restarted && (!is_known || may_be_restarted),
            Weather::Halting | Weather::Deadly | Weather::Stormy => true,
        }
}
