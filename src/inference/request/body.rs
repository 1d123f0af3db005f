//! The members of a request body, and what each of them is.

use std::borrow::Cow;

use super::{Found, Origin, Piece, ReadErrorKind, ReadLimits, Unread, words};
use crate::{
    inference::json::{Kind, Value},
    route::Endpoint,
};

/// What the readers of the parts give.
pub(super) type Read<T = ()> = Result<T, ReadErrorKind>;

/// Collects what is found in a body.
pub(super) struct Reader<'l> {
    limits: &'l ReadLimits,
    pub(super) endpoint: Endpoint,
    pub(super) found: Found,
}

impl<'l> Reader<'l> {
    pub(super) fn read(endpoint: Endpoint, root: Value<'_>, limits: &'l ReadLimits) -> Read<Found> {
        let mut reader = Self { limits, endpoint, found: Found::default() };
        let prompts = prompt_members(endpoint);
        object(root)?;
        if !root.members().any(|(name, value)| {
            !value.is_null() && name.text().is_some_and(|name| prompts.contains(&&*folded(name)))
        }) {
            return Err(ReadErrorKind::NoPrompt);
        }
        reader.members(root, 0)?;
        let found = reader.found;
        if found.pieces.is_empty() && found.unread.is_empty() {
            return Err(ReadErrorKind::NoPrompt);
        }
        Ok(found)
    }

    /// Reads the members of the body, or of an object of options or an instance within it.
    fn members(&mut self, value: Value<'_>, level: u8) -> Read {
        unlike(value)?;
        for (name, value) in value.members() {
            if !value.is_null() {
                let name = name.text().unwrap_or_default();
                self.member(&name, value, level)?;
            }
        }
        Ok(())
    }

    /// One member. Every endpoint's are told by name alone: a server that knows more members than its
    /// endpoint should is then read in full.
    fn member(&mut self, name: &str, value: Value<'_>, level: u8) -> Read {
        let responses = self.endpoint == Endpoint::OpenAiResponses;
        match &*folded(name.into()) {
            "model" if level == 0 => self.model(value),
            "messages" => self.messages(value),
            "prompt" | "inputs" | "input" | "query" | "texts" => self.prompts(value),
            "text" if !responses => self.prompts(value),
            "suffix" | "input_suffix" => self.content(value, Origin::User, 0),
            "input_ids" | "prompt_token_ids" | "token_ids" => self.token_ids(value),
            "context" if value.kind() == Kind::Array => self.token_ids(value),
            "input_embeds" | "prompt_embeds" | "inputs_embeds" => self.embeddings(value),
            "template" | "chat_template" => self.template(value),
            "system" | "instructions" | "system_prompt" | "tool_prompt" => {
                self.content(value, Origin::System, 0)
            }
            "chat_template_kwargs" | "system_instruction" => {
                text_bearing(value)?;
                self.strings(value, Origin::System, 0)
            }
            "documents" => self.documents(value),
            "prediction" => self.strings(value, Origin::Assistant, 0),
            "tools" | "functions" => self.tools(value),
            "text" | "response_format" | "structured_outputs" | "output_config" | "format"
            | "grammar" | "json_schema" | "regex" | "ebnf" | "guided_json" | "guided_regex"
            | "guided_choice" | "guided_grammar" | "structural_tag" => {
                self.strings(value, Origin::ToolSchema, 0)
            }
            "image_data" | "images" | "image" => self.unread_all(value, Unread::Image),
            "audio_data" | "audios" => self.unread_all(value, Unread::Audio),
            "video_data" | "videos" | "multi_modal_data" => self.unread_all(value, Unread::Other),
            "max_tokens"
            | "max_completion_tokens"
            | "max_output_tokens"
            | "max_new_tokens"
            | "max_tokens_to_sample"
            | "num_predict"
            | "max_length" => self.max_output(value),
            "n" | "best_of" | "num_return_sequences" => self.answers(value),
            "stream" => match value.kind() {
                Kind::Bool => {
                    self.found.streams = value.source() == "true";
                    Ok(())
                }
                _ => Err(ReadErrorKind::WrongType),
            },
            "parameters" | "sampling_params" | "options" if level == 0 => self.options(value),
            "instances" if level == 0 => {
                array(value)?;
                value.items().try_for_each(|item| match item.kind() {
                    Kind::Object => self.members(item, 1),
                    _ => self.prompts(item),
                })
            }
            // By its exact name: to who takes no other for it, another one may be a prompt.
            _ if words::is_option(name, self.endpoint) => Ok(()),
            _ => match value.kind() {
                Kind::String | Kind::Array | Kind::Object => self.strings(value, Origin::User, 0),
                _ => Ok(()),
            },
        }
    }

