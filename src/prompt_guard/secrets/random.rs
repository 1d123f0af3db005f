//! Whether something looks as if it had been drawn at random.

/// Shannon's entropy of the bytes, in bits a byte.
pub(super) fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let total = bytes.len().max(1) as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / total)
        .map(|share| -share * share.log2())
        .sum()
}

/// Whether the random part of a token could be one: no stand-in, no row of the alphabet.
pub(super) fn is_drawn(body: &[u8]) -> bool {
    // Half of the bits that the length allows: what is drawn has more than four in five.
    let most = (body.len().max(2) as f64).log2().min(5.0);
    body.len() < 8 || (entropy(body) >= most * 0.5 && !is_row(body) && !is_stand_in(body))
}

/// `aaaa`, `abcd`, `1234`: mostly steps of nothing or one.
fn is_row(bytes: &[u8]) -> bool {
    let steps = bytes.windows(2).filter(|pair| match pair {
        [one, next] => one == next || one.checked_add(1) == Some(*next),
        _ => false,
    });
    steps.count() * 5 > bytes.len() * 2
}

/// What documentation writes where a secret goes.
pub(super) fn is_stand_in(secret: &[u8]) -> bool {
    const MARKS: [&[u8]; 21] = [
        b"example",
        b"your_",
        b"your-",
        b"yourapi",
        b"yourkey",
        b"yourtoken",
        b"yoursecret",
        b"xxxxx",
        b"placeholder",
        b"changeme",
        b"change_me",
        b"redacted",
        b"insert_",
        b"replace",
        b"****",
        b"${",
        b"{{",
        b"dummy",
        b".....",
        b"getenv",
        b"environ",
    ];
    let lower = secret.to_ascii_lowercase();
    let said = MARKS.iter().any(|mark| lower.windows(mark.len()).any(|window| window == *mark));
    let words: [&[u8]; 7] =
        [b"password", b"pass", b"secret", b"token", b"passwd", b"pwd", b"password123"];
    said || secret.starts_with(b"<") || words.contains(&lower.as_slice())
}

/// Whether a value without a form of its own is a secret: letters and digits in no order, no name of
/// something.
pub(super) fn is_key(value: &[u8], bits: f64) -> bool {
    let digits = value.iter().filter(|byte| byte.is_ascii_digit()).count();
    digits > 0
        && value.iter().any(u8::is_ascii_alphabetic)
        && !(digits * 5 < value.len() && has_word(value))
        && entropy(value) >= bits
        && is_drawn(value)
}

/// A run of small letters that could be spoken.
fn has_word(value: &[u8]) -> bool {
    value.split(|byte| !byte.is_ascii_lowercase()).filter(|run| run.len() >= 9).any(|run| {
        let vowel = |byte: &u8| matches!(byte, b'a' | b'e' | b'i' | b'o' | b'u' | b'y');
        let vowels = run.iter().filter(|byte| vowel(byte)).count();
        vowels * 10 >= run.len() * 3 && run.split(vowel).all(|cluster| cluster.len() <= 3)
    })
}
