use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::store::{Limit, LimitId, ReservationId};

const HOUR: Duration = Duration::from_secs(3600);
const START: u64 = 1000 * rules::SECOND;

fn key(n: u8) -> Key {
    Key::from_bytes([n; 16])
}

fn rate(quota: u64) -> Limit {
    Limit::rate(LimitId::of("rate"), quota, HOUR)
}

fn slots(max: u64) -> Limit {
    Limit::slots(LimitId::of("slots"), max)
}

fn without_lanes() -> Limits {
    Limits { lanes: Lanes::none(), ..Limits::new(2, 10, 0) }
}

/// The receipts, if it is admitted.
fn acquire(limits: &Limits, charges: &[Charge], now: u64) -> Option<Seen> {
    acquire_at(limits, charges, now, now)
}

/// The same, where the coarse time is another.
fn acquire_at(limits: &Limits, charges: &[Charge], now: u64, coarse: u64) -> Option<Seen> {
    let lane = match limits.granted_ahead(charges, || coarse) {
        Ok(seen) => return Some(seen),
        Err(lane) => lane,
    };
    let admission = Admission::new(ReservationId::next(), charges);
    let mut seen = Seen::default();
    limits.acquire(&admission, now, &mut seen, lane).unwrap().is_none().then_some(seen)
}

fn settle(limits: &Limits, charges: &[Charge], seen: &Seen, used: &[u64], now: u64) {
    let receipts = seen.receipts.as_slice();
    limits.settle(&Settlement::new(ReservationId::next(), charges, receipts, used), || now);
}

fn remaining(limits: &Limits, charges: &[Charge], now: u64) -> Vec<u64> {
    let standings = limits.peek(&Admission::new(ReservationId::next(), charges), now).unwrap();
    standings.as_slice().iter().map(|standing| standing.remaining).collect()
}

fn is_ahead(limits: &Limits) -> bool {
    (0..limits.shards.len() as u32).any(|n| limits.shards.lock(n).unwrap().ahead > 0)
}

#[test]
fn a_clock_that_goes_back_refills_nothing() {
    let limits = Limits::new(1, 10, 0);
    let limit = Limit::rate(LimitId::of("rate"), 10, Duration::from_secs(10));
    let charges = [Charge::new(key(0), limit, 10)];
    assert!(acquire(&limits, &charges, START).is_some());
    for _ in 0..100 {
        assert!(acquire(&limits, &charges, START - 900 * rules::SECOND).is_none());
        assert!(acquire(&limits, &charges, START + rules::SECOND).is_none());
    }
    assert!(acquire(&limits, &charges, START + 10 * rules::SECOND).is_some());
}

#[test]
fn a_busy_key_is_taken_ahead_and_admits_its_quota_to_the_last() {
    let limits = Limits::new(2, 10, 0);
    let charges = [Charge::new(key(0), rate(1000), 1), Charge::new(key(0), slots(900), 1)];
    let mut ahead = 0;
    for n in 0..900 {
        let seen = acquire(&limits, &charges, START).expect("within the quota");
        let [rate, slots] = seen.receipts.as_slice() else { panic!("two") };
        let held = slots.state(&charges[1].limit.kind).level;
        assert_eq!(held, n + 1, "each is told where it stands itself");
        assert!(rate.state(&charges[0].limit.kind).level > START);
        ahead += u64::from(is_ahead(&limits));
    }
    assert!(ahead > 500, "{ahead}");
    assert!(acquire(&limits, &charges, START).is_none());
    assert_eq!(remaining(&limits, &charges, START), [100, 0]);
}

/// By how much the coarse time may be behind.
const BEHIND: u64 = rules::SECOND / 500;

/// A limit of which more drains in so long a time than what makes a key a busy one.
fn quick() -> Limit {
    Limit::rate(LimitId::of("rate"), 100_000, Duration::from_secs(1)).with_burst(1500)
}

