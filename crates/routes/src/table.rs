// SPDX-License-Identifier: AGPL-3.0-or-later
//! All routes, and which of them a request takes. A table never changes once it is made; a reload makes a new one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::files::Files;
use crate::rule::{Protocol, Route};
use crate::{line, rule};

/// Something wrong with a routes file, as `file:line: what`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {text}")]
pub struct Problem {
    /// Name of the file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong, and what was probably meant.
    pub text: String,
}

/// All routes.
#[derive(Debug, Default)]
pub struct Table {
    /// By exact host, in file order.
    by_host: HashMap<String, Vec<Arc<Route>>>,
    /// For hosts that have none of their own: those of `*`.
    by_default: Vec<Arc<Route>>,
    /// By id; none where two routes have the same.
    by_id: HashMap<String, Option<Arc<Route>>>,
    count: usize,
}

/// What an id stands for.
#[derive(Clone, Copy, Debug)]
pub enum ById<'a> {
    /// One route.
    Found(&'a Arc<Route>),
    /// Several, so that it cannot be used to choose one.
    Shared,
    /// None.
    Unknown,
}

impl Table {
    /// Reads the bytes of a routes file. `file` is its name for messages.
    ///
    /// What is wrong does not keep the rest from being used: a line that makes no sense is left out, an option that is
    /// unknown or not supported has no effect. Whether such a table is good enough is the caller's decision.
    pub fn parse(bytes: &[u8], file: &str, files: &dyn Files) -> (Self, Vec<Problem>) {
        // Editors on Windows put a byte order mark in front.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut routes = Self::default();
        let mut problems = Vec::new();
        for (index, line) in bytes.split(|&b| b == b'\n').enumerate() {
            let mut mistakes = Vec::new();
            if let Err(text) = routes.read(index + 1, line.strip_suffix(b"\r").unwrap_or(line), files, &mut mistakes) {
                mistakes.push(text);
            }
            problems.extend(mistakes.into_iter().map(|text| Problem { file: file.into(), line: index + 1, text }));
        }
        (routes, problems)
    }

    fn read(
        &mut self,
        number: usize,
        line: &[u8],
        files: &dyn Files,
        mistakes: &mut Vec<String>,
    ) -> Result<(), String> {
        let text = std::str::from_utf8(line).map_err(|_| "this is not UTF-8 text")?;
        match &line::split(text)?[..] {
            [] => Ok(()),
            sections => self.add(rule::route(number, sections, files, mistakes)?),
        }
    }

    fn add(&mut self, route: Route) -> Result<(), String> {
        let route = Arc::new(route);
        if let Some(domain) = &route.domain {
            let rules = match domain.as_str() {
                "*" => &mut self.by_default,
                host => self.by_host.entry(host.into()).or_default(),
            };
            if let Some(first) = rules.iter().find(|other| other.same_condition(&route)) {
                return Err(format!("skipping duplicate condition: line {} has the same", first.line));
            }
            rules.push(route.clone());
        }
        self.by_id.entry(route.id.clone()).and_modify(|shared| *shared = None).or_insert(Some(route));
        self.count += 1;
        Ok(())
    }

