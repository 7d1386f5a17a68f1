// SPDX-License-Identifier: AGPL-3.0-or-later
//! The proxy: takes requests from the frontend, finds their routes, has them answered by backends through the outbound
//! process, and hands those that are to be held to the handler.
//!
//! # Layout
//! In the order in which a request passes:
//! - [`worker`]: the event loop with the sockets, and the routes file.
//! - [`engine`]: which request a packet is for. [`context`]: what all requests share.
//! - [`exchange`]: one request, from its first packet to its end.
//! - [`request`]: what a backend gets. [`body`]: bytes in both directions. [`response`]: what a client gets.
//! - [`websocket`]: connections on which both sides speak at any time.
//! - [`sharing`]: clients that share one request.
//! - [`handler`]: talking to the handler process.
//! - [`access_log`]: the line for each request.
//!
//! Only `worker` knows sockets, files, the clock and the log; a lint sees to that.

#![forbid(unsafe_code)]

pub mod access_log;
pub mod body;
pub mod context;
pub mod engine;
pub mod error;
pub mod exchange;
pub mod handler;
pub mod request;
pub mod response;
pub mod sharing;
pub mod sockjs;
pub mod statistics;
pub mod websocket;
pub mod worker;

use settings::Settings;

use crate::request::signatures::{signing_key, verifying_key};

const HELP: &str = "\
Requests come from pushpin-frontend and go to backends through pushpin-outbound; responses that tell to hold the client
go to pushpin-handler. The sockets between the processes are files under rundir (setting in [global]).

Routes are read from the file named by `routesfile` in [proxy], and again when it changes or on HUP. Example, without
a routes file, everything to a server on port 8000:

    pushpin-proxy --config=pushpin.conf --route='* localhost:8000'
";

/// What `--help` says.
pub const COMPONENT: process::Component = process::Component {
    name: "pushpin-proxy",
    about: "Finds the route of each request, has it answered by a backend, and hands over what is to be held.",
    help: HELP,
    routes: true,
    several: false,
};

/// The program `pushpin-proxy`, with the arguments of this process.
pub fn main() -> std::process::ExitCode {
    process::run(&COMPONENT, mistakes, worker::run)
}

/// What in the files that it reads would keep it from its work: routes, and keys of a kind that is of no use.
pub fn mistakes(settings: &Settings) -> Vec<String> {
    let proxy = &settings.proxy;
    let keys = [
        ("sig_key", proxy.sig_key.as_ref().map(|key| signing_key(key).map(|_| ()))),
        ("upstream_key", proxy.upstream_key.as_ref().map(|key| verifying_key(key).map(|_| ()))),
    ];
    let keys = keys.into_iter().filter_map(|(name, outcome)| Some(format!("{name}: {}", outcome?.err()?)));
    worker::routes_file::mistakes(&proxy.routes).into_iter().chain(keys).collect()
}
