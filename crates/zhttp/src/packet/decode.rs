// SPDX-License-Identifier: AGPL-3.0-or-later
//! From bytes to a packet.

use tnetstring::Item;

use super::field::{DecodeError, flag, map_payload, number, text};
use super::{Ext, Headers, Ids, Kind, Packet};

impl<'a> Packet<'a> {
    /// Reads a packet, format byte included.
    ///
    /// # Errors
    /// The message is no packet, or a known field has a wrong type. Unknown fields are ignored, of a repeated field the
    /// last counts, and numbers may also be written as strings of digits, as some originals do.
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let Some((b'T', encoded)) = message.split_first() else { return Err(DecodeError::Format) };
        let (map, _) = tnetstring::split(encoded)?;
        let mut packet = Packet::default();
        let (mut id, mut seq) = (None, None);
        for entry in map.entries()? {
            let (key, value) = entry?;
            match key {
                b"from" => packet.from = text(value, "from")?,
                b"id" => id = Some(value),
                b"seq" => seq = Some(number(value, "seq")?),
                b"type" => packet.kind = Kind::parse(text(value, "type")?).ok_or(DecodeError::Field("type"))?,
                b"condition" => packet.condition = Some(text(value, "condition")?),
                b"credits" => packet.credits = Some(credits(value)?),
                b"more" => packet.more = flag(value, "more")?,
                b"stream" => packet.stream = flag(value, "stream")?,
                b"router-resp" => packet.router_resp = flag(value, "router-resp")?,
                b"ext" => packet.ext = Ext::decode(value)?,
                b"max-size" => packet.max_size = Some(number(value, "max-size")?),
                b"timeout" => packet.timeout = Some(number(value, "timeout")?),
                b"method" => packet.method = Some(text(value, "method")?),
                b"uri" => packet.uri = Some(text(value, "uri")?),
                b"headers" => packet.headers = Headers::decode(value)?,
                b"code" => packet.code = Some(number(value, "code")?),
                b"reason" => packet.reason = Some(text(value, "reason")?),
                b"content-type" => packet.content_type = Some(text(value, "content-type")?),
                b"body" => packet.body = text(value, "body")?,
                b"user-data" => packet.user_data = Some(value),
                b"peer-address" => packet.peer_address = Some(text(value, "peer-address")?),
                b"peer-port" => packet.peer_port = Some(number(value, "peer-port")?),
                b"connect-host" => packet.connect_host = Some(text(value, "connect-host")?),
                b"connect-port" => packet.connect_port = Some(number(value, "connect-port")?),
                b"ignore-policies" => packet.ignore_policies = flag(value, "ignore-policies")?,
                b"trust-connect-host" => packet.trust_connect_host = flag(value, "trust-connect-host")?,
                b"ignore-tls-errors" => packet.ignore_tls_errors = flag(value, "ignore-tls-errors")?,
                b"client-cert" => packet.client_cert = Some(text(value, "client-cert")?),
                b"client-key" => packet.client_key = Some(text(value, "client-key")?),
                b"passthrough" => packet.passthrough = Some(map_payload(value, "passthrough")?),
                _ => {}
            }
        }
        packet.ids = Ids::decode(id, seq)?;
        Ok(packet)
    }
}

fn credits(value: Item<'_>) -> Result<u32, DecodeError> {
    number::<i64>(value, "credits").map(|n| n.clamp(0, i64::from(u32::MAX)) as u32)
}
