//! Usage at its documented places in a JSON value.

use crate::inference::json::{Bounds, Document, Kind, Value};

/// What was said so far. Later numbers only raise earlier ones: streams repeat them cumulatively.
#[derive(Debug, Default)]
pub(super) struct Stated {
    input: Option<u64>,
    output: Option<u64>,
    /// Of the prompt's tokens.
    cached: Option<u64>,
    /// Of the answer's tokens.
    reasoning: Option<u64>,
    /// Of each answer of a stream that has several and tells no sum, by its index.
    each: Vec<(u64, Self)>,
}

impl Stated {
    pub(super) fn input(&self) -> Option<u64> {
        self.each.iter().fold(None, |sum, (_, one)| plus(sum, one.input)).max(self.input)
    }

    pub(super) fn output(&self) -> Option<u64> {
        self.each.iter().fold(None, |sum, (_, one)| plus(sum, one.output)).max(self.output)
    }

    pub(super) fn cached(&self) -> Option<u64> {
        self.each.iter().fold(None, |sum, (_, one)| plus(sum, one.cached)).max(self.cached)
    }

    pub(super) fn reasoning(&self) -> Option<u64> {
        self.each.iter().fold(None, |sum, (_, one)| plus(sum, one.reasoning)).max(self.reasoning)
    }

    pub(super) fn input_at_least(&mut self, tokens: Option<u64>) {
        self.input = self.input.max(tokens);
    }

    pub(super) fn output_at_least(&mut self, tokens: Option<u64>) {
        self.output = self.output.max(tokens);
    }

    /// Reads a whole JSON answer, if it is one.
    pub(super) fn json(&mut self, source: &[u8], bounds: Bounds) {
        if let Ok(document) = Document::read(source, bounds) {
            self.value(document.root());
        }
    }

    /// Reads an answer, or an event of one.
    pub(super) fn value(&mut self, root: Value<'_>) {
        if root.kind() != Kind::Array {
            return self.object(root);
        }
        // An answer for each prompt.
        let mut all = Self::default();
        for item in root.items() {
            let mut one = Self::default();
            one.object(item);
            all.input = plus(all.input, one.input());
            all.output = plus(all.output, one.output());
            all.cached = plus(all.cached, one.cached());
            all.reasoning = plus(all.reasoning, one.reasoning());
        }
        self.input_at_least(all.input);
        self.output_at_least(all.output);
        self.cached = self.cached.max(all.cached);
        self.reasoning = self.reasoning.max(all.reasoning);
    }

    fn object(&mut self, root: Value<'_>) {
        let kind = root.get("type").and_then(Value::text).unwrap_or_default();
        for (name, value) in root.members() {
            match &*name.text().unwrap_or_default() {
                "usage" | "usageMetadata" => self.usage(value),
                "message" if kind == "message_start" => self.nested(value),
                "response" if kind.starts_with("response.") => self.nested(value),
                "details" => self.details(value),
                "meta_info" => {
                    let index = root.get("index").and_then(count).unwrap_or(0);
                    self.meta_info(index, value);
                }
                "prompt_eval_count" => self.input_at_least(count(value)),
                "eval_count" => self.output_at_least(count(value)),
                _ => {}
            }
        }
    }

    fn nested(&mut self, value: Value<'_>) {
        if let Some(usage) = value.get("usage") {
            self.usage(usage);
        }
    }

    /// SGLang's `meta_info`, of one of the answers that a stream may interleave.
    fn meta_info(&mut self, index: u64, value: Value<'_>) {
        if let Some((_, one)) = self.each.iter_mut().find(|(own, _)| *own == index) {
            one.usage(value);
        } else if self.each.len() < MAX_ANSWERS {
            let mut one = Self::default();
            one.usage(value);
            self.each.push((index, one));
        }
    }

    /// OpenAI's and Anthropic's `usage`, and SGLang's `meta_info`.
    fn usage(&mut self, usage: Value<'_>) {
        let (mut prompt, mut input, mut output, mut total) = (None, None, None, None);
        // Anthropic's, which were read from its cache or written to it.
        let mut beside = None;
        for (name, value) in usage.members() {
            let count = count(value);
            match &*name.text().unwrap_or_default() {
                "prompt_tokens" | "promptTokenCount" => prompt = prompt.max(count),
                "input_tokens" => input = input.max(count),
                "completion_tokens" | "output_tokens" | "candidatesTokenCount" => {
                    output = output.max(count);
                }
                "cache_read_input_tokens" => {
                    beside = plus(beside, count);
                    self.cached = self.cached.max(count);
                }
                "cache_creation_input_tokens" => beside = plus(beside, count),
                "cached_tokens" | "cachedContentTokenCount" => self.cached = self.cached.max(count),
                "prompt_tokens_details" | "input_tokens_details" => {
                    let cached = value.get("cached_tokens").and_then(self::count);
                    self.cached = self.cached.max(cached);
                }
                "completion_tokens_details" | "output_tokens_details" => {
                    let reasoning = value.get("reasoning_tokens").and_then(self::count);
                    self.reasoning = self.reasoning.max(reasoning);
                }
                "reasoning_tokens" | "thoughtsTokenCount" => {
                    self.reasoning = self.reasoning.max(count);
                }
                "total_tokens" | "totalTokenCount" => total = count,
                _ => {}
            }
        }
        // Anthropic's input_tokens leave out what was cached; everybody's prompt_tokens have it.
        let input = prompt.max(plus(input, beside));
        self.input_at_least(input);
        self.output_at_least(output);
        // Embeddings have no answer's tokens, and some servers leave those of reasoning out of them.
        if let (Some(input), Some(total)) = (input, total) {
            self.output_at_least(total.checked_sub(input));
        }
    }

    /// The `details` of text-generation-inference.
    fn details(&mut self, details: Value<'_>) {
        // Of an answer that is too long to be held they say less than they did.
        let items = |name| details.get(name).into_iter().flat_map(Value::items);
        let mut counted = items("best_of_sequences").chain(items("prefill"));
        if counted.any(|item| item.kind() != Kind::Object) {
            return;
        }
        let mut output = None;
        for (name, value) in details.members() {
            match &*name.text().unwrap_or_default() {
                "generated_tokens" => output = plus(output, count(value)),
                "best_of_sequences" => {
                    for other in value.items() {
                        output = plus(output, other.get("generated_tokens").and_then(count));
                    }
                }
                "input_length" => self.input_at_least(count(value)),
                "prefill" => {
                    let tokens = value.items().count() as u64;
                    self.input_at_least((tokens > 0).then_some(tokens));
                }
                _ => {}
            }
        }
        self.output_at_least(output);
    }
}

/// Answers of one request that are told apart.
const MAX_ANSWERS: usize = 1024;

fn plus(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    }
}

fn count(value: Value<'_>) -> Option<u64> {
    u64::try_from(value.whole()?).ok().filter(is_credible)
}

/// Whether an answer may have so many tokens. What is beyond is an error of the server's, and charged as it stands it
/// would lock its caller out for years.
pub(super) fn is_credible(tokens: &u64) -> bool {
    *tokens <= MOST_TOKENS
}

/// Of one answer: thousands of times what any model gives.
const MOST_TOKENS: u64 = 1 << 32;
