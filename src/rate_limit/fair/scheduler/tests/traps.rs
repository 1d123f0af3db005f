//! What went wrong elsewhere, each by its number in the design's list.

use super::*;

const PAID: usize = 0;
const FREE: usize = 1;

/// Eight slots: four of the paid tier, two of the free one, two of nobody.
fn two_tiers(headroom: usize) -> Bench {
    let tiers = [("paid", Share::percent(50)), ("free", Share::percent(25))];
    Bench::new(plan(Capacity::slots(8), headroom, &tiers))
}

#[test]
fn trap_5_who_asked_for_nothing_has_no_credit() {
    let mut bench = Bench::of_slots(1);
    let mut running = bench.enter(0, 1);
    let first = bench.enter(0, 1);
    // Nobody waits at the moment that the second caller comes anew, after the first was served for long.
    let mut next = first;
    for _ in 0..50 {
        bench.release(running, 100);
        running = next;
        next = bench.enter(0, 1);
    }
    bench.leave(next);
    let (mine, theirs) = (bench.enter_many(0, 1, 3), bench.enter_many(0, 2, 3));
    // By turns from now on, and not fifty of theirs.
    let order = [theirs[0], mine[0], theirs[1], mine[1], theirs[2], mine[2]];
    let mut turns = Vec::new();
    for _ in 0..6 {
        bench.release(running, 100);
        let all: Vec<_> = mine.iter().chain(&theirs).copied().collect();
        running = all.into_iter().find(|it| !turns.contains(it) && bench.runs(*it)).unwrap();
        turns.push(running);
    }
    assert_eq!(turns, order);
}

#[test]
fn trap_6_a_lift_never_lowers() {
    let mut bench = Bench::of_slots(2);
    let heavy = ticket(bench.arrive(Ask { prompt: 5_000, ..bench.ask(0, 1) }));
    let other = bench.enter(0, 2);
    let counter = |bench: &Bench, ticket: Ticket| {
        let flow = bench.scheduler.requests.at(ticket.place).flow;
        bench.scheduler.flows.flows.at(flow).counter
    };
    let before = counter(&bench, heavy);
    let again = bench.enter(0, 1);
    assert_eq!(counter(&bench, again), before);
    // So it waits behind one with less.
    let light = bench.enter(0, 2);
    bench.release(other, 100);
    assert!(bench.runs(light) && !bench.runs(again));
}

#[test]
fn trap_7_only_who_is_ahead_is_remembered() {
    let mut bench = Bench::of_slots(3);
    let (busy, light) = (bench.enter(0, 0), bench.enter(0, 0));
    // Where nobody waits nobody is, however long others run.
    for subject in 1..1_000 {
        let one = bench.enter(0, subject);
        bench.release(one, 100);
        assert_eq!(bench.scheduler.flows.remembered(), 2);
    }
    // Where somebody waits, whoever was served before he came is, until those who wait have had as much.
    let heavy = ticket(bench.arrive(Ask { prompt: 250, ..bench.ask(0, 7) }));
    let waiting = bench.enter_many(0, 8, 6);
    bench.release(heavy, 300);
    let again = bench.enter(0, 7);
    assert!(bench.runs(waiting[0]));
    bench.release(waiting[0], 100);
    assert!(bench.runs(waiting[1]) && !bench.runs(again));
    bench.leave(again);
    assert_eq!(bench.scheduler.flows.remembered(), 5, "its group");
    for done in &waiting[1..5] {
        bench.release(*done, 100);
    }
    assert_eq!(bench.scheduler.flows.remembered(), 4, "it is no longer ahead");
    [busy, light, waiting[5]].into_iter().for_each(|ticket| bench.release(ticket, 100));
    bench.scheduler.assert_empty();
}

