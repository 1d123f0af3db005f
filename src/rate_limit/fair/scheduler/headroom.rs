//! How many slots are kept free of what is borrowed.
//!
//! Free slots go down by one with a request of a tier below its share and up by one with each that ends, so that
//! one in rho^h of such requests finds none of h slots free, where rho is how many of them come for each that ends.

use crate::rate_limit::fair::plan::Headroom;

#[derive(Debug)]
pub(super) struct Room {
    fixed: Option<u64>,
    /// None need be: the engine gives back at once what it is asked for.
    yields: bool,
    slots: u64,
    most: u64,
    arrivals: u32,
    releases: u32,
    rho: f64,
}

impl Room {
    pub(super) fn new(headroom: Headroom, yields: bool, slots: u64) -> Self {
        let fixed = headroom.0.map(|slots| slots as u64);
        let mut room =
            Self { fixed, yields, slots: 0, most: 0, arrivals: 0, releases: 0, rho: FIRST_RHO };
        room.resize(slots);
        room
    }

    /// For another capacity.
    pub(super) fn resize(&mut self, slots: u64) {
        self.most = if self.yields { 0 } else { slots / 4 };
        self.slots = self.rule();
    }

    pub(super) fn slots(&self) -> u64 {
        self.fixed.unwrap_or(self.slots)
    }

    /// A request came whose tier was below its share, while others waited.
    pub(super) fn owner_came(&mut self) {
        self.arrivals += 1;
        self.measure();
    }

    /// A slot came free, while others waited.
    pub(super) fn slot_freed(&mut self) {
        self.releases += 1;
        self.measure();
    }

    fn measure(&mut self) {
        if self.arrivals.max(self.releases) < WINDOW {
            return;
        }
        let rho = f64::from(self.arrivals) / f64::from(self.releases.max(1));
        self.rho = f64::midpoint(self.rho, rho.min(1.0));
        (self.arrivals, self.releases) = (0, 0);
        // Up at once, since owners wait for it; down by one at a time.
        let rule = self.rule();
        self.slots = rule.max(self.slots.saturating_sub(1));
    }

    /// ceil(ln epsilon / ln rho), and at least one, at most a quarter of all.
    fn rule(&self) -> u64 {
        let slots = (ONCE_IN.ln() / self.rho.max(f64::MIN_POSITIVE).ln()).abs().ceil();
        // A rho of one asks for infinitely many, and saturates.
        (slots as u64).clamp(1.min(self.most), self.most)
    }
}

/// One owner in so many may wait.
const ONCE_IN: f64 = 100.0;
/// Until it is measured.
const FIRST_RHO: f64 = 1.0 / 3.0;
/// Slots that come free between one look and the next.
const WINDOW: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn run(room: &mut Room, owners: u32, releases: u32) {
        for n in 0..64 * releases {
            if n % releases < owners {
                room.owner_came();
            }
            room.slot_freed();
        }
    }

    #[test]
    fn headroom_follows_how_fast_owners_come() {
        let mut room = Room::new(Headroom::automatic(), false, 64);
        assert_eq!(room.slots(), 5);
        // A third, a fourteenth: as simulated, 4.2 and 1.7, rounded up.
        run(&mut room, 5, 15);
        assert_eq!(room.slots(), 5);
        run(&mut room, 1, 14);
        assert_eq!(room.slots(), 2);
        run(&mut room, 0, 14);
        assert_eq!(room.slots(), 1);
        // No more than a quarter, however many come.
        run(&mut room, 14, 14);
        assert_eq!(room.slots(), 16);
    }

    #[test]
    fn headroom_rises_at_once_and_falls_by_one() {
        let mut room = Room::new(Headroom::automatic(), false, 256);
        (0..WINDOW).for_each(|_| room.owner_came());
        let high = room.slots();
        assert!(high > 5);
        (0..WINDOW).for_each(|_| room.slot_freed());
        assert_eq!(room.slots(), high - 1);
    }

    #[test]
    fn headroom_is_fixed_where_it_is_given_and_none_where_the_engine_yields() {
        let mut fixed = Room::new(Headroom::slots(7), true, 64);
        run(&mut fixed, 1, 1);
        assert_eq!(fixed.slots(), 7);
        assert_eq!(Room::new(Headroom::automatic(), true, 64).slots(), 0);
        assert_eq!(Room::new(Headroom::automatic(), false, 3).slots(), 0);
    }
}
