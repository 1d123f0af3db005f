//! Where a caller stands, in the headers that its clients read.

mod plan;

use std::{io::Write as _, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) use self::plan::Plan;
use super::{calendar::civil_date, ready_tier::ReadyTier};
use crate::{clock::Clock, route::Endpoint, store::Standing};

/// Headers that tell callers where they stand. Each tells the tightest limit, of those that are the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeaderFamily {
    /// What the endpoint's clients read: [`Anthropic`](Self::Anthropic) for messages, [`OpenAi`](Self::OpenAi) for
    /// everything else.
    Endpoint,
    /// `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, with resets such as `6m0s`.
    OpenAi,
    /// `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}`, with resets as times of
    /// RFC 3339.
    Anthropic,
    /// `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers.
    IetfDraft,
    /// `x-ratelimit-{limit,remaining,reset,resource}`, as GitHub and many gateways send them: of the tightest limit on
    /// requests, or, where there is none, of the tightest; `reset` in seconds since 1970, `resource` its name.
    GitHub,
}

/// A set of families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Families(u8);

impl Default for Families {
    fn default() -> Self {
        Self::of([HeaderFamily::Endpoint, HeaderFamily::IetfDraft])
    }
}

impl Families {
    pub(super) fn of(families: impl IntoIterator<Item = HeaderFamily>) -> Self {
        Self(families.into_iter().fold(0, |all, family| all | 1 << family as u8))
    }

    fn has(self, family: HeaderFamily) -> bool {
        self.0 & (1 << family as u8) != 0
    }

    /// Whether clients of the endpoint are told in these headers.
    fn is_told(self, family: HeaderFamily, endpoint: Endpoint) -> bool {
        let own = match endpoint {
            Endpoint::AnthropicMessages => HeaderFamily::Anthropic,
            _ => HeaderFamily::OpenAi,
        };
        self.has(family) || (family == own && self.has(HeaderFamily::Endpoint))
    }
}

/// Who is told, when, and in which families.
#[derive(Clone, Copy, Debug)]
pub(super) struct Telling {
    pub(super) endpoint: Endpoint,
    unix: Duration,
    families: Families,
}

impl Telling {
    pub(super) fn of(families: Families, endpoint: Endpoint, clock: &dyn Clock) -> Self {
        let dated = [HeaderFamily::Anthropic, HeaderFamily::GitHub];
        let is_dated = dated.into_iter().any(|family| families.is_told(family, endpoint));
        let unix = if is_dated { clock.unix() } else { Duration::ZERO };
        Self { endpoint, unix, families }
    }

    /// Writes every header there is to write.
    pub(super) fn write(self, headers: &mut HeaderMap, tier: &ReadyTier, standings: &[Standing]) {
        self.by_plan(tier, |plan| plan.write(headers, tier, standings, self.unix));
    }

