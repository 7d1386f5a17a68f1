// SPDX-License-Identifier: AGPL-3.0-or-later
//! Black-box benchmark of GRIP reverse proxies and other push servers. See README.md.

mod check;
mod crowd;
mod decode;
mod filter;
mod followers;
mod http;
mod limit;
mod message;
mod net;
mod origin;
mod pace;
mod publish;
mod receivers;
mod requests;
mod scenarios;
mod secure;
mod server;
mod slow;
mod usage;
mod ws;
mod zmtp;

use std::io;
use std::net::SocketAddr;

use clap::{Parser, Subcommand};
use crowd::child::ChildArgs;
use limit::LimitArgs;
use publish::Format;
use scenarios::connect::ConnectArgs;
use scenarios::crowd::CrowdArgs;
use scenarios::fanout::FanoutArgs;
use scenarios::longpoll::LongpollArgs;
use scenarios::memory::MemoryArgs;
use scenarios::proxy::ProxyArgs;

#[derive(Parser)]
#[command(about = "Benchmark of GRIP reverse proxies and other push servers", version, args_override_self = true)]
enum Command {
    /// Serve as the origin behind the proxy under test
    Origin {
        #[arg(long, default_value = "127.0.0.1:8080", value_parser = net::loopback)]
        listen: SocketAddr,
    },
    /// Serve as a bare fan-out server: the physical limit
    Limit(LimitArgs),
    /// A share of the connections of `crowd`, which starts it
    #[command(hide = true)]
    CrowdChild(ChildArgs),
    #[command(flatten)]
    Scenario(Scenario),
}

/// Each prints one line of JSON.
#[derive(Subcommand)]
enum Scenario {
    /// Requests passed through to the origin
    Proxy(ProxyArgs),
    /// WebSocket messages passed through to the origin, and back
    EchoWs(ProxyArgs),
    /// One channel, many HTTP streams
    FanoutStream(FanoutArgs),
    /// One channel, many server-sent event streams
    FanoutSse(FanoutArgs),
    /// One channel, many WebSockets
    FanoutWs(FanoutArgs),
    /// Many HTTP streams, each on its own channel
    Channels(FanoutArgs),
    /// One channel, more connections than one process may open
    Crowd(CrowdArgs),
    /// How fast streams can be opened
    Connect(ConnectArgs),
    /// Memory per held idle connection
    Memory(MemoryArgs),
    /// Long-polling clients released by publishes
    Longpoll(LongpollArgs),
}

fn main() -> io::Result<()> {
    let scenario = match Command::parse() {
        Command::Origin { listen } => return origin::run(listen),
        Command::Limit(args) => return limit::run(&args),
        Command::CrowdChild(args) => return crowd::child::run(&args),
        Command::Scenario(scenario) => scenario,
    };
    net::raise_open_files();
    let result = match scenario {
        Scenario::Proxy(args) => scenarios::proxy::proxy(&args),
        Scenario::EchoWs(args) => scenarios::proxy::echo(&args),
        Scenario::FanoutStream(args) => scenarios::fanout::fanout(&args, Format::Stream),
        Scenario::FanoutSse(args) => scenarios::fanout::fanout(&args, Format::Sse),
        Scenario::FanoutWs(args) => scenarios::fanout::fanout(&args, Format::Ws),
        Scenario::Channels(args) => scenarios::fanout::channels(&args),
        Scenario::Crowd(args) => scenarios::crowd::crowd(&args),
        Scenario::Connect(args) => scenarios::connect::connect(&args),
        Scenario::Memory(args) => scenarios::memory::memory(&args),
        Scenario::Longpoll(args) => scenarios::longpoll::longpoll(&args),
    }?;
    println!("{result}");
    Ok(())
}
