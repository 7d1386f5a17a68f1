// SPDX-License-Identifier: AGPL-3.0-or-later
//! How much each process logs: one number, or numbers by process name.

use std::collections::BTreeMap;

/// Highest level there is: 0 errors, 1 warnings, 2 information, 3 debug, 4 trace.
pub const MAX: u8 = 4;

/// Levels by service, with one for all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevels {
    default: u8,
    by_service: BTreeMap<&'static str, u8>,
}

impl Default for LogLevels {
    fn default() -> Self {
        Self { default: 2, by_service: BTreeMap::new() }
    }
}

impl LogLevels {
    /// Reads the items of `log_level` or of `--loglevel`: `N` and `name:N`.
    pub fn parse<'a>(items: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut levels = Self::default();
        for item in items {
            let (name, number) = match item.split_once(':') {
                Some((name, number)) => (Some(name.trim()), number.trim()),
                None => (None, item.trim()),
            };
            if number.is_empty() {
                return Err("log level component cannot be empty".into());
            }
            let level = parse_level(number)?;
            match name {
                Some("") => return Err("log level component name cannot be empty".into()),
                Some(name) => {
                    let service = canonical(name).ok_or_else(|| {
                        format!("`{name}` is no process of the suite; these have a log level: {}", SERVICES.join(", "))
                    })?;
                    levels.by_service.insert(service, level);
                }
                None => levels.default = level,
            }
        }
        Ok(levels)
    }

    /// The level of a service, by its short name (`proxy`) or its program's name (`pushpin-proxy`).
    pub fn of(&self, service: &str) -> u8 {
        let level = canonical(service).and_then(|service| self.by_service.get(service));
        level.copied().unwrap_or(self.default)
    }
}

/// Reads one level.
pub fn parse_level(text: &str) -> Result<u8, String> {
    text.parse().ok().filter(|level| *level <= MAX).ok_or_else(|| {
        format!(
            "`{text}` is not a log level; write 0 (errors), 1 (warnings), 2 (information), 3 (debug) or {MAX} (trace)"
        )
    })
}

/// What has a level.
const SERVICES: [&str; 5] = ["runner", "frontend", "outbound", "proxy", "handler"];

/// The names of both of Pushpin's generations mean our processes.
fn canonical(name: &str) -> Option<&'static str> {
    let ours = match name.strip_prefix("pushpin-").unwrap_or(name) {
        "connmgr" | "condure" | "mongrel2" | "m2adapter" => "frontend",
        "zurl" => "outbound",
        short => short,
    };
    SERVICES.into_iter().find(|service| *service == ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_level_counts_for_that_service_only() {
        let levels = LogLevels::parse(["1", "pushpin-proxy:3", "connmgr:0"]).unwrap();
        assert_eq!((levels.of("proxy"), levels.of("handler"), levels.of("frontend")), (3, 1, 0));
    }

    #[test]
    fn mistakes_are_refused_and_what_is_allowed_is_named() {
        assert!(LogLevels::parse(["5"]).unwrap_err().contains("or 4 (trace)"));
        assert!(LogLevels::parse(["proksy:2"]).unwrap_err().contains("frontend, outbound, proxy, handler"));
        assert!(LogLevels::parse(["x"]).is_err());
        assert!(LogLevels::parse([":2"]).is_err());
        assert!(LogLevels::parse(["proxy:"]).is_err());
        assert!(LogLevels::parse(["-1"]).is_err());
    }
}
