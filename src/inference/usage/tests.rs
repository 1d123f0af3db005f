use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::inference::{ByteClasses, TokenEstimator as _};

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect()
}

fn json() -> HeaderMap {
    headers(&[("content-type", "application/json; charset=utf-8")])
}

fn stream() -> HeaderMap {
    headers(&[("content-type", "text/event-stream; charset=utf-8")])
}

fn read(headers: &HeaderMap, body: &[u8], size: usize) -> UsageReader {
    let mut reader = UsageReader::new(headers);
    body.chunks(size).for_each(|cut| reader.push(&Bytes::copy_from_slice(cut)));
    reader.finish();
    reader
}

#[track_caller]
fn assert_states(headers: &HeaderMap, body: &str, expected: Option<(u64, u64)>) {
    for size in [1, 3, 64, body.len().max(1)] {
        let usage = read(headers, body.as_bytes(), size).usage();
        assert_eq!(usage.map(|usage| (usage.input, usage.output)), expected, "{body}");
    }
}

/// As the vendors' references have them: a prompt, what of it was cached, an answer, what of it was reasoning.
#[test]
fn what_was_cached_and_what_was_reasoning() {
    for (headers, body, expected) in [
        (
            json(),
            r#"{"usage": {"prompt_tokens": 2006, "completion_tokens": 300, "total_tokens": 2306, "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 192, "accepted_prediction_tokens": 0}}}"#,
            (2006, 1920, 300, 192),
        ),
        (
            json(),
            r#"{"object": "response", "usage": {"input_tokens": 36, "input_tokens_details": {"cached_tokens": 30}, "output_tokens": 87, "output_tokens_details": {"reasoning_tokens": 80}, "total_tokens": 123}}"#,
            (36, 30, 87, 80),
        ),
        (
            json(),
            r#"{"type": "message", "usage": {"input_tokens": 50, "cache_creation_input_tokens": 248, "cache_read_input_tokens": 100000, "output_tokens": 503}}"#,
            (100_298, 100_000, 503, 0),
        ),
        (
            stream(),
            "event: message_start\ndata: {\"type\": \"message_start\", \"message\": {\"usage\": {\"input_tokens\": 3, \"cache_read_input_tokens\": 40, \"output_tokens\": 1}}}\n\n\
             event: message_delta\ndata: {\"type\": \"message_delta\", \"usage\": {\"output_tokens\": 15}}\n\n",
            (43, 40, 15, 0),
        ),
        (
            stream(),
            "data: {\"choices\": [], \"usage\": null}\n\n\
             data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 9, \"completion_tokens\": 7, \"prompt_tokens_details\": {\"cached_tokens\": 8}, \"completion_tokens_details\": {\"reasoning_tokens\": 5}}}\n\n\
             data: [DONE]\n\n",
            (9, 8, 7, 5),
        ),
        (
            json(),
            r#"{"usageMetadata": {"promptTokenCount": 10, "cachedContentTokenCount": 4, "candidatesTokenCount": 5, "thoughtsTokenCount": 6, "totalTokenCount": 21}}"#,
            (10, 4, 11, 6),
        ),
        (
            json(),
            r#"{"text": "x", "meta_info": {"prompt_tokens": 9, "cached_tokens": 8, "completion_tokens": 2}}"#,
            (9, 8, 2, 0),
        ),
        // No part is more than the whole.
        (
            json(),
            r#"{"usage": {"prompt_tokens": 5, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 50}, "completion_tokens_details": {"reasoning_tokens": 50}}}"#,
            (5, 5, 5, 5),
        ),
        (
            json(),
            r#"{"usage": {"prompt_tokens": 5, "completion_tokens": 5, "prompt_tokens_details": null, "completion_tokens_details": {"reasoning_tokens": -1}}}"#,
            (5, 0, 5, 0),
        ),
    ] {
        let (input, cached, output, reasoning) = expected;
        let expected =
            TokenUsage::new(input, output).with_cached_input(cached).with_reasoning(reasoning);
        for size in [1, 7, body.len()] {
            let usage = read(&headers, body.as_bytes(), size).usage();
            assert_eq!(usage, Some(expected), "{body}");
        }
    }
}

