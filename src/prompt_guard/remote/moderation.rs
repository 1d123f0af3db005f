//! An OpenAI-compatible moderation endpoint.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

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

/// A moderation endpoint, as of the [OpenAI API](https://platform.openai.com/docs/api-reference/moderations):
/// `POST /v1/moderations`.
///
/// By default a category is found when the server flags it. With a threshold of its own, or one for all, it is
/// found when its score reaches that. A finding's rule is the name of the detector and of the category,
/// `moderation.hate/threatening`; its category is [`Category::Custom`]; it has no place, so it can be blocked
/// but not masked.
///
/// ```
/// use palisade::{
///     Secret,
///     prompt_guard::remote::{Moderation, RemoteServer},
/// };
///
/// let server = RemoteServer::at("https://api.openai.com").bearer(&Secret::new("sk-example".to_owned()));
/// let moderation = Moderation::builder(server)
///     .model("omni-moderation-latest")
///     .threshold("violence", 0.7)
///     .ignore("sexual")
///     .build()?;
/// # let _ = moderation;
/// # Ok::<(), palisade::BuildError>(())
/// ```
#[derive(Debug)]
pub struct Moderation(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    server: Connected,
    model: Option<String>,
    thresholds: BTreeMap<String, f32>,
    default_threshold: Option<f32>,
    ignored: Vec<String>,
    window: usize,
}

/// Builds a [`Moderation`].
#[derive(Debug)]
#[must_use]
pub struct ModerationBuilder {
    server: RemoteServer,
    model: Option<String>,
    thresholds: BTreeMap<String, f32>,
    default_threshold: Option<f32>,
    ignored: Vec<String>,
    window: usize,
}

impl Moderation {
    /// Begins one, with the defaults that each option states.
    pub fn builder(server: RemoteServer) -> ModerationBuilder {
        ModerationBuilder {
            server,
            model: None,
            thresholds: BTreeMap::new(),
            default_threshold: None,
            ignored: Vec::new(),
            window: 8 * 1024,
        }
    }
}

impl ModerationBuilder {
    /// Which model judges. Default: the server's choice.
    pub fn model(self, model: impl Into<String>) -> Self {
        Self { model: Some(model.into()), ..self }
    }

    /// From which score on this category is found, from 0 to 1, whether the server flags it or not. An answer without
    /// it is no answer.
    pub fn threshold(mut self, category: impl Into<String>, score: f32) -> Self {
        self.thresholds.insert(category.into(), score);
        self
    }

    /// The same for all categories without one of their own.
    pub fn threshold_of_all(self, score: f32) -> Self {
        Self { default_threshold: Some(score), ..self }
    }

    /// Never finds this category.
    pub fn ignore(mut self, category: impl Into<String>) -> Self {
        self.ignored.push(category.into());
        self
    }

    /// Texts longer than this are sent in parts that overlap by an eighth, in bytes. Default: 8 KiB.
    pub fn window(self, bytes: usize) -> Self {
        Self { window: bytes, ..self }
    }

    /// The detector. Nothing is asked yet.
    ///
    /// # Errors
    /// [`BuildError`] when the server can't be asked, a threshold is not from 0 to 1, or the window is zero.
    pub fn build(self) -> Result<Moderation, BuildError> {
        let thresholds = self.thresholds.values().chain(&self.default_threshold);
        thresholds.copied().try_for_each(check_threshold)?;
        if self.window == 0 {
            return Err(BuildError::invalid("Moderation", "its window is zero"));
        }
        Ok(Moderation(Arc::new(Inner {
            server: self.server.connect("/v1/moderations", "moderation")?,
            model: self.model,
            thresholds: self.thresholds,
            default_threshold: self.default_threshold,
            ignored: self.ignored,
            window: self.window,
        })))
    }
}

