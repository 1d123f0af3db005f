//! What a request keeps of a policy whose detectors are replaced while the server runs.

use std::{
    ptr,
    sync::{Arc, PoisonError, RwLock},
};

use super::Policy;
use crate::prompt_guard::{Detector, scan::Local, waiting::Remote};

/// A policy, and the copy of it that the last request got.
#[derive(Debug)]
pub(crate) struct Pinned {
    policy: Arc<Policy>,
    last: RwLock<Arc<Policy>>,
}

impl Pinned {
    pub(super) fn new(policy: Policy) -> Self {
        let policy = Arc::new(policy);
        let last = RwLock::new(Arc::clone(&policy));
        Self { policy, last }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.policy.name
    }

    /// The policy as it is now, whatever is replaced later. Requests share one copy until then.
    pub(crate) fn now(&self) -> Arc<Policy> {
        if !self.policy.changes {
            return Arc::clone(&self.policy);
        }
        let last = Arc::clone(&self.last.read().unwrap_or_else(PoisonError::into_inner));
        let is_kept = |(detector, kept): (&Arc<dyn Detector>, &Arc<dyn Detector>)| {
            let now = detector.pinned();
            now.is_none_or(|now| ptr::addr_eq(Arc::as_ptr(&now), Arc::as_ptr(kept)))
        };
        let stays = self.policy.detectors().zip(last.detectors()).all(is_kept);
        if stays {
            return last;
        }
        let now = Arc::new(self.policy.pinned());
        *self.last.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&now);
        now
    }
}

impl Policy {
    /// Those that may be replaced, among others.
    pub(super) fn detectors(&self) -> impl Iterator<Item = &Arc<dyn Detector>> {
        let local = self.local.iter().chain(&self.output).map(|local| &local.detector);
        local.chain(self.remote.iter().filter_map(Remote::in_process))
    }

    fn pinned(&self) -> Self {
        let mut policy = self.clone();
        let local = Arc::make_mut(&mut policy.local).iter_mut();
        local.chain(&mut policy.output).for_each(Local::pin);
        Arc::make_mut(&mut policy.remote).iter_mut().for_each(Remote::pin);
        policy.seen = policy.seen.map(|seen| seen.by(&policy.local));
        policy.rules = policy.rules_of_detectors();
        policy
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{
        inference::Segment,
        prompt_guard::{Action, Finding, GuardPolicy, Views},
    };

    /// Another one at another time.
    #[derive(Debug, Default)]
    struct Changing(Mutex<Arc<Fixed>>);

    #[derive(Debug, Default)]
    struct Fixed;

    impl Detector for Fixed {
        fn name(&self) -> &'static str {
            "fixed"
        }

        fn scan(&self, _: &Segment<'_>, _: &Views<'_>, _: &mut Vec<Finding>) {}
    }

    impl Detector for Changing {
        fn name(&self) -> &'static str {
            "changing"
        }

        fn scan(&self, _: &Segment<'_>, _: &Views<'_>, _: &mut Vec<Finding>) {}

        fn pinned(&self) -> Option<Arc<dyn Detector>> {
            Some(Arc::clone(&self.0.lock().unwrap()) as _)
        }
    }

    #[test]
    fn a_policy_is_copied_once_for_each_replacement() {
        let changing = Arc::new(Changing::default());
        let policy = GuardPolicy::builder()
            .detector(Fixed, Action::Block)
            .output_detector(Arc::clone(&changing), Action::Block);
        let pinned = Pinned::new(policy.policy().unwrap());
        let first = pinned.now();
        assert!(Arc::ptr_eq(&first, &pinned.now()));
        *changing.0.lock().unwrap() = Arc::default();
        let second = pinned.now();
        assert!(!Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&second, &pinned.now()));
        assert_eq!((first.output[0].detector.name(), first.local.len()), ("fixed", 1));

        let never =
            Pinned::new(GuardPolicy::builder().detector(Fixed, Action::Block).policy().unwrap());
        assert!(Arc::ptr_eq(&never.policy, &never.now()));
    }
}
