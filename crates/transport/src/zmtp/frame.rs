//! Frames: a flag byte, a length of one or eight bytes, and the body (ZMTP 3.0, framing).

use super::{MAX_FRAME, Step, Violation};

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// One frame.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    /// Not part of a message.
    pub(crate) command: bool,
    /// Another part of the message follows.
    pub(crate) more: bool,
    pub(crate) body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at the beginning of `input` and the length of all of it; `None` if it is not complete.
    pub(crate) fn read(input: &'a [u8]) -> Result<Option<(usize, Self)>, Violation> {
        let Some((&flags, rest)) = input.split_first() else { return Ok(None) };
        let (len, rest) = if flags & LONG == 0 {
            let Some((&len, rest)) = rest.split_first() else { return Ok(None) };
            (u64::from(len), rest)
        } else {
            let Some((len, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
            (u64::from_be_bytes(*len), rest)
        };
        if len > MAX_FRAME as u64 {
            return Err(Violation::Oversized(len));
        }
        let Some(body) = rest.get(..len as usize) else { return Ok(None) };
        let used = input.len() - rest.len() + body.len();
        Ok(Some((used, Frame { command: flags & COMMAND != 0, more: flags & MORE != 0, body })))
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

/// Reads a command that comes after the handshake. Those that we do not know are of later versions and mean nothing.
pub(crate) fn read_command(body: &[u8]) -> Result<Step<'_>, Violation> {
    const WRONG: Violation = Violation::Malformed("command");
    let (&len, rest) = body.split_first().ok_or(WRONG)?;
    let (name, rest) = rest.split_at_checked(usize::from(len)).ok_or(WRONG)?;
    Ok(match name {
        b"SUBSCRIBE" => Step::Subscribe(rest),
        b"CANCEL" => Step::Cancel(rest),
        // Two bytes of time to live come first.
        b"PING" => Step::Ping(rest.get(2..).ok_or(WRONG)?),
        b"ERROR" => return Err(Violation::Refused(String::from_utf8_lossy(rest).into_owned())),
        _ => Step::Nothing,
    })
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
        let (used, frame) = Frame::read(&out[257..]).unwrap().unwrap();
        assert_eq!((used, frame.body.len(), frame.more, frame.command), (265, 256, false, false));
    }

    #[test]
    fn a_length_that_nobody_means_is_refused_before_its_bytes_come() {
        let error = Frame::read(b"\x02\xff\xff\xff\xff\xff\xff\xff\xff").unwrap_err();
        assert_eq!(error, Violation::Oversized(u64::MAX));
    }

    #[test]
    fn commands_of_later_versions_are_understood_or_ignored() {
        assert_eq!(read_command(b"\x09SUBSCRIBEtopic"), Ok(Step::Subscribe(b"topic")));
        assert_eq!(read_command(b"\x04PING\0\x0actx"), Ok(Step::Ping(b"ctx")));
        assert_eq!(read_command(b"\x05OTHERx"), Ok(Step::Nothing));
        assert_eq!(read_command(b"\x09PI"), Err(Violation::Malformed("command")));
    }
}
