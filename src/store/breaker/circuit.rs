//! The circuit: whether a store, or a detector of the prompt guard, is asked at all. No lock, no time of its own.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// Closed while it answers; opened by failures in a row; let through once in a while by a single probe.
#[derive(Debug)]
pub(crate) struct Circuit {
    threshold: u32,
    pause: u64,
    failed: AtomicU32,
    /// When the next probe may go, in milliseconds of the monotonic clock. [`CLOSED`]: it is closed.
    probe_at: AtomicU64,
}

/// What may be done with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    /// It is asked.
    Through,
    /// It is asked, and by its answer it is told whether it is well.
    Probe,
    /// It is left alone.
    Nothing,
}

const CLOSED: u64 = u64::MAX;

impl Circuit {
    pub(crate) fn new(threshold: u32, pause: Duration) -> Self {
        Self {
            threshold,
            pause: millis(pause).max(1),
            failed: AtomicU32::new(0),
            probe_at: AtomicU64::new(CLOSED),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.probe_at.load(Ordering::Acquire) != CLOSED
    }

    /// Of all who ask while it is open, one in each pause is the probe. One that never comes back is followed by
    /// another.
    pub(crate) fn permit(&self, now: Duration) -> Permit {
        let (now, probe_at) = (millis(now), self.probe_at.load(Ordering::Acquire));
        if probe_at == CLOSED {
            return Permit::Through;
        }
        let next = now + self.pause;
        let is_due = probe_at <= now
            && self
                .probe_at
                .compare_exchange(probe_at, next, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        if is_due { Permit::Probe } else { Permit::Nothing }
    }

    /// The store answered. True when the circuit is open, and to be closed once what was missed is made up for.
    pub(crate) fn succeeded(&self) -> bool {
        if self.failed.load(Ordering::Relaxed) > 0 {
            self.failed.store(0, Ordering::Relaxed);
        }
        self.is_open()
    }

    pub(crate) fn close(&self) {
        self.probe_at.store(CLOSED, Ordering::Release);
    }

    /// The store did not answer. True when this opens the circuit.
    pub(crate) fn failed(&self, now: Duration) -> bool {
        let failed = self.failed.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let opens = failed >= self.threshold
            && self.probe_at.swap(millis(now) + self.pause, Ordering::AcqRel) == CLOSED;
        if failed > self.threshold {
            self.failed.store(self.threshold, Ordering::Relaxed);
        }
        opens
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(CLOSED / 2).min(CLOSED / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(1);

    #[test]
    fn failures_in_a_row_open_it_and_one_probe_a_pause_goes_through() {
        let circuit = Circuit::new(3, PAUSE);
        let now = Duration::from_secs(100);
        assert!(!circuit.failed(now) && !circuit.failed(now));
        assert!(!circuit.succeeded());
        assert!(!circuit.failed(now) && !circuit.failed(now));
        assert_eq!(circuit.permit(now), Permit::Through);
        assert!(circuit.failed(now));
        assert_eq!(circuit.permit(now), Permit::Nothing);
        let now = now + PAUSE;
        assert_eq!(circuit.permit(now), Permit::Probe);
        assert_eq!(circuit.permit(now), Permit::Nothing);
        // It fails: nobody is told a second time that the circuit is open.
        assert!(!circuit.failed(now));
        assert_eq!(circuit.permit(now), Permit::Nothing);
        let now = now + PAUSE;
        assert_eq!(circuit.permit(now), Permit::Probe);
        // It never comes back.
        let now = now + PAUSE;
        assert_eq!(circuit.permit(now), Permit::Probe);
        assert!(circuit.succeeded());
        assert_eq!(circuit.permit(now), Permit::Nothing);
        circuit.close();
        assert_eq!(circuit.permit(now), Permit::Through);
        assert!(!circuit.failed(now) && !circuit.failed(now) && circuit.failed(now));
    }
}
