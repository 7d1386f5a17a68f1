// SPDX-License-Identifier: AGPL-3.0-or-later
//! Programs of Pushpin's that the runner can start in the place of ours, and where they are.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::part::Part;
use crate::specs::{FrontendSpecs, OutboundSpecs};

/// Programs of Pushpin's that do the work of a frontend or an outbound process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Original {
    /// `condure`, the frontend of Pushpin 1.30 to 1.37.
    Condure,
    /// `pushpin-connmgr`, which Pushpin has since 1.38: both sides in one.
    Connmgr,
    /// `mongrel2` with `m2adapter`, the frontend before.
    Mongrel2,
    /// `zurl`, the outbound process before 1.38.
    Zurl,
}

/// Which parts are programs of Pushpin's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Originals {
    frontend: Option<Original>,
    outbound: Option<Original>,
}

impl Original {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "condure" => Self::Condure,
            "connmgr" => Self::Connmgr,
            "mongrel2" | "m2adapter" => Self::Mongrel2,
            "zurl" => Self::Zurl,
            _ => return None,
        })
    }

    /// Its name in `services`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Condure => "condure",
            Self::Connmgr => "connmgr",
            Self::Mongrel2 => "mongrel2",
            Self::Zurl => "zurl",
        }
    }

    /// What it does the work of.
    pub(crate) fn parts(self) -> &'static [Part] {
        match self {
            Self::Condure | Self::Mongrel2 => &[Part::Frontend],
            Self::Zurl => &[Part::Outbound],
            Self::Connmgr => &[Part::Frontend, Part::Outbound],
        }
    }

    /// The settings of `[runner]` that name its programs.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Condure => &["condure_bin"],
            Self::Connmgr => &["connmgr_bin"],
            Self::Mongrel2 => &["mongrel2_bin", "m2sh_bin", "m2adapter_bin"],
            Self::Zurl => &["zurl_bin"],
        }
    }

    /// The sockets that it binds as a frontend, under `base`.
    pub(crate) fn frontend_specs(self, base: &str) -> Vec<FrontendSpecs> {
        let names: &[&str] = match self {
            Self::Condure => &["condure"],
            Self::Connmgr => &["connmgr"],
            // Of m2adapter: it has sockets of their own for WebSockets.
            Self::Mongrel2 => &["m2zhttp", "m2zws"],
            Self::Zurl => &[],
        };
        names.iter().map(|name| FrontendSpecs::named(base, name)).collect()
    }

    /// The sockets that it binds towards those who want something of backends.
    pub(crate) fn outbound_specs(self, base: &str) -> OutboundSpecs {
        let name = if self == Self::Connmgr { "connmgr-client" } else { "zurl" };
        OutboundSpecs::named(base, name)
    }
}

impl Originals {
    /// The program for a part, if it is one of Pushpin's.
    pub fn of(&self, part: Part) -> Option<Original> {
        match part {
            Part::Frontend => self.frontend,
            Part::Outbound => self.outbound,
            Part::Proxy | Part::Handler => None,
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Original> {
        let second = self.outbound.filter(|original| self.frontend != Some(*original));
        self.frontend.into_iter().chain(second)
    }

    /// Adds one. Fails with the one that does the same; `zurl` beside `connmgr` is what Pushpin 2.0 allows.
    pub(crate) fn put(&mut self, original: Original) -> Result<(), Original> {
        for part in original.parts() {
            let place = if *part == Part::Frontend { &mut self.frontend } else { &mut self.outbound };
            match *place {
                Some(other) if other == original || (other, original) == (Original::Zurl, Original::Connmgr) => {}
                Some(Original::Connmgr) if original == Original::Zurl => *place = Some(original),
                Some(other) => return Err(other),
                None => *place = Some(original),
            }
        }
        Ok(())
    }
}

/// Where programs are, by the setting that names them.
pub(crate) type Programs = BTreeMap<String, String>;

/// The file that is meant by the name of a program: a path, or one in a directory of `PATH`. None if it is not there.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let is_program = |path: &Path| {
        let found = std::fs::metadata(path);
        found.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| is_program(path));
    }
    let directories = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&directories).map(|directory| directory.join(name)).find(|path| is_program(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_path_and_by_name() {
        assert_eq!(find_program("/bin/sh"), Some("/bin/sh".into()));
        assert!(find_program("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find_program("/bin/no-such-program"), None);
        assert_eq!(find_program("no-such-program"), None);
        assert_eq!(find_program("/etc/passwd"), None);
    }

    #[test]
    fn they_bind_the_names_that_pushpin_has_for_them() {
        let mongrel = Original::Mongrel2.frontend_specs("ipc://r/p-");
        assert_eq!(mongrel[1].out_stream, "ipc://r/p-m2zws-out-stream");
        assert_eq!(Original::Zurl.outbound_specs("ipc://r/p-").in_stream, "ipc://r/p-zurl-in-stream");
    }
}
