//! The suite that every backend of the store traits is held to. Run it on yours.
//!
//! ```
//! use std::sync::Arc;
//! use palisade::{clock::ManualClock, store::{MemoryStore, conformance}};
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! let clock = Arc::new(ManualClock::default());
//! let new = || Arc::new(MemoryStore::builder().clock(clock.clone()).build().unwrap());
//! conformance::limiter_store(|| new(), &*clock).await;
//! conformance::fact_store(|| new(), &*clock).await;
//! conformance::record_store(|| new()).await;
//! # });
//! ```
//!
//! Each check panics with what was broken. They use fresh random keys, so a store may be shared and
//! need not be empty. On a real clock they take some
//! fifteen seconds.

// What a check finds broken is told by a panic: these are tests.
#![allow(clippy::panic, clippy::expect_used, clippy::missing_panics_doc)]

mod facts;
mod limits;
mod records;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use super::{FactStore, Key, LimiterStore, Pepper, RecordStore};
use crate::runtime;

/// Lets the time of a store pass.
pub trait Time: Send + Sync {
    /// Resolves when the store's clock is on by `duration`, or a little more.
    fn pass(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The time of a store that counts by a real clock: waits.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::exhaustive_structs)]
pub struct RealTime;

impl Time for RealTime {
    fn pass(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(runtime::sleep(duration + Duration::from_millis(20)))
    }
}

impl Time for crate::clock::ManualClock {
    fn pass(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.advance(duration);
        Box::pin(std::future::ready(()))
    }
}

/// Checks a [`LimiterStore`]. `new` is called for each check, on a multi-threaded runtime.
pub async fn limiter_store<S: LimiterStore>(new: impl Fn() -> Arc<S>, time: &dyn Time) {
    limits::all_or_none(new()).await;
    limits::a_refused_admission_charges_nothing(new()).await;
    limits::a_burst_is_exact_and_drains(new(), time).await;
    limits::standings_tell_what_still_fits(new()).await;
    limits::the_wait_of_a_refusal_is_enough(new(), time).await;
    limits::cost_zero_asks_for_debt_alone(new(), time).await;
    limits::what_is_used_beyond_becomes_debt(new(), time).await;
    limits::what_is_not_used_is_given_back(new()).await;
    limits::a_refund_gives_no_window_more_than_its_quota(new(), time).await;
    limits::slots_are_given_back_exactly(new()).await;
    limits::a_cost_beyond_the_capacity_never_fits(new()).await;
    limits::a_new_rate_keeps_what_was_used(new()).await;
    limits::peek_charges_nothing(new()).await;
    limits::a_limit_named_twice_is_an_error(new()).await;
    limits::a_dropped_answer_gives_back_what_it_took(new()).await;
    limits::settle_needs_no_runtime(new()).await;
    limits::concurrent_admissions_are_exact(new()).await;
    limits::records_do_not_mix(new()).await;
    limits::a_calendar_begins_anew_with_each_period(new()).await;
    limits::a_calendar_settles_within_its_period(new()).await;
    limits::a_window_slides(new(), time).await;
    limits::a_sliding_window_settles(new()).await;
    limits::another_quota_keeps_what_was_used(new()).await;
    limits::all_or_none_by_every_rule(new()).await;
    limits::a_record_that_is_reset_begins_anew(new(), time).await;
}

/// Checks a [`FactStore`]. `new` is called for each check.
pub async fn fact_store<S: FactStore>(new: impl Fn() -> Arc<S>, time: &dyn Time) {
    facts::a_first_use_is_told_once(new(), time).await;
    facts::concurrent_first_uses_are_told_once(new()).await;
    facts::values_are_kept_for_their_time(new(), time).await;
    facts::concurrent_values_take_nothing_back(new()).await;
    facts::members_are_counted_up_to_the_cap(new(), time).await;
    facts::kinds_do_not_mix(new()).await;
}

/// Checks a [`RecordStore`]. `new` is called for each check, on a multi-threaded runtime.
pub async fn record_store<S: RecordStore>(new: impl Fn() -> Arc<S>) {
    records::a_record_is_read_as_it_was_written(new()).await;
    records::only_what_is_expected_is_replaced(new()).await;
    records::concurrent_swaps_lose_nothing(new()).await;
    records::tables_do_not_mix(new()).await;
    records::pages_miss_nothing(new()).await;
    records::a_record_that_is_too_long_is_an_error(new()).await;
}

fn fresh_key() -> Key {
    Pepper::random().key("conformance").finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::ManualClock, store::MemoryStore};

    #[tokio::test(flavor = "multi_thread")]
    async fn the_memory_store_conforms() {
        let clock = Arc::new(ManualClock::default());
        let new = || {
            Arc::new(MemoryStore::builder().clock(Arc::clone(&clock) as _).build().expect("valid"))
        };
        limiter_store(new, &*clock).await;
        fact_store(new, &*clock).await;
        record_store(new).await;
    }
}
