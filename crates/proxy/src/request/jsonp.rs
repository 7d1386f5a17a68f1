// SPDX-License-Identifier: AGPL-3.0-or-later
//! A request that a page makes by a script tag: what it really wants stands in its query (proxy, JSON-P activation).

use grip::jsonp::Jsonp;
use routes::JsonpMode;
use zhttp::{Headers, Packet};

use super::uri::Uri;

/// What such a request means.
#[derive(Debug, PartialEq)]
pub struct Meant {
    /// How its response is packed.
    pub jsonp: Jsonp,
    /// The method.
    pub method: Vec<u8>,
    /// The query without what was for us; with its question mark, or empty.
    pub query: Vec<u8>,
    /// The headers.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

/// A parameter is not as it must be; the text is for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid {0} parameter.")]
pub struct Invalid(pub &'static str);

/// Reads a request; `None` if it is an ordinary one.
///
/// # Errors
/// A parameter is not as it must be.
pub fn read(packet: &Packet<'_>, uri: &Uri<'_>, rules: &routes::Jsonp) -> Result<Option<Meant>, Invalid> {
    if packet.method != Some(b"GET") {
        return Ok(None);
    }
    let query = uri.query.strip_prefix(b"?").unwrap_or_default();
    let items = || query.split(|&byte| byte == b'&').filter(|item| !item.is_empty());
    let find = |name: &str| items().map(split).find(|(key, _)| is_named(key, name)).map(|(_, value)| value);
    let wanted = find(&rules.callback);
    let configured = rules.body.as_deref();
    let default = rules.default_callback.as_deref().filter(|_| configured.is_some_and(|body| find(body).is_some()));
    let callback = match (wanted, default) {
        (Some(value), _) => decoded(value).filter(|callback| is_callback(callback)).ok_or(Invalid("callback"))?,
        (None, Some(default)) => default.as_bytes().to_vec(),
        (None, None) => return Ok(None),
    };
    let method = match find("_method") {
        Some(value) => decoded(value).filter(|method| is_printable(method)).ok_or(Invalid("_method"))?,
        None => rules.default_method.as_bytes().to_vec(),
    };
    // The frontend refuses it, because what a backend answered would be a tunnel and no response.
    if method == b"CONNECT" {
        return Err(Invalid("_method"));
    }
    let mut given = match find("_headers") {
        Some(value) => decoded(value).and_then(|json| headers_of(&json)).ok_or(Invalid("_headers"))?,
        None => Vec::new(),
    };
    let body_name = configured.unwrap_or("_body");
    let found = find(body_name);
    let body = match found {
        Some(value) => decoded(value).ok_or(Invalid(if configured.is_some() { "body" } else { "_body" }))?,
        None => Vec::new(),
    };
    if configured.is_some() && found.is_some() {
        given.retain(|(name, _)| !name.eq_ignore_ascii_case(b"Content-Type"));
        given.push((b"Content-Type".to_vec(), b"application/json".to_vec()));
    }
    let ours = [&*rules.callback, "_method", "_headers", body_name];
    let rest: Vec<&[u8]> = items().filter(|item| !ours.iter().any(|name| is_named(split(item).0, name))).collect();
    let mut query = Vec::new();
    if !rest.is_empty() {
        query.push(b'?');
        query.extend_from_slice(&rest.join(&b'&'));
    }
    given.push((b"Host".to_vec(), uri.authority.to_vec()));
    given.push((b"Accept".to_vec(), b"*/*".to_vec()));
    given.extend(
        packet
            .headers
            .iter()
            .filter(|(name, _)| !is_replaced(name))
            .map(|(name, value)| (name.to_vec(), value.to_vec())),
    );
    let extended = rules.mode == JsonpMode::Extended;
    Ok(Some(Meant { jsonp: Jsonp { callback: callback.into(), extended }, method, query, headers: given, body }))
}

impl Meant {
    /// As a first packet, in the place of `packet`.
    pub fn encode(&self, packet: &Packet<'_>, uri: &Uri<'_>) -> Vec<u8> {
        let mut whole = Vec::new();
        Uri { query: &self.query, ..*uri }.write(&mut whole);
        let headers: Vec<(&[u8], &[u8])> =
            self.headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
        let packet = Packet {
            method: Some(&self.method),
            uri: Some(&whole),
            headers: Headers::Pairs(&headers),
            body: &self.body,
            more: false,
            ..*packet
        };
        packet.encode(None, &mut tnetstring::Writer::new(1024 + self.body.len())).to_vec()
    }
}

fn split(item: &[u8]) -> (&[u8], &[u8]) {
    match item.iter().position(|&byte| byte == b'=') {
        Some(at) => (&item[..at], &item[at + 1..]),
        None => (item, b""),
    }
}

/// Whether a key of the query means this parameter, written as it is or with `%xx`.
fn is_named(key: &[u8], name: &str) -> bool {
    key == name.as_bytes() || (key.contains(&b'%') && decoded(key).is_some_and(|key| key == name.as_bytes()))
}

fn is_replaced(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"Host") || name.eq_ignore_ascii_case(b"Accept")
}

/// The name of a function, possibly within objects: nothing that would be a script by itself.
fn is_callback(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_$.[]".contains(byte))
}

fn is_printable(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_graphic)
}

