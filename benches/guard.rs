//! What the guard's detectors cost: to build, in memory, and for each prompt.
//!
//! `scripts/bench guard`; with `PALISADE_VECTORS`, on prompts that people wrote, too.

#![allow(clippy::expect_used, missing_docs)]

use std::{convert::Infallible, hint::black_box, time::Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body_util::Full;
use palisade::{
    body::RequestBody,
    inference::{Origin, Prompt, ReadLimits, Segment},
    prompt_guard::{
        Action, Detector, InjectionRules, PersonalData, PlantedCanary, PromptGuardLayer, Secrets,
        Spotlighting, SystemPromptLeak, Topics, Views,
    },
    route::Endpoint,
};
use tower::{Layer as _, ServiceExt as _};

fn guard(c: &mut Criterion) {
    let all = detectors();
    let texts = [
        ("560 clean characters", repeated(CLEAN, 560)),
        ("560 characters with numbers", repeated(NUMBERS, 560)),
        ("100 kB", repeated(CLEAN, 100_000)),
    ];
    for (name, text) in &texts {
        let mut group = c.benchmark_group(*name);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function("views", |b| b.iter(|| Views::of(black_box(text))));
        for detector in &all {
            let views = Views::of(text);
            group.bench_function(detector.name(), |b| b.iter(|| scan(&**detector, text, &views)));
        }
        group.bench_function("all", |b| {
            b.iter(|| {
                let views = Views::of(black_box(text));
                all.iter().map(|detector| scan(&**detector, text, &views)).sum::<usize>()
            });
        });
        group.finish();
    }
    // Unlike texts, as they come: no word of one prepares for the next.
    let prompts = varied_prompts();
    if prompts.is_empty() {
        println!("skipped: varied prompts (PALISADE_VECTORS names no folder of them)");
        return;
    }
    let mut group = c.benchmark_group("varied prompts of 560 characters");
    let mut each = |name: &str, work: &dyn Fn(&str) -> usize| {
        let mut prompts = prompts.iter().cycle();
        group.bench_function(name, |b| {
            b.iter(|| prompts.next().map(|prompt| work(black_box(prompt))));
        });
    };
    each("views", &|text| Views::of(text).iter().count());
    for detector in &all {
        each(detector.name(), &|text| scan(&**detector, text, &Views::of(text)));
    }
    let whole = |text: &str| {
        let views = Views::of(text);
        all.iter().map(|detector| scan(&**detector, text, &views)).sum::<usize>()
    };
    each("all", &whole);
    group.finish();
    let long = prompts.iter().flat_map(|prompt| prompt.chars()).take(100_000).collect::<String>();
    let mut group = c.benchmark_group("varied 100 kB");
    group.throughput(Throughput::Bytes(long.len() as u64));
    group.bench_function("views", |b| b.iter(|| Views::of(black_box(&long)).iter().count()));
    for detector in &all {
        group.bench_function(detector.name(), |b| {
            b.iter(|| scan(&**detector, &long, &Views::of(&long)));
        });
    }
    group.bench_function("all", |b| b.iter(|| whole(&long)));
    group.finish();
}

/// A whole request: its fiftieth turn beside its first, with what was found in the older ones remembered and without.
fn conversation(c: &mut Criterion) {
    let mut group = c.benchmark_group("conversation");
    let layer = |texts| {
        let guard = PromptGuardLayer::builder()
            .detector(Secrets::builtin().expect("built in"), Action::Block)
            .detector(PersonalData::builder().build().expect("built in"), Action::Report)
            .detector(InjectionRules::builtin().expect("built in"), Action::Block);
        guard.remember_texts(texts).build().expect("it makes sense")
    };
    for (name, texts, turns) in
        [("turn 1", 16_384, 1), ("turn 50", 16_384, 50), ("turn 50, not remembered", 0, 50)]
    {
        let service = layer(texts).layer(tower::service_fn(
            async |request: Request<RequestBody<Full<Bytes>>>| {
                Ok::<_, Infallible>(Response::new(request.into_body()))
            },
        ));
        let mut number = 0_u64;
        group.bench_function(name, |b| {
            b.iter(|| {
                // What is asked is new each time, and the older turns are as they were.
                number += 1;
                let asked = format!("{{\"messages\":[{}{}]}}", older(turns), message(number));
                let request = Request::post("/v1/chat/completions").body(Full::from(asked));
                let request = request.expect("a request");
                service.clone().oneshot(request).now_or_never().expect("nothing waits")
            });
        });
    }
    group.finish();
}

/// What looks at answers by what was asked, at topics, and what is added to a prompt.
fn policies(c: &mut Criterion) {
    let mut group = c.benchmark_group("system prompt leak");
    for length in [560, 8_000] {
        let system = varied(&repeated(CLEAN, length));
        let body = format!("{{\"messages\":[{{\"role\":\"system\",\"content\":\"{system}\"}}]}}");
        let prompt = Prompt::read(Endpoint::OpenAiChat, Bytes::from(body), &ReadLimits::default());
        let prompt = prompt.expect("a prompt");
        let leak = SystemPromptLeak::default();
        let looks = leak.answering(&prompt).expect("it is long enough");
        group.bench_function(format!("made of {length} characters"), |b| {
            b.iter(|| leak.answering(black_box(&prompt)).is_some());
        });
        let clean = repeated(CLEAN, 560);
        let views = Views::of(&clean);
        group.bench_function(format!("an answer of 560 characters, beside {length}"), |b| {
            b.iter(|| scan(&*looks, &clean, &views));
        });
    }
    group.finish();

    let words = |count: usize| (0..count).map(|number| format!("word{number} of these"));
    let mut group = c.benchmark_group("topics");
    for phrases in [20, 2_000] {
        let topics = Topics::builder().deny("denied", words(phrases)).build().expect("topics");
        let clean = repeated(CLEAN, 560);
        let views = Views::of(&clean);
        group.bench_function(format!("560 characters, {phrases} phrases"), |b| {
            b.iter(|| scan(&topics, &clean, &views));
        });
    }
    group.finish();

    let mut group = c.benchmark_group("added to a request with 5 kB of a tool");
    let tool = message(1).replace("assistant", "tool").replace("user", "tool");
    let system = r#"{"role":"system","content":"You are Max. Be brief."}"#;
    let tool = vec![tool; 9].join(",");
    let body = Bytes::from(format!("{{\"messages\":[{system},{tool}]}}"));
    let guard = PromptGuardLayer::builder;
    for (name, guard) in [
        ("nothing", guard()),
        ("planted canary", guard().plant_canary(PlantedCanary::per_request(), Action::Block)),
        ("delimited", guard().spotlight(Spotlighting::delimit())),
        ("datamarked", guard().spotlight(Spotlighting::datamark())),
    ] {
        let service = guard.build().expect("it makes sense").layer(tower::service_fn(
            async |_: Request<RequestBody<Full<Bytes>>>| {
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
            },
        ));
        group.bench_function(name, |b| {
            b.iter(|| {
                let request = Request::post("/v1/chat/completions");
                let request = request.body(Full::from(body.clone())).expect("a request");
                service.clone().oneshot(request).now_or_never().expect("nothing waits")
            });
        });
    }
    group.finish();
}

/// The same with other words, so that it does not repeat itself.
fn varied(text: &str) -> String {
    let words = text.split(' ').enumerate();
    words.map(|(number, word)| format!("{word}{} ", number / 7 % 100)).collect()
}

fn older(turns: u64) -> String {
    (1..turns).map(|turn| message(u64::MAX - turn) + ",").collect()
}

fn message(number: u64) -> String {
    let role = if number.is_multiple_of(2) { "assistant" } else { "user" };
    format!("{{\"role\":\"{role}\",\"content\":\"{number} {}\"}}", repeated(CLEAN, 540))
}

/// Benign prompts that people wrote (OpenAssistant), joined and cut.
fn varied_prompts() -> Vec<String> {
    let Some(folder) = std::env::var_os("PALISADE_VECTORS") else { return Vec::new() };
    let path = std::path::Path::new(&folder).join("prompts/oasst_eval.jsonl");
    let Ok(lines) = std::fs::read_to_string(path) else { return Vec::new() };
    let texts = lines.lines().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(line.get("text")?.as_str()?.to_owned())
    });
    let all = texts.collect::<Vec<_>>().join("\n");
    let characters: Vec<char> = all.chars().collect();
    characters.chunks_exact(560).map(|chunk| chunk.iter().collect()).collect()
}