#[test]
fn json_answers() {
    for (body, expected) in [
        (
            r#"{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}}"#,
            (9, 12),
        ),
        (
            r#"{"choices": [{"text": "x"}], "usage": {"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9}}"#,
            (9, 0),
        ),
        (
            r#"{"object": "response", "usage": {"input_tokens": 36, "input_tokens_details": {"cached_tokens": 30}, "output_tokens": 87}}"#,
            (36, 87),
        ),
        (
            r#"{"data": [{"embedding": [0.1, 0.2]}], "usage": {"prompt_tokens": 8, "total_tokens": 8}}"#,
            (8, 0),
        ),
        // A gateway's, with Anthropic's details beside a sum that has them already.
        (
            r#"{"usage": {"prompt_tokens": 1000, "cache_read_input_tokens": 900, "completion_tokens": 5, "total_tokens": 1005}}"#,
            (1000, 5),
        ),
        // Reasoning that a server leaves out of its completion tokens.
        (r#"{"usage": {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 30}}"#, (8, 22)),
        (
            r#"{"type": "message", "usage": {"input_tokens": 5, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 1000, "output_tokens": 7}}"#,
            (1105, 7),
        ),
        (
            r#"{"generated_text": "x", "details": {"generated_tokens": 20, "prefill": [{"id": 1}, {"id": 2}]}}"#,
            (2, 20),
        ),
        (
            r#"{"generated_text": "x", "details": {"generated_tokens": 20, "input_length": 6, "best_of_sequences": [{"generated_tokens": 5}]}}"#,
            (6, 25),
        ),
        (
            r#"[{"details": {"generated_tokens": 20, "input_length": 6}}, {"details": {"generated_tokens": 1, "input_length": 2}}]"#,
            (8, 21),
        ),
        (r#"{"text": "x", "meta_info": {"prompt_tokens": 4, "completion_tokens": 16}}"#, (4, 16)),
        (
            r#"[{"meta_info": {"prompt_tokens": 4, "completion_tokens": 16}}, {"meta_info": {"prompt_tokens": 5, "completion_tokens": 1}}]"#,
            (9, 17),
        ),
        (
            r#"{"response": "x", "done": true, "prompt_eval_count": 26, "eval_count": 290}"#,
            (26, 290),
        ),
        (
            r#"{"candidates": [], "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 5, "thoughtsTokenCount": 6, "totalTokenCount": 15}}"#,
            (4, 11),
        ),
    ] {
        assert_states(&json(), body, Some(expected));
        assert_states(&HeaderMap::new(), body, Some(expected));
    }
}

#[test]
fn text_from_the_model_is_no_usage() {
    for body in [
        r#"{"choices": [{"message": {"content": "\"usage\": {\"prompt_tokens\": 1, \"completion_tokens\": 1}"}}]}"#,
        r#"{"choices": [{"message": {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}}]}"#,
        r#"{"output": {"details": {"generated_tokens": 1, "input_length": 1}}}"#,
        r#"{"message": {"usage": {"input_tokens": 1, "output_tokens": 1}}}"#,
        r#"{"usage": "none"}"#,
        r#"{"usage": {"prompt_tokens": "1", "completion_tokens": -1}}"#,
        r#"{"usage": null}"#,
        r#"{"usage": {"prompt_tokens": 1, "completion_tokens": 1}, "usage": {"prompt_tokens": 1, "completion_tokens": 1}}"#,
        r#"{"usage": {"prompt_tokens": 1, "completion_tokens": 1}"#,
        "",
    ] {
        assert_states(&json(), body, None);
        assert_states(&stream(), &format!("data: {body}\n\n"), None);
    }
    // In an event, within the string that is its text.
    assert_states(
        &stream(),
        "data: {\"choices\":[{\"delta\":{\"content\":\"\\ndata: {\\\"usage\\\":{\\\"prompt_tokens\\\":1}}\\n\"}}]}\n\n",
        None,
    );
}

#[test]
fn openai_streams() {
    let body = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"Hello there\"}}],\"usage\":null}\r\n\r\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":12,\"total_tokens\":21}}\r\n\r\n\
        data: [DONE]\r\n\r\n";
    assert_states(&stream(), body, Some((9, 12)));
    // Continuous usage: the last and largest counts.
    let body = "data: {\"choices\":[{\"text\":\"a\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1}}\n\n\
        data: {\"choices\":[{\"text\":\"b\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\n";
    assert_states(&stream(), body, Some((9, 2)));
    let body = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"usage\":null}}\n\n\
        event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\n\
        event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":37,\"output_tokens\":11}}}\n\n";
    assert_states(&stream(), body, Some((37, 11)));
}

#[test]
fn anthropic_streams() {
    let body = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":25,\"cache_read_input_tokens\":10,\"output_tokens\":1}}}\n\n\
        event: ping\ndata: {\"type\":\"ping\"}\n\n\
        event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}\n\n\
        event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":15}}\n\n\
        event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    assert_states(&stream(), body, Some((35, 15)));
}

