//! The views of a text: whatever it is, they are bounded, every range of each maps to a range of the text on its
//! character borders, and of ASCII no letter is lost.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade::prompt_guard::{ViewKind, Views};

fuzz_target!(|input: (u16, u16, &str)| {
    let (one, other, text) = input;
    let views = Views::of(text);
    assert_eq!(views.original(), text);
    let count = views.iter().count();
    assert!((1..=16).contains(&count), "{count} views");
    let mut decoded = 0;
    for view in views.iter() {
        let (folded, cased) = (view.text(), view.cased());
        assert_eq!(folded.len(), cased.len());
        let borders = || (0..=folded.len()).filter(|at| folded.is_char_boundary(*at));
        assert!(borders().all(|at| cased.is_char_boundary(at)));
        if view.kind() == ViewKind::Decoded {
            decoded += folded.len();
        }
        let length = folded.len() + 2;
        let (one, other) = (usize::from(one) % length, usize::from(other) % length);
        let (from, until) = (one.min(other), one.max(other));
        let span = view.origin_span(from..until);
        assert!(text.get(span.clone()).is_some(), "{from}..{until} is {span:?}");
        let whole = view.origin_span(0..folded.len());
        assert!(whole.end <= text.len());
    }
    // A character may be written as up to three in one spelling, and as up to three more in folded case.
    assert!(decoded <= text.len().saturating_mul(4 * 18), "{decoded} of {}", text.len());
    let first = views.iter().next().unwrap();
    assert_eq!(first.kind(), ViewKind::Canonical);
    if text.is_ascii() {
        // Nothing but white space and control characters is gone, and what was read once reads the same again.
        let ink = |text: &str| -> String { text.chars().filter(char::is_ascii_graphic).collect() };
        assert_eq!(ink(first.cased()), ink(text));
        assert_eq!(Views::of(first.cased()).iter().next().unwrap().cased(), first.cased());
    }
});
