// SPDX-License-Identifier: AGPL-3.0-or-later
//! Command line of the runner.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use settings::log_level::LogLevels;
use settings::{Origin, Settings, Source};

use crate::control::ctl::Ctl;
use crate::instance;
use crate::top::arguments::Options;

const HELP: &str = "\
The processes are a frontend that clients connect to, a proxy that finds the backend, an outbound process that connects to it,
and a handler that holds connections and takes in what is published. One that dies is started again.

Without a configuration file all requests go to a built-in test backend:
  pushpin-runner
  curl -N http://localhost:7999/stream &
  pushpin-publish test hello

`pushpin-runner ctl status` shows how the suite is, `pushpin-runner top` goes on showing it.

TERM and INT stop everything, HUP opens log files again and reads the routes again.";

/// Starts the processes of the suite, watches them, and stops them.
#[derive(Clone, Debug, Parser)]
#[command(name = crate::NAME, bin_name = crate::NAME, version, after_help = HELP)]
pub struct Arguments {
    /// Configuration file [default: the first that exists of config/pushpin.conf, pushpin.conf,
    /// examples/config/pushpin.conf, /etc/pushpin/pushpin.conf, else what is built in]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Append log lines to this file instead of writing them to stdout
    #[arg(short, long, value_name = "FILE")]
    pub logfile: Option<PathBuf>,

    /// 0 errors, 1 warnings, 2 information, 3 debug, 4 trace; or name:N for one process; separated by commas
    #[arg(short = 'L', long, value_name = "LEVELS", value_parser = levels)]
    pub loglevel: Option<LogLevels>,

    /// The same as --loglevel=3
    #[arg(long, conflicts_with = "loglevel")]
    pub verbose: bool,

    /// Write the log lines of all processes to one place, instead of a file for each in logdir. It is so by default when no
    /// configuration is named and none is installed on this system
    #[arg(short, long)]
    pub merge_output: bool,

    /// Listen for clients here only: PORT or ADDRESS:PORT
    #[arg(long, value_name = "PORT", value_parser = settings::listen::parse)]
    pub port: Option<SocketAddr>,

    /// Number of this instance, to run several from one configuration: other socket names, and N*10 added to ports
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=6000))]
    pub id: Option<u16>,

    /// Use these lines (the option can be repeated) instead of the routes file
    #[arg(long, value_name = "LINE")]
    pub route: Vec<String>,

    /// Say what is wrong with configuration, routes and certificates, print every setting with the place it comes from, and start
    /// nothing. Ends with status 1 if there is a mistake
    #[arg(long)]
    pub check: bool,

    /// Pushpin 1.x has -v for the version
    #[arg(short = 'v', hide = true, action = clap::ArgAction::Version)]
    pub old_version: Option<bool>,

    /// What to do instead of starting the suite.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program does beside its main task.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Ask a running runner: how the suite is, to restart processes, to log more
    Ctl(Ctl),
    /// Watch a running suite in the terminal: clients, channels, rates, losses, processes
    Top(Options),
}

fn levels(text: &str) -> Result<LogLevels, String> {
    LogLevels::parse(text.split(','))
}

impl Arguments {
    /// Reads the arguments of this process. Ends it when they ask for help or are wrong.
    pub fn parse() -> Self {
        let mut arguments = <Self as Parser>::parse();
        if arguments.verbose {
            arguments.loglevel = LogLevels::parse(["3"]).ok();
        }
        arguments
    }

    /// The configuration that they name.
    pub fn source(&self) -> Source {
        Source { routes: self.route.clone(), ..instance::source(self.config.as_deref(), self.id) }
    }

    /// The runner's own log level.
    pub fn level(&self, settings: &Settings) -> u8 {
        settings.runner.log_levels.of("runner")
    }

    /// Begins the names of pid and log files, so that instances can share directories.
    pub fn file_prefix(&self) -> String {
        self.id.map(|id| format!("p{id}-")).unwrap_or_default()
    }

    /// Whether log lines of all processes go to one place: when asked for, and for whoever tries the program out in some
    /// directory, who would not look for files.
    pub fn merge(&self, origin: &Origin) -> bool {
        let installed = matches!(origin, Origin::File(path) if path.is_absolute());
        self.merge_output || (self.config.is_none() && !installed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn an_instance_has_names_and_ports_of_its_own() {
        let arguments = parse("r --config=c --id 2 --port [::1]:8000").unwrap();
        assert_eq!(arguments.source().ipc_prefix.as_deref(), Some("p2-"));
        assert_eq!(arguments.source().port_offset, Some(20));
        assert_eq!(arguments.port, Some("[::1]:8000".parse().unwrap()));
    }

    #[test]
    fn levels_by_name_are_read() {
        let levels = parse("r --loglevel=1,proxy:4").unwrap().loglevel.unwrap();
        assert_eq!((levels.of("proxy"), levels.of("runner")), (4, 1));
    }

    #[test]
    fn logs_are_merged_for_whoever_tries_it_out() {
        assert!(parse("r").unwrap().merge(&Origin::BuiltIn));
        assert!(!parse("r --config=c").unwrap().merge(&Origin::File("c".into())));
        assert!(!parse("r").unwrap().merge(&Origin::File("/etc/pushpin/pushpin.conf".into())));
        assert!(parse("r -m --config=c").unwrap().merge(&Origin::File("c".into())));
    }

    #[test]
    fn mistakes_end_with_status_2() {
        for line in
            ["r --port 0", "r --id -1", "r --loglevel=x", "r --loglevel=9", "r --loglevel=prox:2", "r --nonsense"]
        {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
