//! What a limiter store promises.

use std::{
    future::Future,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::{Time, fresh_key};
use crate::store::{
    Admission, Charge, Decision, Key, Limit, LimitId, LimiterStore, Refusal, ReservationId, Seen,
    Settlement, Standings,
};

const HOUR: Duration = Duration::from_secs(3600);

pub(super) async fn all_or_none(store: Arc<impl LimiterStore>) {
    let record = fresh_key();
    let wide = Charge::new(record, rate("wide", 100, HOUR), 1);
    let narrow = Charge::new(fresh_key(), rate("narrow", 3, HOUR), 1);
    let slot = Charge::new(record, Limit::slots(LimitId::of("slot"), 100), 1);
    let mut admitted = 0;
    for _ in 0..10 {
        admitted += u64::from(acquire(&*store, &[wide, slot, narrow]).await.is_ok());
    }
    assert_eq!(admitted, 3, "of a quota of 3");
    let left = remaining(&*store, &[wide, slot, narrow]).await;
    assert_eq!(left, [97, 97, 0], "a refusal by one limit charges no other");
}

pub(super) async fn a_refused_admission_charges_nothing(store: Arc<impl LimiterStore>) {
    let charges = |cost| [Charge::new(fresh_key(), rate("quota", 10, HOUR), cost)];
    let [used] = charges(8);
    admitted(&*store, &[used]).await;
    for _ in 0..5 {
        refused(&*store, &[Charge { cost: 5, ..used }]).await;
    }
    admitted(&*store, &[Charge { cost: 2, ..used }]).await;
}

pub(super) async fn a_record_that_is_reset_begins_anew(
    store: Arc<impl LimiterStore>,
    time: &dyn Time,
) {
    let (record, other) = (fresh_key(), fresh_key());
    let charges = |record| {
        let slot = Limit::slots(LimitId::of("slot"), 2);
        [Charge::new(record, rate("quota", 10, HOUR), 10), Charge::new(record, slot, 1)]
    };
    let before = admitted(&*store, &charges(record)).await;
    admitted(&*store, &charges(other)).await;
    refused(&*store, &charges(record)).await;
    store.reset(record).await.expect("it answers");
    // A store may stand by a refusal for a moment.
    time.pass(SHORT).await;
    admitted(&*store, &charges(record)).await;
    let [rate, slot] = charges(record);
    assert_eq!(remaining(&*store, &[slot]).await, [0], "those who run hold their slots");
    refused(&*store, &[charges(other)[0]]).await;
    settle(&*store, &[rate, slot], &before, &[0, 0]).await;
    store.flush().await.expect("it is applied");
    assert_eq!(remaining(&*store, &[rate, slot]).await, [0, 1], "it is given back already");
}

pub(super) async fn a_burst_is_exact_and_drains(store: Arc<impl LimiterStore>, time: &dyn Time) {
    // A quota that no clock divides evenly, and a window that a real clock may wait for.
    let charges = [Charge::new(fresh_key(), rate("quota", 7, 7 * SHORT), 1)];
    for _ in 0..7 {
        admitted(&*store, &charges).await;
    }
    refused(&*store, &charges).await;
    time.pass(2 * SHORT).await;
    admitted(&*store, &charges).await;
    admitted(&*store, &charges).await;
    time.pass(8 * SHORT).await;
    assert_eq!(remaining(&*store, &charges).await, [7], "all of it has drained");

    let small_burst = rate("burst", 100, HOUR).with_burst(4);
    let charges = [Charge::new(fresh_key(), small_burst, 4)];
    admitted(&*store, &charges).await;
    refused(&*store, &charges).await;
}

pub(super) async fn standings_tell_what_still_fits(store: Arc<impl LimiterStore>) {
    let record = fresh_key();
    let tokens = Charge::new(record, rate("tokens", 1000, HOUR), 250);
    let slots = Charge::new(record, Limit::slots(LimitId::of("slots"), 5), 2);
    let grant = admitted(&*store, &[tokens, slots]).await;
    let standings = store.standings(&[tokens, slots], &grant);
    let [of_tokens, of_slots] = *standings.as_slice() else { panic!("one each") };
    assert_eq!((of_tokens.remaining, of_slots.remaining), (750, 3));
    let reset = of_tokens.reset.as_secs_f64();
    assert!((reset - 900.0).abs() < 1.0, "a quarter of an hour's quota drains in {reset} s");
    assert_eq!(of_slots.reset, Duration::ZERO);
    let too_many = [Charge { cost: 751, ..tokens }];
    let refusal = refused(&*store, &too_many).await;
    let standings = store.standings(&too_many, &refusal.seen);
    assert_eq!(standings.as_slice().first().map(|it| it.remaining), Some(750));
}

pub(super) async fn the_wait_of_a_refusal_is_enough(
    store: Arc<impl LimiterStore>,
    time: &dyn Time,
) {
    let record = fresh_key();
    let quick = Charge::new(record, rate("quick", 2, 2 * SHORT), 2);
    let slow = Charge::new(record, rate("slow", 4, 8 * SHORT), 4);
    admitted(&*store, &[quick, slow]).await;
    let one = [Charge { cost: 1, ..quick }, Charge { cost: 1, ..slow }];
    let refusal = refused(&*store, &one).await;
    assert_eq!(refusal.index, 1, "the one that must wait longest");
    let wait = refusal.retry_after.expect("a wait that is known");
    assert!(wait <= 2 * SHORT && wait > SHORT / 2, "{wait:?}");
    time.pass(wait).await;
    admitted(&*store, &one).await;
}

pub(super) async fn cost_zero_asks_for_debt_alone(store: Arc<impl LimiterStore>, time: &dyn Time) {
    let full = [Charge::new(fresh_key(), rate("quota", 4, 4 * SHORT), 4)];
    let zero = [Charge { cost: 0, ..full[0] }];
    admitted(&*store, &zero).await;
    let grant = admitted(&*store, &full).await;
    admitted(&*store, &zero).await;
    settle(&*store, &full, &grant, &[6]).await;
    let refusal = refused(&*store, &zero).await;
    assert!(refusal.retry_after.is_some_and(|wait| wait <= 2 * SHORT), "{refusal:?}");
    time.pass(2 * SHORT).await;
    admitted(&*store, &zero).await;
}

pub(super) async fn what_is_used_beyond_becomes_debt(
    store: Arc<impl LimiterStore>,
    time: &dyn Time,
) {
    let charges = [Charge::new(fresh_key(), rate("quota", 4, 4 * SHORT), 1)];
    let grant = admitted(&*store, &charges).await;
    settle(&*store, &charges, &grant, &[9]).await;
    assert_eq!(remaining(&*store, &charges).await, [0]);
    time.pass(4 * SHORT).await;
    refused(&*store, &charges).await;
    time.pass(2 * SHORT).await;
    admitted(&*store, &charges).await;
}

pub(super) async fn what_is_not_used_is_given_back(store: Arc<impl LimiterStore>) {
    let charges = [Charge::new(fresh_key(), rate("quota", 10_000, HOUR), 10_000)];
    let grant = admitted(&*store, &charges).await;
    settle(&*store, &charges, &grant, &[2500]).await;
    let [left] = remaining(&*store, &charges).await[..] else { panic!("one") };
    // What drained while the reservation was out is not given back a second time.
    assert!((7490..=7510).contains(&left), "{left}");

    let grant = admitted(&*store, &[Charge { cost: 100, ..charges[0] }]).await;
    let spent = Charge { cost: 100, ..charges[0] };
    settle(&*store, &[spent], &grant, &[100]).await;
    let [after] = remaining(&*store, &charges).await[..] else { panic!("one") };
    assert!(after <= left - 90, "what was used stays charged");
}

pub(super) async fn a_refund_gives_no_window_more_than_its_quota(
    store: Arc<impl LimiterStore>,
    time: &dyn Time,
) {
    // By the time that it is given back, the reservation has drained, and another has been used up.
    let charges = [Charge::new(fresh_key(), rate("quota", 4, 4 * SHORT), 4)];
    let first = admitted(&*store, &charges).await;
    time.pass(4 * SHORT).await;
    let second = admitted(&*store, &charges).await;
    settle(&*store, &charges, &first, &[0]).await;
    let refusal = refused(&*store, &charges).await;
    assert!(refusal.retry_after.is_some_and(|wait| wait > 2 * SHORT), "{refusal:?}");
    settle(&*store, &charges, &second, &[4]).await;
}

pub(super) async fn slots_are_given_back_exactly(store: Arc<impl LimiterStore>) {
    let charges = [Charge::new(fresh_key(), Limit::slots(LimitId::of("slots"), 3), 1)];
    for _ in 0..3 {
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(admitted(&*store, &charges).await);
        }
        let refusal = refused(&*store, &charges).await;
        assert_eq!(refusal.retry_after, None, "nobody knows when a slot is free");
        for grant in held {
            // Used up or not, they are all given back.
            settle(&*store, &charges, &grant, &[1]).await;
        }
        assert_eq!(remaining(&*store, &charges).await, [3]);
    }
}

