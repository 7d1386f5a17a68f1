// SPDX-License-Identifier: AGPL-3.0-or-later
//! The header that a proxy in front puts before all bytes of a connection, to say whose connection it is (the PROXY protocol,
//! versions 1 and 2). It stands before TLS.
//!
//! Only a proxy may be believed: on a port where this header is wanted, nobody else may be able to connect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of a header of version 1 at most, with its line end.
pub const MAX_TEXT: usize = 107;
/// Bytes of a header of version 2 at most that are read. The protocol allows 65,551; what proxies send besides the addresses
/// (names, certificates' names, checksums) takes some hundred.
pub const MAX_BINARY: usize = 4096;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const PREFIX: &[u8] = b"PROXY ";
/// Signature, version and command, family, length.
const FIXED: usize = 16;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Of a client with this address.
    At(SocketAddr),
    /// Of a client of a Unix socket, which has no address.
    Unix,
    /// The proxy does not say, or asks for itself, as for a health check: the address of the connection counts.
    Unsaid,
}

/// Bytes that are no such header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHeader {
    /// They begin in another way.
    #[error("the connection does not begin with a header of the PROXY protocol")]
    Other,
    /// Of a version or with a command that nobody knows.
    #[error("the PROXY header has the version and command {0:#04x}, where 0x20 and 0x21 are known")]
    Version(u8),
    /// The line can not be read.
    #[error("the PROXY header of version 1 is not `PROXY TCP4|TCP6 client server port port`")]
    Line,
    /// The addresses do not fit.
    #[error("the PROXY header has {0} bytes of addresses, too few for its family")]
    Short(usize),
    /// It does not end.
    #[error("the PROXY header is longer than {0} bytes")]
    Long(usize),
}

/// Reads the header at the front of `input`: how many bytes it has, and what it says. `None` if more bytes are needed; a
/// beginning that can not become a header is an error at once.
///
/// # Errors
/// There is no header.
pub fn read(input: &[u8]) -> Result<Option<(usize, Client)>, NoHeader> {
    if begins(input, SIGNATURE) {
        binary(input)
    } else if begins(input, PREFIX) {
        text(input)
    } else {
        Err(NoHeader::Other)
    }
}

/// Whether `input` begins with `start`, as far as it goes.
fn begins(input: &[u8], start: &[u8]) -> bool {
    let common = input.len().min(start.len());
    input[..common] == start[..common]
}

fn text(input: &[u8]) -> Result<Option<(usize, Client)>, NoHeader> {
    let within = &input[..input.len().min(MAX_TEXT)];
    let Some(end) = memchr::memmem::find(within, b"\r\n") else {
        return if within.len() == MAX_TEXT { Err(NoHeader::Long(MAX_TEXT)) } else { Ok(None) };
    };
    let line = std::str::from_utf8(&input[PREFIX.len()..end]).map_err(|_| NoHeader::Line)?;
    Ok(Some((end + 2, line_client(line).ok_or(NoHeader::Line)?)))
}

fn line_client(line: &str) -> Option<Client> {
    let mut words = line.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever follows means nothing.
        return Some(Client::Unsaid);
    }
    let (client, server) = (words.next()?, words.next()?);
    let (client, server): (IpAddr, IpAddr) = match family {
        "TCP4" => (client.parse::<Ipv4Addr>().ok()?.into(), server.parse::<Ipv4Addr>().ok()?.into()),
        "TCP6" => (client.parse::<Ipv6Addr>().ok()?.into(), server.parse::<Ipv6Addr>().ok()?.into()),
        _ => return None,
    };
    let (from, _to) = (port(words.next()?)?, port(words.next()?)?);
    // Of the server's address only the form is looked at.
    let _ = server;
    words.next().is_none().then_some(Client::At(SocketAddr::new(client, from)))
}