#[test]
fn trap_7_beyond_the_bound_all_others_share_one_flow() {
    let share = Share::percent(100);
    let plan = plan(Capacity::slots(1), 0, &[("all", share)]);
    let mut bench = Bench { scheduler: Scheduler::remembering(plan, 20), now: Duration::ZERO };
    let tickets: Vec<_> = (0..100).map(|subject| bench.enter(0, subject)).collect();
    assert!(bench.scheduler.flows.remembered() <= 22);
    let flow = |ticket: Ticket| bench.scheduler.requests.at(ticket.place).flow;
    assert_eq!(flow(tickets[98]), flow(tickets[99]));
    assert_ne!(flow(tickets[0]), flow(tickets[1]));
    // First come, first served among those.
    let mut served = Vec::new();
    for _ in 0..100 {
        let running = *tickets.iter().find(|it| !served.contains(*it) && bench.runs(**it)).unwrap();
        served.push(running);
        bench.release(running, 100);
    }
    let late: Vec<_> = served.iter().filter(|it| tickets[50..].contains(it)).copied().collect();
    assert_eq!(late, tickets[50..]);
    bench.scheduler.assert_empty();
}

#[test]
fn trap_8_all_slots_are_used_and_none_twice() {
    let mut bench = two_tiers(0);
    let mut tickets = bench.enter_many(FREE, 1, 20);
    tickets.extend(bench.enter_many(PAID, 2, 20));
    let running = tickets.iter().filter(|ticket| bench.runs(**ticket)).count();
    assert_eq!(running, 8);
    assert_eq!(bench.scheduler.snapshot(bench.now).in_use, 8);
}

#[test]
fn trap_10_when_the_blocked_head_leaves_the_next_is_let_in() {
    let share = Share::percent(100);
    let capacity = Capacity::slots(10).tokens_in_flight(1_000);
    let mut bench = Bench::new(plan(capacity, 0, &[("all", share)]));
    let first = ticket(bench.arrive(Ask { prompt: 550, ..bench.ask(0, 1) }));
    let large = ticket(bench.arrive(Ask { prompt: 550, ..bench.ask(0, 2) }));
    let small = bench.enter(0, 3);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let poll =
        |scheduler: &mut Scheduler, _, wakes: &mut Wakes| scheduler.poll(small, &waker, wakes);
    assert!(bench.runs(first) && !bench.runs(large));
    assert_eq!(bench.call(poll), Poll::Pending);
    bench.leave(large);
    assert_eq!(woken.count(), 1);
    assert!(bench.runs(small));
}

#[test]
fn trap_11_who_leaves_when_it_was_let_in_passes_it_on_once() {
    let mut bench = Bench::of_slots(1);
    let tickets = bench.enter_many(0, 1, 4);
    bench.release(tickets[0], 100);
    // Let in, and gone before it heard.
    bench.leave(tickets[1]);
    assert!(bench.runs(tickets[2]));
    // Those who are gone have nothing to give, however often.
    for gone in [tickets[0], tickets[1]] {
        bench.leave(gone);
        bench.release(gone, 100);
        bench.first_byte(gone);
        bench.call(|scheduler, now, wakes| scheduler.park(gone, now, wakes));
        bench.call(|scheduler, now, wakes| scheduler.refine(gone, 9, 9, now, wakes));
        bench.call(|scheduler, now, wakes| scheduler.expire(gone, now, wakes));
        assert_eq!(bench.poll(gone), Poll::Ready(Err(Shed::Revoked)));
    }
    assert!(!bench.runs(tickets[3]));
    // Nor has one whose place another has by now.
    bench.leave(tickets[3]);
    let new = bench.enter_many(0, 2, 2);
    assert!(new.iter().any(|new| new.place == tickets[3].place || new.place == tickets[1].place));
    bench.release(tickets[1], 100);
    bench.release(tickets[3], 100);
    assert!(bench.runs(tickets[2]) && !bench.runs(new[0]));
    bench.leave(tickets[2]);
    new.into_iter().for_each(|ticket| bench.leave(ticket));
    bench.scheduler.assert_empty();
}

#[test]
fn trap_13_a_tier_has_its_share_however_many_of_others_come() {
    let mut bench = two_tiers(0);
    let paid = bench.enter_many(PAID, 1, 100);
    let free = bench.enter_many(FREE, 2, 4);
    // Eight of the paid tier run, since nobody else was there.
    for done in &paid[..2] {
        bench.release(*done, 100);
    }
    assert!(bench.runs(free[0]) && bench.runs(free[1]), "its share, before any more is lent");
    assert_eq!(bench.tier("paid").in_use, 6);
}

