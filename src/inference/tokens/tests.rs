use proptest::prelude::*;

use super::*;

#[test]
fn only_nothing_is_free() {
    assert_eq!(ByteClasses.estimate(""), 0);
    for text in ["a", " ", "\n", "7", "é", "\u{10ffff}"] {
        assert!((1..=text.len() as u64).contains(&ByteClasses.estimate(text)), "{text:?}");
    }
    let mut within_a_character = RunningEstimate::new();
    assert_eq!(within_a_character.tokens(), 0);
    within_a_character.push(&[0x80]);
    assert_eq!(within_a_character.tokens(), 1);
}

#[test]
fn pointers_to_an_estimator_are_estimators() {
    #[derive(Debug)]
    struct Fixed;

    impl TokenEstimator for Fixed {
        fn estimate(&self, _: &str) -> u64 {
            7
        }

        fn max_on_executor(&self) -> usize {
            8
        }
    }

    let all: [Box<dyn TokenEstimator>; 3] =
        [Box::new(Fixed), Box::new(Arc::new(Fixed)), Box::new(Box::new(Fixed))];
    for estimator in all {
        assert_eq!((estimator.estimate(""), estimator.max_on_executor()), (7, 8));
    }
}

proptest! {
    #[test]
    fn pieces_count_for_as_much_as_the_whole(
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..200), ".{0,80}".prop_map(String::into_bytes)],
        cuts in prop::collection::vec(0..200_usize, 0..20),
    ) {
        let mut whole = RunningEstimate::new();
        whole.push(&bytes);
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let (mut pieces, mut before) = (RunningEstimate::new(), 0);
        for cut in cuts.windows(2) {
            pieces.push(&bytes[cut[0]..cut[1]]);
            prop_assert!(pieces.tokens() >= before, "longer, and fewer");
            before = pieces.tokens();
        }
        prop_assert_eq!(pieces.tokens(), whole.tokens());
        prop_assert!(whole.tokens() <= bytes.len() as u64);
        prop_assert_eq!(whole.tokens() == 0, bytes.is_empty());
    }
}

#[cfg(feature = "bpe")]
mod measured;
