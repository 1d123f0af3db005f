//! An issuer's documents by script.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use palisade::{
    clock::ManualClock,
    future::ReadyOr,
    jwt::{
        Algorithm, AuthErrorKind, FetchError, Issuer, IssuerHealth, KeySetFetch, Presented,
        ResourceServer, TokenVerifier,
    },
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::jwt_support::*;

/// On another host than the issuer's.
pub(crate) const JWKS: &str = "https://keys.example/jwks";

/// Answers by URL, and fails for what it does not know.
#[derive(Clone, Debug)]
pub(crate) struct Script(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    documents: Mutex<HashMap<String, Bytes>>,
    /// By the number of the call, from 1.
    at_call: Mutex<HashMap<usize, (String, Bytes)>>,
    calls: Mutex<Vec<String>>,
    held: watch::Sender<bool>,
    panics: Mutex<bool>,
}

impl Script {
    fn new() -> Self {
        Self(Arc::new(Inner {
            documents: Mutex::default(),
            at_call: Mutex::default(),
            calls: Mutex::default(),
            held: watch::Sender::new(false),
            panics: Mutex::default(),
        }))
    }

    pub(crate) fn answer(&self, url: &str, text: &str) {
        self.0.documents.lock().unwrap().insert(url.to_owned(), text.to_owned().into());
    }

    pub(crate) fn fail(&self, url: &str) {
        self.0.documents.lock().unwrap().remove(url);
    }

    /// From the call of this number on.
    pub(crate) fn at_call(&self, number: usize, url: &str, text: &str) {
        let document = (url.to_owned(), text.to_owned().into());
        self.0.at_call.lock().unwrap().insert(number, document);
    }

    /// Fetches don't end until they are let go.
    pub(crate) fn hold(&self) {
        self.0.held.send_replace(true);
    }

    pub(crate) fn release(&self) {
        self.0.held.send_replace(false);
    }

    /// At the next fetch.
    pub(crate) fn panic(&self) {
        *self.0.panics.lock().unwrap() = true;
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.0.calls.lock().unwrap().clone()
    }
}

impl KeySetFetch for Script {
    fn fetch(&self, url: &str) -> ReadyOr<Result<Bytes, FetchError>> {
        let number = {
            let mut calls = self.0.calls.lock().unwrap();
            calls.push(url.to_owned());
            calls.len()
        };
        if let Some((url, text)) = self.0.at_call.lock().unwrap().remove(&number) {
            self.0.documents.lock().unwrap().insert(url, text);
        }
        // What is there when the fetch begins is what it brings.
        let found = self.0.documents.lock().unwrap().get(url).cloned();
        let panics = std::mem::take(&mut *self.0.panics.lock().unwrap());
        let mut held = self.0.held.subscribe();
        ReadyOr::pending(async move {
            assert!(!panics, "a fetch of somebody else's");
            held.wait_for(|held| !held).await.unwrap();
            found.ok_or_else(|| FetchError::new("down"))
        })
    }
}

/// A server with one issuer, whose keys `a`, `b`, … are all the same.
pub(crate) struct Case {
    pub(crate) key: Key,
    pub(crate) script: Script,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) server: ResourceServer,
}

impl Case {
    pub(crate) fn new() -> Self {
        Self::of(Issuer::jwks_uri(ISSUER, JWKS))
    }

    pub(crate) fn of(issuer: Issuer) -> Self {
        let (script, clock) = (Script::new(), clock());
        let issuer = issuer.audience(AUDIENCE);
        let server = server_at(clock.clone()).issuer(issuer).fetch(script.clone());
        let server = server.build().unwrap();
        Self { key: Key::new(Algorithm::EdDSA), script, clock, server }
    }

    /// With these keys, and one fetch behind it.
    pub(crate) async fn warm(ids: &[&str]) -> Self {
        let case = Self::new();
        case.publish(ids);
        case.server.warm_up().await;
        assert_eq!(case.script.calls().len(), 1);
        case
    }

    pub(crate) fn set(&self, ids: &[&str]) -> String {
        let keys: Vec<Value> = ids.iter().map(|id| self.key.jwk(id)).collect();
        json!({ "keys": keys }).to_string()
    }

    pub(crate) fn publish(&self, ids: &[&str]) {
        self.script.answer(JWKS, &self.set(ids));
    }

    pub(crate) fn token(&self, id: &str, change: Value) -> String {
        self.key.token_by(id, &claims(change))
    }

    /// What comes of a token, by the key of this name.
    pub(crate) async fn verify(&self, id: &str) -> Result<(), AuthErrorKind> {
        let end = NOW + 3600 * 20;
        self.ask(&self.token(id, json!({ "exp": end }))).await
    }

    /// The same of one that was never seen before.
    pub(crate) async fn verify_new(&self, id: &str) -> Result<(), AuthErrorKind> {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.ask(&self.token(id, json!({"exp": NOW + 3600, "jti": count.to_string()}))).await
    }

    pub(crate) async fn ask(&self, token: &str) -> Result<(), AuthErrorKind> {
        let verdict = self.server.verify(&Presented::alone(token)).await;
        verdict.map(drop).map_err(|error| error.kind())
    }

    pub(crate) fn health(&self) -> IssuerHealth {
        self.server.health().remove(0)
    }
}

/// Lets every other task run until it waits.
pub(crate) async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn build(issuer: Issuer) -> bool {
    ResourceServer::builder().issuer(issuer).fetch(Script::new()).build().is_ok()
}
