// SPDX-License-Identifier: AGPL-3.0-or-later
//! The bytes of one side of a WebSocket, read as whole messages.

use wire::websocket::{Event, Reader, Role};

/// See the module.
pub struct Messages {
    reader: Reader,
    message: Vec<u8>,
}

/// What has come whole.
pub enum Heard {
    /// A text.
    Message(String),
    /// A close.
    Close {
        /// Its code, if it has one.
        code: Option<u16>,
        /// It came in the middle of a message.
        torn: bool,
    },
}

impl Messages {
    /// As one side reads what the other has sent.
    pub fn of(role: Role) -> Self {
        Messages { reader: Reader::new(role, u64::MAX, false), message: Vec::new() }
    }

    /// Takes what can be read out of the buffer.
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> Vec<Heard> {
        let (mut heard, mut used) = (Vec::new(), 0);
        loop {
            let torn = self.reader.is_within_message();
            let (count, event) = self.reader.read(&mut buffer[used..]).expect("frames are well-formed");
            used += count;
            match event {
                None if count == 0 => break,
                None => {}
                Some(Event::Data { payload, end, .. }) => {
                    self.message.extend_from_slice(payload);
                    if end {
                        let message = std::mem::take(&mut self.message);
                        heard.push(Heard::Message(String::from_utf8(message).expect("messages are text")));
                    }
                }
                Some(Event::Close(status)) => heard.push(Heard::Close { code: status.map(|(code, _)| code), torn }),
                Some(event) => panic!("nobody sends {event:?}"),
            }
        }
        buffer.drain(..used);
        heard
    }
}
