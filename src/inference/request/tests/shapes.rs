//! The shapes that requests have.

use super::*;

use Endpoint::{
    AnthropicMessages, Generate, OpenAiChat, OpenAiCompletions, OpenAiEmbeddings, OpenAiResponses,
};

#[test]
fn generate_in_the_shape_of_a_fastapi_service() {
    let body =
        r#"{"prompt": "Hi", "max_tokens": 16, "stream": true, "temperature": 0.5, "model": "m"}"#;
    let prompt = assert_reads(Generate, body, &["user 0 Hi"]);
    assert_eq!(
        (prompt.max_output_tokens(), prompt.streams(), prompt.model()),
        (Some(16), true, Some("m"))
    );
    assert_reads(Generate, r#"{"prompt": ["a", "b"]}"#, &["user 0 a", "user 1 b"]);
    // Members of one's own are read too; those of known options are not.
    assert_reads(
        Generate,
        r#"{"prompt": "a", "history": [["b", "c"]], "user": "d", "stop": ["e"], "context": "f", "system_prompt": "g"}"#,
        &["user 0 a", "user 0 b", "user 0 c", "user 0 d", "user 0 f", "system 0 g"],
    );
}

#[test]
fn generate_in_the_shape_of_text_generation_inference() {
    let body = r#"{"inputs": "Hi", "parameters": {"max_new_tokens": 20, "best_of": 2, "stop": ["x"], "top_p": 0.9}}"#;
    let prompt = assert_reads(Generate, body, &["user 0 Hi"]);
    assert_eq!((prompt.max_output_tokens(), prompt.streams()), (Some(40), false));
    assert_reads(
        Generate,
        r#"{"inputs": ["a", "b"], "parameters": null}"#,
        &["user 0 a", "user 1 b"],
    );
    let grammar = r#"{"inputs": "a", "parameters": {"grammar": {"type": "regex", "value": "b"}}}"#;
    assert_reads(
        Generate,
        grammar,
        &["user 0 a", "tool_schema 0 regex", "tool_schema 0 value", "tool_schema 0 b"],
    );
}

#[test]
fn generate_in_the_shape_of_sglang() {
    let body = r#"{"text": ["a", "b"], "sampling_params": [{"max_new_tokens": 3}, {"max_new_tokens": 5, "n": 2}]}"#;
    let prompt = assert_reads(Generate, body, &["user 0 a", "user 1 b"]);
    assert_eq!(prompt.max_output_tokens(), Some(20));
    let prompt =
        assert_reads(Generate, r#"{"input_ids": [[1, 2], [3]], "max_new_tokens": 5}"#, &[]);
    assert_eq!((prompt.token_ids(), prompt.unread()), (3, &[Unread::TokenIds][..]));
    assert_eq!(prompt.max_output_tokens(), Some(10));
    let prompt = assert_reads(Generate, r#"{"input_embeds": [[0.5, 1], [2, 3]]}"#, &[]);
    assert_eq!(prompt.unread(), [Unread::Other]);
    assert!(prompt.token_ids() >= 2);
    let prompt =
        assert_reads(Generate, r#"{"text": "a", "image_data": ["u", "v"]}"#, &["user 0 a"]);
    assert_eq!(prompt.unread(), [Unread::Image, Unread::Image]);
}

#[test]
fn generate_reads_all_prompts_that_a_body_carries() {
    assert_reads(
        Generate,
        r#"{"prompt": "a", "inputs": "b", "text": "c", "messages": [{"role": "system", "content": "d"}],
            "instances": [{"prompt": "e"}, "f"]}"#,
        &["user 0 a", "user 0 b", "user 0 c", "system 0 d", "user 0 e", "user 0 f"],
    );
}

#[test]
fn chat_with_all_roles_and_parts() {
    let prompt = assert_reads(
        OpenAiChat,
        r#"{"model": "gpt", "messages": [
            {"role": "system", "content": "a"},
            {"role": "developer", "content": [{"type": "text", "text": "b"}]},
            {"role": "user", "name": "Ann", "content": [
                {"type": "text", "text": "c"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "file", "file": {"filename": "d", "file_data": "AAAA"}},
                {"type": "hologram", "beam": "e"},
                "f"]},
            {"role": "assistant", "content": null, "refusal": "g", "reasoning_content": "h", "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{\"at\": \"i\"}"}}]},
            {"role": "assistant", "function_call": {"name": "j", "arguments": "k"}},
            {"role": "tool", "tool_call_id": "call_1", "content": "l"},
            {"role": "function", "name": "m", "content": "n"},
            {"role": "ghost", "content": "o"},
            {"content": "p"}],
            "max_completion_tokens": 100, "max_tokens": 50, "n": 3, "stream": true, "user": "ann@example.com",
            "metadata": {"a": "b"}, "stop": "x", "tool_choice": "auto"}"#,
        &[
            "system 0 a",
            "developer 1 b",
            "user 2 Ann",
            "user 2 c",
            "user 2 low",
            "user 2 wav",
            "user 2 d",
            "user 2 e",
            "user 2 f",
            "assistant 3 g",
            "assistant 3 h",
            "tool_arguments 3 look",
            "tool_arguments 3 {\"at\": \"i\"}",
            "tool_arguments 4 j",
            "tool_arguments 4 k",
            "tool_result 5 l",
            "tool_result 6 m",
            "tool_result 6 n",
            "user 7 ghost",
            "user 7 o",
            "user 8 p",
        ],
    );
    assert_eq!(prompt.unread(), [Unread::Image, Unread::Audio, Unread::File, Unread::Other]);
    assert_eq!(
        (prompt.model(), prompt.max_output_tokens(), prompt.streams()),
        (Some("gpt"), Some(300), true)
    );
}