#[test]
fn a_stream_that_is_cut_short_is_not_taken_at_its_first_word() {
    let start = b"data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n";
    let mut reader = UsageReader::new(&stream());
    reader.push(&Bytes::from_static(start));
    assert_eq!(reader.usage(), Some(TokenUsage::new(25, 1)));
    for _ in 0..10 {
        reader.push(&Bytes::from_static(b"data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\" word\"}}\n\n"));
    }
    assert!(reader.usage().unwrap().output >= 10);
    reader.push(&Bytes::from_static(
        b"data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":9}}\n\n",
    ));
    reader.finish();
    assert_eq!(reader.usage(), Some(TokenUsage::new(25, 9)));
}

#[test]
fn streams_of_inference_servers() {
    let body = "data:{\"index\":1,\"token\":{\"id\":1,\"text\":\"a\"},\"generated_text\":null,\"details\":null}\n\n\
        data:{\"index\":2,\"token\":{\"id\":2,\"text\":\"b\"},\"generated_text\":\"ab\",\"details\":{\"generated_tokens\":2,\"input_length\":5}}\n\n";
    assert_states(&stream(), body, Some((5, 2)));
    let body = "data: {\"index\":0,\"text\":\"a\",\"meta_info\":{\"prompt_tokens\":4,\"completion_tokens\":1}}\n\n\
        data: {\"index\":1,\"text\":\"b\",\"meta_info\":{\"prompt_tokens\":5,\"completion_tokens\":1}}\n\n\
        data: {\"index\":0,\"text\":\"aa\",\"meta_info\":{\"prompt_tokens\":4,\"completion_tokens\":3}}\n\n";
    assert_states(&stream(), body, Some((9, 4)));
    let lines = headers(&[("content-type", "application/x-ndjson")]);
    let body = "{\"message\":{\"role\":\"assistant\",\"content\":\"Hi\"},\"done\":false}\n{\"done\":true,\"prompt_eval_count\":26,\"eval_count\":7}\n";
    assert_states(&lines, body, Some((26, 7)));
    assert_states(&lines, body.trim_end(), Some((26, 7)));
}

