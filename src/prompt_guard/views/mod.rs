//! A text as it stands and as it reads: the same words without what was done to hide them.
//!
//! A rule that looks for words finds them in no text that writes them in full-width letters, with
//! invisible characters inside, or in base64. [`Views`] undoes such disguises once for all
//! detectors and keeps the way back: each view maps its bytes to those of the original, so that a
//! match can be cut out of the text that arrived.
//!
//! Ordinary text has one view, made in one pass. Other views are made only where a cheap test says
//! that they hold something else: at most 16 of them, encodings undone at most three deep, decoded
//! text at most four times as long as the original. The work is linear in the length of the text, and so is the memory: that
//! of the views and of all detectors together stays below thirty times the text in the worst cases known.

mod canonical;
mod confusables;
mod decode;
mod fold;
mod hints;
mod map;
mod words;

use std::{borrow::Cow, fmt, ops::Range};

pub(super) use self::map::on_borders;
use self::{canonical::canonical, hints::Hints, map::Text};

/// How many views a text has at most.
const MAX_VIEWS: usize = 16;
/// How many encodings inside one another are undone.
const MAX_DEPTH: usize = 3;
/// How much longer than the original all decoded text together may be.
const MAX_EXPANSION: usize = 4;

/// The views of one text. `Debug` shows none of it.
pub struct Views<'a> {
    original: &'a str,
    views: Vec<View<'a>>,
}

impl<'a> Views<'a> {
    /// Makes the views of a text.
    #[must_use]
    pub fn of(text: &'a str) -> Self {
        let mut views = Vec::with_capacity(1);
        let mut budget = text.len().saturating_mul(MAX_EXPANSION);
        let mut layer = canonical(Cow::Borrowed(text), None);
        let mut kind = ViewKind::Canonical;
        for depth in 0..=MAX_DEPTH {
            let hints = Hints::of(&layer.folded);
            let next = if hints.encoded && depth < MAX_DEPTH {
                decode::decode(&layer, budget)
            } else {
                None
            };
            let disguised = disguised(&layer, &hints);
            views.push(View { original: text, text: layer, kind });
            views.extend(disguised.map(|folded| View {
                original: text,
                text: folded,
                kind: ViewKind::Folded,
            }));
            let Some(next) = next else { break };
            budget = budget.saturating_sub(next.cased.len());
            layer = canonical(next.cased, Some(next.map));
            kind = ViewKind::Decoded;
        }
        views.truncate(MAX_VIEWS);
        Self { original: text, views }
    }

    /// The text as it arrived.
    #[must_use]
    pub const fn original(&self) -> &'a str {
        self.original
    }

    /// All views, the canonical one first.
    pub fn iter(&self) -> impl Iterator<Item = &View<'a>> {
        self.views.iter()
    }
}

/// The text of the canonical view alone, in folded case.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    canonical(Cow::Borrowed(text), None).folded
}

/// The views in which the letters of a text are read another way.
fn disguised(text: &Text<'_>, hints: &Hints) -> impl Iterator<Item = Text<'static>> + use<> {
    let leet = if hints.leet { fold::leet(text) } else { None };
    [
        leet,
        hints.split.then(|| fold::unspace(text)).flatten(),
        hints.split.then(|| fold::join(text)),
        (!hints.jumbled.is_empty()).then(|| fold::unjumble(text, &hints.jumbled)),
        hints.rotated.then(|| fold::rotate(text)),
        hints.reversed.then(|| fold::reverse(text)),
    ]
    .into_iter()
    .flatten()
}

impl fmt::Debug for Views<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.views).finish()
    }
}

/// What was done to make a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ViewKind {
    /// One spelling for each character, nothing invisible.
    Canonical,
    /// The same after encodings were undone.
    Decoded,
    /// Letters read another way: signs as letters, words joined, shifted or reversed.
    Folded,
}

/// One way to read a text. `Debug` shows its kind and length only.
pub struct View<'a> {
    original: &'a str,
    text: Text<'a>,
    kind: ViewKind,
}

impl View<'_> {
    /// The text in folded case, white space collapsed to single spaces and line breaks.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text.folded
    }

    /// The same text in its own case. Offsets are the same in both.
    #[must_use]
    pub fn cased(&self) -> &str {
        &self.text.cased
    }

    /// What was done to make it.
    #[must_use]
    pub const fn kind(&self) -> ViewKind {
        self.kind
    }

    /// Where a folded view differs from the one it was made of, in order; `None`: it may anywhere.
    pub(in crate::prompt_guard) fn changed(&self) -> Option<&[Range<usize>]> {
        (self.kind == ViewKind::Folded && !self.text.changed.is_empty())
            .then_some(&self.text.changed)
    }

    /// The bytes of the original that a range of this view was made of: on character borders,
    /// within the original, whatever the range.
    #[must_use]
    pub fn origin_span(&self, range: Range<usize>) -> Range<usize> {
        let end = range.end.min(self.text.folded.len());
        let start = range.start.min(end);
        on_borders(self.original, self.text.map.origin(start..end))
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("kind", &self.kind)
            .field("len", &self.text.folded.len())
            .finish()
    }
}

#[cfg(test)]
mod tests;
