//! Auth0: "Access Token Profiles" and "ID Token Structure".

use super::*;

fn settings() -> Issuer {
    Issuer::discover("https://tenant.eu.auth0.com/")
        .audience("https://llm.example")
        .algorithms([Algorithm::RS256])
        .roles_from("permissions")
}

const TENANT: &str = "https://tenant.eu.auth0.com/";

fn provider(settings: Issuer) -> (Key, ResourceServer) {
    let key = Key::new("auth0");
    let jwks_uri = format!("{TENANT}.well-known/jwks.json");
    let published = Published::new(TENANT, TENANT, &jwks_uri, &[key.jwk_for_rs256()]);
    let server = server(settings, published);
    (key, server)
}

/// By the RFC 9068 profile, for a day, as it is by default.
fn access_token() -> Value {
    json!({
        "iss": TENANT, "sub": "auth0|123456", "aud": [API, format!("{TENANT}userinfo")],
        "client_id": "my_client_id", "exp": NOW + 86_400, "iat": NOW, "jti": "73WakrfVbNJBaAmhQtEeDv",
        "scope": "openid profile llm:infer", "permissions": ["llm:infer"],
    })
}

/// By Auth0's own profile.
fn plain_access_token() -> Value {
    with(&access_token(), json!({"client_id": null, "jti": null, "azp": "my_client_id"}))
}

fn id_token() -> Value {
    json!({
        "iss": TENANT, "sub": "auth0|123456", "aud": "my_client_id", "exp": NOW + 36_000,
        "iat": NOW, "name": "Alice", "nickname": "alice", "email": "alice@example.com",
        "email_verified": true, "nonce": "n", "sid": "s",
    })
}

#[tokio::test]
async fn access_tokens_are_accepted_and_others_refused() {
    let (key, server) = provider(settings());
    let user = verdict(&server, &key.token(Some("at+jwt"), &access_token())).await.unwrap();
    assert_eq!((user.subject(), user.client_id()), ("auth0|123456", Some("my_client_id")));
    assert_eq!(user.roles(), ["llm:infer"]);
    assert!(user.has_scope("llm:infer"));

    let id = key.token(Some("JWT"), &id_token());
    assert_eq!(refused(&server, &id).await, NOT_AN_ACCESS_TOKEN);
    let plain = key.token(Some("JWT"), &plain_access_token());
    assert_eq!(refused(&server, &plain).await, NOT_AN_ACCESS_TOKEN);
    let userinfo = with(&access_token(), json!({"aud": format!("{TENANT}userinfo")}));
    let userinfo = key.token(Some("at+jwt"), &userinfo);
    assert_eq!(refused(&server, &userinfo).await, ANOTHER_AUDIENCE);
}

#[tokio::test]
async fn auth0s_own_profile_is_a_plain_jwt() {
    let (key, server) = provider(settings().profile(AccessTokenProfile::Jwt));
    let user = verdict(&server, &key.token(Some("JWT"), &plain_access_token())).await.unwrap();
    assert_eq!(user.client_id(), Some("my_client_id"));
    let id = key.token(Some("JWT"), &id_token());
    assert_eq!(refused(&server, &id).await, ANOTHER_AUDIENCE);
}

#[tokio::test]
async fn tokens_of_another_tenant_are_refused() {
    let (key, server) = provider(settings());
    for issuer in ["https://other.eu.auth0.com/", TENANT.trim_end_matches('/')] {
        let other = with(&access_token(), json!({"iss": issuer}));
        let token = key.token(Some("at+jwt"), &other);
        assert_eq!(refused(&server, &token).await, CANNOT_BE_VERIFIED);
    }
    let token = Key::new("auth0").token(Some("at+jwt"), &access_token());
    assert_eq!(refused(&server, &token).await, CANNOT_BE_VERIFIED);
}
