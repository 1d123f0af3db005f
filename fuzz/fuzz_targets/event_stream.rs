//! An answer in events, or in lines, through the guard: whatever it is and however it is cut, the same goes on, no text that is
//! masked or blocks is among it, and what needs no mask passes byte for byte. So does the reader of events see the same.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use palisade::{
    inference::EventReader,
    prompt_guard::{Action, PromptGuardLayer},
};
use palisade_fuzz::guard::{PATHS, Word, answered};

static GUARD: LazyLock<PromptGuardLayer> = LazyLock::new(|| {
    PromptGuardLayer::builder()
        .output_detector(Word("hide"), Action::Redact)
        .output_detector(Word("evil"), Action::Block)
        .hold_back(48, std::time::Duration::from_secs(60))
        .build()
        .unwrap()
});

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (path, size, stream) = input;
    let (path, size) = (usize::from(path), usize::from(size).max(1));
    let stream = Bytes::copy_from_slice(stream);
    let content_type = TYPES[path / PATHS.len() % TYPES.len()];
    let through = |size| answered(&GUARD, path, content_type, &stream, size).1;
    let whole = through(stream.len().max(1));
    assert_eq!(whole, through(size));
    let text = String::from_utf8_lossy(&stream);
    // Both words have one. Escapes may make another.
    let quiet = !text.contains(['e', '\\']);
    // A text that first says all of it and then what is new alone can't be read.
    let is_mixed = stream.windows(9).any(|window| window == b"meta_info")
        && String::from_utf8_lossy(&whole).contains("can't be checked here");
    if quiet && !is_mixed {
        assert_eq!(whole, stream);
    }
    let (events, raw) = read(&stream, stream.len().max(1));
    assert_eq!(raw, stream);
    assert_eq!(events, read(&stream, size).0);
});

const TYPES: [&str; 2] = ["text/event-stream", "application/x-ndjson"];

/// The events, each with its name and data, and all of their bytes.
fn read(stream: &[u8], size: usize) -> (Vec<(String, Option<String>)>, Vec<u8>) {
    let (mut events, mut raw) = (Vec::new(), Vec::new());
    let mut reader = EventReader::new();
    let mut keep = |event: palisade::inference::Event<'_>| {
        assert!(!event.oversized && event.length == event.raw.len());
        raw.extend_from_slice(event.raw);
        events.push((event.name().to_owned(), event.data().map(str::to_owned)));
    };
    stream.chunks(size).for_each(|piece| reader.push(piece, &mut keep));
    reader.finish(&mut keep);
    (events, raw)
}
