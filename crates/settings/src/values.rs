//! From the text of a configuration to checked values: includes, variables, port offset, conversions.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Place, Warning};
use crate::ini::{Document, Entry};
use crate::keys::Key;
use crate::log_level::LogLevels;
use crate::model::ForwardedFor;
use crate::source::{Origin, Source};
use crate::table::{self, Kind, Setting, State};
use crate::{BUILT_IN_CONFIG, listen, specs};

/// A configuration with its include, and what its variables stand for.
pub(crate) struct Values {
    main: Document,
    included: Document,
    source: Source,
    pub(crate) rundir: String,
    pub(crate) ipc_prefix: String,
    pub(crate) port_offset: u16,
    libdir: String,
}

type Problem = String;

impl Values {
    /// Reads the text of a source, and of what it includes.
    pub(crate) fn read(source: &Source) -> Result<(Self, Vec<Warning>), Error> {
        let text = match &source.origin {
            Origin::BuiltIn => BUILT_IN_CONFIG.to_string(),
            Origin::Text(text) => text.clone(),
            Origin::File(path) => {
                std::fs::read_to_string(path).map_err(|reason| Error::Unreadable { file: path.clone(), reason })?
            }
        };
        let main = Document::parse(&text, &source.origin.name());
        let mut values = Self {
            main,
            included: Document::default(),
            source: source.clone(),
            rundir: String::new(),
            ipc_prefix: String::new(),
            port_offset: 0,
            libdir: String::new(),
        };
        values.set_variables()?;
        values.include();
        // The included file may hold what the variables stand for.
        values.set_variables()?;
        let warnings = values.warnings();
        Ok((values, warnings))
    }

    fn set_variables(&mut self) -> Result<(), Error> {
        let fallback = |text: String, other: String| if text.is_empty() { other } else { text };
        self.libdir = self.text("global", "libdir")?;
        let old_rundir = self.text("runner", "rundir")?;
        self.rundir = match self.entry("global", "rundir") {
            Some(_) => self.text("global", "rundir")?,
            None => fallback(old_rundir, self.text("global", "rundir")?),
        };
        self.ipc_prefix = match &self.source.ipc_prefix {
            Some(prefix) if !prefix.is_empty() => prefix.clone(),
            _ => self.text("global", "ipc_prefix")?,
        };
        self.port_offset = match self.source.port_offset {
            Some(offset) => offset,
            None => self.int("global", "port_offset")?,
        };
        Ok(())
    }

    /// Reads the included file, if it is there. Pushpin's `internal.conf` describes the sockets between its processes, which
    /// have other names here; it is read only when somebody says where it is.
    fn include(&mut self) {
        let Some(entry) = self.main.find("global", "include").cloned() else { return };
        let Some(named) = entry.items.first().filter(|n| !n.is_empty()) else { return };
        let internal = matches!(named.as_str(), "internal.conf" | "{libdir}/internal.conf");
        let path = if internal && self.libdir.is_empty() {
            return;
        } else if internal {
            PathBuf::from(&self.libdir).join("internal.conf")
        } else {
            self.source.origin.directory().join(self.substitute(named))
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => self.included = Document::parse(&text, &path.display().to_string()),
            Err(reason) => {
                let text = format!("included file {} is not read: {reason}", path.display());
                self.main.warnings.push(Warning { place: entry.place.clone(), text });
            }
        }
    }

    fn warnings(&self) -> Vec<Warning> {
        let mut found = self.main.warnings.clone();
        found.extend(self.included.warnings.iter().cloned());
        for entry in &self.main.entries {
            let text = match table::find(&entry.section, &entry.key) {
                None => format!("unknown setting `{}` in [{}] is ignored", entry.key, entry.section),
                Some(setting) if setting.state == State::Planned && entry.items.join(",") != setting.default => {
                    // What Pushpin's own file ships must pass in silence.
                    if is_shipped(entry) {
                        continue;
                    }
                    format!("`{}` has no effect yet", entry.key)
                }
                Some(_) => continue,
            };
            found.push(Warning { place: entry.place.clone(), text });
        }
        if let Some(entry) = self.main.find("runner", "rundir") {
            let text = "rundir in [runner] section is deprecated. put in [global]".into();
            found.push(Warning { place: entry.place.clone(), text });
        }
        found
    }

