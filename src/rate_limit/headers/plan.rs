//! What a tier's answers tell, chosen once: which headers, and which limits each of them tells of.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Families, HeaderFamily, go_duration, number, rfc3339, whole};
use crate::{
    rate_limit::{
        header_names::{ANTHROPIC, GITHUB, OPENAI, RATELIMIT, RATELIMIT_POLICY},
        ready::{ReadyLimit, UNCOUNTED},
        ready_tier::ReadyTier,
        unit::Unit,
    },
    route::Endpoint,
    store::Standing,
};

/// The headers of a tier's answers.
#[derive(Debug)]
pub(in crate::rate_limit) struct Plan {
    families: Families,
    /// Which limits are told of, the tightest of each of these.
    groups: Vec<Group>,
    headers: Vec<Header>,
    /// That of the tier, which is the same for every answer.
    policy: Option<HeaderValue>,
    /// All headers, in the order in which they are told, without values but the policy's: to copy them is quicker than to
    /// hash their names each time. None: a map has them in another order.
    template: Option<HeaderMap>,
}

#[derive(Debug)]
struct Group {
    limits: Limits,
    /// In their place, where none of them counts the request.
    or: Limits,
}

#[derive(Debug)]
struct Header {
    name: &'static HeaderName,
    /// Of which group's limit it tells.
    group: usize,
    fact: Fact,
}

/// Limits of a tier, as bits by their places.
type Limits = u8;

/// What a header tells of a limit.
#[derive(Clone, Copy, Debug)]
enum Fact {
    Name,
    Quota,
    Remaining,
    /// Until all of it is there again, as Go prints durations.
    Reset,
    /// The time when it is, by RFC 3339.
    ResetAt,
    /// The same in seconds since 1970.
    ResetAtUnix,
    /// As the draft's `RateLimit` has it.
    Item,
}

/// The values of what is told, side by side: separate ones cost an allocation each.
struct Texts {
    buffer: Vec<u8>,
    /// Where that of each header ends: where it begins, if there is nothing to tell.
    ends: [usize; MOST],
    /// Whether there is something for each.
    is_all: bool,
}

/// The most values that there are: 6 of OpenAI's family, 12 of Anthropic's, 4 of GitHub's, and one of the draft's.
const MOST: usize = 23;
/// The most groups: one of the draft's and one of GitHub's, and those of the two vendors.
const MOST_GROUPS: usize = 2 + OPENAI.len() + ANTHROPIC.len();