#[test]
fn what_is_lent_goes_by_weight() {
    let tiers = [("paid", Share::percent(40)), ("free", Share::percent(20))];
    let mut bench = Bench::new(plan(Capacity::slots(100), 0, &tiers));
    let mut running: Vec<_> = [PAID, FREE]
        .into_iter()
        .flat_map(|tier| bench.enter_many(tier, tier as u64, 500))
        .collect();
    for turn in 0..600 {
        // All run for about as long.
        let mut all: Vec<_> = (0..running.len()).filter(|at| bench.runs(running[*at])).collect();
        let at = all.remove(turn * 37 % all.len());
        bench.release(running.remove(at), 100);
    }
    let lent = ["paid", "free"].map(|tier| bench.tier(tier).borrowed);
    assert_eq!(lent[0] + lent[1], 40);
    assert!((23..=30).contains(&lent[0]), "{lent:?}");
}

#[test]
fn trap_15_a_full_queue_loses_the_newest_of_whom_most_wait() {
    let share = Share::percent(100).queue(10);
    let mut bench = Bench::new(plan(Capacity::slots(1), 0, &[("all", share)]));
    let flood = bench.enter_many(0, 1, 11);
    // Ten wait, all of one caller: it may have no more, and others may.
    let ask = bench.ask(0, 1);
    assert_eq!(bench.arrive(ask), Arrival::Refused(Shed::QueueFull));
    let honest = bench.enter_many(0, 2, 2);
    assert_eq!(bench.poll(flood[10]), Poll::Ready(Err(Shed::QueueFull)));
    assert_eq!(bench.poll(flood[9]), Poll::Ready(Err(Shed::QueueFull)));
    assert_eq!(bench.poll(flood[8]), Poll::Pending);
    assert_eq!((bench.tier("all").waiting, bench.tier("all").refused.queue_full), (10, 3));
    bench.release(flood[0], 100);
    assert!(bench.runs(honest[0]));
    // Nobody gains by taking another's place who would have as many then.
    let more = bench.enter_many(0, 2, 3);
    assert_eq!(bench.poll(more[2]), Poll::Pending);
    let ask = bench.ask(0, 2);
    assert!(matches!(bench.arrive(ask), Arrival::Waiting(_)));
    assert_eq!(bench.arrive(ask), Arrival::Refused(Shed::QueueFull));
}

#[test]
fn trap_15_a_colleague_who_floods_makes_room_for_those_of_his_group() {
    for others in [2, 3] {
        let share = Share::percent(100).queue(2 + others);
        let mut bench = Bench::new(plan(Capacity::slots(1), 0, &[("all", share)]));
        bench.enter(0, 99);
        let of = |bench: &Bench, group, subject| Ask { group, ..bench.ask(0, subject) };
        let mut enter = |group, subject| {
            let ask = of(&bench, group, subject);
            bench.arrive(ask)
        };
        let flood = [1, 1].map(|subject| ticket(enter(1, subject)));
        let strangers: Vec<_> = (0..others).map(|_| ticket(enter(2, 3))).collect();
        // Another group has as many, or one more: no more than that of who comes now.
        assert!(matches!(enter(1, 2), Arrival::Waiting(_)));
        assert_eq!(bench.poll(flood[1]), Poll::Ready(Err(Shed::QueueFull)));
        for waiting in [&flood[..1], &strangers].concat() {
            assert_eq!(bench.poll(waiting), Poll::Pending);
        }
    }
}

/// Traps 19 and 24: what nobody waited for is no wait.
#[test]
fn trap_24_a_time_in_which_nobody_waited_is_no_wait() {
    let mut bench = Bench::new(plan(Capacity::slots(1), 0, &[("all", Share::percent(100))]));
    let one = bench.enter_many(0, 1, 3);
    bench.release(one[0], 1);
    // The one that waited on leaves.
    bench.release(one[2], 0);
    bench.release(one[1], 1);
    bench.now += 3600 * SECOND;
    let one = bench.enter_many(0, 1, 2);
    bench.release(one[0], 1);
    bench.enter(0, 1);
    let ask = bench.ask(0, 1);
    assert!(matches!(bench.arrive(ask), Arrival::Waiting(_)));
    assert_eq!(bench.scheduler.drains_in(0, bench.now), Duration::ZERO);
}

