//! The layer and its builder.

use std::{sync::Arc, time::Duration};

use tower_layer::Layer;

use super::{
    Action, AsyncDetector, AsyncLimits, Detector, FindingFilter, GuardPolicy, PlantedCanary,
    PromptGuard, RequestTarget, Rule, Spotlighting, Strikes, When,
    adapters::Adapters,
    count::Estimators,
    policies::{Chosen, Current, GuardPolicyBuilder},
    strikes::Counted,
};
use crate::{
    BuildError,
    clock::Clock,
    identity::Identity,
    inference::{Origin, ReadLimits, TokenEstimator},
    route::Routes,
    store::Pepper,
};

/// Reads prompts and answers, and blocks, masks or reports what its detectors find.
///
/// See the [module docs](crate::prompt_guard) for an example.
#[derive(Clone, Debug)]
#[must_use]
pub struct PromptGuardLayer {
    config: Arc<Config>,
}

/// What the builder was told.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) routes: Routes,
    pub(crate) read_timeout: Duration,
    pub(crate) limits: ReadLimits,
    pub(crate) estimators: Estimators,
    pub(crate) adapters: Adapters,
    pub(crate) default_output_tokens: u64,
    pub(crate) strikes: Option<Counted>,
    pub(crate) hash_key: Pepper,
    pub(crate) policies: Current,
}

impl PromptGuardLayer {
    /// A guard without detectors yet: it reads prompts, refuses those it can't, and refines the
    /// limiter's reservation.
    pub fn builder() -> PromptGuardLayerBuilder {
        PromptGuardLayerBuilder {
            routes: Routes::guard_all(),
            read_timeout: Duration::from_secs(30),
            limits: ReadLimits::default(),
            estimators: Estimators::default(),
            adapters: Adapters::default(),
            default_output_tokens: 1024,
            strikes: None,
            hash_key: Pepper::random(),
            policy: GuardPolicyBuilder::new(),
            chosen: Chosen::default(),
        }
    }
}

#[cfg(feature = "rule-packs")]
impl PromptGuardLayer {
    /// Reads the file of [`policy_file`](PromptGuardLayerBuilder::policy_file) again, now. It need not have changed. Blocks. Without a
    /// file it does nothing.
    ///
    /// # Errors
    /// Those of [`PolicyFile::from_file`](super::PolicyFile::from_file), and a name that a policy of the builder has. Then all
    /// stays as it was.
    pub fn reload_policies(&self) -> Result<(), BuildError> {
        self.config.policies.reload()
    }
}

impl<S> Layer<S> for PromptGuardLayer {
    type Service = PromptGuard<S>;

    fn layer(&self, inner: S) -> Self::Service {
        PromptGuard::new(inner, Arc::clone(&self.config))
    }
}

/// Builds a [`PromptGuardLayer`].
#[derive(Debug)]
#[must_use]
pub struct PromptGuardLayerBuilder {
    routes: Routes,
    read_timeout: Duration,
    limits: ReadLimits,
    estimators: Estimators,
    pub(super) adapters: Adapters,
    default_output_tokens: u64,
    strikes: Option<Strikes>,
    hash_key: Pepper,
    policy: GuardPolicyBuilder,
    chosen: Chosen,
}

impl PromptGuardLayerBuilder {
    /// Which requests are guarded. By default all but CORS preflights. Give all layers the same.
    pub fn routes(mut self, routes: Routes) -> Self {
        self.routes = routes;
        self
    }

    /// The largest request body, in bytes: 2 MiB by default. Larger ones are refused with 413, unread
    /// when they state their length. It is all that a request makes the guard hold.
    pub fn max_body(self, bytes: usize) -> Self {
        self.by_default(|policy| policy.max_body(bytes))
    }

    /// How long a request body may take to arrive, from the first wait for it: 30 seconds by default.
    /// Then it is refused with 408.
    pub fn read_timeout(mut self, limit: Duration) -> Self {
        self.read_timeout = limit;
        self
    }

    /// How deep and how large the JSON of a request may be.
    pub fn limits(mut self, limits: ReadLimits) -> Self {
        self.limits = limits;
        self
    }

    /// How many messages, input items or prompts of a list a request may have. More are refused with 400, code
    /// `too_many_turns`. Default: any number, within [`limits`](Self::limits).
    pub fn max_turns(self, turns: usize) -> Self {
        self.by_default(|policy| policy.max_turns(turns))
    }

