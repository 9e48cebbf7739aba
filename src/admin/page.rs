//! The page at the admin address: plain files, in the binary. Floor 5.
//!
//! It loads nothing from elsewhere, and its policy lets it load, send and run nothing that is not of this address. What it
//! shows it takes from `/status` and `/history`; it commands nothing.

use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_FRAME_OPTIONS};
use http::{HeaderMap, HeaderValue};

/// A file of the page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    path: &'static str,
    /// Its media type.
    pub(super) kind: &'static str,
    body: &'static [u8],
}

/// All of it.
static FILES: [File; 6] = [
    File { path: "/", kind: "text/html; charset=utf-8", body: include_bytes!("page/page.html") },
    File { path: "/page.css", kind: "text/css; charset=utf-8", body: include_bytes!("page/page.css") },
    File { path: "/page.svg", kind: "image/svg+xml", body: include_bytes!("page/page.svg") },
    File { path: "/words.js", kind: "text/javascript; charset=utf-8", body: include_bytes!("page/words.js") },
    File { path: "/chart.js", kind: "text/javascript; charset=utf-8", body: include_bytes!("page/chart.js") },
    File { path: "/page.js", kind: "text/javascript; charset=utf-8", body: include_bytes!("page/page.js") },
];

impl File {
    /// The file at this path.
    pub(super) fn at(path: &str) -> Option<&'static Self> {
        FILES.iter().find(|file| file.path == path)
    }

    pub(super) fn body(&self) -> Bytes {
        Bytes::from_static(self.body)
    }
}

/// What a browser is to keep to.
pub(super) fn restrict(headers: &mut HeaderMap) {
    for (name, value) in RESTRICTIONS {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Scripts and styles inside of the document are refused too: what is shown can never become one.
const RESTRICTIONS: [(HeaderName, &str); 5] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_loads_nothing_from_elsewhere() {
        let bytes: usize = FILES.iter().map(|file| file.body.len()).sum();
        assert!(bytes < 60_000, "{bytes}");
        for file in &FILES {
            let text = std::str::from_utf8(file.body).unwrap().replace("http://www.w3.org/2000/svg", "");
            for foreign in ["http:", "https:", "@import", "=\"//", "url(/", "data:"] {
                assert!(!text.contains(foreign), "{}: {foreign}", file.path);
            }
        }
    }

    #[test]
    fn what_is_shown_is_put_in_as_text() {
        for file in &FILES {
            let text = std::str::from_utf8(file.body).unwrap();
            for markup in
                ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "style="]
            {
                assert!(!text.contains(markup), "{}: {markup}", file.path);
            }
        }
    }
}
