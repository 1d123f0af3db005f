//! Amazon Cognito: "Understanding the access token" and "Understanding the identity (ID) token".

use super::*;

fn settings() -> Issuer {
    Issuer::discover("https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Example01")
        .audience_claim("client_id", "1example23456789")
        .algorithms([Algorithm::RS256])
        .profile(AccessTokenProfile::Jwt)
        .roles_from("cognito:groups")
}

const POOL: &str = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Example01";
const CLIENT: &str = "1example23456789";

/// Access tokens and ID tokens are signed by different keys of one set.
struct Provider {
    access: Key,
    id: Key,
    server: ResourceServer,
}

fn provider(settings: Issuer) -> Provider {
    let (access, id) = (Key::new("access"), Key::new("id"));
    let keys = [id.jwk_for_rs256(), access.jwk_for_rs256()];
    let published = Published::new(POOL, POOL, &format!("{POOL}/.well-known/jwks.json"), &keys);
    Provider { access, id, server: server(settings, published) }
}

fn access_token() -> Value {
    json!({
        "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "device_key": "d", "cognito:groups": ["analysts"],
        "iss": POOL, "version": 2, "client_id": CLIENT, "origin_jti": "o", "event_id": "e",
        "token_use": "access", "scope": "openid https://llm.example/infer", "auth_time": NOW,
        "exp": NOW + 3600, "iat": NOW, "jti": "j", "username": "alice",
    })
}

fn id_token() -> Value {
    json!({
        "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "cognito:groups": ["analysts"],
        "email_verified": true, "iss": POOL, "cognito:username": "alice", "nonce": "n",
        "origin_jti": "o", "aud": CLIENT, "event_id": "e", "token_use": "id", "auth_time": NOW,
        "exp": NOW + 3600, "iat": NOW, "jti": "j", "email": "alice@example.com",
    })
}

#[tokio::test]
async fn access_tokens_are_accepted_and_others_refused() {
    let Provider { access, id, server } = provider(settings());
    let user = verdict(&server, &access.token(None, &access_token())).await.unwrap();
    assert_eq!((user.client_id(), user.token_id()), (Some(CLIENT), Some("j")));
    assert_eq!(user.roles(), ["analysts"]);
    assert!(user.has_scope("https://llm.example/infer"));
    // A machine's own.
    let machine = json!({
        "sub": CLIENT, "username": null, "cognito:groups": null, "device_key": null,
        "origin_jti": null, "event_id": null, "scope": "https://llm.example/infer",
    });
    let machine = access.token(None, &with(&access_token(), machine));
    assert_eq!(verdict(&server, &machine).await.unwrap().subject(), CLIENT);

    assert_eq!(refused(&server, &id.token(None, &id_token())).await, NOT_AN_ACCESS_TOKEN);
    // Whatever a trigger adds to it.
    let dressed = with(&id_token(), json!({"client_id": CLIENT, "scope": "llm:infer"}));
    assert_eq!(refused(&server, &id.token(None, &dressed)).await, NOT_AN_ACCESS_TOKEN);
    let other = with(&access_token(), json!({"client_id": "other"}));
    assert_eq!(refused(&server, &access.token(None, &other)).await, ANOTHER_AUDIENCE);
}

#[tokio::test]
async fn tokens_of_another_pool_are_refused() {
    let Provider { access, server, .. } = provider(settings());
    let other = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Example02";
    let other = with(&access_token(), json!({"iss": other}));
    for token in [access.token(None, &other), Key::new("access").token(None, &access_token())] {
        assert_eq!(refused(&server, &token).await, CANNOT_BE_VERIFIED);
    }
}

/// A client that logged in with `resource`.
#[tokio::test]
async fn tokens_that_are_bound_to_a_resource_have_an_audience() {
    let settings = Issuer::discover(POOL).audience(API).profile(AccessTokenProfile::Jwt);
    let Provider { access, id, server } = provider(settings);
    let bound = with(&access_token(), json!({"aud": API}));
    assert!(verdict(&server, &access.token(None, &bound)).await.is_ok());
    assert_eq!(refused(&server, &access.token(None, &access_token())).await, CLAIM_IS_MISSING);
    assert_eq!(refused(&server, &id.token(None, &id_token())).await, NOT_AN_ACCESS_TOKEN);
}