#[test]
fn headers_and_trailers() {
    let mut of_tgi = json();
    of_tgi.extend(headers(&[("x-prompt-tokens", "17"), ("x-generated-tokens", "3")]));
    assert_states(&of_tgi, r#"{"generated_text": "x"}"#, Some((17, 3)));
    let mut reader = UsageReader::new(&headers(&[("content-type", "application/grpc")]));
    reader.push(&Bytes::from_static(&[0; 400]));
    assert_eq!((reader.usage(), reader.output_estimate()), (None, 100));
    reader.trailers(&headers(&[("x-prompt-tokens", "5"), ("x-generated-tokens", "6")]));
    assert_eq!(reader.usage(), Some(TokenUsage::new(5, 6)));
    for nonsense in ["-1", "1.5", "", "99999999999999999999999"] {
        assert_states(&headers(&[("x-prompt-tokens", nonsense)]), "", None);
    }
}

#[test]
fn what_is_not_stated_is_estimated_not_zero() {
    let only_input = headers(&[("content-type", "text/plain"), ("x-prompt-tokens", "5")]);
    assert_states(&only_input, &"x".repeat(40), Some((5, 10)));
    let only_output = r#"{"details": {"generated_tokens": 500}}"#;
    let reader = read(&json(), only_output.as_bytes(), 9);
    assert_eq!((reader.usage(), reader.output_estimate()), (None, 500));
}

#[test]
fn an_encoded_answer_is_only_estimated() {
    let body = br#"{"usage": {"prompt_tokens": 1, "completion_tokens": 1}}"#;
    for encoding in ["gzip", "br", "identity, gzip", "GZIP"] {
        let mut headers = json();
        headers.extend(self::headers(&[("content-encoding", encoding)]));
        let reader = read(&headers, body, 9);
        assert_eq!(
            (reader.usage(), reader.output_estimate()),
            (None, (body.len() as u64).div_ceil(2))
        );
    }
    let mut headers = json();
    headers.extend(self::headers(&[("content-encoding", "Identity")]));
    assert!(read(&headers, body, 9).usage().is_some());
}

#[test]
fn of_an_answer_beyond_the_cap_only_what_it_states_is_held() {
    let usage = r#""usage": {"prompt_tokens": 1, "completion_tokens": 1}"#;
    let body = |length: usize| format!(r#"{{"x": "{}", {usage}}}"#, "x".repeat(length));
    assert_states(&json(), &body(1_000), Some((1, 1)));
    let long = body(MAX_HELD);
    let reader = read(&json(), long.as_bytes(), 4096);
    assert_eq!(reader.usage(), Some(TokenUsage::new(1, 1)));
    assert_eq!(reader.output_estimate(), (long.len() as u64).div_ceil(4));
    let (numbers, said) = ("0.125,".repeat(MAX_HELD / 6), r#"{"usage": {"prompt_tokens": 9}}"#);
    for answer in [
        format!(r#"{{"data": [{{"embedding": [{numbers} 1]}}, {said}], {usage}}}"#),
        format!(r#"{{{usage}, "choices": [[{numbers} 1], {said}, "{{\"usage\"}}"]}}"#),
        format!(
            r#"{{"details": {{"tokens": [{numbers} 1], "input_length": 1, "generated_tokens": 1}}}}"#
        ),
    ] {
        let reader = read(&json(), answer.as_bytes(), 4096);
        assert_eq!(reader.usage(), Some(TokenUsage::new(1, 1)));
    }
    // Of more answers than the first nothing is known, and of none of them anything is stated.
    for of in [r#""best_of_sequences": [{"generated_tokens": 5}]"#, r#""prefill": [{}, {}]"#] {
        let details =
            format!(r#""tokens": [{numbers} 1], "generated_tokens": 1, "input_length": 1"#);
        let answer = format!(r#"{{"details": {{{details}, {of}}}}}"#);
        assert_eq!(read(&json(), answer.as_bytes(), 4096).usage(), None);
    }
    let (name, other) = ("x".repeat(100), "y".repeat(100));
    let answer = format!(r#"{{"text": [{numbers} 1], "{name}": 1, "{other}": 2, {usage}}}"#);
    assert!(read(&json(), answer.as_bytes(), 4096).usage().is_some());
    let endless = "{\"a\":".repeat(MAX_HELD);
    assert_eq!(read(&json(), endless.as_bytes(), 4096).usage(), None);
    let stream = format!("data: {long}\n\ndata: {{{usage}}}\n\n");
    let reader = read(&self::stream(), stream.as_bytes(), 4096);
    assert_eq!(reader.usage(), Some(TokenUsage::new(1, 1)));
    assert!(reader.output_estimate() > long.len() as u64 / 4);
}

#[test]
fn all_text_of_a_stream_is_counted() {
    let estimate = |data: &str| {
        let body = format!("data: {data}\n\n");
        read(&stream(), body.as_bytes(), 7).output_estimate()
    };
    let text = "The tea in Lisbon is warm";
    let tokens = ByteClasses.estimate(text);
    for (data, expected) in [
        (format!(r#"{{"choices":[{{"delta":{{"content":"{text}"}}}}]}}"#), tokens),
        (
            format!(
                r#"{{"choices":[{{"delta":{{"content":[{{"type":"text","text":"{text}"}}]}}}}]}}"#
            ),
            tokens,
        ),
        (
            format!(
                r#"{{"choices":[{{"delta":{{"reasoning_content":"{text}"}}}},{{"delta":{{"content":"{text}"}}}}]}}"#
            ),
            2 * tokens,
        ),
        (
            format!(
                r#"{{"choices":[{{"delta":{{"role":"assistant","tool_calls":[{{"index":0,"id":"call_1","type":"function","function":{{"arguments":"{text}"}}}}]}}}}]}}"#
            ),
            tokens,
        ),
        (
            format!(
                r#"{{"id":"c","object":"o","choices":[{{"text":"{text}","finish_reason":"length"}}]}}"#
            ),
            tokens,
        ),
        (
            format!(
                r#"{{"type":"content_block_delta","delta":{{"type":"text_delta","text":"{text}"}}}}"#
            ),
            tokens,
        ),
        (
            format!(
                r#"{{"type":"content_block_delta","delta":{{"type":"input_json_delta","partial_json":"{text}"}}}}"#
            ),
            tokens,
        ),
        (
            format!(
                r#"{{"type":"content_block_delta","delta":{{"type":"thinking_delta","thinking":"{text}"}}}}"#
            ),
            tokens,
        ),
        (format!(r#"{{"type":"response.output_text.delta","delta":"{text}"}}"#), tokens),
        (format!(r#"{{"type":"response.completed","response":{{"output":"{text}"}}}}"#), 0),
        (format!(r#"{{"token":{{"text":"{text}"}},"generated_text":"{text}"}}"#), 1),
        (text.to_owned(), tokens),
        (format!(r#"{{"answer":"{text}"}}"#), tokens),
        (r#"{"type":"ping"}"#.to_owned(), 0),
        ("[DONE]".to_owned(), 0),
    ] {
        assert_eq!(estimate(&data), expected, "{data}");
    }
}

#[test]
fn the_estimate_grows_while_the_stream_runs() {
    let mut reader = UsageReader::new(&stream());
    let mut before = 0;
    for _ in 0..5 {
        reader.push(&Bytes::from_static(
            b"data: {\"choices\":[{\"delta\":{\"content\":\" word\"}}]}\n\n",
        ));
        assert!(reader.output_estimate() > before);
        before = reader.output_estimate();
    }
    assert_eq!(reader.usage(), None);
}

proptest! {
    #[test]
    fn what_is_read_does_not_depend_on_the_cuts(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "data: {\"choices\":[{\"delta\":{\"content\":\"héllo\"}}]}", "data: {\"usage\":{\"prompt_tokens\":7,",
            "data: \"completion_tokens\":5}}", "\n", "\r\n", "\n\n", "\r", "data: [DONE]", "data: {\"eval_count\":3}", ": x",
            "{\"usage\":{\"prompt_tokens\":7}}", "plain", "😀",
        ]), 0..30),
        size in 1usize..20,
        kind in 0usize..4,
    ) {
        let headers = [stream(), json(), headers(&[("content-type", "application/x-ndjson")]), headers(&[("content-encoding", "br")])];
        let body = pieces.concat();
        let whole = read(&headers[kind], body.as_bytes(), body.len().max(1));
        let cut = read(&headers[kind], body.as_bytes(), size);
        prop_assert_eq!(cut.usage(), whole.usage());
        prop_assert_eq!(cut.output_estimate(), whole.output_estimate());
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(body: Vec<u8>, size in 1usize..9, kind in 0usize..3) {
        let headers = [stream(), json(), headers(&[("content-type", "application/x-ndjson")])];
        let reader = read(&headers[kind], &body, size);
        prop_assert!(reader.usage().is_none());
        // A byte that is not UTF-8 reads as a character of three.
        let bound = 3 * body.len() as u64;
        prop_assert!(reader.output_estimate() <= bound);
    }
}
