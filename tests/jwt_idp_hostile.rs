//! Against a certified OpenID provider that signs whatever it is told to: what either of two validators that were
//! not written here refuses is refused here too.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod jwt_idp_support;
mod support;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use palisade::jwt::{AuthErrorKind, Issuer, ResourceServer};
use serde_json::{Value, json};

use crate::jwt_idp_support::*;

const AUDIENCE: &str = "https://rs.example/es256";

#[tokio::test]
async fn hostile_tokens_are_refused_wherever_an_oracle_refuses_them() {
    let Some(idp) = Idp::start() else { return };
    let issuer = Issuer::discover(&idp.issuer).insecure_http_loopback().audience(AUDIENCE);
    let issuer = issuer.algorithms(RESOURCES.map(|(_, algorithm)| algorithm));
    let server = ResourceServer::builder().issuer(issuer).build().unwrap();
    let tokens = tokens(&idp).await;
    let lines: Vec<&str> = tokens.iter().map(|(_, token)| token.as_str()).collect();
    let verdicts = idp.oracles(AUDIENCE, &lines);
    assert_eq!(verdicts.len(), tokens.len());
    let (mut accepted, mut refused, mut stricter) = (0, 0, Vec::new());
    for ((what, token), verdict) in tokens.iter().zip(&verdicts) {
        let oracles = ["jose", "oauth4webapi"].map(|oracle| verdict[oracle]["ok"] == true);
        let ours = ask(&server, token).await;
        assert!(matches!(ours, Ok(()) | Err(AuthErrorKind::InvalidToken)), "{what}: {ours:?}");
        if what.starts_with("good") {
            assert_eq!((oracles, ours), ([true, true], Ok(())), "{what}: {verdict}");
            accepted += 1;
        } else if oracles.contains(&false) {
            assert_eq!(ours, Err(AuthErrorKind::InvalidToken), "{what}: {verdict}");
            refused += 1;
        } else {
            stricter.push((what, ours));
        }
    }
    println!("both accept {accepted}; one refuses {refused}; beyond both: {stricter:?}");
    assert!(accepted >= 5 && refused >= 40, "{accepted} {refused}");
    // What neither of them looks at, and is refused here.
    for (what, ours) in stricter {
        assert_eq!(ours, Err(AuthErrorKind::InvalidToken), "{what}");
    }
}

