// SPDX-License-Identifier: AGPL-3.0-or-later
//! The suite from outside: its real programs, started by its runner.
#![allow(missing_docs)]

mod adopted;
mod clients;
mod commands;
mod control;
mod dashboard;
mod differential;
mod edge;
mod faults;
mod filters;
mod frontends;
mod grip;
mod held_again;
mod hostile;
mod interim;
mod lifecycle;
mod links;
mod metrics;
mod operator;
mod orphans;
mod proxy;
mod publish;
mod recovery;
mod replaced;
mod replay;
mod resumed;
mod routes;
mod sharing;
mod smuggling;
mod statistics;
mod stopped;
mod systemd;
mod tls;
mod top;
mod transplant;
mod upgrade;
mod ways_in;
mod websockets;