#[test]
fn a_burst_is_admitted_whole_though_it_was_charged_as_if_later() {
    let limits = Limits::new(2, 10, BEHIND);
    let one = [Charge::new(key(0), quick(), 1)];
    let mut ahead = 0;
    for n in 0..1500 {
        assert!(acquire_at(&limits, &one, START, START - BEHIND).is_some(), "{n}");
        ahead += u64::from(is_ahead(&limits));
    }
    assert!(ahead > 500, "{ahead}");
    assert!(acquire_at(&limits, &one, START, START - BEHIND).is_none());
}

#[test]
fn what_is_granted_late_counts_as_of_then() {
    let limits = Limits::new(2, 10, BEHIND);
    let one = [Charge::new(key(0), quick(), 1)];
    (0..40).for_each(|_| assert!(acquire_at(&limits, &one, START, START - BEHIND).is_some()));
    assert!(is_ahead(&limits));
    let later = START + BEHIND;
    let admitted = (0..2000).filter(|_| acquire_at(&limits, &one, later, START).is_some()).count();
    assert!((1400..=1500).contains(&admitted), "{admitted}");
}

/// Else what is granted late would be charged as of a time before.
#[test]
fn what_a_lease_was_charged_upon_is_not_given_back_before_it_ends() {
    let limits = Limits::new(2, 10, BEHIND);
    let (one, many) = ([Charge::new(key(0), quick(), 1)], [Charge::new(key(0), quick(), 400)]);
    let first = acquire(&limits, &many, START).unwrap();
    (0..40).for_each(|_| assert!(acquire_at(&limits, &one, START, START - BEHIND).is_some()));
    assert!(is_ahead(&limits));
    settle(&limits, &many, &first, &[0], START);
    let later = START + BEHIND;
    let admitted = (0..2000).filter(|_| acquire_at(&limits, &one, later, START).is_some()).count();
    assert!((1300..=1500).contains(&admitted), "{admitted}");
}

#[test]
fn what_lies_ready_for_one_thread_is_kept_from_nobody() {
    let limits = Limits::new(2, 10, 0);
    let one = [Charge::new(key(0), rate(1000), 1), Charge::new(key(0), slots(1000), 1)];
    let admit = || (0..100).for_each(|_| assert!(acquire(&limits, &one, START).is_some()));
    thread::scope(|scope| scope.spawn(admit).join().unwrap());
    assert!(is_ahead(&limits));
    let all = [Charge::new(key(0), rate(1000), 900), Charge::new(key(0), slots(1000), 900)];
    let more = [Charge::new(key(0), rate(1000), 901)];
    assert!(acquire(&limits, &more, START).is_none());
    assert!(!is_ahead(&limits), "the refusal has recalled it");
    assert!(acquire(&limits, &all, START).is_some());
    assert!(acquire(&limits, &one, START).is_none());
}

#[test]
fn nothing_lies_ready_where_a_record_is_looked_at_or_reset() {
    let limits = Limits::new(2, 10, 0);
    let one = [Charge::new(key(0), rate(1000), 1)];
    let admit = |times| (0..times).for_each(|_| assert!(acquire(&limits, &one, START).is_some()));
    admit(100);
    assert!(is_ahead(&limits));
    assert_eq!(remaining(&limits, &one, START), [900]);
    admit(100);
    assert!(is_ahead(&limits));
    limits.reset(&key(0), START);
    admit(1000);
    assert!(acquire(&limits, &one, START).is_none());
}

#[test]
fn a_lease_ends_and_gives_its_rest_back() {
    let limits = Limits::new(2, 10, 0);
    let one = [Charge::new(key(0), slots(1000), 1)];
    for _ in 0..100 {
        assert!(acquire(&limits, &one, START).is_some());
    }
    // Much of it was granted, and of late: there is another one.
    let later = START + lanes::LONGEST + 1;
    assert!(acquire(&limits, &one, later).is_some());
    assert!(is_ahead(&limits));
    assert_eq!(remaining(&limits, &one, later), [899]);
    (0..100).for_each(|_| assert!(acquire(&limits, &one, later).is_some()));
    assert!(is_ahead(&limits));
    let much_later = later + 2 * lanes::LONGEST + 1;
    assert!(acquire(&limits, &one, much_later).is_some());
    assert!(!is_ahead(&limits));
    assert_eq!(remaining(&limits, &one, much_later), [798]);
}

