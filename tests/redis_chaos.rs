//! Processes that share one limit, while everything befalls them and their server at once: never more than the limit, and
//! no slot lost for longer than its lease.
#![cfg(all(feature = "redis", feature = "test-util"))]
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod support;

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use palisade::store::{
    BreakerStore, Charge, Decision, LeasedStore, Limit, LimitId, LimiterStore, Outage, Pepper,
    RedisStore, ReservationId,
};
use support::{
    hammer::{acquire, remaining, settle, told},
    redis::RedisServer,
    within,
};

const HOUR: Duration = Duration::from_secs(3600);
const LONG: Duration = Duration::from_secs(120);
const LEASE: Duration = Duration::from_millis(900);
const QUOTA: u64 = 10_000;
const SLOTS: u64 = 500;
const PROCESSES: usize = 4;
const TASKS: usize = 4;
const CHILD: &str = "PALISADE_TEST_CHAOS";
const LEASED: &str = "PALISADE_TEST_CHAOS_LEASED";

fn redis(url: &str) -> RedisStore {
    RedisStore::builder(url).deadline(Duration::from_millis(500)).lease(LEASE).build().unwrap()
}

/// The same in every process.
fn charges() -> [Charge; 2] {
    let key = Pepper::from_secret("test").key("subject").finish();
    [
        Charge::new(key, Limit::rate(LimitId::of("requests"), QUOTA, HOUR), 1),
        Charge::new(key, Limit::slots(LimitId::of("slots"), SLOTS), 1),
    ]
}

