// SPDX-License-Identifier: AGPL-3.0-or-later
//! From the text of a configuration to checked values: port offset, conversions.

use std::time::Duration;

use crate::error::{Error, Place};
use crate::keys::Key;
use crate::listen::{Endpoint, LocalPort, Port};
use crate::log_level::LogLevels;
use crate::model::ForwardedFor;
use crate::raw::Raw;
use crate::source::Source;
use crate::specs;
use crate::table::{self, Kind, Setting};
use crate::variables::Variables;

/// Reads values out of a configuration: variables replaced, converted, checked.
pub(crate) struct Values<'a> {
    raw: &'a Raw,
    pub(crate) variables: Variables,
    pub(crate) port_offset: u16,
}

type Problem = String;

impl<'a> Values<'a> {
    pub(crate) fn new(raw: &'a Raw, source: &Source) -> Result<Self, Error> {
        let mut values = Self { raw, variables: Variables::of(raw, source), port_offset: 0 };
        values.port_offset = match source.port_offset {
            Some(offset) => offset,
            None => values.int("global", "port_offset")?,
        };
        Ok(values)
    }

    /// The items of a key, or of its default, converted by `convert`. A problem becomes an error with the place.
    fn get<T>(
        &self,
        section: &str,
        key: &str,
        convert: impl FnOnce(&'static Setting, Vec<String>) -> Result<T, Problem>,
    ) -> Result<T, Error> {
        let setting = table::find(section, key).expect("every key that is asked for is in the table");
        let items = match self.raw.entry(section, key) {
            Some(entry) => entry.items.clone(),
            None => vec![setting.default.to_string()],
        };
        let converted = self.items(setting.kind, items).and_then(|items| convert(setting, items));
        converted.map_err(|problem| self.error(section, key, problem))
    }

    /// An error at the line of this key.
    pub(crate) fn error(&self, section: &str, key: &str, problem: Problem) -> Error {
        let place = self.raw.place_of(section, key);
        let place = place.unwrap_or_else(|| Place { file: format!("default of {key}"), line: 0 });
        Error::BadValue { place, key: key.into(), problem }
    }

    /// Whether the file itself, not what it includes, has a value for this key of `[proxy]`.
    pub(crate) fn is_in_main_file(&self, key: &str) -> bool {
        self.raw.main.find("proxy", key).is_some_and(|entry| entry.items.iter().any(|item| !item.is_empty()))
    }

    /// Items as they are meant: variables and ports replaced.
    pub(crate) fn written(&self, section: &str, key: &str, items: Vec<String>) -> Result<Vec<String>, Problem> {
        self.items(table::find(section, key).map_or(Kind::Text, |setting| setting.kind), items)
    }

    fn items(&self, kind: Kind, items: Vec<String>) -> Result<Vec<String>, Problem> {
        let mut found = Vec::new();
        for item in items {
            match kind {
                // Files show examples in quotes, with the commas of the list inside.
                Kind::List | Kind::Specs | Kind::Ports | Kind::Levels => {
                    let parts = item.split(',').map(str::trim).filter(|part| !part.is_empty());
                    found.extend(parts.map(str::to_string));
                }
                _ => found.push(item),
            }
        }
        found.iter().map(|item| specs::shift_port(&self.variables.fill_in(item), self.port_offset)).collect()
    }

    pub(crate) fn text(&self, section: &str, key: &str) -> Result<String, Error> {
        self.get(section, key, |setting, items| {
            let value = single(items)?;
            if let Kind::Choice(words) = setting.kind
                && !words.contains(&value.as_str())
            {
                return Err(format!("`{value}` is none of {}", words.join(", ")));
            }
            Ok(value)
        })
    }

    /// A text that is off when empty.
    pub(crate) fn optional_text(&self, section: &str, key: &str) -> Result<Option<String>, Error> {
        self.text(section, key).map(|value| Some(value).filter(|v| !v.is_empty()))
    }

    pub(crate) fn bool(&self, section: &str, key: &str) -> Result<bool, Error> {
        self.get(section, key, |_, items| {
            let value = single(items)?;
            match value.to_ascii_lowercase().as_str() {
                "" | "0" | "false" | "no" | "off" => Ok(false),
                "1" | "true" | "yes" | "on" => Ok(true),
                _ => Err(format!("`{value}` is neither true nor false")),
            }
        })
    }

    pub(crate) fn int<T: TryFrom<i64>>(&self, section: &str, key: &str) -> Result<T, Error> {
        self.get(section, key, |setting, items| {
            let Kind::Int(min, max) = setting.kind else { unreachable!("{key} is not declared as a number") };
            let value = single(items)?;
            let problem = || format!("`{value}` must be a whole number from {min} to {max}");
            let number = value.parse::<i64>().map_err(|_| problem())?;
            if number < min || number > max {
                return Err(problem());
            }
            T::try_from(number).map_err(|_| problem())
        })
    }

    /// A number that means "off" or "unlimited" unless positive.
    pub(crate) fn limit<T: TryFrom<i64>>(&self, section: &str, key: &str) -> Result<Option<T>, Error> {
        let number: i64 = self.int(section, key)?;
        if number > 0 { self.int(section, key).map(Some) } else { Ok(None) }
    }

    pub(crate) fn seconds(&self, section: &str, key: &str) -> Result<Duration, Error> {
        self.int(section, key).map(Duration::from_secs)
    }

    pub(crate) fn octal(&self, section: &str, key: &str) -> Result<Option<u32>, Error> {
        self.get(section, key, |_, items| {
            let value = single(items)?;
            if value.is_empty() {
                return Ok(None);
            }
            match u32::from_str_radix(&value, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Some(mode)),
                _ => Err(format!("`{value}` is not a file mode; write octal digits such as 770")),
            }
        })
    }

