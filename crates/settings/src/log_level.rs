//! How much each process logs: one number, or numbers by process name.

use std::collections::BTreeMap;

/// Highest level there is: 0 errors, 1 warnings, 2 information, 3 debug, 4 trace.
pub const MAX: u8 = 4;

/// Levels by service, with one for all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevels {
    default: u8,
    by_service: BTreeMap<String, u8>,
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
            let level: u8 = number.parse().map_err(|_| {
                format!("`{number}` is not a log level; write a number from 0 (errors) to {MAX} (trace)")
            })?;
            match name {
                Some("") => return Err("log level component name cannot be empty".into()),
                Some(name) => _ = levels.by_service.insert(canonical(name).into(), level.min(MAX)),
                None => levels.default = level.min(MAX),
            }
        }
        Ok(levels)
    }

    /// The level of a service, by its short name (`proxy`) or its program's name (`pushpin-proxy`).
    pub fn of(&self, service: &str) -> u8 {
        self.by_service.get(canonical(service)).copied().unwrap_or(self.default)
    }
}

/// The names of both of Pushpin's generations mean our processes.
fn canonical(name: &str) -> &str {
    match name.strip_prefix("pushpin-").unwrap_or(name) {
        "connmgr" | "condure" | "mongrel2" | "m2adapter" => "frontend",
        "zurl" => "outbound",
        short => short,
    }
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
    fn mistakes_are_refused() {
        assert!(LogLevels::parse(["x"]).is_err());
        assert!(LogLevels::parse([":2"]).is_err());
        assert!(LogLevels::parse(["proxy:"]).is_err());
        assert!(LogLevels::parse(["-1"]).is_err());
    }
}
