//! Looking for bytes and literals in long texts.

use std::ops::Range;

use aho_corasick::{Anchored, automaton::Automaton};

/// Calls `found` for each literal in a part of a text, in the order of their ends, with its number and where it stands.
pub(super) fn literals(
    automaton: &impl Automaton,
    text: &[u8],
    part: Range<usize>,
    mut found: impl FnMut(usize, Range<usize>),
) {
    let (Ok(mut state), Some(bytes)) =
        (automaton.start_state(Anchored::No), text.get(part.clone()))
    else {
        return;
    };
    for (end, byte) in (part.start + 1..).zip(bytes) {
        state = automaton.next_state(Anchored::No, state, *byte);
        if automaton.is_special(state) && automaton.is_match(state) {
            for index in 0..automaton.match_len(state) {
                let literal = automaton.match_pattern(state, index);
                found(literal.as_usize(), end - automaton.pattern_len(literal)..end);
            }
        }
    }
}

/// Where the first byte of a kind stands.
pub(super) fn find(bytes: &[u8], is: impl Fn(u8) -> bool) -> Option<usize> {
    let has_none = |block: &[u8]| !block.iter().fold(false, |any, byte| any | is(*byte));
    let skipped = BLOCK * bytes.chunks_exact(BLOCK).take_while(|block| has_none(block)).count();
    Some(skipped + bytes.get(skipped..)?.iter().position(|byte| is(*byte))?)
}

/// Bytes that are looked at together: a processor does that at once.
pub(super) const BLOCK: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_found_wherever_it_stands() {
        for length in 0..3 * BLOCK {
            let mut bytes = vec![b' '; length];
            assert_eq!(find(&bytes, |byte| byte == b'x'), None);
            for at in (0..length).rev() {
                bytes[at] = b'x';
                assert_eq!(find(&bytes, |byte| byte == b'x'), Some(at));
            }
        }
    }
}
