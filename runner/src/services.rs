//! Which programs are started, and how.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use settings::{Origin, Settings};

use crate::arguments::Arguments;
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

/// A name in `services` that nothing here answers to.
#[derive(Debug, thiserror::Error)]
#[error("services: `{name}` is unknown; leave services empty, or name some of frontend, outbound, proxy, handler")]
pub struct ServicesError {
    name: String,
}

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What clients connect to.
    Frontend,
    /// What connects to backends.
    Outbound,
    /// What is in between.
    Proxy,
    /// What holds and publishes.
    Handler,
}

/// In the order of their start: those that others connect to come first.
const PARTS: [Part; 4] = [Part::Frontend, Part::Outbound, Part::Proxy, Part::Handler];

impl Part {
    /// Our program's name.
    pub fn program(self) -> &'static str {
        match self {
            Self::Frontend => "pushpin-frontend",
            Self::Outbound => "pushpin-outbound",
            Self::Proxy => "pushpin-proxy",
            Self::Handler => "pushpin-handler",
        }
    }

    /// Parts that a name in `services` asks for. Pushpin's own connection manager is client and server in one, and the names
    /// of its older companions stand in many files; they get our processes.
    fn named(name: &str) -> Option<&'static [Self]> {
        Some(match name.strip_prefix("pushpin-").unwrap_or(name) {
            "frontend" | "mongrel2" | "m2adapter" => &[Self::Frontend],
            "outbound" | "zurl" => &[Self::Outbound],
            "connmgr" | "condure" => &[Self::Frontend, Self::Outbound],
            "proxy" => &[Self::Proxy],
            "handler" => &[Self::Handler],
            _ => return None,
        })
    }
}

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
pub fn of(
    settings: &Settings,
    arguments: &Arguments,
    origin: &Origin,
    files: &RunFiles,
) -> Result<Vec<Service>, ServicesError> {
    let mut services = Vec::new();
    for part in wanted(&settings.runner.services)? {
        let count = if part == Part::Frontend { settings.runner.frontend_processes } else { 1 };
        for number in 0..count {
            let programs = &settings.runner.programs;
            let other = match part {
                Part::Frontend => &programs.frontend,
                Part::Outbound => &programs.outbound,
                Part::Proxy => &programs.proxy,
                Part::Handler => &programs.handler,
            };
            let program = other.clone().map_or(Program::Own, Program::Other);
            let mut service = Service { part, number, program, arguments: Vec::new() };
            service.arguments = command_line(&service, settings, arguments, origin, files);
            services.push(service);
        }
    }
    Ok(services)
}

/// The parts that `services` names. A list of the older Pushpin (condure, proxy, handler) has no word for what connects to
/// backends, because it ran on its own; ours is started all the same.
fn wanted(names: &[String]) -> Result<Vec<Part>, ServicesError> {
    let mut named = Vec::new();
    for name in names {
        named.extend(Part::named(name).ok_or_else(|| ServicesError { name: name.clone() })?);
    }
    if named.contains(&Part::Proxy) {
        named.push(Part::Outbound);
    }
    Ok(PARTS.into_iter().filter(|part| names.is_empty() || named.contains(part)).collect())
}

fn command_line(
    service: &Service,
    settings: &Settings,
    arguments: &Arguments,
    origin: &Origin,
    files: &RunFiles,
) -> Vec<OsString> {
    let option = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
        let mut text = OsString::from(format!("--{name}="));
        text.push(value);
        text
    };
    let mut line = Vec::new();
    if let Origin::File(path) = origin {
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

/// The executable of one of our programs: the file of that name beside ours if it is not older, else our own, which has it
/// inside and recognises it by the name it is called by.
///
/// The one beside ours is what a package installs and what `cargo build` of that program alone has just made; an older one is
/// a leftover of an earlier build, which `cargo run --bin pushpin-runner` does not renew.
pub fn find_own(program: &str) -> PathBuf {
    let found = std::env::current_exe().ok().and_then(|own| {
        let beside = own.with_file_name(program);
        let changed = |path: &Path| path.metadata().and_then(|m| m.modified());
        (changed(&beside).ok()? >= changed(&own).ok()?).then_some(beside)
    });
    // By this name it is still the file that we were started from, even if a newer one has been put in its place.
    found.unwrap_or_else(|| "/proc/self/exe".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(services: &[&str]) -> Vec<&'static str> {
        let services: Vec<String> = services.iter().map(|s| s.to_string()).collect();
        wanted(&services).unwrap().into_iter().map(Part::program).collect()
    }

    const ALL: [&str; 4] = ["pushpin-frontend", "pushpin-outbound", "pushpin-proxy", "pushpin-handler"];

    #[test]
    fn lists_of_both_generations_start_the_whole_suite() {
        assert_eq!(names(&[]), ALL);
        assert_eq!(names(&["connmgr", "proxy", "handler"]), ALL);
        assert_eq!(names(&["condure", "zurl", "pushpin-proxy", "pushpin-handler"]), ALL);
        assert_eq!(names(&["mongrel2", "m2adapter", "zurl", "pushpin-proxy", "pushpin-handler"]), ALL);
    }

    #[test]
    fn a_part_of_the_suite_can_be_left_out() {
        assert_eq!(names(&["frontend", "handler"]), ["pushpin-frontend", "pushpin-handler"]);
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        assert!(wanted(&["nginx".into()]).unwrap_err().to_string().contains("`nginx`"));
    }
}
