//! The exact count.

use std::sync::OnceLock;

use bpe_openai::Tokenizer;

use super::TokenEstimator;

/// Counts tokens exactly, by byte-pair encoding with a vocabulary of OpenAI's. Needs the feature `bpe`.
///
/// The names of special tokens, such as `<|endoftext|>`, are counted as the text that they are. Time grows with the
/// length of the text alone, whatever it holds.
///
/// Both vocabularies together add about 50 MB to the binary, and 66 MB to the memory of a process that uses both. Each
/// is loaded when it is first used, which takes some ten milliseconds: [`load`](Self::load) does it at the start.
///
/// ```
/// use palisade::inference::{Bpe, TokenEstimator};
///
/// assert_eq!(Bpe::O200k.estimate("The lighthouse warns ships of the rocks."), 8);
/// assert_eq!(Bpe::O200k.count_within("The lighthouse warns ships of the rocks.", 4), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Bpe {
    /// `cl100k_base`: GPT-4, GPT-3.5, `text-embedding-3`.
    Cl100k,
    /// `o200k_base`: GPT-4o and later, and GPT-OSS.
    O200k,
}

impl Bpe {
    /// Loads the vocabulary, unless it is loaded.
    pub fn load(self) {
        self.tokenizer();
    }

    /// The tokens of `text` if there are at most `limit`. What comes after more is not counted, so that a low limit is
    /// soon told.
    #[must_use]
    pub fn count_within(self, text: &str, limit: u64) -> Option<u64> {
        // There is no token without a byte.
        let limit = limit.min(text.len() as u64);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let tokenizer = self.tokenizer();
        tokenizer.count_till_limit(&tokenizer.normalize(text), limit).map(|count| count as u64)
    }

    fn tokenizer(self) -> &'static Tokenizer {
        match self {
            Self::Cl100k => CL100K.get_or_init(bpe_openai::cl100k_base),
            Self::O200k => O200K.get_or_init(bpe_openai::o200k_base),
        }
    }

    fn is_loaded(self) -> bool {
        match self {
            Self::Cl100k => CL100K.get().is_some(),
            Self::O200k => O200K.get().is_some(),
        }
    }
}

impl TokenEstimator for Bpe {
    fn estimate(&self, text: &str) -> u64 {
        self.tokenizer().count(text) as u64
    }

    /// 32 KiB, which take a millisecond or two; 0 until the vocabulary is loaded.
    fn max_on_executor(&self) -> usize {
        if self.is_loaded() { 32 * 1024 } else { 0 }
    }
}

static CL100K: OnceLock<&Tokenizer> = OnceLock::new();
static O200K: OnceLock<&Tokenizer> = OnceLock::new();
