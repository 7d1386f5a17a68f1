// SPDX-License-Identifier: AGPL-3.0-or-later
//! What one line of the routes file means.

use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

use settings::keys::Key;
use wire::http1::is_token;

use crate::files::{ClientCertificate, Files};
use crate::line::Section;
use crate::options;

const NO_TARGET: &str = "must specify condition and at least one target";

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Requests and responses.
    Http,
    /// WebSocket.
    Ws,
}

/// One route: a condition, what to do with its requests, and where they may go.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where it is written; no two routes of a table have the same.
    pub line: usize,
    /// Written in the file, or made up from the condition.
    pub id: String,
    /// Whether it was written.
    pub explicit_id: bool,
    /// Host that it is for, `*` for any; none: it is found by id only.
    pub domain: Option<String>,
    /// Only for this protocol.
    pub protocol: Option<Protocol>,
    /// Only with (true) or without (false) TLS.
    pub secure: Option<bool>,
    /// Only for paths that begin so.
    pub path_beg: String,
    /// Issuer of Grip-Sig instead of the general one.
    pub sig_iss: Option<String>,
    /// Key of Grip-Sig instead of the general one.
    pub sig_key: Option<Key>,
    /// Put before channel names from instructions.
    pub prefix: String,
    /// Whether the original of headers is passed along.
    pub orig_headers: bool,
    /// `host[:port]` that replaces the request's.
    pub as_host: Option<String>,
    /// Bytes to take from the beginning of the path.
    pub path_remove: usize,
    /// Text to put there.
    pub path_prepend: String,
    /// Whether error responses say what went wrong.
    pub debug: bool,
    /// Whether responses get CORS headers and JSON-P is answered.
    pub auto_cross_origin: bool,
    /// How JSON-P is recognised.
    pub jsonp: Jsonp,
    /// Whether the handler keeps session information.
    pub session: bool,
    /// Path below which SockJS is spoken.
    pub sockjs: Option<String>,
    /// Path that the backend sees for SockJS sessions.
    pub sockjs_as_path: Option<String>,
    /// Headers to set (or, with an empty value, to remove) for the backend, in the order to apply them.
    pub headers: Vec<(String, String)>,
    /// Whether requests are signed and responses may hold.
    pub grip: bool,
    /// Log level from which request lines of this route are shown, instead of the general one.
    pub log_level: Option<u8>,
    /// Where to go, in order of preference; at least one.
    pub targets: Vec<Target>,
}

/// JSON-P parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jsonp {
    /// How the response is packed.
    pub mode: JsonpMode,
    /// Query parameter with the callback's name.
    pub callback: String,
    /// Query parameter with the request's body.
    pub body: Option<String>,
    /// Callback when none is named.
    pub default_callback: Option<String>,
    /// Method when none is named.
    pub default_method: String,
}

/// How a JSON-P response is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonpMode {
    /// The body only.
    Basic,
    /// An object with status and headers.
    Extended,
}

/// Where requests go.
#[derive(Clone, Debug)]
pub struct Target {
    /// What kind of backend it is.
    pub kind: TargetKind,
    /// Whether to connect with TLS.
    pub tls: bool,
    /// Whether addresses of private networks are allowed.
    pub trusted: bool,
    /// Whether the certificate is verified against the host connected to.
    pub trust_connect_host: bool,
    /// Whether a bad certificate is accepted.
    pub insecure: bool,
    /// `host[:port]` that the backend sees.
    pub host: Option<String>,
    /// Channels that every request is subscribed to, in the order to apply them.
    pub subscriptions: Vec<String>,
    /// Whether WebSockets become requests.
    pub over_http: bool,
    /// One message per request of these.
    pub one_event: bool,
    /// What the backend is shown of us, if it asks for a certificate.
    pub client: Option<Arc<ClientCertificate>>,
    /// Permissions of the socket files that are made for a ZeroMQ target on `ipc:`; none: as the proxy's own.
    pub ipc_file_mode: Option<u32>,
}

impl fmt::Debug for ClientCertificate {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate(..)")
    }
}

/// A kind of backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// The built-in test backend.
    Test,
    /// A server.
    Host {
        /// Name or address, without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// ZHTTP on sockets bound by the proxy.
    Zhttp {
        /// First of three addresses, or beginning of their names.
        spec: String,
    },
    /// ZHTTP with whole requests, on one socket bound by the proxy.
    ZhttpRequest {
        /// Its address.
        spec: String,
    },
}

impl Route {
    /// Whether the condition holds.
    pub(crate) fn matches(&self, protocol: Protocol, secure: bool, path: &[u8]) -> bool {
        self.protocol.is_none_or(|p| p == protocol)
            && self.secure.is_none_or(|s| s == secure)
            && path.starts_with(self.path_beg.as_bytes())
    }

