//! What may befall a Redis server, the way to it, and the processes that use it.
#![cfg(all(feature = "redis", feature = "test-util"))]
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod support;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use palisade::store::{
    Admission, BreakerStore, Charge, Decision, FactStore, Key, Limit, LimitId, LimiterStore,
    Outage, Pepper, RedisStore, ReservationId, Seen, StoreError,
};
use support::{hammer::settle, redis::RedisServer, within};

const HOUR: Duration = Duration::from_secs(3600);
const LEASE: Duration = Duration::from_millis(900);

fn store_at(url: &str) -> RedisStore {
    RedisStore::builder(url).deadline(Duration::from_secs(2)).lease(LEASE).build().unwrap()
}

/// The same in every process.
fn charges() -> [Charge; 2] {
    let key = Pepper::from_secret("test").key("subject").finish();
    [
        Charge::new(key, Limit::rate(LimitId::of("requests"), 100, HOUR), 1),
        Charge::new(key, Limit::slots(LimitId::of("slots"), 200), 1),
    ]
}

fn other_key() -> Key {
    Pepper::from_secret("test").key("other").finish()
}

async fn acquire(store: &RedisStore, charges: &[Charge]) -> Result<Option<Seen>, StoreError> {
    let decision = store.acquire(&Admission::new(ReservationId::next(), charges)).await?;
    Ok(match decision {
        Decision::Admitted(grant) => Some(grant),
        Decision::Refused(_) => None,
    })
}

