//! Texts that were scanned before: a conversation sends all of its older turns again with each new one.

use std::{
    fmt, iter, ptr,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Detector, Finding, Outcome,
    policy::Gathered,
    scan::{Local, keep, scan_each},
};
use crate::{
    inference::Segment,
    store::{Key, Pepper},
};

/// Detectors. Where it is `seen` what they found in a text, they need not find it again.
#[derive(Clone, Copy)]
pub(crate) struct Scanner<'a> {
    pub(crate) detectors: &'a [Local],
    pub(crate) seen: Option<&'a SeenTexts>,
}

impl Scanner<'_> {
    /// Runs all detectors over one segment.
    pub(crate) fn segment(&self, segment: &Segment<'_>, gathered: &mut Gathered) {
        self.each(segment, gathered, |local, mut finding, gathered| {
            finding.segment = segment.index;
            keep(local.detector.name(), &local.rule, finding, Some(segment), gathered);
        });
    }

    /// Runs all detectors over one text, unless they have before, and gives what they find to `take`.
    pub(crate) fn each(
        &self,
        segment: &Segment<'_>,
        gathered: &mut Gathered,
        mut take: impl FnMut(&Local, Finding, &mut Gathered),
    ) {
        let Some(seen) = self.seen.filter(|_| !segment.text.is_empty()) else {
            scan_each(self.detectors, segment, gathered, take);
            return;
        };
        let key = seen.key(segment);
        if let Some(findings) = seen.get(&key) {
            for (at, finding) in findings.iter().flat_map(|found| found.iter()) {
                if let Some(local) = self.detectors.get(*at) {
                    take(local, finding.clone(), gathered);
                }
            }
            return;
        }
        let (mut found, mut may_keep) = (Vec::new(), true);
        let all_told = scan_each(self.detectors, segment, gathered, |local, finding, gathered| {
            let at = self.detectors.iter().position(|own| ptr::eq(own, local));
            let ruling = local.rule.ruling(&finding, Some(segment.origin));
            may_keep &= found.len() < MAX_FINDINGS && ruling.would_be(&finding) != Outcome::Block;
            if may_keep {
                found.extend(at.zip(Some(finding.clone())));
            }
            take(local, finding, gathered);
        });
        // What blocks is looked at again each time, as is what a detector could not tell of.
        if all_told && may_keep {
            seen.insert(key, found);
        }
    }
}

/// What was found in texts, by detectors that are the same still. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SeenTexts {
    shared: Arc<Shared>,
    /// Which detectors found it.
    generation: u64,
}

struct Shared {
    /// Random: nobody can make up two texts of one digest, or tell from a digest what its text was.
    pepper: Pepper,
    /// A text's digest names the one small set that it may stand in. A flood of texts replaces entries, never adds memory.
    sets: Box<[Mutex<Set>]>,
    newest: Mutex<Generation>,
}

/// The detectors that are in use. As they are kept here, no other can stand in the same place.
#[derive(Default)]
struct Generation {
    number: u64,
    detectors: Vec<Arc<dyn Detector>>,
}

#[derive(Default)]
struct Set {
    entries: Vec<(Key, Findings)>,
    /// Which entry goes next.
    hand: usize,
}

/// Each with the number of its detector. `None`: the text is clean.
type Findings = Option<Arc<[(usize, Finding)]>>;

impl SeenTexts {
    /// Room for so many texts, in steps of eight. `None` for 0.
    pub(crate) fn new(texts: usize) -> Option<Self> {
        let sets: Box<[_]> = iter::repeat_with(Mutex::default).take(texts.div_ceil(WAYS)).collect();
        let (pepper, newest) = (Pepper::random(), Mutex::default());
        let shared = Arc::new(Shared { pepper, sets, newest });
        (texts > 0).then_some(Self { shared, generation: 0 })
    }

    /// What these detectors found, each of which never changes. Nothing, if another stood in the place of one.
    pub(crate) fn by(&self, detectors: &[Local]) -> Self {
        let shared = &self.shared;
        let mut newest = shared.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |(own, local): (&Arc<dyn Detector>, &Local)| {
            ptr::addr_eq(Arc::as_ptr(own), Arc::as_ptr(&local.detector))
        };
        if newest.detectors.len() != detectors.len()
            || !newest.detectors.iter().zip(detectors).all(is_same)
        {
            newest.number += 1;
            newest.detectors = detectors.iter().map(|local| Arc::clone(&local.detector)).collect();
        }
        Self { shared: Arc::clone(shared), generation: newest.number }
    }

