// SPDX-License-Identifier: AGPL-3.0-or-later
//! Addresses in `Grip-Link`: resolved against the address that the response came from (RFC 3986, section 5), byte for byte
//! as they were written otherwise.

/// An absolute address, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts<'a> {
    scheme: &'a str,
    authority: &'a str,
    path: &'a str,
    /// With the question mark.
    query: &'a str,
}

fn parts(uri: &str) -> Option<Parts<'_>> {
    let uri = without_fragment(uri);
    let (scheme, rest) = uri.split_once("://")?;
    let (rest, query) = split_query(rest);
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Some(Parts { scheme, authority, path, query })
}

fn without_fragment(uri: &str) -> &str {
    uri.split('#').next().unwrap_or_default()
}

fn split_query(text: &str) -> (&str, &str) {
    text.split_at(text.find('?').unwrap_or(text.len()))
}

fn has_scheme(reference: &str) -> bool {
    let end = reference.find([':', '/', '?']).unwrap_or(reference.len());
    let scheme = &reference[..end];
    reference[end..].starts_with(':')
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// The address that `reference` means in a response for `base`; `None` if it is not one that can be asked: of another scheme
/// than http and https, or `base` is not absolute. Fragments are left out.
pub fn resolve(base: &str, reference: &str) -> Option<String> {
    let base = parts(base)?;
    let reference = without_fragment(reference);
    let whole = if has_scheme(reference) {
        reference.to_string()
    } else if let Some(rest) = reference.strip_prefix("//") {
        format!("{}://{rest}", base.scheme)
    } else {
        let (path, query) = split_query(reference);
        let (path, query) = match path {
            "" if query.is_empty() => (base.path.to_string(), base.query),
            "" => (base.path.to_string(), query),
            _ if path.starts_with('/') => (without_dots(path), query),
            _ => {
                let directory = base.path.rfind('/').map_or("/", |slash| &base.path[..=slash]);
                (without_dots(&[directory, path].concat()), query)
            }
        };
        let slash = if path.starts_with('/') { "" } else { "/" };
        [base.scheme, "://", base.authority, slash, &path, query].concat()
    };
    let askable = |scheme: &str| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    parts(&whole).filter(|parts| askable(parts.scheme) && !parts.authority.is_empty())?;
    Some(whole)
}

/// Takes `.` and `..` out of a path.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    let last = segments.len() - 1;
    for (at, segment) in segments.into_iter().enumerate() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if at == last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Whether two absolute addresses have the same scheme, host and port, so that they are of one site.
pub fn same_site(a: &str, b: &str) -> bool {
    let site = |uri| {
        let Parts { scheme, authority, .. } = parts(uri)?;
        let (scheme, authority) = (scheme.to_ascii_lowercase(), authority.to_ascii_lowercase());
        let authority = authority.rsplit('@').next()?.to_string();
        let port = if scheme == "https" { ":443" } else { ":80" };
        Some((authority.strip_suffix(port).unwrap_or(&authority).trim_end_matches(':').to_string(), scheme))
    };
    matches!((site(a), site(b)), (Some(a), Some(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_mean_what_rfc_3986_says() {
        let base = "http://a/b/c/d;p?q";
        // Its examples (5.4), without those of other schemes.
        for (reference, means) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q"),
            ("g#s", "http://a/b/c/g"),
            ("g;x?y#s", "http://a/b/c/g;x?y"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("./", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../g", "http://a/g"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g.", "http://a/b/c/g."),
            ("..g", "http://a/b/c/..g"),
            ("./../g", "http://a/b/g"),
            ("g/./h", "http://a/b/c/g/h"),
            ("g/../h", "http://a/b/c/h"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
        ] {
            assert_eq!(resolve(base, reference).as_deref(), Some(means), "{reference}");
        }
    }

    #[test]
    fn bytes_stay_as_they_were_written() {
        assert_eq!(resolve("http://h:81/%7Ea//b?x", "c%2F?n=%20").as_deref(), Some("http://h:81/%7Ea//c%2F?n=%20"));
        assert_eq!(resolve("http://h", "?n").as_deref(), Some("http://h/?n"));
        assert_eq!(resolve("https://h/a", "HTTP://Other/x").as_deref(), Some("HTTP://Other/x"));
    }

    #[test]
    fn what_can_not_be_asked_is_none() {
        for (base, reference) in
            [("http://h/", "ftp://h/"), ("http://h/", "mailto:x"), ("/h", "/x"), ("http://h/", "http:///x")]
        {
            assert_eq!(resolve(base, reference), None, "{reference}");
        }
    }

    #[test]
    fn a_site_is_scheme_host_and_port() {
        assert!(same_site("http://h/a", "http://H:80/b?x"));
        assert!(same_site("https://h:443", "https://h/"));
        assert!(!same_site("http://h/", "https://h/"));
        assert!(!same_site("http://h/", "http://h:81/"));
        assert!(!same_site("http://h/", "http://i/"));
        assert!(!same_site("h", "h"));
    }
}
