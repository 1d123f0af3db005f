//! One limit for many processes: what `RedisStore` promises, on a real server.
#![cfg(all(feature = "redis", feature = "test-util"))]
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod support;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::Poll,
    time::Duration,
};

use palisade::store::{
    Admission, Charge, Decision, FactStore, Key, Limit, LimitId, LimiterStore, MemoryStore, Pepper,
    RedisStore, ReservationId, Seen, Settlement, StoreError,
    conformance::{self, RealTime},
};
use support::{hammer::settle, redis::RedisServer, within};

const HOUR: Duration = Duration::from_secs(3600);
const LEASE: Duration = Duration::from_millis(900);

/// The tests share two cores: a deadline that a busy machine keeps.
fn store(server: &RedisServer) -> RedisStore {
    let builder = RedisStore::builder(&server.url());
    builder.deadline(Duration::from_secs(2)).lease(LEASE).build().unwrap()
}

fn key() -> Key {
    Pepper::random().key("test").finish()
}

fn requests(quota: u64) -> Limit {
    Limit::rate(LimitId::of("requests"), quota, HOUR)
}

fn slots(max: u64) -> Limit {
    Limit::slots(LimitId::of("slots"), max)
}

async fn acquire(
    store: &impl LimiterStore,
    charges: &[Charge],
) -> Result<Option<Seen>, StoreError> {
    let decision = store.acquire(&Admission::new(ReservationId::next(), charges)).await?;
    Ok(match decision {
        Decision::Admitted(grant) => Some(grant),
        Decision::Refused(_) => None,
    })
}

