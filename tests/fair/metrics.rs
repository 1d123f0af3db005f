//! What can be seen from outside.

use std::collections::VecDeque;

use http_body_util::BodyExt as _;
use palisade::rate_limit::fair::{Capacity, Share};

use crate::support::{ask, assert_idle, behind, capacity, now, request, shared};

#[tokio::test(start_paused = true)]
async fn each_tier_is_told_of() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let told = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let fair = shared(Capacity::slots(2), Share::percent(50).queue(1)).build().unwrap();
    let (service, engine) = behind(&fair);
    let holds = |expected: &str| {
        let told = told.render();
        assert!(told.lines().any(|line| line == expected), "{expected} in\n{told}");
    };
    let first = now(ask(&service, request("free/a")).await).await;
    let second = now(ask(&service, request("free/a")).await).await;
    let third = ask(&service, request("free/a")).await;
    assert_eq!(now(ask(&service, request("free/a")).await).await.status(), 503);
    holds("palisade_fair_in_use{tier=\"free\"} 2");
    holds("palisade_fair_borrowed{tier=\"free\"} 1");
    holds("palisade_fair_waiting{tier=\"free\"} 1");
    holds("palisade_fair_in_use{tier=\"enterprise\"} 0");
    holds("palisade_fair_refused_total{tier=\"free\",reason=\"queue_full\"} 1");
    holds("palisade_refused_total{layer=\"rate_limit\",code=\"queue_full\"} 1");
    holds("palisade_fair_waited_seconds_count{tier=\"free\"} 2");
    drop((engine.take("a"), engine.take("a"), first, second));
    drop(third.await.unwrap());
    holds("palisade_fair_in_use{tier=\"free\"} 0");
    holds("palisade_fair_borrowed{tier=\"free\"} 0");
    holds("palisade_fair_waiting{tier=\"free\"} 0");
    holds("palisade_fair_waited_seconds_count{tier=\"free\"} 3");
    holds("palisade_fair_tokens_total{tier=\"free\"} 768");
    holds("palisade_admitted_total{layer=\"rate_limit\"} 3");
    // Nobody is named.
    assert!(!told.render().contains("alice") && !told.render().contains("login.example"));
}

/// Trap 33.
#[tokio::test(start_paused = true)]
async fn an_engine_that_keeps_a_queue_of_its_own_is_found() {
    for (runs, found) in [(2, Some(2)), (4, None)] {
        let fair = capacity(4).build().unwrap();
        let (service, engine) = behind(&fair);
        let (mut waiting, mut answering) = (VecDeque::new(), VecDeque::new());
        for _ in 0..200 {
            while waiting.len() + answering.len() < 4 {
                let answer = now(ask(&service, request("free/a")).await).await;
                waiting.push_back((engine.take("a"), answer));
            }
            if answering.len() == runs {
                answering.pop_front();
                continue;
            }
            let (stream, mut answer) = waiting.pop_front().unwrap();
            stream.send("data: {}\n\n");
            assert!(answer.frame().await.unwrap().unwrap().is_data());
            answering.push_back((stream, answer));
        }
        drop((waiting, answering));
        assert_eq!(fair.snapshot().engine_slots, found);
        assert_idle(&fair);
    }
}
