//! Sequence classification by text-embeddings-inference.

use std::{ops::Range, sync::Arc};

use serde_json::{Value, json};

use super::{
    at_once::all,
    check_threshold, on_scale,
    server::{Connected, RemoteServer, UNEXPECTED},
    texts::{Join, Text},
};
use crate::{
    BoxError, BuildError,
    future::ReadyOr,
    inference::Prompt,
    prompt_guard::{AsyncDetector, Category, Finding, ScanError},
};

/// A model that tells attacks from other texts, such as Prompt Guard 2 or PIGuard, behind the route `/predict` of
/// [text-embeddings-inference](https://huggingface.github.io/text-embeddings-inference/).
///
/// These models read 512 tokens. What is longer is cut into windows that overlap by an eighth, and the highest score
/// counts. When the server says that a window has too many tokens, the prompt is cut into windows of 480 bytes, which
/// can't: nothing is truncated unseen.
///
/// **The more windows, the more false alarms**: each is another chance for one. Measure what lengths you expect,
/// and set a threshold for each with [`threshold_from`](TextClassifierBuilder::threshold_from).
///
/// A finding's rule is the name of the detector and of the label, `classifier.malicious`; it has no place, so it can
/// be blocked but not masked.
///
/// ```
/// use palisade::prompt_guard::remote::{RemoteServer, TextClassifier};
///
/// // text-embeddings-router --model-id meta-llama/Llama-Prompt-Guard-2-86M --port 8080
/// let server = RemoteServer::at("http://127.0.0.1:8080").named("prompt_guard_2");
/// let classifier = TextClassifier::builder(server)
///     .threshold(0.5)
///     .threshold_from(4, 0.9)
///     .threshold_from(32, 0.98)
///     .build()?;
/// # let _ = classifier;
/// # Ok::<(), palisade::BuildError>(())
/// ```
#[derive(Debug)]
pub struct TextClassifier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    server: Connected,
    labels: Vec<(String, Option<Category>)>,
    /// From how many windows on, in ascending order.
    thresholds: Vec<(usize, f32)>,
    window: usize,
    batch: usize,
}

/// Builds a [`TextClassifier`].
#[derive(Debug)]
#[must_use]
pub struct TextClassifierBuilder {
    server: RemoteServer,
    labels: Option<Vec<(String, Option<Category>)>>,
    thresholds: Vec<(usize, f32)>,
    window: usize,
    batch: usize,
}

impl TextClassifier {
    /// Begins one, with the defaults that each option states.
    pub fn builder(server: RemoteServer) -> TextClassifierBuilder {
        TextClassifierBuilder {
            server,
            labels: None,
            thresholds: vec![(0, 0.5)],
            window: 1536,
            batch: 32,
        }
    }
}

impl TextClassifierBuilder {
    /// What this label of the model means: an attack of this category, or, with `None`, that all is well. Case is
    /// of no matter. An answer with a label that is not known is no answer.
    ///
    /// Default: `malicious`, `injection`, `jailbreak` and `LABEL_1` are [`Category::Injection`]; `benign`, `safe` and
    /// `LABEL_0` are well. The first call replaces these.
    pub fn label(mut self, label: impl Into<String>, meaning: Option<Category>) -> Self {
        self.labels.get_or_insert_default().push((label.into(), meaning));
        self
    }

    /// From which score on a label is found, from 0 to 1. Default: 0.5.
    pub fn threshold(self, score: f32) -> Self {
        self.threshold_from(0, score)
    }

    /// The same for prompts of at least so many windows.
    pub fn threshold_from(mut self, windows: usize, score: f32) -> Self {
        self.thresholds.retain(|(from, _)| *from != windows);
        self.thresholds.push((windows, score));
        self
    }

    /// The size of a window, in bytes. Default: 1536, which is about 400 tokens of English.
    pub fn window(self, bytes: usize) -> Self {
        Self { window: bytes, ..self }
    }

    /// How many windows are sent in one request: at most the server's `--max-client-batch-size`. Default: 32, as there.
    pub fn batch(self, windows: usize) -> Self {
        Self { batch: windows, ..self }
    }

    /// The detector. Nothing is asked yet.
    ///
    /// # Errors
    /// [`BuildError`] when the server can't be asked, a threshold is not from 0 to 1, a size is zero, or no label is
    /// an attack.
    pub fn build(self) -> Result<TextClassifier, BuildError> {
        let mut thresholds = self.thresholds;
        thresholds.sort_unstable_by_key(|(from, _)| *from);
        thresholds.iter().try_for_each(|(_, threshold)| check_threshold(*threshold))?;
        if self.window == 0 || self.batch == 0 {
            return Err(BuildError::invalid("TextClassifier", "its window or batch is zero"));
        }
        let labels = self.labels.unwrap_or_else(|| {
            let known = KNOWN.into_iter();
            known.map(|(label, meaning)| (label.to_owned(), meaning)).collect()
        });
        if labels.iter().all(|(_, meaning)| meaning.is_none()) {
            return Err(BuildError::Empty("TextClassifier::label"));
        }
        let server = self.server.connect("/predict", "classifier")?;
        let (window, batch) = (self.window, self.batch);
        Ok(TextClassifier(Arc::new(Inner { server, labels, thresholds, window, batch })))
    }
}

