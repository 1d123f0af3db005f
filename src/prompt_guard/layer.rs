//! The layer and its builder.

use std::{sync::Arc, time::Duration};

use tower_layer::Layer;

use super::{
    AsyncDetector, AsyncLimits, Detector, PromptGuard, Strikes,
    count::Estimators,
    hold::Sizes,
    policy::Rule,
    scan::{Local, pinned},
    strikes::Counted,
    waiting::{Asked, How, Remote},
};
use crate::{
    BuildError,
    clock::{Clock, SystemClock},
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
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) routes: Routes,
    pub(crate) max_body: usize,
    pub(crate) read_timeout: Duration,
    pub(crate) limits: ReadLimits,
    pub(crate) unread: Unseen,
    pub(crate) unknown_endpoint: Unseen,
    pub(crate) grpc: Unseen,
    pub(crate) estimators: Estimators,
    pub(crate) default_output_tokens: u64,
    pub(crate) local: Vec<Local>,
    pub(crate) remote: Vec<Remote>,
    pub(crate) output: Vec<Local>,
    /// Whether a detector may be another at another time.
    pub(crate) changes: bool,
    pub(crate) max_answer: usize,
    pub(crate) stream_window: usize,
    /// `None`: as much as the output detectors ask for.
    pub(crate) hold_back: Option<usize>,
    pub(crate) max_delay: Duration,
    pub(crate) sizes: Sizes,
    pub(crate) enforced: bool,
    pub(crate) turns: Turns,
    pub(crate) strikes: Option<Arc<Counted>>,
    pub(crate) hash_key: Pepper,
    pub(crate) restore: bool,
}

impl Config {
    /// What one request keeps, whatever is replaced meanwhile.
    pub(crate) fn pinned(self: Arc<Self>) -> Arc<Self> {
        if !self.changes {
            return self;
        }
        let (local, output) = (pinned(&self.local), pinned(&self.output));
        let remote = self.remote.iter().map(Remote::pinned).collect();
        Arc::new(Self { local, output, remote, ..(*self).clone() })
    }
}

/// What conversations may be made of.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    pub(crate) most: usize,
    pub(crate) refused: Vec<Origin>,
}

impl PromptGuardLayer {
    /// A guard without detectors yet: it reads prompts, refuses those it can't, and refines the
    /// limiter's reservation.
    pub fn builder() -> PromptGuardLayerBuilder {
        PromptGuardLayerBuilder {
            config: Config {
                routes: Routes::guard_all(),
                max_body: 2 << 20,
                read_timeout: Duration::from_secs(30),
                limits: ReadLimits::default(),
                unread: Unseen::Refuse,
                unknown_endpoint: Unseen::Refuse,
                grpc: Unseen::Refuse,
                estimators: Estimators::default(),
                default_output_tokens: 1024,
                local: Vec::new(),
                remote: Vec::new(),
                output: Vec::new(),
                changes: false,
                max_answer: 1 << 20,
                stream_window: 1024,
                hold_back: None,
                max_delay: Duration::from_millis(200),
                sizes: Sizes::new(0, 0),
                enforced: true,
                turns: Turns { most: usize::MAX, refused: Vec::new() },
                strikes: None,
                hash_key: Pepper::random(),
                restore: true,
            },
            strikes: None,
            asked: Vec::new(),
            clock: Arc::new(SystemClock),
        }
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
    config: Config,
    strikes: Option<Strikes>,
    asked: Vec<Asked>,
    clock: Arc<dyn Clock>,
}

impl PromptGuardLayerBuilder {
    /// Which requests are guarded. By default all but CORS preflights. Give all layers the same.
    pub fn routes(mut self, routes: Routes) -> Self {
        self.config.routes = routes;
        self
    }

    /// The largest request body, in bytes: 2 MiB by default. Larger ones are refused with 413, unread
    /// when they state their length. It is all that a request makes the guard hold.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.config.max_body = bytes;
        self
    }

