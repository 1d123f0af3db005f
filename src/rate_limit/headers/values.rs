//! What is told, all of it in one buffer: separate values cost an allocation each.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{number, tighter};
use crate::{
    rate_limit::{
        header_names::{Family, RATELIMIT, RATELIMIT_POLICY},
        ready::ReadyLimit,
    },
    store::Standing,
};

/// What is told: one buffer that all values are slices of, and what they are called.
pub(in crate::rate_limit) struct Values {
    buffer: Vec<u8>,
    ends: [(&'static HeaderName, usize); MOST],
    len: usize,
    /// That of the tier, which is the same for every answer.
    policy: Option<HeaderValue>,
}

/// The most values that there are: 6 of OpenAI's family, 12 of Anthropic's, 4 of GitHub's, and the draft's.
const MOST: usize = 23;

impl Default for Values {
    fn default() -> Self {
        let (buffer, ends) = (Vec::with_capacity(256), [(&RATELIMIT, 0); MOST]);
        Self { buffer, ends, len: 0, policy: None }
    }
}

impl Values {
    pub(super) fn push(&mut self, name: &'static HeaderName, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(end) = self.ends.get_mut(self.len) {
            write(&mut self.buffer);
            *end = (name, self.buffer.len());
            self.len += 1;
        }
    }

    /// The tightest of each kind of limit.
    pub(super) fn family<'a>(
        &mut self,
        families: &'static [Family],
        limits: impl Iterator<Item = (&'a ReadyLimit, &'a Standing)> + Clone,
        write_reset: impl Fn(&mut Vec<u8>, Duration),
    ) {
        for (units, [quota, remaining, reset]) in families {
            let of_units = limits.clone().filter(|(limit, _)| units.contains(&limit.unit));
            let Some((limit, standing)) = of_units.min_by(tighter) else { continue };
            self.push(quota, |out| number(out, limit.quota));
            self.push(remaining, |out| number(out, standing.remaining));
            self.push(reset, |out| write_reset(out, standing.reset));
        }
    }

    /// Adds what is written already.
    pub(super) fn close(&mut self, policy: HeaderValue) {
        self.policy = Some(policy);
    }

    /// Each header, in the order in which they were added. Once.
    pub(in crate::rate_limit) fn tell(
        &mut self,
        mut tell: impl FnMut(&'static HeaderName, HeaderValue),
    ) {
        let all = Bytes::from(std::mem::take(&mut self.buffer));
        let mut begin = 0;
        for (name, end) in self.ends.iter().copied().take(self.len) {
            // Numbers, times and the names of limits are values.
            let value = HeaderValue::from_maybe_shared(all.slice(begin..end));
            tell(name, value.unwrap_or(NO_VALUE));
            begin = end;
        }
        if let Some(policy) = self.policy.take() {
            tell(&RATELIMIT_POLICY, policy);
        }
    }

    fn len(&self) -> usize {
        self.len + usize::from(self.policy.is_some())
    }

    fn names(&self) -> impl Iterator<Item = &'static HeaderName> {
        let policy = self.policy.iter().map(|_| &RATELIMIT_POLICY);
        self.ends.iter().take(self.len).map(|(name, _)| *name).chain(policy)
    }
}

/// The headers of a tier's answers, without their values: to copy them is quicker than to hash their names each time.
#[derive(Debug)]
pub(in crate::rate_limit) struct Template {
    /// In the order of the headers.
    names: Vec<&'static HeaderName>,
    headers: HeaderMap,
}

impl Template {
    pub(super) fn of(values: &Values) -> Self {
        let headers: HeaderMap = values.names().map(|name| (name.clone(), NO_VALUE)).collect();
        let names = values.names().zip(headers.keys());
        Self {
            names: names.map_while(|(name, at)| (name == at).then_some(name)).collect(),
            headers,
        }
    }

    /// Writes the values beside what else is in `headers`, in place of what was there by their names.
    pub(super) fn write(&self, values: &mut Values, headers: &mut HeaderMap) {
        let is_told = |(told, name): (&&HeaderName, &HeaderName)| std::ptr::eq(*told, name);
        let is_whole = self.names.len() == self.headers.len();
        if !is_whole
            || values.len() != self.names.len()
            || !self.names.iter().zip(values.names()).all(is_told)
        {
            // Of some limits nothing is told this time.
            values.tell(|name, value| {
                headers.insert(name, value);
            });
            return;
        }
        let others = std::mem::replace(headers, self.headers.clone());
        let mut places = headers.values_mut();
        values.tell(|_, value| {
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
            if let Some(name) = last.as_ref().filter(|name| !self.headers.contains_key(*name)) {
                headers.append(name, value);
            }
        }
    }
}

const NO_VALUE: HeaderValue = HeaderValue::from_static("");
