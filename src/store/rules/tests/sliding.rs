//! Sliding windows.

use super::*;

const ID: LimitId = LimitId::of("sliding");
/// The start of a window of a minute.
const START: u64 = NOW - NOW % (60 * SECOND);

fn minute(quota: u64) -> Limit {
    Limit::sliding(ID, quota, Duration::from_secs(60))
}

fn at(second: u64) -> u64 {
    START + second * SECOND
}

fn left(limit: Limit, state: State, now: u64) -> u64 {
    standing_of(limit, state, now).remaining
}

#[test]
fn what_was_used_in_the_window_before_counts_by_its_part() {
    let (limit, mut state) = (minute(60), State::default());
    assert!(admit(limit, &mut state, 60, at(59)).is_some());
    assert_eq!(left(limit, state, at(60) - 1), 0);
    assert_eq!(left(limit, state, at(60)), 0);
    assert_eq!(left(limit, state, at(61)), 1);
    assert_eq!(left(limit, state, at(90)), 30);
    assert!(admit(limit, &mut state, 30, at(90)).is_some());
    assert_eq!(left(limit, state, at(119)), 29);
    assert_eq!(left(limit, state, at(120)), 30);
    assert_eq!(left(limit, state, at(150)), 45);
    assert_eq!(left(limit, state, at(180)), 60);
}

#[test]
fn it_tells_when_a_cost_fits_and_when_all_is_there() {
    let (limit, mut state) = (minute(60), State::default());
    admit(limit, &mut state, 60, at(10)).unwrap();
    let waits =
        |state, cost, now| match decide(&[Charge::new(RECORD, limit, cost)], &mut [state], now) {
            Decision::Refused(refusal) => refusal.retry_after,
            Decision::Admitted(_) => Some(Duration::ZERO),
        };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(waits(state, 1, at(10)), seconds(51));
    assert_eq!(waits(state, 30, at(60)), seconds(30));
    assert_eq!(waits(state, 60, at(60)), seconds(60));
    assert_eq!(waits(state, 61, at(60)), None);
    let reset = |now| standing_of(limit, state, now).reset;
    assert_eq!(reset(at(10)), Duration::from_secs(110));
    assert_eq!(reset(at(70)), Duration::from_secs(50));
    assert_eq!(reset(at(120)), Duration::ZERO);
}

#[test]
fn what_is_not_used_goes_back_to_its_window() {
    let limit = minute(60);
    let charge = Charge::new(RECORD, limit, 60);
    let mut state = State::default();
    let receipt = admit(limit, &mut state, 60, at(50)).unwrap();
    let refund = |state, now| settle(&charge, state, 20, receipt, now);
    assert_eq!(left(limit, refund(state, at(55)), at(55)), 40);
    // Half of the window before still counts.
    assert_eq!(left(limit, refund(state, at(90)), at(90)), 50);
    admit(limit, &mut state, 30, at(119)).unwrap();
    assert_eq!(left(limit, refund(state, at(120)), at(120)), 30, "it no longer counts");
}

#[test]
fn what_is_used_beyond_is_debt_until_the_next_window_ends() {
    let limit = minute(60);
    let charge = Charge::new(RECORD, limit, 10);
    let mut state = State::default();
    let receipt = admit(limit, &mut state, 10, at(50)).unwrap();
    state = settle(&charge, state, 130, receipt, at(61));
    for (second, refused) in [(61, true), (119, true), (120, true), (149, true), (150, false)] {
        assert_eq!(admit(limit, &mut state, 0, at(second)).is_none(), refused, "{second}");
    }
    assert_eq!(left(limit, state, at(150)), 0);
    assert_eq!(left(limit, state, at(180)), 60);
}

/// As the scripts do it.
#[test]
fn the_weight_is_exact_in_doubles() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..200_000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let window = Window::of(Duration::from_millis(1 + random % (1 << (round % 36))));
        let rest = 1 + random.rotate_left(17) % window.ticks;
        let before = (random.rotate_left(31) & MOST) >> (round % 40);
        let exact = {
            let parts = u128::from(rest.div_ceil(window.part).min(window.parts));
            (u128::from(before) * parts).div_ceil(u128::from(window.parts))
        };
        let by_doubles = {
            let [rest, before, part, parts] =
                [rest, before, window.part, window.parts].map(|number| number as f64);
            let rest = (rest / part).ceil().min(parts);
            let low = before % parts;
            (before - low) / parts * rest + (low * rest / parts).ceil()
        };
        assert_eq!(by_doubles as u128, exact);
        let seen = State { level: NOW + 2 * window.ticks, mark: before, used: 0 };
        assert!(u128::from(window.taken(seen, NOW)) == u128::from(before), "all at its start");
        assert!(window.parts < 1 << 26 && window.part.is_power_of_two());
        // Never less than the true part of it, and hardly more.
        let real = before as f64 * rest as f64 / window.ticks as f64;
        assert!(by_doubles >= real * (1.0 - 1e-12), "{window:?} {before} {rest}");
        assert!(by_doubles <= real + before as f64 / (1 << 24) as f64 + 1.0);
    }
}

#[test]
fn a_shorter_window_keeps_what_was_used() {
    let day = Limit::sliding(ID, 60, Duration::from_secs(86_400));
    let mut state = State::default();
    admit(day, &mut state, 60, at(0)).unwrap();
    assert_eq!(left(minute(60), state, at(0)), 0);
    assert_eq!(left(minute(60), state, at(2 * 86_400)), 60);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// In any stretch of time, however long: that is when a leaky bucket of the quota never overflows. In each window of
    /// the store's: plainly. Both by what was really used, whatever is given back and when, with other quotas under the
    /// same id, and a record that is forgotten when it is idle.
    #[test]
    fn no_stretch_of_time_lets_more_through_than_the_bound(
        steps in prop::collection::vec(
            (
                scaled(&[0, 1, 8, 48, 320, 1120]),
                scaled(&[5, 50, 300, 1000]),
                prop::sample::select(&[0_u64, 1, 5, 10][..]),
                500_u64..=1000,
                0_usize..6,
            ),
            1..160,
        ),
    ) {
        const MOST: u64 = 1000;
        let (mut now, mut state) = (NOW, State::default());
        let mut pending = Vec::new();
        let mut bucket = Bucket { level: 0, at: NOW };
        let mut in_window = (0, 0);
        for (pause, cost, tenths, quota, settled) in steps {
            now += pause * SECOND / 16;
            if state.level <= now {
                state = State::default();
            }
            let limit = minute(quota);
            if let Some(receipt) = admit(limit, &mut state, cost, now) {
                let used = cost * tenths / 10;
                pending.push((Charge::new(RECORD, limit, cost), used, receipt));
                bucket.drain(MOST, now);
                bucket.level += u128::from(used * 60 * SECOND);
                prop_assert!(bucket.level <= u128::from(MOST * 60 * SECOND));
                let window = now / (60 * SECOND);
                in_window = (window, used + if in_window.0 == window { in_window.1 } else { 0 });
                prop_assert!(in_window.1 <= MOST);
            }
            if settled < pending.len() {
                let (charge, used, receipt) = pending.swap_remove(settled);
                state = settle(&charge, state, used, receipt, now);
            }
        }
    }
}
