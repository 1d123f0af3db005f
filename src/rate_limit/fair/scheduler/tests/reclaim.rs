//! Room for an owner, from those that have borrowed.

use super::*;
use crate::rate_limit::fair::plan::Revoke;

/// Four slots, half of them each tier's; the free tier has borrowed all.
fn borrowed(revoke: Revoke, yields: bool) -> (Bench, Vec<Ticket>) {
    borrowed_of(4, revoke, yields)
}

fn borrowed_of(slots: usize, revoke: Revoke, yields: bool) -> (Bench, Vec<Ticket>) {
    let tiers = [("paid", Share::percent(50)), ("free", Share::percent(50).revocable(revoke))];
    let plan = Plan { yields, ..plan(Capacity::slots(slots), 0, &tiers) };
    let mut bench = Bench::new(plan);
    let tickets = bench.enter_many(FREE, 1, slots);
    tickets.iter().for_each(|ticket| assert!(bench.runs(*ticket)));
    (bench, tickets)
}

const PAID: usize = 0;
const FREE: usize = 1;

#[test]
fn an_owner_has_the_newest_of_those_who_borrow_parked() {
    let (mut bench, free) = borrowed(Revoke::Never, true);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let running =
        |scheduler: &mut Scheduler, _, wakes: &mut Wakes| scheduler.running(free[3], &waker, wakes);
    assert_eq!(bench.call(running), Poll::Pending);
    let paid = bench.enter(PAID, 2);
    assert_eq!(woken.count(), 1);
    assert_eq!(bench.all_told(&free), [free[3]]);
    assert_eq!(bench.told(free[3]), Some(Signal::Yield));
    // Busy until the engine says so.
    assert!(!bench.runs(paid));
    bench.call(|scheduler, now, wakes| scheduler.park(free[3], now, wakes));
    assert!(bench.runs(paid));
    assert_eq!(bench.poll(free[3]), Poll::Pending);
    assert_eq!(bench.tier("free").parked, 1);

    // It goes on before all others of its subject, and its time never runs out.
    let later = bench.enter(FREE, 1);
    bench.now += 7200 * SECOND;
    bench.call(|scheduler, now, wakes| scheduler.expire(free[3], now, wakes));
    bench.release(paid, 100);
    assert!(bench.runs(free[3]));
    assert_eq!(bench.poll(later), Poll::Ready(Err(Shed::Deadline)));
    assert_eq!(bench.told(free[3]), None);
}

/// Trap 32: an engine that works on for a client that has left.
#[test]
fn what_was_dropped_is_not_told_to_stop_and_has_its_place_for_a_while() {
    let (mut bench, free) = borrowed(Revoke::Always, false);
    bench.first_byte(free[3]);
    let used = TokenUsage::new(10, 0);
    assert!(bench.call(|scheduler, _, _| scheduler.linger(free[3], used)));
    assert_eq!((bench.tier("free").in_use, bench.scheduler.streams), (4, 0));
    // The newest of the others is told.
    let paid = bench.enter(PAID, 2);
    assert_eq!(bench.all_told(&free), [free[2]]);
    assert!(!bench.runs(paid));
    assert!(bench.call(|scheduler, _, _| scheduler.linger(free[2], used)));
    // What lingers is free when it is released, and is charged once.
    bench.release(free[3], 10);
    assert!(bench.runs(paid));
    bench.leave(paid);
    free[..3].iter().for_each(|ticket| bench.leave(*ticket));
    bench.scheduler.assert_empty();
}

#[test]
fn what_was_parked_and_is_dropped_is_gone_from_the_engine() {
    let (mut bench, free) = borrowed(Revoke::Never, true);
    let paid = bench.enter(PAID, 2);
    bench.call(|scheduler, now, wakes| scheduler.park(free[3], now, wakes));
    assert!(bench.runs(paid));
    let used = TokenUsage::new(10, 0);
    assert!(!bench.call(|scheduler, _, _| scheduler.linger(free[3], used)));
    assert!(!bench.call(|scheduler, _, _| scheduler.linger(Ticket { serial: 0, ..paid }, used)));
}

#[test]
fn what_is_parked_is_refunded_and_charged_again() {
    let (mut bench, free) = borrowed(Revoke::Never, true);
    let counter = |bench: &Bench| {
        let flow = bench.scheduler.requests.at(free[0].place).flow;
        bench.scheduler.flows.flows.at(flow).counter
    };
    let before = counter(&bench);
    let paid = bench.enter(PAID, 2);
    bench.call(|scheduler, now, wakes| scheduler.park(free[3], now, wakes));
    assert_eq!(counter(&bench), before - 100 * TOKEN);
    bench.release(paid, 100);
    assert_eq!(counter(&bench), before);
    bench.release(free[3], 40);
    assert_eq!(counter(&bench), before - 60 * TOKEN);
}

#[test]
fn what_was_lent_is_charged_though_it_is_left_while_parked() {
    let (mut bench, free) = borrowed(Revoke::Never, true);
    let counter = |bench: &Bench| bench.scheduler.tiers.at(FREE as u32).counter;
    let before = counter(&bench);
    bench.enter(PAID, 2);
    bench.call(|scheduler, now, wakes| scheduler.park(free[3], now, wakes));
    let parked = counter(&bench);
    bench.release(free[3], 40);
    assert_eq!(counter(&bench) - parked, (before - parked) * 40 / 100);
}

