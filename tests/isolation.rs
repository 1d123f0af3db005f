//! Abuse in one tier slows no other: what the README promises of fair admission, on a modelled engine.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::process::{Command, Output};

#[test]
fn what_is_promised_of_isolation_holds() {
    let output = isolation(&["--check", "--seconds", "130", "--seeds", "1"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let verdicts: Vec<_> = text.lines().filter(|line| line.contains(", at ")).collect();
    let broken: Vec<_> = verdicts.iter().filter(|line| !line.starts_with("holds ")).collect();
    assert!(broken.is_empty(), "{text}");
    assert!(output.status.success(), "{text}");
    // Two engines of slots and two ways before the other.
    assert_eq!(verdicts.len(), 2 * 11 + 2 * 10, "{text}");
}

/// With nothing before the engine, or what stands before it today, nothing of it holds: the check can fail.
#[test]
fn without_fair_admission_it_does_not_hold() {
    let output = isolation(&["--instead", "--seconds", "90", "--seeds", "1", "--json"]);
    assert!(output.status.success());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines = report["tables"][0]["lines"].as_array().unwrap();
    let served = |guard: &str, accounts: u64, tier: usize| {
        let is = |line: &&serde_json::Value| {
            line["guard"] == guard && line["scene"]["flood"]["accounts"] == accounts
        };
        let line = lines.iter().find(is).unwrap();
        line["reading"]["tiers"][tier]["served"].as_f64().unwrap()
    };
    let (enterprise, free) = (0, 2);
    for (guard, accounts) in [("none", 1), ("quotas", 50), ("fifo", 1)] {
        assert!(served(guard, accounts, enterprise) < 0.1, "{guard}");
        assert!(served(guard, accounts, free) < 0.1, "{guard}");
    }
    assert!(served("partition", 1, enterprise) > 0.9);
    assert!(served("partition", 1, free) < 0.1);
}

fn isolation(arguments: &[&str]) -> Output {
    let example = std::env::current_exe().unwrap();
    let example = example.parent().unwrap().parent().unwrap().join("examples/isolation");
    Command::new(example).args(arguments).output().unwrap()
}
