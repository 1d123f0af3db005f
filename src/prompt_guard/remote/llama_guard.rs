//! Llama Guard through chat completions.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use super::{
    at_once::all,
    server::{Connected, RemoteServer, UNEXPECTED},
    texts::{Join, Text},
};
use crate::{
    BoxError, BuildError,
    future::ReadyOr,
    inference::Prompt,
    prompt_guard::{AsyncDetector, Category, Finding, ScanError},
};

/// Llama Guard 3 or 4 behind an OpenAI-compatible `POST /v1/chat/completions` that applies the model's own chat template,
/// as vLLM does.
///
/// All texts of one origin are sent together as one message of the user, so a long conversation takes a few requests
/// and not one for each turn. The model answers `safe`, or `unsafe` and the hazards' codes; anything else
/// means that it can't tell.
///
/// A finding's rule is the name of the detector and the code, `llama_guard.s1` for violent crimes; its score is 1; its category is
/// [`Category::MaliciousCode`] for S14 (abuse of a code interpreter) and [`Category::Custom`] for the others; it
/// has no place, so it can be blocked but not masked.
///
/// ```
/// use palisade::prompt_guard::remote::{LlamaGuard, RemoteServer};
///
/// // vllm serve meta-llama/Llama-Guard-3-8B --port 8000
/// let server = RemoteServer::at("http://127.0.0.1:8000");
/// // Specialised advice is what this service is for.
/// let guard = LlamaGuard::builder(server, "meta-llama/Llama-Guard-3-8B").ignore(6).build()?;
/// # let _ = guard;
/// # Ok::<(), palisade::BuildError>(())
/// ```
#[derive(Debug)]
pub struct LlamaGuard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    server: Connected,
    model: String,
    ignored: Vec<u8>,
    window: usize,
}

/// Builds a [`LlamaGuard`].
#[derive(Debug)]
#[must_use]
pub struct LlamaGuardBuilder {
    server: RemoteServer,
    model: String,
    ignored: Vec<u8>,
    window: usize,
}

impl LlamaGuard {
    /// Begins one for this model, with the defaults that each option states.
    pub fn builder(server: RemoteServer, model: impl Into<String>) -> LlamaGuardBuilder {
        LlamaGuardBuilder { server, model: model.into(), ignored: Vec::new(), window: 8 * 1024 }
    }
}

impl LlamaGuardBuilder {
    /// Never finds the hazard of this number: 6 for S6.
    pub fn ignore(mut self, hazard: u8) -> Self {
        self.ignored.push(hazard);
        self
    }

    /// What is longer than this is sent in parts that overlap by an eighth, in bytes. Default: 8 KiB.
    pub fn window(self, bytes: usize) -> Self {
        Self { window: bytes, ..self }
    }

    /// The detector. Nothing is asked yet.
    ///
    /// # Errors
    /// [`BuildError`] when the server can't be asked, or the window is zero.
    pub fn build(self) -> Result<LlamaGuard, BuildError> {
        let Self { server, model, ignored, window } = self;
        if window == 0 {
            return Err(BuildError::invalid("LlamaGuard", "its window is zero"));
        }
        let server = server.connect("/v1/chat/completions", "llama_guard")?;
        Ok(LlamaGuard(Arc::new(Inner { server, model, ignored, window })))
    }
}

impl AsyncDetector for LlamaGuard {
    fn name(&self) -> &'static str {
        self.0.server.name
    }

    fn scan(&self, prompt: &Arc<Prompt>) -> ReadyOr<Result<Vec<Finding>, BoxError>> {
        let inner = Arc::clone(&self.0);
        let look = |texts: Vec<Text>| async move { inner.judge(&texts).await };
        self.0.server.look(prompt, Join::Origin, look)
    }
}

