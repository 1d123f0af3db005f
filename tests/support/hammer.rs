//! Admissions without end, while something happens to the servers.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use palisade::store::{Admission, Charge, Decision, LimiterStore, ReservationId, Seen, Settlement};
use tokio::task::JoinSet;

use super::within;

/// Granted; `Err`: refused; `None`: the store could not be asked.
pub async fn acquire(store: &dyn LimiterStore, charges: &[Charge]) -> Option<Result<Seen, ()>> {
    match store.acquire(&Admission::new(ReservationId::next(), charges)).await {
        Ok(Decision::Admitted(grant)) => Some(Ok(grant)),
        Ok(Decision::Refused(_)) => Some(Err(())),
        Err(_) => None,
    }
}

pub fn settle(store: &dyn LimiterStore, charges: &[Charge], grant: &Seen, used: &[u64]) {
    let receipts = grant.receipts.as_slice();
    store.settle(&Settlement::new(ReservationId::next(), charges, receipts, used));
}

/// What remains of each; nothing while the store can't be asked.
pub async fn remaining(store: &dyn LimiterStore, charges: &[Charge]) -> Vec<u64> {
    let answer = store.peek(&Admission::new(ReservationId::next(), charges)).await;
    let standings = answer.unwrap_or_default();
    standings.as_slice().iter().map(|standing| standing.remaining).collect()
}

/// What remains once it is told.
pub async fn told(store: &dyn LimiterStore, charges: &[Charge]) -> Vec<u64> {
    let mut left = Vec::new();
    let is_told = async || {
        left = remaining(store, charges).await;
        !left.is_empty()
    };
    assert!(within(Duration::from_secs(60), is_told).await, "the store can't be asked");
    left
}

/// Asks, settles to all that was charged, and counts.
#[derive(Default)]
pub struct Hammer {
    counts: [AtomicU64; 3],
    ended: AtomicBool,
    tasks: Mutex<JoinSet<()>>,
}

impl Hammer {
    /// Starts that many tasks.
    pub fn start(self: &Arc<Self>, store: Arc<dyn LimiterStore>, tasks: usize, charges: &[Charge]) {
        for _ in 0..tasks {
            let (hammer, store, charges) = (Arc::clone(self), Arc::clone(&store), charges.to_vec());
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.spawn(async move {
                let all: Vec<_> = charges.iter().map(|charge| charge.cost).collect();
                while !hammer.ended.load(Ordering::SeqCst) {
                    let (which, pause) = match acquire(&*store, &charges).await {
                        Some(Ok(grant)) => {
                            settle(&*store, &charges, &grant, &all);
                            (0, 2)
                        }
                        Some(Err(())) => (1, 10),
                        None => (2, 10),
                    };
                    hammer.counts[which].fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
            });
        }
    }

    pub fn admitted(&self) -> u64 {
        self.counts[0].load(Ordering::SeqCst)
    }

    pub fn refused(&self) -> u64 {
        self.counts[1].load(Ordering::SeqCst)
    }

    /// How often the store could not be asked.
    pub fn failed(&self) -> u64 {
        self.counts[2].load(Ordering::SeqCst)
    }

    /// Waits, for a minute at most.
    pub async fn until(&self, holds: impl Fn(&Self) -> bool + Send + Sync) {
        let held = within(Duration::from_secs(60), async || holds(self)).await;
        let counts = [self.admitted(), self.refused(), self.failed()];
        assert!(held, "admitted, refused, failed: {counts:?}");
    }

    /// Ends it, and returns how many were admitted.
    pub async fn stop(&self) -> u64 {
        self.ended.store(true, Ordering::SeqCst);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.join_all().await;
        self.admitted()
    }
}
