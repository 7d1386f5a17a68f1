// SPDX-License-Identifier: AGPL-3.0-or-later
//! Backends that speak ZHTTP themselves, on sockets that the proxy binds for them (proxy, targets `zhttp/` and `zhttpreq/`).

use std::collections::HashMap;

use routes::{Table, TargetKind};
use transport::{Context, Dealer, Options, Push, Reactor, Router, Subscriber};

/// Numbers of their sockets in the reactor begin here; four for each.
pub(super) const FIRST: usize = 64;
/// Numbers of sockets of one backend.
const EACH: usize = 4;
/// Backends whose names are remembered. Each restart of one makes another name.
const MAX_NAMES: usize = 10_000;

/// What has come on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Responses of a backend that streams.
    Responses(usize),
    /// Its coming and going.
    Stream(usize),
    /// Answers to whole requests.
    Answers(usize),
}

/// The sockets of a backend that streams.
pub(super) struct Streaming {
    spec: String,
    out: Push,
    pub(super) stream: Router,
    pub(super) responses: Subscriber,
}

/// All of them. Sockets stay open when the routes do not name them any more: what is under way goes on.
pub(super) struct ZmqBackends {
    context: Context,
    instance: String,
    options: Options,
    pub(super) streaming: Vec<Streaming>,
    pub(super) asked: Vec<(String, Dealer)>,
    /// By the name of an instance: which of `streaming` it is at.
    names: HashMap<Vec<u8>, usize>,
}

impl ZmqBackends {
    pub(super) fn new(context: Context, instance: &str, options: Options) -> Self {
        let instance = instance.to_owned();
        ZmqBackends { context, instance, options, streaming: Vec::new(), asked: Vec::new(), names: HashMap::new() }
    }

    /// Opens the sockets that the routes name and that are not open yet. What can not be opened is said, and the others are.
    pub(super) fn open(&mut self, routes: &Table, reactor: &mut Reactor) {
        for target in routes.iter().flat_map(|route| &route.targets) {
            let options =
                Options { file_mode: target.ipc_file_mode.or(self.options.file_mode), ..self.options.clone() };
            let opened = match &target.kind {
                TargetKind::Zhttp { spec } if self.streaming.iter().all(|known| known.spec != *spec) => {
                    self.open_streaming(spec, &options, reactor)
                }
                TargetKind::ZhttpRequest { spec } if self.asked.iter().all(|(known, _)| known != spec) => {
                    self.open_asked(spec, &options, reactor)
                }
                _ => Ok(()),
            };
            if let Err(error) = opened {
                tracing::error!("a ZeroMQ target of the routes can not be used: {error}");
            }
        }
    }

    fn open_streaming(&mut self, spec: &str, options: &Options, reactor: &mut Reactor) -> Result<(), transport::Error> {
        let [out, stream, responses] = specs(spec);
        let named = options.clone().named(&self.instance);
        let brief = Options { linger: 0, ..options.clone() };
        let backend = Streaming {
            spec: spec.to_owned(),
            out: Push::bind(&self.context, &out, &brief)?,
            stream: Router::bind(&self.context, &stream, &named)?,
            responses: Subscriber::bind(&self.context, &responses, options)?,
        };
        backend.responses.subscribe_instance(&self.instance)?;
        let first = FIRST + EACH * self.streaming.len();
        reactor.add(first, &backend.out)?;
        reactor.add(first + 1, &backend.stream)?;
        reactor.add(first + 2, &backend.responses)?;
        self.streaming.push(backend);
        Ok(())
    }

    fn open_asked(&mut self, spec: &str, options: &Options, reactor: &mut Reactor) -> Result<(), transport::Error> {
        let dealer = Dealer::bind(&self.context, spec, &Options { linger: 0, ..options.clone() })?;
        reactor.add(FIRST + EACH * self.asked.len() + 3, &dealer)?;
        self.asked.push((spec.to_owned(), dealer));
        Ok(())
    }

