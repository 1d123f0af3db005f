use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::*;

const NOW: u64 = 1_800_000_000;

/// Figure 13 of RFC 9449.
const FIGURE: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";

fn jwk() -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
}

fn header() -> Value {
    json!({"typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk()})
}

fn claims() -> Value {
    json!({
        "htm": "POST", "htu": "https://llm.example/generate", "iat": NOW, "jti": "1",
        "ath": BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest("token")),
    })
}

/// Members changed in an object: null takes one away.
fn with(mut object: Value, change: &Value) -> Value {
    let members = object.as_object_mut().unwrap();
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => members.remove(name),
            value => members.insert(name.clone(), value.clone()),
        };
    }
    object
}

fn unsigned(header: &str, claims: &str) -> String {
    let encode = |part: &str| BASE64_URL_SAFE_NO_PAD.encode(part);
    format!("{}.{}.{}", encode(header), encode(claims), BASE64_URL_SAFE_NO_PAD.encode([0; 64]))
}

/// Everything but the signature.
fn check(text: &str, seconds: u64) -> Result<(), Flaw> {
    let proof = Proof::read(text)?;
    let bases = [Base::read("https://llm.example").unwrap()];
    proof.check_target(&bases, &Method::POST, "/generate")?;
    proof.check_time(Duration::from_secs(seconds), Duration::from_secs(60))?;
    proof.check_token(&Sha256::digest("token").into())?;
    proof.nonce()?;
    proof.id().map(|_| ())
}

fn of_header(change: &Value) -> Result<(), Flaw> {
    check(&unsigned(&with(header(), change).to_string(), &claims().to_string()), NOW)
}

fn of_jwk(change: &Value) -> Result<(), Flaw> {
    of_header(&json!({ "jwk": with(jwk(), change) }))
}

fn of_claims(change: &Value) -> Result<(), Flaw> {
    check(&unsigned(&header().to_string(), &with(claims(), change).to_string()), NOW)
}

#[test]
fn the_proof_of_the_rfc_holds() {
    let proof = Proof::read(FIGURE).unwrap_or_else(|flaw| panic!("{flaw:?}"));
    let jkt = sha256_of("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I").unwrap();
    let bases = [Base::read("https://resource.example.org").unwrap()];
    assert_eq!(proof.check_key(&jkt), Ok(()));
    assert_eq!(proof.check_target(&bases, &Method::GET, "/protectedresource"), Ok(()));
    let time = |at| proof.check_time(Duration::from_secs(at), Duration::from_secs(60));
    assert_eq!(time(1_562_262_618 + 60), Ok(()));
    assert_eq!(time(1_562_262_618 + 61), Err(Flaw::Time));
    let token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
    assert_eq!(proof.check_token(&Sha256::digest(token).into()), Ok(()));
    assert_eq!(proof.id(), Ok("e1j3V_bKic8-LAEB"));
    let backend = CryptoBackend::compiled_in().unwrap();
    assert_eq!(proof.check_signature(backend), Ok(()));
    let forged = FIGURE.replace("AJpLjA", "AJpLjQ");
    let forged = Proof::read(&forged).unwrap_or_else(|flaw| panic!("{flaw:?}"));
    assert_eq!(forged.check_signature(backend), Err(Flaw::Signature));
}

#[test]
fn a_proof_is_a_jws_of_its_own_type() {
    assert_eq!(of_header(&json!({})), Ok(()));
    for typ in [json!(null), json!("jwt"), json!("at+jwt"), json!("DPOP+JWT"), json!("")] {
        assert_eq!(of_header(&json!({ "typ": typ })), Err(Flaw::WrongType), "{typ}");
    }
    for change in
        [json!({"typ": 1}), json!({"crit": ["b64"]}), json!({"b64": true}), json!({"alg": 1})]
    {
        assert_eq!(of_header(&change), Err(Flaw::Malformed), "{change}");
    }
    let good = claims().to_string();
    let twice = header().to_string().replace("{\"alg\"", "{\"alg\":\"EdDSA\",\"alg\"");
    for bad in [
        String::new(),
        "a.b".into(),
        "a.b.c.d.e".into(),
        format!("{}=", unsigned(&header().to_string(), &good)),
        unsigned(&twice, &good),
        unsigned("[]", &good),
        unsigned(&header().to_string(), "[]"),
    ] {
        let flaw = Proof::read(&bad)
            .and_then(|proof| proof.check_signature(CryptoBackend::compiled_in().unwrap()));
        assert_eq!(flaw, Err(Flaw::Malformed), "{bad}");
    }
}

