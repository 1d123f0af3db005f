//! A word-level trigram model with Witten-Bell back-off, counted from text when the program starts.
//!
//! Small, but a real language model: its next word depends on what was written before, and the
//! probability that it states is the one it draws by.

use std::collections::HashMap;

/// The id of a token.
pub(crate) type TokenId = u32;

/// Ends a paragraph, and a text.
pub(crate) const END: TokenId = 0;

/// What follows a context, and how often.
#[derive(Debug, Default)]
struct Followers {
    total: u32,
    counts: Vec<(TokenId, u32)>,
}

/// The counts of one, two and three tokens in a row.
#[derive(Debug)]
pub(crate) struct Model {
    words: Vec<String>,
    ids: HashMap<String, TokenId>,
    unigrams: Followers,
    bigrams: HashMap<TokenId, Followers>,
    trigrams: HashMap<(TokenId, TokenId), Followers>,
}

impl Model {
    /// Counts `text`, whose paragraphs stand apart by an empty line.
    pub(crate) fn learn(text: &str) -> Self {
        let mut model = Self {
            words: vec![String::new()],
            ids: HashMap::new(),
            unigrams: Followers::default(),
            bigrams: HashMap::new(),
            trigrams: HashMap::new(),
        };
        for paragraph in text.split("\n\n") {
            let (mut before, mut last) = (END, END);
            for word in tokens(paragraph) {
                let id = model.intern(word);
                model.count(before, last, id);
                (before, last) = (last, id);
            }
            model.count(before, last, END);
        }
        model
    }

    /// The text of a token as it is appended to an answer: words bring their space along.
    pub(crate) fn text(&self, id: TokenId) -> String {
        let word = self.words.get(id as usize).map_or("", String::as_str);
        match word.chars().next() {
            None => "\n\n".to_owned(),
            Some(first) if first.is_alphanumeric() => format!(" {word}"),
            Some(_) => word.to_owned(),
        }
    }

    /// The last two tokens of a prompt, where the answer begins. A word that the model never saw
    /// counts as the end of a paragraph: what follows is then drawn from what begins one.
    pub(crate) fn context(&self, prompt: &str) -> (TokenId, TokenId) {
        let id = |word: &str| self.ids.get(word).or_else(|| self.ids.get(&word.to_lowercase()));
        tokens(prompt).fold((END, END), |(_, last), word| (last, id(word).copied().unwrap_or(END)))
    }

    /// Draws the token that follows `before` and `last`, with the logarithm of its probability.
    pub(crate) fn draw(
        &self,
        before: TokenId,
        last: TokenId,
        random: &mut Random,
    ) -> (TokenId, f64) {
        let trigram = self.trigrams.get(&(before, last));
        let bigram = self.bigrams.get(&last);
        let id = trigram
            .and_then(|followers| followers.draw(random))
            .or_else(|| bigram.and_then(|followers| followers.draw(random)))
            .unwrap_or_else(|| self.unigrams.pick(random.below(self.unigrams.total)));
        let mut probability = f64::from(self.unigrams.count(id)) / f64::from(self.unigrams.total);
        for followers in [bigram, trigram].into_iter().flatten() {
            probability = followers.smoothed(id, probability);
        }
        (id, probability.ln())
    }

    fn intern(&mut self, word: &str) -> TokenId {
        if let Some(id) = self.ids.get(word) {
            return *id;
        }
        let id = self.words.len() as TokenId;
        self.words.push(word.to_owned());
        self.ids.insert(word.to_owned(), id);
        id
    }

    fn count(&mut self, before: TokenId, last: TokenId, id: TokenId) {
        // Only what was seen to end a text ends one: the shortest context never does.
        if id != END {
            self.unigrams.add(id);
        }
        self.bigrams.entry(last).or_default().add(id);
        self.trigrams.entry((before, last)).or_default().add(id);
    }
}

impl Followers {
    fn add(&mut self, id: TokenId) {
        self.total += 1;
        match self.counts.iter_mut().find(|(known, _)| *known == id) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((id, 1)),
        }
    }

    /// One of the followers, or `None`: back off to the shorter context. Witten and Bell: as likely
    /// as something new was here while counting.
    fn draw(&self, random: &mut Random) -> Option<TokenId> {
        let at = random.below(self.total + self.kinds());
        (at < self.total).then(|| self.pick(at))
    }

    fn pick(&self, mut at: u32) -> TokenId {
        for (id, count) in &self.counts {
            match at.checked_sub(*count) {
                Some(rest) => at = rest,
                None => return *id,
            }
        }
        END
    }

    fn smoothed(&self, id: TokenId, shorter: f64) -> f64 {
        let (total, kinds) = (f64::from(self.total), f64::from(self.kinds()));
        (f64::from(self.count(id)) + kinds * shorter) / (total + kinds)
    }

    fn count(&self, id: TokenId) -> u32 {
        self.counts.iter().find(|(known, _)| *known == id).map_or(0, |(_, count)| *count)
    }

    fn kinds(&self) -> u32 {
        self.counts.len() as u32
    }
}

/// The words and the marks of punctuation of a text, each a token.
pub(crate) fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let length = if first.is_alphanumeric() {
            rest.find(|c: char| !c.is_alphanumeric() && c != '\'').unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        Some(token)
    })
}

/// SplitMix64: small, fast, and the same on every machine for the same seed.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed % u64::from(bound.max(1))) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_falls_into_words_and_marks() {
        let words: Vec<_> = tokens(" The keeper's lamp, it \u{e9}tait l\u{e0}.").collect();
        assert_eq!(words, ["The", "keeper's", "lamp", ",", "it", "\u{e9}tait", "l\u{e0}", "."]);
    }

    #[test]
    fn a_seed_decides_the_text() {
        let model = Model::learn("The bread is warm. The lamp is lit.\n\nThe lamp is warm.");
        let text = |seed| {
            let mut random = Random::seeded(seed);
            let (mut before, mut last) = model.context("The lamp");
            (0..20)
                .map(|_| {
                    let (id, logprob) = model.draw(before, last, &mut random);
                    assert!(logprob <= 0.0 && logprob.is_finite());
                    (before, last) = (last, id);
                    model.text(id)
                })
                .collect::<String>()
        };
        assert_eq!(text(1), text(1));
        assert!((2..20).any(|seed| text(seed) != text(1)));
    }

    #[test]
    fn probabilities_of_all_tokens_add_up_to_one() {
        let model = Model::learn("The bread is warm. The lamp is lit. The sea is the sea.");
        let (before, last) = model.context("lamp is");
        let mut sum = 0.0;
        for id in 0..model.words.len() as TokenId {
            let unigram = f64::from(model.unigrams.count(id)) / f64::from(model.unigrams.total);
            let bigram = model.bigrams[&last].smoothed(id, unigram);
            sum += model.trigrams[&(before, last)].smoothed(id, bigram);
        }
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }
}