/// An answer that nobody reads, a socket that nobody listens for: two of them must not keep all others' slots.
#[test]
fn trap_23_those_that_do_not_stop_are_not_waited_for_for_ever() {
    let (mut bench, free) = borrowed_of(8, Revoke::Always, false);
    let paid = bench.enter_many(PAID, 2, 4);
    assert_eq!(bench.all_told(&free), [free[6], free[7]]);
    bench.now += 4 * SECOND;
    bench.enter(PAID, 3);
    assert_eq!(bench.all_told(&free), [free[6], free[7]]);
    bench.now += SECOND;
    // By the timer of one that waits.
    bench.call(|scheduler, now, wakes| scheduler.expire(paid[0], now, wakes));
    assert_eq!(bench.all_told(&free), [free[4], free[5], free[6], free[7]]);
    bench.release(free[4], 1);
    bench.release(free[5], 1);
    assert!(bench.runs(paid[0]));
    // They go at last, as if they had listened.
    for ticket in [0, 1, 2, 3, 6, 7] {
        bench.release(free[ticket], 1);
    }
}

/// It has stopped, and only its slot is kept for a while.
#[test]
fn nobody_is_told_in_the_place_of_one_that_lingers() {
    let (mut bench, free) = borrowed(Revoke::Always, false);
    let paid = bench.enter(PAID, 2);
    assert_eq!(bench.all_told(&free), [free[3]]);
    assert!(bench.call(|scheduler, _, _| scheduler.linger(free[3], TokenUsage::new(1, 1))));
    bench.now += 6 * SECOND;
    bench.call(|scheduler, now, wakes| scheduler.expire(paid, now, wakes));
    assert_eq!(bench.all_told(&free), [free[3]]);
    bench.release(free[3], 1);
    assert!(bench.runs(paid));
}

#[test]
fn only_who_has_not_begun_is_broken_off_unless_the_tier_says_so() {
    let (mut bench, free) = borrowed(Revoke::BeforeFirstByte, false);
    bench.first_byte(free[3]);
    bench.enter(PAID, 2);
    assert_eq!(bench.all_told(&free), [free[2]]);
    assert_eq!(bench.told(free[2]), Some(Signal::Revoked));
    assert_eq!(bench.tier("free").revoked, 1);

    let (mut bench, free) = borrowed(Revoke::BeforeFirstByte, false);
    free.iter().for_each(|ticket| bench.first_byte(*ticket));
    bench.enter(PAID, 2);
    assert_eq!(bench.all_told(&free), []);

    let (mut bench, free) = borrowed(Revoke::Always, false);
    free.iter().for_each(|ticket| bench.first_byte(*ticket));
    bench.enter(PAID, 2);
    assert_eq!(bench.all_told(&free), [free[3]]);

    let (mut bench, free) = borrowed(Revoke::Never, false);
    bench.enter(PAID, 2);
    assert_eq!(bench.all_told(&free), []);
}

/// As a flag on a request, *borrowed* made this run in a circle: what went on as borrowed was asked for again at once.
#[test]
fn trap_1_a_tier_at_its_share_gives_nothing_back() {
    let (mut bench, free) = borrowed(Revoke::Always, false);
    let paid = bench.enter_many(PAID, 2, 5);
    // Two, for the two slots that are the owner's, and no more than those.
    assert_eq!(bench.all_told(&free), [free[2], free[3]]);
    bench.release(free[2], 0);
    bench.release(free[3], 0);
    assert!(bench.runs(paid[0]) && bench.runs(paid[1]) && !bench.runs(paid[2]));
    assert_eq!(bench.all_told(&free[..2]), []);
    assert!(!bench.scheduler.borrows(free[0]), "the same requests, which were borrowed before");
}

#[test]
fn trap_23_what_is_told_to_stop_counts_until_it_has() {
    let (mut bench, free) = borrowed_of(8, Revoke::Always, false);
    let paid = bench.enter_many(PAID, 2, 4);
    // At most two at a time, however many are asked for.
    assert_eq!(bench.all_told(&free), [free[6], free[7]]);
    assert!(paid.iter().all(|ticket| !bench.runs(*ticket)));
    bench.release(free[7], 0);
    assert!(bench.runs(paid[0]) && !bench.runs(paid[1]));
    assert_eq!(bench.all_told(&free[..7]), [free[5], free[6]]);
    // One that ends by itself counts as well.
    bench.release(free[0], 0);
    assert!(bench.runs(paid[1]) && !bench.runs(paid[2]));
    assert_eq!(bench.all_told(&free[1..7]), [free[5], free[6]]);
    assert_eq!(bench.tier("free").revoked, 3);
}

#[test]
fn nothing_is_taken_back_for_one_who_would_borrow_it() {
    let (mut bench, free) = borrowed(Revoke::Always, false);
    bench.release(free[0], 0);
    bench.release(free[1], 0);
    bench.enter_many(PAID, 2, 2);
    bench.enter_many(PAID, 2, 3);
    assert_eq!(bench.all_told(&free[2..]), []);
}

#[test]
fn tokens_are_taken_back_as_slots_are() {
    let tiers =
        [("paid", Share::percent(50)), ("free", Share::percent(50).revocable(Revoke::Always))];
    let mut bench = Bench::new(plan(Capacity::slots(10).tokens_in_flight(1_000), 0, &tiers));
    let free: Vec<_> = (0..2)
        .map(|_| ticket(bench.arrive(Ask { prompt: 400, output: 50, ..bench.ask(FREE, 1) })))
        .collect();
    let paid = bench.enter(PAID, 2);
    assert!(bench.runs(paid), "a hundred tokens are left");
    let next = bench.enter(PAID, 2);
    assert_eq!(bench.all_told(&free), [free[1]]);
    bench.release(free[1], 0);
    assert!(bench.runs(next));
}
