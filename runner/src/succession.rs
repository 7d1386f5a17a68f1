// SPDX-License-Identifier: AGPL-3.0-or-later
//! What becomes of the processes that a former runner has left behind: which of them this one goes on with. No I/O.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros)]

use std::collections::BTreeSet;

use process::adoption::About;

/// A service of this runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `pushpin-proxy`, `pushpin-frontend-1`.
    pub name: String,
    /// The command line with which it would be started.
    pub arguments: Vec<String>,
    /// Where it is to listen: `http:127.0.0.1:7999`.
    pub sockets: BTreeSet<String>,
    /// Whether a predecessor may finish its work beside it.
    pub beside: bool,
}

/// What becomes of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lot {
    /// It does not fit, and has to end before anything is started.
    End,
    /// It goes on as this service.
    GoOn {
        /// Which one.
        service: usize,
        /// Its configuration is another one: it has to be replaced when all serve.
        outdated: bool,
    },
    /// It finishes its work as a predecessor in this service.
    Leave {
        /// Which one.
        service: usize,
    },
}

/// What becomes of each of those that were found and have said this of themselves, for these services and the configuration that
/// would be handed down. `fits` says whether another configuration agrees with it in what all processes must agree on.
pub fn decide(
    found: &[Option<&About>],
    wanted: &[Wanted],
    handed_down: &[u8],
    fits: impl Fn(&[u8]) -> bool,
) -> Vec<Lot> {
    let service_of = |about: &About| {
        let service = wanted.iter().position(|service| service.name == about.name)?;
        let listens: BTreeSet<_> = about.sockets.iter().cloned().collect();
        let has_its_sockets = about.leaving || listens == wanted[service].sockets;
        (!about.ending && has_its_sockets && fits(&about.handed_down)).then_some(service)
    };
    let services: Vec<_> = found.iter().map(|about| about.and_then(service_of)).collect();
    let newest = |service: usize| {
        let own = found.iter().zip(&services).enumerate().filter(|(_, (_, of))| **of == Some(service));
        let own = own.filter_map(|(index, (about, _))| Some((about.filter(|about| !about.leaving)?.since, index)));
        own.max().map(|(_, index)| index)
    };
    let lot = |(index, (about, service)): (usize, (&Option<&About>, &Option<usize>))| {
        let (Some(about), Some(service)) = (*about, *service) else { return Lot::End };
        if newest(service) == Some(index) {
            // A secret may follow what is handed down.
            let outdated = !about.handed_down.starts_with(handed_down) || about.arguments != wanted[service].arguments;
            return Lot::GoOn { service, outdated };
        }
        if wanted[service].beside { Lot::Leave { service } } else { Lot::End }
    };
    found.iter().zip(&services).enumerate().map(lot).collect()
}

#[cfg(test)]
mod tests {
    use process::adoption::PROTOCOL;

    use super::*;

    const CONFIGURATION: &[u8] = b"3:abc,";

    fn wanted() -> [Wanted; 2] {
        let service = |name: &str, sockets: &[&str], beside| Wanted {
            name: name.into(),
            arguments: vec!["--config=p".into()],
            sockets: sockets.iter().map(|socket| socket.to_string()).collect(),
            beside,
        };
        [service("pushpin-frontend", &["http:127.0.0.1:1"], true), service("pushpin-proxy", &[], false)]
    }

    fn about(name: &str, since: u64) -> About {
        About {
            protocol: PROTOCOL,
            name: name.into(),
            since,
            arguments: vec!["--config=p".into()],
            handed_down: CONFIGURATION.to_vec(),
            leaving: false,
            ending: false,
            sockets: if name == "pushpin-frontend" { vec!["http:127.0.0.1:1".into()] } else { Vec::new() },
        }
    }

    fn lots(found: &[Option<&About>]) -> Vec<Lot> {
        decide(found, &wanted(), CONFIGURATION, |other| other != b"another structure")
    }

    #[test]
    fn those_that_fit_go_on() {
        let (mut frontend, proxy) = (about("pushpin-frontend", 1), about("pushpin-proxy", 1));
        frontend.handed_down.extend(b"6:secret,");
        let expected = [Lot::GoOn { service: 1, outdated: false }, Lot::GoOn { service: 0, outdated: false }];
        assert_eq!(lots(&[Some(&proxy), Some(&frontend)]), expected);
        assert_eq!(lots(&[]), []);
    }

    #[test]
    fn another_configuration_or_command_line_is_replaced_later() {
        let (mut first, mut second) = (about("pushpin-frontend", 1), about("pushpin-proxy", 1));
        first.handed_down = b"3:xyz,".to_vec();
        second.arguments.push("--loglevel=3".into());
        let expected = [Lot::GoOn { service: 0, outdated: true }, Lot::GoOn { service: 1, outdated: true }];
        assert_eq!(lots(&[Some(&first), Some(&second)]), expected);
    }

    #[test]
    fn what_does_not_fit_ends() {
        let mut changed = std::array::from_fn::<_, 4, _>(|_| about("pushpin-frontend", 1));
        changed[0].handed_down = b"another structure".to_vec();
        changed[1].ending = true;
        changed[2].sockets = vec!["http:127.0.0.1:2".into()];
        changed[3].name = "pushpin-frontend-1".into();
        for about in &changed {
            assert_eq!(lots(&[Some(about)]), [Lot::End], "{about:?}");
        }
        assert_eq!(lots(&[None]), [Lot::End]);
    }

    #[test]
    fn of_several_the_newest_goes_on_and_only_frontends_finish_their_work() {
        let [first, second, mut third] = [1, 3, 2].map(|since| about("pushpin-frontend", since));
        (third.leaving, third.sockets) = (true, Vec::new());
        let leave = Lot::Leave { service: 0 };
        let expected = [leave, Lot::GoOn { service: 0, outdated: false }, leave];
        assert_eq!(lots(&[Some(&first), Some(&second), Some(&third)]), expected);
        // The one that came after it may have died.
        assert_eq!(lots(&[Some(&third)]), [leave]);
        let [first, second] = [1, 2].map(|since| about("pushpin-proxy", since));
        assert_eq!(lots(&[Some(&first), Some(&second)]), [Lot::End, Lot::GoOn { service: 1, outdated: false }]);
    }
}
