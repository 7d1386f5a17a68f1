// SPDX-License-Identifier: AGPL-3.0-or-later
//! The message to publish, as a tree that both encodings are made of.

use std::fs;
use std::io::{self, Read as _};

use base64::Engine as _;
use tnetstring::Value;

use crate::Error;
use crate::arguments::Arguments;

/// What is sent to clients of each kind.
struct Content {
    /// As it was given, or read from a file.
    bytes: Vec<u8>,
    /// Whether it came from a file, and stays as it is.
    from_file: bool,
}

/// Makes the item that the arguments describe (publish items: `channel`, `id`, `prev-id`, `meta`, `no-seq`, `formats`).
pub fn build(arguments: &Arguments) -> Result<Value, Error> {
    let mut item = vec![entry("channel", bytes(&arguments.channel))];
    for (name, value) in [("id", &arguments.id), ("prev-id", &arguments.prev_id)] {
        if let Some(value) = value.as_ref().filter(|v| !v.is_empty()) {
            item.push(entry(name, bytes(value)));
        }
    }
    let mut meta = Vec::new();
    if let Some(sender) = &arguments.sender {
        meta.push(entry("sender", bytes(sender)));
    }
    for text in &arguments.meta {
        let form = || Error::Argument("meta must be in the form \"name=value\"".into());
        let (name, value) = text.split_once('=').ok_or_else(form)?;
        meta.push(entry(name, bytes(value)));
    }
    if !meta.is_empty() {
        item.push(entry("meta", Value::Map(meta)));
    }
    if arguments.no_seq {
        item.push(entry("no-seq", Value::Bool(true)));
    }
    item.push(entry("formats", Value::Map(formats(arguments)?)));
    Ok(Value::Map(item))
}

fn formats(arguments: &Arguments) -> Result<Vec<(Vec<u8>, Value)>, Error> {
    let action = |name: &str| Value::Map(vec![entry("action", bytes(name))]);
    if arguments.hint {
        let kinds = ["http-response", "http-stream", "ws-message"];
        return Ok(kinds.map(|kind| entry(kind, action("hint"))).into());
    }
    if arguments.close {
        return Ok(["http-stream", "ws-message"].map(|kind| entry(kind, action("close"))).into());
    }
    let content = content(arguments)?;
    let mut response = vec![entry("code", Value::Int(arguments.code.into()))];
    if !arguments.header.is_empty() {
        let headers = arguments.header.iter().map(|text| header(text)).collect::<Result<_, _>>()?;
        response.push(entry("headers", Value::List(headers)));
    }
    if arguments.patch {
        let patch: serde_json::Value = serde_json::from_slice(&content.bytes)
            .map_err(|error| Error::Argument(format!("patch content must be a JSON array: {error}")))?;
        if !patch.is_array() {
            return Err(Error::Argument("patch content must be a JSON array".into()));
        }
        response.push(entry("body-patch", from_json(&patch)));
        return Ok(vec![entry("http-response", Value::Map(response))]);
    }
    let mut body = content.bytes.clone();
    if !content.from_file && !arguments.no_eol {
        body.push(b'\n');
    }
    response.push(entry("body", Value::Bytes(body.clone())));
    // What is not text can only be a binary WebSocket message.
    let ws = if std::str::from_utf8(&content.bytes).is_ok() { "content" } else { "content-bin" };
    Ok(vec![
        entry("http-response", Value::Map(response)),
        entry("http-stream", Value::Map(vec![entry("content", Value::Bytes(body))])),
        entry("ws-message", Value::Map(vec![entry(ws, Value::Bytes(content.bytes))])),
    ])
}

fn content(arguments: &Arguments) -> Result<Content, Error> {
    let text = arguments.content.as_ref().ok_or_else(|| Error::Argument("must specify content".into()))?;
    match text.strip_prefix('@') {
        None => Ok(Content { bytes: text.clone().into(), from_file: false }),
        Some("-") => {
            let mut bytes = Vec::new();
            let read = io::stdin().lock().read_to_end(&mut bytes);
            read.map_err(|e| Error::Argument(format!("can't read the standard input: {e}")))?;
            Ok(Content { bytes, from_file: true })
        }
        Some(name) => {
            let bytes = fs::read(name).map_err(|e| Error::Argument(format!("can't read file {name}: {e}")))?;
            Ok(Content { bytes, from_file: true })
        }
    }
}

fn header(text: &str) -> Result<Value, Error> {
    let form = || Error::Argument("header must be in the form \"name: value\"".into());
    let (name, value) = text.split_once(':').ok_or_else(form)?;
    Ok(Value::List(vec![bytes(name), bytes(value.trim())]))
}

