// SPDX-License-Identifier: AGPL-3.0-or-later
//! What clients do, and what they may see.

use super::{CHANNELS, CLIENTS, FRONTENDS, World};
use crate::client::{Ask, Client};
use crate::frontend::Connection;
use crate::net::Part;
use crate::weather::Weather;

/// How often a request goes to another proxy at most.
const RETRIES: usize = 2;

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
                self.clients.insert(id, Client::new(index));
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
    }

    /// Begins a request if the client has none.
    fn ask(&mut self, id: u32) {
        let ask = match self.random.below(13) {
            10.. => Ask::Reliable,
            0..2 => Ask::Plain(self.random.below(6_000)),
            2 => Ask::Upload(self.random.below(5_000)),
            3 => Ask::Both(3_000 + self.random.below(5_000)),
            4..6 => Ask::Poll(CHANNELS[self.random.below(CHANNELS.len())]),
            _ => {
                let first = self.random.below(CHANNELS.len());
                let count = 1 + self.random.below(2);
                Ask::Stream((0..count).map(|i| CHANNELS[(first + i) % CHANNELS.len()]).collect())
            }
        };
        let (now, net) = (self.now, &mut self.net);
        let Some(client) = self.clients.get_mut(&id).filter(|client| client.is_free()) else { return };
        if net.stopped.contains(&Part::Frontend(client.frontend)) {
            return;
        }
        let Some(frontend) = self.frontends.get_mut(&client.frontend) else { return };
        let head = client.ask(ask, self.proxies_dead);
        self.report.asked += 1;
        frontend.push(id, &head, now, net);
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
        if let Some((ask, code)) = client.on_bytes(&bytes, &self.published) {
            let deaths = self.proxies_dead - client.deaths_before;
            self.report.answered += 1;
            self.report.refused += usize::from(code == 502);
            assert!(
                may_be_answered(self.weather, &ask, code, deaths),
                "{ask:?} is answered with {code}, {deaths} deaths"
            );
        }
        if connection != Connection::Open {
            if let Some(ask) = &client.ask {
                let is_late = frontend.is_late(id);
                self.report.cut += 1;
                self.report.held_cut += usize::from(client.begun && ask.is_held() && !is_late);
                let may_be = may_be_cut(self.weather, ask, client.begun) || is_late;
                assert!(may_be, "client {id} is cut off, begun {}: {ask:?}, slow {}", client.begun, client.lazy);
            }
            self.clients.remove(&id);
            moved = true;
        }
        moved
    }

    pub(super) fn hang_up(&mut self, id: u32) {
        if let Some(client) = self.clients.remove(&id)
            && let Some(frontend) = self.frontends.get_mut(&client.frontend)
        {
            frontend.hang_up(id, self.now, &mut self.net);
        }
    }
}

/// Whether a request may be answered with such a status if so many proxies have died meanwhile.
fn may_be_answered(weather: Weather, ask: &Ask, code: u16, deaths: usize) -> bool {
    match weather {
        _ if code == 200 => true,
        Weather::Fair => false,
        Weather::Proxies if code == 502 && deaths > 0 => match ask {
            // Done twice, it may do something else than done once.
            Ask::Upload(_) | Ask::Both(_) => true,
            // The handler may have been giving it back to the proxy.
            Ask::Reliable => true,
            Ask::Plain(_) | Ask::Stream(_) | Ask::Poll(_) => deaths > RETRIES,
        },
        Weather::Proxies => false,
        _ => true,
    }
}

/// Whether the response to a request may be broken off, or never begin.
fn may_be_cut(weather: Weather, ask: &Ask, begun: bool) -> bool {
    match weather {
        Weather::Fair => matches!(ask, Ask::Stream(_)),
        Weather::Proxies => begun,
        _ => true,
    }
}