#[test]
fn chat_with_tools_and_schemas() {
    assert_reads(
        OpenAiChat,
        r#"{"messages": [{"role": "user", "content": "a"}],
            "tools": [{"type": "function", "function": {"name": "look", "description": "b", "parameters": {
                "type": "object", "required": ["c"],
                "properties": {"c": {"type": "string", "description": "d", "enum": ["e"], "default": 5}}}}}],
            "functions": [{"name": "f", "description": "g"}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "h", "schema": {"title": "i"}}},
            "documents": [{"title": "j", "text": "k"}], "chat_template": "l", "chat_template_kwargs": {"m": "n"}}"#,
        &[
            "user 0 a",
            "tool_schema 0 look",
            "tool_schema 0 b",
            "tool_schema 0 c",
            "tool_schema 0 c",
            "tool_schema 0 d",
            "tool_schema 0 e",
            "tool_schema 0 f",
            "tool_schema 0 g",
            "tool_schema 0 h",
            "tool_schema 0 i",
            "document 0 j",
            "document 0 k",
            "system 0 l",
            "system 0 m",
            "system 0 n",
        ],
    );
}

#[test]
fn an_identifier_is_no_segment_but_a_sentence_in_its_place_is() {
    assert_reads(
        OpenAiChat,
        r#"{"messages": [{"role": "tool", "tool_call_id": "say yes", "content": "a"},
            {"role": "assistant", "tool_calls": [{"id": "say no"}, {"id": "call_2"}]}]}"#,
        &["tool_result 0 say yes", "tool_result 0 a", "tool_arguments 1 say no"],
    );
}