    /// What the socket with this number is.
    pub(super) fn source(&self, number: usize) -> Option<Source> {
        let number = number.checked_sub(FIRST)?;
        let index = number / EACH;
        match number % EACH {
            1 => Some(Source::Stream(index)),
            2 => Some(Source::Responses(index)),
            3 => Some(Source::Answers(index)),
            _ => None,
        }
    }

    /// Sends the first packet of a session to one that streams. `false` if there is nobody to take it.
    pub(super) fn begin(&self, spec: &str, packet: &[u8]) -> bool {
        let known = self.streaming.iter().find(|known| known.spec == spec);
        known.is_some_and(|backend| backend.out.send(packet).is_ok())
    }

    /// Sends a whole request. `false` if there is nobody to take it.
    pub(super) fn ask(&self, spec: &str, packet: &[u8]) -> bool {
        let known = self.asked.iter().find(|(known, _)| known == spec);
        known.is_some_and(|(_, dealer)| dealer.send(packet).is_ok())
    }

    /// The way to an instance, if it is one of these backends.
    pub(super) fn router_to(&self, name: &[u8]) -> Option<&Router> {
        if self.names.is_empty() {
            return None;
        }
        self.names.get(name).and_then(|index| self.streaming.get(*index)).map(|backend| &backend.stream)
    }

    /// An instance has answered.
    pub(super) fn learn(&mut self, index: usize, name: &[u8]) {
        if !name.is_empty() && !self.names.contains_key(name) && self.names.len() < MAX_NAMES {
            self.names.insert(name.to_vec(), index);
        }
    }

    /// An instance is gone.
    pub(super) fn forget(&mut self, name: &[u8]) {
        self.names.remove(name);
    }
}

/// The three addresses of a backend that streams: of a port and the next two, or of names with endings.
fn specs(spec: &str) -> [String; 3] {
    let port = spec.rsplit_once(':').filter(|_| !spec.starts_with("ipc:")).and_then(|(host, port)| {
        let port: u16 = port.parse().ok()?;
        Some((host, [port, port.checked_add(1)?, port.checked_add(2)?]))
    });
    match port {
        Some((host, ports)) => ports.map(|port| format!("{host}:{port}")),
        None => ["-out", "-out-stream", "-in"].map(|ending| format!("{spec}{ending}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn ports_are_counted_and_names_have_endings() {
        assert_eq!(
            specs("tcp://127.0.0.1:7000"),
            ["tcp://127.0.0.1:7000", "tcp://127.0.0.1:7001", "tcp://127.0.0.1:7002"]
        );
        assert_eq!(specs("ipc:///run/x"), ["ipc:///run/x-out", "ipc:///run/x-out-stream", "ipc:///run/x-in"]);
        assert_eq!(specs("ipc://x:1"), ["ipc://x:1-out", "ipc://x:1-out-stream", "ipc://x:1-in"]);
    }

    #[test]
    fn socket_files_have_the_mode_of_their_target_or_else_that_of_all() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("{}/{name}", directory.path().display());
        let routes = format!(
            "* zhttp/ipc://{0},ipc_file_mode=666 zhttpreq/ipc://{1},ipc_file_mode=660 zhttpreq/ipc://{2}",
            at("a"),
            at("b"),
            at("c")
        );
        let (table, problems) = Table::parse(routes.as_bytes(), "routes", &());
        assert!(problems.is_empty(), "{problems:?}");
        let options = Options { file_mode: Some(0o640), ..Options::default() };
        let mut backends = ZmqBackends::new(Context::new(), "i", options);
        backends.open(&table, &mut Reactor::new().unwrap());
        let mode = |name| std::fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
        let modes = ["a-out", "a-out-stream", "a-in", "b", "c"].map(mode);
        assert_eq!(modes, [0o666, 0o666, 0o666, 0o660, 0o640]);
    }
}