pub(super) async fn a_cost_beyond_the_capacity_never_fits(store: Arc<impl LimiterStore>) {
    let slots = Limit::slots(LimitId::of("slots"), 10);
    for limit in
        [rate("quota", 10, HOUR), slots, calendar("day", 10, 5), sliding("slides", 10, HOUR)]
    {
        let charges = [Charge::new(fresh_key(), limit, 11)];
        assert_eq!(refused(&*store, &charges).await.retry_after, None);
        assert_eq!(remaining(&*store, &charges).await, [10]);
        admitted(&*store, &[Charge { cost: 10, ..charges[0] }]).await;
    }
    for cost in [u64::MAX, u64::MAX / 2, 1 << 53] {
        for limit in [rate("quota", 10, Duration::MAX), sliding("quota", 10, Duration::MAX)] {
            let charges = [Charge::new(fresh_key(), limit, cost)];
            assert_eq!(refused(&*store, &charges).await.retry_after, None, "{cost}");
        }
    }
}

pub(super) async fn a_new_rate_keeps_what_was_used(store: Arc<impl LimiterStore>) {
    let old = Charge::new(fresh_key(), rate("quota", 10, HOUR), 10);
    admitted(&*store, &[old]).await;
    let new = Charge { limit: rate("quota", 20, HOUR), cost: 1, ..old };
    let [left] = remaining(&*store, &[new]).await[..] else { panic!("one") };
    assert_eq!(left, 0, "all of an hour was used, at the old rate or the new");
    let other = Charge { limit: rate("other", 20, HOUR), ..new };
    assert_eq!(remaining(&*store, &[other]).await, [20]);
}

