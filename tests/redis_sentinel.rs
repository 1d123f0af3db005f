//! What `RedisStore` promises of a failover that sentinels make, with a real master, its replica and a sentinel.
#![cfg(all(feature = "redis", feature = "test-util"))]
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use palisade::store::{Charge, LeasedStore, Limit, LimitId, LimiterStore, Pepper, RedisStore};
use support::{
    hammer::{Hammer, acquire, remaining, settle, told},
    redis::{RedisServer, Sentinel},
    within,
};

const HOUR: Duration = Duration::from_secs(3600);
const LEASE: Duration = Duration::from_millis(900);
const QUOTA: u64 = 6000;
const SLOTS: u64 = 100_000;
const LONG: Duration = Duration::from_secs(60);

struct Rig {
    master: RedisServer,
    replica: RedisServer,
    sentinel: Sentinel,
}

impl Rig {
    async fn start() -> Option<Self> {
        let options = ["--repl-diskless-sync-delay", "0"];
        let master = RedisServer::start_with(&options)?;
        let of = master.port().to_string();
        let options = [options.as_slice(), &["--replicaof", "127.0.0.1", &of]].concat();
        let replica = RedisServer::start_with(&options)?;
        let sentinel = Sentinel::watch(&master);
        let rig = Self { master, replica, sentinel };
        let knows = async || {
            let masters = rig.sentinel.command(&["SENTINEL", "MASTER", "limits"]);
            masters.contains("num-slaves\r\n$1\r\n1\r\n")
                && rig.master.says(&["INFO", "replication"], "state=online")
        };
        assert!(within(LONG, knows).await, "the sentinel knows the replica");
        Some(rig)
    }

    /// One that asks a sentinel that is gone first.
    fn store(&self) -> RedisStore {
        let builder = RedisStore::builder("redis://limits/");
        let builder = builder.sentinels(["redis://127.0.0.1:1/".to_owned(), self.sentinel.url()]);
        builder.deadline(Duration::from_secs(1)).lease(LEASE).build().unwrap()
    }

    /// Waits until the replica has all that the master has written so far.
    async fn replicated(&self) {
        let offset = |server: &RedisServer, name: &str| -> u64 {
            let info = server.command(&["INFO", "replication"]);
            let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
            line.trim_start_matches(':').trim().parse().unwrap()
        };
        let written = offset(&self.master, "master_repl_offset");
        let has = async || offset(&self.replica, "slave_repl_offset") >= written;
        assert!(within(LONG, has).await);
    }

    async fn failed_over(&self) -> bool {
        let is_master = async || self.replica.says(&["INFO", "replication"], "role:master");
        within(LONG, is_master).await
    }
}

fn rate() -> Charge {
    let key = Pepper::from_secret("test").key("subject").finish();
    Charge::new(key, Limit::rate(LimitId::of("requests"), QUOTA, HOUR), 1)
}

fn slot() -> Charge {
    Charge::new(rate().record, Limit::slots(LimitId::of("slots"), SLOTS), 1)
}

/// The master dies while admissions run. Returns how many were admitted beyond the quota.
async fn a_master_dies_under(lease: bool) {
    let Some(mut rig) = Rig::start().await else { return };
    let redis = Arc::new(rig.store());
    let store: Arc<dyn LimiterStore> = match lease {
        false => redis.clone(),
        true => Arc::new(LeasedStore::builder(Arc::clone(&redis)).instances(2).build().unwrap()),
    };
    let charges = if lease { vec![rate()] } else { vec![rate(), slot()] };
    let (hammer, since) = (Arc::new(Hammer::default()), Instant::now());
    hammer.start(Arc::clone(&store), 4, &charges);
    hammer.until(|it| it.admitted() > 500).await;
    let safe = hammer.admitted();
    rig.replicated().await;
    rig.master.kill();
    let by_the_old = hammer.admitted();
    assert!(rig.failed_over().await);
    hammer.until(|it| it.admitted() > by_the_old + 100).await;
    let failed = hammer.failed();
    // To the end of the quota, and some.
    let refused = hammer.refused();
    hammer.until(|it| it.refused() > refused + 200).await;
    let admitted = hammer.stop().await;
    let lost = by_the_old - safe;
    let drained = since.elapsed().as_secs() * QUOTA / 3600 + 1;
    eprintln!(
        "leased {lease}: {admitted} admitted of {QUOTA}, {failed} failed, at most {lost} unknown to the new master"
    );
    assert!(admitted <= QUOTA + lost + drained, "{admitted}");
    assert!(admitted + 500 > QUOTA, "{admitted}");
    if !lease {
        tokio::time::sleep(2 * LEASE).await;
        let left = told(&*redis, &[slot()]).await;
        assert_eq!(left, [SLOTS], "none is lost for longer than its lease");
    }

    // The old master is back as a replica of the new one, and changes nothing.
    rig.master.restart();
    let demoted = async || rig.master.says(&["INFO", "replication"], "role:slave");
    assert!(within(LONG, demoted).await);
    // What drained meanwhile, and no more.
    assert!(remaining(&*redis, &[rate()]).await[0] < 200);
    assert!(redis.health().is_connected() && redis.health().warnings().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_master_dies_no_more_is_admitted_than_it_had_not_passed_on() {
    a_master_dies_under(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_with_leases() {
    a_master_dies_under(true).await;
}

/// As an operator does who updates servers one by one: the old master lives, as a replica.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_steps_down_is_left_and_no_slot_is_lost() {
    let Some(rig) = Rig::start().await else { return };
    let store = Arc::new(rig.store());
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(acquire(&*store, &[slot()]).await.unwrap().unwrap());
    }
    let hammer = Arc::new(Hammer::default());
    hammer.start(Arc::clone(&store) as _, 2, &[rate(), slot()]);
    hammer.until(|it| it.admitted() > 100).await;
    assert!(rig.sentinel.command(&["SENTINEL", "FAILOVER", "limits"]).starts_with("+OK"));
    assert!(rig.failed_over().await);
    let before = hammer.admitted();
    hammer.until(|it| it.admitted() > before + 200).await;
    hammer.stop().await;
    // Those that are held were renewed on the new master; the others are free.
    for _ in 0..2 {
        tokio::time::sleep(2 * LEASE).await;
        assert_eq!(told(&*store, &[slot()]).await, [SLOTS - 5]);
    }
    for grant in held {
        settle(&*store, &[slot()], &grant, &[1]);
    }
    store.flush().await.unwrap();
    assert_eq!(remaining(&*store, &[slot()]).await, [SLOTS]);
}
