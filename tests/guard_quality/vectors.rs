//! Reads the labelled texts that the guard is measured with. They stay outside of the repository.

use std::{fs, path::PathBuf};

use palisade::{
    inference::{Origin, Segment},
    prompt_guard::{Detector, Finding, Views},
};

/// The files of one kind, by name. Empty, and said so, when `PALISADE_VECTORS` is not set.
pub(crate) fn files(kind: &str) -> Vec<PathBuf> {
    let Some(root) = std::env::var_os("PALISADE_VECTORS") else {
        crate::support::skip(&format!("{kind}: PALISADE_VECTORS is not set"));
        return Vec::new();
    };
    let folder = PathBuf::from(root).join(kind);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no .jsonl in {}", folder.display());
    files
}

/// The lines of a file.
pub(crate) fn lines(file: &PathBuf) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a detector finds in a text that a user wrote.
pub(crate) fn scan(detector: &dyn Detector, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    detector.scan(&Segment::new(0, text, Origin::User, 0), &Views::of(text), &mut findings);
    for span in findings.iter().filter_map(|finding| finding.span.clone()) {
        assert!(text.get(span.clone()).is_some(), "{span:?} is no range of the text");
    }
    findings
}

/// The score from which a policy blocks.
pub(crate) const THRESHOLD: f32 = 0.8;

pub(crate) fn is_flagged(detector: &dyn Detector, text: &str) -> bool {
    scan(detector, text).iter().any(|finding| finding.score >= THRESHOLD)
}

/// A share in percent.
pub(crate) fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}