    /// List items; empty ones are left out.
    pub(crate) fn list(&self, section: &str, key: &str) -> Result<Vec<String>, Error> {
        self.get(section, key, |_, items| Ok(items))
    }

    /// ZeroMQ addresses of a list.
    pub(crate) fn specs(&self, section: &str, key: &str) -> Result<Vec<String>, Error> {
        self.get(section, key, |_, items| items.into_iter().map(check_spec).collect::<Result<_, _>>())
    }

    /// One ZeroMQ address, or none.
    pub(crate) fn spec(&self, section: &str, key: &str) -> Result<Option<String>, Error> {
        self.get(section, key, |_, items| {
            let value = single(items)?;
            if value.is_empty() { Ok(None) } else { check_spec(value).map(Some) }
        })
    }

    pub(crate) fn forwarded_for(&self, section: &str, key: &str) -> Result<ForwardedFor, Error> {
        self.get(section, key, |_, items| ForwardedFor::parse(&items))
    }

    pub(crate) fn ports(&self, section: &str, key: &str) -> Result<Vec<Port>, Error> {
        self.get(section, key, |_, items| items.iter().map(|item| Port::parse(item)).collect())
    }

    /// Where the runner answers, or nowhere.
    pub(crate) fn endpoint(&self, section: &str, key: &str) -> Result<Option<Endpoint>, Error> {
        self.get(section, key, |_, items| {
            let value = single(items)?;
            if value.is_empty() { Ok(None) } else { Endpoint::parse(&value).map(Some) }
        })
    }

    pub(crate) fn local_ports(&self, section: &str, key: &str) -> Result<Vec<LocalPort>, Error> {
        self.get(section, key, |_, items| items.iter().map(|item| LocalPort::parse(item)).collect())
    }

    pub(crate) fn address(&self, section: &str, key: &str) -> Result<std::net::IpAddr, Error> {
        self.get(section, key, |_, items| {
            let value = single(items)?;
            match value.as_str() {
                "*" => Ok(std::net::Ipv4Addr::UNSPECIFIED.into()),
                "" | "localhost" => Ok(std::net::Ipv4Addr::LOCALHOST.into()),
                text => text.parse().map_err(|_| {
                    format!("`{text}` is not an IP address; write one such as 127.0.0.1, or * for all of this machine")
                }),
            }
        })
    }

    pub(crate) fn log_levels(&self, section: &str, key: &str) -> Result<LogLevels, Error> {
        self.get(section, key, |_, items| LogLevels::parse(items.iter().map(String::as_str)))
    }

    pub(crate) fn key(&self, section: &str, key: &str) -> Result<Option<Key>, Error> {
        self.get(section, key, |_, items| Key::parse(&single(items)?, self.raw))
    }
}

/// The value of a key that is not a list.
fn single(mut items: Vec<String>) -> Result<String, Problem> {
    match items.len() {
        0 => Ok(String::new()),
        1 => Ok(items.remove(0)),
        _ => Err("only one value is expected; put it in double quotes if it has a comma".into()),
    }
}

fn check_spec(spec: String) -> Result<String, Problem> {
    let (scheme, rest) = spec.split_once("://").unwrap_or_default();
    let good = match scheme {
        "ipc" | "inproc" => !rest.is_empty(),
        "tcp" => rest.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()),
        _ => false,
    };
    if good {
        return Ok(spec);
    }
    Err(format!("`{spec}` is not an address; write one such as tcp://127.0.0.1:5560 or ipc:///run/name"))
}