#[test]
fn completions_take_text_and_token_ids() {
    let prompt = assert_reads(
        OpenAiCompletions,
        r#"{"prompt": "a", "suffix": "b", "max_tokens": 7, "best_of": 3, "n": 2, "logprobs": 5}"#,
        &["user 0 a", "user 0 b"],
    );
    assert_eq!(prompt.max_output_tokens(), Some(21));
    let prompt = assert_reads(
        OpenAiCompletions,
        r#"{"prompt": ["a", "b"], "max_tokens": 7}"#,
        &["user 0 a", "user 1 b"],
    );
    assert_eq!(prompt.max_output_tokens(), Some(14));
    let prompt = assert_reads(OpenAiCompletions, r#"{"prompt": [1, 2, 3], "max_tokens": 7}"#, &[]);
    assert_eq!(
        (prompt.token_ids(), prompt.unread(), prompt.max_output_tokens()),
        (3, &[Unread::TokenIds][..], Some(7))
    );
    let prompt =
        assert_reads(OpenAiCompletions, r#"{"prompt": [[1, 2], [3]], "max_tokens": 7}"#, &[]);
    assert_eq!(
        (prompt.token_ids(), prompt.unread().len(), prompt.max_output_tokens()),
        (3, 2, Some(14))
    );
    // Mixed: nothing is lost.
    let prompt = assert_reads(
        OpenAiCompletions,
        r#"{"prompt": [1, "a", [2, "b"]]}"#,
        &["user 0 a", "user 1 b"],
    );
    assert_eq!(prompt.token_ids(), 2);
}

#[test]
fn responses_take_a_string_or_items() {
    let prompt = assert_reads(
        OpenAiResponses,
        r#"{"instructions": "a", "input": "b", "max_output_tokens": 9, "previous_response_id": "resp_1",
            "text": {"format": {"type": "json_schema", "name": "c"}}}"#,
        &["system 0 a", "user 0 b", "tool_schema 0 c"],
    );
    assert_eq!(prompt.max_output_tokens(), Some(9));
    let prompt = assert_reads(
        OpenAiResponses,
        r#"{"input": [
            {"role": "user", "content": "a"},
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "b"}]},
            {"type": "message", "role": "user", "content": [
                {"type": "input_image", "image_url": "https://example.com/x.png", "detail": "auto"},
                {"type": "input_file", "file_id": "file-1"}]},
            {"type": "message", "role": "assistant", "status": "completed", "id": "msg_1",
                "content": [{"type": "output_text", "text": "c", "annotations": []}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "d"}], "encrypted_content": "AAAA"},
            {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "e"},
            {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "f"}]},
            {"type": "computer_call_output", "call_id": "call_2", "output": {"type": "computer_screenshot", "image_url": "u"}},
            {"type": "item_reference", "id": "msg_2"},
            {"type": "mcp_call", "name": "g", "arguments": "h", "output": "i"}],
            "tools": [{"type": "function", "name": "j", "description": "k"},
                {"type": "mcp", "server_label": "l", "server_url": "https://m", "headers": {"Authorization": "n"}}]}"#,
        &[
            "user 0 a",
            "developer 1 b",
            "user 2 auto",
            "assistant 3 c",
            "assistant 4 d",
            "tool_arguments 5 look",
            "tool_arguments 5 {}",
            "tool_result 6 e",
            "tool_result 7 f",
            "tool_arguments 10 g",
            "tool_arguments 10 h",
            "tool_result 10 i",
            "tool_schema 0 j",
            "tool_schema 0 k",
            "tool_schema 0 mcp",
            "tool_schema 0 l",
        ],
    );
    assert_eq!(
        prompt.unread(),
        [Unread::Image, Unread::File, Unread::Other, Unread::Image, Unread::Other]
    );
}

#[test]
fn outputs_of_hosted_tools_are_read() {
    let prompt = assert_reads(
        OpenAiResponses,
        r#"{"input": [
            {"type": "code_interpreter_call", "code": "a", "outputs": [{"type": "logs", "logs": "b"}]},
            {"type": "file_search_call", "queries": ["c"], "results": [{"filename": "d", "text": "e"}]},
            {"type": "shell_call_output", "output": [{"stdout": "f", "stderr": ""}]},
            {"type": "image_generation_call", "result": "AAAA", "revised_prompt": "g"},
            {"type": "unheard_of", "h": "i"}]}"#,
        &[
            "tool_arguments 0 a",
            "tool_result 0 b",
            "tool_arguments 1 c",
            "tool_result 1 d",
            "tool_result 1 e",
            "tool_result 2 stdout",
            "tool_result 2 f",
            "tool_result 2 stderr",
            "tool_result 2 ",
            "tool_arguments 3 g",
            "user 4 i",
        ],
    );
    assert_eq!(prompt.unread(), [Unread::Image, Unread::Other]);
}

#[test]
fn members_that_only_a_lenient_parser_takes_are_read_too() {
    // Go's encoding/json matches names whatever their case.
    assert_reads(
        OpenAiChat,
        r#"{"Messages": [{"Content": "a", "Name": "b"}, {"ROLE": "tool", "CONTENT": [{"text": "c"}]}]}"#,
        &["user 0 a", "user 0 b", "tool_result 1 c"],
    );
}

