//! An answer in events through the guard: whatever it is and however it is cut, the same goes on, no text that is
//! masked or blocks is among it, and what needs no mask passes byte for byte.
#![no_main]

use std::{convert::Infallible, sync::LazyLock};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use libfuzzer_sys::fuzz_target;
use palisade::{
    inference::Segment,
    prompt_guard::{Action, Category, Detector, Finding, PromptGuardLayer, Views},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

#[derive(Debug)]
struct Word(&'static str);

impl Detector for Word {
    fn name(&self) -> &'static str {
        "word"
    }

    fn scan(&self, segment: &Segment<'_>, _: &Views<'_>, findings: &mut Vec<Finding>) {
        findings.extend(segment.text.match_indices(self.0).map(|(at, word)| {
            Finding::new("x.word", Category::Custom, 1.0, segment.index, Some(at..at + word.len()))
        }));
    }
}

static GUARD: LazyLock<PromptGuardLayer> = LazyLock::new(|| {
    PromptGuardLayer::builder()
        .output_detector(Word("hide"), Action::Redact)
        .output_detector(Word("evil"), Action::Block)
        .hold_back(48, std::time::Duration::from_secs(60))
        .build()
        .unwrap()
});

const PATHS: [(&str, &str); 4] = [
    ("/v1/chat/completions", r#"{"messages":[{"role":"user","content":"x"}]}"#),
    ("/v1/messages", r#"{"messages":[{"role":"user","content":"x"}]}"#),
    ("/v1/responses", r#"{"input":"x"}"#),
    ("/generate", r#"{"inputs":"x"}"#),
];

fn through(path: usize, stream: &Bytes, size: usize) -> Bytes {
    let (path, body) = PATHS[path % PATHS.len()];
    let stream = stream.clone();
    let service = GUARD.layer(service_fn(move |_: Request<_>| {
        let pieces: Vec<_> = stream.chunks(size).map(|piece| stream.slice_ref(piece)).collect();
        let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let answer = Response::builder().header("content-type", "text/event-stream").body(body);
        async { Ok::<_, Infallible>(answer.unwrap()) }
    }));
    let request = Request::post(path).body(Full::from(body)).unwrap();
    futures_util::FutureExt::now_or_never(async {
        service.oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes()
    })
    .expect("nothing waits")
}

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (path, size, stream) = input;
    let stream = Bytes::copy_from_slice(stream);
    let whole = through(path.into(), &stream, stream.len().max(1));
    let cut = through(path.into(), &stream, usize::from(size).max(1));
    assert_eq!(whole, cut);
    let text = String::from_utf8_lossy(&stream);
    // Both words have one. Escapes may make another.
    let quiet = !text.contains(['e', '\\']);
    if quiet {
        assert_eq!(whole, stream);
    }
});
