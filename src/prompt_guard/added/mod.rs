//! What is changed of a prompt that passes, for the model to read: a canary is planted, and what tools and documents say is
//! marked. Only texts that somebody says are edited, after all detectors have looked; the rest of the body stays as
//! it came.

mod planted;
mod spotlight;

use bytes::Bytes;

pub use self::{planted::PlantedCanary, spotlight::Spotlighting};
use super::Canary;
use crate::{
    BuildError,
    inference::{Edit, Origin, Prompt, Segment, TokenEstimator},
};

/// What a policy adds to prompts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Additions {
    /// And which of the output detectors looks for it.
    planted: Option<(PlantedCanary, usize)>,
    pub(crate) spotlight: Option<Spotlighting>,
}

/// What was added to one prompt.
#[derive(Default)]
pub(crate) struct Added {
    /// The body, unless it stays as it is.
    pub(crate) body: Option<Bytes>,
    pub(crate) canary: Option<Canary>,
}

impl Additions {
    pub(crate) fn plant(&mut self, canary: PlantedCanary, at: usize) {
        self.planted = Some((canary, at));
    }

    pub(crate) fn planted_at(&self) -> Option<usize> {
        self.planted.as_ref().map(|(_, at)| *at)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.planted.is_none() && self.spotlight.is_none()
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        self.planted.iter().try_for_each(|(planted, _)| planted.check())?;
        self.spotlight.iter().try_for_each(Spotlighting::check)
    }

    pub(crate) fn to(&self, prompt: &Prompt) -> Added {
        let (edits, canary) = self.edits(prompt);
        let body = (!edits.is_empty()).then(|| prompt.rewrite_plainly(&edits));
        Added { body, canary }
    }

    /// The tokens that a prompt gains by them.
    pub(crate) fn tokens(&self, prompt: &Prompt, estimator: &dyn TokenEstimator) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let segments: Vec<_> = prompt.segments().collect();
        let gains = self.edits(prompt).0.into_iter().map(|edit| {
            let replaced = segments.get(edit.segment).and_then(|it| it.text.get(edit.span));
            let before = replaced.map_or(0, |text| estimator.estimate(text));
            estimator.estimate(&edit.replacement).saturating_sub(before)
        });
        gains.fold(0, u64::saturating_add)
    }

    fn edits(&self, prompt: &Prompt) -> (Vec<Edit>, Option<Canary>) {
        let mut edits = Vec::new();
        let mut sentences = String::new();
        let system = system_prompt(prompt);
        if let Some(spotlight) = &self.spotlight {
            sentences.extend(spotlight.mark(prompt, &mut edits));
        }
        let mut canary = None;
        if let Some(((planted, _), system)) = self.planted.as_ref().zip(system) {
            let (sentence, token) = planted.draw(system.text);
            canary = Canary::new(&token).ok();
            sentences.push_str(&sentence);
        }
        if let Some(system) = system.filter(|_| !sentences.is_empty()) {
            let end = system.text.len();
            edits.push(Edit::new(system.index, end..end, sentences));
        }
        (edits, canary)
    }
}

/// The first text that the operator says.
fn system_prompt(prompt: &Prompt) -> Option<Segment<'_>> {
    prompt.segments().find(|segment| {
        matches!(segment.origin, Origin::System | Origin::Developer)
            && prompt.is_said(segment.index)
    })
}

/// A sentence with what was drawn in the place of its name.
fn sentence(pattern: &str, name: &str, drawn: &str) -> String {
    format!("\n\n{}", pattern.replace(name, drawn))
}

/// Whether a sentence has a place for what is drawn.
fn has_place(what: &'static str, pattern: &str, name: &str) -> Result<(), BuildError> {
    if pattern.contains(name) {
        return Ok(());
    }
    Err(BuildError::invalid(what, format!("its sentence does not hold {name}")))
}
