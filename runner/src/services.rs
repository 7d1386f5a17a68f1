// SPDX-License-Identifier: AGPL-3.0-or-later
//! Which programs are started, and how.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use settings::routes::RoutesSource;
use settings::{Origin, Part, Settings};

use crate::arguments::Arguments;
use crate::configuration::Configuration;
use crate::files::RunFiles;
use crate::listeners::{Listener, Listeners};
use crate::originals;

/// What a program runs.
pub type Main = fn() -> ExitCode;

/// The processes of the suite that this executable has inside, by the name of the program.
pub const BUILT_IN: [(&str, Main); 4] = [
    ("pushpin-frontend", frontend::main),
    ("pushpin-outbound", outbound::main),
    ("pushpin-proxy", proxy::main),
    ("pushpin-handler", handler::main),
];

/// One process to start.
#[derive(Clone, Debug)]
pub struct Service {
    /// What it is.
    pub part: Part,
    /// Number among those of the same part, from 0.
    pub number: usize,
    /// Program to start.
    pub program: Program,
    /// Name of pid and log files: `pushpin-proxy`, `pushpin-frontend-1`.
    pub file_name: String,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// The log file of a program that has no option for one: it gets its output.
    pub output: Option<PathBuf>,
    /// The option by which a program is told its instance id, which must be another one at each start: peers of one that
    /// died still have sessions with it.
    pub instance_option: Option<&'static str>,
}

/// Where a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Named by a setting, or one of Pushpin's.
    Other(PathBuf),
    /// Ours: looked for at each start.
    Own,
}

impl Service {
    /// Name in log lines: `proxy`, `frontend-1`.
    pub fn name(&self) -> String {
        self.file_name.strip_prefix("pushpin-").unwrap_or(&self.file_name).into()
    }

    /// Whether a signal that ours know is good for it. Condure ends when it gets HUP.
    pub fn knows_hup(&self) -> bool {
        self.instance_option.is_none()
    }

    /// Has it log as much as this level says when it is started again.
    pub fn set_log_level(&mut self, level: u8) {
        let is_level = |argument: &&mut OsString| argument.to_str().is_some_and(|text| text.starts_with("--loglevel="));
        if let Some(argument) = self.arguments.iter_mut().find(is_level) {
            *argument = format!("--loglevel={level}").into();
        }
    }

    /// Whether it tells when it serves, as ours do.
    pub fn tells_when_ready(&self) -> bool {
        self.program == Program::Own
    }

    /// Whether it makes session tickets for clients with TLS.
    pub fn makes_tickets(&self) -> bool {
        self.part == Part::Frontend && self.program == Program::Own
    }

    /// Where clients and publishers find it.
    pub fn places(&self, settings: &Settings, listeners: &Listeners) -> Vec<String> {
        let (runner, handler) = (&settings.runner, &settings.handler);
        match self.part {
            Part::Frontend if self.program == Program::Own => {
                self.listeners(listeners).iter().map(|listener| listener.name().into()).collect()
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

    /// Sockets that it serves.
    pub fn listeners<'a>(&self, all: &'a Listeners) -> &'a [Listener] {
        match self.part {
            _ if self.program != Program::Own => &[],
            Part::Frontend => all.frontend(self.number),
            Part::Handler => all.handler(),
            Part::Outbound | Part::Proxy => &[],
        }
    }
}

/// What to start for this configuration.
pub fn of(configuration: &Configuration, arguments: &Arguments, files: &RunFiles) -> Vec<Service> {
    let runner = &configuration.settings.runner;
    let mut services = Vec::new();
    for part in runner.parts.iter().copied() {
        if let Some(original) = runner.originals.of(part) {
            services.extend(originals::services(original, part, configuration, files));
            continue;
        }
        let count = if part == Part::Frontend { runner.frontend_processes } else { 1 };
        for number in 0..count {
            let program = runner.programs.of(part).cloned().map_or(Program::Own, Program::Other);
            let file_name = part.file_name(number);
            let mut service = Service {
                part,
                number,
                program,
                file_name,
                arguments: Vec::new(),
                output: None,
                instance_option: None,
            };
            service.arguments = command_line(&service, configuration, arguments, files);
            services.push(service);
        }
    }
    services
}

fn command_line(
    service: &Service,
    configuration: &Configuration,
    arguments: &Arguments,
    files: &RunFiles,
) -> Vec<OsString> {
    let settings = &configuration.settings;
    let option = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
        let mut text = OsString::from(format!("--{name}="));
        text.push(value);
        text
    };
    let mut line = Vec::new();
    let own = service.program == Program::Own;
    match &configuration.source().origin {
        _ if !own => line.push(option("config", &originals::pushpin_conf(files))),
        Origin::File(path) => line.push(option("config", path)),
        _ => {}
    }
    if let Some(file) = files.log(&service.file_name) {
        line.push(option("logfile", &file));
    }
    line.push(option("loglevel", &settings.runner.log_levels.of(service.part.program()).to_string()));
    line.push(option("ipc-prefix", &settings.global.ipc_prefix));
    // The file that is made for others has the offset in it.
    if arguments.id.is_some() && own {
        line.push(option("port-offset", &settings.global.port_offset.to_string()));
    }
    if service.number > 0 {
        line.push(option("process", &service.number.to_string()));
    }
    if service.part == Part::Proxy {
        line.extend(arguments.route.iter().map(|route| option("route", route)));
        if !own && settings.proxy.routes == RoutesSource::BuiltIn {
            line.push(option("route", &"* test"));
        }
    }
    line
}

/// By this name it is still the file that we were started from, even if a newer one has been put in its place.
pub const OWN_FILE: &str = "/proc/self/exe";

/// A file that [`Program::path`] names, for an operator.
pub fn describe(program: &std::path::Path) -> String {
    if program.to_str() != Some(OWN_FILE) {
        return program.display().to_string();
    }
    std::env::current_exe().map_or_else(|_| OWN_FILE.into(), |own| own.display().to_string())
}

/// Where the program of a part is that a package installs, if one does.
pub fn beside(part: Part) -> Option<PathBuf> {
    std::env::current_exe().ok().map(|own| own.with_file_name(part.program()))
}

impl Program {
    /// The file to start for this part. Ours is the one beside the runner, as a package installs it, whatever its age: it may
    /// have been rolled back. Where there is none, the runner has the part inside, and recognises it by the name that it is
    /// called by.
    pub fn path(&self, part: Part) -> PathBuf {
        match self {
            Self::Other(path) => path.clone(),
            Self::Own => beside(part).filter(|path| path.is_file()).unwrap_or_else(|| OWN_FILE.into()),
        }
    }
}
