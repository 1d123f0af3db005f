//! What a fact store promises.

use std::{sync::Arc, time::Duration};

use super::{Time, fresh_key};
use crate::store::{Distinct, FactStore};

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(300);
const WORKS: &str = "the store answers";

pub(super) async fn a_first_use_is_told_once(store: Arc<impl FactStore>, time: &dyn Time) {
    let key = fresh_key();
    assert!(store.first_use(key, SHORT).await.expect(WORKS));
    assert!(!store.first_use(key, SHORT).await.expect(WORKS));
    assert!(store.first_use(fresh_key(), SHORT).await.expect(WORKS));
    time.pass(SHORT).await;
    assert!(store.first_use(key, HOUR).await.expect(WORKS), "its time is over");
    assert!(!store.first_use(key, HOUR).await.expect(WORKS));
}

pub(super) async fn concurrent_first_uses_are_told_once(store: Arc<impl FactStore>) {
    for _ in 0..20 {
        let key = fresh_key();
        let tasks = (0..4).map(|_| {
            let store = Arc::clone(&store);
            crate::runtime::join(async move { store.first_use(key, HOUR).await.expect(WORKS) })
        });
        let mut first = 0;
        for task in tasks.collect::<Vec<_>>() {
            first += u32::from(task.await);
        }
        assert_eq!(first, 1);
    }
}

pub(super) async fn values_are_kept_for_their_time(store: Arc<impl FactStore>, time: &dyn Time) {
    let key = fresh_key();
    assert_eq!(store.get(key).await.expect(WORKS), None);
    for value in [0, 1, 9, 10, u64::MAX - 1, u64::MAX] {
        assert_eq!(store.raise(key, value, HOUR).await.expect(WORKS), value);
        assert_eq!(store.get(key).await.expect(WORKS), Some(value));
    }
    // What is less takes nothing back, and what is shorter neither.
    for value in [u64::MAX - 1, 100, 9] {
        assert_eq!(store.raise(key, value, SHORT).await.expect(WORKS), u64::MAX);
    }
    let other = fresh_key();
    store.raise(other, 7, SHORT).await.expect(WORKS);
    time.pass(SHORT).await;
    assert_eq!(store.get(key).await.expect(WORKS), Some(u64::MAX));
    assert_eq!(store.get(other).await.expect(WORKS), None, "its time is over");
    assert_eq!(store.raise(other, 3, SHORT).await.expect(WORKS), 3, "and it counts no more");
    assert_eq!(store.raise(other, 2, HOUR).await.expect(WORKS), 3);
    time.pass(SHORT).await;
    assert_eq!(store.get(other).await.expect(WORKS), Some(3), "for the longer time");
}

pub(super) async fn concurrent_values_take_nothing_back(store: Arc<impl FactStore>) {
    for _ in 0..20 {
        let key = fresh_key();
        let tasks = (1..=4).map(|value| {
            let store = Arc::clone(&store);
            crate::runtime::join(async move { store.raise(key, value, HOUR).await.expect(WORKS) })
        });
        for (task, value) in tasks.collect::<Vec<_>>().into_iter().zip(1..) {
            assert!(task.await >= value);
        }
        assert_eq!(store.get(key).await.expect(WORKS), Some(4));
    }
}

pub(super) async fn members_are_counted_up_to_the_cap(store: Arc<impl FactStore>, time: &dyn Time) {
    let (key, members) = (fresh_key(), [fresh_key(), fresh_key(), fresh_key()]);
    let [one, two, three] = members;
    let expected = [
        (one, Distinct::new(1, false, true)),
        (one, Distinct::new(1, false, false)),
        (two, Distinct::new(2, false, true)),
        (three, Distinct::new(2, true, false)),
        (two, Distinct::new(2, true, false)),
    ];
    for (member, count) in expected {
        let counted = store.distinct(key, member, SHORT, 2).await.expect(WORKS);
        assert_eq!(counted, count);
    }
    time.pass(SHORT).await;
    let counted = store.distinct(key, three, HOUR, 2).await.expect(WORKS);
    assert_eq!(counted, Distinct::new(1, false, true), "a new window");
}

pub(super) async fn kinds_do_not_mix(store: Arc<impl FactStore>) {
    let key = fresh_key();
    assert!(store.first_use(key, HOUR).await.expect(WORKS));
    assert_eq!(store.get(key).await.expect(WORKS), None);
    store.raise(key, 5, HOUR).await.expect(WORKS);
    let counted = store.distinct(key, key, HOUR, 10).await.expect(WORKS);
    assert_eq!(counted, Distinct::new(1, false, true));
    assert_eq!(store.get(key).await.expect(WORKS), Some(5));
    assert!(!store.first_use(key, HOUR).await.expect(WORKS));
}
