mod calendar;
mod model;
mod sliding;

use std::time::Duration;

use proptest::prelude::*;

use super::{rate::SHIFT_MODULUS, time::window_ticks, *};
use crate::store::{Decision, Key, LimitId};

const RECORD: Key = Key::from_bytes([7; 16]);
/// A moment in 2026, in ticks since the origin of 2024.
const NOW: u64 = 90_000_017 * SECOND + 1_234_567;

fn rate(quota: u64, window: Duration, burst: u64) -> Limit {
    Limit::rate(LimitId::of("rate"), quota, window).with_burst(burst)
}

fn admit(limit: Limit, state: &mut State, cost: u64, now: u64) -> Option<Receipt> {
    match decide(&[Charge::new(RECORD, limit, cost)], std::slice::from_mut(state), now) {
        Decision::Admitted(grant) => Some(grant.receipts.as_slice()[0]),
        Decision::Refused(_) => None,
    }
}

fn standing_of(limit: Limit, state: State, now: u64) -> Standing {
    standing(&limit, state, now)
}

/// As a store does it.
fn decide(charges: &[Charge], states: &mut [State], now: u64) -> Decision {
    let asks = Asks::of(charges);
    let packed = charges.iter().zip(&*states).map(|(it, state)| state.receipt(&it.limit.kind));
    let mut seen = Seen::new(Inline::collect(Receipt::default(), packed), now);
    let mut in_one_pass = seen.receipts;
    let parts = charges.iter().zip(in_one_pass.as_mut_slice());
    let fit = parts.fold(true, |all, (it, receipt)| charge(it, receipt, now) & all);
    let decided = super::decide(charges, &asks, seen.receipts.as_mut_slice(), now);
    assert_eq!(fit, decided);
    assert!(!fit || in_one_pass == seen.receipts, "both ways lead to the same");
    if !decided {
        return Decision::Refused(refusal(charges, &asks, seen));
    }
    let parts = charges.iter().zip(asks.iter()).zip(seen.receipts.as_slice()).zip(states);
    for (((charge, _), receipt), state) in parts.filter(|(((_, ask), _), _)| ask.step > 0) {
        *state = receipt.state(&charge.limit.kind);
    }
    Decision::Admitted(seen)
}

fn settle(charge: &Charge, state: State, used: u64, receipt: Receipt, now: u64) -> State {
    charge.limit.kind.settle(state, Correction::of(charge, used), receipt, now)
}

fn fits(limit: Limit, mut state: State, cost: u64, now: u64) -> bool {
    admit(limit, &mut state, cost, now).is_some()
}

/// By how many ticks a limit may admit early: see `room`.
fn early(limit: Limit) -> u64 {
    let Rule::Rate { quota, window, burst } = limit.rule() else { panic!("a rate") };
    burst.min((window_ticks(window, LONGEST) / quota).saturating_sub(1))
}

/// Those whose burst is not cut.
fn rates() -> impl Strategy<Value = Limit> {
    let windows = prop_oneof![Just(1_u64), Just(60), Just(86_400)];
    (1_u64..3_000_000, windows, 1_u64..5_000_000).prop_map(|(quota, window, burst)| {
        let most = LONGEST / (window * SECOND) * quota;
        rate(quota, Duration::from_secs(window), burst.min(most))
    })
}

/// Limits of every rule but slots, of human sizes.
fn limits() -> impl Strategy<Value = Limit> {
    let quota = prop_oneof![1_u64..20, 1_u64..3_000_000];
    let seconds = prop_oneof![Just(1_u64), Just(60), Just(86_400)];
    let windows = (quota, seconds).prop_flat_map(|(quota, seconds)| {
        let (id, seconds) = (LimitId::of("windows"), Duration::from_secs(seconds));
        prop_oneof![
            Just(Limit::sliding(id, quota, seconds)),
            (4_u64..7).prop_map(move |period| Limit::calendar(id, quota, period, seconds)),
        ]
    });
    prop_oneof![rates(), windows]
}

