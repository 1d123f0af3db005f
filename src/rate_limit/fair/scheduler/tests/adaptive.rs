//! What is lent goes by how fast the engine is; what is a tier's own does not.

use proptest::prelude::*;

use super::*;
use crate::rate_limit::fair::plan::Adaptive;

const TARGET: Duration = Duration::from_millis(20);

fn adapting(slots: usize, tiers: &[(&str, Share)]) -> Bench {
    let adaptive = Some(Adaptive::per_token(TARGET));
    Bench::new(Plan { adaptive, ..plan(Capacity::slots(slots), 0, tiers) })
}

impl Bench {
    /// A second in which each token took so long.
    fn second(&mut self, per_token: Duration) {
        let measured = Measured { time: per_token * 8, tokens: 8, gaps: 8 };
        self.call(|scheduler, now, wakes| scheduler.measured(Measured::default(), now, wakes));
        self.now += SECOND;
        self.call(|scheduler, now, wakes| scheduler.measured(measured, now, wakes));
    }

    fn limit(&self) -> u64 {
        self.scheduler.borrow_limit().unwrap()
    }

    /// Until nothing is lent.
    fn slow_down(&mut self) {
        while self.limit() > 0 {
            self.second(TARGET * 10);
        }
    }
}

#[test]
fn a_waiter_that_the_limit_alone_holds_back_raises_it() {
    let mut bench = adapting(8, &[("free", Share::percent(25))]);
    bench.slow_down();
    bench.enter_many(0, 1, 2);
    // Nobody waits, so nobody knows whether more is wanted.
    bench.second(TARGET / 2);
    assert_eq!(bench.limit(), 0);
    let waits = bench.enter(0, 2);
    assert!(!bench.runs(waits));
    for raised in 1..=3 {
        // Nothing comes or goes meanwhile: that somebody waits is seen when the window ends.
        bench.second(TARGET / 2);
        assert_eq!(bench.limit(), raised);
    }
    assert!(bench.runs(waits));
    bench.second(TARGET / 2);
    bench.second(TARGET / 2);
    assert_eq!(bench.limit(), 3);
}

#[test]
fn a_waiter_that_something_else_holds_back_does_not() {
    let mut bench = adapting(8, &[("free", Share::percent(25).borrow_up_to_percent(25))]);
    bench.slow_down();
    bench.enter_many(0, 1, 3);
    bench.second(TARGET / 2);
    bench.second(TARGET / 2);
    assert_eq!(bench.limit(), 0);
}

#[test]
fn nothing_is_cut_further_while_the_last_cut_drains() {
    let mut bench = adapting(8, &[("free", Share::percent(25))]);
    let all = bench.enter_many(0, 1, 8);
    bench.second(TARGET * 10);
    assert_eq!(bench.limit(), 5);
    bench.second(TARGET * 10);
    assert_eq!(bench.limit(), 5);
    all.into_iter().take(3).for_each(|ticket| bench.release(ticket, 1));
    bench.second(TARGET * 10);
    assert_eq!(bench.limit(), 3);
}

#[test]
fn owners_alone_beyond_the_limit_are_oversold() {
    let mut bench = adapting(8, &[("free", Share::percent(100))]);
    bench.enter_many(0, 1, 8);
    bench.slow_down();
    bench.second(TARGET * 10);
    let adaptive = bench.scheduler.snapshot(bench.now).adaptive.unwrap();
    assert_eq!((adaptive.limit, adaptive.oversold), (0, 1));
    assert_eq!((adaptive.target, adaptive.per_token), (Some(TARGET), Some(TARGET * 10)));
}

#[test]
fn another_capacity_keeps_the_part_that_is_lent() {
    let mut bench = adapting(8, &[("free", Share::percent(25))]);
    bench.second(TARGET * 10);
    assert_eq!(bench.limit(), 5);
    let changed = |scheduler: &mut Scheduler, now, wakes: &mut Wakes| {
        scheduler.set_capacity(Capacity::slots(16), now, wakes)
    };
    bench.call(changed).unwrap();
    assert_eq!(bench.limit(), 10);
}

proptest! {
    /// With nothing to borrow, a tier has its share at once, and no more.
    #[test]
    fn an_owner_is_let_in_where_nothing_is_lent(
        slots in 4..64_usize,
        steps in prop::collection::vec((0..2_usize, 0..4_u8, 0..64_usize), 1..200),
    ) {
        let shares = [Share::percent(50), Share::percent(30)];
        let mut bench = adapting(slots, &[("paid", shares[0]), ("free", shares[1])]);
        bench.slow_down();
        let mut running = [Vec::new(), Vec::new()];
        let mut waiting: [Vec<Ticket>; 2] = [Vec::new(), Vec::new()];
        for (tier, step, which) in steps {
            let name = ["paid", "free"][tier];
            let share = bench.tier(name).guaranteed as usize;
            if step == 0 && !running[tier].is_empty() {
                let at = which % running[tier].len();
                let ticket = running[tier].swap_remove(at);
                bench.release(ticket, 1);
            } else {
                match bench.arrive(bench.ask(tier, which as u64)) {
                    Arrival::Admitted(ticket) => running[tier].push(ticket),
                    Arrival::Waiting(ticket) => waiting[tier].push(ticket),
                    Arrival::Refused(shed) => panic!("{shed:?}"),
                }
            }
            let (granted, waits): (Vec<_>, Vec<_>) =
                std::mem::take(&mut waiting[tier]).into_iter().partition(|ticket| bench.runs(*ticket));
            running[tier].extend(granted);
            waiting[tier] = waits;
            let due = share.min(running[tier].len() + waiting[tier].len());
            prop_assert_eq!(running[tier].len(), due);
        }
    }
}