/// An engine that hung, and a tier of a single caller.
#[test]
fn trap_24_one_long_wait_does_not_shut_a_caller_out_for_ever() {
    let share = Share::percent(100).max_wait(30 * SECOND);
    let mut bench = Bench::new(plan(Capacity::slots(1), 0, &[("all", share)]));
    let one = bench.enter_many(0, 1, 4);
    bench.release(one[0], 1);
    bench.now += 25 * SECOND;
    bench.release(one[1], 1);
    bench.now += 2 * SECOND;
    for _ in 0..2 {
        let ask = Ask { deadline: bench.now + 20 * SECOND, ..bench.ask(0, 1) };
        assert_eq!(bench.arrive(ask), Arrival::Refused(Shed::Deadline));
    }
    bench.now += 8 * 25 * SECOND;
    let ask = Ask { deadline: bench.now + 20 * SECOND, ..bench.ask(0, 1) };
    assert!(matches!(bench.arrive(ask), Arrival::Waiting(_)));
}

/// Nor does one account buy turns by the addresses that it comes from.
#[test]
fn trap_15_one_account_in_many_networks_is_one() {
    let mut bench = Bench::new(plan(Capacity::slots(1), 0, &[("all", Share::percent(100))]));
    let mut running = bench.enter(0, 99);
    let mut waiting = Vec::new();
    for group in 1..=10 {
        let ask = Ask { group, stays: true, ..bench.ask(0, 1) };
        waiting.push((1, ticket(bench.arrive(ask))));
    }
    for _ in 0..10 {
        let ask = Ask { group: 50, stays: true, ..bench.ask(0, 2) };
        waiting.push((2, ticket(bench.arrive(ask))));
    }
    let mut served = Vec::new();
    for _ in 0..10 {
        bench.release(running, 100);
        let at = waiting.iter().position(|(_, ticket)| bench.runs(*ticket)).unwrap();
        let (who, ticket) = waiting.swap_remove(at);
        running = ticket;
        served.push(who);
    }
    assert_eq!(served.iter().filter(|who| **who == 2).count(), 5, "{served:?}");
    // Where it is not in line any more, it is of the network that it comes from then.
    for (_, ticket) in waiting {
        bench.release(ticket, 100);
    }
    bench.release(running, 100);
    let ask = Ask { group: 50, stays: true, ..bench.ask(0, 1) };
    let ticket = ticket(bench.arrive(ask));
    let group = |bench: &Bench, ticket: Ticket| {
        let flow = bench.scheduler.requests.at(ticket.place).flow;
        bench.scheduler.flows.flows.at(flow).parent
    };
    let other = bench.arrive(Ask { group: 50, ..bench.ask(0, 3) });
    assert_eq!(group(&bench, ticket), group(&bench, super::ticket(other)));
}

#[test]
fn those_that_stay_in_their_groups_are_forgotten_as_others_are() {
    let mut bench = Bench::new(plan(Capacity::slots(4), 0, &[("all", Share::percent(100))]));
    let mut live = VecDeque::new();
    for n in 0_u64..20_000 {
        let (group, subject) = (n * 7919 % 501, n * 104_729 % 3001);
        let ask = Ask { group, stays: n % 5 > 0, ..bench.ask(0, subject) };
        live.push_back(ticket(bench.arrive(ask)));
        if live.len() > 40 {
            // Not always the one that runs.
            let gone = live.remove(n as usize % 7).unwrap();
            bench.release(gone, n % 100);
        }
        if n % 1000 == 0 {
            bench.scheduler.flows.assert_consistent();
        }
    }
    live.into_iter().for_each(|ticket| bench.release(ticket, 1));
    bench.scheduler.assert_empty();
}