fn scan(detector: &dyn Detector, text: &str, views: &Views<'_>) -> usize {
    let mut findings = Vec::new();
    detector.scan(&Segment::new(0, black_box(text), Origin::User, 0), views, &mut findings);
    findings.len()
}

/// Builds them, and prints what that takes and what they hold once they have scanned.
fn detectors() -> Vec<Box<dyn Detector>> {
    let build: [fn() -> Box<dyn Detector>; 3] = [
        || Box::new(Secrets::builtin().expect("built in")),
        || Box::new(PersonalData::builder().build().expect("built in")),
        || Box::new(InjectionRules::builtin().expect("built in")),
    ];
    let text = repeated(NUMBERS, 2_000);
    build
        .map(|build| {
            let mut detector = None;
            let started = Instant::now();
            let held = allocation_counter::measure(|| {
                let built = build();
                let taken = started.elapsed();
                scan(&*built, &text, &Views::of(&text));
                detector = Some((built, taken));
            });
            let (detector, taken) = detector.expect("was built");
            println!(
                "{}: built in {taken:?}, holds {} KiB",
                detector.name(),
                held.bytes_current / 1024
            );
            detector
        })
        .into()
}

fn repeated(text: &str, length: usize) -> String {
    text.chars().cycle().take(length).collect()
}

const CLEAN: &str = "The committee met on Tuesday to discuss the new library, its opening hours and the budget for next \
    year. Nobody minded that the tokens for the vending machine are kept secret. ";

const NUMBERS: &str = "On 2024-03-01 at 12:30 the build 1.14.2 took 318 seconds, used 4096 MB and wrote 1700000000 rows; \
    commit 3f786850e387550fdab836ed7e6dc881de23001b went out to 10 000 users, see ticket 12345-678. ";

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = guard, conversation, policies
}
criterion_main!(benches);