    /// Refuses requests with text of this origin, with 400, code `origin_not_allowed`: where the application's own server
    /// writes system prompts and callers have no business to. May be called for several. Default: all may be sent.
    ///
    /// ```
    /// use palisade::{inference::Origin, prompt_guard::PromptGuardLayer};
    ///
    /// let guard = PromptGuardLayer::builder()
    ///     .refuse_origin(Origin::System)
    ///     .refuse_origin(Origin::Developer)
    ///     .max_turns(50)
    ///     .build()?;
    /// # Ok::<(), palisade::BuildError>(())
    /// ```
    pub fn refuse_origin(self, origin: Origin) -> Self {
        self.by_default(|policy| policy.refuse_origin(origin))
    }

    /// Makes those wait whose prompts are blocked again and again. Default: they may go on.
    pub fn strikes(mut self, strikes: Strikes) -> Self {
        self.strikes = Some(strikes);
        self
    }

    /// Runs a detector over every text of a prompt. One that panics could not tell: the request is
    /// refused with 503.
    pub fn detector(self, detector: impl Detector, rule: impl Into<Rule>) -> Self {
        self.by_default(|policy| policy.detector(detector, rule))
    }

    /// Asks a detector that has to wait, under these limits, about every prompt that the others let
    /// pass; all of them at once, and the outcome is the same whichever answers first.
    /// `on_unavailable` says what happens when it fails, panics, takes longer, has too many prompts
    /// waiting, or has failed so often that it is left alone. Dropping the request drops the question.
    ///
    /// A time limit alone stands for [`AsyncLimits::within`] it.
    pub fn async_detector(
        self,
        detector: impl AsyncDetector,
        rule: impl Into<Rule>,
        limits: impl Into<AsyncLimits>,
        on_unavailable: OnUnavailable,
    ) -> Self {
        self.by_default(|policy| policy.async_detector(detector, rule, limits, on_unavailable))
    }

    /// The same for a detector that computes for long, such as a model in process: each prompt is
    /// scanned on a thread of the runtime's blocking pool. A thread can't be stopped: what is given up
    /// goes on to the end of its segment, and counts towards the concurrency until then.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use palisade::prompt_guard::{
    ///     Action, AsyncLimits, InjectionRules, OnUnavailable, PromptGuardLayer,
    /// };
    ///
    /// let limits = AsyncLimits::within(Duration::from_millis(300)).concurrency(2).queue(16);
    /// let guard = PromptGuardLayer::builder()
    ///     .blocking_detector(InjectionRules::builtin()?, Action::Block, limits, OnUnavailable::Refuse)
    ///     .build()?;
    /// # let _ = guard;
    /// # Ok::<(), palisade::BuildError>(())
    /// ```
    pub fn blocking_detector(
        self,
        detector: impl Detector,
        rule: impl Into<Rule>,
        limits: impl Into<AsyncLimits>,
        on_unavailable: OnUnavailable,
    ) -> Self {
        self.by_default(|policy| policy.blocking_detector(detector, rule, limits, on_unavailable))
    }

