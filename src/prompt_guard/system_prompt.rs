//! Answers that say what the system prompt of their request says.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
    ops::Range,
    sync::Arc,
};

use super::{Category, Detector, Finding, Views, spans::Spans, views::plain};
use crate::{
    BuildError,
    inference::{Origin, Prompt, Segment},
};

/// Finds the system prompt of a request, or the developer's, in the answer to it. The rule is
/// `system_prompt.repeated`, its score 1. For answers only: give it to
/// [`output_detector`](super::PromptGuardLayerBuilder::output_detector).
///
/// Found is what says a stretch of it in the same words: 160 letters and digits, about 30 words of English, unless
/// [`at_least`](Self::at_least) says otherwise. Ideographs, kana and Hangul syllables count as three each. Of a shorter system prompt it takes
/// four fifths, and one of fewer than 64, such as "You are a helpful assistant", is not looked for. Case,
/// punctuation, white space and marks don't count, so that a list, a quote or spaced-out letters change nothing; nor does a
/// word here and there that was changed or left out. [`Views`] undo base64, hex, rot13, reversal and the like.
///
/// What it does not find: a paraphrase, a translation, a summary, a list of the rules in other words, a cipher that no
/// view knows, and pieces asked for one at a time. A [`Canary`](super::Canary) finds some of that. If answers are meant
/// to repeat what stands in the system prompt (opening hours, terms), ask for a longer stretch, or hand that
/// knowledge over in another role: a passage of that length is found whatever it says.
///
/// For each request with such a prompt it keeps hashes until the answer has ended: some 20 to 40 bytes for every four letters, at most 300
/// KiB, of the first 128 KiB of its text.
///
/// ```
/// use palisade::prompt_guard::{Action, PromptGuardLayer, SystemPromptLeak};
///
/// let guard = PromptGuardLayer::builder()
///     .output_detector(SystemPromptLeak::default(), Action::Block)
///     .build()?;
/// // About fifty words.
/// let later = SystemPromptLeak::at_least(250)?;
/// assert!(SystemPromptLeak::at_least(16).is_err());
/// # Ok::<(), palisade::BuildError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SystemPromptLeak {
    run: usize,
}

impl Default for SystemPromptLeak {
    fn default() -> Self {
        Self { run: 160 }
    }
}

impl SystemPromptLeak {
    /// Finds stretches of at least so many letters and digits, from 48 to 512. With fewer, more is found that people and
    /// models say by chance; more than the default make streams be held back for longer.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for another number.
    pub fn at_least(letters: usize) -> Result<Self, BuildError> {
        if !(48..=512).contains(&letters) {
            let why = "it is not from 48 to 512 letters and digits";
            return Err(BuildError::invalid("system_prompt", why));
        }
        Ok(Self { run: letters })
    }
}

impl Detector for SystemPromptLeak {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Nothing: without its prompt, an answer can't be known to repeat it.
    fn scan(&self, _: &Segment<'_>, _: &Views<'_>, _: &mut Vec<Finding>) {}

    fn lookbehind(&self) -> usize {
        // With the blanks between words, and something written among them.
        self.run.saturating_mul(2)
    }

    fn answering(&self, prompt: &Prompt) -> Option<Arc<dyn Detector>> {
        let of_operator =
            |segment: &Segment<'_>| matches!(segment.origin, Origin::System | Origin::Developer);
        let shingles = Shingles::of(prompt.segments().filter(of_operator).map(|it| it.text))?;
        let needed = self.run.min(shingles.letters.saturating_mul(4) / 5);
        Some(Arc::new(Repeated { shingles, needed, lookbehind: self.lookbehind() }))
    }
}

/// Looks for one system prompt.
struct Repeated {
    shingles: Shingles,
    needed: usize,
    lookbehind: usize,
}

impl Detector for Repeated {
    fn name(&self) -> &'static str {
        NAME
    }

    fn scan(&self, segment: &Segment<'_>, views: &Views<'_>, findings: &mut Vec<Finding>) {
        let mut taken = Spans::default();
        for view in views.iter() {
            for stretch in self.shingles.stretches(view.text(), self.needed) {
                let span = view.origin_span(stretch);
                if taken.take(&span) {
                    findings.push(Finding::new(
                        "system_prompt.repeated",
                        Category::SystemPrompt,
                        1.0,
                        segment.index,
                        Some(span),
                    ));
                }
            }
        }
    }

    fn lookbehind(&self) -> usize {
        self.lookbehind
    }
}

impl fmt::Debug for Repeated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repeated").field("needed", &self.needed).finish_non_exhaustive()
    }
}

/// Hashes of stretches of a text: its letters and digits, [`LENGTH`] at a time, one for every few of them.
struct Shingles {
    /// The number of the shingle with this hash.
    numbers: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
    letters: usize,
    /// Drawn for each, so that nobody can make two texts alike.
    base: u64,
}

