// SPDX-License-Identifier: AGPL-3.0-or-later
//! The command socket: requests of operators and libraries (control, command socket).

use std::collections::BTreeSet;

use grip::tree::Node;
use rpc::call::{condition, failure, success};
use rpc::command::{ConnCheck, Refresh, ZmqUris};
use rpc::{Call, Octets};
use serde::Serialize;
use tnetstring::Checked;

use super::forwarded::Question;

/// What is to be done for a command, beside answering it.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Publish these.
    Publish(Vec<grip::Item>),
    /// Forget what was published, so that nobody waits for it.
    Recover,
    /// Ask the proxy, whose answer is needed for ours.
    Forward(Question),
    /// Have the backends of the WebSockets of a channel asked.
    RefreshChannel(String),
}

/// Answers a command, unless the proxy must. `is_known` tells whether a connection is held here.
pub fn answer(call: &Call<'_>, uris: &ZmqUris, is_known: impl Fn(&[u8]) -> bool) -> (Vec<u8>, Effect) {
    match call.method {
        b"get-zmq-uris" => (done(call, uris), Effect::None),
        b"publish" => match items(call) {
            Ok(items) => (done(call, &()), Effect::Publish(items)),
            Err(error) => bad_request(call, &format!("Invalid format: {error}")),
        },
        b"recover" => (done(call, &()), Effect::Recover),
        b"conncheck" => match call.args::<ConnCheck>() {
            Ok(ConnCheck { ids }) => {
                let ids: BTreeSet<Octets<'_>> = ids.into_iter().collect();
                let (known, unknown): (Vec<_>, Vec<_>) =
                    ids.into_iter().map(Octets::into_owned).partition(|id| is_known(id));
                match unknown.is_empty() {
                    true => (done(call, &known), Effect::None),
                    false => (Vec::new(), Effect::Forward(Question::Connections { known, unknown })),
                }
            }
            Err(error) => bad_request(call, &error.to_string()),
        },
        b"refresh" => match call.args() {
            Ok(Refresh { cid: Some(cid), .. }) => (Vec::new(), Effect::Forward(Question::Refresh(cid.into_owned()))),
            Ok(Refresh { channel: Some(channel), .. }) => {
                (done(call, &()), Effect::RefreshChannel(String::from_utf8_lossy(&channel).into_owned()))
            }
            Ok(_) => bad_request(call, "refresh needs a cid or a channel"),
            Err(error) => bad_request(call, &error.to_string()),
        },
        _ => (failure(call.id, condition::METHOD_NOT_FOUND, None), Effect::None),
    }
}

/// The answer to a command that came when too many wait. Nothing is done for it.
pub fn busy(call: &Call<'_>) -> Vec<u8> {
    failure(call.id, condition::SERVICE_UNAVAILABLE, Some("too much waits to be published; please try again"))
}

fn bad_request(call: &Call<'_>, text: &str) -> (Vec<u8>, Effect) {
    (failure(call.id, condition::BAD_REQUEST, Some(text)), Effect::None)
}

/// Success, with a value that is ours and therefore shallow enough to be written.
fn done(call: &Call<'_>, value: &impl Serialize) -> Vec<u8> {
    success(call.id, value).unwrap_or_else(|error| failure(call.id, condition::BAD_REQUEST, Some(&error.to_string())))
}

/// The items to publish: all of them are sound, or none counts.
fn items(call: &Call<'_>) -> Result<Vec<grip::Item>, Malformed> {
    let args = Checked::new(call.args)?;
    Ok(grip::item::from_members(Node::Tnet(args))?)
}

/// What is wrong with items.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
enum Malformed {
    Encoding(#[from] tnetstring::Error),
    Item(#[from] grip::Malformed),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(message: &[u8]) -> (String, Effect) {
        let (command, sub) = (Some("tcp://c".into()), Some("tcp://s".into()));
        let uris = ZmqUris { command, publish_pull: None, publish_sub: sub };
        let (answer, effect) = answer(&Call::decode(message).unwrap(), &uris, |id| id == b"known");
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
    fn a_command_that_is_refused_because_many_wait_is_answered() {
        let call = b"28:2:id,1:7,6:method,7:publish,}";
        let answer = String::from_utf8(busy(&Call::decode(call).unwrap())).unwrap();
        assert!(answer.contains("2:id,1:7,") && answer.contains("19:service-unavailable,"), "{answer}");
    }

    #[test]
    fn backends_of_websockets_are_asked_by_connection_or_channel() {
        let ask =
            |args: &str| ask(&map(format!("2:id,1:7,6:method,7:refresh,4:args,{}:{args}}}", args.len()).as_bytes()));
        assert_eq!(ask("3:cid,1:x,").1, Effect::Forward(Question::Refresh(b"x".into())));
        let (answer, effect) = ask("7:channel,1:x,");
        assert!(answer.contains("7:success,4:true!") && effect == Effect::RefreshChannel("x".into()));
        assert!(ask("").0.contains("bad-request") && ask("3:cid,1:1#").0.contains("bad-request"));
    }

    #[test]
    fn connections_are_checked_by_their_ids() {
        let ask =
            |args: &str| ask(&map(format!("2:id,1:7,6:method,9:conncheck,4:args,{}:{args}}}", args.len()).as_bytes()));
        let question = Question::Connections { known: vec![b"known".into()], unknown: vec![b"x".into(), b"y".into()] };
        let ids = "3:ids,28:1:y,5:known,1:x,5:known,1:x,]";
        assert_eq!(ask(ids).1, Effect::Forward(question));
        assert!(ask("3:ids,16:5:known,5:known,]").0.contains("5:value,8:5:known,]"));
        assert!(ask("3:ids,0:]").0.contains("5:value,0:]"));
        for args in ["", "3:ids,1:x,", "3:ids,4:1:1#]", "3:ids,5:9:x,]"] {
            assert!(ask(args).0.contains("bad-request"), "{args}");
        }
    }
}