async fn remaining(store: &RedisStore, charges: &[Charge]) -> Vec<u64> {
    let standings = store.peek(&Admission::new(ReservationId::next(), charges)).await.unwrap();
    standings.as_slice().iter().map(|standing| standing.remaining).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_at_once_and_never_shown() {
    let Some(server) = RedisServer::start() else { return };
    server.command(&["CONFIG", "SET", "requirepass", "hunter2"]);
    let wrong = server.url().replace("redis://", "redis://:hunter3@");
    for url in [wrong.as_str(), &server.url()] {
        let since = Instant::now();
        let error = RedisStore::builder(url).connect().await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter"), "{error:?}");
        assert!(error.to_string().contains("failed"), "{error}");
        let store = store_at(url);
        let error = acquire(&store, &charges()).await.unwrap_err();
        assert!(!error.is_transient(), "{error}");
        assert!(since.elapsed() < Duration::from_secs(2));
    }
    let right = server.url().replace("redis://", "redis://:hunter2@");
    assert!(acquire(&store_at(&right), &charges()).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_another_type_is_a_refusal_and_stops_no_other_settlement() {
    let Some(server) = RedisServer::start() else { return };
    let store = store_at(&server.url());
    let grant = acquire(&store, &charges()).await.unwrap().unwrap();
    let mut others = charges();
    others.iter_mut().for_each(|charge| charge.record = other_key());
    let other = acquire(&store, &others).await.unwrap().unwrap();
    let name: String = charges()[0].record.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
    let (group, rest) = name.split_at(8);
    let name = format!("palisade:{{{group}}}{rest}");
    server.command(&["DEL", &name]);
    server.command(&["LPUSH", &name, "x"]);
    assert!(!acquire(&store, &charges()).await.unwrap_err().is_transient());
    settle(&store, &charges(), &grant, &[0, 1]);
    settle(&store, &others, &other, &[0, 1]);
    assert!(store.flush().await.is_err(), "the lost settlement is told");
    assert_eq!(remaining(&store, &others).await, [100, 200]);
    assert!(store.flush().await.is_ok());
}

/// Full, or a replica: nothing can be written for a while.
#[tokio::test(flavor = "multi_thread")]
async fn settlements_wait_for_a_server_that_can_not_write() {
    let Some(server) = RedisServer::start() else { return };
    for (begin, end) in [
        (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
        (["REPLICAOF", "127.0.0.1", "1", ""], ["REPLICAOF", "NO", "ONE", ""]),
    ] {
        let words = |all: [&'static str; 4]| all.into_iter().filter(|it| !it.is_empty());
        let command = |all| server.command(&words(all).collect::<Vec<_>>());
        server.command(&["FLUSHALL"]);
        let store = store_at(&server.url());
        let grant = acquire(&store, &charges()).await.unwrap().unwrap();
        assert!(command(begin).starts_with("+OK"));
        let since = Instant::now();
        let error = acquire(&store, &charges()).await.unwrap_err();
        assert!(error.is_transient() && since.elapsed() < Duration::from_secs(3), "{error}");
        settle(&store, &charges(), &grant, &[0, 1]);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(command(end).starts_with("+OK"));
        store.flush().await.unwrap();
        assert_eq!(remaining(&store, &charges()).await, [100, 200], "{begin:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgets_all_gives_no_more_slots_than_there_are() {
    let Some(server) = RedisServer::start() else { return };
    let store = store_at(&server.url());
    let old = acquire(&store, &charges()).await.unwrap().unwrap();
    server.command(&["FLUSHALL"]);
    tokio::time::sleep(LEASE).await;
    let new = acquire(&store, &charges()).await.unwrap().unwrap();
    settle(&store, &charges(), &old, &[0, 1]);
    store.flush().await.unwrap();
    assert_eq!(remaining(&store, &charges()).await[1], 199, "the new one keeps its slot");
    settle(&store, &charges(), &new, &[1, 1]);
    store.flush().await.unwrap();
    assert_eq!(remaining(&store, &charges()).await[1], 200);
}

/// As a load balancer does whose servers are down.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_opens_and_closes_at_once_is_not_stormed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Answers the greeting, then hangs up.
            let (mut stream, mut greeting) = (stream.unwrap(), [0; 1024]);
            let _ = stream.read(&mut greeting);
            let _ = stream.write_all(b"%1\r\n+server\r\n+redis\r\n+OK\r\n+OK\r\n+OK\r\n");
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let builder = RedisStore::builder(&url).deadline(Duration::from_millis(50));
    let store = builder.build().unwrap();
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        let all = (0..8).map(|_| store.get(other_key()));
        for answer in futures_util::future::join_all(all).await {
            assert!(answer.is_err());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let connections = connections.load(Ordering::SeqCst);
    assert!((1..60).contains(&connections), "{connections}");
}

/// Forwards to `port` until it is told to swallow everything, as a firewall does that forgot the connection.
fn way_to(port: u16) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    // Connections before this one are swallowed.
    let swallowed = Arc::new(AtomicUsize::new(0));
    let before = Arc::clone(&swallowed);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (client, server) =
                (stream.unwrap(), TcpStream::connect(("127.0.0.1", port)).unwrap());
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let before = Arc::clone(&before);
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(read @ 1..) = from.read(&mut buffer) {
                        if number >= before.load(Ordering::SeqCst) {
                            to.write_all(&buffer[..read]).unwrap();
                        }
                    }
                });
            }
        }
    });
    (url, swallowed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_falls_silent_is_replaced() {
    let Some(server) = RedisServer::start() else { return };
    let port = server.url().rsplit(':').next().unwrap().trim_matches('/').parse().unwrap();
    let (url, swallowed) = way_to(port);
    let store = RedisStore::builder(&url).deadline(Duration::from_millis(500)).build().unwrap();
    let grant = acquire(&store, &charges()).await.unwrap().unwrap();
    swallowed.store(1, Ordering::SeqCst);
    assert!(acquire(&store, &charges()).await.is_err());
    settle(&store, &charges(), &grant, &[0, 1]);
    let back = within(Duration::from_secs(8), async || store.get(other_key()).await.is_ok());
    assert!(back.await);
    store.flush().await.unwrap();
    assert_eq!(remaining(&store, &charges()).await, [100, 200]);
}

#[test]
fn a_store_outlives_its_runtime_and_loses_no_settlement() {
    let Some(server) = RedisServer::start() else { return };
    let store = store_at(&server.url());
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let first = runtime();
    let grant = first.block_on(acquire(&store, &charges())).unwrap().unwrap();
    let waiting = store.acquire(&Admission::new(ReservationId::next(), &charges()));
    drop(waiting);
    drop(first);
    settle(&store, &charges(), &grant, &[0, 1]);
    runtime().block_on(async {
        acquire(&store, &charges()).await.unwrap().unwrap();
        store.flush().await.unwrap();
        let left = remaining(&store, &charges()).await;
        // The one that was dropped with its runtime may have been charged.
        assert!(left[0] >= 98 && left[0] <= 99, "{left:?}");
    });
}

/// Another process than the one that tests: takes what it gets, says how much, and waits for its end.
#[test]
fn a_child_process() {
    let Ok(url) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = store_at(&url);
        let mut admitted = 0;
        for _ in 0..60 {
            admitted += usize::from(acquire(&store, &charges()).await.unwrap().is_some());
        }
        println!("\nadmitted {admitted}.");
        tokio::time::sleep(Duration::from_secs(30)).await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn four_processes_admit_what_one_would_and_their_slots_are_free_when_they_are_killed() {
    let Some(server) = RedisServer::start() else { return };
    let program = std::env::current_exe().unwrap();
    let mut children: Vec<_> = (0..4)
        .map(|_| {
            let mut command = Command::new(&program);
            command.args(["--exact", "a_child_process", "--nocapture"]);
            command.env(CHILD, server.url()).stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut admitted = 0;
    for child in &mut children {
        let (mut said, mut byte) = (String::new(), [0]);
        let output = child.stdout.as_mut().unwrap();
        while !(said.contains("admitted ") && said.ends_with('.')) {
            assert_eq!(output.read(&mut byte).unwrap(), 1, "{said}");
            said.push(char::from(byte[0]));
        }
        let number = said.rsplit("admitted ").next().unwrap().trim_matches('.');
        admitted += number.parse::<usize>().unwrap();
    }
    assert_eq!(admitted, 100);
    let store = store_at(&server.url());
    assert_eq!(remaining(&store, &charges()).await[1], 100);
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let killed = Instant::now();
    let free = within(LEASE * 4, async || remaining(&store, &charges()).await[1] == 200);
    assert!(free.await);
    assert!(killed.elapsed() < LEASE + Duration::from_millis(600), "{:?}", killed.elapsed());
}

const CHILD: &str = "PALISADE_TEST_CHILD_OF";

/// A pause of two seconds, and a server that dies and is started again.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_breaker_an_outage_costs_no_wait_and_recovery_grants_no_fresh_burst() {
    let Some(mut server) = RedisServer::start() else { return };
    let redis = RedisStore::builder(&server.url()).deadline(Duration::from_millis(200));
    let store = BreakerStore::builder(redis.build().unwrap())
        .failures(2)
        .pause(Duration::from_millis(200))
        .instances(2)
        .build()
        .unwrap();
    let limit = |outage| Limit::rate(LimitId::of("requests"), 100, HOUR).on_outage(outage);
    let (shared, strict) = (
        [Charge::new(charges()[0].record, limit(Outage::LocalShare), 10)],
        [Charge::new(other_key(), limit(Outage::Refuse), 1)],
    );
    let ask = async |charges: &[Charge]| match store
        .acquire(&Admission::new(ReservationId::next(), charges))
        .await
    {
        Ok(Decision::Admitted(grant)) => Some(grant.degraded),
        Ok(Decision::Refused(refusal)) => panic!("{refusal:?}"),
        Err(_) => None,
    };
    let left = async || {
        let admission = Admission::new(ReservationId::next(), &shared);
        let standings = store.peek(&admission).await;
        standings.map_or(0, |standings| standings.as_slice()[0].remaining)
    };
    let is_back = async || ask(&strict).await.is_some() && !store.is_open();

    assert_eq!(ask(&shared).await, Some(false));
    assert!(server.command(&["CLIENT", "PAUSE", "2000"]).starts_with("+OK"));
    let opens = async || ask(&strict).await.is_none() && store.is_open();
    assert!(within(Duration::from_secs(60), opens).await);
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(ask(&shared).await, Some(true));
    }
    assert!(within(Duration::from_secs(60), is_back).await);
    assert!(began.elapsed() < Duration::from_secs(60));
    // Ten before, and thirty meanwhile.
    assert!(within(Duration::from_secs(10), async || left().await == 60).await);

    server.kill();
    let opens = async || ask(&strict).await.is_none() && store.is_open();
    assert!(within(Duration::from_secs(60), opens).await);
    assert_eq!(ask(&shared).await, Some(true));
    server.restart();
    assert!(within(Duration::from_secs(60), is_back).await);
    // What the server knew is gone with it. It is told what was admitted since, and nothing twice.
    assert!(within(Duration::from_secs(10), async || left().await == 90).await);
}
