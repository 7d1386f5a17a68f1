// SPDX-License-Identifier: AGPL-3.0-or-later
//! What `services` asks for: parts of the suite, and which of them are programs of Pushpin's.

use crate::original::{Original, Originals};
use crate::part::{PARTS, Part};

/// What `services` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Services {
    /// Parts to start.
    pub(crate) parts: Vec<Part>,
    /// Those of them that are programs of Pushpin's.
    pub(crate) originals: Originals,
    /// Programs of Pushpin's that are named but not installed, so that ours take their place.
    pub(crate) missing: Vec<Original>,
}

impl Services {
    /// The parts that `services` names; all when it names none.
    ///
    /// Lists of older Pushpins have no word for what connects to backends, because it was a service of the system. Ours is
    /// started with the proxy all the same, unless `elsewhere` says that the configuration has the addresses of another one.
    pub(crate) fn named(
        names: &[String],
        elsewhere: bool,
        installed: impl Fn(Original) -> bool,
    ) -> Result<Self, String> {
        let (mut found, mut own) = (Vec::new(), Vec::new());
        let mut services = Self::default();
        for name in names {
            let name = name.strip_prefix("pushpin-").unwrap_or(name);
            if let Some(part) = Part::named(name) {
                found.push(part);
                own.push((part, name));
                continue;
            }
            let original = Original::named(name).ok_or_else(|| {
                format!("`{name}` is unknown; leave services empty, or name some of frontend, outbound, proxy, handler")
            })?;
            found.extend(original.parts());
            if !installed(original) {
                if !services.missing.contains(&original) {
                    services.missing.push(original);
                }
            } else if let Err(other) = services.originals.put(original) {
                return Err(format!("{} and {} do the same; name one of them", other.name(), original.name()));
            }
        }
        for (part, name) in own {
            if let Some(other) = services.originals.of(part) {
                return Err(format!("{} and {name} do the same; name one of them", other.name()));
            }
        }
        if found.contains(&Part::Proxy) && !elsewhere {
            found.push(Part::Outbound);
        }
        services.parts = PARTS.into_iter().filter(|part| names.is_empty() || found.contains(part)).collect();
        Ok(services)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(names: &[&str], installed: &[Original]) -> Result<Services, String> {
        let names: Vec<String> = names.iter().map(|s| s.to_string()).collect();
        Services::named(&names, false, |original| installed.contains(&original))
    }

    fn parts(names: &[&str]) -> Vec<Part> {
        services(names, &[]).unwrap().parts
    }

    #[test]
    fn lists_of_all_generations_start_the_whole_suite() {
        assert_eq!(parts(&[]), PARTS);
        assert_eq!(parts(&["connmgr", "proxy", "handler"]), PARTS);
        assert_eq!(parts(&["condure", "zurl", "pushpin-proxy", "pushpin-handler"]), PARTS);
        assert_eq!(parts(&["condure", "pushpin-proxy", "pushpin-handler"]), PARTS);
        assert_eq!(parts(&["mongrel2", "m2adapter", "zurl", "pushpin-proxy", "pushpin-handler"]), PARTS);
        assert_eq!(parts(&["mongrel2", "m2adapter", "pushpin-proxy", "pushpin-handler"]), PARTS);
    }

    #[test]
    fn a_part_of_the_suite_can_be_left_out() {
        assert_eq!(parts(&["frontend", "handler"]), [Part::Frontend, Part::Handler]);
        let elsewhere = Services::named(&["proxy".into(), "handler".into()], true, |_| false).unwrap();
        assert_eq!(elsewhere.parts, [Part::Proxy, Part::Handler]);
    }

    #[test]
    fn programs_of_pushpin_are_used_where_they_are_installed() {
        let all = ["condure", "zurl", "pushpin-proxy", "pushpin-handler"];
        let found = services(&all, &[Original::Zurl]).unwrap();
        assert_eq!(found.parts, PARTS);
        assert_eq!(found.originals.of(Part::Outbound), Some(Original::Zurl));
        assert_eq!(found.originals.of(Part::Frontend), None);
        assert_eq!(found.missing, [Original::Condure]);
        let mongrel = services(&["mongrel2", "m2adapter", "proxy", "handler"], &[Original::Mongrel2]).unwrap();
        assert_eq!(mongrel.originals.of(Part::Frontend), Some(Original::Mongrel2));
        let connmgr = services(&["connmgr", "proxy", "handler"], &[Original::Connmgr]).unwrap();
        assert_eq!(connmgr.originals.of(Part::Outbound), Some(Original::Connmgr));
    }

    #[test]
    fn two_programs_for_one_part_are_an_error() {
        let error = services(&["condure", "mongrel2"], &[Original::Condure, Original::Mongrel2]).unwrap_err();
        assert_eq!(error, "condure and mongrel2 do the same; name one of them");
        assert!(services(&["connmgr", "zurl"], &[Original::Connmgr, Original::Zurl]).is_ok());
        let error = services(&["frontend", "condure"], &[Original::Condure]).unwrap_err();
        assert_eq!(error, "condure and frontend do the same; name one of them");
        assert!(services(&["frontend", "condure"], &[]).is_ok());
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        assert!(services(&["nginx"], &[]).unwrap_err().contains("`nginx`"));
    }
}
