//! Leases over one Redis: what `LeasedStore` promises, on a real server.
#![cfg(all(feature = "redis", feature = "test-util"))]
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod support;

use std::{sync::Arc, time::Duration};

use palisade::store::{
    Admission, Charge, Decision, Key, LeasedStore, Limit, LimitId, LimiterStore, Pepper,
    RedisStore, ReservationId, Seen, Settlement,
    conformance::{self, RealTime},
};
use support::{redis::RedisServer, within};

const HOUR: Duration = Duration::from_secs(3600);

/// The tests share two cores: a deadline that a busy machine keeps.
fn redis(server: &RedisServer) -> RedisStore {
    RedisStore::builder(&server.url()).deadline(Duration::from_secs(2)).build().unwrap()
}

fn leased(server: &RedisServer) -> LeasedStore<RedisStore> {
    LeasedStore::builder(redis(server)).build().unwrap()
}

fn key() -> Key {
    Pepper::random().key("test").finish()
}

fn requests(quota: u64) -> Charge {
    Charge::new(key(), Limit::rate(LimitId::of("requests"), quota, HOUR), 1)
}

async fn acquire(store: &impl LimiterStore, charge: Charge) -> Option<Seen> {
    match store.acquire(&Admission::new(ReservationId::next(), &[charge])).await.unwrap() {
        Decision::Admitted(grant) => Some(grant),
        Decision::Refused(_) => None,
    }
}

fn settle(store: &impl LimiterStore, charge: Charge, grant: &Seen, used: u64) {
    let (id, receipts) = (ReservationId::next(), grant.receipts.as_slice());
    store.settle(&Settlement::new(id, &[charge], receipts, &[used]));
}

async fn left(store: &impl LimiterStore, charge: Charge) -> u64 {
    let standings = store.peek(&Admission::new(ReservationId::next(), &[charge])).await.unwrap();
    standings.as_slice()[0].remaining
}

/// How many scripts the server has run.
fn scripts(server: &RedisServer) -> u64 {
    let stats = server.command(&["INFO", "commandstats"]);
    let calls = |name: &str| -> u64 {
        let line = stats.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    };
    calls("cmdstat_evalsha:calls=") + calls("cmdstat_eval:calls=")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    let Some(server) = RedisServer::start() else { return };
    conformance::limiter_store(|| Arc::new(leased(&server)), &RealTime).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_subject_below_its_limit_rarely_asks_the_server() {
    const ADMISSIONS: u64 = 20_000;
    let Some(server) = RedisServer::start() else { return };
    let (store, charge) = (leased(&server), requests(1_000_000));
    let before = scripts(&server);
    for _ in 0..ADMISSIONS {
        let grant = acquire(&store, charge).await.unwrap();
        settle(&store, charge, &grant, 1);
    }
    store.flush().await.unwrap();
    let run = scripts(&server) - before;
    eprintln!("{run} scripts for {ADMISSIONS} admissions");
    assert!(20 * run <= ADMISSIONS, "{run} scripts for {ADMISSIONS} admissions");
    // And what drained meanwhile.
    let left = left(&redis(&server), charge).await;
    assert!(left >= 1_000_000 - ADMISSIONS, "{left}: all tails were given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn four_stores_admit_together_what_one_would() {
    const QUOTA: u64 = 3000;
    let Some(server) = RedisServer::start() else { return };
    let charge = requests(QUOTA);
    let tasks: Vec<_> = (0..4)
        .map(|_| leased(&server))
        .flat_map(|store| [store.clone(), store])
        .map(|store| {
            tokio::spawn(async move {
                let (mut admitted, mut refused) = (0, 0);
                // Long after the first refusal, so that all leases are used up.
                while refused < 2000 {
                    match acquire(&store, charge).await {
                        Some(grant) => {
                            settle(&store, charge, &grant, 1);
                            admitted += 1;
                        }
                        None => {
                            refused += 1;
                            tokio::task::yield_now().await;
                        }
                    }
                }
                (store, admitted)
            })
        })
        .collect();
    let since = std::time::Instant::now();
    let (mut admitted, mut stores) = (0, Vec::new());
    for task in tasks {
        let (store, some) = task.await.unwrap();
        admitted += some;
        stores.push(store);
    }
    // What drains in an hour is the quota.
    let drained = since.elapsed().as_secs() * QUOTA / 3600 + 1;
    let lease = QUOTA / (2 * 4);
    eprintln!("admitted {admitted} of {QUOTA}, {} scripts", scripts(&server));
    assert!(admitted <= QUOTA + drained, "{admitted}");
    assert!(admitted >= QUOTA - 3 * lease, "{admitted}");
    // What some of them hold is there again when it is given back, and admitted to the last.
    for store in &stores {
        store.flush().await.unwrap();
    }
    let redis = redis(&server);
    while acquire(&redis, charge).await.is_some() {
        admitted += 1;
    }
    let drained = since.elapsed().as_secs() * QUOTA / 3600 + 1;
    assert!((QUOTA..=QUOTA + drained).contains(&admitted), "{admitted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_lease_is_given_back_by_itself() {
    let Some(server) = RedisServer::start() else { return };
    let (store, redis, charge) = (leased(&server), redis(&server), requests(10_000));
    let mut open = None;
    for _ in 0..50 {
        let grant = acquire(&store, charge).await.unwrap();
        match open {
            // One that stays open keeps nothing.
            None => open = Some(grant),
            Some(_) => settle(&store, charge, &grant, 1),
        }
    }
    assert!(left(&redis, charge).await < 9950, "leased ahead");
    let back = within(Duration::from_secs(10), async || left(&redis, charge).await >= 9950);
    assert!(back.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_an_error_and_leases_last_through_it() {
    let Some(mut server) = RedisServer::start() else { return };
    let builder = RedisStore::builder(&server.url()).deadline(Duration::from_millis(100));
    let store = LeasedStore::builder(builder.connect().await.unwrap());
    let store = store.period(Duration::from_secs(60)).build().unwrap();
    let charge = requests(1_000_000);
    for _ in 0..300 {
        acquire(&store, charge).await.unwrap();
    }
    server.kill();
    let mut admitted = 0;
    let failed = loop {
        match store.acquire(&Admission::new(ReservationId::next(), &[charge])).await {
            Ok(Decision::Admitted(_)) => admitted += 1,
            Ok(Decision::Refused(refusal)) => panic!("{refusal:?}"),
            Err(error) => break error,
        }
    };
    assert!(failed.is_transient());
    eprintln!("{admitted} admitted from the lease");
    server.restart();
    let admits = async || {
        let answer = store.acquire(&Admission::new(ReservationId::next(), &[charge])).await;
        matches!(answer, Ok(Decision::Admitted(_)))
    };
    assert!(within(Duration::from_secs(10), admits).await);
}