pub(super) async fn peek_charges_nothing(store: Arc<impl LimiterStore>) {
    let record = fresh_key();
    let slots = Limit::slots(LimitId::of("slots"), 2);
    let charges = [Charge::new(record, rate("quota", 5, HOUR), 5), Charge::new(record, slots, 1)];
    for _ in 0..10 {
        assert_eq!(remaining(&*store, &charges).await, [5, 2]);
    }
    admitted(&*store, &charges).await;
    assert_eq!(remaining(&*store, &charges).await, [0, 1]);
}

pub(super) async fn a_limit_named_twice_is_an_error(store: Arc<impl LimiterStore>) {
    let charge = Charge::new(fresh_key(), rate("quota", 10, HOUR), 6);
    let twice = [charge, Charge { cost: 5, ..charge }];
    assert!(store.acquire(&admission(&twice)).await.is_err());
    assert_eq!(remaining(&*store, &[charge]).await, [10]);
}

pub(super) async fn a_dropped_answer_gives_back_what_it_took(store: Arc<impl LimiterStore>) {
    let record = fresh_key();
    let slots = Charge::new(record, Limit::slots(LimitId::of("slots"), 50), 1);
    let tokens = Charge::new(record, rate("tokens", 1000, HOUR), 20);
    let charges = [slots, tokens];
    for _ in 0..25 {
        let mut answer = Box::pin(store.acquire(&admission(&charges)));
        let polled = answer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(answer) = polled {
            let Ok(Decision::Admitted(grant)) = answer else { panic!("there was room") };
            settle(&*store, &charges, &grant, &[0, 0]).await;
        }
    }
    // A networked store may need a moment to hear that nobody waits any more, and settles in any
    // order: of a rate it then gives back less than it might, but never less than half.
    for _ in 0..100 {
        store.flush().await.expect("the store settles");
        if matches!(remaining(&*store, &charges).await[..], [50, tokens] if tokens >= 750) {
            return;
        }
        crate::runtime::sleep(Duration::from_millis(20)).await;
    }
    let left = remaining(&*store, &charges).await;
    panic!("of 50 slots and 1000 tokens, all of which were given back, {left:?} are there");
}

pub(super) async fn settle_needs_no_runtime(store: Arc<impl LimiterStore>) {
    let charges = [Charge::new(fresh_key(), Limit::slots(LimitId::of("slots"), 1), 1)];
    let grant = admitted(&*store, &charges).await;
    let settles = Arc::clone(&store);
    std::thread::spawn(move || settles.settle(&settlement(&charges, &grant, &[0])))
        .join()
        .expect("settle does not panic");
    store.flush().await.expect("the store settles");
    admitted(&*store, &charges).await;
}