#[test]
fn trap_15_many_accounts_of_one_group_are_one() {
    let share = Share::percent(100).queue(10);
    let mut bench = Bench::new(plan(Capacity::slots(1), 0, &[("all", share)]));
    let running = bench.enter(0, 99);
    let sybil = |bench: &Bench, subject| Ask { group: 7, ..bench.ask(0, subject) };
    let farm: Vec<_> = (0..10)
        .map(|subject| {
            let ask = sybil(&bench, subject);
            ticket(bench.arrive(ask))
        })
        .collect();
    let honest = bench.enter_many(0, 200, 3);
    let refused = farm.iter().filter(|it| bench.poll(**it).is_ready()).count();
    assert_eq!(refused, 3, "each has one that waits, as the honest caller's first");
    // Nor have they ten turns for one of his.
    let mut running = running;
    let mut turns = Vec::new();
    for _ in 0..6 {
        bench.release(running, 100);
        let all: Vec<_> = farm.iter().chain(&honest).copied().collect();
        running = all.into_iter().find(|it| !turns.contains(it) && bench.runs(*it)).unwrap();
        turns.push(running);
    }
    assert_eq!(turns.iter().filter(|it| honest.contains(it)).count(), 3);
}

#[test]
fn trap_16_a_share_of_slots_is_one_of_tokens_as_well() {
    let tiers = [("paid", Share::percent(50)), ("free", Share::percent(50))];
    let capacity = Capacity::slots(10).tokens_in_flight(10_000);
    let mut bench = Bench::new(plan(capacity, 2, &tiers));
    let long = Ask { prompt: 2_000, output: 0, ..bench.ask(FREE, 1) };
    let free: Vec<_> = (0..5).map(|_| ticket(bench.arrive(long))).collect();
    // Four slots are the tier's, but two such prompts; two more are lent, but none of the headroom.
    assert_eq!(free.iter().filter(|it| bench.runs(**it)).count(), 4);
    let paid = ticket(bench.arrive(Ask { prompt: 2_000, output: 0, ..bench.ask(PAID, 2) }));
    assert!(bench.runs(paid), "it finds its tokens free");
}

#[test]
fn headroom_is_lent_to_nobody() {
    let mut bench = two_tiers(2);
    let free = bench.enter_many(FREE, 1, 8);
    assert_eq!(free.iter().filter(|it| bench.runs(**it)).count(), 6);
    let paid = bench.enter_many(PAID, 2, 3);
    assert!(bench.runs(paid[0]) && bench.runs(paid[1]) && !bench.runs(paid[2]));
}

#[test]
fn a_tier_borrows_up_to_its_bound() {
    let tiers =
        [("paid", Share::percent(50)), ("free", Share::percent(25).borrow_up_to_percent(50))];
    let mut bench = Bench::new(plan(Capacity::slots(8), 0, &tiers));
    let free = bench.enter_many(FREE, 1, 8);
    assert_eq!(free.iter().filter(|it| bench.runs(**it)).count(), 4);
}

#[test]
fn trap_19_owners_who_wait_are_counted() {
    let mut bench = two_tiers(0);
    bench.enter_many(FREE, 1, 8);
    assert_eq!(bench.tier("free").owners_waited, 0);
    bench.enter_many(PAID, 2, 2);
    assert_eq!(bench.tier("paid").owners_waited, 2);
}

#[test]
fn trap_20_a_prompt_longer_than_what_may_be_pending_goes_alone() {
    let tiers = [("paid", Share::percent(50)), ("free", Share::percent(50))];
    let mut bench = Bench::new(plan(Capacity::slots(10).prefill_pending(1_000), 0, &tiers));
    let long = Ask { prompt: 6_000, ..bench.ask(FREE, 1) };
    let (first, second) = (ticket(bench.arrive(long)), ticket(bench.arrive(long)));
    assert!(bench.runs(first) && !bench.runs(second));
    // The other tier's own part is not touched.
    let paid = bench.enter(PAID, 2);
    assert!(bench.runs(paid));
    bench.first_byte(first);
    assert!(bench.runs(second));
}

