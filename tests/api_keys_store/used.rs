//! Uses, by all processes.

use super::*;

#[tokio::test]
async fn uses_of_all_processes_are_listed() {
    on_each(async |setup| {
        let (here, there) = (setup.process(), setup.process());
        let (keys_here, keys_there) = (here.open(), there.open());
        let (used, unused) =
            (here.issue(new("ann")).await.unwrap(), here.issue(new("bob")).await.unwrap());
        for _ in 0..5 {
            assert!(verify(&keys_here, &used).await.is_ok());
        }
        setup.clock.advance(SECOND);
        for _ in 0..7 {
            assert!(verify(&keys_there, &used).await.is_ok());
        }
        assert_eq!((keys_here.uses()[0].count, keys_here.uses()[0].last_at), (5, Some(NOW)));
        // Each once, in whatever order, and what was used before takes nothing back.
        keys_there.flush().await.unwrap();
        keys_here.flush().await.unwrap();
        keys_here.flush().await.unwrap();
        for key in all(&here).await {
            let uses = (key.uses.count, key.uses.last_at);
            let is_used = key.record.id == used.record.id;
            assert_eq!(uses, if is_used { (12, Some(NOW + 1)) } else { (0, None) });
            assert_eq!(key.uses.id, key.record.id);
        }
        // Uses are no part of the record: writing them undoes no revocation, nor one them.
        here.revoke(&used.record.id).await.unwrap();
        assert!(verify(&keys_there, &used).await.is_ok(), "by the last answer");
        keys_there.flush().await.unwrap();
        assert!(verify(&keys_here, &unused).await.is_ok());
        assert_eq!(refusal(&keys_here, &used).await, REVOKED);
        let listed = all(&there).await;
        let used = listed.iter().find(|key| key.record.id == used.record.id).unwrap();
        assert!(used.record.revoked_at.is_some() && used.uses.count == 13);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn uses_are_written_within_about_a_minute_by_themselves() {
    let (setup, shared) = Setup::shared();
    let store = setup.process();
    let issued = store.issue(new("ann")).await.unwrap();
    let keys = store.open();
    let written = async || all(&store).await[0].uses.count;
    for minute in 1..=3 {
        for _ in 0..100 {
            assert!(verify(&keys, &issued).await.is_ok());
        }
        assert_eq!(written().await, (minute - 1) * 100, "not on the way of requests");
        tokio::time::sleep(SECOND * 61).await;
        assert_eq!(written().await, minute * 100);
    }
    // Nothing is asked for what was not used, and an outage loses nothing as long as the process lives.
    setup.asked();
    tokio::time::sleep(SECOND * 600).await;
    assert_eq!(setup.asked(), 0);
    assert!(verify(&keys, &issued).await.is_ok());
    shared.down.store(true, Ordering::Relaxed);
    tokio::time::sleep(SECOND * 61).await;
    assert!(keys.flush().await.is_err());
    shared.down.store(false, Ordering::Relaxed);
    tokio::time::sleep(SECOND * 61).await;
    assert_eq!(written().await, 301);
    // The task ends with the keys.
    drop((keys, store));
    assert_eq!(Arc::strong_count(&shared), 2);
    tokio::time::sleep(SECOND * 61).await;
}
