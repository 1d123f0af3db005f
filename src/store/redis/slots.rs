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
    link::{Link, is_no_script},
    script::Program,
};
use crate::{observe, store::Key};

/// What is held, by record and holder.
///
/// A holder is a random number under which slots stand in the shared records. When it is unknown
/// whether a call took some, later ones are taken under another holder: the old one is renewed no longer than
/// its known slots are held, and what may have leaked under it then expires.
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

    pub(super) fn holder(&self) -> u64 {
        self.holder.load(Ordering::Relaxed)
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
        for some in held.chunks(BATCH) {
            if !self.renew_some(link, some, lease, false).await {
                self.renew_some(link, some, lease, true).await;
            }
        }
    }

    /// False when the server does not know the script.
    async fn renew_some(&self, link: &Link, some: &[(Key, u64)], lease: u64, whole: bool) -> bool {
        let mut commands = redis::Pipeline::with_capacity(some.len());
        for (record, holder) in some {
            let keys = [link.name(record, "")];
            let lease = lease.to_string();
            let arguments: [&[u8]; 2] = [&holder.to_le_bytes(), lease.as_bytes()];
            commands.add_command(Program::Renew.command(whole, &keys, &arguments));
        }
        let Ok(answers) = link.send_all(&commands).await else {
            observe::count("palisade_store_renewals_failed_total", &[("store", "redis")]);
            return true; // Two more tries fit into a lease.
        };
        for (answer, held) in answers.into_iter().zip(some) {
            match answer {
                Err(error) if is_no_script(&error) => return false,
                // The lease ran out before: what is settled now must not be taken off newer slots.
                Ok(Value::Int(0)) if self.held().contains_key(held) => self.change_holder(),
                _ => {}
            }
        }
        true
    }

    fn held(&self) -> MutexGuard<'_, HashMap<(Key, u64), u64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records renewed in one pipeline.
const BATCH: usize = 256;
