//! The events of a streamed answer: what they state, and how much text they carry.

use super::{BOUNDS, stated::Stated};
use crate::inference::{
    json::{Document, Kind, Value},
    sse::Event,
    tokens::{ByteClasses, TokenEstimator},
};

/// What the events, or lines, of one push say.
pub(super) struct Seen<'a> {
    pub(super) stated: &'a mut Stated,
    /// Tokens of their text.
    pub(super) text: u64,
    /// Bytes of those that can't be read.
    pub(super) bytes: u64,
}

impl<'a> Seen<'a> {
    pub(super) fn new(stated: &'a mut Stated) -> Self {
        Self { stated, text: 0, bytes: 0 }
    }

    pub(super) fn event(&mut self, event: &Event<'_>) {
        if event.oversized {
            self.bytes = self.bytes.saturating_add(event.length as u64);
        } else if let Some(data) = event.data().filter(|data| *data != "[DONE]") {
            self.data(data);
        }
    }

    /// The data of an event, or a line of an answer in lines.
    pub(super) fn data(&mut self, data: &str) {
        let Ok(document) = Document::read(data.as_bytes(), BOUNDS) else {
            // Services of one's own stream bare text.
            return self.add(ByteClasses.estimate(data));
        };
        let root = document.root();
        self.stated.value(root);
        if !self.deltas(root) && root.kind() != Kind::Object {
            self.add(ByteClasses.estimate(data));
        }
    }

    /// Counts the text that an event adds to the answer. `false`: it is of no known kind.
    fn deltas(&mut self, event: Value<'_>) -> bool {
        let mut known = false;
        let kind = event.get("type").and_then(Value::text);
        for (name, value) in event.members() {
            let name = name.text().unwrap_or_default();
            match (&*name, kind.as_deref()) {
                ("choices", _) => value.items().for_each(|choice| self.choice(choice)),
                // Anthropic: the start of a block may have text already.
                ("delta" | "content_block", Some(_)) if value.kind() == Kind::Object => {
                    self.strings(value, &["text", "partial_json", "thinking"]);
                }
                ("delta", Some(kind)) if kind.ends_with(".delta") => self.string(value),
                // Text-generation-inference.
                ("token", None) if value.kind() == Kind::Object => self.add(1),
                // Ollama.
                ("message", None) => self.strings(value, &["content", "thinking"]),
                ("response", None) => self.string(value),
                // Cumulative; the count beside it tells.
                ("meta_info", None) => {}
                _ => continue,
            }
            known = true;
        }
        if !known && kind.is_none() {
            // A service of one's own: whatever text its events have.
            let strings = event.all().filter(|value| value.kind() == Kind::String);
            strings.for_each(|value| self.string(value));
        }
        known || kind.is_some()
    }

    fn choice(&mut self, choice: Value<'_>) {
        for (name, value) in choice.members() {
            match &*name.text().unwrap_or_default() {
                "text" => self.string(value),
                "delta" | "message" => self.delta(value),
                _ => {}
            }
        }
    }

    /// OpenAI's `delta`. Every string in it but its labels is text: servers add fields for reasoning.
    fn delta(&mut self, delta: Value<'_>) {
        for (name, value) in delta.members() {
            if matches!(&*name.text().unwrap_or_default(), "role" | "id") {
                continue;
            }
            let mut label = false;
            for value in value.all() {
                match value.kind() {
                    Kind::Name => {
                        let name = value.text().unwrap_or_default();
                        label = matches!(&*name, "id" | "type");
                    }
                    Kind::String if !std::mem::take(&mut label) => self.string(value),
                    _ => label = false,
                }
            }
        }
    }

    fn strings(&mut self, object: Value<'_>, names: &[&str]) {
        for (name, value) in object.members() {
            if names.contains(&&*name.text().unwrap_or_default()) {
                self.string(value);
            }
        }
    }

    fn string(&mut self, value: Value<'_>) {
        if value.kind() == Kind::String {
            self.add(ByteClasses.estimate(&value.text().unwrap_or_default()));
        }
    }

    fn add(&mut self, tokens: u64) {
        self.text = self.text.saturating_add(tokens);
    }
}
