//! A Redis Cluster: a connection to each master, and which of them has which key (feature `redis-cluster`).
//!
//! The redis crate's own client is not used: it sends again what was lost on the way, so that a slot may be taken twice
//! under one name and stay taken for as long as that name is renewed. Here only what a node answered not to have done is
//! sent again.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value, cmd};

use super::{
    checks::Checks,
    connection::{Connection, PATIENCE, Target},
    endpoint::Endpoint,
    errors::{is_answer, no_answer},
    link::{Call, commands},
    script::Program,
    slot_map::{Address, SlotMap, slot_of},
};
use crate::runtime::{self, Notify, oneshot};

pub(super) struct Cluster {
    /// A node to begin with. What is known of it, but for where it is, is true of all.
    first: Endpoint,
    /// Others, should that one be gone.
    others: Vec<Address>,
    /// How many connections there have been.
    count: Arc<AtomicU64>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    map: SlotMap,
    nodes: HashMap<Address, Arc<Connection>>,
    refreshing: bool,
}

impl Cluster {
    pub(super) fn new(first: Endpoint, others: Vec<Address>, count: Arc<AtomicU64>) -> Arc<Self> {
        let (state, changed) = (Mutex::default(), Notify::new());
        Arc::new(Self { first, others, count, state, changed })
    }

    /// The connections to the nodes that the map names.
    pub(super) fn connections(&self) -> Vec<Arc<Connection>> {
        let state = self.state();
        let masters: HashSet<_> = state.map.masters().collect();
        let nodes = masters.into_iter().filter_map(|address| state.nodes.get(address));
        nodes.map(Arc::clone).collect()
    }

    /// The answer to a command about `key`, from whichever node has it.
    pub(super) async fn send(self: &Arc<Self>, key: &str, command: &Cmd) -> RedisResult<Value> {
        let answer = runtime::timeout(PATIENCE, self.follow(slot_of(key), command, None));
        answer.await.unwrap_or_else(|_| Err(no_answer()))
    }

    /// The answers to calls, of those to one node together; the nodes are asked at once.
    pub(super) async fn call_all(
        self: &Arc<Self>,
        calls: Vec<Call>,
        whole: bool,
    ) -> Vec<RedisResult<Value>> {
        let count = calls.len();
        // Runs of calls, in their order, to whichever node has them. `None`: nobody knows yet which has.
        let mut nodes: HashMap<Option<Address>, Vec<(usize, Call)>> = HashMap::new();
        for (at, call) in calls.into_iter().enumerate() {
            let slot = call.keys.first().map_or(0, |key| slot_of(key));
            let node = self.state().map.master_of(slot).cloned();
            nodes.entry(node).or_default().push((at, call));
        }
        let mut running = Vec::with_capacity(nodes.len());
        for (_, calls) in nodes {
            let (cluster, (sender, answers)) = (Arc::clone(self), oneshot::channel());
            let (places, calls): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
            let task = async move {
                let mut answers = Vec::with_capacity(calls.len());
                for some in calls.chunks(BATCH) {
                    answers.extend(cluster.call_some(some, whole).await);
                }
                let _ = sender.send(answers);
            };
            if runtime::spawn(task).is_ok() {
                running.push((places, answers));
            }
        }
        let mut answers: Vec<_> = (0..count).map(|_| Err(no_answer())).collect();
        for (places, some) in running {
            for (at, answer) in places.into_iter().zip(some.await.unwrap_or_default()) {
                if let Some(place) = answers.get_mut(at) {
                    *place = answer;
                }
            }
        }
        answers
    }

