// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is answered at once, without a backend.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use zhttp::{Headers, Packet};

use super::place::Place;

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Status.
    pub code: u16,
    /// Status text.
    pub reason: Cow<'static, str>,
    /// Names and values.
    pub headers: Vec<(Cow<'static, [u8]>, Vec<u8>)>,
    /// Content.
    pub body: Vec<u8>,
}

const CONTENT_TYPE: &[u8] = b"Content-Type";
const CACHE_CONTROL: &[u8] = b"Cache-Control";

/// Answers a request for a place. `entropy` is a number that nobody can guess, `script` the address of the client's
/// script.
pub fn answer(method: &[u8], place: Place<'_>, headers: Headers<'_>, entropy: u32, script: &str) -> Page {
    let page = match (method, place) {
        (b"OPTIONS", _) => text(204, "No Content", ""),
        (b"GET" | b"HEAD", Place::Info) => {
            let info =
                format!("{{\"cookie_needed\":false,\"entropy\":{entropy},\"origins\":[\"*:*\"],\"websocket\":true}}\n");
            text(200, "OK", &info)
        }
        (b"GET" | b"HEAD", Place::Iframe) => iframe(headers, script),
        _ => text(404, "Not Found", "Not Found\n"),
    };
    page.for_site(headers)
}

impl Page {
    /// With the headers that let scripts of other sites read it; `headers` are those of the request.
    pub fn for_site(mut self, headers: Headers<'_>) -> Self {
        if self.headers.iter().all(|(name, _)| !name.eq_ignore_ascii_case(CACHE_CONTROL)) {
            self.headers.push((CACHE_CONTROL.into(), b"no-store, no-cache, must-revalidate, max-age=0".to_vec()));
        }
        let origin = headers.get("Origin").filter(|origin| !origin.is_empty()).unwrap_or(b"*").to_vec();
        self.headers.push((b"Access-Control-Allow-Origin"[..].into(), origin));
        self.headers.push((b"Access-Control-Allow-Credentials"[..].into(), b"true".to_vec()));
        self
    }

    /// What a client gets instead of a WebSocket.
    pub fn rejection(packet: &Packet<'_>) -> Self {
        let headers = packet.headers.iter().map(|(name, value)| (name.to_vec().into(), value.to_vec()));
        Page {
            code: packet.code.unwrap_or(502),
            reason: String::from_utf8_lossy(packet.reason.unwrap_or_default()).into_owned().into(),
            headers: headers.collect(),
            body: packet.body.to_vec(),
        }
    }
}

/// A frame as the answer of a poll: a line, or a call of a script's function.
pub fn frame(frame: &str, callback: Option<&[u8]>) -> Page {
    let Some(callback) = callback else { return text(200, "OK", &format!("{frame}\n")) };
    let mut body = [b"/**/", callback, b"("].concat();
    body.extend_from_slice(serde_json::json!(frame).to_string().as_bytes());
    body.extend_from_slice(b");\n");
    Page { headers: vec![(CONTENT_TYPE.into(), b"application/javascript".to_vec())], body, ..text(200, "OK", "") }
}

/// A response of plain text.
pub fn text(code: u16, reason: &'static str, body: &str) -> Page {
    Page {
        code,
        reason: reason.into(),
        headers: vec![(CONTENT_TYPE.into(), b"text/plain".to_vec())],
        body: body.into(),
    }
}

/// The page does not change as long as the script's address does not, and says so.
fn iframe(headers: Headers<'_>, script: &str) -> Page {
    let script = script.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    let html = format!(
        "<!DOCTYPE html>\n<html>\n<head>\n  <meta http-equiv=\"X-UA-Compatible\" content=\"IE=edge\">\n  \
         <meta charset=\"UTF-8\">\n  <script src=\"{script}\"></script>\n  <script>\n    \
         document.domain = document.domain;\n    SockJS.bootstrap_iframe();\n  </script>\n</head>\n<body>\n  \
         <p>A hidden frame of SockJS.</p>\n</body>\n</html>\n"
    );
    let mut hasher = DefaultHasher::new();
    html.hash(&mut hasher);
    let tag = format!("\"{:016x}\"", hasher.finish()).into_bytes();
    let known = headers.get("If-None-Match") == Some(&tag);
    let cache = (CACHE_CONTROL.into(), b"public, max-age=31536000".to_vec());
    if known {
        return Page {
            code: 304,
            reason: "Not Modified".into(),
            headers: vec![(b"ETag"[..].into(), tag), cache],
            body: Vec::new(),
        };
    }
    let headers = vec![(CONTENT_TYPE.into(), b"text/html; charset=UTF-8".to_vec()), (b"ETag"[..].into(), tag), cache];
    Page { code: 200, reason: "OK".into(), headers, body: html.into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'a>(page: &'a Page, name: &str) -> Option<&'a str> {
        let found = page.headers.iter().find(|(other, _)| **other == *name.as_bytes());
        found.map(|(_, value)| std::str::from_utf8(value).unwrap())
    }

    #[test]
    fn info_is_for_the_site_that_asks_and_never_kept() {
        let headers: [(&[u8], &[u8]); 1] = [(b"Origin", b"http://app.example")];
        let page = answer(b"GET", Place::Info, Headers::Pairs(&headers), 7, "");
        assert_eq!(page.body, b"{\"cookie_needed\":false,\"entropy\":7,\"origins\":[\"*:*\"],\"websocket\":true}\n");
        assert_eq!(header(&page, "Access-Control-Allow-Origin"), Some("http://app.example"));
        assert!(header(&page, "Cache-Control").unwrap().starts_with("no-store"));
    }

    #[test]
    fn the_frame_is_kept_by_its_tag_and_its_script_can_not_break_out() {
        let page = answer(b"GET", Place::Iframe, Headers::Absent, 0, "http://x/\"><b>");
        assert!(page.body.windows(18).any(|part| part == b"http://x/&quot;>&l"));
        let tag = header(&page, "ETag").unwrap().to_string();
        let headers: [(&[u8], &[u8]); 1] = [(b"If-None-Match", tag.as_bytes())];
        let again = answer(b"GET", Place::Iframe, Headers::Pairs(&headers), 0, "http://x/\"><b>");
        assert_eq!((again.code, again.body.len()), (304, 0));
    }

    #[test]
    fn everything_else_is_not_found() {
        assert_eq!(answer(b"OPTIONS", Place::Unknown, Headers::Absent, 0, "").code, 204);
        assert_eq!(answer(b"POST", Place::Info, Headers::Absent, 0, "").code, 404);
        assert_eq!(answer(b"GET", Place::Unknown, Headers::Absent, 0, "").body, b"Not Found\n");
    }
}