    /// How long a request body may take to arrive, from the first wait for it: 30 seconds by default.
    /// Then it is refused with 408.
    pub fn read_timeout(mut self, limit: Duration) -> Self {
        self.config.read_timeout = limit;
        self
    }

    /// How deep and how large the JSON of a request may be.
    pub fn limits(mut self, limits: ReadLimits) -> Self {
        self.config.limits = limits;
        self
    }

    /// How many messages, input items or prompts of a list a request may have. More are refused with 400, code
    /// `too_many_turns`. Default: any number, within [`limits`](Self::limits).
    pub fn max_turns(mut self, turns: usize) -> Self {
        self.config.turns.most = turns;
        self
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
    pub fn refuse_origin(mut self, origin: Origin) -> Self {
        self.config.turns.refused.push(origin);
        self
    }

    /// Makes those wait whose prompts are blocked again and again. Default: they may go on.
    pub fn strikes(mut self, strikes: Strikes) -> Self {
        self.strikes = Some(strikes);
        self
    }

    /// Runs a detector over every text of a prompt. One that panics could not tell: the request is
    /// refused with 503.
    pub fn detector(mut self, detector: impl Detector, rule: impl Into<Rule>) -> Self {
        self.config.local.push(Local { detector: Arc::new(detector), rule: rule.into() });
        self
    }

    /// Asks a detector that has to wait, under these limits, about every prompt that the others let
    /// pass; all of them at once, and the outcome is the same whichever answers first.
    /// `on_unavailable` says what happens when it fails, panics, takes longer, has too many prompts
    /// waiting, or has failed so often that it is left alone. Dropping the request drops the question.
    ///
    /// A time limit alone stands for [`AsyncLimits::within`] it.
    pub fn async_detector(
        mut self,
        detector: impl AsyncDetector,
        rule: impl Into<Rule>,
        limits: impl Into<AsyncLimits>,
        on_unavailable: OnUnavailable,
    ) -> Self {
        let how = How::Future(Arc::new(detector));
        let (rule, limits) = (rule.into(), limits.into());
        self.asked.push(Asked { how, rule, limits, on_unavailable });
        self
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
        mut self,
        detector: impl Detector,
        rule: impl Into<Rule>,
        limits: impl Into<AsyncLimits>,
        on_unavailable: OnUnavailable,
    ) -> Self {
        let how = How::Thread(Arc::new(detector));
        let (rule, limits) = (rule.into(), limits.into());
        self.asked.push(Asked { how, rule, limits, on_unavailable });
        self
    }

    /// The clock that circuit breakers count by. Default: the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Runs a detector over every text of an answer. Without one, answers pass frame by frame.
    ///
    /// With one, a JSON or plain text answer is held until it is whole, and the end of each text of an
    /// event stream for a while: see [`hold_back`](Self::hold_back).
    pub fn output_detector(mut self, detector: impl Detector, rule: impl Into<Rule>) -> Self {
        self.config.output.push(Local { detector: Arc::new(detector), rule: rule.into() });
        self
    }

    /// The largest answer, and the largest single event of a stream, that is held to be scanned, in
    /// bytes: 1 MiB by default. Larger ones are withheld. Without output detectors, nothing is held.
    pub fn max_answer(mut self, bytes: usize) -> Self {
        self.config.max_answer = bytes;
        self
    }

    /// How much of each text of a stream an output detector still sees after it has gone on, in bytes:
    /// 1 KiB by default, and never less than is held back.
    pub fn stream_window(mut self, bytes: usize) -> Self {
        self.config.stream_window = bytes;
        self
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
    pub fn hold_back(mut self, bytes: usize, max_delay: Duration) -> Self {
        self.config.hold_back = Some(bytes);
        self.config.max_delay = max_delay;
        self
    }

    /// What happens to a prompt of which a part can't be read as text: images, sounds, files, token
    /// ids. Refused with 415 by default.
    pub fn unread(mut self, unseen: Unseen) -> Self {
        self.config.unread = unseen;
        self
    }

    /// What happens to a request with a body, or that asks for another protocol (a WebSocket), on a
    /// route that is no known endpoint. Refused with 415 by default.
    pub fn unknown_endpoint(mut self, unseen: Unseen) -> Self {
        self.config.unknown_endpoint = unseen;
        self
    }

    /// What happens to gRPC calls, which the guard can't read. Refused by default. A caller can state
    /// gRPC's content type on any route: those that are known endpoints by their path are read as
    /// such whatever it says, the others pass.
    pub fn grpc(mut self, unseen: Unseen) -> Self {
        self.config.grpc = unseen;
        self
    }

    /// How the tokens of a prompt are counted, for the limiter: by [`ByteClasses`] by default. Behind a
    /// limiter, an estimator that panics could not tell: the request is refused with 503.
    ///
    /// [`ByteClasses`]: crate::inference::ByteClasses
    pub fn estimator(mut self, estimator: impl TokenEstimator) -> Self {
        self.config.estimators = Estimators::always(estimator);
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
        self.config.estimators = Estimators::by_model(choose);
        self
    }

    /// The tokens that are reserved for the answer to a prompt that states no maximum: 1024 by
    /// default.
    pub fn default_output_tokens(mut self, tokens: u64) -> Self {
        self.config.default_output_tokens = tokens;
        self
    }

    /// The key of [`Action::Hash`](super::Action::Hash): give processes that shall write the same hash of a value the
    /// same one. Random by default, so that hashes hold as long as the layer.
    pub fn hash_key(mut self, key: Pepper) -> Self {
        self.config.hash_key = key;
        self
    }

    /// Whether the values that [`Action::Pseudonymize`](super::Action::Pseudonymize) took out of a request are put back into
    /// its answer: by default they are. Otherwise handlers or outer layers do it with the [`Vault`](super::Vault).
    pub fn restore_answers(mut self, restore: bool) -> Self {
        self.config.restore = restore;
        self
    }

    /// Enforces nothing that depends on content: what would be refused or masked passes as it came, and
    /// is counted and noted in the [`Verdict`](super::Verdict). The cap, the time limit and the token
    /// quota still hold.
    pub fn report_only(mut self) -> Self {
        self.config.enforced = false;
        self
    }

    /// The layer.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for a cap or a limit of zero, strikes that make no sense, or a score that is not from 0 to 1.
    pub fn build(self) -> Result<PromptGuardLayer, BuildError> {
        let Self { mut config, strikes, asked, clock } = self;
        config.strikes = strikes.map(Strikes::ready).transpose()?.map(Arc::new);
        let lookbehind = config.output.iter().map(|local| local.detector.lookbehind()).max();
        let hold = config.hold_back.unwrap_or_else(|| lookbehind.unwrap_or_default().min(4096));
        config.sizes = Sizes::new(hold, config.stream_window);
        for (what, size) in [("max_body", config.max_body), ("max_answer", config.max_answer)] {
            if size == 0 {
                return Err(BuildError::invalid(what, "it is zero, so nothing could pass"));
            }
        }
        if config.read_timeout.is_zero() {
            return Err(BuildError::invalid("read_timeout", "its time limit is zero"));
        }
        for asked in asked {
            asked.limits.check()?;
            config.remote.push(Remote::new(asked, Arc::clone(&clock)));
        }
        let mut detectors = config.local.iter().chain(&config.output);
        config.changes = detectors.any(|local| local.detector.pinned().is_some())
            || config.remote.iter().any(Remote::changes);
        let rules = config.local.iter().chain(&config.output).map(|local| &local.rule);
        if rules.chain(config.remote.iter().map(|remote| &remote.rule)).any(|rule| !rule.is_valid())
        {
            return Err(BuildError::invalid("score", "it is not from 0 to 1"));
        }
        Ok(PromptGuardLayer { config: Arc::new(config) })
    }
}

/// What happens to what the guard can't see into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// detector, and `palisade_guard_unavailable_total{detector, reason, outcome}` counts it.
    ///
    /// [`Verdict::let_through`]: super::Verdict::let_through
    InsecurePass,
}
