//! Which keys hold, and as whom.

use super::*;

#[tokio::test]
async fn a_key_gives_the_identity_that_a_token_would_in_every_process() {
    on_each(async |setup| {
        let (here, there) = (setup.process(), setup.process());
        let issued = here.issue(new("ann").lifetime(SECOND * 60)).await.unwrap();
        assert!(issued.key.expose().starts_with("sk-pal-"));
        for keys in [here.open(), there.open()] {
            let user = verify(&keys, &issued).await.unwrap();
            assert_eq!((user.issuer(), user.subject()), ("keys", "ann"));
            assert_eq!(user.scopes(), ["llm:infer", "models"]);
            assert_eq!(user.claims().str("tier"), Some("paid"));
            assert_eq!(user.claims().u64("iat"), Some(NOW));
            assert_eq!(user.token_id(), Some(issued.record.id.as_str()));
            assert_eq!(user.expires_at(), Some(NOW + 60));
        }
    })
    .await;
}

#[tokio::test]
async fn keys_that_do_not_hold_are_told_apart_for_those_who_have_them() {
    on_each(async |setup| {
        let store = setup.process();
        let keys = store.open();
        let (good, revoked) =
            (store.issue(new("ann")).await.unwrap(), store.issue(new("bob")).await.unwrap());
        let short = store.issue(new("cid").lifetime(SECOND * 60)).await.unwrap();
        store.revoke(&revoked.record.id).await.unwrap();
        assert!(verify(&keys, &short).await.is_ok());
        setup.clock.advance(SECOND * 60);
        assert_eq!(refusal(&keys, &short).await, EXPIRED);
        assert_eq!(refusal(&keys, &revoked).await, REVOKED);
        assert_eq!(refusal(&keys, &made_up().await).await, UNKNOWN);
        let typed = good.key.expose().to_uppercase();
        let error = keys.verify(&Presented::alone(&typed)).await.unwrap_err();
        assert_eq!(error.description(), "The API key is malformed.");
        assert!(verify(&keys, &good).await.is_ok());

        let other = ApiKeyStore::new(&setup.stores(), &Secret::new(vec![1; 16])).unwrap();
        assert_eq!(refusal(&other.open(), &good).await, UNKNOWN);
        let prefixed = setup.process().with_prefix("sk-other-").unwrap();
        assert!(verify(&prefixed.open(), &good).await.is_err());
        assert!(ApiKeyStore::new(&setup.stores(), &Secret::new(vec![1; 15])).is_err());
    })
    .await;
}

#[tokio::test]
async fn keys_and_tokens_are_told_apart_by_the_prefix() {
    on_each(async |setup| {
        let store = setup.process();
        let issued = store.issue(new("ann")).await.unwrap();
        let signer = Key::new(Algorithm::EdDSA);
        let token = signer.token(&claims(serde_json::json!({})));
        let server = ResourceServer::builder().issuer(signer.issuer());
        let server = server.clock(setup.clock.clone()).build().unwrap();
        let keys = store.open();
        let both = keys.clone().or(server.clone());
        assert!(verify(&both, &issued).await.is_ok());
        assert!(both.verify(&Presented::alone(&token)).await.is_ok());
        // Either alone does not accept the other's.
        assert!(keys.verify(&Presented::alone(&token)).await.is_err());
        assert!(verify(&server, &issued).await.is_err());
        let layer = JwtAuthLayer::builder(both).require_scopes(["llm:infer"]).build().unwrap();
        assert_eq!(post(&layer, &issued, 1).await, StatusCode::OK);
        let poor = store.issue(NewApiKey::new("keys", "bob")).await.unwrap();
        assert_eq!(post(&layer, &poor, 1).await, StatusCode::FORBIDDEN);
    })
    .await;
}

#[tokio::test]
async fn a_record_that_can_not_be_read_is_an_outage_and_no_key() {
    on_each(async |setup| {
        let store = setup.process();
        let issued = store.issue(new("ann")).await.unwrap();
        let stores = setup.stores();
        let records = stores.records();
        let (key, good) = records.page(TABLE, None).await.unwrap().records[0].clone();
        let text = String::from_utf8(good.to_vec()).unwrap();
        let mut now = good;
        let cases = [
            String::new(),
            "null".to_owned(),
            text[..text.len() / 2].to_owned(),
            text.replace("\"subject\":\"ann\"", "\"subject\":\"\""),
            text.replace("{\"id\"", "{\"until\":7,\"id\""),
            text.replace("\"tier\":\"paid\"", "\"tier\":7"),
        ];
        for bad in cases {
            assert_ne!(bad, text);
            let bad = Bytes::from(bad);
            assert!(records.compare_and_swap(TABLE, key, Some(now), bad.clone()).await.unwrap());
            now = bad;
            let keys = setup.process().open();
            let error = verify(&keys, &issued).await.unwrap_err();
            assert_eq!(error.kind(), AuthErrorKind::Unavailable);
            assert_eq!(keys.failed_reads(), 1);
            assert!(store.records().next().await.is_err());
            assert!(store.revoke(&issued.record.id).await.is_err());
        }
    })
    .await;
}

/// Another key's record under this key's name says nothing of this key.
#[tokio::test]
async fn a_record_counts_for_its_own_key_alone() {
    on_each(async |setup| {
        let store = setup.process();
        let (ann, bob) =
            (store.issue(new("ann")).await.unwrap(), store.issue(new("bob")).await.unwrap());
        let stores = setup.stores();
        let records = stores.records();
        let found = records.page(TABLE, None).await.unwrap().records;
        let found: Vec<_> = found.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect();
        let [(one, its), (other, others)] = &found[..] else { panic!("two keys") };
        let swap = |key, old: &Bytes, new: &Bytes| {
            records.compare_and_swap(TABLE, key, Some(old.clone()), new.clone())
        };
        assert!(swap(*one, its, others).await.unwrap());
        assert!(swap(*other, others, its).await.unwrap());
        let keys = setup.process().open();
        for key in [&ann, &bob] {
            assert_eq!(refusal(&keys, key).await, UNKNOWN);
            let revoked = store.revoke(&key.record.id).await;
            assert!(matches!(revoked, Err(ApiKeyError::NoSuchKey)));
        }
    })
    .await;
}
