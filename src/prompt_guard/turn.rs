//! The steps of one request, between the waits.

use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, HeaderName, HeaderValue, header, request};

use super::{
    AnswerVerdict, Outcome, Unseen, Vault, Verdict,
    adapters::unreadable_body,
    count::Counted,
    head::no_prompt_as_form,
    joined::Joined,
    layer::Config,
    mask::Mask,
    policies::Policy,
    policy::{Decision, Gathered, Subject, decide, unavailable, unmaskable},
    read::{Unreadable, Whole},
    scan::{ON_EXECUTOR, run, scan_whole},
    service::{bad_length, content_length, too_large, unreadable_endpoint},
    vault::Filling,
    waiting::{Remote, Waiting},
};
use crate::{
    future::ReadyOr,
    inference::{Edit, Prompt, Segment, adapter::Adapted},
    observe,
    reject::{Rejection, RejectionKind},
    reservation::{Refined, TokenUsage, UsageMeter},
    route::Endpoint,
};

/// What is known of a request besides what it waits for.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(super) config: Arc<Config>,
    /// The one that stood when the request came: its answer is held to it, too.
    pub(super) policy: Arc<Policy>,
    /// `None` on an exempt route.
    pub(super) endpoint: Option<Endpoint>,
    /// Who reads its bodies, if not we.
    pub(super) adapted: Option<Adapted>,
    pub(super) verdict: Option<Verdict>,
    pub(super) answer_verdict: Option<AnswerVerdict>,
    pub(super) meter: Option<UsageMeter>,
    pub(super) vault: Option<Vault>,
}

/// A request that was read.
pub(crate) struct Held<S> {
    service: S,
    parts: request::Parts,
    whole: Whole,
}

/// A prompt at which the detectors that don't wait have looked.
pub(crate) struct Scanned {
    prompt: Prompt,
    gathered: Gathered,
    /// What its answer is held to.
    policy: Arc<Policy>,
}

/// What a request does next.
pub(crate) enum Next<S> {
    Refuse(Rejection),
    Count(ReadyOr<Counted>, Held<S>),
    Refine(Refined, Held<S>, Prompt),
    Scan(ReadyOr<Option<Scanned>>, Held<S>),
    Wait(Waiting, Held<S>),
    Call(S, request::Parts, Whole),
}

impl Turn {
    pub(crate) fn new(
        config: Arc<Config>,
        policy: Arc<Policy>,
        endpoint: Option<Endpoint>,
    ) -> Self {
        Self {
            config,
            policy,
            endpoint,
            adapted: None,
            verdict: None,
            answer_verdict: None,
            meter: None,
            vault: None,
        }
    }

    pub(crate) fn remotes(&self) -> &[Remote] {
        &self.policy.remote
    }

    /// The values that are put back into the answer.
    pub(super) fn restoring(&self) -> Option<&Vault> {
        self.vault.as_ref().filter(|_| self.policy.restore)
    }

    /// The request goes on to the inner service with these extensions.
    pub(crate) fn leaves(&mut self, extensions: &Extensions) {
        self.verdict = extensions.get::<Verdict>().cloned();
        if self.reads_answer() {
            self.meter = UsageMeter::of(extensions).cloned();
        }
        observe::admitted(LAYER);
    }

    /// The body was read, or could not be.
    pub(crate) fn take_in<S>(
        &mut self,
        service: S,
        mut parts: request::Parts,
        read: Result<Whole, Unreadable>,
    ) -> Next<S> {
        if let Err(rejection) = self.check_strikes(&parts) {
            return Next::Refuse(rejection);
        }
        let whole = match read {
            Ok(whole) => whole,
            Err(unreadable) => return Next::Refuse(self.body_missing(&unreadable)),
        };
        if content_length(&parts.headers).ok().flatten().is_some_and(|n| n != whole.len()) {
            return Next::Refuse(bad_length());
        }
        if self.adapted.is_none()
            && let Err(rejection) = no_prompt_as_form(&parts.headers, &whole.data)
        {
            return Next::Refuse(rejection);
        }
        if whole.data.is_empty() {
            return self.call(Held { service, parts, whole });
        }
        let prompt = match self.read_prompt(&whole.data) {
            Ok(prompt) => prompt,
            Err(rejection) => match self.policy.excuse(rejection) {
                Ok(verdict) => {
                    parts.extensions.insert(verdict);
                    return self.call(Held { service, parts, whole });
                }
                Err(rejection) => return Next::Refuse(rejection),
            },
        };
        let metered = UsageMeter::of(&parts.extensions).is_some();
        let held = Held { service, parts, whole };
        if metered {
            Next::Count(self.config.estimators.count(prompt, &self.policy), held)
        } else {
            self.scan(held, prompt)
        }
    }

