// SPDX-License-Identifier: AGPL-3.0-or-later
//! `{rundir}` and the like in values of a configuration.

use crate::raw::Raw;
use crate::source::Source;
use crate::table;

/// What the variables stand for.
#[derive(Clone, Debug)]
pub(crate) struct Variables {
    pub(crate) rundir: String,
    pub(crate) ipc_prefix: String,
    pub(crate) libdir: String,
}

impl Variables {
    /// From the file, but for what the command line says.
    pub(crate) fn of(raw: &Raw, source: &Source) -> Self {
        let item = |section, key| raw.item(section, key).unwrap_or_default().to_string();
        let default = |key| table::find("global", key).map_or("", |setting| setting.default);
        let written = |section, key| raw.entry(section, key).map(|_| item(section, key));
        let rundir = written("global", "rundir").or_else(|| raw.item("runner", "rundir").map(str::to_string));
        let on_command_line = source.ipc_prefix.clone().filter(|prefix| !prefix.is_empty());
        Self {
            rundir: rundir.unwrap_or_else(|| default("rundir").into()),
            ipc_prefix: on_command_line
                .or_else(|| written("global", "ipc_prefix"))
                .unwrap_or_else(|| default("ipc_prefix").into()),
            libdir: item("global", "libdir"),
        }
    }

    pub(crate) fn fill_in(&self, value: &str) -> String {
        let value = value.replace("{libdir}", &self.libdir);
        value.replace("{rundir}", &self.rundir).replace("{ipc_prefix}", &self.ipc_prefix)
    }
}
