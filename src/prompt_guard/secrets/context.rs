//! Secrets without a form of their own, told by what stands around them: a name, an address, armour.

use std::ops::Range;

use super::{
    random::{entropy, is_drawn, is_key, is_stand_in},
    shape::{Part, Set, ahead},
};

/// A rule that looks around a mark.
#[derive(Debug)]
pub(super) struct Around {
    pub(super) rule: &'static str,
    pub(super) score: f32,
    /// In small letters; one of them is in every text that the rule is for.
    pub(super) marks: &'static [&'static str],
    /// The secret, for a mark at that place.
    pub(super) find: fn(&str, &Range<usize>) -> Option<Range<usize>>,
}

#[rustfmt::skip]
pub(super) static AROUND: &[Around] = &[
    Around { rule: "secret.private_key", score: 0.95, marks: &["private key"], find: private_key },
    Around { rule: "secret.putty_key", score: 0.95, marks: &["private-lines: "], find: putty_key },
    Around { rule: "secret.url_password", score: 0.9, marks: &["://"], find: url_password },
    Around { rule: "secret.azure_sas", score: 0.9, marks: &["&sig=", "?sig="], find: shared_access },
    Around { rule: "secret.bearer_token", score: 0.85, marks: &["bearer "], find: bearer },
    Around { rule: "secret.basic_authorization", score: 0.85, marks: &["basic "], find: basic },
    Around { rule: "secret.curl_password", score: 0.85, marks: &[" -u ", " -u\"", " --user "], find: curl_password },
    Around { rule: "secret.connection_password", score: 0.85, marks: &["password=", "pwd="], find: connection_password },
    Around { rule: "secret.generic_key", score: 0.82, marks: &["key", "token", "secret", "credential"], find: generic_key },
    Around { rule: "secret.password", score: 0.8, marks: &["password", "passwd", "passphrase", "pwd"], find: password },
];

/// Where the value begins that is assigned to a name which ends at `at`: after a sign, or the word `is`.
pub(super) fn assigned(text: &[u8], at: usize) -> Option<usize> {
    let end = text.len().min(at + REACH);
    let mut at = at;
    loop {
        match text.get(at..end)? {
            [b':' | b'=' | b'>', ..] => break,
            // `("name", "value")`
            [b'"' | b'\'', b',', ..] => {
                at += 1;
                break;
            }
            [b' ', b'i' | b'I', b's' | b'S', b' ', ..] => {
                at += 3;
                break;
            }
            [b'\\', b'"', ..] => at += 2,
            [byte, ..] if Set::WORD.has(*byte) || b" \t.-\"'`])".contains(byte) => at += 1,
            _ => return None,
        }
    }
    let rest = text.get(at..end).unwrap_or_default();
    let sign = rest.iter().take(3).take_while(|byte| b":=>,".contains(byte)).count();
    let mark = |byte: &&u8| b" \t\"'`\\([{=".contains(byte);
    let open = rest.iter().skip(sign).take(6).take_while(mark).count();
    Some(at + sign + open)
}

/// How far a value may stand from its name, in bytes.
const REACH: usize = 40;

/// At most so many bytes before a place.
fn before(text: &str, at: usize, most: usize) -> &str {
    let mut from = at.saturating_sub(most);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text.get(from..at).unwrap_or_default()
}

/// A key in armour: to the end mark, or as much of the body as there is.
fn private_key(text: &str, mark: &Range<usize>) -> Option<Range<usize>> {
    let head = before(text, mark.start, 52);
    let start = mark.start - head.len() + head.rfind("-----BEGIN")?;
    let kind = text.get(start + 10..mark.start)?;
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ';
    let named = text.get(mark.clone())? == "PRIVATE KEY" && kind.bytes().all(plain);
    let after = text.get(mark.end..)?;
    let after = after.strip_prefix(" BLOCK").unwrap_or(after).strip_prefix("-----")?;
    let from = text.len() - after.len();
    let (body, end) = match after.find("-----") {
        Some(length) => (after.get(..length)?, from + length),
        None => (after, text.len()),
    };
    let closing = text.get(end..)?;
    let close = closing.strip_prefix("-----END").and_then(|rest| rest.find("KEY"));
    let end = close.map_or(end, |length| end + closing.len().min(8 + length + 8));
    let drawn: Vec<u8> = body.bytes().filter(|byte| Set::BASE64.has(*byte)).collect();
    (named && drawn.len() >= 40 && is_drawn(&drawn))
        .then(|| start..text.get(..end).map_or(text.len(), str::len))
}

