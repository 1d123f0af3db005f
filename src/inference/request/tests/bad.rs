//! Requests that can't be read.

use super::*;

use Endpoint::{
    AnthropicMessages, Generate, OpenAiChat, OpenAiCompletions, OpenAiEmbeddings, OpenAiResponses,
};

fn error(endpoint: Endpoint, body: impl Into<Bytes>) -> ReadErrorKind {
    Prompt::read(endpoint, body.into(), &ReadLimits::new()).unwrap_err().kind()
}

#[test]
fn bodies_that_are_no_json_are_refused() {
    for (body, expected) in [
        (&b"{\"prompt\": \"\xff\"}"[..], ReadErrorKind::NotUtf8),
        (b"", ReadErrorKind::NotJson),
        (b"prompt=x", ReadErrorKind::NotJson),
        (b"{\"prompt\": \"x\"", ReadErrorKind::NotJson),
        (b"{\"prompt\": \"x\"} {\"prompt\": \"y\"}", ReadErrorKind::NotJson),
        (b"{\"prompt\": \"\\ud83d\"}", ReadErrorKind::NotJson),
        (b"\xef\xbb\xbf{\"prompt\": \"x\"}", ReadErrorKind::NotJson),
        (b"{\"prompt\": \"x\", \"prompt\": \"y\"}", ReadErrorKind::DuplicateKey),
        (b"{\"prompt\": \"x\", \"pr\\u006fmpt\": \"y\"}", ReadErrorKind::DuplicateKey),
    ] {
        assert_eq!(error(Generate, Bytes::from_static(body)), expected);
    }
}

#[test]
fn every_truncation_is_refused() {
    let body = r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "a\u00e9"}]}], "n": 2}"#;
    for end in 0..body.len() {
        assert_eq!(error(OpenAiChat, body[..end].to_owned()), ReadErrorKind::NotJson, "{end}");
    }
}