impl Inner {
    async fn judge(&self, texts: &[Text]) -> Result<Vec<Finding>, ScanError> {
        let windows = texts.iter().flat_map(|text| {
            text.windows(self.window).into_iter().map(move |window| (text, window))
        });
        let asked = windows.map(|(text, window)| {
            let content = text.text.get(window.clone()).unwrap_or_default();
            let answer = self.server.ask(&json!({
                "model": self.model,
                "messages": [{"role": "user", "content": content}],
                "temperature": 0,
                "max_tokens": MAX_TOKENS,
                "stream": false,
            }));
            let segment = text.segment_at(window.start);
            async move {
                let hazards = hazards(&answer.await?).ok_or(UNEXPECTED)?;
                Ok(hazards.into_iter().map(|hazard| (segment, hazard)).collect::<Vec<_>>())
            }
        });
        let told = all(AT_ONCE, asked.collect()).await?;
        // Of windows that overlap, each may find the same.
        let told: BTreeSet<(usize, u8)> = told.into_iter().flatten().collect();
        let told = told.into_iter().filter(|(_, hazard)| !self.ignored.contains(hazard));
        let finding = |(segment, hazard)| {
            let rule = format!("{}.s{hazard}", self.server.name);
            let category = if hazard == 14 { Category::MaliciousCode } else { Category::Custom };
            Finding::new(rule, category, 1.0, segment, None)
        };
        Ok(told.map(finding).collect())
    }
}

/// `safe`, or `unsafe` and a line of codes, `S1,S10`: as the model was trained to answer, and nothing else.
fn hazards(answer: &Value) -> Option<BTreeSet<u8>> {
    let [choice] = answer.get("choices")?.as_array()?.as_slice() else { return None };
    // Cut off at a length, there may have been more.
    if choice.get("finish_reason")?.as_str()? != "stop" {
        return None;
    }
    let content = choice.get("message")?.get("content")?.as_str()?.trim();
    if content == "safe" {
        return Some(BTreeSet::new());
    }
    let codes = content.strip_prefix("unsafe")?.strip_prefix(['\n', '\r'])?.trim();
    codes.split(',').map(|code| number(code.trim())).collect()
}

/// From S1 to S99: 1 to 14 are the model's own, the others an operator's.
fn number(code: &str) -> Option<u8> {
    let digits = code.strip_prefix('S')?;
    let plain = matches!(digits.len(), 1 | 2) && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|number| plain && *number > 0 && !digits.starts_with('0'))
}

/// Enough for all codes.
const MAX_TOKENS: u32 = 96;
/// Requests of one prompt at a time.
const AT_ONCE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(content: &str) -> Option<Vec<u8>> {
        let answer = json!({"choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}},
        ]});
        hazards(&answer).map(|told| told.into_iter().collect())
    }

    #[test]
    fn only_what_the_model_was_trained_to_say_is_believed() {
        assert_eq!(told("safe"), Some(vec![]));
        assert_eq!(told("\n\nsafe"), Some(vec![]));
        assert_eq!(told("unsafe\nS1"), Some(vec![1]));
        assert_eq!(told("\n\nunsafe\nS14,S2, S10\n"), Some(vec![2, 10, 14]));
        for wrong in [
            "",
            "Safe",
            "safe.",
            "safe\nS1",
            "safe unsafe",
            "unsafe",
            "unsafe\n",
            "unsafe S1",
            "unsafe\nviolence",
            "unsafe\nS",
            "unsafe\nS0",
            "unsafe\nS01",
            "unsafe\nS100",
            "unsafe\nS1,",
            "unsafe\nS1;S2",
            "unsafe\nS1\nS2",
            "unsafe\nS+1",
            "unsafely\nS1",
            "I can't help with that.",
        ] {
            assert_eq!(told(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_answer_that_is_cut_off_is_none() {
        for (reason, choices) in [("length", 1), ("stop", 0), ("stop", 2)] {
            let choice = json!({"finish_reason": reason, "message": {"content": "safe"}});
            assert_eq!(hazards(&json!({"choices": vec![choice; choices]})), None);
        }
        for wrong in
            [json!(null), json!([]), json!({"choices": [{"message": {"content": "safe"}}]})]
        {
            assert_eq!(hazards(&wrong), None);
        }
    }
}
