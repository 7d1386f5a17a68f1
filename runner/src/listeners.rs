// SPDX-License-Identifier: AGPL-3.0-or-later
//! The sockets that the outside world connects to.
//!
//! The runner keeps them open for as long as it runs. While a process that serves one is away, connections wait in the
//! kernel's queue instead of being refused.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{getsockopt, sockopt};
use process::inherit::{self, ListenError};
use process::local::{self, LocalError, LocalFile};
use settings::{LocalPort, Part, Port, Settings};

use crate::service::{Program, Service};

/// No socket to listen on, or none that can be.
#[derive(Debug, thiserror::Error)]
pub enum ListenersError {
    /// Nothing is configured.
    #[error("no server ports configured; set http_port, https_ports or local_ports in [runner], or use --port")]
    NoPorts,
    /// Nothing is configured that a frontend of Pushpin's could serve.
    #[error("no server ports configured; set http_port or https_ports in [runner], or use --port")]
    NoPortsForOthers,
    /// One cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The same for a Unix socket.
    #[error(transparent)]
    Local(#[from] LocalError),
}

/// All sockets, by the process that they belong to.
#[derive(Debug)]
pub struct Listeners {
    frontends: Vec<Vec<Listener>>,
    handler: Vec<Listener>,
    /// Files of Unix sockets, removed at the end.
    files: Vec<LocalFile>,
}

/// One listening socket.
#[derive(Debug)]
pub struct Listener {
    usage: &'static str,
    /// An address, or the path of a Unix socket.
    name: String,
    /// Several frontends have the same Unix socket.
    socket: Arc<OwnedFd>,
}

/// Sockets that are open already, each with the process that it is for (`pushpin-frontend-1`), its use and its address
/// (`http:127.0.0.1:7999`).
#[derive(Debug, Default)]
pub struct Given(Vec<(String, String, OwnedFd)>);

impl Given {
    /// One more.
    pub fn add(&mut self, process: &str, socket: &str, fd: OwnedFd) {
        self.0.push((process.into(), socket.into(), fd));
    }

    /// Those of these services that can not be used: nobody wants them, or they were opened in another way. They are dropped, and their
    /// processes and names come back.
    pub fn drop_unusable(&mut self, settings: &Settings, services: &[Service]) -> Vec<(String, String)> {
        let is_wanted = |process: &str, socket: &str| {
            let service =
                services.iter().find(|service| service.file_name == process && service.program == Program::Own);
            service.is_some_and(|service| names(settings, service.part).contains(socket))
        };
        let shared = settings.runner.frontend_processes > 1;
        let is_shared = |fd: &OwnedFd| getsockopt(fd, sockopt::ReusePort).unwrap_or_default();
        let is_right = |process: &str, socket: &str, fd: &OwnedFd| {
            let is_tcp = [inherit::HTTP, inherit::HTTPS].iter().any(|usage| socket.starts_with(&format!("{usage}:")));
            is_wanted(process, socket) && (!is_tcp || is_shared(fd) == shared)
        };
        let all = std::mem::take(&mut self.0);
        let (kept, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(process, socket, fd)| is_right(process, socket, fd));
        self.0 = kept;
        others.into_iter().map(|(process, socket, _)| (process, socket)).collect()
    }

    fn take(&mut self, is_it: impl Fn(&str, &str) -> bool) -> Option<OwnedFd> {
        let at = self.0.iter().position(|(process, socket, _)| is_it(process, socket))?;
        Some(self.0.swap_remove(at).2)
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(_, socket, _)| socket == name)
    }
}

/// Name of the socket of this use and address.
fn socket_name(usage: &str, name: &dyn std::fmt::Display) -> String {
    format!("{usage}:{name}")
}

/// Names of the sockets of a process of ours.
pub fn names(settings: &Settings, part: Part) -> BTreeSet<String> {
    let runner = &settings.runner;
    match part {
        Part::Frontend => {
            let ports =
                |usage, ports: &[Port]| ports.iter().map(|port| socket_name(usage, &port.address)).collect::<Vec<_>>();
            let local = runner.local_ports.iter().map(|port| socket_name(inherit::LOCAL, &port.path.display()));
            let tls = ports(inherit::HTTPS, &runner.https_ports);
            ports(inherit::HTTP, &runner.http_ports).into_iter().chain(tls).chain(local).collect()
        }
        Part::Handler => {
            let publish = settings.handler.push_in_http.map(|address| socket_name(inherit::PUBLISH, &address));
            let operator = socket_name(inherit::OPERATOR, &operator_socket(settings).display());
            publish.into_iter().chain([operator]).collect()
        }
        Part::Proxy | Part::Outbound => BTreeSet::new(),
    }
}

