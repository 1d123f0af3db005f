//! Where a secret begins and ends, what is none, and that no text does harm.

use proptest::prelude::*;

use super::*;
use crate::inference::Origin;

fn secrets() -> &'static Secrets {
    static SECRETS: std::sync::LazyLock<Secrets> =
        std::sync::LazyLock::new(|| Secrets::builtin().unwrap());
    &SECRETS
}

/// Joins the parts of a token, so that no token stands in the source.
fn t(parts: &[&str]) -> String {
    parts.concat()
}

/// Letters and digits in no order.
const DRAWN: &str = "q7Zt2Xb9KfW4mN8sVj3RcY6hLp5DgTk1uHe0aPoJ";

fn of(length: usize) -> &'static str {
    &DRAWN[..length]
}

fn rules(text: &str) -> Vec<(&'static str, &str)> {
    secrets()
        .find(text)
        .into_iter()
        .filter(|found| found.score >= 0.8)
        .map(|found| (found.rule, &text[found.range]))
        .collect()
}

#[test]
fn a_span_covers_the_secret_alone() {
    for (before, secret, after, rule) in [
        ("postgres://app:", of(12), "@db.internal/x", "secret.url_password"),
        ("Authorization: Bearer ", of(40), "\n", "secret.bearer_token"),
        ("my api key is ", of(32), ", keep it", "secret.generic_key"),
        ("client_secret='", of(32), "'", "secret.generic_key"),
        ("password = \"", "hunter-2-hunter", "\"", "secret.password"),
        ("jdbc:x://h/d?user=a&password=", of(10), "&ssl=true", "secret.connection_password"),
        ("curl -u admin:", of(10), " https://h.example", "secret.curl_password"),
    ] {
        let text = t(&[before, secret, after]);
        assert_eq!(rules(&text), [(rule, secret)], "{text}");
    }
}

#[test]
fn a_key_in_armour_is_covered_from_mark_to_mark() {
    let kind = ["PRIVATE", " KEY"].concat();
    let armoured =
        format!("-----BEGIN EC {kind}-----\n{}\n{}\n-----END EC {kind}-----", of(40), of(20));
    assert_eq!(rules(&format!("this: {armoured} ok")), [("secret.private_key", &*armoured)]);
    let cut = format!("-----BEGIN {kind}-----\n{}\n{}", of(40), of(20));
    assert_eq!(rules(&cut), [("secret.private_key", &*cut)]);
    for none in [
        format!("-----BEGIN {kind}-----\n...\n-----END {kind}-----"),
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", of(40)),
        format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----", "A".repeat(64)),
    ] {
        assert_eq!(rules(&none), [], "{none}");
    }
}

#[test]
fn the_form_that_says_more_names_the_finding() {
    let token = t(&["gl", "pat-", of(20)]);
    let text = format!("GITLAB_TOKEN={token}");
    assert_eq!(rules(&text), [("secret.gitlab_token", &*token)]);
}

#[test]
fn wrong_check_digits_are_reported_and_no_more() {
    for token in [t(&["gh", "p_", of(36)]), t(&["np", "m_", of(36)])] {
        let text = format!("export TOKEN={token}");
        let found = secrets().find(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].score, UNSURE);
    }
}

#[test]
fn stand_ins_are_no_secrets() {
    for text in [
        t(&["AK", "IA", "XXXXXXXXXXXXXXXX"]),
        t(&["AK", "IA", "IOSFODNN7EXAMPLE"]),
        t(&["sk", "-proj-", &"x".repeat(60)]),
        t(&["gl", "pat-", "your_token_goes_here"]),
        t(&["api_key = \"", "your-api-key-goes-here-1234", "\""]),
        t(&["api_key = \"", "1234567890abcdefghijklmn", "\""]),
        "api_key: abcdefghijklmnopqrstuvwxyz123456".to_owned(),
        "postgres://app:${DB_PASSWORD}@db/x postgres://app:password@db/x".to_owned(),
    ] {
        assert_eq!(rules(&text), [], "{text}");
    }
}

#[test]
fn an_encoded_secret_is_found_where_it_stands() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let encoded = STANDARD.encode(t(&["key ", "gl", "pat-", of(20)]));
    let text = format!("decode {encoded} please");
    let mut findings = Vec::new();
    let segment = Segment::new(3, &text, Origin::User, 0);
    secrets().scan(&segment, &Views::of(&text), &mut findings);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].rule, "secret.gitlab_token");
    assert_eq!(findings[0].segment, 3);
    let span = findings[0].span.clone().unwrap();
    assert!(encoded.contains(text[span.clone()].trim()), "{span:?}");
}

#[test]
fn ordinary_text_holds_no_secret() {
    for text in [
        "The token is sent in the Authorization header as a Bearer token.",
        "api_key = os.environ['API_KEY']",
        "password: ${DB_PASSWORD}",
        "See https://user@example.org/path and http://example.org:8080/a@b",
        "commit 3f786850e387550fdab836ed7e6dc881de23001b fixes task-1234 and risk-5678",
        "secret = internationalization_of_components",
        "uuid 123e4567-e89b-12d3-a456-426614174000",
        "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    ] {
        assert_eq!(rules(text), [], "{text}");
    }
}

/// A text that runs in the detector's favourite circles must not cost more than its length.
#[test]
fn repeated_marks_are_no_burden() {
    for mark in
        ["-eyJ", "-fm2_", "-ATCTT3", "key=", "://a:", "-----BEGIN RSA PRIVATE KEY-----", " -u a"]
    {
        let text = mark.repeat(50_000 / mark.len());
        secrets().find(&text);
    }
}

proptest! {
    #[test]
    fn any_text_is_read_and_every_range_is_of_the_text(text in r"(?s)(.|=|://|sk-|eyJ|key |[A-Za-z0-9]{8}|-----BEGIN PRIVATE KEY-----){0,60}") {
        let mut end = Spans::default();
        for found in secrets().find(&text) {
            prop_assert!(text.get(found.range.clone()).is_some_and(|secret| !secret.is_empty()));
            prop_assert!(end.take(&found.range));
        }
    }

    #[test]
    fn a_token_is_found_whole_in_any_text(
        before in r"(\PC{0,40}[ \n(\x22:])?",
        body in "[0-9A-Z]{8}[0-9][A-Z][0-9A-Z]{6}",
        after in r"([ \n)\x22,;]\PC{0,40})?",
    ) {
        prop_assume!(is_drawn(body.as_bytes()));
        let token = ["AK", "IA", &body].concat();
        let text = [&*before, &*token, &*after].concat();
        let found = secrets().find(&text);
        let range = before.len()..before.len() + token.len();
        prop_assert!(found.iter().any(|found| found.range.start <= range.start && found.range.end >= range.end), "{:?}", found);
    }
}