/// A state that a limit may have been left in.
fn states(limit: Limit) -> impl Strategy<Value = State> {
    let ahead = prop_oneof![0_u64..1 << 42, 0_u64..200_000_000];
    let most = limit.capacity().min(5_000_000) + 10;
    (ahead, 0..=most, 0..=most, 4_u64..7).prop_map(move |(ahead, used, before, period)| {
        let mark = match limit.rule() {
            Rule::Rate { .. } | Rule::Slots { .. } => 0,
            Rule::Calendar { .. } => period,
            Rule::Sliding { .. } => before,
        };
        let used = if matches!(limit.rule(), Rule::Rate { .. }) { 0 } else { used };
        let level = match limit.kind {
            Kind::Sliding(window) => {
                (NOW + ahead % (3 * window.ticks)).next_multiple_of(window.ticks)
            }
            _ => NOW + ahead,
        };
        State { level, mark, used }
    })
}

/// A limit and a state of it.
fn limits_and_states() -> impl Strategy<Value = (Limit, State)> {
    limits().prop_flat_map(|limit| (Just(limit), states(limit)))
}

/// The same limit, asked for when `wait` has passed, by a caller whose calendar goes on.
fn later(charge: &Charge, wait: Duration) -> Charge {
    let mut later = *charge;
    if let Rule::Calendar { period, ends_in, .. } = charge.limit.rule()
        && wait >= ends_in
    {
        // Beyond what the record may be in, by a caller that was ahead.
        later.limit = charge.limit.in_period(period + 10, Duration::from_secs(60));
    }
    later
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Without a division, by a ratio that was rounded.
    #[test]
    fn a_step_is_the_exact_quotient_rounded_up(
        quota in scaled(&[2, 100, 3_000_000, u64::MAX]),
        window in scaled(&[2, 100_000, 3_000_000_000, u64::MAX]),
        units in scaled(&[2, 100, 3_000_000, u64::MAX]),
    ) {
        let window = Duration::from_micros(window);
        let exact = u128::from(units) * u128::from(window_ticks(window, LONGEST));
        let exact = exact.div_ceil(u128::from(quota.max(1))).min(u128::from(LONGEST));
        prop_assert_eq!(u128::from(Rate::of(quota, window, 1).steps(units, quota)), exact);
    }
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
        let Rule::Rate { quota, window, burst } = limit.rule() else { panic!("a rate") };
        let (window, mut now, mut state) = (window_ticks(window, LONGEST), NOW, State::default());
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
        limits in prop::collection::vec((limits_and_states(), 0_u64..3_000_000), 1..=8),
        slots in 0_u64..5,
    ) {
        let mut charges = Vec::new();
        let mut states = Vec::new();
        for (at, ((limit, state), cost)) in limits.into_iter().enumerate() {
            let limit = Limit { id: LimitId::of(&at.to_string()), ..limit };
            if at == 3 {
                charges.push(Charge::new(RECORD, Limit::slots(limit.id(), 4), slots));
                states.push(State { level: 2, ..State::default() });
            } else {
                // Small enough that often all of them fit.
                charges.push(Charge::new(RECORD, limit, cost.min(limit.capacity() / 4)));
                states.push(state);
            }
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
                    let alone = decide(&[later(&charges[at], wait)], &mut [before[at]], then);
                    prop_assert!(matches!(alone, Decision::Admitted(_)), "after the wait it fits");
                }
            }
            Decision::Admitted(_) => {
                for ((charge, before), after) in charges.iter().zip(before).zip(states) {
                    let (kind, Ask { step, .. }) = (charge.limit.kind, Ask::of(charge));
                    let taken = |state| kind.taken(kind.seen(state, NOW), NOW);
                    prop_assert_eq!(taken(after), taken(before) + step);
                }
            }
        }
    }

    #[test]
    fn what_remains_is_what_fits((limit, state) in limits_and_states()) {
        let left = standing_of(limit, state, NOW).remaining;
        if left > 0 {
            prop_assert!(fits(limit, state, left, NOW));
        }
        prop_assert!(!fits(limit, state, left + 1, NOW));
    }

    #[test]
    fn all_is_there_again_after_the_reset((limit, state) in limits_and_states()) {
        let charge = Charge::new(RECORD, limit, 0);
        let reset = standing_of(charge.limit, state, NOW).reset;
        let then = standing_of(later(&charge, reset).limit, state, NOW + ticks(reset) + 1);
        prop_assert_eq!(then, Standing::new(limit.capacity(), Duration::ZERO));
    }

    /// Nor may a shorter wait be told.
    #[test]
    fn before_the_wait_is_over_it_does_not_fit(
        (limit, state) in limits_and_states(),
        part in 0_u64..=1000,
        before in 0_u64..=1000,
    ) {
        let charge = Charge::new(RECORD, limit, (limit.capacity() * part).div_ceil(1000));
        let Decision::Refused(refusal) = decide(&[charge], &mut [state], NOW) else { return Ok(()) };
        let wait = refusal.retry_after.map_or(0, ticks);
        // Rounding up is by a tick, and of a sliding window by a part of it.
        let sure = wait - wait / 1000 * before;
        let sure = sure.saturating_sub(if let Kind::Sliding(window) = limit.kind { window.part } else { 1 });
        // A caller said that a period would end later than another did.
        if state.level > NOW + sure {
            prop_assert!(!fits(limit, state, charge.cost, NOW + sure));
        }
    }

    #[test]
    fn an_earlier_time_never_admits_more((limit, state) in limits_and_states(), cost in 0_u64..5_000_000, back in 0_u64..1 << 40) {
        if fits(limit, state, cost, NOW - back) {
            prop_assert!(fits(limit, state, cost, NOW));
        }
    }

    #[test]
    fn a_state_whose_time_is_over_equals_an_absent_one(
        (limit, state) in limits_and_states(),
        cost in 0_u64..5_000_000,
        late in 0_u64..1 << 40,
    ) {
        let (now, charge) = (state.level + late, [Charge::new(RECORD, limit, cost)]);
        let state = if let Rule::Rate { .. } = limit.rule() { State { mark: 0, ..state } } else { state };
        let (mut old, mut absent) = ([state], [State::default()]);
        let by = [decide(&charge, &mut old, now), decide(&charge, &mut absent, now)];
        prop_assert_eq!(format!("{:?}", by[0]), format!("{:?}", by[1]));
        if let Decision::Admitted(_) = by[0] && cost > 0 {
            prop_assert_eq!(old, absent);
        }
    }

    #[test]
    fn no_number_overflows(
        numbers in prop::array::uniform9(prop_oneof![Just(0), Just(1), Just(u64::MAX), any::<u64>()]),
        nanos in 0_u32..1_000_000_000,
        rule in 0..4,
    ) {
        let [quota, window, burst, cost, used, level, mark, units, now] = numbers;
        let (id, time) = (LimitId::of("limit"), Duration::new(window, nanos));
        let limit = match rule {
            0 => rate(quota, time, burst),
            1 => Limit::slots(id, quota),
            2 => Limit::calendar(id, quota, burst, time),
            _ => Limit::sliding(id, quota, time),
        };
        let now = now.min(LATEST);
        let most = if rule < 2 { SHIFT_MODULUS - 1 } else { MOST };
        let state = State { level: level.min(LATEST), mark: mark.min(most), used: units.min(MOST) };
        let charge = Charge::new(RECORD, limit, cost);
        let mut states = [state];
        if let Decision::Admitted(grant) = decide(&[charge], &mut states, now) {
            let receipt = grant.receipts.as_slice()[0];
            states[0] = settle(&charge, states[0], used, receipt, now);
        }
        let other = settle(&charge, state, used, Receipt([cost, used]), now);
        for state in [states[0], other] {
            prop_assert!(state.level <= LATEST && state.mark <= most && state.used <= MOST);
        }
        standing(&limit, states[0], now);
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
                state = settle(&Charge::new(RECORD, limit, cost), state, used, receipt, end);
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
        assert_eq!(standing_of(limit, state, NOW).remaining, rest);
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
    let mut old = State { mark: 12 * SECOND, ..State::default() };
    let receipt = admit(limit, &mut old, 50, NOW).unwrap();
    let later = NOW + 50 * SECOND;
    let mut fresh = State::default();
    admit(limit, &mut fresh, 80, later).unwrap();
    assert_eq!(settle(&charge, fresh, 0, receipt, later), fresh);
}