/// Ordinary and hostile tokens, all but the last few signed by the key that is in use.
async fn tokens(idp: &Idp) -> Vec<(String, String)> {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let mut all = Vec::new();
    for (_, algorithm) in RESOURCES {
        let body = json!({"alg": algorithm.name()});
        all.push((format!("good {}", algorithm.name()), signed(idp, body).await));
    }
    let good = all[2].1.clone();
    for (what, claims) in [
        ("good: a list of audiences", json!({"aud": ["x", AUDIENCE]})),
        ("good: an unknown claim", json!({"x": {"y": [1]}})),
        ("good: not before now", json!({"nbf": now})),
        ("expired", json!({"exp": now - 300, "iat": now - 600})),
        ("no exp", json!({"exp": null})),
        ("exp is text", json!({"exp": (now + 300).to_string()})),
        ("exp is negative", json!({"exp": -1})),
        ("exp is a list", json!({"exp": [now + 300]})),
        ("exp is far off", json!({"exp": 1e18})),
        ("nbf in the future", json!({"nbf": now + 3600})),
        ("nbf is text", json!({"nbf": "0"})),
        ("iat in the future", json!({"iat": now + 3600})),
        ("iat is text", json!({"iat": "now"})),
        ("no iat", json!({"iat": null})),
        ("no issuer", json!({"iss": null})),
        ("another issuer", json!({"iss": "https://evil.example"})),
        ("issuer with a slash", json!({"iss": format!("{}/", idp.issuer)})),
        ("issuer is a list", json!({"iss": [idp.issuer]})),
        ("issuer is a number", json!({"iss": 7})),
        ("no audience", json!({"aud": null})),
        ("another audience", json!({"aud": "https://rs.example/rs256"})),
        ("audience is a number", json!({"aud": 42})),
        ("audience is an object", json!({"aud": {AUDIENCE: true}})),
        ("audience is an empty list", json!({"aud": []})),
        ("audience is a longer text", json!({"aud": format!("{AUDIENCE} x")})),
        ("no subject", json!({"sub": null})),
        ("subject is a number", json!({"sub": 7})),
        ("no client", json!({"client_id": null})),
        ("client is a list", json!({"client_id": ["svc"]})),
        ("no jti", json!({"jti": null})),
        ("bound to a certificate", json!({"cnf": {"x5t#S256": "A".repeat(43)}})),
        ("bound to a key", json!({"cnf": {"jkt": "A".repeat(43)}})),
        ("bound to something", json!({"cnf": {"kid": "k"}})),
        ("bound is text", json!({"cnf": "x"})),
        ("bound to nothing", json!({"cnf": {}})),
    ] {
        // JSON.stringify leaves out what is undefined, and keeps null: so null is taken out here.
        let body = match claims.as_object().unwrap().iter().find(|(_, value)| value.is_null()) {
            Some((name, _)) => json!({"alg": "ES256", "rawClaims": without(&good, name)}),
            None => json!({"alg": "ES256", "claims": claims}),
        };
        all.push((what.into(), signed(idp, body).await));
    }
    for (what, header) in [
        ("crit", json!({"crit": ["exp"]})),
        ("crit of its own", json!({"crit": ["x"], "x": 1})),
        ("crit is empty", json!({"crit": []})),
        ("crit is text", json!({"crit": "exp"})),
        ("b64", json!({"b64": false, "crit": ["b64"]})),
        ("typ of an ID token", json!({"typ": "JWT"})),
        ("typ of a proof", json!({"typ": "dpop+jwt"})),
        ("typ is empty", json!({"typ": ""})),
        ("typ is a number", json!({"typ": 7})),
        ("alg none", json!({"alg": "none"})),
        ("alg in lower case", json!({"alg": "es256"})),
        ("alg of another key", json!({"alg": "RS256"})),
        ("alg ES384 with the key of ES256", json!({"alg": "ES384"})),
        ("alg HS256", json!({"alg": "HS256"})),
        ("alg is a list", json!({"alg": ["ES256"]})),
        ("another key's name", json!({"kid": "g1-EdDSA"})),
        ("an unknown key", json!({"kid": "nobody's"})),
        ("kid is a path", json!({"kid": "../../dev/null"})),
        ("kid is a number", json!({"kid": 7})),
        ("zip", json!({"zip": "DEF"})),
        ("enc", json!({"enc": "A128GCM"})),
    ] {
        all.push((what.into(), signed(idp, json!({"alg": "ES256", "header": header})).await));
    }
    let header = r#""kid":"g1-ES256","typ":"at+jwt""#;
    for (what, raw) in [
        ("header with alg twice", format!(r#"{{"alg":"none","alg":"ES256",{header}}}"#)),
        ("header is a list", "[]".into()),
        ("header is no JSON", "alg=ES256".into()),
        ("header is cut off", r#"{"alg":"ES256""#.into()),
        ("header has a byte order mark", format!("\u{feff}{{\"alg\":\"ES256\",{header}}}")),
    ] {
        all.push((what.into(), signed(idp, json!({"alg": "ES256", "rawHeader": raw})).await));
    }
    let claims = payload(&good);
    let open = claims.trim_end_matches('}');
    for (what, raw) in [
        ("scope twice", format!(r#"{open},"scope":"llm:admin"}}"#)),
        ("sub twice", format!(r#"{open},"sub":"root"}}"#)),
        ("exp twice", format!(r#"{open},"exp":99999999999}}"#)),
        ("claims are a list", format!("[{claims}]")),
        ("claims are text", "\"claims\"".into()),
        ("claims are followed by more", format!("{claims}{{}}")),
        ("claims are empty", String::new()),
    ] {
        all.push((what.into(), signed(idp, json!({"alg": "ES256", "rawClaims": raw})).await));
    }
    let [header, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!() };
    let none = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"at+jwt"}"#);
    all.extend([
        ("unsigned".into(), format!("{none}.{claims}.")),
        ("no signature".into(), format!("{header}.{claims}.")),
        ("a padded signature".into(), format!("{good}==")),
        ("a cut signature".into(), good[..good.len() - 4].into()),
        ("a longer signature".into(), format!("{good}AAAA")),
        ("a dot more".into(), format!("{good}.")),
        ("five parts".into(), format!("{good}.x.y")),
        ("two parts".into(), format!("{header}.{claims}")),
        ("signature of zeros".into(), format!("{header}.{claims}.{}", "A".repeat(86))),
        ("other claims under the signature".into(), {
            let changed = payload(&good).replace("llm:infer", "llm:admin");
            format!("{header}.{}.{signature}", BASE64_URL_SAFE_NO_PAD.encode(changed))
        }),
    ]);
    // An ID token is signed by the same key, and is for the client.
    let granted = idp.grant(&["pkce", AUDIENCE]).remove(0);
    all.push(("an ID token".into(), granted["id_token"].as_str().unwrap().to_owned()));
    all
}

async fn signed(idp: &Idp, body: Value) -> String {
    idp.control("sign", Some(&body)).await["token"].as_str().unwrap().to_owned()
}

fn payload(token: &str) -> String {
    let part = token.split('.').nth(1).unwrap();
    String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// The token's claims but one.
fn without(token: &str, name: &str) -> String {
    let mut claims: Value = serde_json::from_str(&payload(token)).unwrap();
    assert!(claims.as_object_mut().unwrap().remove(name).is_some());
    claims.to_string()
}