impl Listeners {
    /// Opens the TCP sockets of those parts of ours that will be started, but for those that are given: where nobody accepts, callers
    /// must be refused, and programs of others open theirs.
    pub fn open(settings: &Settings, given: &mut Given) -> Result<Self, ListenersError> {
        let starts = |part| settings.runner.own_parts().any(|own| own == part);
        let has_ports = !settings.runner.http_ports.is_empty() || !settings.runner.https_ports.is_empty();
        // Condure takes port 8000 on all addresses if it is told of none.
        if !starts(Part::Frontend) && !has_ports && settings.runner.parts.contains(&Part::Frontend) {
            return Err(ListenersError::NoPortsForOthers);
        }
        let frontends = if starts(Part::Frontend) { Self::of_frontends(settings, given)? } else { Vec::new() };
        let publish = settings.handler.push_in_http.filter(|_| starts(Part::Handler));
        let open = |address| Listener::open(Part::Handler.program(), inherit::PUBLISH, address, false, given);
        Ok(Self { frontends, handler: publish.into_iter().map(open).collect::<Result<_, _>>()?, files: Vec::new() })
    }

    /// Several frontends get a socket each on the same address, over which the kernel spreads connections. One socket for all
    /// of them would wake all of them for each connection, and favour some.
    fn of_frontends(settings: &Settings, given: &mut Given) -> Result<Vec<Vec<Listener>>, ListenersError> {
        let runner = &settings.runner;
        let uses = [(inherit::HTTP, &runner.http_ports), (inherit::HTTPS, &runner.https_ports)];
        let all = uses.iter().flat_map(|(usage, ports)| ports.iter().map(|port| (*usage, port.address)));
        let ports: Vec<_> = all.collect();
        if ports.is_empty() && runner.local_ports.is_empty() {
            return Err(ListenersError::NoPorts);
        }
        let count = settings.runner.frontend_processes;
        if count > 1 {
            // Shared sockets do not mind another program's shared ones. An exclusive one tells whether there are any.
            for (usage, port) in &ports {
                if !given.has(&socket_name(usage, port)) {
                    inherit::open(*port, false)?;
                }
            }
        }
        let mut all = Vec::new();
        for number in 0..count {
            let process = Part::Frontend.file_name(number);
            let mut open = |(usage, address): &(&'static str, SocketAddr)| {
                Listener::open(&process, usage, *address, count > 1, given)
            };
            all.push(ports.iter().map(&mut open).collect::<Result<_, _>>()?);
        }
        Ok(all)
    }

    /// Opens the Unix sockets, when the run directory is there and is ours. For clients, several frontends share them: the kernel
    /// can not spread connections over several sockets with one path.
    ///
    /// # Errors
    /// One cannot be opened.
    pub fn open_local(&mut self, settings: &Settings, given: &mut Given) -> Result<(), LocalError> {
        let has_handler = settings.runner.own_parts().any(|own| own == Part::Handler);
        if has_handler {
            let path = operator_socket(settings);
            let name = path.display().to_string();
            let port = LocalPort { path, mode: Some(0o600), user: None, group: None, proxied: false };
            let (socket, file) = open_local(&port, inherit::OPERATOR, given)?;
            self.files.push(file);
            self.handler.push(Listener { usage: inherit::OPERATOR, name, socket: Arc::new(socket) });
        }
        if self.frontends.is_empty() {
            return Ok(());
        }
        for port in &settings.runner.local_ports {
            let (socket, file) = open_local(port, inherit::LOCAL, given)?;
            self.files.push(file);
            let socket = Arc::new(socket);
            for listeners in &mut self.frontends {
                let name = port.path.display().to_string();
                listeners.push(Listener { usage: inherit::LOCAL, name, socket: socket.clone() });
            }
        }
        Ok(())
    }

    /// Where clients can connect.
    pub fn client_addresses(&self) -> impl Iterator<Item = &str> {
        self.frontend(0).iter().map(|listener| &*listener.name)
    }

    /// Those of frontend process `number`.
    pub fn frontend(&self, number: usize) -> &[Listener] {
        self.frontends.get(number).map_or(&[], Vec::as_slice)
    }

    /// The TCP sockets, each with the process that it is for and its name.
    pub fn tcp(&self) -> impl Iterator<Item = (String, String, BorrowedFd<'_>)> {
        let frontends = self.frontends.iter().enumerate().map(|(number, of)| (Part::Frontend.file_name(number), of));
        let all = frontends.chain([(Part::Handler.program().to_string(), &self.handler)]);
        let tcp = all.flat_map(|(process, of)| of.iter().map(move |listener| (process.clone(), listener)));
        let tcp = tcp.filter(|(_, listener)| ![inherit::LOCAL, inherit::OPERATOR].contains(&listener.usage));
        tcp.map(|(process, listener)| (process, socket_name(listener.usage, &listener.name), listener.socket.as_fd()))
    }

