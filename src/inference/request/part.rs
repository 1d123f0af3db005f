//! Content: a string, or parts (OpenAI) or blocks (Anthropic).

use super::{
    Origin, ReadErrorKind, Unread,
    body::{Read, Reader},
};
use crate::inference::json::{Kind, Value};

impl Reader<'_> {
    /// A string, a part, a list of parts, or null.
    pub(super) fn content(&mut self, value: Value<'_>, origin: Origin, turn: u32) -> Read {
        match value.kind() {
            Kind::Null => Ok(()),
            Kind::String => self.said(value, origin, turn),
            Kind::Object => self.part(value, origin, turn),
            Kind::Array => value.items().try_for_each(|item| match item.kind() {
                Kind::String => self.said(item, origin, turn),
                Kind::Object => self.part(item, origin, turn),
                _ => Err(ReadErrorKind::WrongType),
            }),
            _ => Err(ReadErrorKind::WrongType),
        }
    }

    /// One part. Of every type all strings are read but those that hold an attachment's data.
    pub(super) fn part(&mut self, part: Value<'_>, origin: Origin, turn: u32) -> Read {
        let kind = match part.get("type") {
            None => None,
            Some(kind) => Some(kind.text().ok_or(ReadErrorKind::WrongType)?),
        };
        match kind.as_deref() {
            Some(
                "text" | "input_text" | "output_text" | "summary_text" | "reasoning_text"
                | "refusal" | "thinking",
            ) => self.text_part(part, origin, turn),
            None if part.get("text").is_some() => self.text_part(part, origin, turn),
            None if !part
                .members()
                .any(|(name, _)| holds_data(&name.text().unwrap_or_default())) =>
            {
                self.strings(part, origin, turn)
            }
            Some(
                "image"
                | "image_url"
                | "input_image"
                | "image_pil"
                | "image_embeds"
                | "computer_screenshot",
            ) => {
                self.unread(Unread::Image);
                self.around_data(part, origin, turn)
            }
            Some("audio" | "audio_url" | "input_audio" | "output_audio") => {
                self.unread(Unread::Audio);
                self.around_data(part, origin, turn)
            }
            Some("file" | "input_file" | "container_upload") => {
                self.unread(Unread::File);
                self.around_data(part, origin, turn)
            }
            Some("document") => self.document(part, turn),
            Some("search_result") => self.nested(part, Origin::Document, turn),
            Some("tool_use" | "server_tool_use" | "mcp_tool_use") => {
                self.nested(part, Origin::ToolArguments, turn)
            }
            Some(kind) if kind == "logs" || kind.ends_with("tool_result") => {
                self.nested(part, Origin::ToolResult, turn)
            }
            _ => {
                self.unread(Unread::Other);
                self.around_data(part, origin, turn)
            }
        }
    }

    fn text_part(&mut self, part: Value<'_>, origin: Origin, turn: u32) -> Read {
        for (name, value) in part.members() {
            match &*name.text().unwrap_or_default() {
                "text" | "refusal" | "thinking" => self.said(value, origin, turn)?,
                // There are servers that look for these first, and then for no text.
                medium if holds_medium(medium) && !value.is_null() => {
                    self.unread(Unread::Other);
                    self.strings(value, origin, turn)?;
                }
                other => self.other(other, value, origin, turn)?,
            }
        }
        Ok(())
    }

    /// A part whose `content` has parts of its own.
    fn nested(&mut self, part: Value<'_>, origin: Origin, turn: u32) -> Read {
        for (name, value) in part.members() {
            match &*name.text().unwrap_or_default() {
                "content" => self.content(value, origin, turn)?,
                other => self.other(other, value, origin, turn)?,
            }
        }
        Ok(())
    }

    /// Anthropic's `document`: its source is text, parts, or a file that can't be read.
    fn document(&mut self, part: Value<'_>, turn: u32) -> Read {
        for (name, value) in part.members() {
            match &*name.text().unwrap_or_default() {
                "source" => self.source(value, turn)?,
                other => self.other(other, value, Origin::Document, turn)?,
            }
        }
        Ok(())
    }

    fn source(&mut self, source: Value<'_>, turn: u32) -> Read {
        super::body::object(source)?;
        let kind = source.get("type").and_then(Value::text);
        match kind.as_deref() {
            Some("text" | "content") => {}
            _ => {
                self.unread(Unread::File);
                return self.around_data(source, Origin::Document, turn);
            }
        }
        for (name, value) in source.members() {
            match &*name.text().unwrap_or_default() {
                "data" | "content" => self.content(value, Origin::Document, turn)?,
                other => self.other(other, value, Origin::Document, turn)?,
            }
        }
        Ok(())
    }

    /// The strings of an attachment's part, such as its name, but not its data or links.
    pub(super) fn around_data(&mut self, part: Value<'_>, origin: Origin, turn: u32) -> Read {
        for (name, value) in part.members() {
            let name = name.text().unwrap_or_default();
            if !holds_data(&name) {
                self.other(&name, value, origin, turn)?;
            } else if value.kind() == Kind::Object {
                self.around_data(value, origin, turn)?;
            }
        }
        Ok(())
    }
}

/// Whether the member of this name holds an attachment: its data, a link to it, or an object with one of them.
fn holds_data(name: &str) -> bool {
    holds_medium(name)
        || matches!(
            name,
            "file" | "file_data" | "file_url" | "file_id" | "source" | "url" | "data" | "uuid"
        )
}

/// Whether that can be nothing but an image, a sound or a film.
fn holds_medium(name: &str) -> bool {
    matches!(
        name,
        "image_url"
            | "image"
            | "image_embeds"
            | "audio_url"
            | "audio"
            | "input_audio"
            | "video_url"
            | "video"
    )
}