    /// Whether this route, further down in the file, is to be preferred to `best`. As in the original, TLS counts even when
    /// the path is shorter.
    pub(crate) fn beats(&self, best: &Self) -> bool {
        match (best.protocol, self.protocol) {
            (None, Some(_)) => true,
            (Some(_), None) => false,
            _ => self.path_beg.len() > best.path_beg.len() || (best.secure.is_none() && self.secure.is_some()),
        }
    }

    pub(crate) fn same_condition(&self, other: &Self) -> bool {
        (self.protocol, self.secure, &self.path_beg) == (other.protocol, other.secure, &other.path_beg)
    }

    /// The id of a route that has none. That `ssl=no` is called `ssl` is the original's, and people's scripts know it.
    fn made_up_id(&self) -> String {
        let protocol = match self.protocol {
            None => "*",
            Some(Protocol::Http) => "http",
            Some(Protocol::Ws) => "ws",
        };
        let ssl = match self.secure {
            None => "*",
            Some(false) => "ssl",
            Some(true) => "no-ssl",
        };
        let path = if self.path_beg.is_empty() { "*" } else { &self.path_beg };
        format!("{},{protocol},{ssl},{path}", self.domain.as_deref().unwrap_or("*"))
    }
}

/// Gives meaning to the sections of a line. `mistakes` gets what is wrong with options that can be left out of account.
///
/// # Errors
/// The line makes no sense, and what.
pub(crate) fn route(
    line: usize,
    sections: &[Section],
    files: &dyn Files,
    mistakes: &mut Vec<String>,
) -> Result<Route, String> {
    let (condition, targets) = match sections {
        [condition, targets @ ..] if !targets.is_empty() => (condition, targets),
        [only] if only.value.contains('\t') => return Err(format!("{NO_TARGET} (only spaces separate, no tabs)")),
        _ => return Err(NO_TARGET.into()),
    };
    mistakes.extend(options::of_condition(condition));
    targets.iter().for_each(|target| mistakes.extend(options::of_target(target)));
    let mut number = |name: &str, limit: usize| {
        let text = condition.prop(name).filter(|text| !text.is_empty())?;
        let number = text.parse().ok().filter(|number| *number <= limit);
        if number.is_none() {
            mistakes.push(format!("{name} must be a number up to {limit}, not `{text}`; it has no effect"));
        }
        number
    };
    let (path_rem, log_level) = (number("path_rem", 1_000_000).unwrap_or(0), number("log_level", 4));
    let text = |name: &str| condition.prop(name).filter(|v| !v.is_empty()).map(String::from);
    let path_beg = match condition.prop("path_beg") {
        Some("") => return Err("path_beg cannot be empty".into()),
        value => value.unwrap_or_default().to_string(),
    };
    let (path_remove, path_prepend) = match condition.prop("replace_beg") {
        Some(replacement) => (path_beg.len(), replacement.to_string()),
        None => (path_rem, String::new()),
    };
    let mut route = Route {
        line,
        id: String::new(),
        explicit_id: false,
        // Hosts of requests are compared in lower case.
        domain: Some(condition.value.to_ascii_lowercase()).filter(|d| !d.is_empty()),
        protocol: match condition.prop("proto") {
            None => None,
            Some("http") => Some(Protocol::Http),
            Some("ws") => Some(Protocol::Ws),
            Some(other) => return Err(format!("proto must be http or ws, not `{other}`")),
        },
        secure: match condition.prop("ssl") {
            None => None,
            Some("yes") => Some(true),
            Some("no") => Some(false),
            Some(other) => return Err(format!("ssl must be yes or no, not `{other}`")),
        },
        path_beg,
        sig_iss: text("sig_iss"),
        sig_key: match condition.prop("sig_key") {
            Some(key) => files.key(key).map_err(|e| format!("sig_key: {e}"))?,
            None => None,
        },
        prefix: text("prefix").unwrap_or_default(),
        orig_headers: condition.has("orig_headers"),
        as_host: text("as_host").map(|host| told_host("as_host", &host)).transpose()?,
        path_remove,
        path_prepend,
        debug: condition.has("debug"),
        auto_cross_origin: condition.has("aco"),
        jsonp: jsonp(condition)?,
        session: condition.has("session"),
        sockjs: text("sockjs"),
        sockjs_as_path: text("sockjs_as_path"),
        headers: condition.each("header").map(header).collect::<Result<_, _>>()?,
        grip: !condition.has("no_grip"),
        log_level: log_level.map(|level| level as u8),
        targets: targets.iter().map(|section| target(section, files)).collect::<Result<_, _>>()?,
    };
    let domain = route.domain.as_deref().unwrap_or_default();
    if domain != "*"
        && domain.contains(['*', '/', ':'])
        && !domain.starts_with('[')
        && domain.parse::<Ipv6Addr>().is_err()
    {
        mistakes
            .push(format!("no request has the host `{domain}`: write a name without port and path, or `*` for all"));
    }
    match text("id") {
        Some(id) => (route.id, route.explicit_id) = (id, true),
        None => route.id = route.made_up_id(),
    }
    Ok(route)
}

