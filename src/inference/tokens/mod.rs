//! How many tokens a text is, by rule or exactly.

#[cfg(feature = "bpe")]
mod bpe;
mod classes;

use std::{fmt::Debug, sync::Arc};

#[cfg(feature = "bpe")]
pub use self::bpe::Bpe;
pub use self::classes::{ByteClasses, RunningEstimate};

/// Says how many tokens a text is for the model: exactly, or by a rule.
pub trait TokenEstimator: Debug + Send + Sync + 'static {
    /// The tokens of `text`: at least 1 unless it is empty.
    fn estimate(&self, text: &str) -> u64;

    /// How many bytes of text it may be given on the executor, which it keeps busy meanwhile. The tokens of a longer
    /// prompt are counted on another thread. Any number by default.
    fn max_on_executor(&self) -> usize {
        usize::MAX
    }
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[deny(clippy::missing_trait_methods)]
        impl<T: TokenEstimator + ?Sized> TokenEstimator for $pointer<T> {
            fn estimate(&self, text: &str) -> u64 {
                (**self).estimate(text)
            }

            fn max_on_executor(&self) -> usize {
                (**self).max_on_executor()
            }
        }
    )*};
}

forward!(Arc, Box);

#[cfg(test)]
mod tests;
