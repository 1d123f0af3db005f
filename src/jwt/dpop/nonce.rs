//! Nonces that the server gives out: RFC 9449, section 9. Nothing is kept for them.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::{secret, store::Pepper};

/// Makes nonces out of the time: a keyed hash of the number of the step that it is in, so that all
/// processes that share the pepper give out and accept the same.
#[derive(Clone, Debug)]
pub(super) struct Nonces {
    pub(super) pepper: Pepper,
    /// How long a nonce is given out.
    pub(super) step: Duration,
    /// How far the clocks of the processes may be apart.
    pub(super) leeway: Duration,
}

impl Nonces {
    /// The nonce to be given out at `now`.
    pub(super) fn current(&self, now: Duration) -> String {
        self.of_step(self.step_at(now))
    }

    /// Whether `nonce` is of this step or the one before, here or in a process whose clock is ahead.
    pub(super) fn accepts(&self, nonce: &str, now: Duration) -> bool {
        let newest = self.step_at(now.saturating_add(self.leeway));
        let oldest = self.step_at(now).saturating_sub(1);
        let is = |step| secret::constant_time_eq(self.of_step(step).as_bytes(), nonce.as_bytes());
        // Leeway is less than MAX_LEEWAY, so these are few.
        (oldest..=newest).any(is)
    }

    fn step_at(&self, time: Duration) -> u64 {
        time.as_secs() / self.step.as_secs().max(1)
    }

    fn of_step(&self, step: u64) -> String {
        let hash = self.pepper.key("dpop_nonce").with(&step.to_le_bytes()).finish();
        BASE64_URL_SAFE_NO_PAD.encode(hash.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonces(pepper: &str) -> Nonces {
        let [step, leeway] = [60, 5].map(Duration::from_secs);
        Nonces { pepper: Pepper::from_secret(pepper), step, leeway }
    }

    #[test]
    fn a_nonce_serves_its_step_and_the_next() {
        let nonces = nonces("pepper");
        let at = |second: u64| Duration::from_secs(6000 + second);
        let nonce = nonces.current(at(0));
        assert_eq!(nonce, nonces.current(at(59)));
        assert_ne!(nonce, nonces.current(at(60)));
        for (second, accepted) in [(0, true), (59, true), (60, true), (119, true), (120, false)] {
            assert_eq!(nonces.accepts(&nonce, at(second)), accepted, "{second}");
        }
        // Given out by a process whose clock is ahead.
        assert!(nonces.accepts(&nonce, Duration::from_secs(5996)));
        assert!(!nonces.accepts(&nonce, Duration::from_secs(5994)));
    }

    #[test]
    fn processes_that_share_a_pepper_share_nonces_and_others_do_not() {
        let now = Duration::from_secs(6000);
        let nonce = nonces("pepper").current(now);
        assert!(nonces("pepper").accepts(&nonce, now));
        assert!(!nonces("other").accepts(&nonce, now));
        for bad in ["", "x", &nonce[1..], &format!("{nonce}=")] {
            assert!(!nonces("pepper").accepts(bad, now), "{bad}");
        }
    }
}