fn entry(name: &str, value: Value) -> (Vec<u8>, Value) {
    (name.into(), value)
}

fn bytes(text: &str) -> Value {
    Value::Bytes(text.into())
}

/// The same as JSON, where bytes that are not text need a name of their own and base64.
pub fn to_json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Bytes(value) => String::from_utf8_lossy(value).into(),
        Value::List(values) => values.iter().map(to_json).collect(),
        Value::Map(entries) => Json::Object(entries.iter().map(|(name, value)| json_entry(name, value)).collect()),
    }
}

fn json_entry(name: &[u8], value: &Value) -> (String, serde_json::Value) {
    let name = String::from_utf8_lossy(name).into_owned();
    match value {
        Value::Bytes(bytes) if name == "content-bin" || std::str::from_utf8(bytes).is_err() => {
            let name = if name.ends_with("-bin") { name } else { format!("{name}-bin") };
            (name, base64::engine::general_purpose::STANDARD.encode(bytes).into())
        }
        _ => (name, to_json(value)),
    }
}

fn from_json(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(value) => match value.as_i64() {
            Some(int) => Value::Int(int),
            None => Value::Float(value.as_f64().unwrap_or_default()),
        },
        Json::String(text) => bytes(text),
        Json::Array(values) => Value::List(values.iter().map(from_json).collect()),
        Json::Object(entries) => {
            Value::Map(entries.iter().map(|(name, value)| entry(name, from_json(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn json(line: &str) -> String {
        to_json(&build(&parse(line)).unwrap()).to_string()
    }

    fn error(line: &str) -> String {
        build(&parse(line)).unwrap_err().to_string()
    }

    fn parse(line: &str) -> Arguments {
        Arguments::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn text_goes_to_clients_of_every_kind_with_a_line_end_for_http() {
        assert_eq!(
            json("p test hello"),
            r#"{"channel":"test","formats":{"http-response":{"body":"hello\n","code":200},"http-stream":{"content":"hello\n"},"ws-message":{"content":"hello"}}}"#
        );
        assert!(json("p --no-eol test hello").contains(r#""body":"hello","#));
    }

    #[test]
    fn ids_meta_and_headers_are_sent() {
        let text = json("p --id 2 --prev-id 1 --no-seq --sender bob -M a=b -H X-A:1 --code 201 c x");
        for part in [
            r#""id":"2""#,
            r#""prev-id":"1""#,
            r#""no-seq":true"#,
            r#""meta":{"a":"b","sender":"bob"}"#,
            r#""headers":[["X-A","1"]]"#,
            r#""code":201"#,
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn hint_and_close_need_no_content_and_hint_comes_first() {
        assert!(json("p --hint --close c").contains(r#""http-response":{"action":"hint"}"#));
        let close = json("p --close c");
        assert!(close.contains(r#""http-stream":{"action":"close"}"#) && !close.contains("http-response"));
    }

    #[test]
    fn a_patch_goes_to_long_polls_only() {
        let text = json(r#"p --patch c [{"op":"x","n":1}]"#);
        assert!(text.contains(r#""body-patch":[{"n":1,"op":"x"}]"#) && !text.contains("http-stream"), "{text}");
        assert_eq!(error("p --patch c {}"), "patch content must be a JSON array");
    }

    #[test]
    fn bytes_that_are_not_text_become_base64_in_json() {
        let file = std::env::temp_dir().join(format!("publish-test-{}", std::process::id()));
        fs::write(&file, [0xff, 0x00]).unwrap();
        let text = json(&format!("p c @{}", file.display()));
        fs::remove_file(&file).unwrap();
        assert!(text.contains(r#""body-bin":"/wA=""#), "{text}");
        assert!(text.contains(r#""ws-message":{"content-bin":"/wA="}"#), "{text}");
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(error("p c"), "must specify content");
        assert_eq!(error("p -H x c y"), "header must be in the form \"name: value\"");
        assert_eq!(error("p -M x c y"), "meta must be in the form \"name=value\"");
        assert!(error("p c @/nowhere/x").starts_with("can't read file /nowhere/x: "));
    }

    #[test]
    fn the_tnetstring_form_is_what_a_puller_expects() {
        let item = build(&parse("p --close c")).unwrap();
        let expected =
            "99:7:channel,1:c,7:formats,71:11:http-stream,17:6:action,5:close,}10:ws-message,17:6:action,5:close,}}}";
        assert_eq!(String::from_utf8(tnetstring::to_vec(&item).unwrap()).unwrap(), expected);
    }
}
