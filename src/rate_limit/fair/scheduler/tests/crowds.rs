//! Ten thousand callers.

use super::*;

/// A sequence that looks random, and is the same each time (SplitMix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most
    }
}

const CROWD: u64 = 10_000;
/// The dearest request, in tokens.
const DEAREST: u64 = 1_000;

/// Callers who always want more, and what each was served: with what was used as a part of what it was thought to be.
fn served(
    subjects: u64,
    slots: usize,
    rounds: u64,
    used: impl Fn(&mut Dice, u64) -> u64,
) -> (Vec<u64>, u64) {
    let (mut bench, mut dice) = (Bench::of_slots(slots), Dice(7));
    let mut running = Vec::new();
    let mut waiting = vec![None; subjects as usize];
    let mut served = vec![0; subjects as usize];
    let come = |bench: &mut Bench, dice: &mut Dice, subject: u64| {
        let tokens = DEAREST / 10 + dice.below(DEAREST - DEAREST / 10) + 1;
        let ask = Ask { prompt: tokens, output: 0, ..bench.ask(0, subject) };
        (ticket(bench.arrive(ask)), tokens)
    };
    for subject in 0..subjects {
        waiting[subject as usize] = Some(come(&mut bench, &mut dice, subject));
    }
    let mut spread = 0;
    let mut let_in = 0;
    while let_in < rounds * subjects {
        for subject in 0..subjects {
            let Some((ticket, tokens)) = waiting[subject as usize] else { continue };
            if bench.scheduler.requests.at(ticket.place).state == State::Running {
                running.push((ticket, tokens, subject));
                waiting[subject as usize] = Some(come(&mut bench, &mut dice, subject));
                let_in += 1;
            }
        }
        let flows = (0..subjects).filter_map(|subject| waiting[subject as usize]);
        let counters = flows.map(|(ticket, _)| {
            let flows = &bench.scheduler.flows.flows;
            let flow = bench.scheduler.requests.at(ticket.place).flow;
            flows.at(flows.at(flow).parent).counter
        });
        let (least, most) =
            counters.fold((u64::MAX, 0), |(least, most), it| (it.min(least), it.max(most)));
        spread = spread.max(most - least);
        for (ticket, tokens, subject) in running.drain(..) {
            let used = used(&mut dice, tokens);
            served[subject as usize] += used;
            bench.release(ticket, used);
        }
    }
    (served, spread)
}

/// One, if all have the same (Jain, 1984).
fn jain(served: &[u64]) -> f64 {
    let sum = served.iter().map(|it| *it as f64).sum::<f64>();
    let squares = served.iter().map(|it| (*it as f64).powi(2)).sum::<f64>();
    sum * sum / (served.len() as f64 * squares)
}

#[test]
fn ten_thousand_callers_are_served_alike() {
    let (served, spread) = served(CROWD, 2_000, 20, |_, tokens| tokens);
    assert!(jain(&served) >= 0.99, "{}", jain(&served));
    assert!(spread <= DEAREST * TOKEN * 11 / 10, "{spread}");
}

/// A hundred callers, and as long an answer granted to each as it may be, of which it uses a half on the average. Nothing is
/// charged at the end alone: else this is eighteen times what one request costs (trap 3).
#[test]
fn trap_2_and_3_a_refund_finds_its_place_at_once() {
    let (served, spread) = served(100, 16, 400, |dice, tokens| 1 + dice.below(tokens));
    assert!(jain(&served) >= 0.99, "{}", jain(&served));
    assert!(spread <= DEAREST * TOKEN * 2, "{spread}");
}

#[test]
fn ten_thousand_who_leave_leave_nothing() {
    let (mut bench, mut dice) = (Bench::of_slots(4), Dice(11));
    let mut tickets: Vec<_> = (0..CROWD).map(|subject| bench.enter(0, subject % 3_000)).collect();
    while !tickets.is_empty() {
        let at = dice.below(tickets.len() as u64) as usize;
        let ticket = tickets.swap_remove(at);
        bench.leave(ticket);
    }
    bench.scheduler.assert_empty();
    // Nor does the place that they had grow.
    let places = bench.scheduler.requests.iter().count();
    let tickets: Vec<_> = (0..CROWD).map(|subject| bench.enter(0, subject)).collect();
    assert_eq!(bench.scheduler.requests.iter().count(), places);
    tickets.into_iter().for_each(|ticket| bench.leave(ticket));
    bench.scheduler.assert_empty();
}
