//! The injection rules find what they promise to, and leave ordinary prompts alone.

use std::time::Instant;

use crate::vectors::{files, is_flagged, lines, percent, scan};
use palisade::prompt_guard::{Detector as _, InjectionRules, Secrets, Views};

/// Percent of a set's attacks that must be found.
const RECALL: [(&str, f64); 11] = [
    ("deepset", 38.0),
    ("gandalf", 85.0),
    ("inthewild_jailbreak", 81.0),
    ("agentdojo", 64.0),
    ("llmail_inject", 50.0),
    ("yanismiraoui", 72.0),
    ("satml_ctf2024", 45.0),
    ("neuralchemy_core", 30.0),
    ("slabs", 31.0),
    ("pyrit_templates", 78.0),
    ("gptfuzz_templates", 80.0),
];
/// Percent of a set's ordinary prompts that may be flagged.
const FALSE_POSITIVES: [(&str, f64); 3] =
    [("oasst_eval", 0.3), ("notinject", 1.0), ("mt_bench", 1.0)];
/// The same for all sets together.
const ALL_FALSE_POSITIVES: f64 = 0.4;

#[derive(Default)]
struct Count {
    attacks: usize,
    found: usize,
    benign: usize,
    flagged: usize,
}

#[test]
fn injection_rules_hold_their_floors() {
    let rules = InjectionRules::builtin().unwrap();
    let mut all = Count::default();
    let mut broken = Vec::new();
    for file in files("prompts") {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let mut count = Count::default();
        for line in lines(&file) {
            let flagged = is_flagged(&rules, line["text"].as_str().unwrap());
            if line["label"].as_u64() == Some(1) {
                count.attacks += 1;
                count.found += usize::from(flagged);
            } else {
                count.benign += 1;
                count.flagged += usize::from(flagged);
            }
        }
        let recall = percent(count.found, count.attacks);
        let wrong = percent(count.flagged, count.benign);
        println!(
            "{name:24} recall {:5}/{:5} {recall:5.1} %   false positives {:4}/{:5} {wrong:5.2} %",
            count.found, count.attacks, count.flagged, count.benign
        );
        let floor = RECALL.iter().find(|(set, _)| *set == name);
        if floor.is_some_and(|(_, floor)| count.attacks > 0 && recall < *floor) {
            broken.push(format!("{name}: recall {recall:.1} %"));
        }
        let ceiling = FALSE_POSITIVES.iter().find(|(set, _)| *set == name);
        if ceiling.is_some_and(|(_, ceiling)| wrong > *ceiling) {
            broken.push(format!("{name}: false positives {wrong:.2} %"));
        }
        all.benign += count.benign;
        all.flagged += count.flagged;
    }
    let wrong = percent(all.flagged, all.benign);
    println!("all false positives {}/{} {wrong:.2} %", all.flagged, all.benign);
    if wrong > ALL_FALSE_POSITIVES {
        broken.push(format!("all: false positives {wrong:.2} %"));
    }
    assert!(broken.is_empty(), "{broken:?}");
}

#[test]
fn ordinary_prompts_hold_no_secrets() {
    let secrets = Secrets::builtin().unwrap();
    let (mut benign, mut flagged) = (0, 0);
    for file in files("prompts") {
        for line in lines(&file).iter().filter(|line| line["label"].as_u64() == Some(0)) {
            let findings = scan(&secrets, line["text"].as_str().unwrap());
            benign += 1;
            if !findings.is_empty() {
                flagged += 1;
                println!(
                    "{}: {:?}",
                    file.display(),
                    findings.iter().map(|finding| &finding.rule).collect::<Vec<_>>()
                );
            }
        }
    }
    println!("secrets in ordinary prompts: {flagged}/{benign}");
    assert!(percent(flagged, benign) <= 0.5, "{flagged} of {benign}");
}

/// Prints what a scan costs; machines differ, so nothing is asserted.
#[test]
fn cost_of_a_clean_prompt() {
    let started = Instant::now();
    let rules = InjectionRules::builtin().unwrap();
    println!("compiled {} rules in {:?}", rules.len(), started.elapsed());
    let sentence = "The committee met on Tuesday to discuss the new library, its opening hours and the budget for next year. ";
    let text: String = sentence.chars().cycle().take(560).collect();
    let rounds = 500;
    let started = Instant::now();
    for _ in 0..rounds {
        let views = Views::of(&text);
        let mut findings = Vec::new();
        let segment =
            palisade::inference::Segment::new(0, &text, palisade::inference::Origin::User, 0);
        rules.scan(&segment, &views, &mut findings);
        assert!(findings.is_empty());
    }
    println!("560 clean characters: {:?} a scan", started.elapsed() / rounds);
}
