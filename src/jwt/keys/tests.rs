use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

use super::*;

fn ed(kid: &str, more: &str) -> String {
    let x = BASE64_URL_SAFE_NO_PAD.encode([0x5a; 32]);
    format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"{kid}"{more}}}"#)
}

fn oct(kid: &str) -> String {
    let k = BASE64_URL_SAFE_NO_PAD.encode([0x5a; 32]);
    format!(r#"{{"kty":"oct","k":"{k}","kid":"{kid}"}}"#)
}

fn set(keys: &[&str]) -> Result<KeySet, BuildError> {
    KeySet::from_json(&format!(r#"{{"keys":[{}]}}"#, keys.join(",")))
}

#[test]
fn one_unusable_key_does_not_spoil_the_set() {
    let set = set(&["7", r#"{"kty":"EC","kid":4}"#, &ed("a", ""), &ed("b", r#","use":"enc""#)]);
    let set = set.unwrap();
    assert_eq!(set.len(), 1);
    let skipped: Vec<_> = set.skipped().iter().map(|key| (key.index(), key.key_id())).collect();
    assert_eq!(skipped, [(0, None), (1, None), (3, Some("b"))]);
}

#[test]
fn dangerous_sets_are_refused_whole() {
    let private = ed("b", r#","d":"AA""#);
    let refused = |keys: &[&str]| set(keys).is_err();
    assert!(refused(&[&ed("a", ""), &private]));
    assert!(refused(&[&ed("a", ""), &oct("b")]));
    assert!(refused(&[&ed("a", ""), &ed("a", "")]));
    assert!(refused(&[&oct("a"), &oct("a")]));
    assert!(refused(&[&oct("a"), r#"{"kty":"oct","kid":"a","k":"!"}"#]));
    assert!(!refused(&[&oct("a"), &oct("b")]));
    assert!(!refused(&[&ed("a", ""), &ed("a", r#","use":"enc""#)]));
    for text in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
        assert!(KeySet::from_json(text).is_err(), "{text}");
    }
    let (a, b) = (set(&[&ed("a", "")]).unwrap(), set(&[&oct("b")]).unwrap());
    assert!(a.clone().and(&b).is_err());
    assert!(a.clone().and(&a).is_err());
}

/// They were: half a MiB of them, as much as is fetched, were a billion comparisons.
#[test]
fn many_keys_are_not_compared_each_with_each() {
    let many: Vec<String> = (0..45_000).map(|id| format!(r#"{{"kid":{id}}}"#)).collect();
    let mut keys: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(set(&keys).unwrap().skipped().len(), 45_000);
    keys.push(r#"{"kid":44999,"alg":"ES256"}"#);
    assert!(set(&keys).is_err());
}

#[test]
fn keys_of_one_name_must_name_algorithms_that_differ() {
    let [any, es256, ps256] = ["", r#","alg":"ES256""#, r#","alg":"PS256""#]
        .map(|more| format!(r#"{{"kty":"RSA","kid":"a"{more}}}"#));
    assert!(set(&[&es256, &ps256]).is_ok());
    for clash in [[&any, &es256], [&es256, &any], [&any, &any], [&es256, &es256]] {
        assert!(set(&clash.map(String::as_str)).is_err(), "{clash:?}");
    }
}

#[test]
fn a_key_is_chosen_only_where_there_is_no_choice() {
    let keys = set(&[&ed("a", ""), &ed("b", "")]).unwrap();
    let chosen = |kid, algorithm| keys.choose(kid, algorithm).and_then(|key| key.id.as_deref());
    assert_eq!(chosen(Some("b"), Algorithm::EdDSA), Some("b"));
    assert_eq!(chosen(Some("c"), Algorithm::EdDSA), None);
    assert_eq!(chosen(Some("a"), Algorithm::ES256), None);
    assert_eq!(chosen(None, Algorithm::EdDSA), None);
    let keys = set(&[&ed("a", "")]).unwrap();
    assert!(keys.choose(None, Algorithm::EdDSA).is_some());
    assert!(keys.choose(Some("b"), Algorithm::EdDSA).is_none());
    let nameless = ed("x", "").replace(r#","kid":"x""#, "");
    let keys = set(&[&ed("a", ""), &nameless]).unwrap();
    let id = |kid| keys.choose(Some(kid), Algorithm::EdDSA).map(|key| key.id.as_deref());
    assert_eq!((id("a"), id("b")), (Some(Some("a")), Some(None)));
    assert!(keys.choose(None, Algorithm::EdDSA).is_none());
    let keys = set(&[&nameless, &nameless]).unwrap();
    assert!(keys.choose(Some("a"), Algorithm::EdDSA).is_none());
}

#[test]
fn secrets_have_a_floor() {
    let secret = |len| Secret::new(vec![7; len]);
    assert!(KeySet::secret(None, Algorithm::HS256, &secret(32)).is_ok());
    assert!(KeySet::secret(None, Algorithm::HS256, &secret(31)).is_err());
    assert!(KeySet::secret(None, Algorithm::HS512, &secret(63)).is_err());
    assert!(KeySet::secret(None, Algorithm::RS256, &secret(64)).is_err());
}

#[test]
fn nothing_of_a_key_is_shown() {
    let shown = format!("{:?}", set(&[&oct("a")]).unwrap());
    assert_eq!(shown, "KeySet { keys: 1, skipped: [] }");
}
