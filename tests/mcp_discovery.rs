//! An MCP client that is refused finds out where to get a token: rmcp's own discovery, over HTTP.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod jwt_support;

use axum::{Json, Router, routing::get};
use http::StatusCode;
use palisade::jwt::{Algorithm, JwtAuthLayer, ProtectedResourceMetadata};
use rmcp::transport::auth::{AuthorizationManager, AuthorizationMetadataSource};
use serde_json::json;
use tokio::net::TcpListener;

use crate::jwt_support::*;

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    (listener, origin)
}

/// An authorization server that says where its endpoints are, and a guarded server that names it.
async fn servers() -> (String, String) {
    let (listener, issuer) = listener().await;
    let metadata = json!({
        "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"), "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"],
    });
    let app = Router::new().route(
        "/.well-known/oauth-authorization-server",
        get(async move || Json(metadata.clone())),
    );
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

    let (listener, origin) = self::listener().await;
    let metadata = ProtectedResourceMetadata::new(format!("{origin}/mcp"))
        .authorization_servers([&issuer])
        .scopes_supported(["llm:infer", "admin"]);
    let auth = JwtAuthLayer::builder(server(&Key::new(Algorithm::EdDSA)))
        .require_scopes(["llm:infer"])
        .resource_metadata(metadata)
        .build()
        .unwrap();
    let app = Router::new().route("/mcp", get(async || "secret")).layer(auth);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (origin, issuer)
}

#[tokio::test]
async fn the_challenge_leads_a_client_to_the_issuer() {
    let (origin, issuer) = servers().await;
    let refused = reqwest::get(format!("{origin}/mcp")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let challenge = refused.headers()["www-authenticate"].to_str().unwrap();

    let client = AuthorizationManager::new(format!("{origin}/mcp")).await.unwrap();
    let found = client.resolve_metadata_from_challenge(Some(challenge)).await.unwrap();
    assert_eq!(found.source, AuthorizationMetadataSource::ProtectedResourceMetadata);
    assert_eq!(found.metadata.token_endpoint, format!("{issuer}/token"));
    // What the challenge asks for, not all that there is.
    assert_eq!(client.select_initial_scopes(&[]).await, ["llm:infer"]);
}

#[tokio::test]
async fn a_client_that_only_guesses_finds_the_issuer_too() {
    let (origin, issuer) = servers().await;
    let client = AuthorizationManager::new(format!("{origin}/mcp")).await.unwrap();
    let found = client.resolve_metadata().await.unwrap();
    assert_eq!(found.source, AuthorizationMetadataSource::ProtectedResourceMetadata);
    assert_eq!(found.metadata.token_endpoint, format!("{issuer}/token"));
}
