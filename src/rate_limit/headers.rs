//! Where a caller stands, in the headers that its clients read, and the refusals that say so.
//!
//! The endpoint's own family (`x-ratelimit-*`, `anthropic-ratelimit-*`) and the IETF draft's, all
//! sliced from one buffer: separate values cost an allocation each.

use std::{fmt::Write as _, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    calendar::civil_date,
    limit::Unit,
    ready::{ReadyLimit, UNCOUNTED},
    tier::ReadyTier,
};
use crate::{
    observe,
    reject::{Rejection, RejectionKind, whole_seconds},
    route::Endpoint,
    store::{Standing, StoreError},
};

/// Writes every header there is to write.
pub(super) fn write(
    headers: &mut HeaderMap,
    tier: &ReadyTier,
    standings: &[Standing],
    endpoint: Endpoint,
    unix: Duration,
) {
    for (name, value) in values(tier, standings, endpoint, unix) {
        headers.insert(name, value);
    }
}

/// The refusal of a request that does not fit, for the limit at `index`.
pub(super) fn rejection(
    tier: &ReadyTier,
    index: Option<usize>,
    retry_after: Option<Duration>,
    standings: &[Standing],
    endpoint: Endpoint,
    unix: Duration,
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
    let refusal = match limit {
        Some(limit) => refusal.with_violated_limit(&limit.name),
        None => refusal,
    };
    values(tier, standings, endpoint, unix)
        .into_iter()
        .fold(refusal, |refusal, (name, value)| refusal.with_header(name, value))
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
        return Rejection::new(RejectionKind::RateLimited, "request_exceeds_limit", message)
            .with_header(X_SHOULD_RETRY, HeaderValue::from_static("false"));
    };
    let seconds = whole_seconds(after);
    let message = format!(
        "Rate limit reached for tier {name}: {quota} {unit} in {window}. Try again in {seconds} s."
    );
    let refusal = Rejection::new(RejectionKind::RateLimited, "rate_limit_exceeded", message)
        .with_retry_after(after);
    // The OpenAI and Anthropic SDKs sleep as long as they are told, however long that is.
    if after > LONGEST_SLEEP {
        return refusal.with_header(X_SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    refusal
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

/// One buffer that all values are slices of.
#[derive(Default)]
struct Values {
    buffer: BytesMut,
    ends: Vec<(HeaderName, usize)>,
}

impl Values {
    fn push(&mut self, name: HeaderName, write: impl FnOnce(&mut BytesMut) -> std::fmt::Result) {
        let begin = self.buffer.len();
        if write(&mut self.buffer).is_ok() {
            self.ends.push((name, self.buffer.len()));
        } else {
            self.buffer.truncate(begin);
        }
    }

    fn into_vec(self) -> Vec<(HeaderName, HeaderValue)> {
        let all: Bytes = self.buffer.freeze();
        let mut begin = 0;
        let mut values = Vec::with_capacity(self.ends.len() + 1);
        for (name, end) in self.ends {
            if let Ok(value) = HeaderValue::from_maybe_shared(all.slice(begin..end)) {
                values.push((name, value));
            }
            begin = end;
        }
        values
    }
}

fn values(
    tier: &ReadyTier,
    standings: &[Standing],
    endpoint: Endpoint,
    unix: Duration,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut values = Values { buffer: BytesMut::with_capacity(256), ends: Vec::with_capacity(8) };
    let callers = |(limit, standing): &(&ReadyLimit, &Standing)| {
        limit.scopes.is_the_callers() && **standing != UNCOUNTED
    };
    let limits = || tier.limits.iter().zip(standings).filter(callers);
    let families = if endpoint == Endpoint::AnthropicMessages { &ANTHROPIC[..] } else { &X };
    for (units, [quota, remaining, reset]) in families {
        let of_units = limits().filter(|(limit, _)| units.contains(&limit.unit));
        let Some((limit, standing)) = of_units.min_by(tighter) else { continue };
        values.push(quota.clone(), |out| write!(out, "{}", limit.quota));
        values.push(remaining.clone(), |out| write!(out, "{}", standing.remaining));
        values.push(reset.clone(), |out| match endpoint {
            Endpoint::AnthropicMessages => rfc3339(out, unix.saturating_add(standing.reset)),
            _ => go_duration(out, standing.reset),
        });
    }
    if let Some((limit, standing)) = limits().min_by(tighter) {
        values.push(RATELIMIT, |out| {
            write!(out, "\"{}\";r={}", limit.name, standing.remaining)?;
            if limit.unit == Unit::Slots {
                return Ok(());
            }
            write!(
                out,
                ";t={}",
                standing.reset.as_secs() + u64::from(standing.reset.subsec_nanos() > 0)
            )
        });
    }
    let mut values = values.into_vec();
    if !tier.policy.is_empty() {
        values.push((RATELIMIT_POLICY, tier.policy.clone()));
    }
    values
}

/// The limit of which the smaller part is left.
fn tighter(a: &(&ReadyLimit, &Standing), b: &(&ReadyLimit, &Standing)) -> std::cmp::Ordering {
    let cross = |x: &(&ReadyLimit, &Standing), y: &(&ReadyLimit, &Standing)| {
        u128::from(x.1.remaining) * u128::from(y.0.quota)
    };
    cross(a, b).cmp(&cross(b, a))
}

/// As Go prints durations and OpenAI sends them: `20ms`, `1s`, `6m0s`, `1h0m0s`.
fn go_duration(out: &mut BytesMut, duration: Duration) -> std::fmt::Result {
    let millis =
        duration.as_millis() + u128::from(!duration.subsec_nanos().is_multiple_of(1_000_000));
    if millis < 1000 {
        return write!(out, "{millis}ms");
    }
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => write!(out, "{s}s"),
        (0, m, s) => write!(out, "{m}m{s}s"),
        (h, m, s) => write!(out, "{h}h{m}m{s}s"),
    }
}

/// A time since the Unix epoch as RFC 3339 has it, in UTC and whole seconds, rounded up.
fn rfc3339(out: &mut BytesMut, unix: Duration) -> std::fmt::Result {
    let seconds = unix.as_secs() + u64::from(unix.subsec_nanos() > 0);
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Told while the store is out of reach and each process keeps its share of the limits.
pub(super) const MODE: HeaderName = HeaderName::from_static("x-ratelimit-mode");
pub(super) const DEGRADED: HeaderValue = HeaderValue::from_static("degraded");

const LONGEST_SLEEP: Duration = Duration::from_secs(60);
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What a family of headers tells of: the tightest limit of these units; by quota, remaining and reset.
type Family = (&'static [Unit], [HeaderName; 3]);

const TOKENS: &[Unit] = &[Unit::Tokens, Unit::InputTokens, Unit::OutputTokens];

/// As OpenAI names them.
static X: [Family; 2] = [
    (
        &[Unit::Requests],
        [
            HeaderName::from_static("x-ratelimit-limit-requests"),
            HeaderName::from_static("x-ratelimit-remaining-requests"),
            HeaderName::from_static("x-ratelimit-reset-requests"),
        ],
    ),
    (
        TOKENS,
        [
            HeaderName::from_static("x-ratelimit-limit-tokens"),
            HeaderName::from_static("x-ratelimit-remaining-tokens"),
            HeaderName::from_static("x-ratelimit-reset-tokens"),
        ],
    ),
];

/// As Anthropic does.
static ANTHROPIC: [Family; 4] = [
    (
        &[Unit::Requests],
        [
            HeaderName::from_static("anthropic-ratelimit-requests-limit"),
            HeaderName::from_static("anthropic-ratelimit-requests-remaining"),
            HeaderName::from_static("anthropic-ratelimit-requests-reset"),
        ],
    ),
    (
        TOKENS,
        [
            HeaderName::from_static("anthropic-ratelimit-tokens-limit"),
            HeaderName::from_static("anthropic-ratelimit-tokens-remaining"),
            HeaderName::from_static("anthropic-ratelimit-tokens-reset"),
        ],
    ),
    (
        &[Unit::InputTokens],
        [
            HeaderName::from_static("anthropic-ratelimit-input-tokens-limit"),
            HeaderName::from_static("anthropic-ratelimit-input-tokens-remaining"),
            HeaderName::from_static("anthropic-ratelimit-input-tokens-reset"),
        ],
    ),
    (
        &[Unit::OutputTokens],
        [
            HeaderName::from_static("anthropic-ratelimit-output-tokens-limit"),
            HeaderName::from_static("anthropic-ratelimit-output-tokens-remaining"),
            HeaderName::from_static("anthropic-ratelimit-output-tokens-reset"),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::Tier;

    fn text(write: impl FnOnce(&mut BytesMut) -> std::fmt::Result) -> String {
        let mut out = BytesMut::new();
        write(&mut out).unwrap();
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn times_are_written_as_their_readers_want_them() {
        for (millis, expected) in [
            (0, "0ms"),
            (20, "20ms"),
            (1000, "1s"),
            (1001, "2s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(text(|out| go_duration(out, Duration::from_millis(millis))), expected);
        }
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_799, "2024-02-28T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(text(|out| rfc3339(out, Duration::from_secs(seconds))), expected);
        }
    }

    #[test]
    fn each_family_tells_the_tightest_limit() {
        let tier = Tier::new().requests_per_minute(60).requests_per_day(1000).tokens_per_minute(90);
        let tier = tier.ready("free").unwrap();
        let standings = [
            Standing::new(30, Duration::from_secs(30)),
            Standing::new(2, Duration::from_secs(86_000)),
            Standing::new(80, Duration::from_millis(6001)),
        ];
        let mut headers = HeaderMap::new();
        write(&mut headers, &tier, &standings, Endpoint::OpenAiChat, Duration::ZERO);
        assert_eq!(headers["x-ratelimit-limit-requests"], "1000");
        assert_eq!(headers["x-ratelimit-remaining-requests"], "2");
        assert_eq!(headers["x-ratelimit-reset-requests"], "23h53m20s");
        assert_eq!(headers["x-ratelimit-remaining-tokens"], "80");
        assert_eq!(headers["ratelimit"], "\"requests-day\";r=2;t=86000");
        let unix = Duration::from_secs(1_709_164_799);
        write(&mut headers, &tier, &standings, Endpoint::AnthropicMessages, unix);
        assert_eq!(headers["anthropic-ratelimit-tokens-reset"], "2024-02-29T00:00:06Z");
    }

    #[test]
    fn a_long_wait_is_not_slept_through() {
        let tier = Tier::new().requests_per_day(10).ready("free").unwrap();
        let refused = |after| {
            let standings = [Standing::new(0, Duration::from_secs(9))];
            rejection(&tier, Some(0), after, &standings, Endpoint::OpenAiChat, Duration::ZERO)
        };
        let headers = |rejection: Rejection| format!("{rejection:?}");
        assert!(headers(refused(Some(Duration::from_secs(61)))).contains("x-should-retry"));
        assert!(!headers(refused(Some(Duration::from_secs(60)))).contains("x-should-retry"));
        assert!(refused(None).retry_after().is_none());
    }
}
