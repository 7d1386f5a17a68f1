// SPDX-License-Identifier: AGPL-3.0-or-later
//! Command line of a component.

use std::path::Path;

use clap::{Args, CommandFactory, FromArgMatches};
use settings::{Origin, Source};

/// What a component is called and what its help says.
#[derive(Clone, Copy, Debug)]
pub struct Component {
    /// Name of the program.
    pub name: &'static str,
    /// One sentence: what it does.
    pub about: &'static str,
    /// Shown below the options: where data comes from and goes to, an example.
    pub help: &'static str,
    /// Whether `--route` makes sense.
    pub routes: bool,
    /// Whether several of it may run, told apart by `--process`.
    pub several: bool,
}

impl Component {
    /// Name of one of its processes in the log: `proxy`, `frontend-1`.
    pub(crate) fn label(&self, process: usize) -> String {
        let name = self.file_name(process);
        name.strip_prefix("pushpin-").map(String::from).unwrap_or(name)
    }

    /// The same in names of files: `pushpin-proxy`, `pushpin-frontend-1`.
    pub(crate) fn file_name(&self, process: usize) -> String {
        if process == 0 { self.name.to_string() } else { format!("{}-{process}", self.name) }
    }
}

/// Options of every component.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Configuration file [default: the first that exists of config/pushpin.conf, pushpin.conf,
    /// examples/config/pushpin.conf, /etc/pushpin/pushpin.conf, else what is built in]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<String>,

    /// Append log lines to this file instead of writing them to stdout; opened again on HUP
    #[arg(short, long, value_name = "FILE")]
    pub logfile: Option<String>,

    /// 0 errors, 1 warnings, 2 information, 3 debug, 4 trace [default: log_level of the configuration]
    #[arg(short = 'L', long, value_name = "N", value_parser = settings::log_level::parse_level)]
    pub loglevel: Option<u8>,

    /// The same as --loglevel=3
    #[arg(long)]
    pub verbose: bool,

    /// Begin the names of socket files so, instead of with ipc_prefix of the configuration
    #[arg(long, value_name = "PREFIX")]
    pub ipc_prefix: Option<String>,

    /// Add this to ports, instead of port_offset of the configuration
    #[arg(long, value_name = "N")]
    pub port_offset: Option<u16>,

    /// Use these lines (the option can be repeated) instead of the routes file
    #[arg(long, value_name = "LINE")]
    pub route: Vec<String>,

    /// Say whether this program takes the configuration, and start nothing. Ends with status 1 if it does not
    #[arg(long)]
    pub check: bool,

    /// Options of Pushpin that have no meaning here, but stand in command lines of its runner and of init scripts
    #[command(flatten)]
    pub unused: Unused,

    /// Which of several equal processes this is, from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub process: usize,
}

/// Options that are taken and do nothing.
#[derive(Args, Clone, Copy, Debug)]
pub struct Unused {
    /// How loudly a proxy of 1.x looked for newer versions
    #[arg(long, hide = true)]
    quiet_check: bool,

    /// 1.x has -v for the version
    #[arg(short = 'v', hide = true, action = clap::ArgAction::Version)]
    old_version: Option<bool>,
}

#[derive(clap::Parser)]
struct Parser {
    #[command(flatten)]
    arguments: Arguments,
}

impl Arguments {
    /// Reads the arguments of this process. Ends it when they ask for help or are wrong.
    pub fn parse(component: &Component) -> Self {
        let matches = component.command().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|e| e.exit())
    }

    /// The configuration that they name.
    pub fn source(&self) -> Source {
        Source {
            origin: Origin::find(self.config.as_deref().map(Path::new)),
            ipc_prefix: self.ipc_prefix.clone(),
            port_offset: self.port_offset,
            routes: self.route.clone(),
            supervised: crate::parent::started_by_runner(),
        }
    }

    /// The log level that they name.
    pub fn level(&self) -> Option<u8> {
        self.loglevel.or(self.verbose.then_some(3))
    }
}

impl Component {
    /// Its command line.
    pub fn command(&self) -> clap::Command {
        Parser::command()
            .name(self.name)
            .bin_name(self.name)
            .version(env!("CARGO_PKG_VERSION"))
            .about(self.about)
            .after_help(self.help)
            .mut_arg("route", |arg| arg.hide(!self.routes))
            .mut_arg("process", |arg| arg.hide(!self.several))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPONENT: Component =
        Component { name: "pushpin-x", about: "Does x.", help: "Example: x", routes: false, several: false };

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let matches = COMPONENT.command().try_get_matches_from(line.split(' '))?;
        Arguments::from_arg_matches(&matches)
    }

    #[test]
    fn the_command_line_of_the_original_runner_is_understood() {
        let line = "pushpin-x --config=c --ipc-prefix=p --port-offset=10 --logfile=l --loglevel=0";
        let arguments = parse(line).unwrap();
        assert_eq!((arguments.level(), arguments.port_offset), (Some(0), Some(10)));
        assert!(parse("pushpin-x --config=c --ipc-prefix=p --logfile=l --loglevel=2 --quiet-check").is_ok());
        assert_eq!(parse("pushpin-x -v").unwrap_err().kind(), clap::error::ErrorKind::DisplayVersion);
    }

    #[test]
    fn a_log_level_that_is_none_is_refused_with_those_that_are() {
        for level in ["7", "-1", "debug", ""] {
            let error = parse(&format!("pushpin-x --loglevel={level}")).unwrap_err().to_string();
            assert!(error.contains("0 (errors), 1 (warnings), 2 (information), 3 (debug) or 4 (trace)"), "{error}");
        }
    }

    #[test]
    fn short_names_and_separate_values_work_as_well() {
        let arguments = parse("pushpin-x -c c -l l -L 4").unwrap();
        assert_eq!(arguments.level(), Some(4));
        assert_eq!(parse("pushpin-x --verbose").unwrap().level(), Some(3));
    }

    #[test]
    fn mistakes_end_with_status_2() {
        for line in ["pushpin-x --nonsense", "pushpin-x -L 5", "pushpin-x stray"] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_help_hides_what_makes_no_sense() {
        let help = COMPONENT.command().render_help().to_string();
        assert!(help.contains("--config") && help.contains("Example: x") && !help.contains("--route"));
    }
}
