//! What a decision of `RedisStore` costs beside PING, beside a script that does nothing and beside one of one limit, over the same
//! kind of connection to one server; and how many round trips `LeasedStore` spares, and how long its decisions take.
//!
//! First at a pace that leaves the server idle most of the time, then with so many callers who each wait for their answer and ask
//! again. All take turns, in rounds, so that what else the machine does befalls all alike; medians of the rounds are printed.
//! Client and server share the machine's cores. The last column is how long the server's scripts run for one answer, however
//! many of them they decide on together.

#![allow(missing_docs, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use palisade::store::{
    Admission, Charge, Decision, Key, LeasedStore, Limit, LimitId, LimiterStore, Pepper,
    RedisStore, ReservationId, Settlement,
};
use redis::{Script, aio::MultiplexedConnection};

/// One limit by GCRA, as plain as it can be, and exact to the microsecond.
const ONE_LIMIT: &str = "
local t = redis.call('TIME')
local now = (t[1] - 1704067200) * 1000000 + t[2]
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local step, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
if tat + step - now > burst then return 0 end
redis.call('SET', KEYS[1], string.format('%.3f', tat + step), 'PX', math.ceil((tat + step - now) / 1000) + 1000)
return 1";

/// What no script can cost less than.
const NOTHING: &str = "return 1";

const SUBJECTS: usize = 10_000;
const ROUNDS: usize = 7;
/// What no server here is busy with.
const PACE: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone)]
enum Peer {
    Ping(MultiplexedConnection),
    Script(MultiplexedConnection, Arc<Script>),
    Store(Arc<dyn LimiterStore>, Arc<[Limit]>, u64),
}

impl Peer {
    async fn ask(&self, subject: Key) {
        match self {
            Self::Ping(connection) => {
                let _: String =
                    redis::cmd("PING").query_async(&mut connection.clone()).await.unwrap();
            }
            Self::Script(connection, script) => {
                let mut call = script.key(subject.as_bytes().as_slice());
                call.arg(1).arg(60_000_000);
                let admitted: u8 = call.invoke_async(&mut connection.clone()).await.unwrap();
                assert_eq!(admitted, 1);
            }
            Self::Store(store, limits, used) => {
                let charges: Vec<_> =
                    limits.iter().map(|it| Charge::new(subject, *it, 1)).collect();
                let id = ReservationId::next();
                let answer = store.acquire(&Admission::new(id, &charges)).await.unwrap();
                let Decision::Admitted(grant) = answer else { panic!("refused") };
                let used = vec![*used; charges.len()];
                store.settle(&Settlement::new(id, &charges, grant.receipts.as_slice(), &used));
            }
        }
    }
}

/// Answers in a second, the latency at the 50th and the 99th percentile, in microseconds, and how many answers there were.
type Figures = [f64; 4];

/// Each peer has subjects of its own: a record that another one charges differently would be what is measured.
fn subjects(name: &'static str) -> impl Fn(usize) -> Key + Clone {
    let pepper = Pepper::from_secret("bench");
    move |at| pepper.key(name).with(&at.to_le_bytes()).finish()
}