/// Another process than the one that tests: takes what it gets without end, and writes a byte for each.
#[test]
fn a_child_process() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (url, history) = told.split_once(' ').unwrap();
    let leased = std::env::var_os(LEASED).is_some();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let history = OpenOptions::new().append(true).create(true).open(history).unwrap();
    runtime.block_on(async {
        let redis = redis(url);
        let store: Arc<dyn LimiterStore> = match leased {
            false => Arc::new(redis),
            true => Arc::new(LeasedStore::builder(redis).instances(4).build().unwrap()),
        };
        let history = Arc::new(history);
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| tokio::spawn(hammer(Arc::clone(&store), Arc::clone(&history), leased)))
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

async fn hammer(store: Arc<dyn LimiterStore>, history: Arc<File>, leased: bool) {
    let all = charges();
    let charges = if leased { &all[..1] } else { &all[..] };
    loop {
        match acquire(&*store, charges).await {
            Some(Ok(grant)) => {
                (&*history).write_all(b"+").unwrap();
                tokio::time::sleep(Duration::from_millis(3)).await;
                settle(&*store, charges, &grant, &[1, 1][..charges.len()]);
            }
            Some(Err(())) => tokio::time::sleep(Duration::from_millis(20)).await,
            None => {
                (&*history).write_all(b"?").unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// Gone when it is dropped.
struct Process(Child);

impl Process {
    fn start(url: &str, history: &Path, leased: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_child_process", "--nocapture"]);
        command.env(CHILD, format!("{url} {}", history.display()));
        if leased {
            command.env(LEASED, "1");
        }
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct History(PathBuf);

impl History {
    fn new(name: &str) -> Self {
        let name = format!("palisade-chaos-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    /// How many were admitted, and how often nobody knew.
    fn counts(&self) -> [u64; 2] {
        let bytes = fs::read(&self.0).unwrap_or_default();
        [b'+', b'?'].map(|it| bytes.iter().filter(|byte| **byte == it).count() as u64)
    }
}

impl Drop for History {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

async fn everything_befalls(leased: bool) {
    // It writes down what it answers to, so that its own death costs nothing.
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(mut server) = RedisServer::start_with(&options) else { return };
    let history = History::new(if leased { "leased" } else { "plain" });
    let (url, since) = (server.url(), Instant::now());
    let start = || Process::start(&url, &history.0, leased);
    let mut processes: Vec<_> = (0..PROCESSES).map(|_| start()).collect();
    let admitted = || history.counts()[0];
    let mut killed = 0;
    for round in 0.. {
        let before = admitted();
        if before >= QUOTA / 2 && round > 6 {
            break;
        }
        match round % 6 {
            0 => drop(server.command(&["SCRIPT", "FLUSH"])),
            1 => drop(server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])),
            2 => {
                // Dropped, and so killed.
                processes[round / 6 % PROCESSES] = start();
                killed += 1;
            }
            3 => drop(server.command(&["CLIENT", "PAUSE", "2000", "ALL"])),
            4 => {
                server.signal("STOP");
                tokio::time::sleep(Duration::from_secs(2)).await;
                server.signal("CONT");
            }
            _ => server.restart(),
        }
        let goes_on = within(LONG, async || admitted() > before + 50).await;
        assert!(goes_on, "round {round}: {:?}", history.counts());
    }
    let redis = redis(&url);
    // To the end of the quota.
    let used_up = async || {
        let before = admitted();
        tokio::time::sleep(Duration::from_secs(2)).await;
        before > QUOTA / 2 && admitted() - before < 20
    };
    assert!(within(LONG, used_up).await, "{:?}", history.counts());
    drop(processes);
    let [admitted, unknown] = history.counts();
    let drained = since.elapsed().as_secs() * QUOTA / 3600 + 1;
    eprintln!(
        "leased {leased}: {admitted} admitted of {QUOTA}, {unknown} unanswered, {killed} killed"
    );
    assert!(admitted <= QUOTA + drained, "{admitted}");
    if !leased {
        // What may have been charged and told to nobody: calls without an answer, and those of processes that died.
        let spent = unknown + (killed + PROCESSES as u64) * TASKS as u64;
        assert!(admitted + spent >= QUOTA, "{admitted}");
    }
    tokio::time::sleep(LEASE + Duration::from_millis(100)).await;
    assert_eq!(told(&redis, &charges()[1..]).await, [SLOTS], "those of the dead are free");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_befalls_four_processes_they_admit_no_more_than_the_limit() {
    everything_befalls(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_befalls_four_processes_with_leases_they_admit_no_more_than_the_limit() {
    everything_befalls(true).await;
}

/// Each policy, while the server hangs, while it is dead, and when it is back.
async fn policies_hold(leased: bool) {
    const SHARE: u64 = 25;
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(mut server) = RedisServer::start_with(&options) else { return };
    let redis =
        RedisStore::builder(&server.url()).deadline(Duration::from_millis(200)).build().unwrap();
    let inner: Arc<dyn LimiterStore> = match leased {
        false => Arc::new(redis.clone()),
        true => Arc::new(LeasedStore::builder(redis.clone()).instances(4).build().unwrap()),
    };
    let store = BreakerStore::builder(inner)
        .failures(2)
        .pause(Duration::from_millis(200))
        .instances(4)
        .build()
        .unwrap();
    let charge = |name: &str, outage| {
        let key = Pepper::from_secret("test").key(name).finish();
        [Charge::new(
            key,
            Limit::rate(LimitId::of("requests"), 4 * SHARE, HOUR).on_outage(outage),
            1,
        )]
    };
    let strict = charge("strict", Outage::Refuse);
    let open = charge("open", Outage::InsecureAdmit);
    for (round, ends) in [("hangs", false), ("is dead", true)] {
        let shared = charge(round, Outage::LocalShare);
        let ask = async |charges: &[Charge]| {
            let admission = palisade::store::Admission::new(ReservationId::next(), charges);
            match store.acquire(&admission).await {
                Ok(Decision::Admitted(grant)) => Some(Ok(grant.degraded)),
                Ok(Decision::Refused(_)) => Some(Err(())),
                Err(_) => None,
            }
        };
        assert!(within(LONG, async || ask(&strict).await == Some(Ok(false))).await, "{round}");
        if ends {
            server.kill()
        } else {
            server.signal("STOP")
        }
        let opens = async || ask(&strict).await.is_none() && store.is_open();
        assert!(within(LONG, opens).await, "{round}");
        for _ in 0..3 {
            assert_eq!(ask(&strict).await, None, "refused while the server {round}");
        }
        let mut share = 0;
        while let Some(Ok(degraded)) = ask(&shared).await {
            assert!(degraded);
            share += 1;
        }
        assert_eq!(share, SHARE, "a share while the server {round}");
        for _ in 0..8 * SHARE {
            assert_eq!(ask(&open).await, Some(Ok(true)), "all while the server {round}");
        }
        if ends {
            server.restart()
        } else {
            server.signal("CONT")
        }
        let back = async || ask(&strict).await == Some(Ok(false)) && !store.is_open();
        assert!(within(LONG, back).await, "{round}");
        // What was admitted meanwhile counts: no fresh burst.
        let left = async || remaining(&redis, &shared).await == [3 * SHARE];
        assert!(within(LONG, left).await, "{round}: {:?}", remaining(&redis, &shared).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outage_policy_does_what_it_says() {
    policies_hold(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outage_policy_does_what_it_says_of_leases() {
    policies_hold(true).await;
}
