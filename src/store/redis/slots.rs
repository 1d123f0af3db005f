//! Slots that this process holds: leased, and renewed while they are held.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use redis::Value;

use super::{
    errors::{is_answer, is_no_script},
    link::{Call, Link},
    script::Program,
};
use crate::{observe, store::Key};

/// What is held, by record and holder.
///
/// A holder is a random number under which slots stand in the shared records. When it is unknown
/// whether a call took some, or whether the server still knows what was given back, as after each new connection, later
/// ones are taken under another holder: the old one is renewed no longer than its known slots are held, and what may have
/// leaked under it then expires.
#[derive(Debug)]
pub(super) struct Slots {
    holder: AtomicU64,
    held: Mutex<HashMap<(Key, u64), u64>>,
    /// Whether the renewing task runs.
    pub(super) renewing: AtomicBool,
}

impl Slots {
    pub(super) fn new(holder: u64) -> Self {
        Self {
            holder: AtomicU64::new(holder),
            held: Mutex::default(),
            renewing: AtomicBool::new(false),
        }
    }

    /// Another for each new connection: both numbers only grow, and so their sum has no value twice.
    pub(super) fn holder(&self, link: &Link) -> u64 {
        self.holder.load(Ordering::Relaxed).wrapping_add(link.connected())
    }

    /// Takes later slots under another holder.
    pub(super) fn change_holder(&self) {
        self.holder.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn hold(&self, record: Key, holder: u64, units: u64) {
        *self.held().entry((record, holder)).or_default() += units;
    }

    pub(super) fn let_go(&self, record: Key, holder: u64, units: u64) {
        let mut held = self.held();
        if let Some(count) = held.get_mut(&(record, holder)) {
            *count = count.saturating_sub(units);
            if *count == 0 {
                held.remove(&(record, holder));
            }
        }
    }

    /// Renews all that is held.
    pub(super) async fn renew(&self, link: &Link, lease: u64) {
        let held: Vec<_> = self.held().keys().copied().collect();
        // Servers that are several are asked at once, so that none waits for another.
        let batch = if link.is_spread() { held.len().max(1) } else { BATCH };
        for some in held.chunks(batch) {
            if !self.renew_some(link, some, lease, false).await {
                self.renew_some(link, some, lease, true).await;
            }
        }
    }

    /// False when the server does not know the script.
    async fn renew_some(&self, link: &Link, some: &[(Key, u64)], lease: u64, whole: bool) -> bool {
        let call = |(record, holder): &(Key, u64)| Call {
            program: Program::Renew,
            keys: vec![link.name(record, "")],
            arguments: vec![holder.to_le_bytes().to_vec(), lease.to_string().into_bytes()],
        };
        let answers = link.call_all(some.iter().map(call).collect(), whole).await;
        let (mut unknown, mut failed) = (false, false);
        for (answer, held) in answers.into_iter().zip(some) {
            match answer {
                Err(error) if is_no_script(&error) => unknown = true,
                // Two more tries fit into a lease.
                Err(error) => failed |= !is_answer(&error),
                // The lease ran out before: what is settled now must not be taken off newer slots.
                Ok(Value::Int(0)) if self.held().contains_key(held) => self.change_holder(),
                Ok(_) => {}
            }
        }
        if failed {
            observe::count("palisade_store_renewals_failed_total", &[("store", "redis")]);
        }
        !unknown
    }

    fn held(&self) -> MutexGuard<'_, HashMap<(Key, u64), u64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records renewed in one pipeline.
const BATCH: usize = 256;