/// So many callers, who each `wait` after an answer before they ask again.
async fn measure(
    peer: &Peer,
    subject: impl Fn(usize) -> Key + Clone + Send + 'static,
    callers: usize,
    wait: Duration,
    time: Duration,
) -> Figures {
    let began = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (peer, subject) = (peer.clone(), subject.clone());
            tokio::spawn(async move {
                let (mut latencies, mut at) = (Vec::new(), caller);
                while began.elapsed() < time {
                    at = (at + 611_953) % SUBJECTS;
                    let subject = subject(at);
                    let since = Instant::now();
                    peer.ask(subject).await;
                    latencies.push(since.elapsed());
                    if !wait.is_zero() {
                        tokio::time::sleep(wait).await;
                    }
                }
                latencies
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    figures(all, began)
}

/// One that is asked every so often, whether it has answered or not: how long an answer takes of a server that has time.
async fn paced(peer: &Peer, subject: impl Fn(usize) -> Key, time: Duration) -> Figures {
    let (began, mut tick) = (Instant::now(), tokio::time::interval(PACE));
    let (mut asked, mut at) = (Vec::new(), 0);
    while began.elapsed() < time {
        tick.tick().await;
        at = (at + 611_953) % SUBJECTS;
        let (peer, subject) = (peer.clone(), subject(at));
        asked.push(tokio::spawn(async move {
            let since = Instant::now();
            peer.ask(subject).await;
            since.elapsed()
        }));
    }
    let mut all = Vec::new();
    for asked in asked {
        all.push(asked.await.unwrap());
    }
    figures(all, began)
}

fn figures(mut all: Vec<Duration>, began: Instant) -> Figures {
    let rate = all.len() as f64 / began.elapsed().as_secs_f64();
    all.sort_unstable();
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    [rate, at(0.5), at(0.99), all.len() as f64]
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_unstable_by(f64::total_cmp);
    of[of.len() / 2]
}

fn script(connection: &MultiplexedConnection, text: &str) -> Peer {
    Peer::Script(connection.clone(), Arc::new(Script::new(text)))
}

struct Server(Child, u16);

impl Server {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        Self(command.stdout(Stdio::null()).spawn().unwrap(), port)
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.1)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main]
async fn main() {
    let seconds = std::env::args().skip(1).find_map(|it| it.parse().ok()).unwrap_or(1.0);
    let (time, server) = (Duration::from_secs_f64(seconds), Server::start());
    let store = loop {
        let builder = RedisStore::builder(&server.url()).deadline(Duration::from_secs(5));
        match builder.connect().await {
            Ok(store) => break Arc::new(store),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let info = redis::IntoConnectionInfo::into_connection_info(server.url()).unwrap();
    // As the store has it.
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    let client = redis::Client::open(info.set_tcp_settings(tcp)).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();

    let mut stats = client.get_multiplexed_async_connection().await.unwrap();

    const ENOUGH: u64 = 1_000_000_000;
    let id = LimitId::of;
    let five: Arc<[Limit]> = Arc::new([
        Limit::rate(id("requests-second"), ENOUGH, Duration::from_secs(1)),
        Limit::rate(id("requests-minute"), ENOUGH, MINUTE),
        Limit::rate(id("requests-day"), ENOUGH, 1440 * MINUTE),
        Limit::rate(id("tokens-minute"), ENOUGH, MINUTE),
        Limit::rate(id("tokens-day"), ENOUGH, 1440 * MINUTE),
    ]);
    let one: Arc<[Limit]> = Arc::new([five[1]]);
    let dynamic = |store: &Arc<RedisStore>| Arc::clone(store) as Arc<dyn LimiterStore>;
    let peers = [
        ("PING", Peer::Ping(connection.clone())),
        ("a script of one limit", script(&connection, ONE_LIMIT)),
        ("a script that does nothing", script(&connection, NOTHING)),
        ("RedisStore, one limit", Peer::Store(dynamic(&store), one, 1)),
        ("RedisStore, five limits", Peer::Store(dynamic(&store), Arc::clone(&five), 1)),
        ("the same, and settled to less", Peer::Store(dynamic(&store), five, 0)),
    ];
    println!("{ROUNDS} rounds of {seconds} s, medians\n");
    println!(
        "{:>7}  {:<30} {:>9} {:>9} {:>9}   {:>11} {:>10} {:>10} {:>14}",
        "callers",
        "",
        "per s",
        "p50 us",
        "p99 us",
        "of a script",
        "p50 / PING",
        "p99 / PING",
        "us of scripts"
    );
    // None: one comes every millisecond.
    for callers in [None, Some(1), Some(64), Some(256)] {
        let load = callers.map_or_else(|| "paced".to_owned(), |callers| callers.to_string());
        let (mut rounds, mut served) =
            (vec![Vec::new(); peers.len()], vec![Vec::new(); peers.len()]);
        for _ in 0..ROUNDS {
            for (at, (name, peer)) in peers.iter().enumerate() {
                let before = scripts(&mut stats).await;
                let figures = match callers {
                    None => paced(peer, subjects(name), time).await,
                    Some(callers) => {
                        measure(peer, subjects(name), callers, Duration::ZERO, time).await
                    }
                };
                store.flush().await.unwrap();
                let [_, busy] = since(before, scripts(&mut stats).await);
                served[at].push(busy / figures[3]);
                rounds[at].push(figures);
            }
        }
        let of =
            |rounds: &[Figures]| [0, 1, 2].map(|n| median(rounds.iter().map(|it| it[n]).collect()));
        let (ping, script) = (of(&rounds[0]), of(&rounds[1]));
        for (((name, _), rounds), served) in peers.iter().zip(&rounds).zip(served) {
            let [rate, half, most] = of(rounds);
            println!(
                "{load:>7}  {name:<30} {rate:>9.0} {half:>9.0} {most:>9.0}   {:>11.2} {:>10.2} {:>10.2} {:>14.1}",
                rate / script[0],
                half / ping[1],
                most / ping[2],
                median(served)
            );
        }
        println!();
    }
    leased(&client, &store, time).await;
}

/// Of one busy subject, by 64 callers at once, who each wait a millisecond before they ask again.
async fn leased(client: &redis::Client, store: &Arc<RedisStore>, time: Duration) {
    const CALLERS: usize = 64;
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let limit: Arc<[Limit]> = Arc::new([Limit::rate(LimitId::of("requests"), 6_000_000, MINUTE)]);
    println!(
        "{:>7}  {:<30} {:>11} {:>9} {:>9}   {:>10} {:>22}",
        "callers",
        "one subject",
        "decisions",
        "p50 us",
        "p99 us",
        "p99 / PING",
        "scripts per decision"
    );
    let mut rounds = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let leased = LeasedStore::builder(Arc::clone(store)).instances(4).build().unwrap();
        let leased: Arc<dyn LimiterStore> = Arc::new(leased);
        let peers = [
            Peer::Ping(connection.clone()),
            Peer::Store(Arc::clone(store) as _, Arc::clone(&limit), 1),
            Peer::Store(Arc::clone(&leased), Arc::clone(&limit), 1),
        ];
        for (peer, rounds) in peers.iter().zip(&mut rounds) {
            let key = Pepper::random().key("subject").finish();
            let before = scripts(&mut connection).await;
            // Below the limit: 64 callers, a thousand times a second each at most.
            let figures =
                measure(peer, move |_| key, CALLERS, Duration::from_millis(1), time).await;
            leased.flush().await.unwrap();
            let [run, _] = since(before, scripts(&mut connection).await);
            let [_, half, most, decisions] = figures;
            rounds.push([decisions, half, most, run / decisions]);
        }
    }
    let [ping, plain, leased] =
        rounds.map(|rounds| [0, 1, 2, 3].map(|n| median(rounds.iter().map(|it| it[n]).collect())));
    for (name, of) in [("PING", ping), ("RedisStore", plain), ("LeasedStore", leased)] {
        let ([decisions, half, most, share], beside) = (of, of[2] / ping[2]);
        println!(
            "{CALLERS:>7}  {name:<30} {decisions:>11.0} {half:>9.0} {most:>9.0}   {beside:>10.2} {share:>22.4}"
        );
    }
    println!("         {:.0} times fewer round trips", plain[3] / leased[3]);
}

/// How many scripts the server has run, and for how many microseconds.
async fn scripts(connection: &mut MultiplexedConnection) -> [f64; 2] {
    let mut info = redis::cmd("INFO");
    let stats: String = info.arg("commandstats").query_async(connection).await.unwrap();
    let mut sums = [0.0; 2];
    for name in ["cmdstat_evalsha:", "cmdstat_eval:"] {
        let Some(line) = stats.lines().find_map(|line| line.strip_prefix(name)) else { continue };
        for (sum, field) in sums.iter_mut().zip(["calls=", "usec="]) {
            let mut fields = line.split(',').filter_map(|it| it.strip_prefix(field));
            *sum += fields.next().unwrap().parse::<f64>().unwrap();
        }
    }
    sums
}

fn since(before: [f64; 2], after: [f64; 2]) -> [f64; 2] {
    [after[0] - before[0], after[1] - before[1]]
}
