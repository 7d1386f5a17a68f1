// SPDX-License-Identifier: AGPL-3.0-or-later
//! The files of the page, and what a browser may do with them. None of them names a resource of anybody else.

/// A file.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Its media type.
    pub kind: &'static str,
    /// Its content.
    pub content: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All files, by their paths.
pub const FILES: &[(&str, File)] = &[
    ("/", File { kind: HTML, content: include_str!("page/index.html") }),
    ("/style.css", File { kind: CSS, content: include_str!("page/style.css") }),
    ("/icon.svg", File { kind: "image/svg+xml", content: include_str!("page/icon.svg") }),
    ("/main.js", File { kind: SCRIPT, content: include_str!("page/main.js") }),
    ("/stream.js", File { kind: SCRIPT, content: include_str!("page/stream.js") }),
    ("/suite.js", File { kind: SCRIPT, content: include_str!("page/suite.js") }),
    ("/tile.js", File { kind: SCRIPT, content: include_str!("page/tile.js") }),
    ("/format.js", File { kind: SCRIPT, content: include_str!("page/format.js") }),
    ("/try.js", File { kind: SCRIPT, content: include_str!("page/try.js") }),
];

/// Headers of every answer. Only these files may run and be shown, nothing of them in a frame of others, and no text becomes markup.
pub const POLICY: &[(&str, &str)] = &[
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// The file of this path.
pub fn file(path: &str) -> Option<File> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, file)| *file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_the_page_names_is_there_and_none_is_of_others() {
        for (path, File { content, .. }) in FILES {
            let quoted = content.split(['"', '\'']).filter(|text| !text.contains([' ', '\n']));
            for name in quoted.filter(|text| [".js", ".css", ".svg"].iter().any(|end| text.ends_with(end))) {
                assert!(file(&format!("/{}", name.trim_start_matches("./"))).is_some(), "{path} names {name}");
            }
            let others = content.replace("http://www.w3.org/2000/svg", "");
            assert!(!others.contains("://") && !others.contains("//\""), "{path} names something of others");
            for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " onclick="] {
                assert!(!content.contains(sink), "{path} has {sink}");
            }
        }
    }
}
