// SPDX-License-Identifier: AGPL-3.0-or-later
//! `pushpin-frontend`: the HTTP server that clients connect to.
//!
//! Requests come from clients over TCP and leave as ZHTTP sessions for any proxy; responses come back from whoever has
//! the session, proxy or handler, and leave as HTTP/1.1.
//!
//! # Layout
//! - [`accept`]: listening sockets and the limit of clients.
//! - [`client`]: one client: transport, output, deadlines, and when to read, pause and close.
//! - [`http1`]: what a client sends becomes exchanges, what servers send becomes its output.
//! - [`exchange`]: one request and its response, as a ZHTTP session; their table.
//! - [`keep`]: what is kept for servers, so that their successors can go on; [`departure`]: servers that have gone.
//! - [`transplant`]: clients move to the process that replaces this one.
//! - [`uplink`]: the way of packets to proxy and handler.
//! - [`worker`]: the loop that joins them with sockets and clock. Only it asks for the time, and what is not a socket
//!   itself (`accept::listeners`, `client::io`, the sockets in `uplink`) does no I/O.

#![forbid(unsafe_code)]

pub mod accept;
pub mod client;
pub mod context;
pub mod departure;
pub mod exchange;
pub mod http1;
pub mod keep;
pub mod replay;
pub mod transplant;
pub mod uplink;
pub mod websocket;
pub mod worker;

use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use certificates::Certificates;
use metrics::catalogue::CERTIFICATE_EXPIRY;
use mio::unix::SourceFd;
use mio::{Interest, Token};
use nix::sys::resource::{Resource, getrlimit};
use process::{Component, Failure, Signal, Started, inherit, instance_id, local, log};
use settings::{Port, Settings};
use wire::http1::Limits;
use wire::request_id::RequestIds;

use crate::accept::listeners::Terms;
use crate::accept::tickets::{Chain, Keys};
use crate::accept::{Admission, Listeners};
use crate::client::deadlines::Deadlines;
use crate::context::Config;
use crate::worker::{Specs, Worker};

/// What `--help` says.
pub const COMPONENT: Component = Component {
    name: "pushpin-frontend",
    about: "HTTP server: passes requests of clients on to pushpin-proxy, and responses and pushed data back to them",
    help: "Listens on http_port of [runner], or on the sockets that pushpin-runner has opened for it. Binds the sockets \
           frontend-out, frontend-out-stream and frontend-in in the run directory, to which proxy and handler connect.\n\n\
           Example: pushpin-frontend --config=/etc/pushpin/pushpin.conf",
    routes: false,
    several: true,
};

/// Certificates whose ends are told: there may be thousands, and the next to expire are what matters.
const MAX_EXPIRIES: usize = 100;
/// Token of the signals' descriptor; listeners are below it and the next.
const SIGNALS: usize = worker::FIRST_CLIENT - 1;
/// Token of the descriptor that says when to tell the runner how we are.
const REPORT: usize = worker::FIRST_CLIENT - 2;

/// Runs the program.
pub fn main() -> ExitCode {
    process::run(&COMPONENT, mistakes, serve)
}

/// What in the files that it reads would keep it from its work: ports with TLS without a certificate.
pub fn mistakes(settings: &Settings) -> Vec<String> {
    let certificates = Certificates::new(&settings.frontend.certificates);
    let ports = settings.frontend.https_ports.iter().map(|port| port.address.port());
    ports.filter_map(|port| certificates.for_port(port).err()).map(|error| error.to_string()).collect()
}

