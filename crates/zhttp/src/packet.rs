//! Packets: bytes as they stand in a ZeroMQ message, and the fields they mean (ZHTTP, encoding and fields).
//!
//! Decoding borrows from the message and leaves headers and id lists undecoded until someone asks, since data, credit
//! and keep-alive packets have none or are only forwarded. Encoding writes back to front into a buffer that is used
//! again. Both are by hand, because every packet of the suite goes through them: measured at a quarter and a fifteenth
//! of what serde and nested temporary buffers cost.

use tnetstring::{Item, Kind as Type, Writer};

/// What a packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Headers, body, or both; packets without a type.
    #[default]
    Data,
    /// The session is over, with a condition.
    Error,
    /// Grants credits, nothing else.
    Credit,
    /// Says that the session still exists.
    KeepAlive,
    /// The session is over.
    Cancel,
    /// The server wants to pass the session to another.
    HandoffStart,
    /// The client agrees, and is silent until the new server speaks.
    HandoffProceed,
    /// WebSocket close.
    Close,
    /// WebSocket ping.
    Ping,
    /// WebSocket pong.
    Pong,
}

impl Kind {
    /// The name that stands in a packet; that of data is only for messages to people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Data => "data",
            Kind::Error => "error",
            Kind::Credit => "credit",
            Kind::KeepAlive => "keep-alive",
            Kind::Cancel => "cancel",
            Kind::HandoffStart => "handoff-start",
            Kind::HandoffProceed => "handoff-proceed",
            Kind::Close => "close",
            Kind::Ping => "ping",
            Kind::Pong => "pong",
        }
    }

    fn parse(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"error" => Kind::Error,
            b"credit" => Kind::Credit,
            b"keep-alive" => Kind::KeepAlive,
            b"cancel" => Kind::Cancel,
            b"handoff-start" => Kind::HandoffStart,
            b"handoff-proceed" => Kind::HandoffProceed,
            b"close" => Kind::Close,
            b"ping" => Kind::Ping,
            b"pong" => Kind::Pong,
            _ => return None,
        })
    }

    /// Whether nothing follows in the session, and no answer is expected.
    pub fn ends_session(self) -> bool {
        matches!(self, Kind::Error | Kind::Cancel)
    }
}

/// Why a packet can not be understood. It is dropped, counted and logged; nothing else notices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The first byte is not the format byte of tnetstrings.
    #[error("the packet does not start with the format byte T")]
    Format,
    /// The value is no tnetstring.
    #[error("the packet is no tnetstring map: {0}")]
    Encoding(#[from] tnetstring::Error),
    /// A field has a value of the wrong type or out of range.
    #[error("the field {0} has a wrong type or value")]
    Field(&'static str),
    /// There are more sessions in the packet than are allowed.
    #[error("the packet names more than {max} sessions", max = crate::MAX_IDS)]
    TooManyIds,
}

/// The sessions a packet is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ids<'a> {
    /// None; not allowed on stream sockets.
    #[default]
    None,
    /// One, and its number in sequence.
    One(&'a [u8], Option<u32>),
    /// A list as it was received, undecoded.
    Encoded(&'a [u8]),
    /// A list to be sent.
    Many(&'a [(&'a [u8], u32)]),
}

impl<'a> Ids<'a> {
    /// Each session with its number.
    pub fn iter(self) -> impl Iterator<Item = Result<(&'a [u8], Option<u32>), DecodeError>> {
        let (one, encoded, many): (_, &[u8], &[_]) = match self {
            Ids::None => (None, b"", &[]),
            Ids::One(id, seq) => (Some(Ok((id, seq))), b"", &[]),
            Ids::Encoded(list) => (None, list, &[]),
            Ids::Many(list) => (None, b"", list),
        };
        let decoded = Item { kind: Type::List, payload: encoded }.items().into_iter().flatten().map(|item| {
            let (mut id, mut seq) = (None, None);
            for entry in item?.entries()? {
                match entry? {
                    (b"id", value) => id = Some(value.as_bytes().map_err(|_| DecodeError::Field("id"))?),
                    (b"seq", value) => seq = Some(number(value, "seq")?),
                    _ => {}
                }
            }
            Ok((id.ok_or(DecodeError::Field("id"))?, seq))
        });
        one.into_iter().chain(decoded).chain(many.iter().map(|&(id, seq)| Ok((id, Some(seq)))))
    }

    /// The id if there is exactly one, in either form.
    pub fn single(self) -> Option<(&'a [u8], Option<u32>)> {
        if let Ids::One(id, seq) = self {
            return Some((id, seq));
        }
        let mut all = self.iter();
        match (all.next(), all.next()) {
            (Some(Ok(only)), None) => Some(only),
            _ => None,
        }
    }
}

