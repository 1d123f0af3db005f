//! Keycloak: Server Administration Guide, "OIDC token and SAML assertion mappings" and "Audience support".

use super::*;

fn settings() -> Issuer {
    Issuer::discover("https://login.example/realms/prod")
        .audience("https://llm.example")
        .algorithms([Algorithm::RS256])
        .profile(AccessTokenProfile::Jwt)
        .roles_from("/realm_access/roles")
}

const REALM: &str = "https://login.example/realms/prod";

fn certs(realm: &str) -> String {
    format!("{realm}/protocol/openid-connect/certs")
}

fn provider(settings: Issuer) -> (Key, ResourceServer) {
    let key = Key::new("keycloak");
    let published = Published::new(REALM, REALM, &certs(REALM), &[key.jwk_for_rs256()]);
    let server = server(settings, published);
    (key, server)
}

fn access_token() -> Value {
    json!({
        "exp": NOW + 300, "iat": NOW, "auth_time": NOW, "jti": "onrtac:5f0c", "iss": REALM,
        "aud": [API, "account"], "sub": "9b319159-6761-4a1f-9907-b02d263580ad", "typ": "Bearer",
        "azp": "cli", "sid": "d8a0aed6", "acr": "1", "allowed-origins": ["https://app.example"],
        "realm_access": {"roles": ["default-roles-prod", "analyst"]},
        "resource_access": {"account": {"roles": ["view-profile"]}},
        "scope": "openid llm:infer profile", "email_verified": false, "preferred_username": "alice",
    })
}

fn id_token() -> Value {
    json!({
        "exp": NOW + 300, "iat": NOW, "auth_time": NOW, "jti": "8d1f", "iss": REALM, "aud": "cli",
        "sub": "9b319159-6761-4a1f-9907-b02d263580ad", "typ": "ID", "azp": "cli", "nonce": "n",
        "sid": "d8a0aed6", "at_hash": "8Y5v", "acr": "1", "email_verified": false,
        "preferred_username": "alice",
    })
}

#[tokio::test]
async fn access_tokens_are_accepted_and_others_refused() {
    let (key, server) = provider(settings());
    let typ = Some("JWT");
    let user = verdict(&server, &key.token(typ, &access_token())).await.unwrap();
    assert_eq!(user.client_id(), Some("cli"));
    assert_eq!(user.roles(), ["default-roles-prod", "analyst"]);
    assert!(user.has_scope("llm:infer"));

    let id = key.token(typ, &id_token());
    assert_eq!(refused(&server, &id).await, NOT_AN_ACCESS_TOKEN);
    // An audience mapper that is on for ID tokens too.
    let id = key.token(typ, &with(&id_token(), json!({"aud": [API, "cli"], "at_hash": null})));
    assert_eq!(refused(&server, &id).await, NOT_AN_ACCESS_TOKEN);
    let refresh = key.token(typ, &with(&access_token(), json!({"typ": "Refresh"})));
    assert_eq!(refused(&server, &refresh).await, NOT_AN_ACCESS_TOKEN);
    // Without the mapper.
    let account = key.token(typ, &with(&access_token(), json!({"aud": "account"})));
    assert_eq!(refused(&server, &account).await, ANOTHER_AUDIENCE);
    let nobody = key.token(typ, &with(&access_token(), json!({"aud": null})));
    assert_eq!(refused(&server, &nobody).await, CLAIM_IS_MISSING);
}

#[tokio::test]
async fn tokens_of_another_realm_are_refused() {
    let (key, server) = provider(settings());
    let other = with(&access_token(), json!({"iss": "https://login.example/realms/other"}));
    for token in [key.token(None, &other), Key::new("keycloak").token(None, &access_token())] {
        assert_eq!(refused(&server, &token).await, CANNOT_BE_VERIFIED);
    }
}

/// With `at+jwt` switched on, the strict profile holds, once the claim that it asks for is mapped.
#[tokio::test]
async fn at_jwt_needs_a_mapped_client_id() {
    let (key, server) = provider(settings().profile(AccessTokenProfile::Rfc9068));
    let mapped = with(&access_token(), json!({"client_id": "cli"}));
    assert!(verdict(&server, &key.token(Some("at+jwt"), &mapped)).await.is_ok());
    let unmapped = key.token(Some("at+jwt"), &access_token());
    assert_eq!(refused(&server, &unmapped).await, CLAIM_IS_MISSING);
    assert_eq!(refused(&server, &key.token(Some("JWT"), &mapped)).await, NOT_AN_ACCESS_TOKEN);
}

/// The address inside a cluster, for the keys alone.
#[tokio::test]
async fn keys_may_come_from_another_address_than_the_issuer_has() {
    let inside = certs("https://keycloak.internal/realms/prod");
    let key = Key::new("keycloak");
    let set = json!({"keys": [key.jwk_for_rs256()]}).to_string();
    let issuer = Issuer::jwks_uri(REALM, &inside).audience(API);
    let issuer = issuer.profile(AccessTokenProfile::Jwt);
    let server = server(issuer, Published(HashMap::from([(inside, set.into())])));
    assert!(verdict(&server, &key.token(Some("JWT"), &access_token())).await.is_ok());
}