#[test]
fn embeddings_take_strings_lists_pairs_and_token_ids() {
    assert_reads(OpenAiEmbeddings, r#"{"input": "a", "encoding_format": "float"}"#, &["user 0 a"]);
    assert_reads(OpenAiEmbeddings, r#"{"input": ["a", "b"]}"#, &["user 0 a", "user 1 b"]);
    assert_reads(
        OpenAiEmbeddings,
        r#"{"inputs": [["a", "b"], "c"]}"#,
        &["user 0 a", "user 0 b", "user 1 c"],
    );
    assert_eq!(assert_reads(OpenAiEmbeddings, r#"{"input": [[1, 2], [3]]}"#, &[]).token_ids(), 3);
    let prompt = assert_reads(
        OpenAiEmbeddings,
        r#"{"input": [{"text": "a", "image": "u"}]}"#,
        &["user 0 a", "user 0 image", "user 0 u"],
    );
    assert_eq!(prompt.unread(), [Unread::Other]);
}

#[test]
fn messages_take_blocks() {
    let prompt = assert_reads(
        AnthropicMessages,
        r#"{"model": "claude", "max_tokens": 99, "metadata": {"user_id": "x"},
            "system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "5m"}}],
            "messages": [
            {"role": "user", "content": "b"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "c", "signature": "AAAA+/="},
                {"type": "redacted_thinking", "data": "AAAA"},
                {"type": "text", "text": "d"},
                {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"place": {"city": "e"}, "days": [1, "f"]}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "g", "is_error": false},
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [
                    {"type": "text", "text": "h"}, {"type": "image", "source": {"type": "base64", "data": "AAAA"}}]},
                {"type": "document", "title": "i", "source": {"type": "text", "media_type": "text/plain", "data": "j"}},
                {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}},
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "k"}]}},
                {"type": "search_result", "source": "l", "title": "m", "content": [{"type": "text", "text": "n"}]}]}],
            "tools": [{"name": "o", "description": "p", "input_schema": {"type": "object", "properties": {"q": {}}}}]}"#,
        &[
            "system 0 a",
            "user 0 b",
            "assistant 1 c",
            "assistant 1 d",
            "tool_arguments 1 look",
            "tool_arguments 1 place",
            "tool_arguments 1 city",
            "tool_arguments 1 e",
            "tool_arguments 1 days",
            "tool_arguments 1 f",
            "tool_result 2 g",
            "tool_result 2 h",
            "document 2 i",
            "document 2 text/plain",
            "document 2 j",
            "document 2 application/pdf",
            "document 2 k",
            "document 2 l",
            "document 2 m",
            "document 2 n",
            "tool_schema 0 o",
            "tool_schema 0 p",
            "tool_schema 0 q",
        ],
    );
    assert_eq!(prompt.unread(), [Unread::Other, Unread::Image, Unread::File]);
    assert_eq!(prompt.max_output_tokens(), Some(99));
    assert_reads(
        AnthropicMessages,
        r#"{"system": "a", "messages": [{"role": "user", "content": "b"}]}"#,
        &["system 0 a", "user 0 b"],
    );
}

#[test]
fn the_limit_on_the_answer_saturates_and_may_be_absent() {
    for (limit, expected) in [
        ("5", Some(5)),
        ("5.0", Some(5)),
        ("1e2", Some(100)),
        ("0", Some(0)),
        ("-1", None),
        ("null", None),
        ("18446744073709551616", Some(u64::MAX)),
        ("1e999", Some(u64::MAX)),
    ] {
        let body = format!(r#"{{"prompt": "a", "max_tokens": {limit}, "n": 3}}"#);
        let stated = read(Generate, &body).unwrap().max_output_tokens();
        let expected = expected.map(|tokens: u64| tokens.saturating_mul(3));
        assert_eq!(stated, expected, "{limit}");
    }
    let body = r#"{"prompt": "a", "max_tokens": 5, "n": 99999999999999999999, "best_of": -1}"#;
    assert_eq!(read(Generate, body).unwrap().max_output_tokens(), Some(u64::MAX));
}
