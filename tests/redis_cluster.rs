//! What `RedisStore` promises of a cluster, with real masters, slots that move, and a master that dies.
#![cfg(all(feature = "redis-cluster", feature = "test-util"))]
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod support;

use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade::store::{
    Charge, FactStore, Key, LeasedStore, Limit, LimitId, LimiterStore, Pepper, RedisStore,
    conformance::{self, RealTime},
};
use support::{
    hammer::{Hammer, acquire, remaining, settle, told},
    redis::RedisServer,
    within,
};

const HOUR: Duration = Duration::from_secs(3600);
const LONG: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_millis(900);
const QUOTA: u64 = 6000;
const SLOTS: u64 = 100_000;

/// Three masters with a third of the slots each, and a replica of the first.
struct Cluster {
    masters: Vec<RedisServer>,
    replica: RedisServer,
}

impl Cluster {
    async fn start() -> Option<Self> {
        let node = || {
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let options = [
                ["--cluster-enabled", "yes"],
                ["--cluster-config-file", "FOLDER/nodes"],
                ["--cluster-node-timeout", "1500"],
                ["--cluster-port", &free.to_string()],
                ["--repl-diskless-sync-delay", "0"],
            ];
            RedisServer::start_with(options.as_flattened()).map(|server| (server, free.to_string()))
        };
        let (first, _) = node()?;
        let (mut masters, mut buses) = (vec![first], Vec::new());
        for _ in 0..2 {
            let (server, bus) = node()?;
            masters.push(server);
            buses.push(bus);
        }
        let (replica, bus) = node()?;
        buses.push(bus);
        for (at, master) in masters.iter().enumerate() {
            let range = [["0", "5460"], ["5461", "10922"], ["10923", "16383"]][at];
            let said = master.command(&["CLUSTER", "ADDSLOTSRANGE", range[0], range[1]]);
            assert!(said.starts_with("+OK"), "{said}");
            master.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]);
        }
        for (server, bus) in masters[1..].iter().chain([&replica]).zip(&buses) {
            let port = server.port().to_string();
            let said = masters[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]);
            assert!(said.starts_with("+OK"), "{said}");
        }
        let cluster = Self { masters, replica };
        let all = || cluster.masters.iter().chain([&cluster.replica]);
        let knows = |it: &RedisServer| it.says(&["CLUSTER", "INFO"], "cluster_known_nodes:4");
        assert!(within(LONG, async || all().all(knows)).await, "the nodes have met");
        let first = id(&cluster.masters[0]);
        let follow = || cluster.replica.command(&["CLUSTER", "REPLICATE", &first]);
        assert!(within(LONG, async || follow().starts_with("+OK")).await);
        let is_up = |it: &RedisServer| it.says(&["CLUSTER", "INFO"], "cluster_state:ok");
        assert!(within(LONG, async || all().all(is_up)).await, "the cluster is up");
        let online = async || cluster.masters[0].says(&["INFO", "replication"], "state=online");
        assert!(within(LONG, online).await);
        Some(cluster)
    }

    /// One that knows a node that is gone, and the last.
    fn store(&self) -> RedisStore {
        let builder = RedisStore::builder("redis://127.0.0.1:1/").cluster([self.masters[2].url()]);
        builder.deadline(Duration::from_secs(1)).lease(LEASE).build().unwrap()
    }

    /// The slot of a key's group.
    fn slot(&self, key: Key) -> u16 {
        let group: String = key.as_bytes()[..4].iter().map(|b| format!("{b:02x}")).collect();
        let slot = self.masters[0].command(&["CLUSTER", "KEYSLOT", &group]);
        slot.trim().trim_start_matches(':').parse().unwrap()
    }

    /// Moves a slot with all that is in it, key by key, as `redis-cli --cluster reshard` does.
    async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let (from, to, slot) = (&self.masters[from], &self.masters[to], slot.to_string());
        let set = |server: &RedisServer, words: &[&str]| {
            let said = server.command(&[&["CLUSTER", "SETSLOT", &slot], words].concat());
            assert!(said.starts_with("+OK"), "{said}");
        };
        set(to, &["IMPORTING", &id(from)]);
        set(from, &["MIGRATING", &id(to)]);
        let port = to.port().to_string();
        loop {
            // For a moment, some keys are there and some are here.
            tokio::time::sleep(Duration::from_millis(30)).await;
            let keys = from.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"]);
            let Some(key) = keys.lines().find(|line| line.starts_with("palisade:")) else { break };
            let said = from.command(&["MIGRATE", "127.0.0.1", &port, key, "0", "1000"]);
            assert!(said.starts_with("+OK") || said.starts_with("+NOKEY"), "{said}");
        }
        set(to, &["NODE", &id(to)]);
        set(from, &["NODE", &id(to)]);
    }
}

fn id(node: &RedisServer) -> String {
    node.command(&["CLUSTER", "MYID"]).lines().nth(1).unwrap().to_owned()
}