    /// A digest of all that what is found may depend on.
    fn key(&self, segment: &Segment<'_>) -> Key {
        let Segment { text, origin, turn, .. } = *segment;
        let key = self.shared.pepper.key("prompt_guard_text").with(&self.generation.to_le_bytes());
        key.with(origin.as_str().as_bytes())
            .with(&turn.to_le_bytes())
            .with(text.as_bytes())
            .finish()
    }

    fn get(&self, key: &Key) -> Option<Findings> {
        let set = self.set(key)?.lock().unwrap_or_else(PoisonError::into_inner);
        set.entries.iter().find(|(own, _)| own == key).map(|(_, found)| found.clone())
    }

    fn insert(&self, key: Key, found: Vec<(usize, Finding)>) {
        let Some(set) = self.set(&key) else { return };
        let entry = (key, (!found.is_empty()).then(|| found.into()));
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        let Set { entries, hand } = &mut *set;
        if entries.len() < WAYS {
            return entries.push(entry);
        }
        *hand = (*hand + 1) % WAYS;
        if let Some(old) = entries.get_mut(*hand) {
            *old = entry;
        }
    }

    fn set(&self, key: &Key) -> Option<&Mutex<Set>> {
        let (sets, [number, _]) = (&self.shared.sets, key.halves());
        let index = number.checked_rem(sets.len() as u64)?;
        sets.get(usize::try_from(index).ok()?)
    }
}

impl fmt::Debug for SeenTexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeenTexts(of {})", self.shared.sets.len() * WAYS)
    }
}

const WAYS: usize = 8;

/// Findings that are kept of one text. One of more is scanned again.
const MAX_FINDINGS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        inference::Origin,
        prompt_guard::{Action, Category, Views},
    };

    #[derive(Debug)]
    struct Word(&'static str);

    impl Detector for Word {
        fn name(&self) -> &'static str {
            "word"
        }

        fn scan(&self, segment: &Segment<'_>, _: &Views<'_>, findings: &mut Vec<Finding>) {
            findings.extend(segment.text.match_indices(self.0).map(|(at, word)| {
                let span = Some(at..at + word.len());
                Finding::new("x.word", Category::Custom, 1.0, segment.index, span)
            }));
        }
    }

    fn local(word: &'static str, action: Action) -> Local {
        Local { detector: Arc::new(Word(word)), rule: action.into() }
    }

    fn stored(seen: &SeenTexts) -> usize {
        seen.shared.sets.iter().map(|set| set.lock().unwrap().entries.len()).sum()
    }

    fn found(detectors: &[Local], seen: &SeenTexts, text: &str, index: usize) -> Vec<Finding> {
        let mut gathered = Gathered::default();
        let segment = Segment::new(index, text, Origin::User, 0);
        Scanner { detectors, seen: Some(seen) }.segment(&segment, &mut gathered);
        gathered.found.into_iter().map(|(_, finding)| finding).collect()
    }

    #[test]
    fn a_flood_of_texts_adds_no_memory() {
        let (detectors, seen) = ([local("x", Action::Block)], SeenTexts::new(64).unwrap());
        for text in 0..10_000 {
            found(&detectors, &seen, &text.to_string(), 0);
        }
        assert!(stored(&seen) <= 64);
        assert!(SeenTexts::new(0).is_none());
    }

    #[test]
    fn what_is_remembered_is_what_was_found_wherever_the_text_stands() {
        let seen = SeenTexts::new(64).unwrap();
        let detectors = [local("no", Action::Redact), local("mask", Action::Redact)];
        let first = found(&detectors, &seen, "a mask", 3);
        assert_eq!((first.len(), first[0].segment, stored(&seen)), (1, 3, 1));
        let again = found(&detectors, &seen, "a mask", 7);
        assert_eq!((again.len(), again[0].segment, stored(&seen)), (1, 7, 1));
        assert_eq!(again[0].span, first[0].span);
        // Too much to keep.
        assert_eq!(found(&detectors, &seen, &"mask ".repeat(17), 0).len(), 17);
        assert_eq!(stored(&seen), 1);
    }

    #[test]
    fn what_blocks_is_not_remembered_and_other_detectors_look_for_themselves() {
        let seen = SeenTexts::new(64).unwrap();
        let detectors = [local("evil", Action::Block)];
        assert_eq!(found(&detectors, &seen, "evil", 0).len(), 1);
        assert_eq!(stored(&seen), 0);
        let by = seen.by(&detectors);
        assert_eq!(by.generation, seen.by(&detectors).generation);
        assert!(found(&detectors, &by, "another", 0).is_empty());
        let others = [local("another", Action::Block)];
        let by_others = seen.by(&others);
        assert_ne!(by.generation, by_others.generation);
        assert_eq!(found(&others, &by_others, "another", 0).len(), 1);
        // The first ones again are new ones, for all that is known.
        assert_ne!(seen.by(&detectors).generation, by.generation);
    }
}