    /// Number of routes.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Every route once, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        let of_hosts = self.by_host.values().flatten().chain(&self.by_default);
        of_hosts.chain(self.by_id.values().flatten().filter(|route| route.domain.is_none()))
    }

    /// The route of a request: `host` is without port, `path` as the client sent it, without query.
    ///
    /// A host with routes of its own never falls back to those of `*`.
    pub fn lookup(&self, protocol: Protocol, secure: bool, host: &str, path: &[u8]) -> Option<&Arc<Route>> {
        let host = match host.bytes().any(|b| b.is_ascii_uppercase()) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        };
        let rules = if self.by_host.is_empty() {
            &self.by_default
        } else {
            self.by_host.get(&*host).unwrap_or(&self.by_default)
        };
        let mut matching = rules.iter().filter(|route| route.matches(protocol, secure, path));
        let first = matching.next()?;
        Some(matching.fold(first, |best, route| if route.beats(best) { route } else { best }))
    }

    /// The route with an id, be it written in the file or made up from the condition.
    pub fn by_id(&self, id: &str) -> ById<'_> {
        match self.by_id.get(id) {
            Some(Some(route)) => ById::Found(route),
            Some(None) => ById::Shared,
            None => ById::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use settings::keys::Key;

    use super::*;
    use crate::TargetKind;
    use crate::files::ClientCertificate;

    struct NoKeys;

    impl Files for NoKeys {
        fn key(&self, _: &str) -> Result<Option<Key>, String> {
            Err("no keys here".into())
        }

        fn pem(&self, file: &str) -> Result<String, String> {
            match file {
                "both" => Ok("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n".into()),
                "cert" => Ok("-----BEGIN CERTIFICATE-----\n".into()),
                "key" => Ok("-----BEGIN EC PRIVATE KEY-----\n".into()),
                "damaged" => Ok("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\ndamaged".into()),
                _ => Err(format!("can't read {file}")),
            }
        }

        fn pair(&self, pair: &ClientCertificate) -> Result<(), String> {
            match [&pair.chain, &pair.key].iter().any(|text| text.contains("damaged")) {
                true => Err("no certificate".into()),
                false => Ok(()),
            }
        }
    }

    fn routes(text: &str) -> Table {
        let (routes, warnings) = Table::parse(text.as_bytes(), "routes", &NoKeys);
        assert_eq!(warnings, []);
        routes
    }

    fn port(routes: &Table, protocol: Protocol, secure: bool, host: &str, path: &str) -> Option<u16> {
        let route = routes.lookup(protocol, secure, host, path.as_bytes())?;
        match &route.targets[0].kind {
            TargetKind::Host { port, .. } => Some(*port),
            _ => None,
        }
    }

    fn http(routes: &Table, host: &str, path: &str) -> Option<u16> {
        port(routes, Protocol::Http, false, host, path)
    }

    fn problem(line: &str) -> String {
        let (_, warnings) = Table::parse(line.as_bytes(), "routes", &NoKeys);
        warnings.first().map(ToString::to_string).unwrap_or_default()
    }

    #[test]
    fn a_host_of_its_own_never_falls_back_to_the_default() {
        let routes = routes("a.com,path_beg=/x o:1\n* o:2\n");
        assert_eq!(http(&routes, "a.com", "/x/y"), Some(1));
        assert_eq!(http(&routes, "a.com", "/y"), None);
        assert_eq!(http(&routes, "b.com", "/y"), Some(2));
        assert_eq!(http(&routes, "A.com", "/x"), Some(1));
    }

    #[test]
    fn the_longest_path_wins_wherever_it_stands() {
        let routes = routes("*,path_beg=/a/b o:1\n* o:2\n*,path_beg=/a o:3\n");
        assert_eq!(http(&routes, "h", "/a/b/c"), Some(1));
        assert_eq!(http(&routes, "h", "/a/c"), Some(3));
        assert_eq!(http(&routes, "h", "/c"), Some(2));
    }

    #[test]
    fn a_protocol_of_its_own_beats_a_longer_path() {
        let routes = routes("*,path_beg=/long o:1\n*,proto=ws o:2\n");
        assert_eq!(port(&routes, Protocol::Ws, false, "h", "/long"), Some(2));
        assert_eq!(port(&routes, Protocol::Http, false, "h", "/long"), Some(1));
    }

    #[test]
    fn a_later_route_with_ssl_beats_a_longer_path_without() {
        let routes = routes("*,path_beg=/long o:1\n*,ssl=yes o:2\n");
        assert_eq!(port(&routes, Protocol::Http, true, "h", "/long"), Some(2));
        assert_eq!(port(&routes, Protocol::Http, false, "h", "/long"), Some(1));
    }

    #[test]
    fn ids_are_made_up_with_the_ssl_text_turned_round() {
        let routes = routes("* o:1\n*,ssl=no,path_beg=/x o:2\na.com,proto=ws,ssl=yes o:3\n");
        for id in ["*,*,*,*", "*,*,ssl,/x", "a.com,ws,no-ssl,*"] {
            assert!(matches!(routes.by_id(id), ById::Found(route) if !route.explicit_id), "{id}");
        }
    }

    #[test]
    fn an_id_given_twice_is_of_no_use_but_the_routes_are() {
        let routes = routes("a.com,id=x o:1\nb.com,id=x o:2\n");
        assert!(matches!(routes.by_id("x"), ById::Shared));
        assert_eq!(http(&routes, "b.com", "/"), Some(2));
        assert!(matches!(routes.by_id("y"), ById::Unknown));
    }

    #[test]
    fn a_route_without_domain_is_found_by_id_only() {
        let routes = routes(",id=x o:1\nid=y o:2\n");
        assert!(matches!(routes.by_id("x"), ById::Found(_)));
        assert!(matches!(routes.by_id("y"), ById::Found(_)));
        assert_eq!(http(&routes, "", "/"), None);
        assert_eq!(routes.iter().count(), 2);
    }

    #[test]
    fn one_bad_line_leaves_the_others() {
        let (routes, warnings) = Table::parse(b"# comment\n\n* o:1\n* o:2\n*,ssl=maybe o:3\n", "routes", &NoKeys);
        assert_eq!(routes.len(), 1);
        let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(texts[0], "routes:4: skipping duplicate condition: line 3 has the same");
        assert!(texts[1].starts_with("routes:5: "), "{}", texts[1]);
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(problem("*"), "routes:1: must specify condition and at least one target");
        assert_eq!(problem("* \"x"), "routes:1: unterminated quoted section");
        assert_eq!(problem("*, o:1"), "routes:1: expecting prop");
        assert_eq!(problem("*,=x o:1"), "routes:1: empty prop name");
        assert!(problem("* host:0").contains("target invalid port"));
        assert!(problem("* host").contains("target bad format"));
        assert!(problem("*,header=x o:1").contains("header"));
        assert!(problem("*,header=\"A B: x\" o:1").contains("`A B` can not be the name of a header"));
        assert!(problem("*,header=A:\u{1} o:1").contains("control characters"));
        for host in ["a b", "h:x", "h:99999", ":80", "[::g]", "a:b:1", "h/x"] {
            assert!(problem(&format!("*,as_host=\"{host}\" o:1")).contains("as_host must be a host"), "{host}");
            assert!(problem(&format!("* o:1,host=\"{host}\"")).contains("host must be a host"), "{host}");
        }
        for host in ["h", "h_x.test:1", "[::1]", "[::1]:80", "1.2.3.4"] {
            assert!(
                Table::parse(format!("*,as_host={host} o:1,host={host}").as_bytes(), "routes", &NoKeys).1.is_empty()
            );
        }
        for mode in ["rw", "888", "1777", "-1"] {
            let text = problem(&format!("* zhttp/ipc://x,ipc_file_mode={mode}"));
            assert!(text.contains("must be octal digits such as 660"), "{text}");
        }
    }

    #[test]
    fn everything_a_line_can_say_is_read() {
        let text = "*,path_beg=/p,replace_beg=/q,as_host=h:1,prefix=pre-,header=\"A: b, c\",header=D:,debug,no_grip,log_level=3 \
                    [::1]:80,ssl,untrusted,insecure,host=o.com,sub=c1,sub=c2,over_http test zhttpreq/ipc://x,ipc_file_mode=660";
        let (routes, problems) = Table::parse(text.as_bytes(), "routes", &NoKeys);
        assert!(problems.is_empty(), "{problems:?}");
        let route = routes.lookup(Protocol::Http, false, "h", b"/p/x").unwrap();
        assert_eq!((route.path_remove, route.path_prepend.as_str()), (2, "/q"));
        assert_eq!(route.as_host.as_deref(), Some("h:1"));
        // The original applies repeated properties from the last to the first.
        assert_eq!(route.headers, [("D".into(), "".into()), ("A".into(), "b, c".into())]);
        assert!(route.debug && !route.grip);
        assert_eq!(route.log_level, Some(3));
        let target = &route.targets[0];
        assert_eq!(target.kind, TargetKind::Host { host: "::1".into(), port: 80 });
        assert!(target.tls && !target.trusted && target.insecure && target.over_http);
        assert_eq!(target.subscriptions, ["c2", "c1"]);
        assert_eq!(route.targets[1].kind, TargetKind::Test);
        assert_eq!(route.targets[2].kind, TargetKind::ZhttpRequest { spec: "ipc://x".into() });
        assert_eq!((route.targets[2].ipc_file_mode, target.ipc_file_mode), (Some(0o660), None));
    }

    #[test]
    fn a_certificate_for_a_backend_is_read_with_its_key() {
        let read = |options: &str| {
            let (routes, problems) = Table::parse(format!("* o:1,ssl,{options}").as_bytes(), "routes", &NoKeys);
            let route = routes.lookup(Protocol::Http, false, "h", b"/").cloned();
            (route.and_then(|route| route.targets[0].client.clone()), problems)
        };
        for options in ["client_cert=cert,client_key=key", "client_cert=both", "client_cert=both,client_key=key"] {
            let (client, problems) = read(options);
            assert!(problems.is_empty(), "{problems:?}");
            let client = client.unwrap();
            assert!(client.chain.contains("CERTIFICATE") && client.key.contains("PRIVATE KEY"));
            assert!(!format!("{client:?}").contains("KEY"), "keys are not for the log");
        }
        assert_eq!(read("insecure").0, None);
        for (options, said) in [
            ("client_cert=cert", "client_key: cert has nothing in PEM that ends with `PRIVATE KEY-----`"),
            ("client_cert=key", "client_cert: key has nothing in PEM that ends with `CERTIFICATE-----`"),
            ("client_cert=none,client_key=key", "client_cert: can't read none"),
            ("client_cert=cert,client_key=none", "client_key: can't read none"),
            ("client_key=key", "client_key is of no use without client_cert"),
            ("client_cert=damaged", "client_cert=damaged: no certificate"),
            ("client_cert=cert,client_key=damaged", "client_cert=cert,client_key=damaged: no certificate"),
        ] {
            let (client, problems) = read(options);
            assert_eq!((client, problems.len(), problems[0].text.as_str()), (None, 1, said));
        }
        let (_, problems) = Table::parse(b"* o:1,client_cert=both", "routes", &NoKeys);
        assert_eq!(problems[0].to_string(), "routes:1: client_cert is of no use without ssl");
    }

    #[test]
    fn what_is_unknown_or_not_supported_is_named_with_what_was_meant_and_the_rest_of_the_line_used() {
        let text = "*,path_bge=/x,session,future,debug=no,ssl=,log_level=loud,over_http o:1,over_htpt,path_beg=/\n";
        let (routes, problems) = Table::parse(text.as_bytes(), "routes", &NoKeys);
        let texts: Vec<&str> = problems.iter().map(|problem| problem.text.as_str()).collect();
        let wanted = [
            "unknown option `path_bge`, did you mean `path_beg`?",
            "`session` is not supported yet",
            "unknown option `future`; it has no effect",
            "`debug` takes no value",
            "`ssl` needs a value",
            "`over_http` is an option of the target",
            "unknown option `over_htpt`, did you mean `over_http`?",
            "`path_beg` is an option of the condition",
            "log_level must be a number up to 4, not `loud`",
        ];
        // The line is not used, because ssl must be yes or no.
        assert_eq!(texts.len(), wanted.len() + 1, "{texts:#?}");
        for (text, wanted) in texts.iter().zip(wanted) {
            assert!(text.starts_with(wanted), "{text} {wanted}");
        }
        assert!(routes.is_empty());
        let (routes, problems) = Table::parse(b"*,future=1 o:1,novel", "routes", &NoKeys);
        assert_eq!((routes.len(), problems.len()), (1, 2));
    }

    #[test]
    fn marks_line_ends_and_cases_of_other_systems_do_no_harm() {
        let routes = routes("\u{feff}A.Com o:1\r\n\r\n* o:2\r\n");
        assert_eq!(http(&routes, "a.com", "/"), Some(1));
        assert_eq!(http(&routes, "b.com", "/"), Some(2));
    }

    #[test]
    fn half_a_file_and_what_is_no_text_are_mistakes() {
        assert_eq!(problem("* \"o"), "routes:1: unterminated quoted section");
        assert_eq!(
            problem("*\to:1"),
            "routes:1: must specify condition and at least one target (only spaces separate, no tabs)"
        );
        let (_, problems) = Table::parse(b"* o:1\n\xff o:1\n", "routes", &NoKeys);
        assert_eq!(problems[0].to_string(), "routes:2: this is not UTF-8 text");
        assert!(
            Table::parse(b"*.a.com o:1", "routes", &NoKeys).1[0].text.starts_with("no request has the host `*.a.com`")
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            Table::parse(&bytes, "routes", &NoKeys);
        }

        #[test]
        fn no_line_of_known_words_is_too_strange(words in proptest::collection::vec(
            proptest::sample::select(vec!["*", ",", " ", "=", "\"", "path_beg", "ssl", "header", "a:1", "test", "[", "]:", "#", "\\", "zhttp/"]), 0..20)) {
            Table::parse(words.concat().as_bytes(), "routes", &NoKeys);
        }
    }
}
