//! What is known not to be a prompt: options, and the vocabulary of schemas and wire formats.

use crate::route::Endpoint;

/// Whether a member of the body whose value may hold strings is an option, which no model sees.
pub(super) fn is_option(name: &str, endpoint: Endpoint) -> bool {
    // What a `/generate` takes is up to each server: what is a label here is a prompt there.
    is_technical(name) || endpoint != Endpoint::Generate && is_label(name)
}

fn is_technical(name: &str) -> bool {
    matches!(
        name,
        "model"
            | "stop"
            | "stop_sequences"
            | "stop_token_ids"
            | "bad_words"
            | "stream_options"
            | "logit_bias"
            | "tool_choice"
            | "function_call"
            | "encoding_format"
            | "embedding_types"
            | "truncate"
            | "request_id"
            | "rid"
            | "lora_path"
            | "adapter_id"
            | "keep_alive"
            | "mm_processor_kwargs"
            | "cache_salt"
            | "kv_transfer_params"
            | "bootstrap_host"
            | "bootstrap_room"
            | "anthropic_version"
            | "anthropic_beta"
            | "betas"
    )
}

fn is_label(name: &str) -> bool {
    matches!(
        name,
        "user"
            | "metadata"
            | "safety_identifier"
            | "prompt_cache_key"
            | "prompt_cache_retention"
            | "previous_response_id"
            | "conversation"
            | "container"
            | "mcp_servers"
            | "context_management"
            | "include"
            | "reasoning"
            | "thinking"
            | "verbosity"
            | "service_tier"
            | "truncation"
            | "modalities"
            | "audio"
            | "input_type"
    )
}

/// Whether a string in a schema, call or part is a word of the wire format or of JSON Schema, which every prompt
/// has and none can misuse.
pub(super) fn is_known(name: &str) -> bool {
    matches!(
        name,
        "$defs"
            | "$ref"
            | "$schema"
            | "additionalProperties"
            | "allOf"
            | "anyOf"
            | "arguments"
            | "array"
            | "boolean"
            | "cache_control"
            | "call_id"
            | "const"
            | "content"
            | "custom"
            | "default"
            | "description"
            | "enum"
            | "ephemeral"
            | "format"
            | "function"
            | "id"
            | "index"
            | "input"
            | "input_schema"
            | "integer"
            | "items"
            | "json_object"
            | "json_schema"
            | "maximum"
            | "minimum"
            | "name"
            | "null"
            | "number"
            | "object"
            | "oneOf"
            | "parameters"
            | "pattern"
            | "properties"
            | "required"
            | "schema"
            | "strict"
            | "string"
            | "text"
            | "title"
            | "type"
    )
}

/// Whether the member of this name, in a document, holds text that is read.
pub(super) fn holds_text(name: &str) -> bool {
    matches!(
        name,
        "text"
            | "content"
            | "contents"
            | "snippet"
            | "snippets"
            | "passage"
            | "page_content"
            | "body"
            | "data"
            | "title"
            | "summary"
            | "description"
    )
}

/// Whether the member of this name holds an identifier.
pub(super) fn holds_identifier(name: &str) -> bool {
    matches!(name, "id" | "call_id" | "tool_call_id" | "tool_use_id")
}

/// Whether the text is an identifier that servers make up, such as `call_1a2b`: no sentence fits in it.
pub(super) fn is_identifier(text: &str) -> bool {
    text.len() <= 64
        && !is_prose(text)
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Whether there are words in it, whatever stands between: four or more of nothing but letters. Identifiers, addresses
/// and signatures have digits in nearly every part.
pub(super) fn is_prose(text: &str) -> bool {
    let words = text.split(|character: char| !character.is_alphanumeric());
    words.filter(|word| word.len() > 1 && word.chars().all(char::is_alphabetic)).count() >= 4
}
