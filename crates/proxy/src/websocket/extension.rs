// SPDX-License-Identifier: AGPL-3.0-or-later
//! A backend that speaks GRIP on its WebSocket (grip, WebSocket; proxy, origin accepted).

use grip::header::{elements, first, parameters};
use zhttp::Headers;

use super::pipe::Frame;

/// What begins a message for the handler.
const CONTROL: &[u8] = b"c:";

/// The extension as a backend has accepted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Begins messages for the client.
    prefix: Box<[u8]>,
    /// What becomes of the message under way; `None` between messages.
    message: Option<Fate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pass,
    Drop,
}

/// What becomes of a frame of the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the client.
    Pass(Frame),
    /// It is an instruction for the handler.
    Control(bytes::Bytes),
    /// It goes to nobody.
    Drop,
}

impl Extension {
    /// The extension with this prefix.
    pub fn new(prefix: &[u8]) -> Self {
        Extension { prefix: prefix.into(), message: None }
    }

    /// What begins messages for the client.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Finds the extension in the headers of a response, as it stands there; its name is `grip` in that case.
    pub fn find<'a>(headers: Headers<'a>) -> Option<&'a [u8]> {
        headers.values("Sec-WebSocket-Extensions").flat_map(elements).find(|element| first(element) == b"grip")
    }

    /// Reads it. Malformed parameters make it none.
    pub fn parse(element: &[u8]) -> Option<Self> {
        let parameters = parameters(element)?;
        let prefix = parameters.iter().find(|parameter| parameter.is("message-prefix"));
        // An empty value counts as none in other headers, and here as an empty prefix.
        Some(Extension::new(prefix.map_or(b"m:", |parameter| parameter.value.as_deref().unwrap_or_default())))
    }

    /// Decides about a frame of the backend. A message is judged by its first piece; a control message must be in one.
    pub fn judge(&mut self, frame: Frame) -> Verdict {
        let Frame::Data { binary, more, mut body } = frame else { return Verdict::Pass(frame) };
        let fate = match self.message {
            Some(fate) => fate,
            None if !binary && body.starts_with(CONTROL) => {
                if !more {
                    return Verdict::Control(body.split_off(CONTROL.len()));
                }
                Fate::Drop
            }
            None if body.starts_with(&self.prefix) => {
                body = body.split_off(self.prefix.len());
                Fate::Pass
            }
            None => Fate::Drop,
        };
        self.message = more.then_some(fate);
        match fate {
            Fate::Pass => Verdict::Pass(Frame::Data { binary, more, body }),
            Fate::Drop => Verdict::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn data(binary: bool, more: bool, body: &'static str) -> Frame {
        Frame::Data { binary, more, body: Bytes::from_static(body.as_bytes()) }
    }

    fn found(value: &str) -> Option<Extension> {
        let headers = [(&b"sec-websocket-extensions"[..], value.as_bytes())];
        Extension::parse(Extension::find(Headers::Pairs(&headers))?)
    }

    #[test]
    fn the_extension_is_found_with_its_prefix() {
        for (value, prefix) in [
            ("grip", "m:"),
            ("x, grip", "m:"),
            ("grip; message-prefix=\"\"", ""),
            ("grip; message-prefix=pre-", "pre-"),
            ("grip;message-prefix=\"a,b;\"", "a,b;"),
        ] {
            assert_eq!(found(value), Some(Extension::new(prefix.as_bytes())), "{value}");
        }
        for value in ["", "GRIP", "x-grip", "gripp", "grip; message-prefix=\"open"] {
            assert_eq!(found(value), None, "{value}");
        }
    }

    #[test]
    fn messages_need_the_prefix_and_lose_it_once() {
        let mut extension = Extension::new(b"m:");
        assert_eq!(extension.judge(data(false, false, "m:m:x")), Verdict::Pass(data(false, false, "m:x")));
        assert_eq!(extension.judge(data(true, false, "m:x")), Verdict::Pass(data(true, false, "x")));
        assert_eq!(extension.judge(data(false, false, "x")), Verdict::Drop);
        assert_eq!(extension.judge(data(true, false, "c:x")), Verdict::Drop);
        let ping = Frame::Ping(Bytes::from_static(b"x"));
        assert_eq!(extension.judge(ping.clone()), Verdict::Pass(ping));
    }

    #[test]
    fn the_pieces_of_a_message_share_its_fate() {
        let mut extension = Extension::new(b"m:");
        assert_eq!(extension.judge(data(false, true, "x")), Verdict::Drop);
        assert_eq!(extension.judge(data(false, true, "m:y")), Verdict::Drop);
        assert_eq!(extension.judge(data(false, false, "m:z")), Verdict::Drop);
        assert_eq!(extension.judge(data(false, true, "m:a")), Verdict::Pass(data(false, true, "a")));
        assert_eq!(extension.judge(data(false, false, "c:b")), Verdict::Pass(data(false, false, "c:b")));
    }

    #[test]
    fn control_messages_are_text_in_one_piece() {
        let mut extension = Extension::new(b"");
        assert_eq!(extension.judge(data(false, false, "c:{}")), Verdict::Control(Bytes::from_static(b"{}")));
        assert_eq!(extension.judge(data(false, true, "c:{")), Verdict::Drop);
        assert_eq!(extension.judge(data(false, false, "}")), Verdict::Drop);
        assert_eq!(extension.judge(data(true, false, "c:{}")), Verdict::Pass(data(true, false, "c:{}")));
    }
}
