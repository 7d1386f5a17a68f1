// SPDX-License-Identifier: AGPL-3.0-or-later
//! `pushpin-handler`: holds clients and gives them what is published.
//!
//! Requests to hold come from the proxy with the backend's instruct, items from publishers over ZeroMQ and HTTP. Held
//! clients are reached through their frontends directly.
//!
//! # Layout, along the way of the data
//! - [`publish`]: where items come in, beside the ZeroMQ sockets.
//! - [`order`]: in which order they leave, and how fast if that is limited.
//! - [`subscribe`]: who is held for which channels.
//! - [`take_over`]: what the proxy hands over; [`hold`]: held requests, and what their backends want.
//! - [`websocket`]: WebSockets, of which the proxy tells.
//! - [`cohort`]: holds that ask their backend again, together; [`fetch`]: what the handler itself asks backends.
//! - [`deliver`]: from an item to packets. [`engine`] joins all this, without I/O.
//! - [`statistics`]: what listeners are told of all this.
//! - [`worker`]: sockets, clock and timers.

#![forbid(unsafe_code)]

pub mod cohort;
pub mod context;
pub mod deliver;
pub mod engine;
pub mod fetch;
pub mod hold;
pub mod links;
pub mod notice;
pub mod order;
pub mod publish;
pub mod statistics;
pub mod subscribe;
pub mod tables;
pub mod take_over;
pub mod websocket;
pub mod worker;

use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::PoisonError;

use certificates::Certificates;
use mio::unix::SourceFd;
use mio::{Interest, Token};
use process::{Component, Failure, Started, inherit, instance_id};
use settings::Settings;

use crate::publish::http::authorization::Gate;
use crate::publish::http::health::Health;
use crate::publish::http::stream::Listener;
use crate::publish::http::{Entrance, Limits};
use crate::worker::Worker;

/// What `--help` says.
pub const COMPONENT: Component = Component {
    name: "pushpin-handler",
    about: "Holds clients and delivers what is published to the channels that they are subscribed to",
    help: "Takes requests to hold from pushpin-proxy, and items to publish at push_in_spec (ZeroMQ PULL), \
           push_in_sub_specs (SUB), push_in_http_port (HTTP POST /publish/) and command_spec of [handler].\n\n\
           Example: pushpin-handler --config=/etc/pushpin/pushpin.conf",
    routes: false,
    several: false,
};

const SIGNALS: Token = Token(0);
/// When to tell the runner how we are.
const REPORT: Token = Token(1);

/// Runs the program.
pub fn main() -> ExitCode {
    process::run(&COMPONENT, mistakes, serve)
}

/// What in the files that it reads would keep it from its work: keys of a kind that is of no use, TLS without a certificate.
pub fn mistakes(settings: &Settings) -> Vec<String> {
    let handler = &settings.handler;
    let key = Gate::new(handler.control_key.as_ref(), None, None).err().map(|error| format!("control_key: {error}"));
    let certificates = Certificates::new(&settings.frontend.certificates);
    let port = handler.push_in_http.filter(|_| handler.push_in_http_tls.is_some());
    let tls = port.and_then(|address| certificates.for_port(address.port()).err());
    key.into_iter().chain(tls.map(|error| error.to_string())).collect()
}

fn serve(mut started: Started) -> Result<(), Failure> {
    let settings = &started.settings.handler;
    let mut worker = Worker::new(&instance_id("handler"), settings)?;
    let mut entrances = Vec::new();
    if let Some(address) = settings.push_in_http {
        let (key, token) = (settings.control_key.as_ref(), settings.control_token.as_ref());
        let gate = Gate::new(key, settings.control_iss.as_deref(), token).map_err(|e| format!("control_key: {e}"))?;
        let certificates = settings.push_in_http_tls.as_deref().map(Certificates::new);
        let tls = certificates.map(|certificates| certificates.for_port(address.port())).transpose();
        let tls = tls.map_err(|error| format!("push_in_http_tls: {error}"))?;
        let with = if tls.is_some() { " with TLS" } else { "" };
        let listener = Listener::Tcp(inherit::listen(inherit::PUBLISH, address)?);
        entrances.push(Entrance { listener, gate, tls });
        tracing::info!("http control server: {address}{with}");
    }
    // The runner has checked who asks, and nobody else reaches it.
    entrances.extend(inherit::operators().map(|listener| Entrance {
        listener: Listener::Local(listener),
        gate: Gate::default(),
        tls: None,
    }));
    let mut control_port = None;
    if !entrances.is_empty() {
        let (submissions, waker) = worker.submissions();
        let health = Health::new(started.ready.has_runner().then(|| started.settings.global.control_socket()));
        control_port = Some(publish::http::start(entrances, submissions, waker, Limits::of(settings), health)?);
    }
    let fd = started.signals.as_raw_fd();
    worker.registry().register(&mut SourceFd(&fd), SIGNALS, Interest::READABLE)?;
    let mut reporter = started.ready.tell()?;
    if let Some(fd) = reporter.descriptor() {
        worker.registry().register(&mut SourceFd(&fd), REPORT, Interest::READABLE)?;
    }
    let mut ready = Vec::new();
    let mut stop = false;
    while !stop {
        let mut report = false;
        worker.turn(&mut ready, |token| match Token(token) {
            REPORT => report = true,
            _ => stop |= started.signals.attend(),
        })?;
        if report {
            let port = control_port.as_ref().map(|port| port.lock().unwrap_or_else(PoisonError::into_inner));
            reporter.attend(|page| worker.measure(port.as_deref(), page));
        }
    }
    tracing::info!("stopping...");
    worker.shut_down();
    Ok(())
}
