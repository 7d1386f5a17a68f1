// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the handler has decided about a request that it was asked to hold (internal RPC, accept).

use rpc::accept::Accepted;
use rpc::call::condition::BAD_FORMAT;
use rpc::{Reply, ResponseData};

use crate::error::ProxyError;

/// What the handler has decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict<'a> {
    /// It has the request now.
    Accepted,
    /// It does not hold the request; this is the response.
    Respond(ResponseData<'a>),
    /// It has nothing to add to the response that was sent.
    Nothing,
    /// It refuses.
    Refused(ProxyError),
}

impl<'a> Verdict<'a> {
    /// Reads an answer.
    pub fn parse(reply: &Reply<'a>) -> Self {
        let failed = |what: String| Verdict::Refused(ProxyError::HandlerRefused(what));
        match &reply.result {
            Ok(value) => match tnetstring::from_item::<Accepted<'a>>(*value) {
                Ok(Accepted { accepted: true, .. }) => Verdict::Accepted,
                Ok(Accepted { response: Some(response), .. }) if response.code == 0 => {
                    failed("a response without a status".into())
                }
                Ok(Accepted { response: Some(response), .. }) => Verdict::Respond(response),
                Ok(_) => Verdict::Nothing,
                Err(error) => failed(format!("its answer can't be read: {error}")),
            },
            Err(failure) => match failure.text() {
                Some(text) if failure.condition == BAD_FORMAT.as_bytes() => {
                    Verdict::Refused(ProxyError::BadInstruct(String::from_utf8_lossy(text).into_owned()))
                }
                _ => failed(failure.condition.escape_ascii().to_string()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use rpc::call::{failure, success};

    use super::*;

    fn verdict(message: &[u8]) -> Verdict<'_> {
        Verdict::parse(&Reply::decode(message).unwrap())
    }

    #[test]
    fn the_handler_accepts_responds_or_says_nothing() {
        let accepted = success(Some(b"1"), &Accepted { accepted: true, response: None }).unwrap();
        assert_eq!(verdict(&accepted), Verdict::Accepted);
        let nothing = success(Some(b"1"), &Accepted::default()).unwrap();
        assert_eq!(verdict(&nothing), Verdict::Nothing);
        let response = ResponseData { code: 201, reason: b"x".into(), ..ResponseData::default() };
        let respond = success(Some(b"1"), &Accepted { accepted: false, response: Some(response.clone()) }).unwrap();
        assert_eq!(verdict(&respond), Verdict::Respond(response));
    }

    #[test]
    fn instructions_it_does_not_understand_come_with_its_words() {
        let bad = failure(Some(b"1"), "bad-format", Some("why"));
        assert_eq!(verdict(&bad), Verdict::Refused(ProxyError::BadInstruct("why".into())));
        let other = failure(Some(b"1"), "bad-request", Some("why"));
        assert_eq!(verdict(&other), Verdict::Refused(ProxyError::HandlerRefused("bad-request".into())));
    }

    #[test]
    fn an_answer_of_the_wrong_shape_is_a_refusal() {
        for value in [&b"0:~"[..], b"15:8:accepted,1:1#}", b"14:8:response,0:}}"] {
            let message = [&b"2:id,1:1,7:success,4:true!5:value,"[..], value].concat();
            let message = [message.len().to_string().as_bytes(), b":", &message, b"}"].concat();
            assert!(matches!(verdict(&message), Verdict::Refused(ProxyError::HandlerRefused(_))), "{value:?}");
        }
    }
}