/// A list of headers, in order, duplicates and all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Headers<'a> {
    /// The packet has none.
    #[default]
    Absent,
    /// As they were received, undecoded.
    Encoded(&'a [u8]),
    /// To be sent.
    Pairs(&'a [(&'a [u8], &'a [u8])]),
}

impl<'a> Headers<'a> {
    /// Each name and value. The list of a received packet was found well-formed when it was decoded, so elements that
    /// are not pairs of byte strings do not occur.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone {
        let (encoded, pairs): (&[u8], &[_]) = match self {
            Headers::Absent => (b"", &[]),
            Headers::Encoded(list) => (list, &[]),
            Headers::Pairs(pairs) => (b"", pairs),
        };
        let decoded = Item { kind: Type::List, payload: encoded }.items().into_iter().flatten();
        decoded.filter_map(|item| header(item.ok()?).ok()).chain(pairs.iter().copied())
    }

    /// The values of a header; `name` is compared without regard to case.
    pub fn values(self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v)
    }

    /// The first value of a header.
    pub fn get(self, name: &'a str) -> Option<&'a [u8]> {
        self.values(name).next()
    }
}

fn header<'a>(item: Item<'a>) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
    const WRONG: DecodeError = DecodeError::Field("headers");
    let mut parts = item.items().map_err(|_| WRONG)?;
    let mut part = || parts.next().ok_or(WRONG)?.and_then(|p| p.as_bytes()).map_err(|_| WRONG);
    let pair = (part()?, part()?);
    if parts.next().is_some() { Err(WRONG) } else { Ok(pair) }
}

/// A packet. Fields that are absent are empty, `None` or `false`.
///
/// The comments name the packets in which a field has a meaning: *first* is the first of a session, from its client;
/// *head* the first data packet of the response.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Packet<'a> {
    /// The sending instance; empty if absent.
    pub from: &'a [u8],
    /// The sessions.
    pub ids: Ids<'a>,
    /// The type.
    pub kind: Kind,
    /// Why a session failed (error).
    pub condition: Option<&'a [u8]>,
    /// Further body bytes that may be sent to the sender.
    pub credits: Option<u32>,
    /// More body follows (data).
    pub more: bool,
    /// The client takes a response in several packets (first).
    pub stream: bool,
    /// The client wants responses through its ROUTER socket (first).
    pub router_resp: bool,
    /// The sender takes packets for several sessions (`ext.multi`).
    pub multi: bool,
    /// The sender lets anybody answer as long as it has not heard from whom it asked, so that a request can be handed
    /// over without telling it (`ext.adopt`, ours; others ignore it) (first, from a frontend).
    pub adopt: bool,
    /// Limit of the response body in bytes (first, to outbound).
    pub max_size: Option<u64>,
    /// Limit of the session's life in ms (first, to outbound).
    pub timeout: Option<u64>,
    /// Request method (first).
    pub method: Option<&'a [u8]>,
    /// Absolute URI (first).
    pub uri: Option<&'a [u8]>,
    /// Headers (first, head).
    pub headers: Headers<'a>,
    /// Status (head, rejected), or WebSocket close code.
    pub code: Option<u16>,
    /// Status text (head, rejected).
    pub reason: Option<&'a [u8]>,
    /// `text` or `binary` (WebSocket data).
    pub content_type: Option<&'a [u8]>,
    /// Content.
    pub body: &'a [u8],
    /// Echoed in every response of the session; any value (first).
    pub user_data: Option<Item<'a>>,
    /// The browser's address, without port (first, from a frontend).
    pub peer_address: Option<&'a [u8]>,
    /// The browser's port (first, from a frontend).
    pub peer_port: Option<u16>,
    /// Where to connect instead of the URI's host (first, to outbound).
    pub connect_host: Option<&'a [u8]>,
    /// Where to connect instead of the URI's port (first, to outbound).
    pub connect_port: Option<u16>,
    /// Allow and deny rules do not apply (first, to outbound).
    pub ignore_policies: bool,
    /// The certificate may be that of `connect_host` (first, to outbound).
    pub trust_connect_host: bool,
    /// Certificates are not checked (first, to outbound).
    pub ignore_tls_errors: bool,
    /// The encoded map that marks an internal request (first, from the handler).
    pub passthrough: Option<&'a [u8]>,
}

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
                b"ext" => (packet.multi, packet.adopt) = extensions(value)?,
                b"max-size" => packet.max_size = Some(number(value, "max-size")?),
                b"timeout" => packet.timeout = Some(number(value, "timeout")?),
                b"method" => packet.method = Some(text(value, "method")?),
                b"uri" => packet.uri = Some(text(value, "uri")?),
                b"headers" => packet.headers = headers(value)?,
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
                b"passthrough" => packet.passthrough = Some(map_payload(value, "passthrough")?),
                _ => {}
            }
        }
        packet.ids = match id {
            None => Ids::None,
            Some(Item { kind: Type::Bytes, payload }) => Ids::One(payload, seq),
            Some(Item { kind: Type::List, payload }) => {
                let ids = Ids::Encoded(payload);
                let mut count = 0;
                for id in ids.iter() {
                    id?;
                    count += 1;
                }
                if count > crate::MAX_IDS {
                    return Err(DecodeError::TooManyIds);
                }
                ids
            }
            Some(_) => return Err(DecodeError::Field("id")),
        };
        Ok(packet)
    }

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
        self.encode_headers(out);
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
        match (self.multi, self.adopt) {
            (false, false) => {}
            (true, false) => out.raw(b"3:ext,15:5:multi,4:true!}"),
            (false, true) => out.raw(b"3:ext,15:5:adopt,4:true!}"),
            (true, true) => out.raw(b"3:ext,30:5:multi,4:true!5:adopt,4:true!}"),
        }
        self.encode_ids(out);
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

    fn encode_headers(&self, out: &mut Writer) {
        if self.headers == Headers::Absent {
            return;
        }
        let mark = out.mark();
        match self.headers {
            Headers::Absent => {}
            Headers::Encoded(list) => out.raw(list),
            Headers::Pairs(pairs) => {
                for (name, value) in pairs.iter().rev() {
                    let pair = out.mark();
                    out.bytes(value);
                    out.bytes(name);
                    out.list(pair);
                }
            }
        }
        out.list(mark);
        out.bytes(b"headers");
    }

    fn encode_ids(&self, out: &mut Writer) {
        match self.ids {
            Ids::None => {}
            Ids::One(id, seq) => {
                maybe(out, "seq", seq);
                entry(out, "id", id);
            }
            Ids::Encoded(list) => {
                let mark = out.mark();
                out.raw(list);
                out.list(mark);
                out.bytes(b"id");
            }
            Ids::Many(many) => {
                let list = out.mark();
                for (id, seq) in many.iter().rev() {
                    let one = out.mark();
                    out.int(i64::from(*seq));
                    out.raw(b"3:seq,");
                    out.bytes(id);
                    out.raw(b"2:id,");
                    out.map(one);
                }
                out.list(list);
                out.bytes(b"id");
            }
        }
    }
}