    /// The tokens of the prompt are known.
    pub(crate) fn counted<S>(&mut self, held: Held<S>, counted: Counted) -> Next<S> {
        let Some((prompt, input)) = counted else { return Next::Refuse(unavailable()) };
        let usage = TokenUsage::new(input, self.output_tokens(&prompt));
        let meter = UsageMeter::of(&held.parts.extensions);
        match meter.map(|meter| meter.refine_for(prompt.model(), usage)) {
            Some(refined) => Next::Refine(refined, held, prompt),
            None => self.scan(held, prompt),
        }
    }

    /// The limiter has reserved what the prompt needs, or refuses.
    pub(crate) fn refined<S>(
        &mut self,
        held: Held<S>,
        prompt: Prompt,
        refined: Result<(), Rejection>,
    ) -> Next<S> {
        match refined {
            Ok(()) => self.scan(held, prompt),
            Err(rejection) => Next::Refuse(rejection),
        }
    }

    fn scan<S>(&mut self, held: Held<S>, prompt: Prompt) -> Next<S> {
        if self.policy.takes_as_it_is() && self.policy.output.is_empty() {
            return self.call(held);
        }
        let policy = Arc::clone(&self.policy);
        // There each of a list is a prompt of its own.
        let lists = [Endpoint::OpenAiCompletions, Endpoint::OpenAiEmbeddings];
        let across_turns = !self.endpoint.is_some_and(|endpoint| lists.contains(&endpoint));
        let scan = run(prompt.raw().len(), ON_EXECUTOR, move |asker| {
            let mut gathered = Gathered::of(&policy);
            let scanner = policy.scanner();
            let mut joined = Joined::new(scanner, across_turns);
            for segment in prompt.segments() {
                scanner.segment(&segment, &mut gathered);
                joined.push(segment, &mut gathered);
                if !asker.waits() || (policy.enforced && gathered.blocks()) {
                    break;
                }
            }
            joined.finish(&mut gathered);
            if asker.waits() && !(policy.enforced && gathered.blocks()) {
                scan_whole(&policy.local, &prompt, &mut gathered);
            }
            let policy = Arc::clone(&policy).answering(&prompt, &mut gathered);
            Scanned { prompt, gathered, policy }
        });
        Next::Scan(scan, held)
    }

    /// The detectors that don't wait have looked at the prompt.
    pub(crate) fn scanned<S>(&mut self, held: Held<S>, scanned: Option<Scanned>) -> Next<S> {
        let Some(scanned) = scanned else { return Next::Refuse(unavailable()) };
        let Scanned { prompt, gathered, policy } = scanned;
        self.policy = policy;
        let policy = &self.policy;
        if policy.takes_as_it_is() && !gathered.must_refuse {
            return self.call(held);
        }
        if policy.remote.is_empty() || (policy.enforced && gathered.blocks()) {
            return self.conclude(held, &prompt, gathered);
        }
        Next::Wait(Waiting::on(&policy.remote, Arc::new(prompt), gathered), held)
    }

    /// Whether he has to wait by now: it may have taken long to send what he asks, or to look at it, and meanwhile he may
    /// have tried other things.
    fn check_strikes(&self, parts: &request::Parts) -> Result<(), Rejection> {
        let strikes = self.config.strikes.as_ref().filter(|_| self.policy.enforced);
        strikes.map_or(Ok(()), |strikes| strikes.check(&parts.headers, &parts.extensions))
    }

