//! The estimate by byte classes beside the exact count, on 16 kB of text.
//!
//! `scripts/bench tokens`.

#![allow(missing_docs)]

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use palisade::inference::{Bpe, ByteClasses, TokenEstimator};

const LENGTH: usize = 16_000;

fn tokens(c: &mut Criterion) {
    let texts = [("english", ENGLISH), ("code", CODE), ("cjk", CJK)];
    for (name, text) in texts {
        let text = &*text.repeat(LENGTH / text.len());
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(text.len() as u64));
        let estimators: [(&str, &dyn TokenEstimator); 3] =
            [("byte classes", &ByteClasses), ("cl100k", &Bpe::Cl100k), ("o200k", &Bpe::O200k)];
        for (name, estimator) in estimators {
            estimator.estimate(text);
            group.bench_function(name, |b| b.iter(|| estimator.estimate(black_box(text))));
        }
        group.bench_function("o200k, at most 100", |b| {
            b.iter(|| Bpe::O200k.count_within(black_box(text), 100));
        });
        group.finish();
    }
}

const ENGLISH: &str = "Every request is held to the rules before the model sees it. The server asks who is \
    calling, from which machine, and how much the caller may still use this minute. A prompt that tries to \
    talk the model out of its instructions is refused, and the answer is read as it streams back. ";

const CODE: &str = "fn take(&mut self, cost: u64) -> Result<(), Refused> {\n    let now = self.clock.monotonic();\n    \
    for bucket in self.buckets.iter_mut() {\n        bucket.drain(now);\n        if bucket.level + cost > \
    bucket.capacity {\n            return Err(Refused { retry_after: bucket.wait(cost) });\n        }\n    }\n    \
    Ok(())\n}\n";

const CJK: &str = "推理服务器在自己的进程里检查每一个请求：谁在调用，来自哪个工作负载，可以使用多少，以及可以问什么。\
    このサーバーはすべてのリクエストを検査し、誰が呼び出しているのか、どれだけ使えるのかを確認します。";

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = tokens
}
criterion_main!(benches);