    /// The answers to calls that one node had when it was last heard of.
    async fn call_some(self: &Arc<Self>, calls: &[Call], whole: bool) -> Vec<RedisResult<Value>> {
        let slot = |call: &Call| call.keys.first().map_or(0, |key| slot_of(key));
        let first = calls.first().map_or(0, slot);
        let got = runtime::timeout(PATIENCE, self.reach(first, None)).await;
        let (node, got) = match got.unwrap_or_else(|_| Err(no_answer())) {
            Ok(got) => got,
            Err(error) => return vec![Err(error); calls.len()],
        };
        let mut answers = node.ask_all(got, commands(calls, whole)).await;
        let done = calls.iter().zip(&answers).enumerate().filter(|(_, (_, answer))| answer.is_ok());
        // The last call of each slot that was done, and the slots of which one was not, or nobody knows.
        let last_done: HashMap<_, _> = done.map(|(at, (call, _))| (slot(call), at)).collect();
        let mut stuck = HashSet::new();
        for (at, (call, answer)) in calls.iter().zip(&mut answers).enumerate() {
            let Err(error) = &answer else { continue };
            let slot = slot(call);
            let Some(step) = self.step(slot, error, &node) else {
                if !is_answer(error) {
                    stuck.insert(slot);
                }
                continue;
            };
            // The records take a settlement for applied if a later one was: it is for the caller to number it anew.
            let overtakes = stuck.contains(&slot);
            let is_overtaken = last_done.get(&slot).is_some_and(|last| *last > at);
            if call.program == Program::Settle && (overtakes || is_overtaken) {
                continue;
            }
            // In their order: the answers of one key must come in it.
            let (command, begun) = (call.command(whole), Some(step));
            let again = runtime::timeout(PATIENCE, self.follow(slot, &command, begun)).await;
            *answer = again.unwrap_or_else(|_| Err(no_answer()));
            if answer.is_err() {
                stuck.insert(slot);
            }
        }
        answers
    }

    /// Sends a command to whichever node has the slot, and goes where it is sent on to.
    async fn follow(
        self: &Arc<Self>,
        slot: u16,
        command: &Cmd,
        mut step: Option<Step>,
    ) -> RedisResult<Value> {
        loop {
            let asked = match step {
                Some(Step::Ask(address)) => Some(address),
                Some(Step::Wait) => {
                    runtime::sleep(PAUSE).await;
                    None
                }
                Some(Step::Go) | None => None,
            };
            let asking = asked.is_some();
            let (node, got) = self.reach(slot, asked).await?;
            let answer = node.ask(got, async |mut it| {
                if !asking {
                    return command.query_async(&mut it).await;
                }
                let mut pipeline = Pipeline::with_capacity(2);
                pipeline.cmd("ASKING").ignore().add_command(command.clone());
                let answers: Vec<Value> = pipeline.query_async(&mut it).await?;
                answers.into_iter().next().ok_or_else(no_answer)
            });
            let error = match answer.await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            step = match self.step(slot, &error, &node) {
                Some(step) => Some(step),
                None => return Err(error),
            };
        }
    }

    /// What is to be done about an error of the cluster's. `None`: it is the caller's to hear.
    fn step(
        self: &Arc<Self>,
        slot: u16,
        error: &RedisError,
        node: &Arc<Connection>,
    ) -> Option<Step> {
        use ServerErrorKind::{
            Ask, BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly, TryAgain,
        };
        let step = match error.kind() {
            ErrorKind::Server(Moved) => {
                let address = self.named_in(error, node)?;
                self.state().map.moved(slot, address);
                // It may be a failover that its old master lives through.
                self.count.fetch_add(1, Ordering::Relaxed);
                Step::Go
            }
            // One key for now. The slot itself has not moved.
            ErrorKind::Server(Ask) => return Some(Step::Ask(self.named_in(error, node)?)),
            // Of several keys, one has moved and another has not.
            ErrorKind::Server(TryAgain) => return Some(Step::Wait),
            ErrorKind::Server(ReadOnly | ClusterDown | MasterDown | BusyLoading) => Step::Wait,
            _ if is_answer(error) => return None,
            _ => {
                // Whether it was done nobody knows: it is not sent again.
                self.refresh();
                return None;
            }
        };
        self.refresh();
        Some(step)
    }

    /// The node that an error names.
    fn named_in(&self, error: &RedisError, node: &Arc<Connection>) -> Option<Address> {
        let (address, _) = error.redirect_node()?;
        let (host, port) = address.rsplit_once(':')?;
        let host = match host.trim_matches(['[', ']']) {
            // The one that said so.
            "" => self.address_of(node)?.0,
            host => host.to_owned(),
        };
        Some((host, port.parse().ok()?))
    }