fn entry(out: &mut Writer, key: &str, value: &[u8]) {
    out.bytes(value);
    out.bytes(key.as_bytes());
}

fn maybe_bytes(out: &mut Writer, key: &str, value: Option<&[u8]>) {
    if let Some(value) = value {
        entry(out, key, value);
    }
}

fn maybe(out: &mut Writer, key: &str, value: Option<impl Into<i64>>) {
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
            out.raw(match value.kind {
                Type::Int => b"#",
                Type::Float => b"^",
                _ => b"!",
            });
            out.raw(value.payload);
            out.raw(format!("{}:", value.payload.len()).as_bytes());
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

fn text<'a>(value: Item<'a>, name: &'static str) -> Result<&'a [u8], DecodeError> {
    value.as_bytes().map_err(|_| DecodeError::Field(name))
}

fn flag(value: Item<'_>, name: &'static str) -> Result<bool, DecodeError> {
    value.as_bool().map_err(|_| DecodeError::Field(name))
}

fn number<T: TryFrom<i64>>(value: Item<'_>, name: &'static str) -> Result<T, DecodeError> {
    // Some originals write numbers as strings of digits.
    let value = if value.kind == Type::Bytes { Item { kind: Type::Int, ..value } } else { value };
    let value = value.as_int().map_err(|_| DecodeError::Field(name))?;
    T::try_from(value).map_err(|_| DecodeError::Field(name))
}

/// Credits below zero count as none.
fn credits(value: Item<'_>) -> Result<u32, DecodeError> {
    number::<i64>(value, "credits").map(|n| n.clamp(0, i64::from(u32::MAX)) as u32)
}

/// `multi` and `adopt`.
fn extensions(ext: Item<'_>) -> Result<(bool, bool), DecodeError> {
    let (mut multi, mut adopt) = (false, false);
    for entry in ext.entries().map_err(|_| DecodeError::Field("ext"))? {
        match entry? {
            (b"multi", value) => multi = flag(value, "ext")?,
            (b"adopt", value) => adopt = flag(value, "ext")?,
            _ => {}
        }
    }
    Ok((multi, adopt))
}

fn headers(value: Item<'_>) -> Result<Headers<'_>, DecodeError> {
    for item in value.items().map_err(|_| DecodeError::Field("headers"))? {
        header(item?)?;
    }
    Ok(Headers::Encoded(value.payload))
}

fn map_payload<'a>(value: Item<'a>, name: &'static str) -> Result<&'a [u8], DecodeError> {
    if value.kind == Type::Map { Ok(value.payload) } else { Err(DecodeError::Field(name)) }
}

#[cfg(test)]
mod tests;
