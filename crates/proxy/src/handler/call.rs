//! Calls to the handler: what `inspect` and `accept` have in common (internal RPC, zrpc).

use std::time::Duration;

use tnetstring::{Item, Writer};
use zhttp::Headers;

/// How long an answer is waited for.
pub const TIMEOUT: Duration = Duration::from_secs(8);

/// Writes a call. `arguments` writes the entries of the argument map, the last one first.
pub fn encode_call<'w>(
    out: &'w mut Writer,
    from: Option<&[u8]>,
    id: &[u8],
    method: &str,
    arguments: impl FnOnce(&mut Writer),
) -> &'w [u8] {
    out.clear();
    let call = out.mark();
    let map = out.mark();
    arguments(out);
    out.map(map);
    out.bytes(b"args");
    entry(out, "method", method.as_bytes());
    entry(out, "id", id);
    if let Some(from) = from {
        entry(out, "from", from);
    }
    out.map(call);
    out.as_slice()
}

/// Writes the entry of a map that is a byte string.
pub fn entry(out: &mut Writer, key: &str, value: &[u8]) {
    out.bytes(value);
    out.bytes(key.as_bytes());
}

/// Writes the entry of a map that is an integer.
pub fn int(out: &mut Writer, key: &str, value: impl Into<i64>) {
    out.int(value.into());
    out.bytes(key.as_bytes());
}

/// Writes the entry of a map that is a flag; flags that are not set are left out.
pub fn flag(out: &mut Writer, key: &str, value: bool) {
    if value {
        out.bool(true);
        out.bytes(key.as_bytes());
    }
}

/// Writes the entry of a map that is a list of headers.
pub fn headers(out: &mut Writer, headers: Headers<'_>) {
    let list = out.mark();
    match headers {
        Headers::Absent => {}
        Headers::Encoded(encoded) => out.raw(encoded),
        Headers::Pairs(pairs) => {
            for (name, value) in pairs.iter().rev() {
                let pair = out.mark();
                out.bytes(value);
                out.bytes(name);
                out.list(pair);
            }
        }
    }
    out.list(list);
    out.bytes(b"headers");
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reply<'a> {
    /// The id of the call.
    pub id: &'a [u8],
    /// The result, or the reason of the failure and perhaps a detail.
    pub result: Result<Item<'a>, (&'a [u8], Option<Item<'a>>)>,
}

impl<'a> Reply<'a> {
    /// Reads an answer.
    ///
    /// # Errors
    /// It is no map, or lacks what every answer has.
    pub fn decode(message: &'a [u8]) -> Result<Self, tnetstring::Error> {
        let (map, _) = tnetstring::split(message)?;
        let (mut id, mut success, mut value, mut condition) = (None, None, None, None);
        for field in map.entries()? {
            match field? {
                (b"id", item) => id = Some(item.as_bytes()?),
                (b"success", item) => success = Some(item.as_bool()?),
                (b"value", item) => value = Some(item),
                (b"condition", item) => condition = Some(item.as_bytes()?),
                _ => {}
            }
        }
        let id = id.ok_or(tnetstring::Error::MissingValue)?;
        let result = match (success.ok_or(tnetstring::Error::MissingValue)?, value) {
            (true, value) => Ok(value.ok_or(tnetstring::Error::MissingValue)?),
            (false, detail) => Err((condition.unwrap_or_default(), detail)),
        };
        Ok(Reply { id, result })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_id_method_and_arguments() {
        let mut out = Writer::new(16);
        let call = encode_call(&mut out, Some(b"p"), b"1", "inspect", |out| entry(out, "a", b"b"));
        assert_eq!(call, b"57:4:from,1:p,2:id,1:1,6:method,7:inspect,4:args,8:1:a,1:b,}}");
    }

    #[test]
    fn an_answer_is_a_value_or_a_condition_with_detail() {
        let reply = Reply::decode(b"57:2:id,1:1,7:success,4:true!5:value,19:8:no-proxy,5:false!}}").unwrap();
        assert_eq!(reply.id, b"1");
        assert!(reply.result.is_ok());
        let reply = Reply::decode(b"65:2:id,1:1,7:success,5:false!9:condition,10:bad-format,5:value,1:x,}").unwrap();
        assert_eq!(reply.result.unwrap_err().0, b"bad-format");
    }

    #[test]
    fn an_answer_without_id_or_success_is_refused() {
        assert!(Reply::decode(b"0:}").is_err());
        assert!(Reply::decode(b"11:2:id,1:1,0:,0:,}").is_err());
        assert!(Reply::decode(b"nonsense").is_err());
    }
}