    /// Everything that could be found was found.
    pub(crate) fn conclude<S>(
        &mut self,
        mut held: Held<S>,
        prompt: &Prompt,
        gathered: Gathered,
    ) -> Next<S> {
        if let Err(rejection) = self.check_strikes(&held.parts) {
            return Next::Refuse(rejection);
        }
        let Decision { verdict, masks, rejection, blocking } =
            self.decide(gathered, Subject::Prompt);
        if let Some(rejection) = rejection.filter(|_| self.policy.enforced) {
            if let Some(strikes) = &self.config.strikes {
                let (headers, extensions) = (&held.parts.headers, &held.parts.extensions);
                strikes.note(blocking, &self.policy.name, headers, extensions);
            }
            self.verdict = Some(verdict);
            return Next::Refuse(rejection);
        }
        let mut masked = None;
        if verdict.action == Outcome::Sanitize && self.policy.enforced {
            let mut filling = Filling::new();
            let edits = self.edits(masks, prompt.segments(), Some(&mut filling));
            let edited = prompt.rewritten(&edits).map(|edited| (self.read_prompt(&edited), edited));
            let Some((Ok(read), edited)) = edited else {
                // Two names of members were masked alike, or an adapter can't write it.
                self.verdict = Some(verdict);
                return Next::Refuse(unmaskable());
            };
            (masked, held.whole.data) = (Some(read), edited);
            fix_head(&mut held.parts.headers, held.whole.data.len());
            self.vault = filling.finish();
            if let Some(vault) = self.vault.clone() {
                held.parts.extensions.insert(vault);
            }
        }
        held.parts.extensions.insert(verdict);
        if !self.policy.additions.is_empty() {
            let (policy, added) = self.policy.adding_to(masked.as_ref().unwrap_or(prompt));
            self.policy = policy;
            if let Some(data) = added {
                held.whole.data = data;
                fix_head(&mut held.parts.headers, held.whole.data.len());
            }
        }
        self.call(held)
    }

    fn call<S>(&mut self, held: Held<S>) -> Next<S> {
        let Held { service, parts, whole } = held;
        self.leaves(&parts.extensions);
        Next::Call(service, parts, whole)
    }

    fn read_prompt(&self, data: &Bytes) -> Result<Prompt, Rejection> {
        let endpoint = self.endpoint.unwrap_or(Endpoint::Other);
        let (data, limits) = (data.clone(), &self.config.limits);
        let prompt = match &self.adapted {
            Some(adapted) => Prompt::adapted(adapted, data, limits).map_err(unreadable_body)?,
            None => Prompt::read(endpoint, data, limits)?,
        };
        if !prompt.unread().is_empty() && self.policy.unread == Unseen::Refuse {
            return Err(unreadable_content());
        }
        self.policy.turns.check(&prompt)?;
        Ok(prompt)
    }

    fn output_tokens(&self, prompt: &Prompt) -> u64 {
        match self.endpoint {
            Some(Endpoint::OpenAiEmbeddings) => 0,
            _ => prompt.max_output_tokens().unwrap_or(self.config.default_output_tokens),
        }
    }

    fn body_missing(&self, unreadable: &Unreadable) -> Rejection {
        let (kind, code, message) = match unreadable {
            // There it was only read to see whether it is empty.
            Unreadable::TooLarge if self.endpoint == Some(Endpoint::Other) => {
                return unreadable_endpoint();
            }
            Unreadable::TooLarge => return too_large(self.policy.max_body),
            Unreadable::TimedOut => (
                RejectionKind::TimedOut,
                "request_timeout",
                "The body did not arrive in time. Try again over a better connection.",
            ),
            Unreadable::Failed => {
                (RejectionKind::BadRequest, "invalid_request", "The body broke off before its end.")
            }
        };
        Rejection::new(kind, code, message)
    }

    /// What is written in the place of what was found.
    pub(super) fn edits<'a>(
        &self,
        masks: Vec<Mask>,
        segments: impl Iterator<Item = Segment<'a>>,
        mut vault: Option<&mut Filling>,
    ) -> Vec<Edit> {
        let segments: Vec<_> =
            if masks.iter().any(Mask::needs_text) { segments.collect() } else { Vec::new() };
        let key = &self.config.hash_key;
        masks.into_iter().map(|mask| mask.edit(&segments, key, vault.as_deref_mut())).collect()
    }

    pub(super) fn decide(&self, gathered: Gathered, subject: Subject) -> Decision {
        let mut decision = decide(gathered, subject);
        decision.verdict = decision.verdict.by_rules(&self.policy.rules);
        self.policy.count(subject, decision.verdict.action);
        decision
    }
}

impl Whole {
    fn len(&self) -> u64 {
        self.data.len() as u64
    }
}

/// The body is another now: its length is, and what was computed over it holds no more.
pub(super) fn fix_head(headers: &mut http::HeaderMap, length: usize) {
    for name in OVER_THE_BODY {
        headers.remove(name);
    }
    if headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

fn unreadable_content() -> Rejection {
    Rejection::new(
        RejectionKind::Unreadable,
        "unreadable_content",
        "The prompt has a part that can't be inspected: an image, a sound, a file or token ids. Send text.",
    )
}

pub(super) const LAYER: &str = "prompt_guard";

const OVER_THE_BODY: [HeaderName; 5] = [
    header::ETAG,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];
