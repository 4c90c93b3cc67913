//! The dashboard: a page that is in the binary, and needs nothing from anywhere else.
//!
//! It is fed by the stream and writes by the same calls as everybody. Its policy allows what is
//! served here and nothing inline, so what a name of the configuration contains stays text.

use super::answer::Answer;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Content Security Policy (CSP3): own scripts, styles, images and connections, nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Names, media types and contents.
const FILES: [(&str, &str, &str); 6] = [
    ("index.html", HTML, include_str!("page/index.html")),
    ("page.css", STYLE, include_str!("page/page.css")),
    ("page.js", SCRIPT, include_str!("page/page.js")),
    // Charts, by Leon Sorokin, MIT (page/uPlot.LICENSE).
    ("uPlot.js", SCRIPT, include_str!("page/uPlot.js")),
    ("uPlot.css", STYLE, include_str!("page/uPlot.css")),
    ("icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

/// The page itself.
pub(super) fn index() -> Answer {
    file("index.html")
}

/// A file of the page.
pub(super) fn file(name: &str) -> Answer {
    let Some((_, media, text)) = FILES.iter().find(|(of, ..)| *of == name) else {
        return Answer::error(404, "not_found", "the page has no such file");
    };
    let mut answer = Answer::empty(200)
        .with("content-security-policy", POLICY)
        .with("referrer-policy", "no-referrer")
        .with("cross-origin-opener-policy", "same-origin")
        .with("x-frame-options", "DENY");
    (answer.content_type, answer.body) = (media, text.as_bytes().to_vec());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_its_own_files_alone_and_has_nothing_inline() {
        let (_, _, index) = FILES[0];
        for attribute in ["src=\"", "href=\""] {
            for named in index.split(attribute).skip(1) {
                let target = named.split('"').next().unwrap();
                let is_own = target
                    .strip_prefix("/page/")
                    .is_some_and(|name| FILES.iter().any(|(of, ..)| *of == name));
                assert!(is_own || target.starts_with('#'), "{target}");
            }
        }
        let is_inline = |word: &str| word.starts_with("on") && word.contains("=\"");
        assert!(!index.split_whitespace().any(is_inline));
        assert!(!index.contains("style=") && !index.contains("<style"));
        for (name, _, text) in FILES {
            // Where it is from, in a comment.
            let text = text.replace("https://github.com/leeoniya/uPlot", "");
            let hosts = text.split("http").skip(1).filter(|rest| rest.starts_with("s://"));
            assert_eq!(hosts.count(), 0, "{name}");
            // SVG has its namespace.
            let plain = text.matches("http://").count() - text.matches("http://www.w3.org").count();
            assert_eq!(plain, 0, "{name}");
        }
    }
}
