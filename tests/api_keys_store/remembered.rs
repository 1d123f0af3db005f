//! The store's last answers: how long they count, and what they spare.

use super::*;

#[tokio::test]
async fn a_revocation_counts_here_at_once_and_elsewhere_within_the_staleness() {
    on_each(async |setup| {
        let (here, there) = (setup.process(), setup.process());
        let strict = setup.process().with_staleness(Duration::ZERO).open();
        let (keys_here, keys_there) = (here.open(), there.open());
        let issued = here.issue(new("ann")).await.unwrap();
        for keys in [&keys_here, &keys_there, &strict] {
            assert!(verify(keys, &issued).await.is_ok());
        }
        setup.clock.advance(SECOND);
        let revoked = here.revoke(&issued.record.id).await.unwrap();
        assert_eq!(revoked.revoked_at, Some(NOW + 1));
        assert_eq!(refusal(&keys_here, &issued).await, REVOKED);
        assert_eq!(refusal(&strict, &issued).await, REVOKED);
        setup.clock.advance(SECOND * 3);
        assert!(verify(&keys_there, &issued).await.is_ok(), "by the last answer");
        setup.clock.advance(STALE - SECOND * 4);
        assert_eq!(refusal(&keys_there, &issued).await, REVOKED);
        // Once more changes nothing, whoever says it.
        assert_eq!(there.revoke(&issued.record.id).await.unwrap(), revoked);
        assert!(matches!(there.revoke("nobody").await, Err(ApiKeyError::NoSuchKey)));
    })
    .await;
}

/// An answer to a question that was asked while the revocation was under way arrives after it.
#[tokio::test]
async fn no_answer_on_its_way_undoes_a_revocation_here() {
    let (setup, _) = Setup::shared();
    let store = setup.process();
    let keys = store.open();
    let issued = store.issue(new("ann")).await.unwrap();
    let mut revoked = pin!(store.revoke(&issued.record.id));
    assert!(revoked.as_mut().now_or_never().is_none());
    setup.clock.advance(SECOND);
    let early = keys.verify(&Presented::alone(issued.key.expose()));
    revoked.await.unwrap();
    drop(early.await);
    assert_eq!(refusal(&keys, &issued).await, REVOKED);
}

#[tokio::test]
async fn a_key_in_use_costs_no_round_trip_and_never_waits() {
    on_each_remote(async |setup| {
        let store = setup.process();
        let issued = store.issue(new("ann")).await.unwrap();
        let keys = store.open();
        setup.asked();
        assert!(verify(&keys, &issued).await.is_ok());
        assert_eq!(setup.asked(), 1);
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let others = tasks();
        for second in 1..=100 {
            setup.clock.advance(SECOND);
            for _ in 0..10 {
                let answer = keys.verify(&Presented::alone(issued.key.expose())).try_now();
                assert!(answer.expect("nothing to wait for").is_ok(), "second {second}");
            }
            // The renewal, if there is one, has its answer before the next second begins.
            assert!(support::within(SECOND * 10, async || tasks() <= others).await);
        }
        let asked = setup.asked();
        assert!((15..=20).contains(&asked), "one for every five seconds or so: {asked}");
        assert_eq!(keys.uses()[0].count, 1001);

        let strict = setup.process().with_staleness(Duration::ZERO).open();
        for _ in 0..5 {
            assert!(verify(&strict, &issued).await.is_ok());
        }
        assert_eq!(setup.asked(), 5);
    })
    .await;
}