impl Shingles {
    /// `None` if there is too little of it.
    fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Option<Self> {
        let base = RandomState::new().hash_one(0_u8) | 1;
        let mut rolling = Rolling::new(base);
        let (mut hashes, mut letters, mut left) = (Vec::new(), 0_usize, MOST);
        for text in texts {
            let text = start_of(text, left);
            left -= text.len();
            for unit in units(&plain(text)).map(|(_, unit)| unit) {
                letters += 1;
                hashes.extend(rolling.push(unit, 0).map(|(hash, _)| hash));
            }
            if left == 0 {
                break;
            }
        }
        if letters < SHORTEST {
            return None;
        }
        let stride = hashes.len().div_ceil(MOST_SHINGLES).clamp(STRIDE, LENGTH);
        let kept = hashes.into_iter().step_by(stride).take(MOST_SHINGLES);
        let mut numbers = HashMap::default();
        for (number, hash) in (0..).zip(kept) {
            // A passage that stands there twice is the same passage.
            numbers.entry(hash).or_insert(number);
        }
        Some(Self { numbers, letters, base })
    }

    /// The stretches of `text` of which this text has at least `needed` letters, those between aside.
    fn stretches(&self, text: &str, needed: usize) -> Vec<Range<usize>> {
        let mut stretches = Vec::new();
        if text.len() < needed {
            return stretches;
        }
        let mut rolling = Rolling::new(self.base);
        let mut open: Option<Stretch> = None;
        for (count, (at, unit)) in (1..).zip(units(text)) {
            let Some((hash, start)) = rolling.push(unit, at) else { continue };
            let Some(number) = self.numbers.get(&hash) else { continue };
            if open.as_ref().is_some_and(|open| count > open.last + LENGTH + GAP) {
                stretches.extend(open.take().and_then(|open| open.enough(needed)));
            }
            let open = open.get_or_insert_with(|| Stretch::new(start, self.numbers.len()));
            open.extend(*number, count, end_of(text, at));
        }
        stretches.extend(open.and_then(|open| open.enough(needed)));
        stretches
    }
}

/// A part of an answer in which one shingle after the other was found.
struct Stretch {
    start: usize,
    end: usize,
    /// The letter at which the last one ended, counted from the start of the text.
    last: usize,
    /// How many letters they cover.
    covered: usize,
    /// Which of them were found: what is said twice counts once.
    seen: Vec<u64>,
}

impl Stretch {
    fn new(start: usize, shingles: usize) -> Self {
        Self { start, end: start, last: 0, covered: 0, seen: vec![0; shingles / 64 + 1] }
    }

    fn extend(&mut self, number: u32, count: usize, end: usize) {
        let bit = 1 << (number % 64);
        if let Some(seen) = self.seen.get_mut(number as usize / 64)
            && *seen & bit == 0
        {
            *seen |= bit;
            self.covered += (count - self.last).min(LENGTH);
        }
        (self.last, self.end) = (count, end);
    }

    fn enough(self, needed: usize) -> Option<Range<usize>> {
        (self.covered >= needed).then_some(self.start..self.end)
    }
}

/// The hash of the last [`LENGTH`] letters, and where the first of them stands.
struct Rolling {
    base: u64,
    /// The base to the power of the length.
    oldest: u64,
    hash: u64,
    window: VecDeque<(u64, usize)>,
}

impl Rolling {
    fn new(base: u64) -> Self {
        let oldest = (0..LENGTH).fold(1_u64, |power, _| power.wrapping_mul(base));
        Self { base, oldest, hash: 0, window: VecDeque::with_capacity(LENGTH + 1) }
    }

    fn push(&mut self, unit: u32, at: usize) -> Option<(u64, usize)> {
        // Neighbours in the alphabet are no neighbours here.
        let spread = (u64::from(unit) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.hash = self.hash.wrapping_mul(self.base).wrapping_add(spread);
        self.window.push_back((spread, at));
        if self.window.len() > LENGTH
            && let Some((left, _)) = self.window.pop_front()
        {
            self.hash = self.hash.wrapping_sub(left.wrapping_mul(self.oldest));
        }
        let (_, start) = self.window.front().filter(|_| self.window.len() == LENGTH)?;
        let mixed = (self.hash ^ (self.hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        Some((mixed ^ (mixed >> 32), *start))
    }
}

/// The letters and digits of a text, each with its place. One that says as much as three is three.
pub(super) fn units(text: &str) -> impl Iterator<Item = (usize, u32)> {
    let letters = text.char_indices().filter(|(_, character)| character.is_alphanumeric());
    letters.flat_map(|(at, character)| {
        let times = if character < '\u{2e80}' { 1 } else { 3 };
        std::iter::repeat_n((at, u32::from(character)), times)
    })
}

/// Where the character at `at` ends.
fn end_of(text: &str, at: usize) -> usize {
    at + text.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8)
}

/// At most the first `bytes` of a text.
fn start_of(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// What is hashed is a hash.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

const NAME: &str = "system_prompt";

/// Letters in a shingle: three or four words, which people say by chance, but not many such in a row.
const LENGTH: usize = 16;
/// From one shingle of the prompt to the next, at the least. No more than their length, so that they cover it.
const STRIDE: usize = 4;
/// Letters between two shingles that are still one stretch: a word or two that were changed.
const GAP: usize = 24;
/// Letters of the shortest system prompt that is looked for.
const SHORTEST: usize = 64;
/// Bytes of system prompts that are looked for.
const MOST: usize = 128 * 1024;
const MOST_SHINGLES: usize = MOST / LENGTH;

#[cfg(test)]
mod tests;
