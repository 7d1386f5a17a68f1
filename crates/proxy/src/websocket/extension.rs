// SPDX-License-Identifier: AGPL-3.0-or-later
//! A backend that speaks GRIP on its WebSocket (grip, WebSocket; proxy, origin accepted).

use bytes::Bytes;
use grip::header::{elements, first, parameters};
use zhttp::Headers;

use super::pipe::Frame;

/// What begins a message for the handler.
const CONTROL: &[u8] = b"c:";

/// Begins messages for the client if the backend does not say what does.
const USUAL: &[u8] = b"m:";

/// The extension as a backend has accepted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Begins messages for the client; none: the usual one.
    prefix: Option<Box<[u8]>>,
    /// What is known of a message that has come in part. Most come whole, and idle connections are many.
    message: Option<Box<Message>>,
}

/// A message comes in pieces that depend on how the network cut it, and not only on how the backend did.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Message {
    /// So far it has these bytes, with which both a control message and one for the client may begin.
    Open(Vec<u8>),
    /// It is for the client.
    Pass,
    /// It is for the handler, and has these bytes so far.
    Control(Vec<u8>),
    /// It is for nobody.
    Drop,
}

/// What becomes of a frame of the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the client, behind what was held back.
    Pass(Frame),
    /// With it an instruction for the handler is complete.
    Control(Bytes),
    /// It is held back, because too little has come of its message to tell for whom it is.
    HeldBack,
    /// It is the beginning of an instruction.
    Kept,
    /// It goes to nobody.
    Drop,
    /// It makes an instruction longer than one may be.
    TooLong,
}

impl Extension {
    /// The extension with this prefix.
    pub fn new(prefix: &[u8]) -> Self {
        Extension { prefix: (prefix != USUAL).then(|| prefix.into()), message: None }
    }

    /// What begins messages for the client.
    pub fn prefix(&self) -> &[u8] {
        self.prefix.as_deref().unwrap_or(USUAL)
    }

    /// Whether no message is under way.
    pub fn is_between(&self) -> bool {
        self.message.is_none()
    }

    /// A message for the client is under way, whose first piece a predecessor has judged.
    pub fn go_on_within(&mut self) {
        self.message = Some(Box::new(Message::Pass));
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
        Some(Extension::new(prefix.map_or(USUAL, |parameter| parameter.value.as_deref().unwrap_or_default())))
    }

    /// Bytes that are held back, less than there are in what begins a message.
    pub fn held_back(&self) -> usize {
        match self.message.as_deref() {
            Some(Message::Open(begun)) => begun.len(),
            _ => 0,
        }
    }

    /// Decides about a frame of the backend. An instruction may have `most` bytes.
    pub fn judge(&mut self, frame: Frame, most: usize) -> Verdict {
        let Frame::Data { binary, more, body } = frame else { return Verdict::Pass(frame) };
        let (next, verdict) = match self.message.take().map(|message| *message) {
            None => self.begin(binary, more, body),
            Some(Message::Open(mut begun)) => {
                begun.extend_from_slice(&body);
                self.begin(binary, more, begun.into())
            }
            Some(Message::Pass) => (Message::Pass, Verdict::Pass(Frame::Data { binary, more, body })),
            Some(Message::Control(begun)) => go_on(begun, more, &body, most),
            Some(Message::Drop) => (Message::Drop, Verdict::Drop),
        };
        self.message = more.then(|| Box::new(next));
        verdict
    }

    /// Judges what has come of a message from its beginning on. What is said of its next piece counts only if there is one.
    fn begin(&self, binary: bool, more: bool, mut body: Bytes) -> (Message, Verdict) {
        if !binary && body.starts_with(CONTROL) {
            let instruction = body.split_off(CONTROL.len());
            return match more {
                true => (Message::Control(instruction.into()), Verdict::Kept),
                false => (Message::Drop, Verdict::Control(instruction)),
            };
        }
        let open = |start: &[u8]| body.len() < start.len() && start.starts_with(&body);
        if more && (open(self.prefix()) || (!binary && open(CONTROL))) {
            return (Message::Open(body.into()), Verdict::HeldBack);
        }
        if !body.starts_with(self.prefix()) {
            return (Message::Drop, Verdict::Drop);
        }
        let body = body.split_off(self.prefix().len());
        (Message::Pass, Verdict::Pass(Frame::Data { binary, more, body }))
    }
}