    /// Tells each of them.
    pub(super) fn tell(
        self,
        tier: &ReadyTier,
        standings: &[Standing],
        tell: impl FnMut(&'static HeaderName, HeaderValue),
    ) {
        self.by_plan(tier, |plan| plan.tell(tier, standings, self.unix, tell));
    }

    fn by_plan(self, tier: &ReadyTier, tell: impl FnOnce(&Plan)) {
        let is_anthropic = self.endpoint == Endpoint::AnthropicMessages;
        let plan = if is_anthropic { &tier.plan_anthropic } else { &tier.plan };
        let of = || Plan::of(self.families, self.endpoint, tier);
        match plan.get_or_init(of) {
            plan if plan.is_of(self.families) => tell(plan),
            // The tier is of several layers, which tell in different families.
            _ => tell(&of()),
        }
    }
}

fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// As Go prints durations and OpenAI sends them: `20ms`, `1s`, `6m0s`, `1h0m0s`.
fn go_duration(out: &mut Vec<u8>, duration: Duration) {
    let millis = duration.subsec_nanos().div_ceil(1_000_000);
    if duration.as_secs() == 0 && millis < 1000 {
        number(out, millis.into());
        return out.extend_from_slice(b"ms");
    }
    let seconds = whole(duration);
    if seconds >= 3600 {
        number(out, seconds / 3600);
        out.push(b'h');
    }
    if seconds >= 60 {
        number(out, seconds / 60 % 60);
        out.push(b'm');
    }
    number(out, seconds % 60);
    out.push(b's');
}

/// A time since the Unix epoch as RFC 3339 has it, in UTC and whole seconds, rounded up.
fn rfc3339(out: &mut Vec<u8>, unix: Duration) {
    let seconds = whole(unix);
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    // A buffer that grows takes all that is written.
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
}

/// Seconds, rounded up.
fn whole(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

/// Told while the store is out of reach and each process keeps its share of the limits.
pub(super) const MODE: HeaderName = HeaderName::from_static("x-ratelimit-mode");
pub(super) const DEGRADED: HeaderValue = HeaderValue::from_static("degraded");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::ManualClock,
        rate_limit::{Tier, ready::UNCOUNTED},
    };

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
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
        let write = |headers: &mut HeaderMap, endpoint, unix| {
            let clock = ManualClock::at(unix);
            Telling::of(Families::default(), endpoint, &clock).write(headers, &tier, &standings);
        };
        write(&mut headers, Endpoint::OpenAiChat, Duration::ZERO);
        assert_eq!(headers["x-ratelimit-limit-requests"], "1000");
        assert_eq!(headers["x-ratelimit-remaining-requests"], "2");
        assert_eq!(headers["x-ratelimit-reset-requests"], "23h53m20s");
        assert_eq!(headers["x-ratelimit-remaining-tokens"], "80");
        assert_eq!(headers["ratelimit"], "\"requests-day\";r=2;t=86000");
        let unix = Duration::from_secs(1_709_164_799);
        write(&mut headers, Endpoint::AnthropicMessages, unix);
        assert_eq!(headers["anthropic-ratelimit-tokens-reset"], "2024-02-29T00:00:06Z");
    }

    #[test]
    fn each_family_is_told_that_was_chosen_and_no_other() {
        let tier = Tier::new().requests_per_minute(60).tokens_per_minute(90).ready("free").unwrap();
        let standings = [
            Standing::new(30, Duration::from_secs(30)),
            Standing::new(1, Duration::from_millis(59_001)),
        ];
        let told = |families: &[HeaderFamily], endpoint| {
            let mut headers = HeaderMap::new();
            let families = Families::of(families.iter().copied());
            let clock = ManualClock::at(Duration::from_secs(1_709_164_799));
            Telling::of(families, endpoint, &clock).write(&mut headers, &tier, &standings);
            let told =
                headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
            let mut told: Vec<_> = told.collect();
            told.sort();
            told
        };
        assert!(told(&[], Endpoint::OpenAiChat).is_empty());
        let github = told(&[HeaderFamily::GitHub], Endpoint::AnthropicMessages);
        let expected = [
            "x-ratelimit-limit: 60",
            "x-ratelimit-remaining: 30",
            "x-ratelimit-reset: 1709164829",
            "x-ratelimit-resource: requests-minute",
        ];
        assert_eq!(github, expected);
        let ietf = told(&[HeaderFamily::IetfDraft], Endpoint::OpenAiChat);
        assert_eq!(ietf.len(), 2);
        assert_eq!(ietf[1], "ratelimit: \"tokens-minute\";r=1;t=60");
        for (family, endpoint, same) in [
            (HeaderFamily::OpenAi, Endpoint::AnthropicMessages, Endpoint::OpenAiChat),
            (HeaderFamily::Anthropic, Endpoint::OpenAiChat, Endpoint::AnthropicMessages),
        ] {
            assert_eq!(told(&[family], endpoint), told(&[HeaderFamily::Endpoint], same));
            // Said twice, it is told once.
            assert_eq!(told(&[family, HeaderFamily::Endpoint], same), told(&[family], same));
        }
        let all = [
            HeaderFamily::OpenAi,
            HeaderFamily::Anthropic,
            HeaderFamily::IetfDraft,
            HeaderFamily::GitHub,
        ];
        assert_eq!(told(&all, Endpoint::Other).len(), 6 + 6 + 2 + 4);
    }

    #[test]
    fn what_else_is_in_the_headers_stays_and_what_was_told_before_does_not() {
        let tier = Tier::new().requests_per_minute(60).tokens_per_minute(90).ready("free").unwrap();
        let telling =
            || Telling::of(Families::default(), Endpoint::OpenAiChat, &ManualClock::default());
        let told = [
            ("date", "today"),
            ("ratelimit", "of another layer"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
            ("x-ratelimit-reset-tokens", "never"),
        ];
        let half = Standing::new(30, Duration::from_secs(30));
        // In whatever order; the second time of one of the limits alone.
        for (standings, count) in [([half, half], 11), ([half, UNCOUNTED], 9), ([half, half], 11)] {
            let names = told.iter().map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            });
            let mut headers = HeaderMap::new();
            names.for_each(|(name, value)| {
                headers.append(name, value);
            });
            telling().write(&mut headers, &tier, &standings);
            assert_eq!(headers["date"], "today");
            assert_eq!(headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a", "b"]);
            assert_eq!(headers.get_all("ratelimit").iter().count(), 1);
            assert_eq!(headers["x-ratelimit-limit-requests"], "60");
            assert_eq!(headers["x-ratelimit-remaining-requests"], "30");
            assert_eq!(headers["x-ratelimit-reset-requests"], "30s");
            if count == 11 {
                assert_eq!(headers["x-ratelimit-limit-tokens"], "90");
                assert_eq!(headers["x-ratelimit-reset-tokens"], "30s");
            }
            assert_eq!(headers.len(), count, "{headers:?}");
        }
    }

    #[test]
    fn without_a_limit_on_requests_the_tightest_stands_in_githubs_family() {
        let tier = Tier::new().tokens_per_minute(90).tokens_per_day(1000).ready("free").unwrap();
        let standings =
            [Standing::new(80, Duration::ZERO), Standing::new(9, Duration::from_secs(5))];
        let mut headers = HeaderMap::new();
        let families = Families::of([HeaderFamily::GitHub]);
        Telling::of(families, Endpoint::Other, &ManualClock::default()).write(
            &mut headers,
            &tier,
            &standings,
        );
        assert_eq!(headers["x-ratelimit-resource"], "tokens-day");
        assert_eq!(headers["x-ratelimit-reset"], "5");
    }
}