pub(super) async fn concurrent_admissions_are_exact(store: Arc<impl LimiterStore>) {
    let (one, two) = (fresh_key(), fresh_key());
    let charge = |record: Key| Charge::new(record, rate("quota", 100, HOUR), 1);
    // In either order, so that a store which locks as it goes would lock up.
    let orders = [[charge(one), charge(two)], [charge(two), charge(one)]];
    let tasks = (0..4).map(|n: usize| {
        let store = Arc::clone(&store);
        let charges = if n.is_multiple_of(2) { orders[0] } else { orders[1] };
        crate::runtime::join(async move {
            let mut admitted = 0;
            for _ in 0..50 {
                admitted += u64::from(acquire(&*store, &charges).await.is_ok());
            }
            admitted
        })
    });
    let mut admitted = 0;
    for task in tasks.collect::<Vec<_>>() {
        admitted += task.await;
    }
    assert_eq!(admitted, 100, "of 200 at once for a quota of 100");
}

pub(super) async fn records_do_not_mix(store: Arc<impl LimiterStore>) {
    let quota = rate("quota", 1, HOUR);
    for _ in 0..20 {
        admitted(&*store, &[Charge::new(fresh_key(), quota, 1)]).await;
    }
}

pub(super) async fn a_calendar_begins_anew_with_each_period(store: Arc<impl LimiterStore>) {
    let record = fresh_key();
    let day = |number, cost| [Charge::new(record, calendar("quota", 10, number), cost)];
    let full = admitted(&*store, &day(5, 10)).await;
    let standing = store.standings(&day(5, 10), &full).as_slice().first().copied().expect("one");
    assert_eq!((standing.remaining, standing.reset), (0, HOUR));
    let refusal = refused(&*store, &day(5, 1)).await;
    assert_eq!(refusal.retry_after, Some(HOUR), "when the period ends");
    assert_eq!(remaining(&*store, &day(6, 0)).await, [10]);
    refused(&*store, &day(5, 1)).await;
    admitted(&*store, &day(6, 7)).await;
    refused(&*store, &day(6, 4)).await;
    // A caller whose clock is behind has no quota of its own.
    refused(&*store, &day(5, 4)).await;
    admitted(&*store, &day(5, 3)).await;
    assert_eq!(remaining(&*store, &day(6, 0)).await, [0]);
}

pub(super) async fn a_calendar_settles_within_its_period(store: Arc<impl LimiterStore>) {
    let record = fresh_key();
    let day = |number, cost| [Charge::new(record, calendar("quota", 10, number), cost)];
    let unused = admitted(&*store, &day(5, 6)).await;
    settle(&*store, &day(5, 6), &unused, &[2]).await;
    assert_eq!(remaining(&*store, &day(5, 0)).await, [8]);
    let nothing = admitted(&*store, &day(5, 0)).await;
    let late = admitted(&*store, &day(5, 8)).await;
    settle(&*store, &day(5, 0), &nothing, &[5]).await;
    refused(&*store, &day(5, 0)).await;

    admitted(&*store, &day(6, 9)).await;
    settle(&*store, &day(5, 8), &late, &[0]).await;
    settle(&*store, &day(5, 0), &nothing, &[5]).await;
    assert_eq!(remaining(&*store, &day(6, 0)).await, [1], "the period before is forgotten");
}

pub(super) async fn another_quota_keeps_what_was_used(store: Arc<impl LimiterStore>) {
    for limit in [calendar("quota", 10, 5), sliding("quota", 10, HOUR)] {
        let old = Charge::new(fresh_key(), limit, 7);
        admitted(&*store, &[old]).await;
        let mut new = Charge { cost: 1, ..old };
        for (quota, left) in [(20, 13), (7, 0), (5, 0), (8, 1)] {
            new.limit = new.limit.with_quota(quota);
            assert_eq!(remaining(&*store, &[new]).await, [left], "of {quota}");
        }
        admitted(&*store, &[new]).await;
        refused(&*store, &[new]).await;
    }
}

pub(super) async fn a_window_slides(store: Arc<impl LimiterStore>, time: &dyn Time) {
    let window = 4 * SHORT;
    let record = fresh_key();
    let charges = |cost| [Charge::new(record, sliding("quota", 8, window), cost)];
    for cost in [3, 5] {
        admitted(&*store, &charges(cost)).await;
    }
    let refusal = refused(&*store, &charges(4)).await;
    let wait = refusal.retry_after.expect("a wait that is known");
    // Half of it must slide out: half a window from the start of the next one.
    assert!(wait <= window / 2 + window, "{wait:?}");
    time.pass(wait).await;
    admitted(&*store, &charges(4)).await;
    let peeked = store.peek(&admission(&charges(0))).await.expect("the store answers");
    let reset = peeked.as_slice().first().map_or(Duration::ZERO, |standing| standing.reset);
    assert!(reset > window && reset <= 2 * window, "{reset:?}");
    time.pass(reset).await;
    assert_eq!(remaining(&*store, &charges(0)).await, [8], "all of it is there again");
}

