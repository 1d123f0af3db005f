//! Messages of chats, and the items of the Responses API.

use super::{
    Origin, ReadErrorKind, Unread,
    body::{Read, Reader, array, folded, object, unlike},
    words::is_prose,
};
use crate::inference::json::{Kind, Value};

impl Reader<'_> {
    /// The messages of a chat.
    pub(super) fn messages(&mut self, value: Value<'_>) -> Read {
        array(value)?;
        for (turn, message) in (0..).zip(value.items()) {
            self.message(message, turn)?;
        }
        Ok(())
    }

    /// One message. Chat templates may print any member of it, so all of its strings are read.
    fn message(&mut self, message: Value<'_>, turn: u32) -> Read {
        object(message)?;
        unlike(message)?;
        let is_role = |name: Value<'_>| name.text().is_some_and(|name| folded(name) == "role");
        let role = match message.members().find(|(name, _)| is_role(*name)).map(|(_, role)| role) {
            None => Some(Origin::User),
            Some(role) => of_role(&role.text().ok_or(ReadErrorKind::WrongType)?),
        };
        let origin = role.unwrap_or(Origin::User);
        self.overhead(MESSAGE);
        for (name, value) in message.members() {
            match &*folded(name.text().unwrap_or_default()) {
                "content" | "refusal" => self.content(value, origin, turn)?,
                "name" if !value.is_null() => self.text(value, origin, turn)?,
                "tool_calls" | "function_call" => {
                    if !matches!(value.kind(), Kind::Array | Kind::Object | Kind::Null) {
                        return Err(ReadErrorKind::WrongType);
                    }
                    self.strings(value, Origin::ToolArguments, turn)?;
                }
                "audio" if !value.is_null() => {
                    self.unread(Unread::Audio);
                    self.around_data(value, origin, turn)?;
                }
                "images" if value.kind() == Kind::Array => {
                    value.items().for_each(|_| self.unread(Unread::Image));
                }
                "role" if role.is_some() => {}
                other => self.other(other, value, origin, turn)?,
            }
        }
        Ok(())
    }

    /// An item of the Responses API's input: a message, a call, its output, reasoning.
    pub(super) fn item(&mut self, item: Value<'_>, turn: u32) -> Read {
        let kind = match item.get("type") {
            None => None,
            Some(kind) => Some(kind.text().ok_or(ReadErrorKind::WrongType)?),
        };
        let origin = match kind.as_deref() {
            Some("message") => return self.message(item, turn),
            None | Some(_) if item.get("role").is_some() => return self.message(item, turn),
            Some("reasoning") => Origin::Assistant,
            Some("mcp_list_tools") => Origin::ToolSchema,
            Some(kind) if kind.ends_with("_output") => Origin::ToolResult,
            Some(kind) if kind.ends_with("_call") => Origin::ToolArguments,
            Some("mcp_approval_request" | "mcp_approval_response") => Origin::ToolArguments,
            // A part on its own, a reference to an item that is not here, or what nobody knows.
            Some(_) => return self.part(item, Origin::User, turn),
            None => {
                self.unread(Unread::Other);
                return self.strings(item, Origin::User, turn);
            }
        };
        self.overhead(MESSAGE);
        let image = kind.as_deref() == Some("image_generation_call");
        if image {
            self.unread(Unread::Image);
        }
        for (name, value) in item.members() {
            match &*name.text().unwrap_or_default() {
                "output" | "outputs" | "results" => {
                    self.content(value, Origin::ToolResult, turn)?
                }
                "content" | "summary" => self.content(value, origin, turn)?,
                "result" if image => {}
                other => self.other(other, value, origin, turn)?,
            }
        }
        Ok(())
    }

    /// Any further member of a message, item or part.
    pub(super) fn other(
        &mut self,
        name: &str,
        value: Value<'_>,
        origin: Origin,
        turn: u32,
    ) -> Read {
        match name {
            "type" | "cache_control" | "status" | "id" | "call_id" | "tool_call_id"
            | "tool_use_id" | "signature"
                if is_opaque(value) =>
            {
                Ok(())
            }
            "encrypted_content" => {
                if !value.is_null() {
                    self.unread(Unread::Other);
                }
                Ok(())
            }
            _ => self.strings(value, origin, turn),
        }
    }
}

/// Tokens that a chat template puts around each message.
const MESSAGE: u64 = 4;

/// `None`: a role that no API has. Templates print it all the same.
fn of_role(role: &str) -> Option<Origin> {
    Some(match role {
        "system" => Origin::System,
        "developer" => Origin::Developer,
        "user" => Origin::User,
        "assistant" | "model" => Origin::Assistant,
        "tool" | "function" => Origin::ToolResult,
        _ => return None,
    })
}

/// Whether all strings in it can be nothing but words of the wire format, identifiers or signatures: none has a
/// sentence in it.
fn is_opaque(value: Value<'_>) -> bool {
    let opaque = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+/=:.".contains(&byte);
    value
        .all()
        .all(|value| value.text().is_none_or(|text| text.bytes().all(opaque) && !is_prose(&text)))
}
