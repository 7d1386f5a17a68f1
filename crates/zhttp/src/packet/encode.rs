// SPDX-License-Identifier: AGPL-3.0-or-later
//! From a packet to bytes.

use std::io::Write;

use tnetstring::{Item, Kind as Type, Writer};

use super::{Kind, Packet};

impl Packet<'_> {
    /// Writes the packet into `out`, which is emptied first, and returns its bytes. With `to`, they begin with the
    /// receiving instance and a space, as PUB sockets need it.
    pub fn encode<'w>(&self, to: Option<&[u8]>, out: &'w mut Writer) -> &'w [u8] {
        out.clear();
        let map = out.mark();
        // Back to front, so what a receiver wants first is written last.
        if let Some(map) = self.passthrough {
            let mark = out.mark();
            out.raw(map);
            out.map(mark);
            out.bytes(b"passthrough");
        }
        if !self.body.is_empty() {
            entry(out, "body", self.body);
        }
        maybe(out, "peer-port", self.peer_port);
        maybe_bytes(out, "peer-address", self.peer_address);
        maybe_bytes(out, "client-key", self.client_key);
        maybe_bytes(out, "client-cert", self.client_cert);
        when(out, "ignore-tls-errors", self.ignore_tls_errors);
        when(out, "trust-connect-host", self.trust_connect_host);
        when(out, "ignore-policies", self.ignore_policies);
        maybe(out, "connect-port", self.connect_port);
        maybe_bytes(out, "connect-host", self.connect_host);
        maybe(out, "timeout", self.timeout.map(|n| n.min(i64::MAX as u64) as i64));
        maybe(out, "max-size", self.max_size.map(|n| n.min(i64::MAX as u64) as i64));
        if let Some(user_data) = self.user_data {
            verbatim(out, user_data);
            out.bytes(b"user-data");
        }
        maybe_bytes(out, "content-type", self.content_type);
        self.headers.encode(out);
        maybe_bytes(out, "reason", self.reason);
        maybe(out, "code", self.code);
        maybe_bytes(out, "uri", self.uri);
        maybe_bytes(out, "method", self.method);
        when(out, "router-resp", self.router_resp);
        when(out, "stream", self.stream);
        when(out, "more", self.more);
        maybe(out, "credits", self.credits);
        maybe_bytes(out, "condition", self.condition);
        if self.kind != Kind::Data {
            entry(out, "type", self.kind.name().as_bytes());
        }
        self.ext.encode(out);
        self.ids.encode(out);
        if !self.from.is_empty() {
            entry(out, "from", self.from);
        }
        out.map(map);
        out.raw(b"T");
        if let Some(to) = to {
            out.raw(b" ");
            out.raw(to);
        }
        out.as_slice()
    }
}

pub(super) fn entry(out: &mut Writer, key: &str, value: &[u8]) {
    out.bytes(value);
    out.bytes(key.as_bytes());
}

fn maybe_bytes(out: &mut Writer, key: &str, value: Option<&[u8]>) {
    if let Some(value) = value {
        entry(out, key, value);
    }
}

pub(super) fn maybe(out: &mut Writer, key: &str, value: Option<impl Into<i64>>) {
    if let Some(value) = value {
        out.int(value.into());
        out.bytes(key.as_bytes());
    }
}

/// Writes a value as it was received.
fn verbatim(out: &mut Writer, value: Item<'_>) {
    match value.kind {
        Type::Bytes => out.bytes(value.payload),
        Type::List => {
            let mark = out.mark();
            out.raw(value.payload);
            out.list(mark);
        }
        Type::Map => {
            let mark = out.mark();
            out.raw(value.payload);
            out.map(mark);
        }
        Type::Null => out.null(),
        Type::Int | Type::Float | Type::Bool => {
            out.raw(&[value.kind.type_byte()]);
            out.raw(value.payload);
            let mut prefix = [0; 21];
            let mut rest = &mut prefix[..];
            // 20 digits and a colon have room.
            let _ = write!(rest, "{}:", value.payload.len());
            let left = rest.len();
            out.raw(&prefix[..21 - left]);
        }
    }
}

/// Flags stand in a packet only when they are true.
fn when(out: &mut Writer, key: &str, value: bool) {
    if value {
        out.bool(true);
        out.bytes(key.as_bytes());
    }
}
