//! E-mail addresses.

use std::ops::Range;

use super::Candidate;

pub(super) const PATTERN: &str = r"[A-Za-z0-9._%+'&=~-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z][A-Za-z0-9-]{1,62}";

/// File names with a scale in them, `logo@2x.png`, look like addresses.
const FILE_ENDINGS: [&str; 10] =
    ["png", "jpg", "jpeg", "gif", "svg", "webp", "js", "css", "ico", "pdf"];

pub(super) fn check(candidate: &Candidate<'_>) -> Option<(Range<usize>, f32)> {
    let address = candidate.as_str();
    let (local, domain) = address.split_once('@')?;
    let trimmed = local.trim_start_matches(['.', '\'', '-', '=', '&', '~', '+', '%']);
    let (_, top) = domain.rsplit_once('.')?;
    let top = top.trim_end_matches('-');
    let plain = top.bytes().all(|byte| byte.is_ascii_alphabetic());
    let sound = !trimmed.is_empty()
        && !trimmed.ends_with('.')
        && !trimmed.contains("..")
        && top.len() >= 2
        && (plain || top.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--")))
        && !FILE_ENDINGS.iter().any(|ending| top.eq_ignore_ascii_case(ending));
    let start = candidate.range.end - address.len() + (local.len() - trimmed.len());
    let end = candidate.range.end - (address.len() - address.trim_end_matches('-').len());
    sound.then_some((start..end, 0.95))
}

#[cfg(test)]
mod tests {
    use super::super::tests::values;

    #[test]
    fn addresses() {
        assert_eq!(
            values("write to ann.lee+news@mail.example.org."),
            ["personal_data.email:ann.lee+news@mail.example.org"]
        );
        assert_eq!(
            values("<bo@xn--bcher-kva.example>"),
            ["personal_data.email:bo@xn--bcher-kva.example"]
        );
        assert_eq!(values("'cy@example.com'"), ["personal_data.email:cy@example.com"]);
        for text in [
            "logo@2x.png",
            "a@b",
            "@handle on example.com",
            "user@localhost",
            "x..y@.com",
            "mail at example.com",
        ] {
            assert!(values(text).is_empty(), "{text}");
        }
    }
}
