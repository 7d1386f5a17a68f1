// SPDX-License-Identifier: AGPL-3.0-or-later
//! No nesting uses up the stack: everything that walks foreign data runs here on a small one, with data as deep as it can be
//! made. What is deeper than the limits is refused, what is not must fit.
#![allow(missing_docs)]

use grip::instruct::BackendResponse;
use grip::{Action, Instruct, ResponseBody, item, patch};

/// A quarter of what threads have by default, although code without optimisation takes more than the programs do.
const STACK: usize = 512 * 1024;

fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(STACK).spawn(test).unwrap().join().unwrap();
}

fn json(depth: usize, open: &str, close: &str) -> String {
    format!("{}0{}", open.repeat(depth), close.repeat(depth))
}

fn tnet(depth: usize, kind: char) -> String {
    let key = if kind == '}' { "1:a," } else { "" };
    (0..depth).fold("1:0#".to_string(), |inner, _| format!("{}:{key}{inner}{kind}", key.len() + inner.len()))
}

fn map(entries: &str) -> String {
    format!("{}:{entries}}}", entries.len())
}

const SHAPES: [(&str, &str); 2] = [("[", "]"), ("{\"a\":", "}")];

#[test]
fn items_in_json() {
    on_a_small_stack(|| {
        for (open, close) in SHAPES {
            let read = |depth| {
                let patch = json(depth, open, close);
                let message = format!(r#"J{{"channel":"c","http-response":{{"body-patch":[{patch}]}}}}"#);
                item::from_message(message.as_bytes(), None)
            };
            let item = read(120).unwrap();
            assert_eq!(item.clone(), item);
            assert!(read(130).is_err() && read(400_000).is_err());
            let Some(Action::Send(response)) = item.formats.http_response else { panic!() };
            let ResponseBody::Patch(operations) = response.body else { panic!() };
            assert!(patch::apply(b"{}", &operations).is_err());
        }
    });
}

#[test]
fn items_in_tnetstrings() {
    on_a_small_stack(|| {
        for kind in [']', '}'] {
            let read = |depth| {
                let patch = tnet(depth, kind);
                let response = map(&format!("10:body-patch,{}:{patch}]", patch.len()));
                let message = map(&format!("7:channel,1:c,13:http-response,{response}"));
                item::from_message(message.as_bytes(), None)
            };
            assert!(read(29).is_ok());
            assert!(read(30).is_err() && read(1000).is_err());
        }
    });
}

#[test]
fn instructs() {
    on_a_small_stack(|| {
        for (open, close) in SHAPES {
            for depth in [100, 400_000] {
                let body = format!(r#"{{"x":{}}}"#, json(depth, open, close));
                let headers: [(&[u8], &[u8]); 1] = [(b"Content-Type", b"application/grip-instruct")];
                let response = BackendResponse { code: 200, reason: b"", headers: &headers, body: body.as_bytes() };
                assert_eq!(Instruct::read(response).is_ok(), depth == 100);
            }
        }
    });
}

#[test]
fn patches() {
    on_a_small_stack(|| {
        for (open, close) in SHAPES {
            let deepest = json(126, open, close);
            let value: serde_json::Value = serde_json::from_str(&deepest).unwrap();
            let test = serde_json::json!({"op":"test","path":"/","value":value});
            let copy = serde_json::json!({"op":"add","path":"/","value":value});
            assert!(patch::apply(deepest.as_bytes(), &[test, copy]).is_ok());
            assert!(patch::apply(json(400_000, open, close).as_bytes(), &[]).is_err());
        }
        let deeper = |at: usize| serde_json::json!({"op":"add","path":"/a".repeat(at),"value":{}});
        assert!(patch::apply(b"{}", &(1..1000).map(deeper).collect::<Vec<_>>()).is_err());
    });
}
