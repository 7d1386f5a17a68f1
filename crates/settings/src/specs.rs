// SPDX-License-Identifier: AGPL-3.0-or-later
//! Names of the ZeroMQ sockets inside the suite.
//!
//! Every process derives them from the same two settings, so that none has to be told where the others are:
//! `ipc://{rundir}/{ipc_prefix}` and a name.

/// The sockets that a frontend process binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendSpecs {
    /// PUSH: first packets of requests.
    pub out: String,
    /// ROUTER: further packets of them, from whoever has the session.
    pub out_stream: String,
    /// SUB: packets of responses.
    pub input: String,
}

/// The sockets that the outbound process binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundSpecs {
    /// PULL: first packets of requests.
    pub input: String,
    /// ROUTER: further packets of them.
    pub in_stream: String,
    /// XPUB: packets of responses.
    pub out: String,
}

impl FrontendSpecs {
    /// Those of the program `name` under `base`, that is `ipc://{rundir}/{ipc_prefix}`.
    pub(crate) fn named(base: &str, name: &str) -> Self {
        Self {
            out: format!("{base}{name}-out"),
            out_stream: format!("{base}{name}-out-stream"),
            input: format!("{base}{name}-in"),
        }
    }

    /// Those of frontend process `number`, from 0.
    pub(crate) fn own(base: &str, number: usize) -> Self {
        match number {
            0 => Self::named(base, "frontend"),
            n => Self::named(base, &format!("frontend-{n}")),
        }
    }
}

impl OutboundSpecs {
    /// Those of the program `name` under `base`.
    pub(crate) fn named(base: &str, name: &str) -> Self {
        Self {
            input: format!("{base}{name}-in"),
            in_stream: format!("{base}{name}-in-stream"),
            out: format!("{base}{name}-out"),
        }
    }
}

/// The socket file behind an `ipc://` address; none for others.
pub fn ipc_path(spec: &str) -> Option<&std::path::Path> {
    spec.strip_prefix("ipc://").filter(|p| !p.starts_with('@')).map(std::path::Path::new)
}

/// Adds `offset` to the port of a `tcp://host:port` address. As in Pushpin, a bracketed IPv6 host is left alone.
pub(crate) fn shift_port(value: &str, offset: u16) -> Result<String, String> {
    let Some(start) = value.find("tcp://").map(|at| at + "tcp://".len()).filter(|_| offset > 0) else {
        return Ok(value.into());
    };
    let Some((host, port)) = value[start..].split_once(':') else { return Ok(value.into()) };
    let digits = port.len() - port.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    match port[..digits].parse::<u16>() {
        Ok(port) => Ok(format!("{}{host}:{}", &value[..start], offset_port(port, offset)?)),
        Err(_) => Ok(value.into()),
    }
}

/// Adds an offset to a port, if there is such a port.
pub(crate) fn offset_port(port: u16, offset: u16) -> Result<u16, String> {
    port.checked_add(offset).ok_or_else(|| format!("port {port} and the port offset {offset} are above 65535 together"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_frontends_have_a_number() {
        assert_eq!(FrontendSpecs::own("ipc://r/p-", 0).out_stream, "ipc://r/p-frontend-out-stream");
        assert_eq!(FrontendSpecs::own("ipc://r/p-", 2).input, "ipc://r/p-frontend-2-in");
    }

    fn shifted(value: &str, offset: u16) -> String {
        shift_port(value, offset).unwrap()
    }

    #[test]
    fn a_port_that_the_offset_takes_beyond_the_last_is_an_error() {
        assert_eq!(shifted("tcp://a:5560", 59975), "tcp://a:65535");
        assert!(shift_port("tcp://a:5560", 59976).unwrap_err().contains("65535"));
    }

    #[test]
    fn ports_move_by_the_offset() {
        assert_eq!(shifted("tcp://1.2.3.4:100", 10), "tcp://1.2.3.4:110");
        assert_eq!(shifted("tcp://1.2.3.4:100/x", 10), "tcp://1.2.3.4:110");
        assert_eq!(shifted("tcp://[::1]:100", 10), "tcp://[::1]:100");
        assert_eq!(shifted("ipc://a:1", 10), "ipc://a:1");
        assert_eq!(shifted("tcp://*:5560", 0), "tcp://*:5560");
    }
}