    /// A template that holds code can put any text together, which then stands nowhere in the body.
    fn template(&mut self, value: Value<'_>) -> Read {
        let text = value.text();
        if text.is_some_and(|text| ["{{", "{%", "{#"].iter().any(|code| text.contains(code))) {
            self.unread(Unread::Other);
        }
        let said = self.found.said.len();
        self.content(value, Origin::System, 0)?;
        // It is no text that anything could be added to.
        self.found.said.truncate(said);
        Ok(())
    }

    /// Documents: texts, or objects of any shape with texts in them.
    fn documents(&mut self, value: Value<'_>) -> Read {
        text_bearing(value)?;
        let first = self.found.pieces.len();
        self.strings(value, Origin::Document, 0)?;
        let (mut texts, mut is_text) = (Vec::new(), true);
        for value in value.all() {
            match value.kind() {
                Kind::Name => is_text = value.text().is_some_and(|name| words::holds_text(&name)),
                Kind::String => {
                    texts.extend(is_text.then(|| value.inside().start));
                    is_text = true;
                }
                _ => is_text = true,
            }
        }
        let pieces = self.found.pieces.iter().enumerate().skip(first);
        let said = pieces.filter(|(_, piece)| texts.binary_search(&piece.source.start).is_ok());
        self.found.said.extend(said.map(|(index, _)| index));
        Ok(())
    }

    fn model(&mut self, value: Value<'_>) -> Read {
        self.found.model = Some(piece(value, Origin::User, 0)?);
        Ok(())
    }

    /// An object of options, or a list with one for each prompt.
    fn options(&mut self, value: Value<'_>) -> Read {
        match value.kind() {
            Kind::Object => self.members(value, 1),
            Kind::Array => value.items().try_for_each(|item| {
                object(item)?;
                self.members(item, 1)
            }),
            _ => Err(ReadErrorKind::WrongType),
        }
    }

    /// The largest limit that is stated counts. A negative one means that there is none.
    fn max_output(&mut self, value: Value<'_>) -> Read {
        let limit = value.whole().ok_or(ReadErrorKind::WrongType)?;
        match u64::try_from(limit) {
            Ok(limit) => self.found.max_output = self.found.max_output.max(Some(limit)),
            Err(_) => self.found.unlimited = true,
        }
        Ok(())
    }

    fn answers(&mut self, value: Value<'_>) -> Read {
        let answers = value.whole().ok_or(ReadErrorKind::WrongType)?;
        self.found.answers = self.found.answers.max(u64::try_from(answers).unwrap_or(0));
        Ok(())
    }

    /// The definitions of tools. A remote server's address and credentials are for fetching, not for the model.
    fn tools(&mut self, value: Value<'_>) -> Read {
        array(value)?;
        for tool in value.items() {
            object(tool)?;
            // Only the Responses API has such tools: other servers print them like any.
            let remote = self.endpoint == Endpoint::OpenAiResponses
                && tool.get("type").is_some_and(|kind| kind.source() == "\"mcp\"");
            for (name, value) in tool.members() {
                let name = name.text().unwrap_or_default();
                let address =
                    matches!(&*name, "server_url" | "headers" | "authorization" | "connector_id");
                let says_nothing = || {
                    !value
                        .all()
                        .any(|value| value.text().is_some_and(|text| words::is_prose(&text)))
                };
                if !(remote && address && says_nothing()) {
                    self.strings(value, Origin::ToolSchema, 0)?;
                }
            }
        }
        Ok(())
    }

    /// One segment of text.
    pub(super) fn text(&mut self, value: Value<'_>, origin: Origin, turn: u32) -> Read {
        if self.found.pieces.len() >= self.limits.max_segments {
            return Err(ReadErrorKind::TooMany);
        }
        self.found.pieces.push(piece(value, origin, turn)?);
        Ok(())
    }

    /// One segment of what somebody says: text that only a model reads, and no part of a schema, call or identifier.
    pub(super) fn said(&mut self, value: Value<'_>, origin: Origin, turn: u32) -> Read {
        self.text(value, origin, turn)?;
        self.found.said.push(self.found.pieces.len() - 1);
        Ok(())
    }

