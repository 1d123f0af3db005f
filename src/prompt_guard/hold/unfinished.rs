//! Where a text ends in what may be the beginning of something.

/// How much of the text may go on although more of it is to come: all but its last word, the numbers and single letters
/// that it may belong to, and a link or a tag that is open. What is longer than `most` bytes is not waited for.
pub(super) fn finished(text: &str, most: usize) -> usize {
    let mut from = text.len().saturating_sub(most);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let tail = text.get(from..).unwrap_or_default();
    from + word(tail).min(open(tail))
}

/// Where the last word begins, with the words before it that it may belong to.
fn word(tail: &str) -> usize {
    let mut at = tail.len();
    loop {
        let before = tail.get(..at).unwrap_or_default();
        let blanks = before.trim_end_matches(char::is_whitespace);
        let word = blanks.rfind(is_break).map_or(0, |border| {
            border + blanks.get(border..).and_then(|c| c.chars().next()).map_or(0, char::len_utf8)
        });
        let word_is = blanks.get(word..).unwrap_or_default();
        let is_last = at == tail.len();
        // The last one may go on, if nothing ended it; a piece of a number or of a spaced-out word may, even so.
        let goes_on = if is_last && blanks.len() == before.len() {
            !word_is.is_empty()
        } else {
            is_piece(word_is)
        };
        if !goes_on {
            return at;
        }
        at = word;
        if at == 0 || !is_piece(word_is) {
            return at;
        }
    }
}

/// What may be one of several pieces of a number, or of a word that was spaced out.
fn is_piece(word: &str) -> bool {
    let digits = word.bytes().any(|byte| byte.is_ascii_digit());
    let number = |byte: u8| byte.is_ascii_digit() || b"+-()./:".contains(&byte);
    !word.is_empty() && (word.chars().nth(1).is_none() || (digits && word.bytes().all(number)))
}

/// Where a link, a tag or a key in lines begins that has not ended.
fn open(tail: &str) -> usize {
    let begins = [("![", ")"), ("[", ")"), ("<", ">"), ("-----BEGIN", "-----END")];
    let open = begins.into_iter().filter_map(|(begin, end)| {
        let at = tail.rfind(begin)?;
        let rest = tail.get(at + begin.len()..)?;
        let is_open = match begin {
            "<" => rest.starts_with(|next: char| next.is_ascii_alphabetic() || "!/".contains(next)),
            "[" | "![" => may_be_link(rest),
            _ => true,
        };
        (is_open && !rest.contains(end)).then_some(at)
    });
    open.min().unwrap_or(tail.len())
}

/// Whether what follows a bracket may be a link's text and the beginning of its address.
fn may_be_link(rest: &str) -> bool {
    let Some((_, after)) = rest.split_once(']') else { return true };
    after.is_empty() || after.starts_with(['(', '[', ':'])
}

/// What ends a word: white space, and the characters of scripts that are written without it.
fn is_break(character: char) -> bool {
    character.is_whitespace() || is_unspaced(character)
}

/// Whether it is of a script in which words are often written without white space between them.
pub(in crate::prompt_guard) const fn is_unspaced(character: char) -> bool {
    matches!(character,
        '\u{e00}'..='\u{edf}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        | '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_the_beginning_of_something_stays() {
        for (text, stays) in [
            ("", ""),
            ("all of it is said. ", ""),
            ("a word", "word"),
            ("my card is 4111 1111 11", "4111 1111 11"),
            ("my card is 4111 1111 ", "4111 1111 "),
            ("spell it: s e c r", "s e c r"),
            ("key: AKIA12", "AKIA12"),
            ("see [the page](https://x.exam", "[the page](https://x.exam"),
            ("see ![a b", "![a b"),
            ("see [the page](https://x.example/) for more ", ""),
            ("item [1] of the list ", ""),
            ("<img src=\"https://x.example/a b", "<img src=\"https://x.example/a b"),
            ("-----BEGIN PRIVATE KEY-----\nabc\nd", "-----BEGIN PRIVATE KEY-----\nabc\nd"),
            ("我的卡号是", ""),
            ("我的卡号是41", "41"),
            ("grüße", "grüße"),
        ] {
            assert_eq!(&text[finished(text, 256)..], stays, "{text:?}");
        }
        let long = "x".repeat(300);
        assert_eq!(finished(&long, 256), 44);
        assert_eq!(finished("é".repeat(9).as_str(), 3), 16);
    }
}