    fn address_of(&self, node: &Arc<Connection>) -> Option<Address> {
        let state = self.state();
        let mut nodes = state.nodes.iter();
        nodes.find(|(_, it)| Arc::ptr_eq(it, node)).map(|(address, _)| address.clone())
    }

    /// The connection to the node that has the slot, or to the one that is named. Waits while it is not known or
    /// can't be reached, for as long as its caller does.
    async fn reach(
        self: &Arc<Self>,
        slot: u16,
        named: Option<Address>,
    ) -> RedisResult<(Arc<Connection>, Got)> {
        loop {
            let changed = self.changed.notified();
            let node = match &named {
                Some(address) => Some(self.node(address)),
                None => self.node_of(slot),
            };
            let Some(node) = node else {
                self.refresh();
                changed.await;
                runtime::yield_now().await;
                continue;
            };
            match runtime::timeout(PAUSE, node.get()).await {
                Ok(got) => return Ok((node, got?)),
                // Another may have taken its place.
                Err(runtime::Elapsed) => self.refresh(),
            }
        }
    }

    fn node_of(&self, slot: u16) -> Option<Arc<Connection>> {
        let address = self.state().map.master_of(slot).cloned()?;
        Some(self.node(&address))
    }

    fn node(&self, address: &Address) -> Arc<Connection> {
        let mut state = self.state();
        if let Some(node) = state.nodes.get(address) {
            return Arc::clone(node);
        }
        let (host, port) = address;
        let node = Connection::new(
            Target::Server(self.first.at(host, *port)),
            Checks::new(true),
            Arc::clone(&self.count),
        );
        state.nodes.insert(address.clone(), Arc::clone(&node));
        node
    }

    /// Sees that the map is being read anew.
    fn refresh(self: &Arc<Self>) {
        if std::mem::replace(&mut self.state().refreshing, true) {
            return;
        }
        let refreshing = Refreshing(Arc::clone(self));
        drop(runtime::spawn(async move {
            for _ in 0..TRIES {
                if refreshing.0.read().await {
                    break;
                }
                runtime::sleep(PAUSE).await;
            }
            refreshing.0.changed.notify_waiters();
            // However many see a move, it is read no more often.
            runtime::sleep(PAUSE).await;
        }));
    }

    /// Asks the nodes for the map until one tells it: first those that are connected.
    async fn read(&self) -> bool {
        let mut asked: Vec<_> = self.state().nodes.clone().into_iter().collect();
        asked.sort_by_key(|(_, node)| !node.is_open());
        for address in self.first.address().iter().chain(&self.others) {
            asked.push((address.clone(), self.node(address)));
        }
        for (address, node) in asked {
            let mut slots = cmd("CLUSTER");
            slots.arg("SLOTS");
            let asking = node.over(async |mut it| slots.query_async::<Value>(&mut it).await);
            let Ok(Ok(answer)) = runtime::timeout(ANSWER, asking).await else { continue };
            let Some(map) = SlotMap::read(answer, &address) else { continue };
            let mut state = self.state();
            let masters: HashSet<_> = map.masters().cloned().collect();
            state.nodes.retain(|address, _| masters.contains(address));
            state.map = map;
            return true;
        }
        false
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by the task that reads the map; when its runtime ends, the next call begins another.
struct Refreshing(Arc<Cluster>);

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.0.state().refreshing = false;
        self.0.changed.notify_waiters();
    }
}

/// What to do next with a command that a node did not take.
enum Step {
    /// To where the slot is now.
    Go,
    /// The same, in a moment.
    Wait,
    /// To that node, this once.
    Ask(Address),
}

/// A connection and its number.
type Got = (redis::aio::MultiplexedConnection, u64);

/// Between two tries, and for how long a node is waited for that another may replace.
const PAUSE: Duration = Duration::from_millis(50);
/// Within which a node must answer: another will.
const ANSWER: Duration = Duration::from_millis(500);
const TRIES: usize = 100;
/// Calls in one pipeline.
const BATCH: usize = 256;
