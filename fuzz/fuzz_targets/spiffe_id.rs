//! SPIFFE IDs, as rules read them: exactly those that the specification's grammar has, told by another reader of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade::peer_cert::PeerRule;

fuzz_target!(|text: &str| {
    let rule = PeerRule::spiffe(text);
    assert_eq!(rule.is_ok(), is_workload(text), "{text:?}");
    if let Ok(rule) = rule {
        assert_eq!(rule.to_string(), text);
        assert_eq!(text.parse::<PeerRule>().unwrap(), rule);
    }
    let _ = (PeerRule::spiffe_glob(text), PeerRule::trust_domain(text), text.parse::<PeerRule>());
});

fn is_workload(text: &str) -> bool {
    let Some((domain, path)) = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'))
    else {
        return false;
    };
    let in_domain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_');
    let in_path = |c: char| matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '-' | '_');
    let is_segment = |s: &str| !matches!(s, "" | "." | "..") && s.chars().all(in_path);
    text.len() <= 2048
        && (1..=255).contains(&domain.len())
        && domain.chars().all(in_domain)
        && path.split('/').all(is_segment)
}