#[test]
fn trap_24_what_cant_be_in_time_is_refused_at_once_and_nobody_may_wait_longer_than_his_tier() {
    let share = Share::percent(100).max_wait(20 * SECOND);
    let mut bench = Bench::new(plan(Capacity::slots(1), 0, &[("all", share)]));
    let mut tickets = bench.enter_many(0, 1, 8);
    // A second for each.
    for _ in 0..3 {
        bench.now += SECOND;
        bench.release(tickets.remove(0), 100);
    }
    assert!(bench.scheduler.drains_in(0, bench.now) >= 3 * SECOND);
    let within = |bench: &Bench, subject, patience| Ask {
        deadline: bench.now + patience * SECOND,
        ..bench.ask(0, subject)
    };
    let ask = within(&bench, 1, 3);
    assert_eq!(bench.arrive(ask), Arrival::Refused(Shed::Deadline));
    // One with none before his waits behind nobody's flood.
    let ask = within(&bench, 2, 3);
    assert!(matches!(bench.arrive(ask), Arrival::Waiting(_)));
    let ask = within(&bench, 3, 0);
    assert_eq!(bench.arrive(ask), Arrival::Refused(Shed::Deadline));
    // An hour is asked for, and twenty seconds are had; not by who waits longest is it anybody's turn.
    let patient = bench.enter(0, 4);
    bench.now += 20 * SECOND;
    bench.call(|scheduler, now, wakes| scheduler.expire(patient, now, wakes));
    assert_eq!(bench.poll(patient), Poll::Ready(Err(Shed::Deadline)));
}

#[test]
fn a_late_timer_wastes_no_slot() {
    let mut bench = Bench::of_slots(1);
    let first = bench.enter(0, 1);
    let late = ticket(bench.arrive(Ask { deadline: SECOND, ..bench.ask(0, 2) }));
    let next = bench.enter(0, 3);
    bench.now = SECOND;
    bench.release(first, 100);
    assert!(bench.runs(next));
    assert_eq!(bench.poll(late), Poll::Ready(Err(Shed::Deadline)));
    assert_eq!(bench.tier("all").refused.deadline, 1);
}

#[test]
fn trap_25_room_is_gathered_for_a_large_request_within_its_own_tier() {
    let tiers = [("paid", Share::percent(50)), ("free", Share::percent(50))];
    let capacity = Capacity::slots(10).tokens_in_flight(2_000);
    let mut bench = Bench::new(plan(capacity, 0, &tiers));
    let free = bench.enter_many(FREE, 1, 9);
    let paid = bench.enter_many(PAID, 2, 1);
    // Most of its tier's tokens, of which too few are left while the tier has borrowed slots.
    let large = ticket(bench.arrive(Ask { prompt: 950, ..bench.ask(FREE, 3) }));
    let small = bench.enter(FREE, 4);
    for (at, done) in free.iter().enumerate() {
        assert!(!bench.runs(large), "{at}");
        assert!(!bench.runs(small), "it would starve the large one");
        // The other tier is not held up.
        let other = bench.enter(PAID, 5);
        bench.release(*done, 100);
        assert!(bench.runs(other));
        bench.release(other, 100);
        if bench.runs(large) {
            break;
        }
    }
    assert!(bench.runs(large));
    assert!(bench.runs(paid[0]));
}

#[test]
fn trap_25_what_is_larger_than_its_tiers_share_never_waits() {
    let tiers = [("paid", Share::percent(50)), ("free", Share::percent(50))];
    let capacity = Capacity::slots(10).tokens_in_flight(2_000);
    let mut bench = Bench::new(plan(capacity, 1, &tiers));
    let large = |bench: &Bench| Ask { prompt: 1_500, output: 0, ..bench.ask(FREE, 3) };
    let ask = large(&bench);
    let first = ticket(bench.arrive(ask));
    assert!(bench.runs(first));
    assert_eq!(bench.arrive(ask), Arrival::Refused(Shed::TooLarge));
    bench.release(first, 1_500);
    // Not even alone does it have what is kept free.
    assert_eq!(bench.arrive(Ask { prompt: 1_900, ..ask }), Arrival::Refused(Shed::TooLarge));
    assert_eq!(bench.tier("free").refused.too_large, 2);
    bench.scheduler.assert_empty();
}

