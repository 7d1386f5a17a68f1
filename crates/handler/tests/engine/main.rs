// SPDX-License-Identifier: AGPL-3.0-or-later
//! The engine as frontends see it: what is held and published goes in, packets come out, written down in short.
//!
//! A line is a packet: the frontend, each session with the packet's number, and what the packet has. Nothing here has
//! sockets; the clock is turned by hand.

mod admission;
mod asking;
mod desk;
mod filters;
mod flow;
mod holds;
mod lanes;
mod links;
mod pages;
mod random;
mod rates;
mod recovery;
mod renewal;
mod reports;
mod time;
mod websockets;
