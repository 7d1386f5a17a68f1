// SPDX-License-Identifier: AGPL-3.0-or-later
//! Other programs in place of our frontend and outbound process: where the file says that they are.

use crate::error::Error;
use crate::part::Part;
use crate::services::Services;
use crate::source::Source;
use crate::specs::{FrontendSpecs, OutboundSpecs};
use crate::values::Values;

/// Sockets of another program in place of our frontend or outbound process, by any of the names they had. All empty when
/// nothing was written: then ours are meant.
#[derive(Default)]
pub(super) struct Replaced {
    pub(super) first: Vec<String>,
    pub(super) stream: Vec<String>,
    pub(super) back: Vec<String>,
}

impl Replaced {
    fn client(values: &Values) -> Result<Self, Error> {
        let mongrel = values.list("runner", "services")?.iter().any(|s| s == "mongrel2");
        let names: &[&str] = if mongrel { &["m2a"] } else { &["connmgr", "condure"] };
        Self::collect(values, names, ["in_specs", "in_stream_specs", "out_specs"])
    }

    fn origin(values: &Values) -> Result<Self, Error> {
        let zurl = Self::collect(values, &["zurl"], ["out_specs", "out_stream_specs", "in_specs"])?;
        if !zurl.first.is_empty() {
            return Ok(zurl);
        }
        let names = ["connmgr_client", "condure_client"];
        Self::collect(values, &names, ["out_specs", "out_stream_specs", "in_specs"])
    }

    /// The sockets of frontend process `number`, if there are as many.
    pub(super) fn frontend(&self, number: usize) -> Option<FrontendSpecs> {
        let of = |all: &[String]| all.get(number).cloned();
        Some(FrontendSpecs { out: of(&self.first)?, out_stream: of(&self.stream)?, input: of(&self.back)? })
    }

    /// The sockets of the outbound process.
    pub(super) fn outbound(&self) -> Option<OutboundSpecs> {
        let of = |all: &[String]| all.first().cloned();
        Some(OutboundSpecs { input: of(&self.first)?, in_stream: of(&self.stream)?, out: of(&self.back)? })
    }

    fn collect(values: &Values, names: &[&str], kinds: [&str; 3]) -> Result<Self, Error> {
        let all = |kind: &str| -> Result<Vec<String>, Error> {
            let mut found = Vec::new();
            for name in names {
                found.extend(values.specs("proxy", &format!("{name}_{kind}"))?);
            }
            Ok(found)
        };
        Ok(Self { first: all(kinds[0])?, stream: all(kinds[1])?, back: all(kinds[2])? })
    }
}

/// Addresses in the file for the sides of clients and of backends. None for those that our runner starts itself: it gives them
/// names of its own.
pub(super) fn of(values: &Values, source: &Source, services: &Services) -> Result<(Replaced, Replaced), Error> {
    let started = |part, key| -> Result<bool, Error> {
        let named = values.optional_text("runner", key)?.is_none();
        Ok(source.supervised && services.parts.contains(&part) && named)
    };
    let client = if started(Part::Frontend, "frontend_bin")? { Replaced::default() } else { Replaced::client(values)? };
    let origin = if started(Part::Outbound, "outbound_bin")? { Replaced::default() } else { Replaced::origin(values)? };
    Ok((client, origin))
}
