//! Keys that are made, rotated and revoked, by several at once.

use super::*;

#[tokio::test]
async fn both_keys_hold_until_the_overlap_ends() {
    on_each(async |setup| {
        let (here, there) = (setup.process(), setup.process());
        let (keys_here, keys_there) = (here.open(), there.open());
        let day = SECOND * 86_400;
        let old = here.issue(new("ann").lifetime(day).note("laptop")).await.unwrap();
        setup.clock.advance(SECOND * 3600);
        let heir = there.rotate(&old.record.id, SECOND * 60).await.unwrap();
        for keys in [&keys_here, &keys_there] {
            for key in [&old, &heir] {
                assert_eq!(verify(keys, key).await.unwrap().subject(), "ann");
            }
        }
        assert_eq!(heir.record.tier.as_deref(), Some("paid"));
        assert_eq!(heir.record.note.as_deref(), Some("laptop"));
        assert_eq!(heir.record.expires_at, Some(NOW + 3600 + 86_400));
        setup.clock.advance(SECOND * 60);
        for keys in [&keys_here, &keys_there] {
            assert_eq!(refusal(keys, &old).await, EXPIRED);
            assert!(verify(keys, &heir).await.is_ok());
        }

        // Rotated once more, the old one lives no longer for it, and its heir as long as it was made for.
        let third = here.rotate(&old.record.id, day).await.unwrap();
        assert_eq!(third.record.lifetime, Some(86_400));
        let now = SECOND * u32::try_from(NOW + 3660).unwrap();
        let states = all(&there).await.into_iter().map(|key| key.record.state(now));
        let states: Vec<_> = states.collect();
        assert_eq!(states.len(), 3);
        assert_eq!(states.iter().filter(|state| **state == ApiKeyState::Active).count(), 2);
        here.revoke(&old.record.id).await.unwrap();
        let again = there.rotate(&old.record.id, day).await;
        assert!(matches!(again, Err(ApiKeyError::Revoked)));
        assert!(matches!(there.rotate("none", day).await, Err(ApiKeyError::NoSuchKey)));
        assert_eq!(all(&there).await.len(), 3, "no heir of a revoked key");
    })
    .await;
}

/// Whatever the order in which they get through: the key is revoked in the end, and whoever was told of an
/// heir has one that holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocations_and_rotations_at_once_never_undo_each_other() {
    on_each(async |setup| {
        for round in 0..40 {
            let subject = format!("subject-{round}");
            let issued = setup.process().issue(new(&subject)).await.unwrap();
            let id = issued.record.id.clone();
            let rotations: Vec<_> = (0..3)
                .map(|_| (setup.process(), id.clone()))
                .map(|(store, id)| tokio::spawn(async move { store.rotate(&id, STALE).await }))
                .collect();
            let revocations: Vec<_> = (0..2)
                .map(|_| (setup.process(), id.clone()))
                .map(|(store, id)| tokio::spawn(async move { store.revoke(&id).await }))
                .collect();
            let mut heirs = HashSet::new();
            for rotation in rotations {
                match rotation.await.unwrap() {
                    Ok(heir) => assert!(heirs.insert(heir.record.id)),
                    Err(ApiKeyError::Revoked) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            for revocation in revocations {
                assert!(revocation.await.unwrap().unwrap().revoked_at.is_some());
            }
            let keys = all(&setup.process()).await;
            let ours = keys.into_iter().filter(|key| key.record.subject == subject);
            let (revoked, rest): (Vec<_>, Vec<_>) =
                ours.partition(|key| key.record.revoked_at.is_some());
            assert!(revoked.iter().any(|key| key.record.id == id), "round {round}");
            let rest: HashSet<_> = rest.into_iter().map(|key| key.record.id).collect();
            assert_eq!(rest, heirs, "round {round}");
            assert_eq!(refusal(&setup.process().open(), &issued).await, REVOKED);
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_that_is_revoked_while_it_is_rotated_has_no_heir() {
    let (setup, _) = Setup::shared();
    let store = setup.process();
    let issued = store.issue(new("ann")).await.unwrap();
    let mut rotated = pin!(store.rotate(&issued.record.id, STALE));
    assert!(rotated.as_mut().now_or_never().is_none(), "it has read the record");
    setup.process().revoke(&issued.record.id).await.unwrap();
    assert!(matches!(rotated.await, Err(ApiKeyError::Revoked)));
    assert!(all(&store).await.iter().all(|key| key.record.revoked_at.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_made_at_once_are_all_listed_once() {
    on_each(async |setup| {
        let makers: Vec<_> = (0..4)
            .map(|_| setup.process())
            .map(|store| {
                tokio::spawn(async move {
                    let mut made = Vec::new();
                    for number in 0..75 {
                        let issued = store.issue(new(&format!("subject-{number}"))).await;
                        made.push(issued.unwrap().record);
                    }
                    made
                })
            })
            .collect();
        let mut made = Vec::new();
        for maker in makers {
            made.extend(maker.await.unwrap());
        }
        let mut listed: Vec<_> =
            all(&setup.process()).await.into_iter().map(|key| key.record).collect();
        assert_eq!(listed.len(), 300);
        listed.sort_by(|one, other| one.id.cmp(&other.id));
        made.sort_by(|one, other| one.id.cmp(&other.id));
        assert_eq!(listed, made);
    })
    .await;
}

#[tokio::test]
async fn what_could_not_be_kept_or_read_again_is_refused() {
    on_each(async |setup| {
        let store = setup.process();
        for (issuer, subject) in [("", "ann"), ("keys", ""), ("keys", "a\nb")] {
            let refused = store.issue(NewApiKey::new(issuer, subject)).await;
            assert!(matches!(refused, Err(ApiKeyError::Unfit(_))));
        }
        let long = |length: usize| new("ann").note("x".repeat(length));
        assert!(matches!(store.issue(long(5000)).await, Err(ApiKeyError::Unfit(_))));
        assert!(all(&store).await.is_empty());
        // The longest that is kept can still be rotated and revoked.
        let mut length = 4096;
        let longest = loop {
            match store.issue(long(length)).await {
                Ok(issued) => break issued,
                Err(ApiKeyError::Unfit(_)) => length -= 1,
                Err(error) => panic!("{error}"),
            }
        };
        store.rotate(&longest.record.id, STALE).await.unwrap();
        store.revoke(&longest.record.id).await.unwrap();
        assert_eq!(refusal(&store.open(), &longest).await, REVOKED);
    })
    .await;
}

#[allow(dead_code)]
fn the_keys_can_be_used_from_any_thread(keys: ApiKeys, store: ApiKeyStore) -> impl Send {
    async move {
        let _ = store.issue(new("ann")).await;
        let _ = store.rotate("id", STALE).await;
        let _ = store.records().next().await;
        keys.flush().await
    }
}
