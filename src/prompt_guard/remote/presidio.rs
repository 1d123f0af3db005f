//! Presidio's analyzer.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use serde_json::{Map, Value};

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

/// The [analyzer of Presidio](https://microsoft.github.io/presidio/api-docs/api-docs.html), `POST /analyze`: personal data,
/// names and places too, and where it stands, so that it can be masked.
///
/// A finding's rule is the name of the detector and of the entity, `presidio.PERSON`, which
/// [`Action::Redact`](crate::prompt_guard::Action::Redact) masks as `[PERSON]`.
///
/// ```
/// use palisade::prompt_guard::remote::{Presidio, RemoteServer};
///
/// // docker run -p 5002:3000 mcr.microsoft.com/presidio-analyzer
/// let server = RemoteServer::at("http://127.0.0.1:5002");
/// let presidio = Presidio::builder(server)
///     .language("en")
///     .entities(["PERSON", "LOCATION", "PHONE_NUMBER"])
///     .threshold_of("PHONE_NUMBER", 0.4)
///     .build()?;
/// # let _ = presidio;
/// # Ok::<(), palisade::BuildError>(())
/// ```
#[derive(Debug)]
pub struct Presidio(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    server: Connected,
    language: String,
    entities: Option<Vec<String>>,
    threshold: f32,
    thresholds: BTreeMap<String, f32>,
    batches: bool,
}

/// Builds a [`Presidio`].
#[derive(Debug)]
#[must_use]
pub struct PresidioBuilder {
    server: RemoteServer,
    language: String,
    entities: Option<Vec<String>>,
    threshold: f32,
    thresholds: BTreeMap<String, f32>,
    batches: bool,
}

impl Presidio {
    /// Begins one, with the defaults that each option states.
    pub fn builder(server: RemoteServer) -> PresidioBuilder {
        PresidioBuilder {
            server,
            language: "en".to_owned(),
            entities: None,
            threshold: 0.5,
            thresholds: BTreeMap::new(),
            batches: true,
        }
    }
}

impl PresidioBuilder {
    /// The language of the prompts, as the server has it configured. Default: `en`.
    pub fn language(self, language: impl Into<String>) -> Self {
        Self { language: language.into(), ..self }
    }

    /// Looks for these entities only. Default: for all that the server knows.
    pub fn entities<E: Into<String>>(self, entities: impl IntoIterator<Item = E>) -> Self {
        Self { entities: Some(entities.into_iter().map(Into::into).collect()), ..self }
    }

    /// From which score on an entity is found, from 0 to 1. Default: 0.5.
    pub fn threshold(self, score: f32) -> Self {
        Self { threshold: score, ..self }
    }

    /// The same for this entity.
    pub fn threshold_of(mut self, entity: impl Into<String>, score: f32) -> Self {
        self.thresholds.insert(entity.into(), score);
        self
    }

    /// Sends each text by itself, up to four at a time, to servers that don't take a list of texts. Default: all in
    /// one request.
    pub fn one_by_one(self) -> Self {
        Self { batches: false, ..self }
    }

    /// The detector. Nothing is asked yet.
    ///
    /// # Errors
    /// [`BuildError`] when the server can't be asked, a threshold is not from 0 to 1, or the list of entities is empty.
    pub fn build(self) -> Result<Presidio, BuildError> {
        let Self { server, language, entities, threshold, thresholds, batches } = self;
        thresholds.values().chain([&threshold]).copied().try_for_each(check_threshold)?;
        if entities.as_ref().is_some_and(Vec::is_empty) {
            return Err(BuildError::Empty("Presidio::entities"));
        }
        let server = server.connect("/analyze", "presidio")?;
        Ok(Presidio(Arc::new(Inner { server, language, entities, threshold, thresholds, batches })))
    }
}

impl AsyncDetector for Presidio {
    fn name(&self) -> &'static str {
        self.0.server.name
    }

    fn scan(&self, prompt: &Arc<Prompt>) -> ReadyOr<Result<Vec<Finding>, BoxError>> {
        let inner = Arc::clone(&self.0);
        let look = |texts: Vec<Text>| async move { inner.analyze(&texts).await };
        self.0.server.look(prompt, Join::Message, look)
    }
}