    /// The clock that circuit breakers count by. Default: the machine's.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        self.by_default(|policy| policy.clock(clock))
    }

    /// Runs a detector over every text of an answer. Without one, answers pass frame by frame.
    ///
    /// With one, a JSON or plain text answer is held until it is whole, and the end of each text of an
    /// event stream for a while: see [`hold_back`](Self::hold_back).
    pub fn output_detector(self, detector: impl Detector, rule: impl Into<Rule>) -> Self {
        self.by_default(|policy| policy.output_detector(detector, rule))
    }

    /// Adds a canary to the system prompt of each request that has one, and looks for it in the answer: see
    /// [`PlantedCanary`]. Default: none is added. The last one that is given counts. What a [`body_adapter`](Self::body_adapter) reads
    /// goes on as it is.
    pub fn plant_canary(self, canary: PlantedCanary, rule: impl Into<Rule>) -> Self {
        self.by_default(|policy| policy.plant_canary(canary, rule))
    }

    /// Marks what tools and documents say on its way to the model, so that it can tell it from instructions: see
    /// [`Spotlighting`]. Default: it goes on as it is, as what a [`body_adapter`](Self::body_adapter) reads always does.
    pub fn spotlight(self, spotlighting: Spotlighting) -> Self {
        self.by_default(|policy| policy.spotlight(spotlighting))
    }

    /// The largest answer, and the largest single event of a stream, that is held to be scanned, in
    /// bytes: 1 MiB by default. Larger ones are withheld, and a stream is cut of which so much waits together, or in which
    /// more than 128 texts go on at a time. Without output detectors, nothing is held.
    pub fn max_answer(self, bytes: usize) -> Self {
        self.by_default(|policy| policy.max_answer(bytes))
    }

    /// How much of each text of a stream an output detector still sees after it has gone on, in bytes:
    /// 1 KiB by default, and never less than is held back.
    pub fn stream_window(self, bytes: usize) -> Self {
        self.by_default(|policy| policy.stream_window(bytes))
    }

    /// How much of the end of each text of an event stream is held back until it is known what stands
    /// in it, and for how long.
    ///
    /// In bytes: by default the longest [`lookbehind`](Detector::lookbehind) of the output detectors, at
    /// most 4 KiB. Up to twice and a half as much is held while what may be masked is still growing. In time: 200
    /// milliseconds by default. Text that is held for longer goes on without waiting for more, but for
    /// what may be the beginning of something: its last word, numbers before that, an open link. That
    /// too goes on if nothing more comes for ten times as long. What is longer than that, such as a sentence, may then be partly on the wire before it is found. A
    /// longer delay lets through less of it, and makes slow streams come in larger pieces.
    pub fn hold_back(self, bytes: usize, max_delay: Duration) -> Self {
        self.by_default(|policy| policy.hold_back(bytes, max_delay))
    }

    /// What happens to a prompt of which a part can't be read as text: images, sounds, files, token
    /// ids. Refused with 415 by default.
    pub fn unread(self, unseen: Unseen) -> Self {
        self.by_default(|policy| policy.unread(unseen))
    }

    /// What happens to a request with a body, or that asks for another protocol (a WebSocket), on a
    /// route that is no known endpoint. Refused with 415 by default.
    pub fn unknown_endpoint(self, unseen: Unseen) -> Self {
        self.by_default(|policy| policy.unknown_endpoint(unseen))
    }

    /// What happens to gRPC calls that no [adapter](Self::grpc_adapter) reads. Refused by default. A caller can state
    /// gRPC's content type on any route: those that are known endpoints by their path are read as
    /// such whatever it says, the others pass.
    pub fn grpc(self, unseen: Unseen) -> Self {
        self.by_default(|policy| policy.grpc(unseen))
    }

    /// How the tokens of a prompt are counted, for the limiter: by [`ByteClasses`] by default. Behind a
    /// limiter, an estimator that panics could not tell: the request is refused with 503.
    ///
    /// [`ByteClasses`]: crate::inference::ByteClasses
    pub fn estimator(mut self, estimator: impl TokenEstimator) -> Self {
        self.estimators = Estimators::always(estimator);
        self
    }

    /// The same by the model that the request asks for, which is whatever its sender wrote: give what you do
    /// not know the estimator that you would give to all.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use palisade::{
    ///     inference::{ByteClasses, TokenEstimator},
    ///     prompt_guard::PromptGuardLayer,
    /// };
    ///
    /// /// A model that reads bytes.
    /// #[derive(Debug)]
    /// struct Bytes;
    ///
    /// impl TokenEstimator for Bytes {
    ///     fn estimate(&self, text: &str) -> u64 {
    ///         text.len() as u64
    ///     }
    /// }
    ///
    /// // With the feature `bpe`, `Bpe::O200k` counts exactly for some.
    /// let (bytes, others) = (Arc::new(Bytes), Arc::new(ByteClasses));
    /// let guard = PromptGuardLayer::builder().estimator_by_model(move |model| match model {
    ///     Some("byt5") => bytes.clone(),
    ///     _ => others.clone(),
    /// });
    /// # guard.build()?;
    /// # Ok::<(), palisade::BuildError>(())
    /// ```
    pub fn estimator_by_model(
        mut self,
        choose: impl Fn(Option<&str>) -> Arc<dyn TokenEstimator> + Send + Sync + 'static,
    ) -> Self {
        self.estimators = Estimators::by_model(choose);
        self
    }

    /// The tokens that are reserved for the answer to a prompt that states no maximum: 1024 by
    /// default.
    pub fn default_output_tokens(mut self, tokens: u64) -> Self {
        self.default_output_tokens = tokens;
        self
    }

    /// The key of [`Action::Hash`](super::Action::Hash): give processes that shall write the same hash of a value the
    /// same one. Random by default, so that hashes hold as long as the layer.
    pub fn hash_key(mut self, key: Pepper) -> Self {
        self.hash_key = key;
        self
    }

    /// How many texts are remembered with what the [detectors](Self::detector) that don't wait found in them, so that the older
    /// turns of a conversation are not scanned again: 16384 by default, 32 bytes for each clean one; 0 for none.
    ///
    /// Remembered is a digest by a key that this process has alone, never a text; what blocks and what a detector could not
    /// tell of is not. Texts are the same by their words, their origin and their turn, so a detector must go by nothing else,
    /// and one that changes must say so ([`Detector::pinned`]): nothing that another found is then believed. The oldest go
    /// first. All callers share it: how long an answer takes may tell one who can time it in microseconds that a text was sent
    /// before.
    ///
    /// ```
    /// use palisade::prompt_guard::{Action, InjectionRules, PromptGuardLayer};
    ///
    /// let guard = PromptGuardLayer::builder()
    ///     .detector(InjectionRules::builtin()?, Action::Block)
    ///     .remember_texts(100_000)
    ///     .build()?;
    /// # let _ = guard;
    /// # Ok::<(), palisade::BuildError>(())
    /// ```
    pub fn remember_texts(self, texts: usize) -> Self {
        self.by_default(|policy| policy.remember_texts(texts))
    }

    /// Whether the values that [`Action::Pseudonymize`](super::Action::Pseudonymize) took out of a request are put back into
    /// its answer: by default they are. Otherwise handlers or outer layers do it with the [`Vault`](super::Vault).
    pub fn restore_answers(self, restore: bool) -> Self {
        self.by_default(|policy| policy.restore_answers(restore))
    }

    /// Enforces nothing that depends on content: what would be refused or masked passes as it came, and
    /// is counted and noted in the [`Verdict`](super::Verdict). The cap, the time limit and the token
    /// quota still hold.
    pub fn report_only(self) -> Self {
        self.by_default(|policy| policy.report_only())
    }

    /// Another action on some findings, whichever detector makes them. Goes before equal exceptions of the detectors' own
    /// [`Rule`]s, and otherwise is as [`Rule::except`].
    pub fn except(self, which: impl Into<FindingFilter>, action: Action) -> Self {
        self.by_default(|policy| policy.except(which, action))
    }

    /// Another score on some findings, from 0 to 1, from which on something is done about them, whichever detector makes them.
    /// Goes before equal ones of the detectors' own [`Rule`]s, and otherwise is as [`Rule::threshold`].
    pub fn threshold(self, which: impl Into<FindingFilter>, score: f32) -> Self {
        self.by_default(|policy| policy.threshold(which, score))
    }

    /// Tries out what is done about some findings, whichever detector makes them: nothing is done, and the verdict and a
    /// counter say what would have been, as with [`Rule::dry_run`].
    pub fn dry_run(self, which: impl Into<FindingFilter>) -> Self {
        self.by_default(|policy| policy.dry_run(which))
    }

    /// Holds the requests for which `when` holds to a policy of their own, whole: nothing of what this builder says of the
    /// others counts for them, but what is no part of a policy: routes, limits of JSON and of time, tokens, strikes.
    ///
    /// Of several policies the first that fits holds, with those of [`policy_by`](Self::policy_by) in the order in which they were
    /// given; the others' requests are held to what the builder says otherwise, the policy `default`. The answer is
    /// held to the policy of its request. `name` stands in [`Verdict::policy`](super::Verdict::policy) and as label `policy` in the
    /// guard's metrics: 1 to 64 ASCII letters, digits, dots, dashes, underscores or plus signs.
    ///
    /// ```
    /// use palisade::prompt_guard::{
    ///     Action, Category, GuardPolicy, InjectionRules, PromptGuardLayer, Secrets, When,
    /// };
    ///
    /// let lenient = GuardPolicy::builder()
    ///     .detector(InjectionRules::builtin()?, Action::Report)
    ///     .detector(Secrets::builtin()?, Action::Redact)
    ///     .build()?;
    /// let guard = PromptGuardLayer::builder()
    ///     .policy_for(When::tier("enterprise"), "lenient", lenient)
    ///     .detector(InjectionRules::builtin()?, Action::Block)
    ///     .build()?;
    /// # let _ = guard;
    /// # Ok::<(), palisade::BuildError>(())
    /// ```
    pub fn policy_for(mut self, when: When, name: impl AsRef<str>, policy: GuardPolicy) -> Self {
        self.chosen.when(when, name.as_ref(), policy);
        self
    }

    /// Adds a policy for [`policy_by`](Self::policy_by) to choose.
    pub fn policy(mut self, name: impl AsRef<str>, policy: GuardPolicy) -> Self {
        let _ = self.chosen.name(name.as_ref(), policy);
        self
    }

    /// Chooses the policy by a function of who asks and of what is asked, quick and without panics: by its name, `default` for
    /// that of all others, `None` to leave it to those which are given after this. A name that no policy has refuses
    /// the request with 500. What no layer outside has found out is missing from the identity: [`When`] tells that
    /// from what is not so, and a function can't.
    ///
    /// ```
    /// use palisade::prompt_guard::{Action, GuardPolicy, InjectionRules, PromptGuardLayer};
    ///
    /// let blocking = GuardPolicy::builder().detector(InjectionRules::builtin()?, Action::Block).build()?;
    /// let guard = PromptGuardLayer::builder()
    ///     .policy("free", blocking)
    ///     .policy_by(|identity, _| identity.tier().filter(|tier| *tier == "free"))
    ///     .build()?;
    /// # let _ = guard;
    /// # Ok::<(), palisade::BuildError>(())
    /// ```
    pub fn policy_by<F>(mut self, choose: F) -> Self
    where
        F: for<'a> Fn(&'a Identity, &'a RequestTarget<'_>) -> Option<&'a str>
            + Send
            + Sync
            + 'static,
    {
        self.chosen.by(choose);
        self
    }

    /// Adds the policies of a file, which is read again when it changes: see [`PolicyFile`](super::PolicyFile). They are asked after all that
    /// are given here, and its default, if it has one, takes the place of what this builder says. A request and its answer
    /// keep the policy that stood when the request came.
    #[cfg(feature = "rule-packs")]
    pub fn policy_file(mut self, file: super::PolicyFile) -> Self {
        self.chosen.file = Some(file);
        self
    }

    /// The layer.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for a cap or a limit of zero, strikes that make no sense, an adapter's path without a slash, a score
    /// that is not from 0 to 1, more than 100 policies, one whose name can't be used or is taken, or a condition that says nothing.
    pub fn build(self) -> Result<PromptGuardLayer, BuildError> {
        let strikes = self.strikes.map(Strikes::ready).transpose()?;
        if self.read_timeout.is_zero() {
            return Err(BuildError::invalid("read_timeout", "its time limit is zero"));
        }
        self.adapters.check()?;
        let config = Config {
            routes: self.routes,
            read_timeout: self.read_timeout,
            limits: self.limits,
            estimators: self.estimators,
            adapters: self.adapters,
            default_output_tokens: self.default_output_tokens,
            strikes,
            hash_key: self.hash_key,
            policies: Current::new(self.chosen, self.policy.policy()?)?,
        };
        Ok(PromptGuardLayer { config: Arc::new(config) })
    }

    fn by_default(mut self, change: impl FnOnce(GuardPolicyBuilder) -> GuardPolicyBuilder) -> Self {
        self.policy = change(self.policy);
        self
    }
}

/// What happens to what the guard can't see into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Unseen {
    /// It is refused: the default.
    #[default]
    Refuse,
    /// It passes. Whatever it holds reaches the model unseen.
    InsecurePass,
}

/// What happens when a detector that has to wait can't tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnUnavailable {
    /// The request is refused with 503: the default.
    #[default]
    Refuse,
    /// The request passes as if the detector had found nothing: whoever can make it fail, by whichever
    /// prompt, gets past it. [`Verdict::let_through`] names the
    /// detector, and `palisade_guard_unavailable_total{detector, reason, outcome, policy}` counts it.
    ///
    /// [`Verdict::let_through`]: super::Verdict::let_through
    InsecurePass,
}
