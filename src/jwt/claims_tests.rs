use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000;

fn rules(profile: AccessTokenProfile) -> Rules {
    Rules {
        issuer: "https://idp.example".into(),
        profile,
        required: Vec::new(),
        audience: Audience::Aud(vec!["https://llm.example".into(), "llm".into()]),
        max_lifetime: Duration::from_secs(86_400),
        roles: "roles".into(),
    }
}

fn good() -> Value {
    json!({
        "iss": "https://idp.example", "aud": "https://llm.example", "sub": "alice",
        "exp": NOW + 300, "iat": NOW, "jti": "1", "client_id": "app",
    })
}

/// The good claims with `change` made to them: null takes a claim away.
fn with(change: Value) -> Map<String, Value> {
    let Value::Object(mut claims) = good() else { unreachable!() };
    for (name, value) in change.as_object().unwrap().clone() {
        if value.is_null() {
            claims.remove(&name);
        } else {
            claims.insert(name, value);
        }
    }
    claims
}

fn check_at(now: u64, change: Value) -> Result<Times, Reason> {
    let (now, leeway) = (Duration::from_secs(now), Duration::from_secs(30));
    rules(AccessTokenProfile::Rfc9068).check(&with(change), Some("at+jwt"), now, leeway)
}

fn check(change: Value) -> Result<(), Reason> {
    check_at(NOW, change).map(|_| ())
}

fn identify(change: Value) -> Result<UserIdentity, Reason> {
    let claims = with(change);
    let subject = subject(&claims)?;
    identity(&rules(AccessTokenProfile::Rfc9068), Times::read(&claims)?, subject, claims)
}

#[test]
fn the_issuer_is_one_string() {
    assert_eq!(check(json!({})), Ok(()));
    for (iss, reason) in [
        (json!(null), Reason::Unverifiable),
        (json!("https://idp.example/"), Reason::Unverifiable),
        (json!("https://IDP.example"), Reason::Unverifiable),
        (json!(["https://idp.example"]), Reason::Malformed),
        (json!(7), Reason::Malformed),
    ] {
        assert_eq!(check(json!({ "iss": iss })), Err(reason), "{iss}");
    }
}

#[test]
fn the_audience_is_required_and_of_strings() {
    for aud in [json!("llm"), json!(["x", "llm"]), json!(["https://llm.example"])] {
        assert_eq!(check(json!({ "aud": aud })), Ok(()), "{aud}");
    }
    for aud in [json!("other"), json!([]), json!(["LLM"]), json!("llm "), json!("")] {
        assert_eq!(check(json!({ "aud": aud })), Err(Reason::WrongAudience), "{aud}");
    }
    for aud in [json!(null), json!(42), json!({"llm": 1}), json!(["llm", 1]), json!([["llm"]])] {
        assert_eq!(check(json!({ "aud": aud })), Err(Reason::Malformed), "{aud}");
    }
}

#[test]
fn another_claim_may_stand_in_for_the_audience() {
    let mut rules = rules(AccessTokenProfile::Rfc9068);
    rules.audience = Audience::Claim("client_id".into(), vec!["second".into(), "app".into()]);
    let check = |change| {
        let now = Duration::from_secs(NOW);
        rules.check(&with(change), Some("at+jwt"), now, Duration::ZERO).map(|_| ())
    };
    assert_eq!(check(json!({"aud": null})), Ok(()));
    assert_eq!(check(json!({"client_id": "other"})), Err(Reason::WrongAudience));
    assert_eq!(check(json!({"client_id": ["app"]})), Err(Reason::Malformed));
    assert_eq!(check(json!({"client_id": null})), Err(Reason::Malformed));
}

#[test]
fn times_hold_with_leeway_and_no_longer() {
    for (now, held) in [
        (NOW - 31, Err(Reason::NotYetValid)),
        (NOW - 30, Ok(())),
        (NOW + 329, Ok(())),
        (NOW + 330, Err(Reason::Expired)),
        (u64::MAX, Err(Reason::Expired)),
        (0, Err(Reason::NotYetValid)),
    ] {
        assert_eq!(check_at(now, json!({})).map(|_| ()), held, "{now}");
    }
    assert_eq!(check(json!({"nbf": NOW + 30})), Ok(()));
    assert_eq!(check(json!({"nbf": NOW + 31})), Err(Reason::NotYetValid));
    assert_eq!(check(json!({"nbf": NOW as f64 + 30.5})), Err(Reason::NotYetValid));
    assert_eq!(check(json!({"iat": NOW + 31})), Err(Reason::NotYetValid));
}

#[test]
fn dates_are_finite_numbers_that_are_not_negative() {
    assert_eq!(check(json!({"exp": NOW as f64 + 0.5})), Ok(()));
    for name in ["exp", "nbf", "iat"] {
        for bad in [json!("1800000300"), json!(-1), json!(-0.5), json!([NOW]), json!(true)] {
            assert_eq!(check(json!({ name: bad })), Err(Reason::Malformed), "{name} {bad}");
        }
    }
    assert_eq!(check(json!({"exp": null})), Err(Reason::Malformed));
    // Far beyond any integer: saturates, and is too far off.
    assert_eq!(check(json!({"exp": 1e300})), Err(Reason::TooLongLived));
    assert_eq!(check(json!({"nbf": 1e300})), Err(Reason::NotYetValid));
    assert_eq!(check(json!({"exp": 0})), Err(Reason::Expired));
}