fn jsonp(condition: &Section) -> Result<Jsonp, String> {
    let mode = match condition.prop("jsonp_mode") {
        None | Some("extended") => JsonpMode::Extended,
        Some("basic") => JsonpMode::Basic,
        Some(other) => return Err(format!("jsonp_mode must be basic or extended, not `{other}`")),
    };
    let text = |name: &str| condition.prop(name).filter(|v| !v.is_empty()).map(String::from);
    let method = if mode == JsonpMode::Extended { "GET" } else { "POST" };
    Ok(Jsonp {
        mode,
        callback: text("jsonp_cb").unwrap_or_else(|| "callback".into()),
        body: text("jsonp_body"),
        default_callback: text("jsonp_defcb"),
        default_method: text("jsonp_defmethod").unwrap_or_else(|| method.into()),
    })
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, _)) if !name.is_empty() && !is_token(name.as_bytes()) => {
            Err(format!("`{name}` can not be the name of a header"))
        }
        Some((name, value)) if value.contains(|c: char| c.is_ascii_control() && c != '\t') => {
            Err(format!("the value of the header `{name}` has control characters"))
        }
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.trim_start_matches(' ').into())),
        _ => Err(format!("header must be in the form \"name: value\", not `{text}`")),
    }
}

/// The host that backends are told. With another no request could be sent.
fn told_host(option: &str, text: &str) -> Result<String, String> {
    let (host, port) = match text.rsplit_once(':') {
        Some(parts) if !text.ends_with(']') => parts,
        _ => (text, "80"),
    };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte)),
    };
    match is_host && !host.is_empty() && port.parse::<u16>().is_ok() {
        true => Ok(text.into()),
        false => Err(format!("{option} must be a host or host:port, not `{text}`")),
    }
}

fn target(section: &Section, files: &dyn Files) -> Result<Target, String> {
    let text = |name: &str| section.prop(name).filter(|v| !v.is_empty());
    Ok(Target {
        kind: target_kind(&section.value)?,
        tls: section.has("ssl"),
        trusted: !section.has("untrusted"),
        trust_connect_host: section.has("trust_connect_host"),
        insecure: section.has("insecure"),
        host: text("host").map(|host| told_host("host", host)).transpose()?,
        subscriptions: section.each("sub").filter(|c| !c.is_empty()).map(String::from).collect(),
        over_http: section.has("over_http"),
        one_event: section.has("one_event"),
        client: client(text("client_cert"), text("client_key"), section.has("ssl"), files)?.map(Arc::new),
        ipc_file_mode: text("ipc_file_mode").map(file_mode).transpose()?,
    })
}

/// The certificate, and the key: that of the same file, if none is named.
fn client(
    chain: Option<&str>,
    key: Option<&str>,
    tls: bool,
    files: &dyn Files,
) -> Result<Option<ClientCertificate>, String> {
    let Some(chain_file) = chain else {
        return match key {
            Some(_) => Err("client_key is of no use without client_cert".into()),
            None => Ok(None),
        };
    };
    if !tls {
        return Err("client_cert is of no use without ssl".into());
    }
    let read = |option: &str, file: &str, wanted: &str| {
        let text = files.pem(file).map_err(|reason| format!("{option}: {reason}"))?;
        match text.contains(wanted) {
            true => Ok(text),
            false => Err(format!("{option}: {file} has nothing in PEM that ends with `{wanted}`")),
        }
    };
    let chain = read("client_cert", chain_file, "CERTIFICATE-----")?;
    let pair = ClientCertificate { chain, key: read("client_key", key.unwrap_or(chain_file), "PRIVATE KEY-----")? };
    files.pair(&pair).map_err(|reason| match key {
        Some(key) => format!("client_cert={chain_file},client_key={key}: {reason}"),
        None => format!("client_cert={chain_file}: {reason}"),
    })?;
    Ok(Some(pair))
}

fn file_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| format!("ipc_file_mode must be octal digits such as 660, not `{text}`"))
}

fn target_kind(text: &str) -> Result<TargetKind, String> {
    if text == "test" {
        return Ok(TargetKind::Test);
    }
    if let Some(spec) = text.strip_prefix("zhttp/") {
        return Ok(TargetKind::Zhttp { spec: spec.into() });
    }
    if let Some(spec) = text.strip_prefix("zhttpreq/") {
        return Ok(TargetKind::ZhttpRequest { spec: spec.into() });
    }
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once("]:"));
    match bracketed.or_else(|| text.split_once(':')) {
        Some((host, port)) if !host.is_empty() => match port.parse() {
            Ok(port) if port > 0 => Ok(TargetKind::Host { host: host.into(), port }),
            _ => Err(format!("target invalid port: `{text}`; a port is a number from 1 to 65535")),
        },
        _ => Err(format!("target bad format: `{text}`; write host:port, test, zhttp/... or zhttpreq/...")),
    }
}
