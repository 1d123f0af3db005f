use proptest::prelude::*;

use super::*;
use crate::store::{Key, Limit, LimitId};

const RECORD: Key = Key::from_bytes([7; 16]);
/// A moment in 2026, in ticks since the origin of 2024.
const NOW: u64 = 90_000_000 * SECOND;

fn rate(quota: u64, window: Duration, burst: u64) -> Limit {
    Limit::rate(LimitId::of("rate"), quota, window).with_burst(burst)
}

fn admit(limit: Limit, state: &mut State, cost: u64, now: u64) -> Option<Receipt> {
    match decide(&[Charge::new(RECORD, limit, cost)], std::slice::from_mut(state), now) {
        Decision::Admitted(grant) => Some(grant.receipts.as_slice()[0]),
        Decision::Refused(_) => None,
    }
}

fn fits(limit: Limit, mut state: State, cost: u64, now: u64) -> bool {
    admit(limit, &mut state, cost, now).is_some()
}

/// By how many ticks a limit may admit early: see `room`.
fn early(limit: Limit) -> u64 {
    let Rule::Rate { quota, window, burst } = limit.rule else { panic!("a rate") };
    burst.min((window_ticks(window) / quota).saturating_sub(1))
}

fn rates() -> impl Strategy<Value = Limit> {
    let windows = prop_oneof![Just(1_u64), Just(60), Just(86_400)];
    (1_u64..3_000_000, windows, 1_u64..5_000_000)
        .prop_map(|(quota, window, burst)| rate(quota, Duration::from_secs(window), burst))
}

/// A leaky bucket without any rounding: counts in units times window ticks.
struct Bucket {
    level: u128,
    at: u64,
}

impl Bucket {
    fn drain(&mut self, quota: u64, now: u64) {
        self.level = self.level.saturating_sub(u128::from(now - self.at) * u128::from(quota));
        self.at = now;
    }
}

proptest! {
    #[test]
    fn decides_as_a_leaky_bucket_does(
        limit in rates(),
        steps in prop::collection::vec((0_u64..100_000_000, 0_u64..2_000_000), 1..60),
    ) {
        let Rule::Rate { quota, window, burst } = limit.rule else { panic!("a rate") };
        let (window, mut now, mut state) = (window_ticks(window), NOW, State::default());
        let mut bucket = Bucket { level: 0, at: now };
        let mut rounded_up = 0;
        for (pause, cost) in steps {
            now += pause;
            bucket.drain(quota, now);
            let filled = bucket.level + u128::from(cost) * u128::from(window);
            let most = u128::from(burst) * u128::from(window);
            let admitted = admit(limit, &mut state, cost, now).is_some();
            if admitted {
                let early = u128::from(early(limit)) * u128::from(quota);
                prop_assert!(filled <= most + early, "admitted too much");
                bucket.level = filled;
                rounded_up += 1;
            } else {
                // Each charge was rounded up by less than a tick.
                let rounding = u128::from(quota) * (rounded_up + 1);
                prop_assert!(filled + rounding > most, "refused what fits");
            }
        }
    }

    #[test]
    fn all_or_none(
        limits in prop::collection::vec((rates(), 0_u64..3_000_000, 0_u64..1 << 40), 1..=8),
        slots in 0_u64..5,
    ) {
        let mut charges = Vec::new();
        let mut states = Vec::new();
        for (at, (limit, cost, ahead)) in limits.into_iter().enumerate() {
            let limit = Limit { id: LimitId::of(&at.to_string()), ..limit };
            let limit = if at == 3 { Limit::slots(limit.id, 4) } else { limit };
            charges.push(Charge::new(RECORD, limit, if at == 3 { slots } else { cost }));
            states.push(State { level: if at == 3 { 2 } else { NOW + ahead }, shift: 0 });
        }
        let before = states.clone();
        match decide(&charges, &mut states, NOW) {
            Decision::Refused(refusal) => {
                prop_assert_eq!(&states, &before);
                let (at, mut state) = (refusal.index, [before[refusal.index]]);
                let alone = decide(&charges[at..=at], &mut state, NOW);
                prop_assert!(matches!(alone, Decision::Refused(_)), "the one named does not fit");
                if let Some(wait) = refusal.retry_after {
                    let then = NOW + ticks(wait) + 1;
                    let alone = decide(&charges[at..=at], &mut [before[at]], then);
                    prop_assert!(matches!(alone, Decision::Admitted(_)), "after the wait it fits");
                }
            }
            Decision::Admitted(_) => {
                for ((charge, before), after) in charges.iter().zip(before).zip(states) {
                    prop_assert_eq!(after.level, before.level + Ask::of(charge).step);
                }
            }
        }
    }

    #[test]
    fn what_remains_is_what_fits(limit in rates(), ahead in 0_u64..1 << 42) {
        let state = State { level: NOW + ahead, shift: 0 };
        let left = standing(&Charge::new(RECORD, limit, 0), state, NOW).remaining;
        if left > 0 {
            prop_assert!(fits(limit, state, left, NOW));
        }
        prop_assert!(!fits(limit, state, left + 1, NOW));
    }

    #[test]
    fn an_earlier_time_never_admits_more(limit in rates(), cost in 0_u64..5_000_000, ahead in 0_u64..1 << 42, back in 0_u64..1 << 40) {
        let state = State { level: NOW + ahead, shift: 0 };
        if fits(limit, state, cost, NOW - back) {
            prop_assert!(fits(limit, state, cost, NOW));
        }
    }

    #[test]
    fn no_number_overflows(
        numbers in prop::array::uniform8(prop_oneof![Just(0), Just(1), Just(u64::MAX), any::<u64>()]),
        nanos in 0_u32..1_000_000_000,
        slots: bool,
    ) {
        let [quota, window, burst, cost, used, level, shift, now] = numbers;
        let limit = if slots {
            Limit::slots(LimitId::of("slots"), quota)
        } else {
            rate(quota, Duration::new(window, nanos), burst)
        };
        let now = now.min(LATEST);
        let state = State { level: level.min(LATEST), shift: shift % SHIFT_MODULUS };
        let charge = Charge::new(RECORD, limit, cost);
        let mut states = [state];
        if let Decision::Admitted(grant) = decide(&[charge], &mut states, now) {
            let receipt = grant.receipts.as_slice()[0];
            states[0] = settle(states[0], Correction::of(&charge, used), receipt, now);
        }
        settle(state, Correction::of(&charge, used), Receipt([cost, used]), now);
        prop_assert!(states[0].level <= LATEST && states[0].shift < SHIFT_MODULUS);
    }
}