/// The next piece of an instruction.
fn go_on(mut begun: Vec<u8>, more: bool, piece: &[u8], most: usize) -> (Message, Verdict) {
    if begun.len() + piece.len() > most {
        return (Message::Drop, Verdict::TooLong);
    }
    begun.extend_from_slice(piece);
    match more {
        true => (Message::Control(begun), Verdict::Kept),
        false => (Message::Drop, Verdict::Control(begun.into())),
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

    /// What an instruction may have, in bytes.
    const MOST: usize = 10;

    fn judge(extension: &mut Extension, frame: Frame) -> Verdict {
        extension.judge(frame, MOST)
    }

    #[test]
    fn messages_need_the_prefix_and_lose_it_once() {
        let mut extension = Extension::new(b"m:");
        assert_eq!(judge(&mut extension, data(false, false, "m:m:x")), Verdict::Pass(data(false, false, "m:x")));
        assert_eq!(judge(&mut extension, data(true, false, "m:x")), Verdict::Pass(data(true, false, "x")));
        for (binary, body) in [(false, "x"), (false, "m"), (false, "c"), (true, "c:x"), (false, "")] {
            assert_eq!(judge(&mut extension, data(binary, false, body)), Verdict::Drop, "{body}");
        }
        let ping = Frame::Ping(Bytes::from_static(b"x"));
        assert_eq!(judge(&mut extension, ping.clone()), Verdict::Pass(ping));
    }

    #[test]
    fn the_pieces_of_a_message_share_its_fate() {
        let mut extension = Extension::new(b"m:");
        assert_eq!(judge(&mut extension, data(false, true, "x")), Verdict::Drop);
        assert_eq!(judge(&mut extension, data(false, true, "m:y")), Verdict::Drop);
        assert_eq!(judge(&mut extension, data(false, false, "m:z")), Verdict::Drop);
        assert_eq!(judge(&mut extension, data(false, true, "m:a")), Verdict::Pass(data(false, true, "a")));
        assert_eq!(judge(&mut extension, data(false, false, "c:b")), Verdict::Pass(data(false, false, "c:b")));
    }

    #[test]
    fn an_instruction_is_collected_up_to_its_limit() {
        let mut extension = Extension::new(b"");
        assert_eq!(judge(&mut extension, data(false, true, "c:01234")), Verdict::Kept);
        let ping = Frame::Ping(Bytes::from_static(b"x"));
        assert_eq!(judge(&mut extension, ping.clone()), Verdict::Pass(ping));
        assert_eq!(judge(&mut extension, data(false, false, "56789")), Verdict::Control("0123456789".into()));
        assert_eq!(judge(&mut extension, data(false, true, "c:01234")), Verdict::Kept);
        assert_eq!(judge(&mut extension, data(false, true, "567890")), Verdict::TooLong);
        assert_eq!(judge(&mut extension, data(false, false, "x")), Verdict::Drop);
        assert_eq!(judge(&mut extension, data(true, false, "c:{}")), Verdict::Pass(data(true, false, "c:{}")));
    }

    /// What comes of a message in these pieces: what the client gets, and what the handler.
    fn outcome(extension: &mut Extension, binary: bool, pieces: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
        let (mut client, mut handler) = (Vec::new(), Vec::new());
        let mut owed = 0;
        for (index, piece) in pieces.iter().enumerate() {
            let more = index + 1 < pieces.len();
            let before = extension.held_back();
            match judge(extension, Frame::Data { binary, more, body: Bytes::copy_from_slice(piece) }) {
                Verdict::Pass(frame) => {
                    assert!(frame.len() <= before + piece.len());
                    let Frame::Data { body, more: goes_on, .. } = frame else { panic!() };
                    assert_eq!(goes_on, more);
                    client.extend_from_slice(&body);
                }
                Verdict::Control(instruction) => handler.extend_from_slice(&instruction),
                Verdict::HeldBack => {
                    assert!(more);
                    owed += piece.len();
                    assert_eq!(extension.held_back(), owed);
                }
                Verdict::Kept | Verdict::Drop => {}
                Verdict::TooLong => panic!(),
            }
        }
        assert_eq!(extension.held_back(), 0);
        (client, handler)
    }

    #[test]
    fn how_a_message_was_cut_changes_nothing() {
        for prefix in ["", "m:", "c", "cc:", "c:", "abc"] {
            for message in ["", "c", "c:", "c:{}", "cat", "cc", "cc:x", "m", "m:", "m:abc", "ab", "abc", "abcd", "abx"]
            {
                for binary in [false, true] {
                    let mut extension = Extension::new(prefix.as_bytes());
                    let bytes = message.as_bytes();
                    let whole = outcome(&mut extension, binary, &[bytes]);
                    for first in 0..=bytes.len() {
                        for second in first..=bytes.len() {
                            let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                            let cut = outcome(&mut extension, binary, &pieces);
                            assert_eq!(cut, whole, "{message} after {prefix}: {first}, {second}");
                        }
                    }
                }
            }
        }
    }
}