    /// A segment for each string in `value`, however deep, and for each member name, but for what is known to be of
    /// the wire format. Numbers count as tokens.
    pub(super) fn strings(&mut self, value: Value<'_>, origin: Origin, turn: u32) -> Read {
        let mut is_id = false;
        for value in value.all() {
            match value.kind() {
                Kind::String | Kind::Name => {
                    let text = value.text().unwrap_or_default();
                    let known = words::is_known(&text) || is_id && words::is_identifier(&text);
                    is_id = value.kind() == Kind::Name && words::holds_identifier(&text);
                    if known {
                        self.overhead(1);
                    } else {
                        self.text(value, origin, turn)?;
                    }
                }
                Kind::Number | Kind::Bool | Kind::Null => {
                    is_id = false;
                    self.overhead(value.source().len() as u64 / 2 + 1);
                }
                Kind::Array | Kind::Object => is_id = false,
            }
        }
        Ok(())
    }

    pub(super) fn unread(&mut self, what: Unread) {
        self.found.unread.push(what);
        if what != Unread::TokenIds {
            self.overhead(ATTACHMENT);
        }
    }

    fn unread_all(&mut self, value: Value<'_>, what: Unread) -> Read {
        match value.kind() {
            Kind::Array => value.items().for_each(|_| self.unread(what)),
            _ => self.unread(what),
        }
        Ok(())
    }

    /// Counts tokens that are no segment's.
    pub(super) fn overhead(&mut self, tokens: u64) {
        self.found.overhead = self.found.overhead.saturating_add(tokens);
    }
}

/// Tokens that an image, sound or file is taken for: about what a full-size image costs.
pub(super) const ATTACHMENT: u64 = 1024;

/// Which members hold an endpoint's prompt: one of them must be there.
fn prompt_members(endpoint: Endpoint) -> &'static [&'static str] {
    match endpoint {
        Endpoint::OpenAiChat | Endpoint::AnthropicMessages => &["messages"],
        Endpoint::OpenAiCompletions => &["prompt", "prompt_embeds"],
        Endpoint::OpenAiResponses => &["input", "instructions", "prompt"],
        Endpoint::OpenAiEmbeddings => &["input", "inputs", "texts", "messages"],
        Endpoint::Generate => &[
            "prompt",
            "inputs",
            "text",
            "input_ids",
            "input_embeds",
            "messages",
            "input",
            "instances",
            "query",
        ],
        Endpoint::Grpc | Endpoint::Other => &[],
    }
}

/// Whether some endpoint takes its prompt from a member of this name.
pub(crate) fn is_prompt_member(name: &str) -> bool {
    [
        Endpoint::OpenAiChat,
        Endpoint::OpenAiResponses,
        Endpoint::OpenAiEmbeddings,
        Endpoint::Generate,
    ]
    .into_iter()
    .any(|endpoint| prompt_members(endpoint).contains(&name))
        || matches!(name, "system" | "system_prompt" | "suffix" | "template" | "chat_template")
}

/// A member's name for servers to which upper case is lower case, as it is to Go's `encoding/json`, and so to Ollama: to
/// these the long s and the Kelvin sign are letters, too.
pub(super) fn folded(name: Cow<'_, str>) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii()) {
        return name.to_uppercase().to_lowercase().into();
    }
    name
}

/// Refuses names that are one to such a server, of which it takes the last.
pub(super) fn unlike(object: Value<'_>) -> Read {
    let names = || object.members().filter_map(|(name, _)| name.text());
    if names().all(|name| *folded(name.clone()) == *name) {
        return Ok(());
    }
    let mut all: Vec<_> = names().map(folded).collect();
    all.sort_unstable();
    let alike = all.windows(2).any(|pair| matches!(pair, [one, other] if one == other));
    if alike { Err(ReadErrorKind::DuplicateKey) } else { Ok(()) }
}

fn piece(value: Value<'_>, origin: Origin, turn: u32) -> Read<Piece> {
    let text = value.text().ok_or(ReadErrorKind::WrongType)?;
    let decoded = match text {
        Cow::Borrowed(_) => None,
        Cow::Owned(text) => Some(text.into_boxed_str()),
    };
    Ok(Piece { source: value.inside(), decoded, origin, turn })
}

pub(super) fn object(value: Value<'_>) -> Read {
    if value.kind() == Kind::Object { Ok(()) } else { Err(ReadErrorKind::WrongType) }
}

pub(super) fn array(value: Value<'_>) -> Read {
    if value.kind() == Kind::Array { Ok(()) } else { Err(ReadErrorKind::WrongType) }
}

fn text_bearing(value: Value<'_>) -> Read {
    match value.kind() {
        Kind::String | Kind::Array | Kind::Object => Ok(()),
        _ => Err(ReadErrorKind::WrongType),
    }
}