/// The headers in a JSON object of texts. What could not be one is not taken.
fn headers_of(json: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let value: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(json).ok()?;
    let mut headers = Vec::new();
    for (name, value) in value {
        let value = value.as_str()?;
        if !is_printable(name.as_bytes()) || name.contains(':') || value.contains(['\r', '\n', '\0']) {
            return None;
        }
        if !is_replaced(name.as_bytes()) {
            headers.push((name.into_bytes(), value.as_bytes().to_vec()));
        }
    }
    Some(headers)
}

/// Decodes `%xx`; `None` if there is a `%` without two digits.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = text.iter();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(&byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|digit| char::from(*digit).to_digit(16));
                let (high, low) = (digit()?, digit()?);
                (high << 4 | low) as u8
            }
            byte => byte,
        };
        decoded.push(byte);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(mode: JsonpMode) -> routes::Jsonp {
        routes::Jsonp {
            mode,
            callback: "callback".into(),
            body: None,
            default_callback: None,
            default_method: "GET".into(),
        }
    }

    fn ask(query: &str, rules: &routes::Jsonp) -> Result<Option<Meant>, Invalid> {
        let whole = format!("http://h:81/p{query}");
        let uri = Uri::parse(whole.as_bytes()).unwrap();
        let headers: &[(&[u8], &[u8])] = &[(b"Host", b"x"), (b"Cookie", b"c")];
        read(&Packet { method: Some(b"GET"), headers: Headers::Pairs(headers), ..Packet::default() }, &uri, rules)
    }

    fn lines(meant: &Meant) -> Vec<String> {
        meant.headers.iter().map(|(n, v)| format!("{}: {}", n.escape_ascii(), v.escape_ascii())).collect()
    }

    #[test]
    fn what_is_meant_stands_in_the_query() {
        let rules = rules(JsonpMode::Extended);
        assert_eq!(ask("?a=1", &rules), Ok(None));
        let meant = ask("?a=1&callback=my.cb&b", &rules).unwrap().unwrap();
        assert_eq!((&*meant.jsonp.callback, meant.jsonp.extended), (&b"my.cb"[..], true));
        assert_eq!((&meant.method[..], &meant.query[..], &meant.body[..]), (&b"GET"[..], &b"?a=1&b"[..], &b""[..]));
        assert_eq!(lines(&meant), ["Host: h:81", "Accept: */*", "Cookie: c"]);
        let all = "?callback=cb&_method=PUT&_body=a%20b&_headers=%7B%22X-A%22:%221%22,%22host%22:%22evil%22%7D";
        let meant = ask(all, &rules).unwrap().unwrap();
        assert_eq!((&meant.method[..], &meant.query[..], &meant.body[..]), (&b"PUT"[..], &b""[..], &b"a b"[..]));
        assert_eq!(lines(&meant), ["X-A: 1", "Host: h:81", "Accept: */*", "Cookie: c"]);
    }

    #[test]
    fn a_configured_body_is_json_and_may_do_without_a_callback() {
        let rules =
            routes::Jsonp { body: Some("bp".into()), default_callback: Some("dcb".into()), ..rules(JsonpMode::Basic) };
        assert_eq!(ask("?x=1", &rules), Ok(None));
        let meant = ask("?bp=%7B%7D", &rules).unwrap().unwrap();
        assert_eq!((&*meant.jsonp.callback, &meant.body[..]), (&b"dcb"[..], &b"{}"[..]));
        assert_eq!(lines(&meant)[0], "Content-Type: application/json");
        let meant = ask("?callback=cb&_body=x", &rules).unwrap().unwrap();
        assert_eq!((&meant.body[..], &*lines(&meant)[0]), (&b""[..], "Host: h:81"));
    }

    #[test]
    fn names_of_parameters_may_be_encoded() {
        let meant = ask("?%63allback=cb&%5fbody=x&%zz=1", &rules(JsonpMode::Extended)).unwrap().unwrap();
        assert_eq!((&meant.body[..], &meant.query[..]), (&b"x"[..], &b"?%zz=1"[..]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let rules = rules(JsonpMode::Extended);
        for (query, name) in [
            ("?callback=", "callback"),
            ("?callback=%zz", "callback"),
            ("?callback=alert(1)//", "callback"),
            ("?callback=c&_method=", "_method"),
            ("?callback=c&_method=a%20b", "_method"),
            ("?callback=c&_method=CONNE%43T", "_method"),
            ("?callback=c&_headers=zz", "_headers"),
            ("?callback=c&_headers=%7B%22a%22:1%7D", "_headers"),
            ("?callback=c&_headers=%7B%22a%22:%22x%5Cny%22%7D", "_headers"),
            ("?callback=c&_body=%4", "_body"),
        ] {
            assert_eq!(ask(query, &rules), Err(Invalid(name)), "{query}");
        }
    }
}
