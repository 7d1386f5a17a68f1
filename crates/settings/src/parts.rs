//! The parts of the suite, and the names that `services` has for them.

/// A process of the suite.
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

/// All of them, in the order of their start: those that others connect to come first.
pub const PARTS: [Part; 4] = [Part::Frontend, Part::Outbound, Part::Proxy, Part::Handler];

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
    pub(crate) fn named(name: &str) -> Option<&'static [Self]> {
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

/// The parts that `services` names; all when it names none.
///
/// Lists of older Pushpins have no word for what connects to backends, because it was a service of the system. Ours is
/// started with the proxy all the same, unless `elsewhere` says that the configuration has the addresses of another one.
pub(crate) fn named(names: &[String], elsewhere: bool) -> Result<Vec<Part>, String> {
    let mut found = Vec::new();
    for name in names {
        found.extend(Part::named(name).ok_or_else(|| {
            format!("`{name}` is unknown; leave services empty, or name some of frontend, outbound, proxy, handler")
        })?);
    }
    if found.contains(&Part::Proxy) && !elsewhere {
        found.push(Part::Outbound);
    }
    Ok(PARTS.into_iter().filter(|part| names.is_empty() || found.contains(part)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(services: &[&str]) -> Vec<Part> {
        let services: Vec<String> = services.iter().map(|s| s.to_string()).collect();
        named(&services, false).unwrap()
    }

    #[test]
    fn lists_of_all_generations_start_the_whole_suite() {
        assert_eq!(parts(&[]), PARTS);
        assert_eq!(parts(&["connmgr", "proxy", "handler"]), PARTS);
        assert_eq!(parts(&["condure", "zurl", "pushpin-proxy", "pushpin-handler"]), PARTS);
        assert_eq!(parts(&["mongrel2", "m2adapter", "zurl", "pushpin-proxy", "pushpin-handler"]), PARTS);
        assert_eq!(parts(&["mongrel2", "m2adapter", "pushpin-proxy", "pushpin-handler"]), PARTS);
    }

    #[test]
    fn a_part_of_the_suite_can_be_left_out() {
        assert_eq!(parts(&["frontend", "handler"]), [Part::Frontend, Part::Handler]);
        let elsewhere = named(&["proxy".into(), "handler".into()], true).unwrap();
        assert_eq!(elsewhere, [Part::Proxy, Part::Handler]);
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        assert!(named(&["nginx".into()], false).unwrap_err().contains("`nginx`"));
    }
}