fn serve(mut started: Started) -> Result<(), Failure> {
    let settings = &started.settings.frontend;
    let specs = settings.processes.get(started.process).ok_or_else(|| {
        let count = settings.processes.len();
        format!(
            "there is no frontend process {}: frontend_processes is {count}, and they count from 0",
            started.process
        )
    })?;
    let mut listeners = Listeners::default();
    for &Port { address, proxied } in &settings.http_ports {
        listeners.add(inherit::listen(inherit::HTTP, address)?, Terms { tls: None, proxied })?;
        tracing::info!("listening on {address}");
    }
    let certificates = Certificates::new(&settings.certificates);
    let chain = started.secret.as_deref().and_then(Chain::from_bytes);
    let chain = chain.map_or_else(|| Chain::new(SystemTime::now()), Ok);
    let tickets = chain.and_then(Keys::new).map_err(|_| "TLS: the system has no random numbers for keys")?;
    for &Port { address, proxied } in &settings.https_ports {
        let mut tls = certificates.for_port(address.port()).map_err(|error| error.to_string())?;
        tls.ticketer = tickets.for_port(address.port());
        let tls = Arc::new(tls);
        listeners.add(inherit::listen(inherit::HTTPS, address)?, Terms { tls: Some(tls), proxied })?;
        tracing::info!("listening on {address} with TLS");
    }
    // Removed at the end; none if the runner has them.
    let mut files = Vec::new();
    for port in &settings.local_ports {
        let socket = match inherit::local(&port.path) {
            Some(socket) => socket,
            None => {
                let (socket, file) = local::open(port).map_err(|error| format!("local_ports: {error}"))?;
                files.push(file);
                socket
            }
        };
        listeners.add_local(socket, Terms { tls: None, proxied: port.proxied })?;
        tracing::info!("listening on {}", port.path.display());
    }
    let config = Config {
        head: Limits { head_bytes: settings.client_buffer_size, ..Limits::default() },
        window: u32::try_from(settings.client_send_window).unwrap_or(u32::MAX),
        router_resp: false,
        compression: settings.allow_compression,
        max_message: match settings.client_max_message_size {
            0 => u64::MAX,
            max => max,
        },
        recover_wait: settings.recover_wait,
        recover_memory: settings.recover_memory,
        deadlines: Deadlines {
            head: settings.client_header_timeout,
            body: settings.client_body_timeout,
            write: settings.client_send_timeout,
            min_rate: settings.client_min_rate,
            idle: settings.client_idle_timeout,
            linger: settings.client_linger_time,
            linger_quiet: settings.client_linger_timeout,
        },
    };
    let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| format!("limit of open files: {error}"))?;
    let admission = Admission::new(settings.client_maxconn, usize::try_from(files).unwrap_or(usize::MAX));
    if let Some(warning) = admission.warning(settings.client_maxconn) {
        tracing::warn!("{warning}");
    }
    let specs = Specs {
        instance: instance_id("frontend"),
        out: specs.out.clone(),
        out_stream: specs.out_stream.clone(),
        responses: specs.input.clone(),
        options: process::zmq::options(&settings.zmq),
    };
    let replay =
        replay::Terms { wait: settings.replay_wait, body: settings.replay_body, memory: settings.replay_memory };
    // As random as the keys of a map.
    let seed = RandomState::new().hash_one(&specs.instance);
    let names = || settings.request_ids.then(|| RequestIds::new(seed));
    let door = transplant::door(&specs.out).filter(|_| specs.are_local() && settings.move_clients);
    let successor = door.as_deref().filter(|_| started.is_successor);
    let succeed = |door| Worker::succeed(door, &specs, admission.clone(), config.clone(), replay, names());
    let mut worker = match successor.map(succeed) {
        Some(Ok(mut worker)) => {
            tracing::info!("{} clients of the predecessor are here", worker.clients());
            worker.listen(listeners)?;
            worker
        }
        other => {
            if let Some(Err(error)) = other {
                tracing::warn!("clients of the predecessor stay there, until it is drained: {error}");
            }
            let mut worker = Worker::new(&specs, listeners, admission, config, replay, names())?;
            if let Some(door) = door
                && let Err(error) = worker.open_door(door)
            {
                tracing::warn!("clients will not be able to move to a successor: {error}");
            }
            worker
        }
    };
    let fd = started.signals.as_raw_fd();
    worker.registry().register(&mut SourceFd(&fd), Token(SIGNALS), Interest::READABLE)?;
    let mut reporter = started.ready.tell()?;
    if let Some(fd) = reporter.descriptor() {
        worker.registry().register(&mut SourceFd(&fd), Token(REPORT), Interest::READABLE)?;
    }
    let mut ready = Vec::new();
    let mut stop = false;
    while !stop {
        let (mut report, mut signalled) = (false, false);
        worker.turn(&mut ready, |token| match token {
            REPORT => report = true,
            _ => signalled = true,
        })?;
        while signalled && let Some(signal) = started.signals.take() {
            match signal {
                Signal::Stop => stop = true,
                Signal::Reload => {
                    log::reopen();
                    worker.go_on();
                }
                Signal::GiveWay => worker.give_way(started.settings.frontend.drain_timeout, Instant::now()),
            }
        }
        worker.give_to_heir(started.settings.frontend.drain_timeout);
        stop |= worker.is_drained(Instant::now());
        if report {
            reporter.attend(|page| {
                worker.measure(page);
                for (name, time) in certificates.expiries(MAX_EXPIRIES) {
                    page.add(&CERTIFICATE_EXPIRY, &[&name], time);
                }
            });
        }
    }
    if let Some(count) = worker.ended_for_successor() {
        let moved = worker.counters().moved;
        tracing::info!("a successor serves: {moved} clients have moved to it, and {count} clients have been ended");
    }
    tracing::info!("stopping...");
    tracing::debug!("{:?}", worker.counters());
    worker.shut_down();
    Ok(())
}
