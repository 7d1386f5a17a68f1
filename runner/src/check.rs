// SPDX-License-Identifier: AGPL-3.0-or-later
//! `--check`: says what is wrong with the configuration, the routes and the certificates, and starts nothing.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit};
use settings::Raw;
use settings::check::Effective;

use crate::arguments::Arguments;

/// What there is to say.
#[derive(Debug, Default)]
struct Report {
    /// Settings as they count, as a configuration file.
    effective: String,
    /// Would keep the suite, or a part of it, from doing its work.
    errors: Vec<String>,
    warnings: Vec<String>,
}

/// Prints settings to stdout, and mistakes to stderr. Fails if there is a mistake; warnings are none.
pub fn run(arguments: &Arguments) -> ExitCode {
    // Processes raise the soft limit to the hard one.
    let open_files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard);
    let report = look(arguments, open_files);
    // Who closes the pipe has seen enough.
    let _ = io::stdout().write_all(report.effective.as_bytes());
    let mut told = String::new();
    for (kind, texts) in [("error", &report.errors), ("warning", &report.warnings)] {
        for text in texts {
            let _ = writeln!(told, "{kind}: {text}");
        }
    }
    let verdict = match (report.errors.len(), report.warnings.len()) {
        (0, 0) => "the configuration is good".to_string(),
        (0, warnings) => format!("the configuration is good, with {warnings} warning(s)"),
        (errors, warnings) => format!("the configuration is not good: {errors} error(s), {warnings} warning(s)"),
    };
    let _ = writeln!(io::stderr(), "{told}{verdict}");
    if report.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn look(arguments: &Arguments, open_files: u64) -> Report {
    let source = arguments.source();
    let raw = match Raw::read(&source) {
        Ok(raw) => raw,
        Err(error) => return Report { errors: vec![error.to_string()], ..Report::default() },
    };
    let checked = raw.check(&source, open_files);
    let mut report = Report {
        effective: as_file(&checked.effective),
        errors: checked.mistakes.iter().map(ToString::to_string).collect(),
        warnings: checked.warnings.iter().map(ToString::to_string).collect(),
    };
    if let Some(settings) = &checked.settings {
        report.errors.extend(proxy::mistakes(settings));
        report.errors.extend(handler::mistakes(settings));
        report.errors.extend(frontend::mistakes(settings));
    }
    report
}

fn as_file(effective: &[Effective]) -> String {
    let mut text = String::new();
    let mut section = "";
    for one in effective {
        if one.setting.section != section {
            section = one.setting.section;
            let _ = writeln!(text, "[{section}]");
        }
        let _ = writeln!(text, "{one}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser as _;

    use super::*;

    fn report(config: &str, routes: &str) -> Report {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pushpin.conf");
        fs::write(&file, config).unwrap();
        fs::write(directory.path().join("routes"), routes).unwrap();
        look(&Arguments::parse_from(["r", "--check", "--config", file.to_str().unwrap()]), 1_000_000)
    }

    fn report_with_key(pem: &str) -> Report {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key.pem");
        fs::write(&key, pem).unwrap();
        let key = key.display();
        report(&format!("[runner]\nclient_maxconn=9\n[proxy]\nroutesfile=routes\nsig_key=file:{key}\n"), "* test\n")
    }

    /// A line of `pushpin.conf` below its section, a line of routes, and what is said about it.
    const SEEDED: [(&str, &str, &str, &str); 25] = include!("check/seeded.rs");

    #[test]
    fn each_of_25_mistakes_is_found_with_its_place_and_what_to_write_instead() {
        let sections = "[global]\n[runner]\nclient_maxconn=100\n[proxy]\nroutesfile=routes\n";
        let line = sections.lines().count() + 2;
        for (section, setting, route, said) in SEEDED {
            let config = format!("{sections}[{section}]\n{setting}\n");
            let routes = format!("* 127.0.0.1:80\n{route}\n");
            let report = report(&config, &routes);
            let told: Vec<_> = report.errors.iter().chain(&report.warnings).collect();
            let place = if setting.is_empty() { "routes:2: ".into() } else { format!("pushpin.conf:{line}: ") };
            assert!(told.iter().any(|t| t.contains(&place) && t.contains(said)), "{setting}{route}: {told:?}");
            assert_eq!(told.len(), 1, "{setting}{route}: {told:?}");
        }
    }

    #[test]
    fn what_is_printed_is_a_configuration_that_means_the_same() {
        let config = "[global]\nrundir=/r\nport_offset=10\n[runner]\nclient_maxconn=100\n[proxy]\nroutesfile=routes\n\
                      [handler]\npush_in_spec=ipc://{rundir}/x\nmessage_wait=7\n";
        let first = report(config, "* test\n");
        assert_eq!((&first.errors, &first.warnings), (&vec![], &vec![]));
        assert!(first.effective.contains("push_in_spec=ipc:///r/x ; "), "{}", first.effective);
        assert!(first.effective.contains("pushpin.conf:9\n"), "{}", first.effective);
        // Ports are shown as they are listened on: with the offset.
        let shown = first.effective.replace("port_offset=10", "port_offset=0");
        let again = report(&shown, "* test\n");
        assert_eq!((&again.errors, &again.warnings), (&vec![], &vec![]));
        let values = |text: &str| {
            let lines = text.lines().filter(|line| !line.starts_with('#') && !line.contains("= ;"));
            lines.map(|line| line.split(" ; ").next().unwrap_or_default().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(values(&again.effective), values(&shown));
    }

    #[test]
    fn what_can_not_be_read_is_told() {
        let errors = look(&Arguments::parse_from(["r", "--check", "--config", "/nowhere/p.conf"]), 9).errors;
        assert!(errors[0].starts_with("failed to open config file: /nowhere/p.conf"), "{errors:?}");
        let missing = report("[runner]\nclient_maxconn=9\n[proxy]\nroutesfile=elsewhere\n", "").errors;
        assert!(missing[0].contains("unable to open routes file") && missing[0].contains("elsewhere"), "{missing:?}");
        let empty = report("[runner]\nclient_maxconn=9\n[proxy]\nroutesfile=routes\n", "# nothing\n").errors;
        assert!(empty[0].contains("there are no routes"), "{empty:?}");
        let key = report_with_key("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").errors;
        assert!(key[0].starts_with("sig_key: the file has no private key"), "{key:?}");
        let tls =
            report("[runner]\nclient_maxconn=9\nhttps_ports=8443\n[proxy]\nroutesfile=routes\n", "* test\n").errors;
        assert!(tls[0].contains("default_8443.crt"), "{tls:?}");
    }
}