#[test]
fn trap_26_waiters_are_bounded_in_bytes() {
    let share = Share::percent(100).queue_bytes(1_000);
    let mut bench = Bench::new(plan(Capacity::slots(1), 0, &[("all", share)]));
    bench.enter(0, 1);
    let ask = |bench: &Bench, subject, bytes| Ask { bytes, ..bench.ask(0, subject) };
    let first = ask(&bench, 1, 400);
    assert!(matches!(bench.arrive(first), Arrival::Waiting(_)));
    let second = ticket(bench.arrive(first));
    let third = bench.arrive(first);
    assert_eq!(third, Arrival::Refused(Shed::QueueFull));
    let other = ask(&bench, 2, 400);
    assert!(matches!(bench.arrive(other), Arrival::Waiting(_)));
    assert_eq!(bench.poll(second), Poll::Ready(Err(Shed::QueueFull)));
    let whole = ask(&bench, 3, 1_001);
    assert_eq!(bench.arrive(whole), Arrival::Refused(Shed::QueueFull));
    assert_eq!(bench.tier("all").waiting_bytes, 800);
}

#[test]
fn where_none_may_wait_what_does_not_fit_is_refused() {
    let share = Share::percent(100).queue(0).max_prompt_tokens(60);
    let mut bench = Bench::new(plan(Capacity::slots(1), 0, &[("all", share)]));
    let first = bench.enter(0, 1);
    let ask = bench.ask(0, 2);
    assert_eq!(bench.arrive(ask), Arrival::Refused(Shed::QueueFull));
    let long = Ask { prompt: 61, ..ask };
    assert_eq!(bench.arrive(long), Arrival::Refused(Shed::PromptTooLong));
    bench.release(first, 100);
    assert!(matches!(bench.arrive(ask), Arrival::Admitted(_)));
    assert_eq!(bench.tier("all").refused.prompt_too_long, 1);
}

#[test]
fn counters_are_lowered_before_they_overflow() {
    let share = Share::percent(100);
    let dear = TokenWeights::new(u32::MAX, u32::MAX);
    let plan = Plan { weights: dear, ..plan(Capacity::slots(1), 0, &[("all", share)]) };
    let mut bench = Bench::new(plan);
    let dearest = |bench: &Bench, subject| Ask { prompt: u64::MAX, ..bench.ask(0, subject) };
    let mut running = bench.enter(0, 9);
    let mut queue = VecDeque::new();
    for subject in [1, 2, 1, 2] {
        let ask = dearest(&bench, subject);
        queue.push_back(ticket(bench.arrive(ask)));
    }
    // Each adds 2^48: the counters would be beyond 2^64 in the end. They take turns all the time.
    for turn in 0..(1 << 18) {
        let used = TokenUsage::new(u64::MAX, 0);
        bench.call(|scheduler, now, wakes| scheduler.release(running, used, now, wakes));
        running = queue.pop_front().unwrap();
        assert!(bench.runs(running), "{turn}");
        let ask = dearest(&bench, [1, 2][turn % 2]);
        queue.push_back(ticket(bench.arrive(ask)));
    }
    let tier = bench.scheduler.requests.at(running.place).tier;
    assert!(bench.scheduler.tiers.at(tier).counter < 1 << 63);
}

#[test]
fn trap_7_who_comes_again_is_found_as_if_he_had_never_been() {
    let mut bench = Bench::of_slots(1);
    let flow = |bench: &Bench, ticket: Ticket| bench.scheduler.requests.at(ticket.place).flow;
    let first = bench.enter(0, 1);
    let known = flow(&bench, first);
    bench.release(first, 1000);
    bench.scheduler.assert_empty();
    let again = bench.enter(0, 1);
    assert_eq!(flow(&bench, again), known);
    assert_eq!(bench.scheduler.flows.flows.at(known).counter, 100 * TOKEN);
    bench.release(again, 100);
    // After as many others he is forgotten, and nothing of him is theirs.
    for other in 2..2 + MOST_SPENT as u64 {
        let one = bench.enter(0, other);
        assert_eq!(bench.scheduler.flows.flows.at(flow(&bench, one)).counter, 100 * TOKEN);
        bench.release(one, 500);
    }
    bench.scheduler.assert_empty();
    assert_eq!(bench.scheduler.flows.flows.len(), 1 + MOST_SPENT);
}