impl AsyncDetector for Moderation {
    fn name(&self) -> &'static str {
        self.0.server.name
    }

    fn scan(&self, prompt: &Arc<Prompt>) -> ReadyOr<Result<Vec<Finding>, BoxError>> {
        let inner = Arc::clone(&self.0);
        let look = |texts: Vec<Text>| async move { inner.moderate(&texts).await };
        self.0.server.look(prompt, Join::Message, look)
    }
}

impl Inner {
    async fn moderate(&self, texts: &[Text]) -> Result<Vec<Finding>, ScanError> {
        let windows: Vec<(&Text, Range<usize>)> = texts
            .iter()
            .flat_map(|text| {
                text.windows(self.window).into_iter().map(move |window| (text, window))
            })
            .collect();
        let batches = windows.chunks(BATCH).map(|batch| {
            let input: Vec<&str> = batch
                .iter()
                .map(|(text, window)| text.text.get(window.clone()).unwrap_or_default())
                .collect();
            let mut body = json!({"input": input});
            if let (Some(model), Some(body)) = (&self.model, body.as_object_mut()) {
                body.insert("model".into(), model.as_str().into());
            }
            let (answer, inputs) = (self.server.ask(&body), input.len());
            async move { self.read(&answer.await?, inputs) }
        });
        let told = all(AT_ONCE, batches.collect()).await?.into_iter().flatten();
        // The highest score of a category in each segment that a window begins in.
        let mut best: BTreeMap<(usize, String), f32> = BTreeMap::new();
        for ((text, window), found) in windows.into_iter().zip(told) {
            let segment = text.segment_at(window.start);
            for (category, score) in found {
                let best = best.entry((segment, category)).or_insert(score);
                *best = best.max(score);
            }
        }
        let finding = |((segment, category), score)| {
            let rule = format!("{}.{category}", self.server.name);
            Finding::new(rule, Category::Custom, score, segment, None)
        };
        Ok(best.into_iter().map(finding).collect())
    }

    /// `{"results": [{"flagged": …, "categories": {…}, "category_scores": {…}}, …]}`: one for each input.
    fn read(&self, answer: &Value, inputs: usize) -> Result<Vec<Vec<(String, f32)>>, ScanError> {
        let results = answer.get("results").and_then(Value::as_array);
        let results = results.filter(|results| results.len() == inputs).ok_or(UNEXPECTED)?;
        results.iter().map(|result| self.read_one(result).ok_or(UNEXPECTED)).collect()
    }

    /// What is found, and its score on the guard's scale.
    fn read_one(&self, result: &Value) -> Option<Vec<(String, f32)>> {
        let scores = result.get("category_scores")?.as_object()?;
        let flags = result.get("categories").and_then(Value::as_object);
        let is_there = |category: &String| scores.get(category).is_some_and(Value::is_number);
        if scores.is_empty() || scores.len() > CATEGORIES || !self.thresholds.keys().all(is_there) {
            return None;
        }
        let mut found = Vec::new();
        for (category, score) in scores {
            // Some categories are null for models that do not know them.
            if score.is_null() || self.ignored.contains(category) {
                continue;
            }
            let score = score.as_f64().filter(|score| (0.0..=1.0).contains(score))?;
            #[allow(clippy::cast_possible_truncation)]
            let score = score as f32;
            if category.len() > 64 || !category.bytes().all(|byte| byte.is_ascii_graphic()) {
                return None;
            }
            let score = match self.thresholds.get(category).copied().or(self.default_threshold) {
                Some(threshold) => (score >= threshold).then(|| on_scale(score, threshold)),
                None => flags?.get(category)?.as_bool()?.then(|| score.max(super::THRESHOLD)),
            };
            found.extend(score.map(|score| (category.clone(), score)));
        }
        Some(found)
    }
}

/// Inputs in one request.
const BATCH: usize = 32;
/// Requests of one prompt at a time.
const AT_ONCE: usize = 4;
/// More categories than any server has.
const CATEGORIES: usize = 256;
