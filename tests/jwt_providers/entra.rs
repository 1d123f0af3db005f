//! Microsoft Entra ID: "Access token claims reference" and "ID token claims reference".

use super::*;

fn settings() -> Issuer {
    Issuer::discover("https://login.microsoftonline.com/11111111-1111-4111-8111-111111111111/v2.0")
        .audience("22222222-2222-4222-8222-222222222222")
        .require_claim("azp")
        .algorithms([Algorithm::RS256])
        .profile(AccessTokenProfile::Jwt)
}

const LOGIN: &str = "https://login.microsoftonline.com";
const TENANT: &str = "11111111-1111-4111-8111-111111111111";
const APPLICATION: &str = "22222222-2222-4222-8222-222222222222";
const CLIENT: &str = "33333333-3333-4333-8333-333333333333";

fn issuer(tenant: &str) -> String {
    format!("{LOGIN}/{tenant}/v2.0")
}

/// Its keys don't say for which algorithm they are.
fn provider(settings: Issuer, tenant: &str, named: &str) -> (Key, ResourceServer) {
    let key = Key::new("entra");
    let jwks_uri = format!("{LOGIN}/{tenant}/discovery/v2.0/keys");
    let jwk = with(&key.jwk(), json!({"x5t": key.id, "issuer": issuer(named)}));
    let published = Published::new(&issuer(tenant), &issuer(named), &jwks_uri, &[jwk]);
    let server = server(settings, published);
    (key, server)
}

fn access_token() -> Value {
    json!({
        "aud": APPLICATION, "iss": issuer(TENANT), "iat": NOW, "nbf": NOW, "exp": NOW + 4500,
        "aio": "a", "azp": CLIENT, "azpacr": "0", "name": "Alice", "oid": "o",
        "preferred_username": "alice@example.com", "rh": "r", "roles": ["Analyst"],
        "scp": "llm.infer models.read", "sub": "s", "tid": TENANT, "uti": "u", "ver": "2.0",
    })
}

fn id_token(audience: &str) -> Value {
    json!({
        "aud": audience, "iss": issuer(TENANT), "iat": NOW, "nbf": NOW, "exp": NOW + 3900,
        "aio": "a", "name": "Alice", "nonce": "n", "oid": "o", "roles": ["Analyst"],
        "preferred_username": "alice@example.com", "rh": "r", "sub": "s", "tid": TENANT,
        "uti": "u", "ver": "2.0",
    })
}

#[tokio::test]
async fn access_tokens_are_accepted_and_others_refused() {
    let (key, server) = provider(settings(), TENANT, TENANT);
    let typ = Some("JWT");
    let user = verdict(&server, &key.token(typ, &access_token())).await.unwrap();
    assert_eq!((user.client_id(), user.token_id()), (Some(CLIENT), Some("u")));
    assert_eq!(user.scopes(), ["llm.infer", "models.read"]);
    assert_eq!(user.roles(), ["Analyst"]);
    // A service's own: roles, no scopes.
    let service = with(&access_token(), json!({"scp": null, "azpacr": "1", "name": null}));
    let user = verdict(&server, &key.token(typ, &service)).await.unwrap();
    assert!(user.scopes().is_empty() && user.has_role("Analyst"));

    let id = key.token(typ, &id_token(CLIENT));
    assert_eq!(refused(&server, &id).await, LACKS_A_CLAIM);
    let other = key.token(typ, &with(&access_token(), json!({"aud": CLIENT})));
    assert_eq!(refused(&server, &other).await, ANOTHER_AUDIENCE);
    // Version 1.0, by another issuer.
    let old = json!({
        "iss": format!("https://sts.windows.net/{TENANT}/"), "aud": format!("api://{APPLICATION}"),
        "ver": "1.0", "azp": null, "azpacr": null, "appid": CLIENT, "appidacr": "0",
    });
    let old = key.token(typ, &with(&access_token(), old));
    assert_eq!(refused(&server, &old).await, CANNOT_BE_VERIFIED);
    let by_ps256 = key.token_by(Alg::PS256, typ, &access_token());
    assert_eq!(refused(&server, &by_ps256).await, CANNOT_BE_VERIFIED);
}

#[tokio::test]
async fn tokens_of_another_tenant_are_refused() {
    let (key, server) = provider(settings(), TENANT, TENANT);
    let tenant = "44444444-4444-4444-8444-444444444444";
    let other = with(&access_token(), json!({"iss": issuer(tenant), "tid": tenant}));
    // All tenants share their keys.
    assert_eq!(refused(&server, &key.token(None, &other)).await, CANNOT_BE_VERIFIED);
}

/// Its metadata name no issuer, but a pattern for all tenants there are.
#[tokio::test]
async fn common_is_no_issuer() {
    let common = Issuer::discover(issuer("common")).audience(APPLICATION);
    let common = common.profile(AccessTokenProfile::Jwt);
    let (key, server) = provider(common, "common", "{tenantid}");
    let token = key.token(Some("JWT"), &access_token());
    assert_eq!(refused(&server, &token).await, CANNOT_BE_VERIFIED);
    let made_up = with(&access_token(), json!({"iss": issuer("common")}));
    let token = key.token(Some("JWT"), &made_up);
    let unavailable = "Access tokens cannot be verified at the moment.";
    assert_eq!(refused(&server, &token).await, unavailable);
    assert_eq!(server.health()[0].keys(), 0);
}

/// Nothing else in it says what it is, where the API's registration logs users in too.
#[tokio::test]
async fn an_id_token_for_the_apis_own_registration_lacks_azp() {
    let (key, server) = provider(settings(), TENANT, TENANT);
    let id = id_token(APPLICATION);
    assert_eq!(refused(&server, &key.token(Some("JWT"), &id)).await, LACKS_A_CLAIM);
    let null = with(&id, json!({"azp": null}));
    assert_eq!(refused(&server, &key.token(Some("JWT"), &null)).await, LACKS_A_CLAIM);
    // As it would be without the setting.
    let lax = settings_without_azp();
    let (key, server) = provider(lax, TENANT, TENANT);
    assert!(verdict(&server, &key.token(Some("JWT"), &id)).await.is_ok());
}

const LACKS_A_CLAIM: &str = "The access token is malformed or lacks a required claim.";

fn settings_without_azp() -> Issuer {
    Issuer::discover(issuer(TENANT))
        .audience(APPLICATION)
        .algorithms([Algorithm::RS256])
        .profile(AccessTokenProfile::Jwt)
}