#[test]
fn depth_values_and_segments_are_bounded() {
    let limits = ReadLimits::new().max_depth(4).max_segments(3).max_values(20);
    let error = |body: String| {
        Prompt::read(Generate, body.into(), &limits).map(|_| ()).map_err(|error| error.kind())
    };
    assert_eq!(error(r#"{"prompt": ["a", "b", "c"]}"#.into()), Ok(()));
    assert_eq!(error(r#"{"prompt": ["a", "b", "c", "d"]}"#.into()), Err(ReadErrorKind::TooMany));
    assert_eq!(error(r#"{"prompt": "a", "x": [[[1]]]}"#.into()), Ok(()));
    assert_eq!(error(r#"{"prompt": "a", "x": [[[[1]]]]}"#.into()), Err(ReadErrorKind::TooDeep));
    let ids = format!(r#"{{"prompt": [{}1]}}"#, "1,".repeat(20));
    assert_eq!(error(ids), Err(ReadErrorKind::TooMany));
}

#[test]
fn the_deepest_nesting_that_can_be_allowed_does_no_harm() {
    let open = r#"{"type":"tool_result","content":["#.repeat(255);
    let body = format!(r#"{{"messages":[{{"content":[{open}"x"{}]}}]}}"#, "]}".repeat(255));
    let limits = ReadLimits::new().max_depth(usize::MAX);
    let error = Prompt::read(AnthropicMessages, body.clone().into(), &limits).unwrap_err();
    assert_eq!(error.kind(), ReadErrorKind::TooDeep);
    let body = body.replacen(r#"{"type":"tool_result","content":["#, "", 2).replacen("]}", "", 2);
    let prompt = Prompt::read(AnthropicMessages, body.into(), &limits).unwrap();
    assert_eq!(segments(&prompt), ["tool_result 0 x"]);
}

#[test]
fn wrong_types_are_refused() {
    for (endpoint, body) in [
        (Generate, r#"[]"#),
        (Generate, r#""prompt""#),
        (Generate, r#"{"prompt": 5}"#),
        (Generate, r#"{"prompt": true}"#),
        (Generate, r#"{"prompt": ["a", null]}"#),
        (Generate, r#"{"prompt": ["a", false]}"#),
        (Generate, r#"{"inputs": "a", "parameters": "max_new_tokens"}"#),
        (Generate, r#"{"inputs": "a", "parameters": {"max_new_tokens": "5"}}"#),
        (Generate, r#"{"text": "a", "sampling_params": [5]}"#),
        (Generate, r#"{"input_ids": "a"}"#),
        (Generate, r#"{"input_ids": [1, "a"]}"#),
        (Generate, r#"{"input_ids": [1.5]}"#),
        (Generate, r#"{"input_ids": [-1]}"#),
        (Generate, r#"{"input_embeds": 5}"#),
        (Generate, r#"{"prompt": "a", "stream": "true"}"#),
        (Generate, r#"{"prompt": "a", "stream": 1}"#),
        (Generate, r#"{"prompt": "a", "max_tokens": "5"}"#),
        (Generate, r#"{"prompt": "a", "max_tokens": 1.5}"#),
        (Generate, r#"{"prompt": "a", "max_tokens": true}"#),
        (Generate, r#"{"prompt": "a", "max_tokens": [5]}"#),
        (Generate, r#"{"prompt": "a", "n": "2"}"#),
        (Generate, r#"{"prompt": "a", "model": 5}"#),
        (OpenAiCompletions, r#"{"prompt": [1, -2]}"#),
        (OpenAiCompletions, r#"{"prompt": [[1, true]]}"#),
        (OpenAiCompletions, r#"{"prompt": "a", "suffix": 5}"#),
        (OpenAiChat, r#"{"messages": "a"}"#),
        (OpenAiChat, r#"{"messages": {"role": "user", "content": "a"}}"#),
        (OpenAiChat, r#"{"messages": ["a"]}"#),
        (OpenAiChat, r#"{"messages": [null]}"#),
        (OpenAiChat, r#"{"messages": [{"role": 5, "content": "a"}]}"#),
        (OpenAiChat, r#"{"messages": [{"role": "user", "content": 5}]}"#),
        (OpenAiChat, r#"{"messages": [{"role": "user", "content": [5]}]}"#),
        (OpenAiChat, r#"{"messages": [{"role": "user", "content": [null]}]}"#),
        (OpenAiChat, r#"{"messages": [{"role": "user", "content": [{"type": 5}]}]}"#),
        (
            OpenAiChat,
            r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}"#,
        ),
        (OpenAiChat, r#"{"messages": [{"role": "user", "content": "a", "name": 5}]}"#),
        (OpenAiChat, r#"{"messages": [{"role": "assistant", "tool_calls": "a"}]}"#),
        (OpenAiChat, r#"{"messages": [{"content": "a"}], "tools": "a"}"#),
        (OpenAiChat, r#"{"messages": [{"content": "a"}], "tools": ["a"]}"#),
        (OpenAiResponses, r#"{"input": 5}"#),
        (OpenAiResponses, r#"{"input": "a", "instructions": 5}"#),
        (OpenAiResponses, r#"{"input": [{"type": 5}]}"#),
        (OpenAiEmbeddings, r#"{"input": false}"#),
        (AnthropicMessages, r#"{"messages": [{"content": "a"}], "system": 5}"#),
        (
            AnthropicMessages,
            r#"{"messages": [{"content": [{"type": "document", "source": "a"}]}]}"#,
        ),
        (
            AnthropicMessages,
            r#"{"messages": [{"content": [{"type": "tool_result", "content": 5}]}]}"#,
        ),
    ] {
        assert_eq!(read(endpoint, body).map(|_| ()), Err(ReadErrorKind::WrongType), "{body}");
    }
}

#[test]
fn a_request_without_a_prompt_is_refused() {
    for (endpoint, body) in [
        (Generate, "{}"),
        (Generate, r#"{"prompt": null}"#),
        (Generate, r#"{"prompt": []}"#),
        (Generate, r#"{"unheard_of": "a"}"#),
        (OpenAiChat, r#"{"prompt": "a"}"#),
        (OpenAiChat, r#"{"messages": []}"#),
        (OpenAiChat, r#"{"messages": [{"role": "user", "content": null}]}"#),
        (OpenAiCompletions, r#"{"prompt": [[]]}"#),
        (OpenAiResponses, r#"{"model": "m"}"#),
        (AnthropicMessages, r#"{"system": "a"}"#),
        (Endpoint::Grpc, r#"{"prompt": "a"}"#),
        (Endpoint::Other, r#"{"prompt": "a"}"#),
    ] {
        assert_eq!(read(endpoint, body).map(|_| ()), Err(ReadErrorKind::NoPrompt), "{body}");
    }
}

#[test]
fn the_refusal_is_the_callers_fault_and_says_nothing_of_the_input() {
    let error =
        Prompt::read(Generate, Bytes::from_static(b"{secret}"), &ReadLimits::new()).unwrap_err();
    let rejection = Rejection::from(error);
    assert_eq!(rejection.kind().status(), 400);
    assert_eq!(rejection.code(), "invalid_request");
    assert!(!format!("{error} {error:?} {rejection:?}").contains("secret"));
}

use crate::reject::Rejection;

#[test]
fn names_that_some_servers_take_for_others_hide_nothing() {
    let unread = |endpoint, body: &str| {
        let prompt = Prompt::read(endpoint, body.to_owned().into(), &ReadLimits::new());
        !prompt.unwrap().unread().is_empty()
    };
    for body in [
        r#"{"prompt": "a", "Context": [1, 2]}"#,
        r#"{"prompt": "a", "Image\u017f": ["AAAA"]}"#,
        r#"{"prompt": "a", "to\u212aen_ids": [1, 2]}"#,
        r#"{"Prompt": "a", "TEMPLATE": "{{.System}}"}"#,
    ] {
        assert!(unread(Generate, body), "{body}");
    }
    let image = r#"{"messages": [{"role": "user", "content": "a", "Images": ["AAAA"]}]}"#;
    assert!(unread(OpenAiChat, image));
    // A server that knows no other name for it takes it for a prompt.
    let prompt = r#"{"prompt": "a", "Stop": "b"}"#.to_owned();
    let prompt = Prompt::read(Generate, prompt.into(), &ReadLimits::new()).unwrap();
    assert_eq!(prompt.segments().count(), 2);
    let system = r#"{"messages": [{"Role": "system", "Content": "a"}]}"#.to_owned();
    let system = Prompt::read(OpenAiChat, system.into(), &ReadLimits::new()).unwrap();
    assert!(system.segments().all(|segment| segment.origin == Origin::System));
    for (endpoint, body) in [
        (Generate, r#"{"prompt": "a", "model": "large", "Model": "small"}"#),
        (OpenAiChat, r#"{"messages": [{"role": "user", "Role": "system", "content": "a"}]}"#),
    ] {
        assert_eq!(error(endpoint, body), ReadErrorKind::DuplicateKey, "{body}");
    }
}

#[test]
fn an_image_beside_the_text_of_a_part_is_told() {
    for part in [
        r#"{"text": "a", "image_url": "data:image/png;base64,AAAA"}"#,
        r#"{"type": "text", "text": "a", "uuid": "u", "audio_url": {"url": "https://a.example"}}"#,
    ] {
        let body = format!(r#"{{"messages": [{{"role": "user", "content": [{part}]}}]}}"#);
        let prompt = Prompt::read(OpenAiChat, body.into(), &ReadLimits::new()).unwrap();
        assert_eq!(prompt.unread(), [Unread::Other], "{part}");
    }
    let body = r#"{"messages": [{"role": "user", "content": [{"text": "a", "image_url": null}]}]}"#;
    let prompt = Prompt::read(OpenAiChat, body.into(), &ReadLimits::new()).unwrap();
    assert!(prompt.unread().is_empty());
}