/// Mostly short times and small parts, now and then long ones and large.
fn scaled(scales: &'static [u64]) -> impl Strategy<Value = u64> {
    prop::sample::select(scales).prop_flat_map(|scale| 0..=scale)
}

proptest! {
    // Enough of them that refunds without the shift are caught, which rarely break the bound.
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// The simulation that chose the refund rule, as a property: in no window do the units that were
    /// really used exceed the burst and what drains in the window.
    #[test]
    fn no_window_lets_more_through_than_its_quota_whatever_is_given_back(
        steps in prop::collection::vec(
            (
                scaled(&[0, 1, 8, 48, 320, 1120]),
                scaled(&[5, 50, 300, 1000]),
                prop::sample::select(&[0_u64, 1, 5, 10][..]),
                scaled(&[2, 32, 480, 1920]),
            ),
            1..160,
        ),
    ) {
        const BURST: u64 = 1000;
        let limit = rate(BURST, Duration::from_secs(60), BURST);
        let (mut now, mut state) = (NOW, State::default());
        let mut pending: Vec<(u64, u64, u64, Receipt)> = Vec::new();
        let mut admitted: Vec<(u64, u64)> = Vec::new();
        for (pause, cost, tenths, takes) in steps {
            now += pause * SECOND / 16;
            pending.sort_by_key(|(end, ..)| *end);
            while pending.first().is_some_and(|(end, ..)| *end <= now) {
                let (end, cost, used, receipt) = pending.remove(0);
                let correction = Correction::of(&Charge::new(RECORD, limit, cost), used);
                state = settle(state, correction, receipt, end);
            }
            if let Some(receipt) = admit(limit, &mut state, cost, now) {
                let used = cost * tenths / 10;
                pending.push((now + takes * SECOND / 16, cost, used, receipt));
                admitted.push((now, used));
            }
        }
        // All windows at once: no window exceeds the bound if a bucket of that size never overflows.
        let mut bucket = Bucket { level: 0, at: NOW };
        for (at, used) in admitted {
            bucket.drain(BURST, at);
            bucket.level += u128::from(used * 60 * SECOND);
            prop_assert!(bucket.level <= u128::from(BURST * (60 * SECOND + early(limit))));
        }
    }
}

#[test]
fn a_quota_that_does_not_divide_the_window_is_all_there() {
    for quota in [3, 7, 1000, 899_981] {
        let (limit, mut state) = (rate(quota, Duration::from_secs(60), quota), State::default());
        for _ in 0..quota.min(1000) {
            assert!(admit(limit, &mut state, 1, NOW).is_some());
        }
        let rest = quota - quota.min(1000);
        assert_eq!(standing(&Charge::new(RECORD, limit, 0), state, NOW).remaining, rest);
        assert!(admit(limit, &mut state, rest + 1, NOW).is_none());
    }
}

#[test]
fn times_are_rounded_towards_the_strict_side() {
    assert_eq!(ticks(Duration::from_nanos(124)), 1);
    assert_eq!(duration(1), Duration::from_nanos(63));
    assert_eq!(duration(ticks(Duration::from_secs(86_400))), Duration::from_secs(86_400));
    assert_eq!(ticks(Duration::MAX), LATEST);
}

#[test]
fn a_record_that_was_forgotten_meanwhile_gives_nothing_back() {
    let limit = rate(100, Duration::from_secs(100), 100);
    let charge = Charge::new(RECORD, limit, 50);
    let mut old = State { level: 0, shift: 12 * SECOND };
    let receipt = admit(limit, &mut old, 50, NOW).unwrap();
    let later = NOW + 50 * SECOND;
    let mut fresh = State::default();
    admit(limit, &mut fresh, 80, later).unwrap();
    assert_eq!(settle(fresh, Correction::of(&charge, 0), receipt, later), fresh);
}
