//! Calendar quotas.

use super::*;

const DAY: Duration = Duration::from_secs(86_400);
const ID: LimitId = LimitId::of("calendar");

fn day(quota: u64, number: u64) -> Limit {
    Limit::calendar(ID, quota, number, DAY)
}

fn left(limit: Limit, state: State, now: u64) -> u64 {
    standing_of(limit, state, now).remaining
}

fn settled(limit: Limit, state: &mut State, (cost, used): (u64, u64), receipt: Receipt, now: u64) {
    *state = settle(&Charge::new(RECORD, limit, cost), *state, used, receipt, now);
}

#[test]
fn a_period_has_its_quota_and_the_next_one_too() {
    let mut state = State::default();
    assert!(admit(day(10, 5), &mut state, 10, NOW).is_some());
    assert!(admit(day(10, 5), &mut state, 1, NOW + 4 * SECOND).is_none());
    assert!(admit(day(10, 6), &mut state, 10, NOW + 5 * SECOND).is_some());
    assert!(admit(day(10, 6), &mut state, 1, NOW + 5 * SECOND).is_none());
}

#[test]
fn who_names_an_earlier_period_is_charged_in_the_record_s() {
    let mut state = State::default();
    assert!(admit(day(10, 6), &mut state, 7, NOW).is_some());
    assert!(admit(day(10, 5), &mut state, 4, NOW).is_none());
    assert!(admit(day(10, 5), &mut state, 3, NOW).is_some());
    assert_eq!(left(day(10, 6), state, NOW), 0);
    assert_eq!(state.mark, 6);
}

#[test]
fn a_period_is_remembered_for_clocks_that_are_behind() {
    let limit = Limit::calendar(ID, 10, 5, Duration::from_secs(1));
    let mut state = State::default();
    assert!(admit(limit, &mut state, 10, NOW).is_some());
    assert!(admit(limit, &mut state, 1, NOW + 300 * SECOND).is_none());
    assert!(admit(limit, &mut state, 1, NOW + 302 * SECOND).is_some());
}

/// A process whose clock is a year ahead; the others' quota must not end for a year.
#[test]
fn a_period_far_ahead_lasts_no_longer_than_its_caller_said() {
    let mut state = State::default();
    let hour = |number| Limit::calendar(ID, 10, number, Duration::from_secs(3600));
    assert!(admit(hour(400), &mut state, 10, NOW).is_some());
    for minute in 0..65 {
        assert!(admit(hour(35), &mut state, 1, NOW + minute * 60 * SECOND).is_none(), "{minute}");
    }
    assert!(admit(hour(36), &mut state, 1, NOW + 66 * 60 * SECOND).is_some());
}

#[test]
fn what_is_settled_counts_in_the_period_that_was_charged_alone() {
    let (mut state, five, six) = (State::default(), day(10, 5), day(10, 6));
    let unused = admit(five, &mut state, 4, NOW).unwrap();
    let beyond = admit(five, &mut state, 1, NOW).unwrap();
    let late = admit(five, &mut state, 5, NOW).unwrap();
    settled(five, &mut state, (4, 1), unused, NOW);
    assert_eq!(left(five, state, NOW), 3);
    settled(five, &mut state, (1, 9), beyond, NOW);
    assert_eq!(left(five, state, NOW), 0);
    assert!(admit(five, &mut state, 0, NOW).is_none(), "in debt");

    admit(six, &mut state, 8, NOW).unwrap();
    settled(five, &mut state, (5, 0), late, NOW);
    settled(five, &mut state, (5, 100), late, NOW);
    assert_eq!(left(six, state, NOW), 2, "nothing of the period before");
}

#[test]
fn what_was_used_on_a_charge_of_nothing_is_charged() {
    for before in [State::default(), State { level: NOW + SECOND, mark: 4, used: 10 }] {
        let (mut state, limit) = (before, day(10, 5));
        let receipt = admit(limit, &mut state, 0, NOW).unwrap();
        assert_eq!(state, before);
        settled(limit, &mut state, (0, 12), receipt, NOW);
        assert!(admit(limit, &mut state, 0, NOW).is_none(), "in debt");
        assert!(admit(day(10, 6), &mut state, 10, NOW).is_some(), "no longer than the period");
    }
}

#[test]
fn it_tells_when_the_period_ends() {
    let (mut state, limit) = (State::default(), day(10, 5));
    let charge = |cost| [Charge::new(RECORD, limit, cost)];
    assert_eq!(standing(&limit, state, NOW), Standing::new(10, Duration::ZERO));
    admit(limit, &mut state, 3, NOW).unwrap();
    assert_eq!(standing(&limit, state, NOW), Standing::new(7, DAY));
    let Decision::Refused(refusal) = decide(&charge(8), &mut [state], NOW) else { panic!() };
    assert_eq!(refusal.retry_after, Some(DAY));
    let Decision::Refused(refusal) = decide(&charge(11), &mut [state], NOW) else { panic!() };
    assert_eq!(refusal.retry_after, None, "beyond the capacity");
}

proptest! {
    /// By processes whose clocks differ, with refunds at any time, other quotas under the same id, and a record that is
    /// forgotten when it is idle.
    #[test]
    fn no_period_uses_more_than_its_quota(
        steps in prop::collection::vec(
            (scaled(&[0, 100, 1000, 20_000]), 0_u64..300, 0_u64..40, 0_u64..=10, 50_u64..=100, 0_usize..6),
            1..160,
        ),
    ) {
        const PERIOD: u64 = 3600;
        let (mut now, mut state) = (NOW, State::default());
        let mut pending = Vec::new();
        let mut used_in = std::collections::BTreeMap::<u64, u64>::new();
        for (pause, behind, cost, tenths, quota, settled) in steps {
            now += pause * SECOND / 10;
            if state.level <= now {
                state = State::default();
            }
            let time = now / SECOND - behind;
            let ends_in = Duration::from_secs(PERIOD - time % PERIOD);
            let limit = Limit::calendar(ID, quota, time / PERIOD, ends_in);
            if let Some(receipt) = admit(limit, &mut state, cost, now) {
                let used = cost * tenths / 10;
                *used_in.entry(receipt.state(&limit.kind).mark).or_default() += used;
                pending.push((Charge::new(RECORD, limit, cost), used, receipt));
            }
            if settled < pending.len() {
                let (charge, used, receipt) = pending.swap_remove(settled);
                state = settle(&charge, state, used, receipt, now);
            }
        }
        for (period, used) in used_in {
            prop_assert!(used <= 100, "{} in {}", used, period);
        }
    }
}
