//! What the detectors that are made for answers say of benign texts. Nothing that a person asks for is code that
//! attacks or a link that carries something away: at most one in a thousand may look so.

use palisade::prompt_guard::{Canary, CodeRules, Detector, Links};

use crate::vectors::{THRESHOLD, files, lines, percent, scan};

#[test]
fn benign_texts_are_left_alone() {
    let code = CodeRules::builtin().unwrap();
    let links = Links::allowing(["example.com"]).unwrap();
    let canary = Canary::new("7f3kq9x2vd84").unwrap();
    let detectors: [&dyn Detector; 3] = [&code, &links, &canary];
    let (mut all, mut any) = (0, 0);
    let (mut flagged, mut reported) = ([0; 3], [0; 3]);
    for line in files("prompts").iter().flat_map(lines).filter(|line| line["label"] == 0) {
        all += 1;
        let mut is_flagged = false;
        for (at, detector) in detectors.iter().enumerate() {
            let found = scan(*detector, line["text"].as_str().unwrap());
            let counts = found.iter().any(|finding| finding.score >= THRESHOLD);
            flagged[at] += usize::from(counts);
            reported[at] += usize::from(!found.is_empty());
            is_flagged |= counts;
        }
        any += usize::from(is_flagged);
    }
    let [code, links, canary] = flagged;
    println!(
        "{all} benign texts: code {code}, links {links}, canary {canary}; {reported:?} with what is only reported"
    );
    assert!(percent(any, all) <= 0.1, "{any} of {all}");
}