    fn entry(&self, section: &str, key: &str) -> Option<&Entry> {
        self.main.find(section, key).or_else(|| self.included.find(section, key))
    }

    fn substitute(&self, value: &str) -> String {
        let replaced = value
            .replace("{libdir}", &self.libdir)
            .replace("{rundir}", &self.rundir)
            .replace("{ipc_prefix}", &self.ipc_prefix);
        specs::shift_port(&replaced, self.port_offset)
    }

    /// The items of a key, or of its default, converted by `convert`. A problem becomes an error with the place.
    fn get<T>(
        &self,
        section: &str,
        key: &str,
        convert: impl FnOnce(&'static Setting, Vec<String>) -> Result<T, Problem>,
    ) -> Result<T, Error> {
        let setting = table::find(section, key).expect("every key that is asked for is in the table");
        let (items, place) = match self.entry(section, key) {
            Some(entry) => (entry.items.clone(), entry.place.clone()),
            None => (vec![setting.default.to_string()], Place { file: format!("default of {key}"), line: 0 }),
        };
        let items = items.iter().map(|item| self.substitute(item)).collect();
        convert(setting, items).map_err(|problem| Error::BadValue { place, key: key.into(), problem })
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
        Ok(if number > 0 { T::try_from(number).ok() } else { None })
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
        self.get(section, key, |_, items| Ok(items.into_iter().filter(|i| !i.is_empty()).collect()))
    }

    /// ZeroMQ addresses of a list.
    pub(crate) fn specs(&self, section: &str, key: &str) -> Result<Vec<String>, Error> {
        self.get(section, key, |_, items| {
            items.into_iter().filter(|i| !i.is_empty()).map(check_spec).collect::<Result<_, _>>()
        })
    }

    /// One ZeroMQ address, or none.
    pub(crate) fn spec(&self, section: &str, key: &str) -> Result<Option<String>, Error> {
        self.get(section, key, |_, items| {
            let value = single(items)?;
            if value.is_empty() { Ok(None) } else { check_spec(value).map(Some) }
        })
    }

    pub(crate) fn forwarded_for(&self, section: &str, key: &str) -> Result<ForwardedFor, Error> {
        self.get(section, key, |_, items| {
            ForwardedFor::parse(&items.into_iter().filter(|i| !i.is_empty()).collect::<Vec<_>>())
        })
    }

    pub(crate) fn ports(&self, section: &str, key: &str) -> Result<Vec<std::net::SocketAddr>, Error> {
        self.get(section, key, |_, items| items.iter().filter(|i| !i.is_empty()).map(|i| listen::parse(i)).collect())
    }

    pub(crate) fn address(&self, section: &str, key: &str) -> Result<std::net::IpAddr, Error> {
        self.get(section, key, |_, items| {
            let value = single(items)?;
            match value.as_str() {
                "" | "*" => Ok(std::net::Ipv4Addr::UNSPECIFIED.into()),
                "localhost" => Ok(std::net::Ipv4Addr::LOCALHOST.into()),
                text => text.parse().map_err(|_| format!("`{text}` is not an IP address; write one such as 127.0.0.1")),
            }
        })
    }

    pub(crate) fn log_levels(&self, section: &str, key: &str) -> Result<LogLevels, Error> {
        self.get(section, key, |_, items| LogLevels::parse(items.iter().map(String::as_str).filter(|i| !i.is_empty())))
    }

    pub(crate) fn key(&self, section: &str, key: &str) -> Result<Option<Key>, Error> {
        let directory = self.source.origin.directory();
        self.get(section, key, |_, items| Key::parse(&single(items)?, &directory))
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

/// Keys without an effect yet whose value in Pushpin's example file differs from the default.
fn is_shipped(entry: &Entry) -> bool {
    let value = entry.items.join(",");
    matches!(
        (entry.key.as_str(), value.as_str()),
        ("sockjs_url", "http://cdn.jsdelivr.net/sockjs/0.3.4/sockjs.min.js")
            | ("organization_name" | "updates_check", _)
    ) || value.is_empty()
        || value.starts_with("ipc://")
}