impl AsyncDetector for TextClassifier {
    fn name(&self) -> &'static str {
        self.0.server.name
    }

    fn scan(&self, prompt: &Arc<Prompt>) -> ReadyOr<Result<Vec<Finding>, BoxError>> {
        let inner = Arc::clone(&self.0);
        let look = |texts: Vec<Text>| async move { inner.classify(&texts).await };
        self.0.server.look(prompt, Join::Message, look)
    }
}

/// The label of a window that says most for an attack.
type Told = Option<(f32, usize)>;

impl Inner {
    async fn classify(&self, texts: &[Text]) -> Result<Vec<Finding>, ScanError> {
        let told = match self.predict(texts, self.window).await {
            // Too many tokens in one.
            Err(error) if error.status() == Some(413) && self.window > SURE_WINDOW => {
                self.predict(texts, SURE_WINDOW).await?
            }
            told => told?,
        };
        let threshold = self.threshold(told.len());
        let mut findings = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let mut best: Option<(f32, usize, usize)> = None;
            for (_, window, told) in told.iter().filter(|(of, ..)| *of == index) {
                let Some((score, label)) = told else { continue };
                if *score >= threshold && best.is_none_or(|(best, ..)| best < *score) {
                    best = Some((*score, *label, window.start));
                }
            }
            let Some((score, label, at)) = best else { continue };
            let Some((label, Some(category))) = self.labels.get(label) else { continue };
            let rule = format!("{}.{}", self.server.name, label.to_ascii_lowercase());
            let score = on_scale(score, threshold);
            findings.push(Finding::new(rule, *category, score, text.segment_at(at), None));
        }
        Ok(findings)
    }

    /// Which text each window is of, where it is, and what the model says of it.
    async fn predict(
        &self,
        texts: &[Text],
        size: usize,
    ) -> Result<Vec<(usize, Range<usize>, Told)>, ScanError> {
        let windows: Vec<(usize, Range<usize>)> = texts
            .iter()
            .enumerate()
            .flat_map(|(of, text)| text.windows(size).into_iter().map(move |window| (of, window)))
            .collect();
        let batches = windows.chunks(self.batch).map(|batch| {
            let cut = |(of, window): &(usize, Range<usize>)| {
                let text = texts.get(*of).and_then(|text| text.text.get(window.clone()));
                [text.unwrap_or_default().to_owned()]
            };
            let inputs: Vec<[String; 1]> = batch.iter().map(cut).collect();
            let answer = self.server.ask(&json!({"inputs": inputs, "truncate": false}));
            async move { self.read(&answer.await?, inputs.len()) }
        });
        let told = all(AT_ONCE, batches.collect()).await?.into_iter().flatten();
        Ok(windows.into_iter().zip(told).map(|((of, window), told)| (of, window, told)).collect())
    }

    /// `[[{"score": 0.9, "label": "MALICIOUS"}, …], …]`: a list for each window.
    fn read(&self, answer: &Value, windows: usize) -> Result<Vec<Told>, ScanError> {
        let told = answer.as_array().filter(|told| told.len() == windows).ok_or(UNEXPECTED)?;
        told.iter().map(|told| self.read_one(told).ok_or(UNEXPECTED)).collect()
    }

    fn read_one(&self, told: &Value) -> Option<Told> {
        let told = told.as_array().filter(|told| !told.is_empty())?;
        let mut best: Told = None;
        for one in told {
            let label = one.get("label")?.as_str()?;
            let score = one.get("score")?.as_f64().filter(|score| (0.0..=1.0).contains(score))?;
            let known = |(known, _): &(String, _)| known.eq_ignore_ascii_case(label);
            let index = self.labels.iter().position(known)?;
            let is_attack = self.labels.get(index).is_some_and(|(_, meaning)| meaning.is_some());
            #[allow(clippy::cast_possible_truncation)]
            let score = score as f32;
            if is_attack && best.is_none_or(|(best, _)| best < score) {
                best = Some((score, index));
            }
        }
        Some(best)
    }

    fn threshold(&self, windows: usize) -> f32 {
        let reached = self.thresholds.iter().rev().find(|(from, _)| *from <= windows);
        reached.map_or(0.5, |(_, threshold)| *threshold)
    }
}

/// The labels of models that are known.
const KNOWN: [(&str, Option<Category>); 7] = [
    ("malicious", Some(Category::Injection)),
    ("injection", Some(Category::Injection)),
    ("jailbreak", Some(Category::Injection)),
    ("label_1", Some(Category::Injection)),
    ("benign", None),
    ("safe", None),
    ("label_0", None),
];

/// Bytes that are no more than 512 tokens: a token is at least a byte, and two frame the text.
const SURE_WINDOW: usize = 480;

/// Requests of one prompt at a time.
const AT_ONCE: usize = 4;
