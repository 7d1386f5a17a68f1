//! Which programs are started, and how.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use settings::{Origin, Part};

use crate::arguments::Arguments;
use crate::configuration::Configuration;
use crate::files::RunFiles;
use crate::listeners::{Listener, Listeners};

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
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// Where a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Named by a setting.
    Other(PathBuf),
    /// Ours: looked for at each start.
    Own,
}

impl Service {
    /// Name in log lines: `proxy`, `frontend-1`.
    pub fn name(&self) -> String {
        let file = self.file_name();
        file.strip_prefix("pushpin-").unwrap_or(&file).into()
    }

    /// Name of pid and log files: `pushpin-proxy`, `pushpin-frontend-1`.
    pub fn file_name(&self) -> String {
        match self.number {
            0 => self.part.program().into(),
            n => format!("{}-{n}", self.part.program()),
        }
    }

    /// Whether it tells when it serves, as ours do.
    pub fn tells_when_ready(&self) -> bool {
        self.program == Program::Own
    }

    /// Sockets that it serves.
    pub fn listeners<'a>(&self, all: &'a Listeners) -> &'a [Listener] {
        match self.part {
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
        let count = if part == Part::Frontend { runner.frontend_processes } else { 1 };
        for number in 0..count {
            let program = runner.programs.of(part).cloned().map_or(Program::Own, Program::Other);
            let mut service = Service { part, number, program, arguments: Vec::new() };
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
    if let Origin::File(path) = &configuration.source().origin {
        line.push(option("config", path));
    }
    if let Some(file) = files.log(&service.file_name()) {
        line.push(option("logfile", &file));
    }
    line.push(option("loglevel", &settings.runner.log_levels.of(service.part.program()).to_string()));
    line.push(option("ipc-prefix", &settings.global.ipc_prefix));
    if arguments.id.is_some() {
        line.push(option("port-offset", &settings.global.port_offset.to_string()));
    }
    if service.number > 0 {
        line.push(option("process", &service.number.to_string()));
    }
    if service.part == Part::Proxy {
        line.extend(arguments.route.iter().map(|route| option("route", route)));
    }
    line
}

/// By this name it is still the file that we were started from, even if a newer one has been put in its place.
pub const OWN_FILE: &str = "/proc/self/exe";

impl Program {
    /// The file to start for this part. Ours is the one beside the runner, as a package installs it, whatever its age: it may
    /// have been rolled back. Where there is none, the runner has the part inside, and recognises it by the name that it is
    /// called by.
    pub fn path(&self, part: Part) -> PathBuf {
        match self {
            Self::Other(path) => path.clone(),
            Self::Own => {
                let beside = std::env::current_exe().map(|own| own.with_file_name(part.program()));
                beside.ok().filter(|path| path.is_file()).unwrap_or_else(|| OWN_FILE.into())
            }
        }
    }
}