fn putty_key(text: &str, mark: &Range<usize>) -> Option<Range<usize>> {
    before(text, mark.start, 8192).contains("PuTTY-User-Key-File-").then_some(())?;
    let rest = text.get(mark.end..)?;
    let count = rest.bytes().take_while(u8::is_ascii_digit).count();
    let body = rest.get(count..)?.bytes();
    let length =
        body.take_while(|byte| Set::BASE64_PADDED.has(*byte) || byte.is_ascii_whitespace()).count();
    (count > 0 && length >= 40).then(|| mark.end + count..mark.end + count + length)
}

/// `scheme://user:password@host`
fn url_password(text: &str, mark: &Range<usize>) -> Option<Range<usize>> {
    text.get(..mark.start)?.bytes().next_back().filter(u8::is_ascii_alphanumeric)?;
    let rest = text.get(mark.end..)?.as_bytes();
    let part = |byte: &&u8| !byte.is_ascii_whitespace() && !b":/?#@\"'<>`".contains(byte);
    let user = rest.iter().take(129).take_while(part).count();
    let password = match rest.get(user..)? {
        [b':', password @ ..] => password.iter().take(257).take_while(part).count(),
        _ => return None,
    };
    let start = mark.end + user + 1;
    let value = rest.get(user + 1..user + 1 + password)?;
    let host = rest.get(user + 1 + password..)?;
    let hosted = matches!(host, [b'@', host, ..] if host.is_ascii_alphanumeric() || *host == b'[');
    (hosted && password >= 3 && !is_stand_in(value) && value.first() != Some(&b'$'))
        .then_some(start..start + password)
}

fn shared_access(text: &str, mark: &Range<usize>) -> Option<Range<usize>> {
    let query = before(text, mark.start, 400);
    let signed = ["sv=20", "se=20", "sr=", "SharedAccessSignature"];
    signed.iter().any(|sign| query.contains(sign)).then_some(())?;
    let value = Part::Run(Set::VALUE, 43, 100);
    let end = ahead(text.as_bytes(), mark.end, &[value]).ok()?;
    is_drawn(text.as_bytes().get(mark.end..end)?).then_some(mark.end..end)
}

fn authorization(text: &str, mark: &Range<usize>) -> bool {
    let before = text.as_bytes().get(mark.start.saturating_sub(28)..mark.start);
    let before = before.unwrap_or_default().to_ascii_lowercase();
    before.windows(13).any(|window| window == b"authorization")
}

fn bearer(text: &str, mark: &Range<usize>) -> Option<Range<usize>> {
    let rest = text.as_bytes().get(mark.end..)?;
    let value = rest.iter().take(4096).take_while(|byte| Set::VALUE.has(**byte)).count();
    let range = mark.end..mark.end + value;
    let secret = text.as_bytes().get(range.clone())?;
    (value >= 20 && authorization(text, mark) && entropy(secret) >= 3.3 && is_drawn(secret))
        .then_some(range)
}

fn basic(text: &str, mark: &Range<usize>) -> Option<Range<usize>> {
    let rest = text.as_bytes().get(mark.end..)?;
    let value = rest.iter().take(1024).take_while(|byte| Set::BASE64_PADDED.has(**byte)).count();
    let range = mark.end..mark.end + value;
    let secret = text.as_bytes().get(range.clone())?;
    (value >= 12 && authorization(text, mark) && entropy(secret) >= 2.8 && is_drawn(secret))
        .then_some(range)
}

/// `curl -u name:password`
fn curl_password(text: &str, mark: &Range<usize>) -> Option<Range<usize>> {
    before(text, mark.start, 200).rsplit('\n').next()?.contains("curl").then_some(())?;
    let rest = text.get(mark.end..)?;
    let value = rest.trim_start_matches(['"', '\'']);
    let start = mark.end + rest.len() - value.len();
    let stop = |mark: char| mark.is_whitespace() || mark == '"' || mark == '\'';
    let pair = value.get(..value.find(stop).unwrap_or(value.len()))?;
    let (user, password) = pair.split_once(':')?;
    let sound =
        password.len() >= 3 && !is_stand_in(password.as_bytes()) && !password.starts_with('$');
    let from = start + user.len() + 1;
    sound.then_some(from..from + password.len())
}