#[test]
fn a_token_may_not_live_too_long() {
    assert_eq!(check(json!({"exp": NOW + 86_400})), Ok(()));
    assert_eq!(check(json!({"exp": NOW + 86_401})), Err(Reason::TooLongLived));
    assert_eq!(check(json!({"iat": NOW - 86_400, "exp": NOW + 1})), Err(Reason::TooLongLived));
    let plain = |exp: u64| {
        let claims = with(json!({"iat": null, "exp": exp}));
        let (now, leeway) = (Duration::from_secs(NOW), Duration::from_secs(30));
        rules(AccessTokenProfile::Jwt).check(&claims, None, now, leeway).map(|_| ())
    };
    assert_eq!(plain(NOW + 86_400), Ok(()));
    assert_eq!(plain(NOW + 86_431), Err(Reason::TooLongLived));
}

#[test]
fn other_kinds_of_token_are_no_access_tokens() {
    let check = |profile, typ: Option<&str>, change| {
        let now = Duration::from_secs(NOW);
        rules(profile).check(&with(change), typ, now, Duration::ZERO).map(|_| ())
    };
    let (rfc9068, jwt) = (AccessTokenProfile::Rfc9068, AccessTokenProfile::Jwt);
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
        assert_eq!(check(rfc9068, Some(typ), json!({})), Ok(()), "{typ}");
        assert_eq!(check(jwt, Some(typ), json!({})), Err(Reason::WrongType), "{typ}");
    }
    for typ in [None, Some("JWT"), Some("jwt"), Some("application/jwt")] {
        assert_eq!(check(rfc9068, typ, json!({})), Err(Reason::WrongType), "{typ:?}");
        assert_eq!(check(jwt, typ, json!({"jti": null, "client_id": null})), Ok(()), "{typ:?}");
    }
    for typ in ["", "dpop+jwt", "logout+jwt", "secevent+jwt", "at+jwt ", "x/at+jwt", "é"] {
        assert_eq!(check(rfc9068, Some(typ), json!({})), Err(Reason::WrongType), "{typ}");
        assert_eq!(check(jwt, Some(typ), json!({})), Err(Reason::WrongType), "{typ}");
    }
    for claim in ["at_hash", "c_hash", "events"] {
        assert_eq!(check(jwt, None, json!({ claim: "x" })), Err(Reason::WrongType), "{claim}");
    }
    for (claim, value) in [("token_use", "id"), ("token_use", "refresh_token"), ("typ", "Refresh")]
    {
        assert_eq!(check(jwt, None, json!({ claim: value })), Err(Reason::WrongType), "{value}");
    }
    assert_eq!(check(jwt, None, json!({"token_use": 7})), Err(Reason::WrongType));
    for (claim, value) in [("token_use", "access"), ("typ", "Bearer"), ("typ", "DPoP")] {
        assert_eq!(check(jwt, None, json!({ claim: value })), Ok(()), "{value}");
    }
    for claim in ["jti", "client_id", "iat"] {
        let without = check(rfc9068, Some("at+jwt"), json!({ claim: null }));
        assert_eq!(without, Err(Reason::Malformed), "{claim}");
    }
}

#[test]
fn a_subject_is_never_made_up() {
    for sub in [json!(null), json!(""), json!(7), json!(["alice"])] {
        assert_eq!(identify(json!({ "sub": sub })).unwrap_err(), Reason::Malformed, "{sub}");
    }
    let user = identify(json!({"tier": "paid"})).unwrap();
    assert_eq!((user.issuer(), user.subject()), ("https://idp.example", "alice"));
    assert_eq!((user.client_id(), user.token_id()), (Some("app"), Some("1")));
    assert_eq!(user.expires_at(), Some(NOW + 300));
    assert_eq!(user.claims().str("tier"), Some("paid"));
    let user = identify(json!({"client_id": null, "azp": "spa"})).unwrap();
    assert_eq!(user.client_id(), Some("spa"));
    assert!(identify(json!({"azp": 7})).is_err());
}

#[test]
fn scopes_are_read_from_either_claim() {
    for (change, expected) in [
        (json!({"scope": "a b  c "}), vec!["a", "b", "c"]),
        (json!({"scp": "a b"}), vec!["a", "b"]),
        (json!({"scp": ["a", "b"]}), vec!["a", "b"]),
        (json!({"scope": "a", "scp": ["admin"]}), vec!["a"]),
        (json!({}), vec![]),
    ] {
        assert_eq!(identify(change.clone()).unwrap().scopes(), expected, "{change}");
    }
    for bad in
        [json!({"scope": ["a"]}), json!({"scope": 7}), json!({"scp": [1]}), json!({"scp": 1})]
    {
        assert!(identify(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn roles_are_the_strings_of_the_claim_that_the_issuer_keeps_them_in() {
    let user = identify(json!({"roles": ["a", 1, "b"], "groups": ["c"]})).unwrap();
    assert_eq!(user.roles(), ["a", "b"]);
    assert!(identify(json!({"roles": "admin"})).unwrap().roles().is_empty());
    let mut rules = rules(AccessTokenProfile::Rfc9068);
    rules.roles = "/realm_access/roles".into();
    let claims = with(json!({"realm_access": {"roles": ["r"]}, "roles": ["a"]}));
    let user = identity(&rules, Times::read(&claims).unwrap(), "s".into(), claims).unwrap();
    assert_eq!(user.roles(), ["r"]);
}
