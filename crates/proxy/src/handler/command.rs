//! Commands of the handler (internal RPC, proxy command socket).

use tnetstring::{Error, Value, to_vec};

use crate::engine::Engine;

/// Answers a command; `None` if it wants no answer or is none.
pub fn answer(message: &[u8], engine: &Engine) -> Option<Vec<u8>> {
    let (mut id, mut method, mut arguments) = (None, None, None);
    for field in tnetstring::split(message).ok()?.0.entries().ok()? {
        match field.ok()? {
            (b"id", item) => id = Some(item.as_bytes().ok()?),
            (b"method", item) => method = Some(item.as_bytes().ok()?),
            (b"args", item) => arguments = Some(item),
            _ => {}
        }
    }
    let result = match method? {
        b"conncheck" => known(arguments, engine).map_err(|_| "bad-format"),
        // There are no WebSockets yet whose channel could be asked again.
        b"refresh" => Err("item-not-found"),
        _ => Err("method-not-found"),
    };
    let entry = |key: &str, value| (key.as_bytes().to_vec(), value);
    let mut reply = vec![entry("id", Value::Bytes(id?.to_vec())), entry("success", Value::Bool(result.is_ok()))];
    match result {
        Ok(value) => reply.push(entry("value", value)),
        Err(condition) => reply.push(entry("condition", Value::Bytes(condition.as_bytes().to_vec()))),
    }
    to_vec(&Value::Map(reply)).ok()
}

/// Those of the given connections that are under way here.
fn known(arguments: Option<tnetstring::Item<'_>>, engine: &Engine) -> Result<Value, Error> {
    let mut found = Vec::new();
    for field in arguments.ok_or(Error::MissingValue)?.entries()? {
        let (b"ids", ids) = field? else { continue };
        for id in ids.items()? {
            let id = id?.as_bytes()?;
            if engine.has_connection(id) {
                found.push(Value::Bytes(id.to_vec()));
            }
        }
    }
    Ok(Value::List(found))
}
