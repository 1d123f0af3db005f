//! Counting the tokens of a prompt, for the limiter.

use std::{fmt, sync::Arc};

use super::{
    policies::Policy,
    scan::{caught, run},
};
use crate::{
    future::ReadyOr,
    inference::{ByteClasses, Prompt, TokenEstimator},
};

/// Who counts the tokens of a prompt, by the model that it is for.
pub(crate) struct Estimators(Box<Choose>);

type Choose = dyn Fn(Option<&str>) -> Arc<dyn TokenEstimator> + Send + Sync;

/// The prompt and its tokens. `None`: they can't be told.
pub(crate) type Counted = Option<(Prompt, u64)>;

impl Estimators {
    pub(crate) fn always(estimator: impl TokenEstimator) -> Self {
        let estimator: Arc<dyn TokenEstimator> = Arc::new(estimator);
        Self::by_model(move |_| Arc::clone(&estimator))
    }

    pub(crate) fn by_model(
        choose: impl Fn(Option<&str>) -> Arc<dyn TokenEstimator> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(choose))
    }

    /// Counts at once, or, when that would keep the executor, on another thread. What the policy adds counts, too.
    pub(crate) fn count(&self, prompt: Prompt, policy: &Arc<Policy>) -> ReadyOr<Counted> {
        let Some(estimator) = caught(|| (self.0)(prompt.model())) else {
            return ReadyOr::ready(None);
        };
        let policy = Arc::clone(policy);
        let counted = run(prompt.raw().len(), estimator.max_on_executor(), move |_| {
            let tokens = caught(|| {
                let added = policy.added_tokens(&prompt, &*estimator);
                prompt.estimate(&*estimator).saturating_add(added)
            })?;
            Some((prompt, tokens))
        });
        match counted.try_now() {
            Ok(counted) => ReadyOr::ready(counted.flatten()),
            Err(counted) => ReadyOr::pending(async { counted.await.flatten() }),
        }
    }
}

impl Default for Estimators {
    fn default() -> Self {
        Self::always(ByteClasses)
    }
}

impl fmt::Debug for Estimators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Estimators(..)")
    }
}