/// A port in digits only: what std takes may begin with a plus.
fn port(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn binary(input: &[u8]) -> Result<Option<(usize, Client)>, NoHeader> {
    let Some(fixed) = input.get(SIGNATURE.len()..FIXED) else {
        // Version and command are worth a look as soon as they are there.
        return match input.get(SIGNATURE.len()) {
            Some(&version) if !matches!(version, 0x20 | 0x21) => Err(NoHeader::Version(version)),
            _ => Ok(None),
        };
    };
    let (version, family) = (fixed[0], fixed[1]);
    if !matches!(version, 0x20 | 0x21) {
        return Err(NoHeader::Version(version));
    }
    let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if FIXED + length > MAX_BINARY {
        return Err(NoHeader::Long(MAX_BINARY));
    }
    let Some(rest) = input.get(FIXED..FIXED + length) else { return Ok(None) };
    let client = match (version, family) {
        (0x20, _) => Client::Unsaid,
        (_, 0x11) => {
            let bytes: &[u8; 12] = rest.first_chunk().ok_or(NoHeader::Short(length))?;
            let [a, b, c, d, .., high, low, _, _] = *bytes;
            Client::At(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low])))
        }
        (_, 0x21) => {
            let bytes: &[u8; 36] = rest.first_chunk().ok_or(NoHeader::Short(length))?;
            let (address, ports) = (bytes.first_chunk::<16>().copied().unwrap_or_default(), &bytes[32..]);
            Client::At(SocketAddr::new(Ipv6Addr::from(address).into(), u16::from_be_bytes([ports[0], ports[1]])))
        }
        (_, 0x31) => Client::Unix,
        // Datagrams, and what nobody has thought of yet.
        _ => Client::Unsaid,
    };
    Ok(Some((FIXED + length, client)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Client {
        Client::At(text.parse().unwrap())
    }

    /// A header of version 2.
    fn header(version: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([version, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn a_line_names_the_client() {
        let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nGET / HTTP/1.1\r\n";
        assert_eq!(read(line), Ok(Some((45, at("192.0.2.7:56324")))));
        let line = b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n";
        assert_eq!(read(line), Ok(Some((line.len(), at("[2001:db8::1]:1")))));
        assert_eq!(read(b"PROXY UNKNOWN\r\n"), Ok(Some((15, Client::Unsaid))));
        assert_eq!(read(b"PROXY UNKNOWN ffff::1 x y z\r\nX"), Ok(Some((29, Client::Unsaid))));
    }

    #[test]
    fn the_longest_line_is_read_and_one_byte_more_is_not() {
        let mut line = b"PROXY UNKNOWN ".to_vec();
        line.resize(MAX_TEXT - 2, b'x');
        assert_eq!(read(&line), Ok(None));
        let whole = [&line[..], b"\r\n"].concat();
        assert_eq!(read(&whole), Ok(Some((MAX_TEXT, Client::Unsaid))));
        let longer = [&line[..], b"x\r\n"].concat();
        assert_eq!(read(&longer), Err(NoHeader::Long(MAX_TEXT)));
    }

    #[test]
    fn a_line_with_a_mistake_is_refused() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 \r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 x\r\n",
            "PROXY TCP4  192.0.2.7 198.51.100.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.1 56324 443\r\n",
            "PROXY TCP4 ::1 ::1 56324 443\r\n",
            "PROXY TCP6 192.0.2.7 192.0.2.7 1 1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 -1 443\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 1 443\r\n",
            "PROXY tcp4 192.0.2.7 198.51.100.1 1 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 443\n\r\n",
        ] {
            assert_eq!(read(line.as_bytes()), Err(NoHeader::Line), "{line:?}");
        }
    }

    #[test]
    fn the_binary_form_names_the_client() {
        let rest = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 1, 187];
        assert_eq!(read(&header(0x21, 0x11, &rest)), Ok(Some((28, at("192.0.2.7:56324")))));
        let mut rest = [0; 36];
        rest[0..2].copy_from_slice(&[0x20, 0x01]);
        rest[33] = 80;
        assert_eq!(read(&header(0x21, 0x21, &rest)), Ok(Some((52, at("[2001::]:80")))));
    }

    #[test]
    fn what_stands_behind_the_addresses_is_skipped() {
        let rest = [&[10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2][..], &[4, 0, 1, 0]].concat();
        let bytes = [header(0x21, 0x11, &rest), b"GET".to_vec()].concat();
        assert_eq!(read(&bytes), Ok(Some((32, at("10.0.0.1:1")))));
    }

    #[test]
    fn a_proxy_may_speak_for_itself_or_for_nobody_known() {
        assert_eq!(read(&header(0x20, 0, &[])), Ok(Some((16, Client::Unsaid))));
        assert_eq!(read(&header(0x20, 0x11, &[1; 12])), Ok(Some((28, Client::Unsaid))));
        for family in [0x00, 0x12, 0x22, 0x32, 0xff] {
            assert_eq!(read(&header(0x21, family, &[0; 216])), Ok(Some((232, Client::Unsaid))), "{family:#x}");
        }
        assert_eq!(read(&header(0x21, 0x31, &[0; 216])), Ok(Some((232, Client::Unix))));
    }

    #[test]
    fn a_binary_header_with_a_mistake_is_refused() {
        assert_eq!(read(&header(0x21, 0x11, &[0; 11])), Err(NoHeader::Short(11)));
        assert_eq!(read(&header(0x21, 0x21, &[0; 35])), Err(NoHeader::Short(35)));
        for version in [0x00, 0x11, 0x22, 0x2f, 0x31] {
            assert_eq!(read(&header(version, 0x11, &[0; 12])), Err(NoHeader::Version(version)));
            assert_eq!(read(&header(version, 0x11, &[])[..13]), Err(NoHeader::Version(version)));
        }
        assert_eq!(read(&header(0x21, 0x11, &[0; MAX_BINARY - 15])), Err(NoHeader::Long(MAX_BINARY)));
        assert!(matches!(read(&header(0x21, 0x11, &[0; MAX_BINARY - 16])), Ok(Some((MAX_BINARY, _)))));
    }

    #[test]
    fn other_bytes_are_refused_at_the_first_that_does_not_fit() {
        for other in [&b"G"[..], b"PROXYX", b"proxy ", b"\x16\x03\x01", b"\r\nG", b"\r\n\r\n\0\r\nQUIT\r"] {
            assert_eq!(read(other), Err(NoHeader::Other), "{other:?}");
        }
        assert_eq!(read(b""), Ok(None));
    }

    proptest! {
        #[test]
        fn a_header_in_pieces_is_the_same_as_whole(
            v6: bool, text: bool, address: [u8; 16], client_port: u16, extra in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let four = address.first_chunk::<4>().copied().unwrap();
            let ip: IpAddr = if v6 { address.into() } else { four.into() };
            let bytes = if text {
                let family = if v6 { "TCP6" } else { "TCP4" };
                format!("PROXY {family} {ip} {ip} {client_port} 1\r\n").into_bytes()
            } else {
                let mut rest = Vec::new();
                for _ in 0..2 {
                    if v6 { rest.extend(address) } else { rest.extend(four) }
                }
                rest.extend(client_port.to_be_bytes());
                rest.extend([0, 1]);
                rest.extend(&extra);
                header(0x21, if v6 { 0x21 } else { 0x11 }, &rest)
            };
            for cut in 0..bytes.len() {
                prop_assert_eq!(read(&bytes[..cut]), Ok(None));
            }
            let whole = [&bytes[..], &extra].concat();
            let expected = Client::At(SocketAddr::new(ip, client_port));
            prop_assert_eq!(read(&whole), Ok(Some((bytes.len(), expected))));
        }
    }
}