#[test]
fn a_proof_is_signed_asymmetrically() {
    for alg in ["none", "HS1", "eddsa", "ES512", "RSA-OAEP"] {
        assert_eq!(of_header(&json!({ "alg": alg })), Err(Flaw::Algorithm), "{alg}");
    }
    // Known, but not what the key is for.
    for alg in ["HS256", "RS256", "ES256"] {
        assert_eq!(of_header(&json!({ "alg": alg })), Err(Flaw::Key), "{alg}");
    }
    let secret = json!({"kty": "oct", "k": BASE64_URL_SAFE_NO_PAD.encode([7; 64])});
    assert_eq!(of_header(&json!({"alg": "HS256", "jwk": secret})), Err(Flaw::Key));
}

#[test]
fn a_proof_names_a_public_key_that_is_good_enough() {
    for jwk in [json!(null), json!("k"), json!([])] {
        assert_eq!(of_header(&json!({ "jwk": jwk })), Err(Flaw::Malformed), "{jwk}");
    }
    for name in PRIVATE_MEMBERS.iter().chain(&["k"]) {
        assert_eq!(of_jwk(&json!({ *name: "AA" })), Err(Flaw::Key), "{name}");
    }
    let short = BASE64_URL_SAFE_NO_PAD.encode([0x5b; 128]);
    for change in [
        json!({"kty": "AKP"}),
        json!({"crv": "P-256"}),
        json!({"x": "AA"}),
        json!({"x": format!("{}=", jwk()["x"].as_str().unwrap())}),
        json!({"use": "enc"}),
        json!({"key_ops": ["sign"]}),
        json!({"alg": "ES256"}),
    ] {
        assert_eq!(of_jwk(&change), Err(Flaw::Key), "{change}");
    }
    let weak = json!({"kty": "RSA", "n": short, "e": "AQAB"});
    assert_eq!(of_header(&json!({"alg": "RS256", "jwk": weak})), Err(Flaw::Key));
    // What a key says of itself beside the key does not change whose it is.
    assert_eq!(of_jwk(&json!({"kid": "k", "use": "sig", "alg": "EdDSA"})), Ok(()));
}

#[test]
fn a_proof_is_for_one_method_and_address() {
    for (change, flaw) in [
        (json!({"htm": "GET"}), Flaw::Target),
        (json!({"htm": "post"}), Flaw::Target),
        (json!({"htm": null}), Flaw::Malformed),
        (json!({"htm": ["POST"]}), Flaw::Malformed),
        (json!({"htu": "https://llm.example/generate/"}), Flaw::Target),
        (json!({"htu": "https://other.example/generate"}), Flaw::Target),
        (json!({"htu": "/generate"}), Flaw::Target),
        (json!({"htu": "https://a b"}), Flaw::Malformed),
        (json!({"htu": null}), Flaw::Malformed),
        (json!({"htu": 1}), Flaw::Malformed),
    ] {
        assert_eq!(of_claims(&change), Err(flaw), "{change}");
    }
    assert_eq!(of_claims(&json!({"htu": "https://LLM.example:443/generate?a#b"})), Ok(()));
}