#[test]
fn a_lease_that_was_in_vain_is_not_followed_by_another() {
    let limits = Limits::new(2, 10, 0);
    let ahead = (0..1000).filter(|n| {
        let one = [Charge::new(key(0), slots(1_000_000), 1 + n % 2)];
        assert!(acquire(&limits, &one, START).is_some());
        is_ahead(&limits)
    });
    assert_eq!(ahead.count(), 1);
    let later = START + 2 * lanes::LONGEST + 1;
    let one = [Charge::new(key(0), slots(1_000_000), 1)];
    for _ in 0..100 {
        assert!(acquire(&limits, &one, later).is_some());
    }
    assert!(is_ahead(&limits));
}

#[test]
fn a_lease_of_which_little_was_granted_is_the_last() {
    let limits = Limits::new(2, 10, 0);
    let one = [Charge::new(key(0), slots(1000), 1)];
    let mut granted = 0;
    while !is_ahead(&limits) {
        assert!(acquire(&limits, &one, START).is_some());
        granted += 1;
    }
    (1..lanes::BUSY).for_each(|_| assert!(acquire(&limits, &one, START).is_some()));
    let later = START + lanes::LONGEST + 1;
    assert!(acquire(&limits, &one, later).is_some());
    assert!(!is_ahead(&limits));
    assert_eq!(remaining(&limits, &one, later), [1000 - granted - u64::from(lanes::BUSY)]);
}

/// Each of two threads has a lease of the key when both are over.
#[test]
fn leases_of_other_threads_are_recalled_when_they_are_over() {
    let limits = Limits::new(2, 10, 0);
    let one = [Charge::new(key(0), slots(1000), 1)];
    let admit = || (0..100).for_each(|_| assert!(acquire(&limits, &one, START).is_some()));
    thread::scope(|scope| scope.spawn(admit).join().unwrap());
    admit();
    let later = START + lanes::LONGEST + 1;
    let seen = acquire(&limits, &one, later).unwrap();
    assert_eq!(rules::standings(&one, &seen).as_slice()[0].remaining, 799);
}

#[test]
fn limits_that_count_by_borders_and_charges_of_nothing_are_never_taken_ahead() {
    let limits = Limits::new(2, 10, 0);
    let (id, many) = (LimitId::of("limit"), 1_000_000);
    for charge in [
        Charge::new(key(0), Limit::sliding(id, many, HOUR), 1),
        Charge::new(key(1), Limit::calendar(id, many, 1, HOUR), 1),
        Charge::new(key(2), rate(many), 0),
    ] {
        for _ in 0..1000 {
            assert!(acquire(&limits, &[charge], START).is_some());
            assert!(!is_ahead(&limits));
        }
    }
}

#[test]
fn threads_together_admit_the_quota_and_no_more() {
    let (limits, admitted) = (Limits::new(2, 10, 0), AtomicU64::new(0));
    // Some ask for more than others, some only for one of the records.
    let (own, shared) =
        (Charge::new(key(0), rate(60_000), 1), Charge::new(key(1), slots(50_000), 1));
    let wanted =
        [vec![own, shared], vec![shared], vec![own, shared], vec![Charge { cost: 7, ..shared }]];
    thread::scope(|scope| {
        for charges in &wanted {
            scope.spawn(|| {
                while acquire(&limits, charges, START).is_some() {
                    let cost = charges.last().unwrap().cost;
                    admitted.fetch_add(cost, Ordering::Relaxed);
                }
            });
        }
    });
    let admitted = admitted.into_inner();
    assert_eq!(remaining(&limits, &[shared], START), [50_000 - admitted]);
    assert!((49_994..=50_000).contains(&admitted), "{admitted}");
}

