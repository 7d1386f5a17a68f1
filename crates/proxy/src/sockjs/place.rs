// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a path below the prefix of a route means.

use routes::Route;

/// A place below the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// What the server can do.
    Info,
    /// A page for hidden frames.
    Iframe,
    /// A WebSocket without SockJS inside of it.
    Raw,
    /// One of a session's transports.
    Session {
        /// The client's name of the session.
        name: &'a [u8],
        /// How it talks.
        transport: &'a [u8],
    },
    /// Nothing.
    Unknown,
}

impl<'a> Place<'a> {
    /// Finds the place of a path; `None` if it is not below the route's prefix, or the route has none.
    pub fn of(route: &Route, path: &'a [u8]) -> Option<Self> {
        let rest = path.strip_prefix(prefix(route)?)?;
        let rest = match rest {
            [] => return Some(Place::Unknown),
            [b'/', rest @ ..] => rest,
            _ => return None,
        };
        let mut parts = rest.split(|byte| *byte == b'/');
        Some(match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(b"info"), None, ..) => Place::Info,
            (Some(b"websocket"), None, ..) => Place::Raw,
            (Some(page), None, ..) if page.starts_with(b"iframe") && page.ends_with(b".html") => Place::Iframe,
            (Some(server), Some(name), Some(transport), None)
                if !server.is_empty() && !name.is_empty() && !transport.is_empty() =>
            {
                Place::Session { name, transport }
            }
            _ => Place::Unknown,
        })
    }
}

fn prefix(route: &Route) -> Option<&[u8]> {
    let prefix = route.sockjs.as_ref()?.as_bytes();
    Some(prefix.strip_suffix(b"/").unwrap_or(prefix))
}

/// The path of sessions towards backends.
pub fn backend_path(route: &Route, websocket: bool) -> Vec<u8> {
    match (&route.sockjs_as_path, websocket) {
        (Some(path), _) => path.as_bytes().to_vec(),
        (None, true) => [prefix(route).unwrap_or_default(), b"/websocket"].concat(),
        (None, false) => prefix(route).unwrap_or_default().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use routes::Table;

    use super::*;

    #[test]
    fn paths_below_the_prefix_have_a_meaning_and_others_none() {
        let (table, problems) = Table::parse(b"*,sockjs=/sock h:1", "routes", &());
        assert!(problems.is_empty(), "{problems:?}");
        let route = table.iter().next().unwrap();
        for (path, place) in [
            ("/sock/info", Some(Place::Info)),
            ("/sock/iframe.html", Some(Place::Iframe)),
            ("/sock/iframe-1.2.3.html", Some(Place::Iframe)),
            ("/sock/websocket", Some(Place::Raw)),
            ("/sock/000/abc/xhr", Some(Place::Session { name: b"abc", transport: b"xhr" })),
            ("/sock/000/abc/xhr/more", Some(Place::Unknown)),
            ("/sock/000//xhr", Some(Place::Unknown)),
            ("/sock/info/", Some(Place::Unknown)),
            ("/sock/", Some(Place::Unknown)),
            ("/sock", Some(Place::Unknown)),
            ("/socks/info", None),
            ("/info", None),
        ] {
            assert_eq!(Place::of(route, path.as_bytes()), place, "{path}");
        }
        assert_eq!(backend_path(route, true), b"/sock/websocket");
        assert_eq!(backend_path(route, false), b"/sock");
    }
}