#[test]
fn a_proof_was_made_just_now() {
    for (change, expected) in [
        (json!({"iat": NOW - 60}), Ok(())),
        (json!({"iat": NOW + 60}), Ok(())),
        (json!({"iat": NOW as f64 + 0.5}), Ok(())),
        (json!({"iat": NOW - 61}), Err(Flaw::Time)),
        (json!({"iat": NOW + 61}), Err(Flaw::Time)),
        (json!({"iat": 0}), Err(Flaw::Time)),
        (json!({"iat": u64::MAX}), Err(Flaw::Time)),
        (json!({"iat": 1e300}), Err(Flaw::Time)),
        (json!({"iat": -1}), Err(Flaw::Malformed)),
        (json!({"iat": NOW.to_string()}), Err(Flaw::Malformed)),
        (json!({"iat": null}), Err(Flaw::Malformed)),
        (json!({"exp": NOW + 1, "nbf": NOW}), Ok(())),
        (json!({"exp": NOW}), Err(Flaw::Time)),
        (json!({"nbf": NOW + 61}), Err(Flaw::Time)),
        (json!({"exp": "x"}), Err(Flaw::Malformed)),
    ] {
        assert_eq!(of_claims(&change), expected, "{change}");
    }
    let good = unsigned(&header().to_string(), &claims().to_string());
    assert_eq!(check(&good, 0), Err(Flaw::Time));
    assert_eq!(check(&good, u64::MAX), Err(Flaw::Time));
}

#[test]
fn a_proof_is_for_one_access_token() {
    let other = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest("other"));
    assert_eq!(of_claims(&json!({ "ath": other })), Err(Flaw::Token));
    let padded = format!("{}=", claims()["ath"].as_str().unwrap());
    for ath in [json!(null), json!(""), json!(padded), json!(1), json!("token")] {
        assert_eq!(of_claims(&json!({ "ath": ath })), Err(Flaw::Malformed), "{ath}");
    }
}

#[test]
fn a_proof_has_an_id_of_bounded_length() {
    assert_eq!(of_claims(&json!({"jti": "x".repeat(256)})), Ok(()));
    assert_eq!(of_claims(&json!({"jti": "x".repeat(257)})), Err(Flaw::TooLong));
    for jti in [json!(null), json!(""), json!(7), json!(["1"])] {
        assert_eq!(of_claims(&json!({ "jti": jti })), Err(Flaw::Malformed), "{jti}");
    }
    assert_eq!(of_claims(&json!({"nonce": 1})), Err(Flaw::Malformed));
    let huge = unsigned(
        &header().to_string(),
        &with(claims(), &json!({"a": "x".repeat(6500)})).to_string(),
    );
    assert_eq!(check(&huge, NOW), Err(Flaw::TooLong));
}

#[test]
fn a_proof_by_another_key_is_nobodys_here() {
    let proof = Proof::read(FIGURE).unwrap_or_else(|flaw| panic!("{flaw:?}"));
    assert_eq!(proof.check_key(&[0; 32]), Err(Flaw::WrongKey));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_proof_makes_it_panic(
        text in "\\PC{0,200}",
        members in prop::collection::btree_map(
            prop::sample::select(vec!["typ", "alg", "jwk", "crit", "htm", "htu", "iat", "ath", "jti", "nonce"]),
            any_json(),
            0..4,
        ),
        at in any::<u64>(),
    ) {
        let change = json!(members);
        let (header, claims) = (with(header(), &change), with(claims(), &change));
        let proof = unsigned(&header.to_string(), &claims.to_string());
        for text in [&text, &proof, &unsigned(&text, &text)] {
            let _ = check(text, at);
            if let Ok(proof) = Proof::read(text) {
                prop_assert!(proof.check_signature(CryptoBackend::compiled_in().unwrap()).is_err());
            }
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        any::<f64>().prop_map(|number| json!(number)),
        any::<i64>().prop_map(|number| json!(number)),
        "(https://llm\\.example)?[/%.a-z#?:@\\[\\]é]{0,20}".prop_map(|text| json!(text)),
        ("RSA|EC|OKP|oct", "P-256|Ed25519|", "[A-Za-z0-9_-]{0,90}").prop_map(
            |(kty, crv, x)| json!({"kty": kty, "crv": crv, "x": x, "y": x, "n": x, "e": "AQAB"})
        ),
    ]
}
