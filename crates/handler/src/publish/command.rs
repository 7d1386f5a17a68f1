//! The command socket: requests of operators and libraries (control, command socket).

use grip::tree::Node;
use tnetstring::{Checked, Item, Kind, Writer};

use crate::take_over::accept::{failure, reply};

/// A request of the RPC form `{id?, method, args?}`.
pub struct Request<'a> {
    /// Echoed in the answer.
    pub id: Option<&'a [u8]>,
    /// What to do.
    pub method: &'a [u8],
    /// With what; an empty map if absent.
    pub args: Item<'a>,
}

impl<'a> Request<'a> {
    /// Reads a request; `None` if it is malformed, which is not answered.
    pub fn read(message: &'a [u8]) -> Option<Self> {
        let (map, _) = tnetstring::split(message).ok()?;
        let mut request = Request { id: None, method: b"", args: Item { kind: Kind::Map, payload: b"" } };
        for entry in map.entries().ok()? {
            match entry.ok()? {
                (b"id", value) => request.id = Some(value.as_bytes().ok()?),
                (b"method", value) => request.method = value.as_bytes().ok()?,
                (b"args", value) => request.args = value,
                _ => {}
            }
        }
        (!request.method.is_empty() && request.args.entries().is_ok()).then_some(request)
    }
}

/// What is to be done for a command, beside answering it.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Publish these.
    Publish(Vec<grip::Item>),
    /// Forget what was published, so that nobody waits for it.
    Recover,
}

/// Where publishers and operators reach the handler.
#[derive(Clone, Debug, Default)]
pub struct Uris {
    /// The command socket.
    pub command: Option<String>,
    /// The PULL socket.
    pub pull: Option<String>,
    /// The SUB socket, if it is bound.
    pub sub: Option<String>,
}

/// Answers a command. `is_known` tells whether a connection is held here.
pub fn answer(request: &Request<'_>, uris: &Uris, is_known: impl Fn(&[u8]) -> bool) -> (Vec<u8>, Effect) {
    let bad = |text: Option<&str>| (failure(request.id, "bad-request", text), Effect::None);
    match request.method {
        b"get-zmq-uris" => (reply(request.id, |out| write_uris(out, uris)), Effect::None),
        b"publish" => match publish_args(request.args) {
            Ok(items) => (reply(request.id, Writer::null), Effect::Publish(items)),
            Err(text) => bad(Some(&format!("Invalid format: {text}"))),
        },
        b"recover" => (reply(request.id, Writer::null), Effect::Recover),
        b"conncheck" => match connection_ids(request.args) {
            Some(ids) => {
                let known: Vec<&[u8]> = ids.into_iter().filter(|id| is_known(id)).collect();
                let write = |out: &mut Writer| {
                    let list = out.mark();
                    known.iter().rev().for_each(|id| out.bytes(id));
                    out.list(list);
                };
                (reply(request.id, write), Effect::None)
            }
            None => bad(None),
        },
        _ => (failure(request.id, "method-not-found", None), Effect::None),
    }
}

/// The items to publish, all of them, or what is wrong.
fn publish_args(args: Item<'_>) -> Result<Vec<grip::Item>, String> {
    let args = Checked::new(args).map_err(|error| error.to_string())?;
    grip::item::from_members(Node::Tnet(args)).map_err(|error| error.to_string())
}

fn connection_ids<'a>(args: Item<'a>) -> Option<Vec<&'a [u8]>> {
    let (_, list) = args.entries().ok()?.filter_map(Result::ok).find(|(key, _)| *key == b"ids")?;
    list.items().ok()?.map(|id| id.ok()?.as_bytes().ok()).collect()
}

fn write_uris(out: &mut Writer, uris: &Uris) {
    let map = out.mark();
    for (name, uri) in [("publish-sub", &uris.sub), ("publish-pull", &uris.pull), ("command", &uris.command)] {
        if let Some(uri) = uri {
            out.bytes(uri.as_bytes());
            out.bytes(name.as_bytes());
        }
    }
    out.map(map);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(message: &[u8]) -> (String, Effect) {
        let uris = Uris { command: Some("tcp://c".into()), pull: None, sub: Some("tcp://s".into()) };
        let (answer, effect) = answer(&Request::read(message).unwrap(), &uris, |id| id == b"known");
        (String::from_utf8(answer).unwrap(), effect)
    }

    #[test]
    fn uris_are_told_as_far_as_they_are_configured() {
        let (answer, _) = ask(b"34:2:id,1:7,6:method,12:get-zmq-uris,}");
        assert_eq!(answer, "83:2:id,1:7,7:success,4:true!5:value,45:7:command,7:tcp://c,11:publish-sub,7:tcp://s,}}");
    }

    #[test]
    fn an_unknown_method_is_said_to_be_unknown() {
        assert!(ask(b"14:6:method,2:xx,}").0.contains("16:method-not-found,"));
    }

    /// A map around what is inside.
    fn map(inside: &[u8]) -> Vec<u8> {
        [format!("{}:", inside.len()).as_bytes(), inside, b"}"].concat()
    }

    fn publish(items: &[u8]) -> (String, Effect) {
        let items = [format!("5:items,{}:", items.len()).as_bytes(), items, b"]"].concat();
        ask(&map(&[b"2:id,1:7,6:method,7:publish,4:args,", &map(&items)[..]].concat()))
    }

    #[test]
    fn items_are_published_together_or_not_at_all() {
        let good = map(&[&b"7:channel,1:c,11:http-stream,"[..], &map(b"7:content,1:x,")].concat());
        let (answer, effect) = publish(&[&good[..], &good].concat());
        assert!(answer.contains("7:success,4:true!"), "{answer}");
        assert!(matches!(effect, Effect::Publish(items) if items.len() == 2));
        for bad in [&b"9:junk"[..], b"junk", b"1:x,", b"0:~", b"3:5:a]", b"0:}"] {
            let (answer, effect) = publish(&[&good[..], bad].concat());
            assert!(answer.contains("bad-request") && answer.contains("Invalid format: "), "{answer}");
            assert_eq!(effect, Effect::None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn items_that_are_nested_too_deep_are_refused() {
        for (open, close) in [("", "]"), ("1:a,", "}")] {
            let (mut heads, mut length) = (Vec::new(), 3);
            for _ in 0..100_000 {
                heads.push(format!("{}:{open}", length + open.len()));
                length += heads[heads.len() - 1].len() + 1;
            }
            heads.reverse();
            let deep = [heads.concat(), format!("0:{close}"), close.repeat(100_000)].concat();
            let (answer, effect) = publish(deep.as_bytes());
            assert!(answer.contains("nested more than"), "{answer}");
            assert_eq!(effect, Effect::None);
        }
    }

    #[test]
    fn what_is_malformed_is_not_answered() {
        for message in
            [&b""[..], b"5:x}", b"3:abc,", b"0:}", b"18:6:method,1:x,4:args,", b"25:6:method,1:x,4:args,2:ab,}"]
        {
            assert!(Request::read(message).is_none(), "{message:?}");
        }
    }
}