pub(super) async fn a_sliding_window_settles(store: Arc<impl LimiterStore>) {
    let charges = [Charge::new(fresh_key(), sliding("quota", 10, HOUR), 8)];
    let zero = [Charge { cost: 0, ..charges[0] }];
    let grant = admitted(&*store, &charges).await;
    settle(&*store, &charges, &grant, &[3]).await;
    assert_eq!(remaining(&*store, &charges).await, [7]);
    let grant = admitted(&*store, &zero).await;
    settle(&*store, &zero, &grant, &[7]).await;
    admitted(&*store, &zero).await;
    settle(&*store, &zero, &grant, &[1]).await;
    refused(&*store, &zero).await;
}

pub(super) async fn all_or_none_by_every_rule(store: Arc<impl LimiterStore>) {
    let (one, other) = (fresh_key(), fresh_key());
    let charges = |cost| {
        [
            Charge::new(one, rate("rate", 100, HOUR), cost),
            Charge::new(one, calendar("calendar", 70, 5), cost),
            Charge::new(other, sliding("sliding", 80, HOUR), cost),
            Charge::new(other, Limit::slots(LimitId::of("slots"), 90), cost),
            // One id for all rules: each counts for itself.
            Charge::new(one, sliding("same", 60, HOUR), cost),
            Charge::new(other, calendar("same", 100, 5), cost),
        ]
    };
    admitted(&*store, &charges(50)).await;
    for limited in 0..6 {
        let mut some = charges(1);
        if let Some(charge) = some.get_mut(limited) {
            charge.cost = 51;
        }
        let refusal = refused(&*store, &some).await;
        assert_eq!(refusal.index, limited);
    }
    assert_eq!(remaining(&*store, &charges(0)).await, [50, 20, 30, 40, 10, 50]);
    let others = [
        Charge::new(one, calendar("same", 10, 5), 10),
        Charge::new(other, rate("same", 10, HOUR), 10),
    ];
    admitted(&*store, &others).await;
    assert_eq!(remaining(&*store, &charges(0)).await, [50, 20, 30, 40, 10, 50]);
}

/// Long beside the time that a call takes, short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

fn rate(name: &str, quota: u64, window: Duration) -> Limit {
    Limit::rate(LimitId::of(name), quota, window)
}

fn calendar(name: &str, quota: u64, period: u64) -> Limit {
    Limit::calendar(LimitId::of(name), quota, period, HOUR)
}

fn sliding(name: &str, quota: u64, window: Duration) -> Limit {
    Limit::sliding(LimitId::of(name), quota, window)
}

fn admission(charges: &[Charge]) -> Admission<'_> {
    Admission::new(ReservationId::next(), charges)
}

fn settlement<'a>(charges: &'a [Charge], grant: &'a Seen, used: &'a [u64]) -> Settlement<'a> {
    Settlement::new(ReservationId::next(), charges, grant.receipts.as_slice(), used)
}

async fn acquire(store: &impl LimiterStore, charges: &[Charge]) -> Result<Seen, Refusal> {
    match store.acquire(&admission(charges)).await.expect("the store answers") {
        Decision::Admitted(grant) => Ok(grant),
        Decision::Refused(refusal) => Err(refusal),
    }
}

#[track_caller]
fn admitted<'a>(
    store: &'a impl LimiterStore,
    charges: &'a [Charge],
) -> impl Future<Output = Seen> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        acquire(store, charges).await.unwrap_or_else(|refusal| panic!("{caller}: {refusal:?}"))
    }
}

#[track_caller]
fn refused<'a>(
    store: &'a impl LimiterStore,
    charges: &'a [Charge],
) -> impl Future<Output = Refusal> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        match acquire(store, charges).await {
            Ok(grant) => panic!("{caller}: must be refused, but {grant:?}"),
            Err(refusal) => refusal,
        }
    }
}

async fn settle(store: &impl LimiterStore, charges: &[Charge], grant: &Seen, used: &[u64]) {
    store.settle(&settlement(charges, grant, used));
    store.flush().await.expect("the store settles");
}

async fn remaining(store: &impl LimiterStore, charges: &[Charge]) -> Vec<u64> {
    let standings: Standings = store.peek(&admission(charges)).await.expect("the store answers");
    standings.as_slice().iter().map(|standing| standing.remaining).collect()
}