/// They count by other rules, and were kept one after the other.
#[test]
fn namesakes_are_not_charged_at_once() {
    let limits = without_lanes();
    let id = LimitId::of("quota");
    let both = [Limit::rate(id, 10, HOUR), Limit::slots(id, 10)];
    let both = both.map(|limit| Charge::new(key(0), limit, 1));
    for charge in &both {
        assert!(acquire(&limits, std::slice::from_ref(charge), START).is_some());
        assert!(acquire(&limits, std::slice::from_ref(charge), START).is_some());
    }
    let admission = Admission::new(ReservationId::next(), &both);
    let answer = limits.acquire(&admission, START, &mut Seen::default(), None);
    assert!(!answer.unwrap_err().is_transient());
    for charge in both {
        assert_eq!(remaining(&limits, &[charge], START), [8]);
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Of the charges of this number, so many times.
    Admit(usize, usize),
    /// Ticks.
    Wait(u64),
    /// Lets go of the slots of that one of those that run.
    End(usize),
    Peek(usize),
    Reset(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_usize..4, 1_usize..200).prop_map(|(which, times)| Step::Admit(which, times)),
        2 => (0_u64..2000).prop_map(Step::Wait),
        1 => (0_u64..600).prop_map(|seconds| Step::Wait(seconds * rules::SECOND)),
        2 => any::<prop::sample::Index>().prop_map(|index| Step::End(index.index(1000))),
        1 => (0_usize..4).prop_map(Step::Peek),
        1 => (0_u8..2).prop_map(Step::Reset),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    /// Nobody is refused for what is taken ahead.
    #[test]
    fn decides_as_if_nothing_were_taken_ahead(steps in steps()) {
        let (limits, plain) = (Limits::new(2, 10, 0), without_lanes());
        let (a, b) = (Charge::new(key(0), rate(3000), 1), Charge::new(key(1), rate(5000), 2));
        let held = Charge::new(key(0), slots(400), 1);
        let wanted = [vec![a, held], vec![a, held, b], vec![b], vec![Charge { cost: 100, ..a }, held]];
        let (mut now, mut running) = (START, Vec::new());
        for step in steps {
            match step {
                Step::Wait(ticks) => now += ticks,
                Step::Peek(which) => {
                    let charges = &wanted[which];
                    prop_assert_eq!(remaining(&limits, charges, now), remaining(&plain, charges, now));
                }
                Step::Reset(record) => {
                    limits.reset(&key(record), now);
                    plain.reset(&key(record), now);
                }
                Step::End(index) if !running.is_empty() => {
                    let (which, mine, plains): (usize, Seen, Seen) =
                        running.swap_remove(index % running.len());
                    let charges = &wanted[which];
                    let used: Vec<_> = charges.iter().map(|charge| charge.cost).collect();
                    settle(&limits, charges, &mine, &used, now);
                    settle(&plain, charges, &plains, &used, now);
                }
                Step::End(_) => {}
                Step::Admit(which, times) => for _ in 0..times {
                    let charges = &wanted[which];
                    let (mine, plains) = (acquire(&limits, charges, now), acquire(&plain, charges, now));
                    prop_assert_eq!(mine.is_some(), plains.is_some());
                    if let (Some(mine), Some(plains)) = (mine, plains) {
                        // What is told while a lease lasts is as new as that.
                        let told = [&mine, &plains].map(|seen| rules::standings(charges, seen));
                        prop_assert!(is_ahead(&limits) || told[0] == told[1]);
                        running.push((which, mine, plains));
                    }
                },
            }
        }
    }

    /// By the real time. What is given back whole was never used.
    #[test]
    fn by_a_clock_that_is_behind_no_more_is_used(
        runs in prop::collection::vec(
            (prop_oneof![1_usize..60, Just(1600)], prop_oneof![Just(0), 0..BEHIND], any::<u64>(), any::<bool>()), 1..20,
        ),
    ) {
        let limits = Limits::new(2, 10, BEHIND);
        let charges = [Charge::new(key(0), quick(), 1)];
        let (room, step) = (rules::SECOND / 100_000 * 1500, rules::SECOND / 100_000);
        let many = [Charge::new(key(0), quick(), 400)];
        let (mut now, mut coarse, mut level, mut running) = (START, START - BEHIND, 0, Vec::new());
        for (times, wait, dice, idles) in runs {
            now += if idles { 100 * wait } else { wait };
            coarse = now.saturating_sub(dice % (BEHIND + 1)).max(coarse);
            if dice & 0x10_0000 != 0 {
                running.extend(acquire_at(&limits, &many, now, coarse));
            }
            if dice & 0x20_0000 != 0 {
                running.pop().inspect(|seen| settle(&limits, &many, seen, &[0], now));
            }
            for _ in 0..times {
                now += dice % 7;
                // Time goes on, and the kernel may not have said so yet.
                coarse = coarse.max(now - BEHIND);
                if acquire_at(&limits, &charges, now, coarse).is_some() {
                    level = level.max(now) + step;
                    prop_assert!(level - now <= room + step, "{}", level - now);
                }
            }
        }
    }

    /// Whatever is given back, and in whatever order: what was used stays within the quota.
    #[test]
    fn what_is_given_back_is_not_used_twice(
        runs in prop::collection::vec((1_usize..150, any::<u64>()), 1..20),
    ) {
        let limits = Limits::new(2, 10, 0);
        let charges = [Charge::new(key(0), rate(2000), 3)];
        let (mut running, mut used) = (Vec::new(), 0);
        for (times, mut dice) in runs {
            for _ in 0..times {
                running.extend(acquire(&limits, &charges, START));
                dice = dice.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
                if dice % 3 == 0 && !running.is_empty() {
                    let seen: Seen = running.swap_remove(dice as usize % running.len());
                    used += dice % 4;
                    settle(&limits, &charges, &seen, &[dice % 4], START);
                }
            }
            prop_assert!(used + 3 * running.len() as u64 <= 2000);
        }
    }

    /// Whichever limits are charged beside each other, in whatever order, and wherever they stand in their records.
    #[test]
    fn decides_as_limits_that_are_kept_one_by_one_do(
        steps in prop::collection::vec(
            (prop::sample::subsequence((0..12_usize).collect::<Vec<_>>(), 1..=8), 0..4_u64, 0..8_usize, 0..900_u64),
            1..60,
        ),
    ) {
        let (limits, mut model) = (without_lanes(), HashMap::new());
        let mut now = START;
        for (which, cost, turn, wait) in steps {
            now += wait * rules::SECOND;
            let mut charges: Vec<_> = which
                .into_iter()
                .map(|n| Charge::new(key((n / 6) as u8), kept(n % 6), (cost + n as u64) % 4))
                .collect();
            // Also runs of one record with another's between.
            let count = charges.len();
            charges.rotate_left(turn % count);
            if turn > 4 {
                charges.sort_by_key(|charge| charge.limit.id());
            }
            let place = |charge: &Charge| (charge.record, charge.limit.id());
            let stands = |charge: &Charge| model.get(&place(charge)).copied().unwrap_or_default();
            let mut receipts: Vec<Receipt> = charges.iter().map(stands).collect();
            let admitted = rules::decide(&charges, &Asks::of(&charges), &mut receipts, now);
            let mut seen = Seen::default();
            let admission = Admission::new(ReservationId::next(), &charges);
            let refusal = limits.acquire(&admission, now, &mut seen, None).unwrap();
            prop_assert_eq!(refusal.is_none(), admitted);
            prop_assert_eq!(seen.receipts.as_slice(), &receipts);
            for (charge, receipt) in charges.iter().zip(receipts) {
                if admitted && charge.cost > 0 {
                    model.insert(place(charge), receipt);
                }
            }
        }
    }
}

/// One of six that count in four ways.
fn kept(n: usize) -> Limit {
    let id = LimitId::of(["a", "b", "c", "d", "e", "f"][n]);
    match n {
        0 => Limit::rate(id, 10, HOUR),
        1 => Limit::slots(id, 40),
        2 => Limit::sliding(id, 12, HOUR),
        3 => Limit::calendar(id, 20, 1, HOUR * 10),
        4 => Limit::rate(id, 300, HOUR).with_burst(6),
        _ => Limit::slots(id, 60),
    }
}