#[tokio::test]
async fn what_the_store_does_not_know_is_asked_again_after_the_staleness() {
    on_each_remote(async |setup| {
        // A key that is unknown here, until its record is carried over.
        let (elsewhere, _) = Setup::shared();
        let issued = elsewhere.process().issue(new("ann")).await.unwrap();
        let keys = setup.process().open();
        setup.asked();
        for _ in 0..10 {
            assert_eq!(refusal(&keys, &issued).await, UNKNOWN);
        }
        assert_eq!(setup.asked(), 1);
        let page = elsewhere.stores().records().page(TABLE, None).await.unwrap();
        let (key, record) = page.records[0].clone();
        let stores = setup.stores();
        let records = stores.records();
        assert!(records.compare_and_swap(TABLE, key, None, record).await.unwrap());
        setup.clock.advance(STALE - SECOND);
        assert_eq!(refusal(&keys, &issued).await, UNKNOWN, "by the last answer");
        setup.clock.advance(SECOND);
        assert!(verify(&keys, &issued).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn an_outage_refuses_with_503_once_the_last_answer_is_too_old() {
    on_each_remote(async |mut setup| {
        let store = setup.process();
        let (used, unused) =
            (store.issue(new("ann")).await.unwrap(), store.issue(new("bob")).await.unwrap());
        let revoked = store.issue(new("cid")).await.unwrap();
        let keys = setup.process().open();
        store.revoke(&revoked.record.id).await.unwrap();
        assert!(verify(&keys, &used).await.is_ok());
        assert_eq!(refusal(&keys, &revoked).await, REVOKED);

        setup.stop();
        assert!(verify(&keys, &used).await.is_ok(), "by the last answer");
        let error = verify(&keys, &unused).await.unwrap_err();
        assert_eq!(error.kind(), AuthErrorKind::Unavailable);
        assert!(keys.failed_reads() > 0);
        setup.clock.advance(STALE - SECOND);
        assert!(verify(&keys, &used).await.is_ok(), "the renewal fails, the answer counts");
        assert_eq!(refusal(&keys, &revoked).await, REVOKED);
        settle().await;
        setup.clock.advance(SECOND);
        for key in [&used, &unused, &revoked] {
            let error = verify(&keys, key).await.unwrap_err();
            assert_eq!(error.kind(), AuthErrorKind::Unavailable);
        }
        assert!(matches!(store.issue(new("dan")).await, Err(ApiKeyError::Store(_))));
        assert!(matches!(store.revoke(&used.record.id).await, Err(ApiKeyError::Store(_))));
        assert!(store.records().next().await.is_err());
        let layer = JwtAuthLayer::builder(keys.clone()).build().unwrap();
        assert_eq!(post(&layer, &used, 1).await, StatusCode::SERVICE_UNAVAILABLE);

        setup.start();
        let recovers = async || verify(&keys, &used).await.is_ok();
        assert!(support::within(SECOND * 10, recovers).await);
        assert!(verify(&keys, &unused).await.is_ok());
        assert_eq!(refusal(&keys, &revoked).await, REVOKED);
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_made_up_keys_pushes_out_no_key_that_holds() {
    on_each_remote(async |setup| {
        let store = setup.process().with_answers(64);
        let keys = store.open();
        let mut good = Vec::new();
        for number in 0..8 {
            good.push(store.issue(new(&format!("subject-{number}"))).await.unwrap());
            assert!(verify(&keys, &good[number]).await.is_ok());
        }
        setup.asked();
        for _ in 0..500 {
            assert_eq!(refusal(&keys, &made_up().await).await, UNKNOWN);
        }
        assert_eq!(setup.asked(), 500, "one question each");
        for key in &good {
            let answer = keys.verify(&Presented::alone(key.key.expose())).try_now();
            assert!(answer.expect("it is remembered").is_ok());
        }
        assert_eq!(setup.asked(), 0);
        assert_eq!(keys.uses().len(), 8);
    })
    .await;
}

#[tokio::test]
async fn keys_beyond_those_that_are_remembered_hold_and_add_no_memory() {
    on_each(async |setup| {
        let store = setup.process().with_answers(8);
        let keys = store.open();
        for number in 0..100 {
            let issued = store.issue(new(&format!("subject-{number}"))).await.unwrap();
            assert!(verify(&keys, &issued).await.is_ok());
        }
        assert_eq!(keys.uses().len(), 12);
        keys.flush().await.unwrap();
        assert_eq!(all(&store).await.into_iter().map(|key| key.uses.count).sum::<u64>(), 12);
        assert!(keys.uses().len() <= 8);
        let issued = store.issue(new("one-more")).await.unwrap();
        assert!(verify(&keys, &issued).await.is_ok());
        assert!(keys.uses().iter().any(|used| used.id == issued.record.id && used.count == 1));
    })
    .await;
}

#[tokio::test]
async fn a_network_that_guesses_has_only_known_keys_verified() {
    on_each_remote(async |setup| {
        let store = setup.process();
        let keys = store.open();
        let (known, other) =
            (store.issue(new("ann")).await.unwrap(), store.issue(new("bob")).await.unwrap());
        let layer = JwtAuthLayer::builder(keys.clone())
            .throttle_failures(&Stores::in_memory(), 3, SECOND * 3600)
            .build()
            .unwrap();
        assert_eq!(post(&layer, &known, 1).await, StatusCode::OK);
        for _ in 0..3 {
            assert_eq!(post(&layer, &made_up().await, 1).await, StatusCode::UNAUTHORIZED);
        }
        settle().await;
        setup.asked();
        let guess = made_up().await;
        assert_eq!(post(&layer, &guess, 1).await, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(post(&layer, &other, 1).await, StatusCode::TOO_MANY_REQUESTS, "or a guess");
        assert_eq!(setup.asked(), 0, "nobody asks for those who guess");
        assert_eq!(post(&layer, &known, 1).await, StatusCode::OK);
        assert_eq!(post(&layer, &other, 2).await, StatusCode::OK);
        assert_eq!(post(&layer, &other, 1).await, StatusCode::OK, "known by now");

        // However long ago it was, and also when it holds no more: it is no guess.
        setup.clock.advance(STALE * 10);
        assert!(keys.remembers(&Presented::alone(known.key.expose())));
        assert!(!keys.remembers(&Presented::alone(guess.key.expose())));
        assert_eq!(post(&layer, &known, 1).await, StatusCode::OK);
        store.revoke(&known.record.id).await.unwrap();
        assert_eq!(post(&layer, &known, 1).await, StatusCode::UNAUTHORIZED);
    })
    .await;
}

/// Asking whether a key is remembered must not pass for the one who asks for a newer answer.
#[tokio::test]
async fn a_throttled_network_does_not_keep_answers_from_being_renewed() {
    let (setup, _) = Setup::shared();
    let store = setup.process();
    let issued = store.issue(new("ann")).await.unwrap();
    let keys = store.open();
    assert!(verify(&keys, &issued).await.is_ok());
    setup.clock.advance(STALE / 2);
    setup.asked();
    for _ in 0..10 {
        assert!(keys.remembers(&Presented::alone(issued.key.expose())));
    }
    assert!(verify(&keys, &issued).await.is_ok());
    settle().await;
    assert_eq!(setup.asked(), 1);
}