impl Plan {
    pub(super) fn of(families: Families, endpoint: Endpoint, tier: &ReadyTier) -> Self {
        let limits = |are: &dyn Fn(Unit) -> bool| {
            let limits = tier.limits.iter().enumerate();
            let limits = limits.filter(|(_, it)| it.scopes.is_the_callers() && are(it.unit));
            limits.fold(0, |limits, (index, _)| limits | 1 << index)
        };
        let all = limits(&|_| true);
        let is_told = |family| families.is_told(family, endpoint);
        let (mut groups, mut headers) = (Vec::new(), Vec::new());
        let mut add = |limits: Limits, or: Limits, told: &[(&'static HeaderName, Fact)]| {
            if limits | or != 0 {
                let group = groups.len();
                headers.extend(told.iter().map(|&(name, fact)| Header { name, group, fact }));
                groups.push(Group { limits, or });
            }
        };
        for (family, names, fact) in [
            (HeaderFamily::OpenAi, OPENAI.as_slice(), Fact::Reset),
            (HeaderFamily::Anthropic, &ANTHROPIC, Fact::ResetAt),
        ] {
            for (units, [quota, remaining, reset]) in names.iter().filter(|_| is_told(family)) {
                let told = [(quota, Fact::Quota), (remaining, Fact::Remaining), (reset, fact)];
                add(limits(&|unit| units.contains(&unit)), 0, &told);
            }
        }
        if is_told(HeaderFamily::GitHub) {
            let facts = [Fact::Quota, Fact::Remaining, Fact::ResetAtUnix, Fact::Name];
            let told: Vec<_> = GITHUB.iter().zip(facts).collect();
            add(limits(&|unit| unit == Unit::Requests), all, &told);
        }
        let is_draft_told = is_told(HeaderFamily::IetfDraft);
        if is_draft_told {
            add(all, 0, &[(&RATELIMIT, Fact::Item)]);
        }
        let policy = Some(&tier.policy).filter(|policy| is_draft_told && !policy.is_empty());
        let (policy, template) = (policy.cloned(), template(&headers, policy));
        Self { families, groups, headers, policy, template }
    }

    /// Whether it is for these families.
    pub(super) fn is_of(&self, families: Families) -> bool {
        self.families == families
    }

    /// Writes the headers beside what else is in `headers`, in place of what was there by their names.
    pub(super) fn write(
        &self,
        headers: &mut HeaderMap,
        tier: &ReadyTier,
        standings: &[Standing],
        unix: Duration,
    ) {
        let texts = self.texts(tier, standings, unix);
        let Some(template) = self.template.as_ref().filter(|_| texts.is_all) else {
            return self.tell_all(texts, |name, value| {
                headers.insert(name, value);
            });
        };
        let others = std::mem::replace(headers, template.clone());
        let mut places = headers.values_mut();
        self.tell_texts(texts, |_, value| {
            if let Some(place) = places.next() {
                *place = value;
            }
        });
        if others.is_empty() {
            return;
        }
        let mut last = None;
        for (name, value) in others {
            last = name.or(last);
            if let Some(name) = last.as_ref().filter(|name| !template.contains_key(*name)) {
                headers.append(name, value);
            }
        }
    }

    /// Tells each header.
    pub(super) fn tell(
        &self,
        tier: &ReadyTier,
        standings: &[Standing],
        unix: Duration,
        tell: impl FnMut(&'static HeaderName, HeaderValue),
    ) {
        self.tell_all(self.texts(tier, standings, unix), tell);
    }

    fn tell_all(&self, texts: Texts, mut tell: impl FnMut(&'static HeaderName, HeaderValue)) {
        self.tell_texts(texts, &mut tell);
        if let Some(policy) = &self.policy {
            tell(&RATELIMIT_POLICY, policy.clone());
        }
    }

    fn tell_texts(&self, texts: Texts, mut tell: impl FnMut(&'static HeaderName, HeaderValue)) {
        let (all, mut begin) = (Bytes::from(texts.buffer), 0);
        for (header, end) in self.headers.iter().zip(texts.ends) {
            if begin < end {
                // Numbers, times and the names of limits are values.
                let value = HeaderValue::from_maybe_shared(all.slice(begin..end));
                tell(header.name, value.unwrap_or(NO_VALUE));
                begin = end;
            }
        }
    }

    fn texts(&self, tier: &ReadyTier, standings: &[Standing], unix: Duration) -> Texts {
        let (mut buffer, mut ends, mut is_all) = (Vec::with_capacity(256), [0; MOST], true);
        let mut told = [None; MOST_GROUPS];
        for (group, told) in self.groups.iter().zip(&mut told) {
            let tightest = |limits| tightest(limits, tier, standings);
            *told = tightest(group.limits).or_else(|| tightest(group.or));
            is_all &= told.is_some();
        }
        for (header, end) in self.headers.iter().zip(&mut ends) {
            if let Some(Some((limit, standing))) = told.get(header.group) {
                header.fact.write(&mut buffer, limit, standing, unix);
            }
            *end = buffer.len();
        }
        Texts { buffer, ends, is_all }
    }
}

fn template(headers: &[Header], policy: Option<&HeaderValue>) -> Option<HeaderMap> {
    let told = headers.iter().map(|header| (header.name, NO_VALUE));
    let told = told.chain(policy.map(|policy| (&RATELIMIT_POLICY, policy.clone())));
    let template: HeaderMap = told.clone().map(|(name, value)| (name.clone(), value)).collect();
    let is_in_order = told.map(|(name, _)| name).eq(template.keys());
    is_in_order.then_some(template).filter(|template| !template.is_empty())
}

/// Of these limits, as far as they count the request, the one of which the smallest part is left.
fn tightest<'a>(
    limits: Limits,
    tier: &'a ReadyTier,
    standings: &'a [Standing],
) -> Option<(&'a ReadyLimit, &'a Standing)> {
    let counted = tier
        .limits
        .iter()
        .zip(standings)
        .enumerate()
        .filter(|(index, (_, standing))| limits & (1 << index) != 0 && **standing != UNCOUNTED);
    counted.map(|(_, it)| it).min_by(|(limit, standing), (other, of_other)| {
        let left = u128::from(standing.remaining) * u128::from(other.quota);
        left.cmp(&(u128::from(of_other.remaining) * u128::from(limit.quota)))
    })
}

impl Fact {
    fn write(self, out: &mut Vec<u8>, limit: &ReadyLimit, standing: &Standing, unix: Duration) {
        match self {
            Self::Name => out.extend_from_slice(limit.name.as_bytes()),
            Self::Quota => number(out, limit.quota),
            Self::Remaining => number(out, standing.remaining),
            Self::Reset => go_duration(out, standing.reset),
            Self::ResetAt => rfc3339(out, unix.saturating_add(standing.reset)),
            Self::ResetAtUnix => number(out, whole(unix.saturating_add(standing.reset))),
            Self::Item => {
                out.push(b'"');
                out.extend_from_slice(limit.name.as_bytes());
                out.extend_from_slice(b"\";r=");
                number(out, standing.remaining);
                if limit.unit != Unit::Slots {
                    out.extend_from_slice(b";t=");
                    number(out, whole(standing.reset));
                }
            }
        }
    }
}

const NO_VALUE: HeaderValue = HeaderValue::from_static("");