/// A subject and its organisation, whose slot is the first master's if `of_the_first`.
fn records(cluster: &Cluster, of_the_first: bool) -> [Key; 2] {
    let pepper = Pepper::random();
    let groups = (0_u32..).map(|n| pepper.key("group").with(&n.to_le_bytes()).group());
    let mut keys = groups.map(|it| ["subject", "org"].map(|name| pepper.key(name).finish_in(it)));
    keys.find(|it| (cluster.slot(it[0]) <= 5460) == of_the_first).unwrap()
}

fn charges([subject, organisation]: [Key; 2]) -> [Charge; 3] {
    [
        Charge::new(subject, Limit::rate(LimitId::of("requests"), QUOTA, HOUR), 1),
        Charge::new(subject, Limit::slots(LimitId::of("slots"), SLOTS), 1),
        Charge::new(organisation, Limit::rate(LimitId::of("requests"), 2 * QUOTA, HOUR), 1),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    let Some(cluster) = Cluster::start().await else { return };
    conformance::limiter_store(|| Arc::new(cluster.store()), &RealTime).await;
    conformance::fact_store(|| Arc::new(cluster.store()), &RealTime).await;
    conformance::record_store(|| Arc::new(cluster.store())).await;
    let connected = RedisStore::builder(&cluster.masters[1].url()).cluster([""; 0]).connect().await;
    assert!(connected.unwrap().health().is_connected());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admission_over_several_groups_is_all_or_none_in_the_end() {
    let Some(cluster) = Cluster::start().await else { return };
    let store = cluster.store();
    let (mine, others) = (records(&cluster, true), records(&cluster, false));
    let limit = |quota| Limit::rate(LimitId::of("requests"), quota, HOUR);
    let slots = |max| Limit::slots(LimitId::of("slots"), max);
    let all = [
        Charge::new(mine[0], limit(100), 1),
        Charge::new(others[0], limit(50), 1),
        Charge::new(mine[0], slots(70), 1),
        Charge::new(others[1], slots(60), 1),
    ];
    let mut grants = Vec::new();
    for _ in 0..50 {
        grants.push(acquire(&store, &all).await.unwrap().unwrap());
    }
    assert_eq!(remaining(&store, &all).await, [50, 0, 20, 10]);
    for _ in 0..30 {
        assert!(acquire(&store, &all).await.unwrap().is_err());
    }
    assert_eq!(remaining(&store, &all).await, [50, 0, 20, 10], "all was given back");
    // Each standing and each receipt is where its charge is.
    for (at, grant) in grants.iter().enumerate() {
        let standings = store.standings(&all, grant);
        let left: Vec<_> = standings.as_slice().iter().map(|it| it.remaining).collect();
        let at = at as u64 + 1;
        assert_eq!(left, [100 - at, 50 - at, 70 - at, 60 - at]);
        settle(&store, &all, grant, &[0, 1, 1, 1]);
    }
    store.flush().await.unwrap();
    let left = remaining(&store, &all).await;
    // Of the rate, what was given back meanwhile is not given back again.
    assert!((69..=100).contains(&left[0]) && left[1..] == [0, 70, 60], "{left:?}");

    // A group that nobody answers for.
    let one = [all[2], Charge::new(others[0], limit(100), 1)];
    cluster.masters[0].signal("STOP");
    let late = [all[3], all[2]];
    assert!(acquire(&store, &late).await.is_none());
    assert!(acquire(&store, &late[..1]).await.unwrap().is_ok(), "the others answer");
    cluster.masters[0].signal("CONT");
    assert!(within(LONG, async || acquire(&store, &one).await.is_some()).await);
    let free = async || remaining(&store, &all).await.get(3) == Some(&59);
    assert!(within(LONG, free).await, "{:?}", remaining(&store, &all).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_settlement_overtakes_one_that_was_not_applied() {
    let Some(cluster) = Cluster::start().await else { return };
    let (store, keys) = (cluster.store(), records(&cluster, true));
    let all = [charges(keys)[0]];
    let mut grants = Vec::new();
    for _ in 0..4 {
        grants.push(acquire(&store, &all).await.unwrap().unwrap());
    }
    // The script is known by then.
    settle(&store, &all, &grants.remove(0), &[2]);
    store.flush().await.unwrap();
    let slot = cluster.slot(keys[0]).to_string();
    cluster.masters[0].command(&["CLUSTER", "DELSLOTS", &slot]);
    for (grant, used) in grants.iter().zip([31, 11, 6]) {
        settle(&store, &all, grant, &[used]);
    }
    // Longer than one of them is tried at a time.
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.masters[0].command(&["CLUSTER", "ADDSLOTS", &slot]);
    store.flush().await.unwrap();
    let left = remaining(&store, &all).await[0];
    assert!((QUOTA - 50..=QUOTA - 35).contains(&left), "{left}");
}

async fn slots_move_under(leased: bool) {
    let Some(cluster) = Cluster::start().await else { return };
    let redis = Arc::new(cluster.store());
    let store: Arc<dyn LimiterStore> = match leased {
        false => redis.clone(),
        true => Arc::new(LeasedStore::builder(Arc::clone(&redis)).instances(2).build().unwrap()),
    };
    let keys = records(&cluster, true);
    let [requests, slots, organisation] = charges(keys);
    let all =
        if leased { vec![requests, organisation] } else { vec![requests, slots, organisation] };
    let held = acquire(&*redis, &[slots]).await.unwrap().unwrap();
    let (hammer, since) = (Arc::new(Hammer::default()), Instant::now());
    hammer.start(Arc::clone(&store), 4, &all);
    hammer.until(|it| it.admitted() > 100).await;
    let (slot, mut at) = (cluster.slot(keys[0]), 0);
    for (round, to) in (1..).zip([1, 2, 0, 2]) {
        cluster.move_slot(slot, at, to).await;
        at = to;
        let before = hammer.admitted();
        hammer.until(|it| it.admitted() > before + 100).await;
        assert_eq!(redis.raise(keys[0], round, HOUR).await.unwrap(), round);
        assert_eq!(redis.get(keys[0]).await.unwrap(), Some(round));
    }
    let refused = hammer.refused();
    hammer.until(|it| it.refused() > refused + 100).await;
    let (failed, admitted) = (hammer.failed(), hammer.stop().await);
    let drained = since.elapsed().as_secs() * QUOTA / 3600 + 1;
    eprintln!("leased {leased}: {admitted} admitted of {QUOTA}, {failed} failed");
    // None, but where this machine has other things to do.
    assert!(failed * 20 < admitted, "{failed} of {admitted}");
    let least = if leased { QUOTA - 1000 } else { QUOTA };
    assert!((least..=QUOTA + drained).contains(&admitted), "{admitted}");
    store.flush().await.unwrap();
    assert_eq!(remaining(&*redis, &[slots]).await, [SLOTS - 1]);
    tokio::time::sleep(2 * LEASE).await;
    assert_eq!(
        remaining(&*redis, &[slots]).await,
        [SLOTS - 1],
        "what is held is renewed where it is"
    );
    settle(&*redis, &[slots], &held, &[1]);
    redis.flush().await.unwrap();
    assert_eq!(remaining(&*redis, &[slots]).await, [SLOTS]);
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_move_cost_no_admission_and_no_limit() {
    slots_move_under(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_move_under_leases_too() {
    slots_move_under(true).await;
}

async fn a_master_dies_under(leased: bool) {
    let Some(mut cluster) = Cluster::start().await else { return };
    let redis = Arc::new(cluster.store());
    let store: Arc<dyn LimiterStore> = match leased {
        false => redis.clone(),
        true => Arc::new(LeasedStore::builder(Arc::clone(&redis)).instances(2).build().unwrap()),
    };
    let [requests, slots, organisation] = charges(records(&cluster, true));
    let all =
        if leased { vec![requests, organisation] } else { vec![requests, slots, organisation] };
    let others = charges(records(&cluster, false));
    let (hammer, since) = (Arc::new(Hammer::default()), Instant::now());
    hammer.start(Arc::clone(&store), 4, &all);
    hammer.until(|it| it.admitted() > 300).await;
    let safe = hammer.admitted();
    let offset = |server: &RedisServer, name: &str| -> u64 {
        let info = server.command(&["INFO", "replication"]);
        let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        line.trim_start_matches(':').trim().parse().unwrap()
    };
    let written = offset(&cluster.masters[0], "master_repl_offset");
    let has = async || offset(&cluster.replica, "slave_repl_offset") >= written;
    assert!(within(LONG, has).await);
    cluster.masters[0].kill();
    let by_the_old = hammer.admitted();
    // The others admit and settle meanwhile.
    let grant = acquire(&*redis, &others).await.unwrap().unwrap();
    settle(&*redis, &others, &grant, &[1, 1, 1]);
    let free = async || remaining(&*redis, &others[1..2]).await == [SLOTS];
    assert!(within(LONG, free).await, "a master that is dead delays no settlement of the others");
    assert!(!cluster.replica.command(&["INFO", "replication"]).contains("role:master"));
    hammer.until(|it| it.admitted() > by_the_old + 100).await;
    let failed = hammer.failed();
    let refused = hammer.refused();
    hammer.until(|it| it.refused() > refused + 200).await;
    let (admitted, lost) = (hammer.stop().await, by_the_old - safe);
    let drained = since.elapsed().as_secs() * QUOTA / 3600 + 1;
    eprintln!(
        "leased {leased}: {admitted} admitted of {QUOTA}, {failed} failed, at most {lost} unknown to the new master"
    );
    assert!(admitted <= QUOTA + lost + drained, "{admitted}");
    assert!(admitted + 500 > QUOTA, "{admitted}");
    tokio::time::sleep(2 * LEASE).await;
    assert_eq!(told(&*redis, &[slots]).await, [SLOTS], "none is lost for longer than its lease");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_master_dies_no_more_is_admitted_than_it_had_not_passed_on() {
    a_master_dies_under(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_dies_under_leases_too() {
    a_master_dies_under(true).await;
}
