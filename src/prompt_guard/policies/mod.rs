//! Content policies: what is looked for in prompts and answers, and what is done about it.

mod builder;

use std::{sync::Arc, time::Duration};

pub(crate) use self::builder::GuardPolicyBuilder;
use super::{Unseen, Verdict, hold::Sizes, scan::Local, waiting::Remote};
use crate::{
    inference::{Origin, Prompt},
    observe,
    reject::{Rejection, RejectionKind},
};

/// All that one request and its answer are held to.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) max_body: usize,
    pub(crate) unread: Unseen,
    pub(crate) unknown_endpoint: Unseen,
    pub(crate) grpc: Unseen,
    pub(crate) turns: Turns,
    pub(crate) local: Vec<Local>,
    pub(crate) remote: Vec<Remote>,
    pub(crate) output: Vec<Local>,
    /// Whether a detector may be another at another time.
    pub(crate) changes: bool,
    pub(crate) max_answer: usize,
    pub(crate) max_delay: Duration,
    pub(crate) sizes: Sizes,
    pub(crate) restore: bool,
    pub(crate) enforced: bool,
}

impl Policy {
    /// What one request keeps, whatever is replaced meanwhile.
    pub(crate) fn pinned(self: Arc<Self>) -> Arc<Self> {
        if !self.changes {
            return self;
        }
        let mut policy = (*self).clone();
        policy.local.iter_mut().chain(&mut policy.output).for_each(Local::pin);
        policy.remote.iter_mut().for_each(Remote::pin);
        Arc::new(policy)
    }

    /// The verdict in the place of a refusal that is not enforced, or the refusal.
    pub(crate) fn excuse(&self, rejection: Rejection) -> Result<Verdict, Rejection> {
        let of_content = matches!(
            rejection.kind(),
            RejectionKind::Unreadable | RejectionKind::BadRequest | RejectionKind::Unavailable
        );
        if self.enforced || !of_content {
            return Err(rejection);
        }
        observe::count("palisade_guard_excused_total", &[("code", rejection.code())]);
        Ok(Verdict::refused(rejection.code(), false))
    }
}

/// What conversations may be made of.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    pub(crate) most: usize,
    pub(crate) refused: Vec<Origin>,
}

impl Turns {
    pub(crate) fn check(&self, prompt: &Prompt) -> Result<(), Rejection> {
        let refused =
            |(code, message)| Err(Rejection::new(RejectionKind::BadRequest, code, message));
        if self.refused.is_empty() && self.most == usize::MAX {
            return Ok(());
        }
        for segment in prompt.segments() {
            if self.refused.contains(&segment.origin) {
                return refused((
                    "origin_not_allowed",
                    "A message has a role that may not be sent here.",
                ));
            }
            if segment.turn as usize >= self.most {
                return refused((
                    "too_many_turns",
                    "The conversation has more messages than may be sent here.",
                ));
            }
        }
        Ok(())
    }
}
