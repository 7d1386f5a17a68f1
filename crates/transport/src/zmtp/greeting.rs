// SPDX-License-Identifier: AGPL-3.0-or-later
//! The opening of a connection: greeting and READY (ZMTP 3.0, greeting and NULL handshake).

use super::Violation;
use super::frame::{readable, write_command};
use crate::role::Role;

/// Length of a greeting.
pub(crate) const LEN: usize = 64;

/// Where a greeting says the version, and how the mechanism is called.
const VERSION: usize = 10;
const MECHANISM: std::ops::Range<usize> = 12..32;

/// Our greeting: signature, version 3.0, mechanism NULL, not as a server.
pub(crate) const GREETING: [u8; LEN] = {
    let mut greeting = [0; LEN];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[VERSION] = 3;
    greeting[12] = b'N';
    greeting[13] = b'U';
    greeting[14] = b'L';
    greeting[15] = b'L';
    greeting
};

/// Whether the greeting at the beginning of `input` is complete.
///
/// # Errors
/// It is none, or one of a peer that we can not talk to. That is found out as early as possible, because a peer of
/// another kind may never send 64 bytes.
pub(crate) fn read(input: &[u8]) -> Result<bool, Violation> {
    if input.first().is_some_and(|&b| b != 0xff) || input.get(9).is_some_and(|&b| b & 1 == 0) {
        return Err(Violation::NotZmtp);
    }
    if let Some(&version) = input.get(VERSION).filter(|&&version| version < 3) {
        return Err(Violation::Version(version));
    }
    let Some(mechanism) = input.get(..LEN).map(|greeting| &greeting[MECHANISM]) else { return Ok(false) };
    let name = mechanism.split(|&b| b == 0).next().unwrap_or_default();
    if name == b"NULL" { Ok(true) } else { Err(Violation::Mechanism(readable(name))) }
}

/// Writes our READY command.
pub(crate) fn write_ready(out: &mut Vec<u8>, role: Role, identity: &[u8]) {
    let mut properties = Vec::with_capacity(48 + identity.len());
    write_property(&mut properties, "Socket-Type", role.name().as_bytes());
    if matches!(role, Role::Router | Role::Dealer) {
        write_property(&mut properties, "Identity", identity);
    }
    write_command(out, "READY", &properties);
}

fn write_property(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
    out.extend_from_slice(value);
}

/// Reads the peer's first command, and returns its identity.
///
/// # Errors
/// It refuses us, its type does not go with ours, or the command is malformed.
pub(crate) fn read_ready(command: &[u8], ours: Role) -> Result<&[u8], Violation> {
    const WRONG: Violation = Violation::Malformed("READY command");
    if let Some(reason) = command.strip_prefix(b"\x05ERROR") {
        return Err(Violation::Refused(readable(reason.get(1..).unwrap_or_default())));
    }
    let mut rest = command.strip_prefix(b"\x05READY").ok_or(WRONG)?;
    let (mut kind, mut identity) = (None, &b""[..]);
    while !rest.is_empty() {
        let (name, value) = read_property(&mut rest).ok_or(WRONG)?;
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            kind = Some(value);
        } else if name.eq_ignore_ascii_case(b"Identity") {
            identity = value;
        }
    }
    let theirs = kind.ok_or(WRONG)?;
    if !ours.partners().iter().any(|partner| partner.as_bytes() == theirs) {
        return Err(Violation::Partner { ours: ours.name(), theirs: readable(theirs) });
    }
    // Names that begin with a zero are ours to give, to peers that have none.
    if identity.len() > 255 || identity.first() == Some(&0) { Err(WRONG) } else { Ok(identity) }
}

fn read_property<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (&len, after) = rest.split_first()?;
    let (name, after) = after.split_at_checked(usize::from(len))?;
    let (len, after) = after.split_first_chunk::<4>()?;
    let (value, after) = after.split_at_checked(u32::from_be_bytes(*len) as usize)?;
    *rest = after;
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_greeting_is_one() {
        assert_eq!(read(&GREETING), Ok(true));
        assert_eq!(read(&GREETING[..63]), Ok(false));
        assert_eq!(read(b""), Ok(false));
    }

    #[test]
    fn others_are_told_apart_before_they_are_complete() {
        assert_eq!(read(b"GET /"), Err(Violation::NotZmtp));
        // ZMTP 2.0, as libzmq 3.2 sends it.
        assert_eq!(read(b"\xff\0\0\0\0\0\0\0\x01\x7f\x01"), Err(Violation::Version(1)));
        let mut curve = GREETING;
        curve[MECHANISM][..5].copy_from_slice(b"CURVE");
        assert_eq!(read(&curve), Err(Violation::Mechanism("CURVE".to_string())));
    }

    #[test]
    fn ready_is_as_libzmq_writes_it() {
        let mut out = Vec::new();
        write_ready(&mut out, Role::Dealer, b"me");
        assert_eq!(out, b"\x04\x2b\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\x02me");
    }

    #[test]
    fn an_error_in_the_place_of_ready_is_reported() {
        let error = read_ready(b"\x05ERROR\x0dInvalid stuff", Role::Pull).unwrap_err();
        assert_eq!(error, Violation::Refused("Invalid stuff".to_string()));
        assert_eq!(
            read_ready(b"\x05READY\x0bSocket-Type\0\0\0\xff", Role::Pull),
            Err(Violation::Malformed("READY command"))
        );
    }

    #[test]
    fn a_peer_can_not_take_a_name_that_we_give() {
        let ready = |identity: &[u8]| {
            let mut out = Vec::new();
            write_ready(&mut out, Role::Dealer, identity);
            read_ready(&out[2..], Role::Router).map(<[u8]>::to_vec)
        };
        assert_eq!(ready(b"proxy"), Ok(b"proxy".to_vec()));
        assert_eq!(ready(b"\0\0\0\0\x01"), Err(Violation::Malformed("READY command")));
    }
}