/// Something that was found: the entity, its score on the guard's scale, and where, in code points.
struct Found {
    entity: String,
    score: f32,
    range: Range<usize>,
}

impl Inner {
    async fn analyze(&self, texts: &[Text]) -> Result<Vec<Finding>, ScanError> {
        let told: Vec<Vec<Found>> = match texts {
            [text] => vec![self.analyze_one(text).await?],
            _ if !self.batches => {
                all(AT_ONCE, texts.iter().map(|text| self.analyze_one(text)).collect()).await?
            }
            _ => {
                let all = texts.iter().map(|text| text.text.as_str().into()).collect();
                let answer = self.server.ask(&self.question(Value::Array(all))).await?;
                let told = answer.as_array().filter(|told| told.len() == texts.len());
                let told = told.ok_or(UNEXPECTED)?.iter();
                told.map(|told| self.read(told).ok_or(UNEXPECTED)).collect::<Result<_, _>>()?
            }
        };
        let mut findings = Vec::new();
        for (text, found) in texts.iter().zip(told) {
            let ranges: Vec<_> = found.iter().map(|found| found.range.clone()).collect();
            // A place that the text doesn't have: the server has read another one.
            let ranges = text.in_bytes(&ranges).ok_or(UNEXPECTED)?;
            for (found, range) in found.into_iter().zip(ranges) {
                let rule = format!("{}.{}", self.server.name, found.entity);
                for (segment, span) in text.parts(range) {
                    let category = Category::PersonalData;
                    findings.push(Finding::new(
                        rule.clone(),
                        category,
                        found.score,
                        segment,
                        Some(span),
                    ));
                }
            }
        }
        Ok(findings)
    }

    async fn analyze_one(&self, text: &Text) -> Result<Vec<Found>, ScanError> {
        let answer = self.server.ask(&self.question(text.text.as_str().into())).await?;
        self.read(&answer).ok_or(UNEXPECTED)
    }

    fn question(&self, text: Value) -> Value {
        let lowest = self.thresholds.values().copied().fold(self.threshold, f32::min);
        let mut question = Map::new();
        question.insert("text".into(), text);
        question.insert("language".into(), self.language.as_str().into());
        // As it was written: 0.4 in 32 bits is more than 0.4 in 64.
        let lowest: f64 = lowest.to_string().parse().unwrap_or_default();
        question.insert("score_threshold".into(), lowest.into());
        if let Some(entities) = &self.entities {
            question.insert("entities".into(), entities.as_slice().into());
        }
        Value::Object(question)
    }

    /// `[{"entity_type": "PERSON", "start": 0, "end": 4, "score": 0.85}, …]`.
    fn read(&self, told: &Value) -> Option<Vec<Found>> {
        let mut all = Vec::new();
        for one in told.as_array()? {
            let entity = one.get("entity_type")?.as_str()?;
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            if entity.is_empty() || entity.len() > 64 || !entity.bytes().all(plain) {
                return None;
            }
            let place = |name| usize::try_from(one.get(name)?.as_u64()?).ok();
            let range = place("start")?..place("end")?;
            let score = one.get("score")?.as_f64().filter(|score| (0.0..=1.0).contains(score))?;
            #[allow(clippy::cast_possible_truncation)]
            let score = score as f32;
            let threshold = self.thresholds.get(entity).copied().unwrap_or(self.threshold);
            let asked = self.entities.as_ref();
            if score < threshold || !asked.is_none_or(|asked| asked.iter().any(|e| e == entity)) {
                continue;
            }
            let score = on_scale(score, threshold);
            all.push(Found { entity: entity.to_owned(), score, range });
        }
        // The server's order is no promise.
        all.sort_by(|a, b| {
            (a.range.start, a.range.end, &a.entity).cmp(&(b.range.start, b.range.end, &b.entity))
        });
        Some(all)
    }
}

/// Requests of one prompt at a time.
const AT_ONCE: usize = 4;