/// `Server=…;User Id=…;Password=…;`
fn connection_password(text: &str, mark: &Range<usize>) -> Option<Range<usize>> {
    let rest = text.get(mark.end..)?;
    let stop = |mark: char| mark.is_whitespace() || matches!(mark, ';' | '&' | '"' | '\'' | '`');
    let value = rest.get(..rest.find(stop).unwrap_or(rest.len()).min(128))?;
    let (head, tail) = (before(text, mark.start, 200), rest.get(value.len()..)?);
    let listed = head.ends_with([';', '&', '?'])
        && (tail.is_empty() || tail.starts_with([';', '&', '"', '\'']));
    let among =
        head.ends_with([';', '&', '?', ' ']) && (tail.starts_with(';') || head.contains('='));
    let letters = value.bytes().any(|byte| byte.is_ascii_alphabetic());
    let others =
        value.bytes().any(|byte| !byte.is_ascii_alphabetic() && byte != b'_' && byte != b'.');
    let code = value.contains(['(', '[', '{', '<', '$', ',']);
    let sound = letters && !code && value.len() >= 6 && !is_stand_in(value.as_bytes());
    (sound && (listed || among && others)).then_some(mark.end..mark.end + value.len())
}

/// `api_key = …`
fn generic_key(text: &str, mark: &Range<usize>) -> Option<Range<usize>> {
    const QUALIFIED: [&str; 17] = [
        "api",
        "app",
        "access",
        "secret",
        "client",
        "auth",
        "private",
        "signing",
        "encryption",
        "master",
        "account",
        "storage",
        "shared",
        "service",
        "license",
        "admin",
        "session",
    ];
    let bytes = text.as_bytes();
    if text.get(mark.clone())?.eq_ignore_ascii_case("key") {
        let before = bytes.get(mark.start.saturating_sub(12)..mark.start)?.to_ascii_lowercase();
        let before = before.strip_suffix(b"_").or(before.strip_suffix(b"-")).unwrap_or(&before);
        let before = before.strip_suffix(b" ").unwrap_or(before);
        if !QUALIFIED.iter().any(|word| before.ends_with(word.as_bytes())) {
            return None;
        }
    }
    let start = assigned(bytes, mark.end)?;
    let rest = bytes.get(start..)?;
    let length = rest.iter().take(201).take_while(|byte| Set::VALUE.has(**byte)).count();
    let value = rest.get(..length)?;
    let trimmed = value.trim_ascii_end().strip_suffix(b".").unwrap_or(value);
    // A call or an index is code, not a value.
    let code = matches!(rest.get(length), Some(b'(' | b'[' | b'{' | b'@'));
    ((16..=200).contains(&trimmed.len())
        && !code
        && !trimmed.contains(&b'%')
        && !is_path(trimmed)
        && is_key(trimmed, 3.0))
    .then_some(start..start + trimmed.len())
}

/// `config.tokens.v2` and `/etc/keys/v2`: what is named, not what is meant.
fn is_path(value: &[u8]) -> bool {
    let steps = value.split(|byte| b"./".contains(byte)).filter(|step| !step.is_empty());
    let worded = |step: &[u8]| {
        step.iter().filter(|byte| byte.is_ascii_digit()).count() <= 2
            && !(step.iter().any(u8::is_ascii_uppercase) && step.iter().any(u8::is_ascii_digit))
    };
    value.iter().any(|byte| b"./".contains(byte)) && steps.into_iter().all(worded)
}

/// `password: "…"`, and what is unmistakable without quotes.
fn password(text: &str, mark: &Range<usize>) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let start = assigned(bytes, mark.end)?;
    let quote = bytes.get(start.checked_sub(1)?).copied().filter(|byte| b"\"'`".contains(byte));
    let stop = |byte: &u8| match quote {
        Some(quote) => *byte == quote || byte.is_ascii_whitespace() || *byte == b'\\',
        None => byte.is_ascii_whitespace() || b"\"'`,;<>)".contains(byte),
    };
    let rest = bytes.get(start..)?;
    let length = rest.iter().take(129).position(stop).unwrap_or(rest.len().min(129));
    let value = rest.get(..length)?;
    let value = if quote.is_none() { value.strip_suffix(b".").unwrap_or(value) } else { value };
    let closed =
        quote.is_none() || rest.get(length).copied() == quote || rest.get(length) == Some(&b'\\');
    let has = |class: fn(&u8) -> bool| value.iter().any(class);
    let mixed = [
        u8::is_ascii_lowercase,
        u8::is_ascii_uppercase,
        u8::is_ascii_digit,
        u8::is_ascii_punctuation,
    ]
    .into_iter()
    .filter(|class| has(*class))
    .count();
    let code = value.iter().any(|byte| b"([{<$".contains(byte)) && quote.is_none();
    let strong = if quote.is_some() { mixed >= 2 } else { mixed >= 3 && has(u8::is_ascii_digit) };
    let sound = (8..=128).contains(&value.len())
        && closed
        && strong
        && !code
        && text.get(start..start + value.len()).is_some()
        && entropy(value) >= 2.5
        && !is_path(value)
        && !value.windows(3).any(|mark| mark == b"://")
        && is_drawn(value);
    sound.then_some(start..start + value.len())
}
