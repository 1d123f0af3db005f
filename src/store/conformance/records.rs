//! What a record store promises.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use super::fresh_key;
use crate::store::{Key, MAX_RECORD_BYTES, RecordStore};

const TABLE: &str = "conformance";
const WORKS: &str = "the store answers";

async fn put(store: &impl RecordStore, key: Key, old: Option<&Bytes>, new: &Bytes) -> bool {
    store.compare_and_swap(TABLE, key, old.cloned(), new.clone()).await.expect(WORKS)
}

async fn read(store: &impl RecordStore, key: Key) -> Option<Bytes> {
    store.read(TABLE, key).await.expect(WORKS)
}

pub(super) async fn a_record_is_read_as_it_was_written(store: Arc<impl RecordStore>) {
    let long: Vec<u8> = (0..=255).cycle().take(MAX_RECORD_BYTES).collect();
    for record in [Bytes::new(), Bytes::from("0"), Bytes::from(long)] {
        let key = fresh_key();
        assert_eq!(read(&store, key).await, None);
        assert!(put(&store, key, None, &record).await);
        assert_eq!(read(&store, key).await, Some(record));
    }
}

pub(super) async fn only_what_is_expected_is_replaced(store: Arc<impl RecordStore>) {
    let (one, two) = (Bytes::from("one"), Bytes::from("two"));
    let key = fresh_key();
    for wrong in [Bytes::new(), Bytes::from("0"), one.clone()] {
        assert!(!put(&store, key, Some(&wrong), &one).await, "nothing is there");
    }
    assert!(put(&store, key, None, &one).await);
    assert!(!put(&store, key, None, &two).await, "something is there");
    assert!(!put(&store, key, Some(&two), &two).await, "something else is there");
    assert_eq!(read(&store, key).await.as_ref(), Some(&one));
    assert!(put(&store, key, Some(&one), &two).await);
    assert_eq!(read(&store, key).await.as_ref(), Some(&two));

    let key = fresh_key();
    assert!(put(&store, key, None, &Bytes::new()).await);
    assert!(!put(&store, key, None, &one).await, "an empty record is there");
    assert!(put(&store, key, Some(&Bytes::new()), &one).await);
}

/// Many add to one number. Each counts.
pub(super) async fn concurrent_swaps_lose_nothing(store: Arc<impl RecordStore>) {
    let key = fresh_key();
    let tasks = (0..4).map(|_| {
        let store = Arc::clone(&store);
        crate::runtime::join(async move {
            for _ in 0..25 {
                loop {
                    let old = read(&store, key).await;
                    let number = old.as_ref().map_or(0, |old| old.len());
                    if put(&store, key, old.as_ref(), &Bytes::from(vec![1; number + 1])).await {
                        break;
                    }
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await;
    }
    assert_eq!(read(&store, key).await.map(|record| record.len()), Some(100));
}

pub(super) async fn tables_do_not_mix(store: Arc<impl RecordStore>) {
    let key = fresh_key();
    assert!(put(&store, key, None, &Bytes::from("here")).await);
    assert_eq!(store.read("conformance-too", key).await.expect(WORKS), None);
    let there = Bytes::from("there");
    let swapped = store.compare_and_swap("conformance-too", key, None, there).await;
    assert!(swapped.expect(WORKS));
    assert_eq!(read(&store, key).await, Some(Bytes::from("here")));
}

/// Also while records come and change.
pub(super) async fn pages_miss_nothing(store: Arc<impl RecordStore>) {
    let keys: Vec<_> = (0..1000).map(|_| fresh_key()).collect();
    let record = |key: &Key| Bytes::copy_from_slice(key.as_bytes());
    for key in &keys {
        assert!(put(&store, *key, None, &record(key)).await);
    }
    let (mut found, mut cursor, mut pages) = (HashMap::new(), None, 0);
    loop {
        let page = store.page(TABLE, cursor).await.expect(WORKS);
        found.extend(page.records);
        pages += 1;
        assert!(put(&store, fresh_key(), None, &Bytes::from("new")).await);
        let Some(next) = page.next else { break };
        assert!(pages < 10_000, "it ends");
        cursor = Some(next);
    }
    assert!(pages > 1, "a page is not the whole table");
    for key in &keys {
        assert_eq!(found.get(key), Some(&record(key)));
    }
    let empty = store.page("conformance-empty", None).await.expect(WORKS);
    assert!(empty.records.is_empty() && empty.next.is_none());
    assert!(store.page(TABLE, Some(Bytes::from("no cursor"))).await.is_err());
}

pub(super) async fn a_record_that_is_too_long_is_an_error(store: Arc<impl RecordStore>) {
    let key = fresh_key();
    let long = Bytes::from(vec![0; MAX_RECORD_BYTES + 1]);
    let error = store.compare_and_swap(TABLE, key, None, long).await.expect_err("too long");
    assert!(!error.is_transient());
    assert_eq!(read(&store, key).await, None);
}
