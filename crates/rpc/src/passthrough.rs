// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the first packet of an internal request carries: a request that the handler itself makes, by way of the proxy, for
//! next and gone links and for filters (internal RPC, internal HTTP requests). The value of ZHTTP's `passthrough`.

use serde::{Deserialize, Serialize};

use crate::{Error, is_false};

/// How the proxy is to treat the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Passthrough<'a> {
    /// Id of the route by which the client came that the request is made for.
    #[serde(borrow)]
    pub route: &'a str,
    /// The address is that of the site itself, so the targets of the route have it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub prefer_internal: bool,
    /// An address outside of the route may be on a private network.
    #[serde(default, skip_serializing_if = "is_false")]
    pub trusted: bool,
    /// Equal requests may share one request to the backend.
    #[serde(default)]
    pub auto_share: bool,
}

impl<'a> Passthrough<'a> {
    /// Reads the payload of the map.
    ///
    /// # Errors
    /// The route is missing, or something has another type.
    pub fn decode(payload: &'a [u8]) -> Result<Self, Error> {
        tnetstring::from_item(tnetstring::Item { kind: tnetstring::Kind::Map, payload })
    }

    /// Writes the payload of the map.
    pub fn encode(&self) -> Vec<u8> {
        // A map of a text and flags is not nested too deep.
        let whole = tnetstring::to_vec(self).unwrap_or_default();
        tnetstring::split(&whole).map(|(item, _)| item.payload.to_vec()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_map_with_the_names_that_pushpin_has() {
        let link = Passthrough { route: "r", prefer_internal: true, trusted: false, auto_share: true };
        let payload = link.encode();
        assert_eq!(payload, b"5:route,1:r,15:prefer-internal,4:true!10:auto-share,4:true!");
        assert_eq!(Passthrough::decode(&payload), Ok(link));
    }

    #[test]
    fn a_route_is_needed_and_the_rest_is_not() {
        assert_eq!(Passthrough::decode(b"5:route,1:r,"), Ok(Passthrough { route: "r", ..Passthrough::default() }));
        assert!(Passthrough::decode(b"").is_err());
        assert!(Passthrough::decode(b"5:route,1:1#").is_err());
    }
}