async fn remaining(store: &impl LimiterStore, charges: &[Charge]) -> Vec<u64> {
    let standings = store.peek(&Admission::new(ReservationId::next(), charges)).await.unwrap();
    standings.as_slice().iter().map(|standing| standing.remaining).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    let Some(server) = RedisServer::start() else { return };
    conformance::limiter_store(|| Arc::new(store(&server)), &RealTime).await;
    conformance::fact_store(|| Arc::new(store(&server)), &RealTime).await;
    conformance::record_store(|| Arc::new(store(&server))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_admit_together_what_one_would() {
    let Some(server) = RedisServer::start() else { return };
    let charges = [Charge::new(key(), requests(300), 1), Charge::new(key(), slots(400), 1)];
    let tasks: Vec<_> = (0..8)
        .map(|n| (n, store(&server)))
        .map(|(_, store)| {
            tokio::spawn(async move {
                let mut admitted = 0;
                for _ in 0..60 {
                    admitted += u64::from(acquire(&store, &charges).await.unwrap().is_some());
                }
                (store, admitted)
            })
        })
        .collect();
    let mut stores = Vec::new();
    let mut admitted = 0;
    for task in tasks {
        let (store, some) = task.await.unwrap();
        stores.push(store);
        admitted += some;
    }
    assert_eq!(admitted, 300);
    assert_eq!(remaining(&stores[0], &charges).await, [0, 100]);
}

/// Verdict by verdict, the script decides as the memory store does.
#[tokio::test(flavor = "multi_thread")]
async fn it_decides_as_the_memory_store_does() {
    let Some(server) = RedisServer::start() else { return };
    let (redis, memory) = (store(&server), MemoryStore::default());
    // Windows so long that the clocks' difference drains nothing, and a fixed sequence.
    let week = 168 * HOUR;
    let keys = [key(), key(), key()];
    let limits = [
        Limit::rate(LimitId::of("a"), 1000, week),
        Limit::rate(LimitId::of("b"), 333, week).with_burst(77),
        Limit::rate(LimitId::of("c"), 5_000_000_000, 1000 * week),
        Limit::slots(LimitId::of("d"), 9),
        Limit::calendar(LimitId::of("e"), 150, 7, HOUR),
        Limit::sliding(LimitId::of("f"), 120, 52 * week),
    ];
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut open = Vec::new();
    for step in 0..600 {
        let mut charges: Vec<Charge> = Vec::new();
        for _ in 0..=next(4) {
            let (limit, record) = (limits[next(6) as usize], keys[next(3) as usize]);
            let cost = next(match limit.id() {
                id if id == limits[2].id() => 40_000_000,
                id if id == limits[3].id() => 3,
                _ => 20,
            });
            if !charges.iter().any(|it| it.limit.id() == limit.id() && it.record == record) {
                charges.push(Charge::new(record, limit, cost));
            }
        }
        let (by_redis, by_memory) =
            (acquire(&redis, &charges).await.unwrap(), acquire(&memory, &charges).await.unwrap());
        match (by_redis, by_memory) {
            (Some(one), Some(other)) => {
                let told = [redis.standings(&charges, &one), memory.standings(&charges, &other)];
                let standings = told[0].as_slice().iter().zip(told[1].as_slice());
                for (charge, (one, other)) in charges.iter().zip(standings) {
                    // What drains of the largest in the seconds that this takes.
                    let most = if charge.limit.id() == limits[2].id() { 500 } else { 1 };
                    let differ = one.remaining.abs_diff(other.remaining);
                    assert!(differ <= most, "step {step}, {charge:?}: {one:?}, {other:?}");
                }
                open.push((charges, one, other));
            }
            (None, None) => {}
            (redis, memory) => panic!("step {step}: redis {redis:?}, memory {memory:?}"),
        }
        while open.len() > 3 {
            let (charges, one, other) = open.swap_remove(next(4) as usize % open.len());
            let used: Vec<_> = charges.iter().map(|it| next(it.cost + it.cost / 4 + 1)).collect();
            settle(&redis, &charges, &one, &used);
            settle(&memory, &charges, &other, &used);
            redis.flush().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_scripts_are_sent_again() {
    let Some(server) = RedisServer::start() else { return };
    let store = store(&server);
    let charges = [Charge::new(key(), requests(100), 10), Charge::new(key(), slots(3), 1)];
    for round in 0..5 {
        server.command(&["SCRIPT", "FLUSH"]);
        let grants = [
            acquire(&store, &charges).await.unwrap().unwrap(),
            acquire(&store, &charges).await.unwrap().unwrap(),
        ];
        server.command(&["SCRIPT", "FLUSH"]);
        for grant in grants {
            settle(&store, &charges, &grant, &[5, 1]);
        }
        store.flush().await.unwrap();
        assert_eq!(remaining(&store, &charges).await, [90 - 10 * round, 3]);
    }
    assert!(!server.command(&["INFO", "commandstats"]).contains("cmdstat_script|load"));
}

#[tokio::test(flavor = "multi_thread")]
async fn settlements_are_applied_once_though_connections_break() {
    const GRANTS: u64 = 600;
    let Some(server) = RedisServer::start() else { return };
    let stores = [store(&server), store(&server)];
    let tokens = Limit::rate(LimitId::of("tokens"), 100_000, 10_000 * HOUR);
    let charges = [Charge::new(key(), tokens, 2), Charge::new(key(), slots(GRANTS), 1)];
    let mut grants = Vec::new();
    for n in 0..GRANTS {
        let store = &stores[n as usize % 2];
        grants.push((store, acquire(store, &charges).await.unwrap().unwrap()));
    }
    let settled = AtomicBool::new(false);
    let breaks = std::thread::scope(|scope| {
        // Breaks them again and again while settlements are on their way.
        let breaks = scope.spawn(|| {
            let mut breaks = 0;
            while !settled.load(Ordering::Relaxed) {
                let killed = server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
                breaks += u32::from(!killed.starts_with(":0"));
                std::thread::sleep(Duration::from_micros(1500));
            }
            breaks
        });
        for (store, grant) in &grants {
            settle(*store, &charges, grant, &[7, 1]);
            std::thread::sleep(Duration::from_millis(1));
        }
        settled.store(true, Ordering::Relaxed);
        breaks.join().unwrap()
    });
    assert!(breaks > 5, "{breaks}");
    for store in &stores {
        store.flush().await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let left = remaining(&stores[0], &charges).await;
    assert_eq!(left, [100_000 - 7 * GRANTS, GRANTS]);
}

/// As by a server's or a proxy's time limit for idle connections.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_that_breaks_is_mended_before_it_is_needed() {
    let Some(server) = RedisServer::start() else { return };
    let store = store(&server);
    let charges = [Charge::new(key(), requests(100), 1)];
    for _ in 0..5 {
        acquire(&store, &charges).await.unwrap().unwrap();
        server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(remaining(&store, &charges).await, [95]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_an_error_in_time_and_passes() {
    let Some(mut server) = RedisServer::start() else { return };
    let builder = RedisStore::builder(&server.url()).deadline(Duration::from_millis(100));
    let store = builder.connect().await.unwrap();
    let charges = [Charge::new(key(), requests(100), 1)];
    let grant = acquire(&store, &charges).await.unwrap().unwrap();
    server.kill();
    for _ in 0..3 {
        assert!(acquire(&store, &charges).await.unwrap_err().is_transient());
        assert!(store.first_use(key(), HOUR).await.is_err());
    }
    // Waits in the queue for the server to be back.
    settle(&store, &charges, &grant, &[61]);
    server.restart();
    let back = within(Duration::from_secs(10), async || acquire(&store, &charges).await.is_ok());
    assert!(back.await);
    store.flush().await.unwrap();
    let [left] = remaining(&store, &charges).await[..] else { panic!("one") };
    // What the lost server knew is lost, and what was used beyond the charge is charged to the new one.
    // A call that was never answered may have been charged too.
    assert!((30..=40).contains(&left), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_an_error_in_time_and_nothing_leaks() {
    let Some(server) = RedisServer::start() else { return };
    let builder = RedisStore::builder(&server.url()).deadline(Duration::from_millis(50));
    let store = builder.connect().await.unwrap();
    let charges = [Charge::new(key(), slots(5), 1), Charge::new(key(), requests(10), 1)];
    server.command(&["CLIENT", "PAUSE", "2000", "ALL"]);
    for _ in 0..3 {
        // Well before the server goes on.
        assert!(acquire(&store, &charges).await.is_err());
    }
    let whole = within(Duration::from_secs(5), async || {
        let admission = Admission::new(ReservationId::next(), &charges);
        let Ok(standings) = store.peek(&admission).await else { return false };
        // Of three reservations given back at once, which one was charged last is not known: a third may stay.
        standings.as_slice()[0].remaining == 5 && standings.as_slice()[1].remaining >= 9
    });
    assert!(whole.await, "the late answers are given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_live_as_long_as_their_process() {
    let Some(server) = RedisServer::start() else { return };
    let charges = [Charge::new(key(), slots(4), 2)];
    let (lives, dies) = (store(&server), store(&server));
    let held = acquire(&lives, &charges).await.unwrap().unwrap();
    acquire(&dies, &charges).await.unwrap().unwrap();
    assert!(acquire(&lives, &charges).await.unwrap().is_none());
    drop(dies);
    let freed = within(LEASE * 3, async || remaining(&lives, &charges).await == [2]);
    assert!(freed.await, "what the dead one held is free");
    tokio::time::sleep(LEASE * 2).await;
    assert_eq!(remaining(&lives, &charges).await, [2], "what the living one holds is renewed");
    settle(&lives, &charges, &held, &[0]);
    lives.flush().await.unwrap();
    assert_eq!(remaining(&lives, &charges).await, [4]);
}

/// After a failover, the clock of the new server may be behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_goes_back_changes_no_limit() {
    let Some(server) = RedisServer::start() else { return };
    let store = store(&server);
    let charges = [Charge::new(key(), requests(100), 50), Charge::new(key(), slots(3), 1)];
    let grant = acquire(&store, &charges).await.unwrap().unwrap();
    // Puts all that is known an hour ahead, as if the clock had gone back by it.
    const AHEAD: u64 = 3600 * 16_000_000;
    let script = format!(
        "local by = {AHEAD} for _, key in ipairs(redis.call('KEYS', '*')) do \
         local p, pack, sub = redis.call('GET', key), struct.pack, string.sub \
         local v, n, seen, last, kept = struct.unpack('<BBddd', p) \
         local levels, rest = '', sub(p, 27 + 20 * n) \
         for i = 1, n do levels = levels .. pack('<d', struct.unpack('<d', p, 19 + 4 * n + 8 * i) + by) end \
         if rest ~= '' then local s, l, m = cmsgpack.unpack(rest) \
         for i = 4, #s, 4 do s[i] = s[i] + by end rest = cmsgpack.pack(s, l, m) end \
         local head = pack('<BBddd', v, n, seen + by, last + by, kept + by) \
         local ids, marks = sub(p, 27, 26 + 4 * n), sub(p, 27 + 12 * n, 26 + 20 * n) \
         redis.call('SET', key, head .. ids .. levels .. marks .. rest, 'KEEPTTL') end"
    );
    assert!(server.command(&["EVAL", &script, "0"]).starts_with("$-1"));
    assert_eq!(remaining(&store, &charges).await, [50, 2]);
    assert!(
        acquire(&store, &[Charge::new(charges[0].record, requests(100), 51)])
            .await
            .unwrap()
            .is_none()
    );
    let mut receipts = grant.receipts;
    receipts.as_mut_slice()[0].0[0] += AHEAD;
    let (id, receipts) = (ReservationId::next(), receipts.as_slice());
    store.settle(&Settlement::new(id, &charges, receipts, &[10, 1]));
    store.flush().await.unwrap();
    let left = remaining(&store, &charges).await;
    assert!((89..=90).contains(&left[0]) && left[1] == 3, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_gone_when_it_is_idle() {
    let Some(server) = RedisServer::start() else { return };
    let store = store(&server);
    let quick = Limit::rate(LimitId::of("quick"), 10, Duration::from_secs(1));
    acquire(&store, &[Charge::new(key(), quick, 5)]).await.unwrap().unwrap();
    assert_eq!(server.command(&["DBSIZE"]), ":1\r\n");
    let sliding = Limit::sliding(LimitId::of("sliding"), 10, Duration::from_secs(1));
    acquire(&store, &[Charge::new(key(), sliding, 5)]).await.unwrap().unwrap();
    let gone = within(Duration::from_secs(6), async || server.command(&["DBSIZE"]) == ":0\r\n");
    assert!(gone.await);

    let charges = [Charge::new(key(), slots(1), 1)];
    let grant = acquire(&store, &charges).await.unwrap().unwrap();
    settle(&store, &charges, &grant, &[1]);
    store.flush().await.unwrap();
    assert_eq!(server.command(&["DBSIZE"]), ":0\r\n");

    let day = Limit::calendar(LimitId::of("day"), 10, 7, HOUR);
    acquire(&store, &[Charge::new(key(), day, 5)]).await.unwrap().unwrap();
    let names = server.command(&["KEYS", "*"]);
    let name = names.lines().find(|line| line.starts_with("palisade:{")).unwrap();
    let left = server.command(&["PTTL", name]);
    let left: u64 = left.trim_start_matches(':').trim().parse().unwrap();
    // The hour, the five minutes for clocks that are behind, and a margin.
    assert!(left > 3_600_000 && left <= 3_901_001, "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_place_for_a_settlement_is_no_admission() {
    let Some(server) = RedisServer::start() else { return };
    let builder = RedisStore::builder(&server.url()).deadline(Duration::from_secs(2));
    let store = builder.max_reservations(2).build().unwrap();
    let charges = [Charge::new(key(), requests(100), 1)];
    let first = acquire(&store, &charges).await.unwrap().unwrap();
    let second = acquire(&store, &charges).await.unwrap().unwrap();
    assert!(acquire(&store, &charges).await.unwrap_err().is_transient());
    settle(&store, &charges, &first, &[1]);
    settle(&store, &charges, &second, &[0]);
    store.flush().await.unwrap();
    assert!(acquire(&store, &charges).await.unwrap().is_some());
    assert_eq!(remaining(&store, &charges).await, [98]);
}

#[test]
fn without_a_runtime_it_refuses_and_does_not_panic() {
    let store = RedisStore::builder("redis://127.0.0.1:1/").build().unwrap();
    let charges = [Charge::new(key(), requests(1), 1)];
    let admission = Admission::new(ReservationId::next(), &charges);
    assert!(store.acquire(&admission).try_now().unwrap().is_err());
    assert!(store.peek(&admission).try_now().unwrap().is_err());
    assert!(store.flush().try_now().unwrap().is_err());
    assert!(store.get(key()).try_now().unwrap().is_err());
}

#[tokio::test]
async fn a_record_of_another_version_is_a_refusal() {
    let Some(server) = RedisServer::start() else { return };
    let store = store(&server);
    let charges = [Charge::new(key(), requests(1), 1)];
    acquire(&store, &charges).await.unwrap().unwrap();
    let names = server.command(&["KEYS", "*"]);
    let name = names.lines().find(|line| line.starts_with("palisade:{")).unwrap();
    server.command(&["SET", name, "\u{7f}"]);
    assert!(!acquire(&store, &charges).await.unwrap_err().is_transient());
    let nobody = RedisStore::builder("redis://127.0.0.1:1/").connect().await;
    assert!(nobody.is_err());
}

/// As it was written before rates were packed.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_the_form_before_keeps_what_was_used() {
    let Some(server) = RedisServer::start() else { return };
    let store = store(&server);
    let day = Limit::calendar(LimitId::of("day"), 50, 7, HOUR);
    let tokens = Limit::rate(LimitId::of("tokens"), 1000, HOUR);
    let [by_taking, by_settling] = [key(), key()];
    for record in [by_taking, by_settling] {
        let name: String = record.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let (group, rest) = name.split_at(8);
        let [requests, tokens, day, slots] =
            [requests(1), tokens, day, slots(1)].map(|it| it.id().get());
        // 40 of 100 requests, 100 of 1000 tokens, 30 of 50 a day, 3 slots.
        let script = format!(
            "local t, hour = redis.call('TIME'), 57600000000 \
             local now = ((t[1] - 1704067200) * 1000000 + t[2]) * 16 \
             local limits = {{{requests}, now + hour * 0.4, 0, 0, {tokens}, now + hour * 0.1, 7, 0, \
             2 * 4294967296 + {day}, now + hour, 7, 30}} \
             local packed = cmsgpack.pack(2, now, now + hour, limits, {{{slots}, 'somebody', 3, now + hour}}, {{}}) \
             redis.call('SET', 'palisade:{{{group}}}{rest}', packed)"
        );
        assert!(server.command(&["EVAL", &script, "0"]).starts_with("$-1"));
    }
    let all = |record, cost| {
        [requests(100), tokens, day, slots(5)].map(|it| Charge::new(record, it, cost))
    };
    assert_eq!(remaining(&store, &all(by_taking, 1)).await, [60, 900, 20, 2]);
    assert!(acquire(&store, &all(by_taking, 3)).await.unwrap().is_none());
    let rates = &all(by_taking, 10)[..2];
    acquire(&store, rates).await.unwrap().unwrap();
    acquire(&store, rates).await.unwrap().unwrap();
    assert_eq!(remaining(&store, &all(by_taking, 1)).await, [40, 880, 20, 2]);
    let grant = acquire(&store, &all(by_settling, 2)).await.unwrap().unwrap();
    settle(&store, &all(by_settling, 2), &grant, &[1, 12, 2, 0]);
    store.flush().await.unwrap();
    assert_eq!(remaining(&store, &all(by_settling, 1)).await, [59, 888, 18, 2]);
}

/// Those that are asked for at once are asked for together.
#[tokio::test(flavor = "multi_thread")]
async fn what_befalls_one_admission_is_not_the_others() {
    const CALLERS: usize = 300;
    let Some(server) = RedisServer::start() else { return };
    let store = store(&server);
    let (keys, busy): (Vec<_>, Key) = ((0..CALLERS).map(|_| key()).collect(), key());
    let name: String = keys[77].as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let (group, rest) = name.split_at(8);
    server.command(&["LPUSH", &format!("palisade:{{{group}}}{rest}"), "x"]);
    for round in 1..=3 {
        let asked = keys.iter().enumerate().map(|(n, key)| {
            let (store, limits) = (store.clone(), [requests(5), slots(CALLERS as u64 * 3)]);
            let own = Charge::new(*key, limits[0], 1);
            // Alone, with a slot of all, and in another's order.
            let shared = Charge::new(busy, limits[1], 1);
            let charges = [&[own][..], &[own, shared], &[shared, own]][n % 3].to_vec();
            async move { acquire(&store, &charges).await }
        });
        let answers = futures_util::future::join_all(asked).await;
        for (n, answer) in answers.into_iter().enumerate() {
            match answer {
                Err(error) => assert!(n == 77 && !error.is_transient(), "{n}: {error}"),
                Ok(answer) => assert!(n != 77 && answer.is_some(), "{n}"),
            }
        }
        let held = (0..CALLERS).filter(|n| n % 3 > 0 && *n != 77).count() * round;
        let charges = [Charge::new(busy, slots(CALLERS as u64 * 3), 1)];
        assert_eq!(remaining(&store, &charges).await, [(CALLERS * 3 - held) as u64]);
        // The one is forgotten by the server for all.
        server.command(&["SCRIPT", "FLUSH"]);
    }
    let stats = server.command(&["INFO", "commandstats"]);
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    let calls: usize = calls.unwrap().split(',').next().unwrap().parse().unwrap();
    assert!(calls < CALLERS, "{calls} commands for {} admissions", 3 * CALLERS);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_do_not_listen_hold_nobody_up_and_dropped_ones_keep_nothing() {
    let Some(server) = RedisServer::start() else { return };
    let store = store(&server);
    let charges = [Charge::new(key(), slots(100), 1), Charge::new(key(), requests(1000), 1)];
    let admission = Admission::new(ReservationId::next(), &charges);
    acquire(&store, &charges).await.unwrap().unwrap();
    let mut begun: Vec<_> = (0..64).map(|_| store.acquire(&admission)).collect();
    // On a busy machine one may be answered as soon as it is asked.
    let mut heard = 0;
    for call in &mut begun {
        let once = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *call).poll(cx).is_ready()));
        heard += u64::from(once.await);
    }
    let others = (0..20).map(|_| acquire(&store, &charges));
    for answer in futures_util::future::join_all(others).await {
        assert!(answer.unwrap().is_some());
    }
    drop(begun);
    let back = within(Duration::from_secs(5), async || {
        remaining(&store, &charges[..1]).await == [79 - heard]
    });
    assert!(back.await, "{:?}", remaining(&store, &charges).await);
}

/// As when a process ends while its server is gone: a connection can't be begun any more.
#[test]
fn a_runtime_that_ends_ends_the_calls_that_wait_for_a_server() {
    let builder = || RedisStore::builder("redis://127.0.0.1:1/").deadline(HOUR);
    #[cfg(feature = "redis-cluster")]
    let spread = Some(builder().cluster(["redis://127.0.0.1:2/"]));
    #[cfg(not(feature = "redis-cluster"))]
    let spread = None;
    for builder in [Some(builder()), spread].into_iter().flatten() {
        let store = builder.build().unwrap();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        let (begun, has_begun) = mpsc::channel();
        runtime.spawn(async move {
            begun.send(()).unwrap();
            // Until the other worker has closed the runtime.
            while !tokio::spawn(std::future::pending::<()>()).is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = store.first_use(key(), HOUR).await;
        });
        has_begun.recv().unwrap();
        let (ended, has_ended) = mpsc::channel();
        std::thread::spawn(move || {
            drop(runtime);
            ended.send(()).unwrap();
        });
        has_ended.recv_timeout(Duration::from_secs(20)).expect("the call is dropped");
    }
}
