//! A real server and the memory store, told the same time: they decide alike to the last tick.

use std::{
    fs, io,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::*;
use crate::{
    clock::{Clock, ManualClock},
    store::{Key, Limit, LimitId, MemoryStore, Pepper},
};

/// A server of its own, at a socket in its folder; gone when it is dropped.
struct Server {
    process: Child,
    folder: PathBuf,
}

impl Server {
    /// `None`, said by name, when none is installed.
    fn start() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("palisade-rules-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(&folder).unwrap();
        let spawn = |program| {
            Command::new(program)
                .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
                .arg(folder.join("socket"))
                .stdout(Stdio::null())
                .spawn()
        };
        match spawn("redis-server").or_else(|_| spawn("valkey-server")) {
            Ok(process) => Some(Self { process, folder }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let required = std::env::var("PALISADE_REQUIRE_SERVERS").is_ok_and(|it| it == "1");
                assert!(!required, "redis-server is not installed");
                let test = thread::current();
                eprintln!("skipped: {:?}: redis-server is not installed", test.name());
                None
            }
            Err(error) => panic!("redis-server does not start: {error}"),
        }
    }

    async fn store(&self) -> RedisStore {
        let url = format!("redis+unix://{}", self.folder.join("socket").display());
        let patient = Duration::from_secs(10);
        for _ in 0..1000 {
            let builder = RedisStore::builder(&url).deadline(patient);
            if let Ok(store) = builder.lease(Duration::from_secs(3600)).connect().await {
                return store;
            }
            runtime::sleep(Duration::from_millis(10)).await;
        }
        panic!("redis-server does not answer");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A wish for one limit of one of the records.
#[derive(Clone, Debug)]
struct Wish {
    record: usize,
    rule: usize,
    cost: u64,
    quota: u64,
    /// By how much the caller's calendar is behind.
    behind: u64,
}

#[derive(Clone, Debug)]
struct Step {
    pause: Duration,
    /// Instead: what was refused last, when it should fit, or a moment earlier.
    until_it_fits: Option<Duration>,
    wishes: Vec<Wish>,
    /// Which of the open reservations is settled then, and in which share of its cost.
    settled: usize,
    used: u64,
}

fn scaled(scales: &'static [u64]) -> impl Strategy<Value = u64> {
    prop::sample::select(scales).prop_flat_map(|scale| 0..=scale)
}

fn wishes() -> impl Strategy<Value = Wish> {
    let behind = prop::sample::select(&[0_u64, 0, 0, 3, 90][..]);
    (0_usize..2, 0_usize..7, scaled(&[1, 4, 20, 110]), 50_u64..100, behind)
        .prop_map(|(record, rule, cost, quota, behind)| Wish { record, rule, cost, quota, behind })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pause = scaled(&[0, 999, 100_000_000, 5_000_000_000, 40_000_000_000]);
    let early = prop::sample::select(&[0, 64, 128][..]).prop_map(Duration::from_nanos);
    let pause = (pause, prop::option::weighted(0.3, early));
    let step = (pause, prop::collection::vec(wishes(), 1..5), 0_usize..6, 0_u64..=125);
    let step = step.prop_map(|((pause, until_it_fits), wishes, settled, used)| Step {
        pause: Duration::from_nanos(pause),
        until_it_fits,
        wishes,
        settled,
        used,
    });
    prop::collection::vec(step, 1..60)
}

impl Wish {
    fn charge(&self, records: &[Key], clock: &ManualClock) -> Option<Charge> {
        let quota = self.quota;
        let id = LimitId::of(["a", "b", "c"].get(self.rule % 3)?);
        let limit = match self.rule {
            0 => Limit::rate(id, quota, Duration::from_secs(30)).with_burst(2 * quota),
            1 => Limit::slots(id, quota),
            2 => {
                let time = clock.monotonic().checked_sub(Duration::from_secs(self.behind))?;
                let (period, gone) = (time.as_secs() / 100, time.as_secs() % 100);
                Limit::calendar(id, quota, period, Duration::from_secs(100 - gone))
            }
            // So few that a unit more or less tells, and now and then of another window.
            3 => Limit::sliding(id, quota % 10 + 3, Duration::from_secs(7 + self.behind / 10)),
            4 => Limit::sliding(id, quota << 30, Duration::from_micros(12_345_678)),
            5 => Limit::rate(id, quota * 1_000_003, Duration::from_secs(7)).with_burst(quota << 20),
            _ => Limit::calendar(id, quota, self.behind, Duration::from_millis(1234)),
        };
        let cost = if self.rule == 4 { self.cost << 29 } else { self.cost };
        let cost = if self.rule == 5 { cost << 19 } else { cost };
        Some(Charge::new(*records.get(self.record)?, limit, cost))
    }
}

async fn set_clock(redis: &RedisStore, time: Duration) {
    let mut set = ::redis::cmd("SET");
    set.arg("clock").arg(rules::ticks(time));
    redis.inner.link.send::<()>("clock", &set).await.unwrap();
}

#[test]
fn the_scripts_decide_as_the_memory_store_does() {
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let Some(server) = Server::start() else { return };
    let redis = tokio.block_on(server.store());
    let clock = Arc::new(ManualClock::default());
    // Days in, as by the server's clock.
    clock.advance(Duration::from_nanos(77_777_777_777_777_777));
    let memory = MemoryStore::builder().clock(Arc::clone(&clock) as _).build().unwrap();
    let (admitted, refused) = (AtomicU32::new(0), AtomicU32::new(0));
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let held = runner.run(&steps(), |steps| {
        let records = [(); 2].map(|()| Pepper::random().key("differential").finish());
        tokio.block_on(async {
            let mut open = Vec::new();
            let mut refused_last: Option<(Duration, &Vec<Wish>)> = None;
            for step in &steps {
                let (pause, wishes) = match (step.until_it_fits, refused_last.take()) {
                    (Some(early), Some((wait, wishes))) => (wait.saturating_sub(early), wishes),
                    _ => (step.pause, &step.wishes),
                };
                // In an hour, Redis would take slots back.
                clock.advance(pause.min(Duration::from_secs(50)));
                set_clock(&redis, clock.monotonic()).await;
                let mut charges: Vec<Charge> = Vec::new();
                for wish in wishes {
                    let charge = wish.charge(&records, &clock).unwrap();
                    let same = |it: &Charge| {
                        it.limit.id() == charge.limit.id() && it.record == charge.record
                    };
                    if !charges.iter().any(same) {
                        charges.push(charge);
                    }
                }
                let admission = Admission::new(ReservationId::next(), &charges);
                let (by_redis, by_memory) = (
                    redis.acquire(&admission).await.unwrap(),
                    memory.acquire(&admission).await.unwrap(),
                );
                match (by_redis, by_memory) {
                    (Decision::Admitted(one), Decision::Admitted(other)) => {
                        let told =
                            [redis.standings(&charges, &one), memory.standings(&charges, &other)];
                        prop_assert_eq!(told[0], told[1], "{:?}", charges);
                        open.push((charges, one, other));
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                    (Decision::Refused(one), Decision::Refused(other)) => {
                        let told = |it: &crate::store::Refusal| (it.index, it.retry_after);
                        prop_assert_eq!(told(&one), told(&other), "{:?}", charges);
                        let told = [
                            redis.standings(&charges, &one.seen),
                            memory.standings(&charges, &other.seen),
                        ];
                        prop_assert_eq!(told[0], told[1], "{:?}", charges);
                        refused_last = one.retry_after.map(|wait| (wait, wishes));
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    (one, other) => prop_assert!(false, "{charges:?}: {one:?}, {other:?}"),
                }
                if step.settled < open.len() {
                    let (charges, one, other) = open.swap_remove(step.settled);
                    let used: Vec<_> =
                        charges.iter().map(|it| it.cost.max(1) * step.used / 100).collect();
                    for (store, grant) in [(&redis as &dyn LimiterStore, one), (&memory, other)] {
                        let receipts = grant.receipts.as_slice();
                        let id = ReservationId::next();
                        store.settle(&Settlement::new(id, &charges, receipts, &used));
                        store.flush().await.unwrap();
                    }
                }
            }
            Ok(())
        })
    });
    held.unwrap();
    let (admitted, refused) = (admitted.into_inner(), refused.into_inner());
    assert!(admitted > 500 && refused > 500, "{admitted} admitted, {refused} refused");
}

/// The first of the two has to wait until its other record is put in order.
#[test]
fn settlements_sent_together_are_applied_in_their_order() {
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let Some(server) = Server::start() else { return };
    tokio.block_on(async {
        let redis = server.store().await;
        let [one, other] = [(); 2].map(|()| Pepper::random().key("order").finish());
        let limit = Limit::rate(LimitId::of("rate"), 60, Duration::from_secs(60));
        let take = async |charges: &[Charge]| {
            let admission = Admission::new(ReservationId::next(), charges);
            match redis.acquire(&admission).await.unwrap() {
                Decision::Admitted(grant) => grant.receipts,
                Decision::Refused(refusal) => panic!("{refusal:?}"),
            }
        };
        let time = Duration::from_secs(77_777_777);
        set_clock(&redis, time).await;
        let both = [Charge::new(one, limit, 10), Charge::new(other, limit, 10)];
        let first = take(&both).await;
        let second = take(&both[1..]).await;
        set_clock(&redis, time + Duration::from_secs(1)).await;
        let _ = take(&both[..1]).await;
        // A clock that went back.
        set_clock(&redis, time + Duration::from_millis(500)).await;
        for (charges, receipts) in [(&both[..], first), (&both[1..], second)] {
            let used = vec![0; charges.len()];
            let id = ReservationId::next();
            redis.settle(&Settlement::new(id, charges, receipts.as_slice(), &used));
        }
        redis.flush().await.unwrap();
        let admission = Admission::new(ReservationId::next(), &both);
        let standings = redis.peek(&admission).await.unwrap();
        let remaining: Vec<_> = standings.as_slice().iter().map(|it| it.remaining).collect();
        assert_eq!(remaining, [50, 60]);
    });
}
