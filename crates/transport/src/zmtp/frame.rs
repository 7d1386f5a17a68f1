// SPDX-License-Identifier: AGPL-3.0-or-later
//! Frames: a flag byte, a length of one or eight bytes, and the body (ZMTP 3.0, framing).

use super::{Step, Violation};

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// A command of ours, which libzmq takes note of and ignores: another process listens at the address of this link.
const MOVED: &str = "PUSHPIN-MOVED";

/// Bytes of context that a PING may have us send back (ZMTP 3.1).
const MAX_CONTEXT: usize = 16;

/// What a frame says of itself before its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Not part of a message.
    pub(crate) command: bool,
    /// Another part of the message follows.
    pub(crate) more: bool,
    /// Bytes of the body, as the peer says.
    pub(crate) len: u64,
    /// Bytes of the header itself.
    pub(crate) used: usize,
}

impl Header {
    /// The header at the beginning of `input`; `None` if it is not complete.
    pub(crate) fn read(input: &[u8]) -> Option<Self> {
        let (&flags, rest) = input.split_first()?;
        let (len, used) = if flags & LONG == 0 {
            (u64::from(*rest.first()?), 2)
        } else {
            (u64::from_be_bytes(*rest.first_chunk::<8>()?), 9)
        };
        Some(Header { command: flags & COMMAND != 0, more: flags & MORE != 0, len, used })
    }
}

fn write(out: &mut Vec<u8>, flags: u8, body: &[u8]) {
    match u8::try_from(body.len()) {
        Ok(len) => out.extend_from_slice(&[flags, len]),
        Err(_) => {
            out.push(flags | LONG);
            out.extend_from_slice(&(body.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(body);
}

/// Writes a message of the given parts.
pub(crate) fn write_message(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let last = parts.len().saturating_sub(1);
    for (i, part) in parts.iter().enumerate() {
        write(out, if i < last { MORE } else { 0 }, part);
    }
}

/// Writes a command.
pub(crate) fn write_command(out: &mut Vec<u8>, name: &str, body: &[u8]) {
    let mut command = Vec::with_capacity(1 + name.len() + body.len());
    command.push(name.len() as u8);
    command.extend_from_slice(name.as_bytes());
    command.extend_from_slice(body);
    write(out, COMMAND, &command);
}

/// Writes that another process listens at the address of this link.
pub(crate) fn write_moved(out: &mut Vec<u8>) {
    write_command(out, MOVED, b"");
}

/// Reads a command that comes after the handshake. Those that we do not know are of later versions and mean nothing.
pub(crate) fn read_command(body: &[u8]) -> Result<Step<'_>, Violation> {
    const WRONG: Violation = Violation::Malformed("command");
    let (&len, rest) = body.split_first().ok_or(WRONG)?;
    let (name, rest) = rest.split_at_checked(usize::from(len)).ok_or(WRONG)?;
    Ok(match name {
        b"SUBSCRIBE" => Step::Subscribe(rest),
        b"CANCEL" => Step::Cancel(rest),
        // Two bytes of time to live come first.
        b"PING" => match rest.get(2..).ok_or(WRONG)? {
            context if context.len() > MAX_CONTEXT => {
                return Err(Violation::Malformed("PING: its context is too long"));
            }
            context => Step::Ping(context),
        },
        name if name == MOVED.as_bytes() => Step::Moved,
        b"ERROR" => return Err(Violation::Refused(readable(rest))),
        _ => Step::Nothing,
    })
}

/// What a peer says, for people; a peer that says much is not quoted in full.
pub(crate) fn readable(words: &[u8]) -> String {
    String::from_utf8_lossy(&words[..words.len().min(64)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_frame_has_eight_bytes_of_length() {
        let mut out = Vec::new();
        write_message(&mut out, &[&[7; 255], &[8; 256]]);
        assert_eq!(out[..2], [MORE, 255]);
        assert_eq!(out[257..266], [LONG, 0, 0, 0, 0, 0, 0, 1, 0]);
        let header = Header::read(&out[257..]).unwrap();
        assert_eq!(header, Header { command: false, more: false, len: 256, used: 9 });
        assert_eq!(Header::read(&out[257..265]), None);
    }

    #[test]
    fn a_ping_may_have_sixteen_bytes_sent_back() {
        let ping = |len| [&b"\x04PING\0\0"[..], &vec![b'p'; len]].concat();
        assert_eq!(read_command(&ping(16)), Ok(Step::Ping(&[b'p'; 16])));
        assert!(matches!(read_command(&ping(17)), Err(Violation::Malformed(_))));
    }

    #[test]
    fn commands_of_later_versions_are_understood_or_ignored() {
        assert_eq!(read_command(b"\x09SUBSCRIBEtopic"), Ok(Step::Subscribe(b"topic")));
        assert_eq!(read_command(b"\x04PING\0\x0actx"), Ok(Step::Ping(b"ctx")));
        assert_eq!(read_command(b"\x05OTHERx"), Ok(Step::Nothing));
        let mut out = Vec::new();
        write_moved(&mut out);
        assert_eq!(read_command(&out[2..]), Ok(Step::Moved));
        assert_eq!(read_command(b"\x09PI"), Err(Violation::Malformed("command")));
    }
}
