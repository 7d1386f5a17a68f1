// SPDX-License-Identifier: AGPL-3.0-or-later
//! Which programs are started, and how.

use std::ffi::OsString;
use std::process::ExitCode;

use settings::routes::RoutesSource;
use settings::{Origin, Part};

use crate::arguments::Arguments;
use crate::configuration::Configuration;
use crate::files::RunFiles;
use crate::originals;
use crate::service::{Program, Service};

/// What a program runs.
pub type Main = fn() -> ExitCode;

/// The processes of the suite that this executable has inside, by the name of the program.
pub const BUILT_IN: [(&str, Main); 4] = [
    ("pushpin-frontend", frontend::main),
    ("pushpin-outbound", outbound::main),
    ("pushpin-proxy", proxy::main),
    ("pushpin-handler", handler::main),
];

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