    /// Those of the handler.
    pub fn handler(&self) -> &[Listener] {
        &self.handler
    }

    /// Those that this process serves.
    pub fn of(&self, service: &Service) -> &[Listener] {
        match service.part {
            _ if service.program != Program::Own => &[],
            Part::Frontend => self.frontend(service.number),
            Part::Handler => self.handler(),
            Part::Outbound | Part::Proxy => &[],
        }
    }

    /// Where clients and publishers find it.
    pub fn places(&self, service: &Service, settings: &Settings) -> Vec<String> {
        let (runner, handler) = (&settings.runner, &settings.handler);
        match service.part {
            Part::Frontend if service.program == Program::Own => {
                self.of(service).iter().map(|listener| listener.name.clone()).collect()
            }
            Part::Frontend => {
                let ports = runner.http_ports.iter().chain(&runner.https_ports);
                ports.map(|port| port.address.to_string()).collect()
            }
            Part::Handler => {
                let http = handler.push_in_http.map(|address| format!("http://{address}"));
                let subscribed = handler.push_in_sub_specs.iter().filter(|_| !handler.push_in_sub_connect).take(1);
                let zmq = handler.push_in_spec.iter().chain(subscribed).chain(&handler.command_spec);
                http.into_iter().chain(zmq.cloned()).collect()
            }
            Part::Proxy | Part::Outbound => Vec::new(),
        }
    }
}

impl Listener {
    /// Its address, or the path of a Unix socket.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn open(
        process: &str,
        usage: &'static str,
        address: SocketAddr,
        shared: bool,
        given: &mut Given,
    ) -> Result<Self, ListenError> {
        let wanted = socket_name(usage, &address);
        let socket = match given.take(|of, socket| of == process && socket == wanted) {
            Some(socket) => socket,
            None => inherit::open(address, shared)?.into(),
        };
        Ok(Self { usage, name: address.to_string(), socket: Arc::new(socket) })
    }
}

/// A Unix socket with its file. Several processes may have copies of one that is given.
fn open_local(port: &LocalPort, usage: &str, given: &mut Given) -> Result<(OwnedFd, LocalFile), LocalError> {
    let wanted = socket_name(usage, &port.path.display());
    match given.take(|_, socket| socket == wanted) {
        Some(socket) => Ok((socket, LocalFile::of(&port.path))),
        None => local::open(port).map(|(socket, file)| (socket.into(), file)),
    }
}

/// Where the handler is asked for those who look at the suite live.
pub fn operator_socket(settings: &Settings) -> PathBuf {
    settings.global.rundir.join(format!("{}operator", settings.global.ipc_prefix))
}

/// Sockets that a process started now keeps open. Dropping it closes them again for processes started later, which would
/// otherwise hold ports that are none of theirs.
#[derive(Debug)]
pub struct Passed<'a>(&'a [Listener]);

impl<'a> Passed<'a> {
    /// Leaves `listeners` open to the next process.
    pub fn new(listeners: &'a [Listener]) -> std::io::Result<Self> {
        let passed = Self(listeners);
        passed.set(FdFlag::empty())?;
        Ok(passed)
    }

    fn set(&self, flag: FdFlag) -> std::io::Result<()> {
        for listener in self.0 {
            fcntl(listener.socket.as_fd(), FcntlArg::F_SETFD(flag))?;
        }
        Ok(())
    }

    /// What the process is told about them.
    pub fn variable(&self) -> String {
        let name = |l: &Listener| format!("{}:{}:{}", l.socket.as_raw_fd(), l.usage, l.name);
        self.0.iter().map(name).collect::<Vec<_>>().join(",")
    }
}

impl Drop for Passed<'_> {
    fn drop(&mut self) {
        // Cannot fail for a descriptor that is open.
        let _ = self.set(FdFlag::FD_CLOEXEC);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use settings::{Origin, Source};

    #[test]
    fn nobody_listens_for_a_part_that_is_not_started() {
        let text = "[runner]\nservices=proxy\nhttp_port=127.0.0.1:1\n[handler]\npush_in_http_port=2\n";
        let source = Source { origin: Origin::Text(text.into()), ..Source::default() };
        let listeners = Listeners::open(&Settings::load(&source).unwrap().0, &mut Given::default()).unwrap();
        assert_eq!(listeners.client_addresses().count() + listeners.handler().len(), 0);
    }
}
