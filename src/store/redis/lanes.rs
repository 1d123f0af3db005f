//! Room for the settlements of all admissions, and the lanes that they go in.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{
    link::Link,
    queue::Queue,
    script::{Change, Records},
};
use crate::{runtime, store::StoreError};

/// Settlements on their way, in lanes, so that what one server does not take does not delay what others would.
#[derive(Debug)]
pub(super) struct Queues {
    places: Arc<Places>,
    lanes: Vec<Arc<Queue>>,
}

/// Places: of admissions that are to be settled, and of settlements in a queue.
#[derive(Debug)]
pub(super) struct Places {
    taken: AtomicUsize,
    capacity: usize,
}

/// A place in the queue, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place(Option<Arc<Places>>);

impl Place {
    /// Keeps the place for the settlement to come.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = self.0.take() {
            places.free(1);
        }
    }
}

impl Places {
    pub(super) fn free(&self, count: usize) {
        let fewer = |taken: usize| Some(taken.saturating_sub(count));
        let _ = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
    }
}

impl Queues {
    pub(super) fn new(writer: u64, capacity: usize, lanes: usize) -> Self {
        let places = Arc::new(Places { taken: AtomicUsize::new(0), capacity });
        let lanes = (0..lanes).map(|_| Arc::new(Queue::new(writer, Arc::clone(&places)))).collect();
        Self { places, lanes }
    }

    /// A place for the settlement of an admission.
    pub(super) fn reserve(&self) -> Option<Place> {
        let more = |taken| (taken < self.places.capacity).then_some(taken + 1);
        let taken = self.places.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| Place(Some(Arc::clone(&self.places))))
    }

    pub(super) fn free_place(&self) {
        self.places.free(1);
    }

    /// Adds a settlement, whose place was kept, to that lane.
    pub(super) fn push(
        &self,
        lane: usize,
        link: &Arc<Link>,
        records: Records,
        changes: Vec<Change>,
    ) {
        if let Some(queue) = self.lanes.get(lane) {
            queue.push(records, changes);
            queue.start(link);
        }
    }

    /// Sees that the task of that lane runs, if there is a runtime.
    pub(super) fn start(&self, lane: usize, link: &Arc<Link>) {
        if let Some(queue) = self.lanes.get(lane) {
            queue.start(link);
        }
    }

    /// Waits until all that was in that lane so far is applied.
    pub(super) async fn applied(&self, lane: usize, link: &Arc<Link>) {
        if let Some(queue) = self.lanes.get(lane) {
            queue.applied(link).await;
        }
    }

    /// No more will come: the tasks end when all are applied.
    pub(super) fn close(&self) {
        self.lanes.iter().for_each(|queue| queue.close());
    }

    /// Waits until all that was queued so far is applied.
    pub(super) async fn flush(&self, link: &Arc<Link>) -> Result<(), StoreError> {
        let applied = async {
            for queue in &self.lanes {
                queue.applied(link).await;
            }
        };
        if runtime::timeout(FLUSH, applied).await.is_err() {
            return Err(StoreError::transient(
                "settlements are still waiting for the redis server",
            ));
        }
        match self.lanes.iter().map(|queue| queue.take_lost()).sum::<u64>() {
            0 => Ok(()),
            _ => Err(StoreError::permanent("the redis server refused a settlement")),
        }
    }
}

const FLUSH: Duration = Duration::from_secs(10);
