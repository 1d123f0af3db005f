//! The refusals of requests that do not fit, and of those that can't be decided.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{headers::Telling, ready::ReadyLimit, ready_tier::ReadyTier, unit::Unit};
use crate::{
    observe,
    reject::{ErrorFormat, Rejection, RejectionKind, whole_seconds},
    route::Endpoint,
    store::{Standing, StoreError},
};

/// The refusal of a request that does not fit, for the limit at `index`.
pub(super) fn rejection(
    tier: &ReadyTier,
    index: Option<usize>,
    retry_after: Option<Duration>,
    standings: &[Standing],
    told: Telling,
) -> Rejection {
    let limit = index.and_then(|index| tier.limits.get(index));
    let refusal = match limit {
        Some(limit) if !limit.scopes.is_the_callers() => no_capacity(tier, limit, retry_after),
        Some(limit) if limit.unit == Unit::Slots => slots_taken(tier, limit),
        Some(limit) => quota_used(tier, limit, retry_after),
        None => Rejection::new(
            RejectionKind::RateLimited,
            "rate_limit_exceeded",
            "A rate limit is reached.",
        ),
    };
    let mut refusal = match limit {
        Some(limit) => refusal.with_violated_limit(&limit.name),
        None => refusal,
    };
    told.tell(tier, standings, |name, value| refusal.add_header(name.clone(), value));
    match should_retry(refusal.retry_after(), told.endpoint) {
        Some(retry) => refusal.with_header(X_SHOULD_RETRY, HeaderValue::from_static(retry)),
        None => refusal,
    }
}

/// Whether a client should ask again by itself, for those who ask. The OpenAI and Anthropic SDKs do as they are told, and
/// sleep for as long as they are told, however long that is.
fn should_retry(after: Option<Duration>, endpoint: Endpoint) -> Option<&'static str> {
    if after.is_none_or(|after| after > LONGEST_SLEEP) {
        return Some("false");
    }
    let format = endpoint.error_format();
    matches!(format, ErrorFormat::OpenAi | ErrorFormat::Anthropic).then_some("true")
}

/// What callers share is used up: the server's want, not the caller's.
fn no_capacity(tier: &ReadyTier, limit: &ReadyLimit, retry_after: Option<Duration>) -> Rejection {
    let (name, limit) = (&tier.name, &limit.name);
    let message = format!("Tier {name} is at its capacity ({limit}). Try again soon.");
    Rejection::new(RejectionKind::AtCapacity, "capacity_exhausted", message)
        .with_retry_after(retry_after.unwrap_or(Duration::from_secs(1)))
}

fn slots_taken(tier: &ReadyTier, limit: &ReadyLimit) -> Rejection {
    let (name, max) = (&tier.name, limit.quota);
    let message = format!(
        "Too many requests at a time: tier {name} may have {max}. Try again when one has ended."
    );
    Rejection::new(RejectionKind::RateLimited, "concurrency_limit_exceeded", message)
        .with_retry_after(Duration::from_secs(1))
}

fn quota_used(tier: &ReadyTier, limit: &ReadyLimit, retry_after: Option<Duration>) -> Rejection {
    let (name, quota, window) = (&tier.name, limit.quota, limit.window);
    let unit = limit.unit.noun();
    let Some(after) = retry_after else {
        let message = format!(
            "The request is larger than tier {name} ever admits: {quota} {unit} in {window}. \
             Make the prompt or max_tokens smaller."
        );
        return Rejection::new(RejectionKind::RateLimited, "request_exceeds_limit", message);
    };
    let seconds = whole_seconds(after);
    let message = format!(
        "Rate limit reached for tier {name}: {quota} {unit} in {window}. Try again in {seconds} s."
    );
    Rejection::new(RejectionKind::RateLimited, "rate_limit_exceeded", message)
        .with_retry_after(after)
}

/// The refusal when the store can't be asked.
pub(super) fn unavailable(error: &StoreError) -> Rejection {
    // Of every request, so not louder: the counter is what to watch.
    observe::debug("rate_limit", "the limiter store can't be asked");
    observe::count(
        "palisade_store_errors_total",
        &[("transient", if error.is_transient() { "true" } else { "false" })],
    );
    Rejection::new(
        RejectionKind::Unavailable,
        "limits_unavailable",
        "Limits can't be checked at the moment. Try again soon.",
    )
    .with_retry_after(Duration::from_secs(1))
}

const LONGEST_SLEEP: Duration = Duration::from_secs(60);
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

#[cfg(test)]
mod tests {
    use super::{super::headers::Families, *};
    use crate::{clock::ManualClock, rate_limit::Tier};

    #[test]
    fn a_long_wait_is_not_slept_through() {
        let tier = Tier::new().requests_per_day(10).ready("free").unwrap();
        let refused = |after| {
            let standings = [Standing::new(0, Duration::from_secs(9))];
            let told =
                Telling::of(Families::default(), Endpoint::OpenAiChat, &ManualClock::default());
            rejection(&tier, Some(0), after, &standings, told)
        };
        let retry =
            |after: Option<u64>, endpoint| should_retry(after.map(Duration::from_secs), endpoint);
        assert_eq!(retry(Some(61), Endpoint::OpenAiChat), Some("false"));
        assert_eq!(retry(Some(61), Endpoint::Generate), Some("false"));
        assert_eq!(retry(None, Endpoint::Grpc), Some("false"));
        assert_eq!(retry(Some(60), Endpoint::OpenAiChat), Some("true"));
        assert_eq!(retry(Some(60), Endpoint::AnthropicMessages), Some("true"));
        // Where no client asks.
        assert_eq!(retry(Some(60), Endpoint::Generate), None);
        let told = format!("{:?}", refused(Some(Duration::from_secs(61))));
        assert!(told.contains("x-should-retry"), "{told}");
        assert!(refused(None).retry_after().is_none());
    }
}
