// SPDX-License-Identifier: AGPL-3.0-or-later
//! Processes that stop, die and come back.

use std::time::Duration;

use super::{FRONTENDS, World};
use crate::frontend::Frontend;
use crate::handler::Handler;
use crate::net::{Lane, Part};
use crate::outbound::Outbound;
use crate::proxy::Proxy;
use crate::weather::Weather;

/// ms until a proxy that has died is followed by another, at most: less than requests wait for one.
const PROXY_AWAY: usize = 2_000;

impl World {
    pub(super) fn fault(&mut self) {
        let rarity = match self.weather {
            Weather::Proxies | Weather::Successors => 4,
            Weather::Backends => 2,
            _ => 8,
        };
        if !self.random.once_in(rarity) {
            return;
        }
        if self.weather.is_rough() && self.random.once_in(2) {
            return self.backend.misbehave(&mut self.wires, &mut self.random);
        }
        let halts = match self.weather {
            Weather::Fair => return,
            Weather::Halting => true,
            Weather::Deadly => false,
            Weather::Heirs => return self.replace(Part::Handler),
            Weather::Proxies => return self.replace(Part::Proxy),
            Weather::Successors => return self.replace_server(),
            Weather::Backends => return self.replace(Part::Outbound),
            Weather::Stormy => self.random.once_in(2),
        };
        match halts {
            true => {
                let part = self.any_part();
                if self.net.stopped.insert(part) {
                    let time = Duration::from_millis(self.random.below(15_000) as u64);
                    self.stopped_at.insert(part, self.now);
                    self.resumes.insert(part, self.now + time);
                }
            }
            false => {
                let part = self.any_part();
                self.replace(part);
            }
        }
    }

    /// Proxy or handler dies, and perhaps the other one soon after.
    fn replace_server(&mut self) {
        let (first, other) = match self.random.once_in(2) {
            true => (Part::Proxy, Part::Handler),
            false => (Part::Handler, Part::Proxy),
        };
        self.replace(first);
        if self.random.once_in(2) {
            let most = if self.random.once_in(2) { 5 } else { 1_500 };
            self.death_due = Some((other, self.now + Duration::from_millis(self.random.below(most) as u64)));
        }
    }

    /// The second one dies.
    pub(super) fn die_as_due(&mut self) {
        if let Some((part, _)) = self.death_due.take_if(|(_, due)| *due <= self.now) {
            self.replace(part);
        }
    }

    fn any_part(&mut self) -> Part {
        match self.random.below(5) {
            0 => Part::Proxy,
            1 => Part::Handler,
            2 => Part::Outbound,
            _ => Part::Frontend(self.random.below(usize::from(FRONTENDS)) as u8),
        }
    }

    pub(super) fn runs(&self, part: Part) -> bool {
        !self.net.stopped.contains(&part)
    }

    pub(super) fn resume(&mut self, part: Part) {
        self.net.stopped.remove(&part);
        self.resumes.remove(&part);
        self.stopped_at.remove(&part);
    }

    /// Notes what this handler has done.
    pub(super) fn count_handler(&mut self) {
        self.report.closed += self.handler.closed();
        self.report.taken_up += self.handler.taken_up();
    }

    /// Notes what this outbound process has done.
    pub(super) fn count_outbound(&mut self) {
        self.report.reused += self.outbound.counters().reused;
        self.report.repeated += self.outbound.counters().repeated;
        self.report.adopted += self.outbound.counters().adopted;
    }

    /// There is a proxy again.
    pub(super) fn start_proxy(&mut self) {
        self.proxy_due = None;
        let name = format!("proxy_{}", self.births);
        self.births += 1;
        self.proxy = Some(Proxy::new(&name, self.frontends.len(), self.weather.by_router(), self.now));
        self.net.join(Part::Proxy, name.as_bytes());
    }

    /// A server dies with all of its turn on its way, a part of it or nothing. Links are served one after the other.
    fn lose_turn(&mut self, part: Part) {
        match part {
            Part::Handler => match self.random.below(3) {
                0 => self.net.lose_turn(part, |_, _| true),
                1 => self.net.lose_turn(part, |_, lane| lane == Lane::Accept),
                _ => self.net.lose_turn(part, |_, _| false),
            },
            Part::Proxy => {
                let links = [Part::Frontend(0), Part::Frontend(1), Part::Outbound, Part::Handler];
                let served = self.random.below(2 * links.len()).min(links.len());
                self.net.lose_turn(part, |to, _| links[served..].contains(&to));
            }
            _ => {}
        }
    }

    /// A process dies, and another takes its place; that of a proxy after a while.
    fn replace(&mut self, part: Part) {
        if part == Part::Proxy && self.proxy.is_none() {
            return;
        }
        self.births += 1;
        self.report.deaths += 1;
        self.resume(part);
        let (now, number) = (self.now, self.births);
        self.lose_turn(part);
        let is_lost = match part {
            Part::Handler => self.handler.has_untold(&self.net),
            // Nobody says again what a predecessor of the handler has sent, and the proxy has not passed on.
            Part::Proxy => self.deaths.handlers > 0 && !self.handler.has_been_told(),
            _ => false,
        };
        if is_lost {
            self.facts.lose();
        }
        self.net.leave(part, &mut self.random);
        let name = match part {
            Part::Frontend(index) => {
                let name = format!("frontend_{index}_{number}");
                let able = self.weather.is_able(index);
                self.frontends.insert(index, Frontend::new(part, name.as_bytes(), able, false, now));
                self.clients.retain(|_, client| client.frontend != index);
                name
            }
            Part::Proxy => {
                self.may_be_restarted |= self.proxy.take().is_some_and(|proxy| proxy.is_hasty);
                self.deaths.proxies += 1;
                self.proxy_due = Some(now + Duration::from_millis(self.random.below(PROXY_AWAY) as u64));
                return;
            }
            Part::Handler => {
                let name = format!("handler_{number}");
                self.count_handler();
                self.deaths.handlers += 1;
                self.may_be_restarted |= self.handler.is_blind;
                let file = self.handler.file();
                self.handler = Handler::new(name.as_bytes(), self.frontends.len(), &file, false, now);
                self.order.iter_mut().for_each(|order| order.is_given = false);
                name
            }
            Part::Outbound => {
                let name = format!("outbound_{number}");
                self.count_outbound();
                self.deaths.outbounds += 1;
                self.wires.close_all();
                self.outbound = Outbound::new(&name, now);
                name
            }
        };
        self.net.join(part, name.as_bytes());
    }
}
