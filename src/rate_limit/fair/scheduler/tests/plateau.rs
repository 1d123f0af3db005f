//! Trap 33: an engine that runs fewer at a time than it was given.

use super::{crowds::Dice, *};

/// An engine that is always full, steps from token to token, and answers requests in their order. One in twenty answers
/// ends with a step.
struct Engine {
    bench: Bench,
    dice: Dice,
    /// Let in, and not answered yet; and under way.
    waiting: Vec<Ticket>,
    answering: Vec<Ticket>,
}

impl Engine {
    fn of_slots(slots: usize) -> Self {
        Self { bench: Bench::of_slots(slots), dice: Dice(33), waiting: vec![], answering: vec![] }
    }

    /// Fills the slots again.
    fn fill(&mut self, slots: usize) {
        while self.waiting.len() + self.answering.len() < slots {
            self.waiting.push(self.bench.enter(0, 1));
        }
    }

    fn end_some(&mut self) {
        let (bench, dice) = (&mut self.bench, &mut self.dice);
        self.answering.retain(|ticket| {
            let goes_on = dice.below(20) > 0;
            if !goes_on {
                bench.release(*ticket, 50);
            }
            goes_on
        });
    }

    /// The first that waits is answered.
    fn begin(&mut self, is_streamed: bool) -> Option<u64> {
        let ticket = self.waiting.remove(0);
        self.answering.push(ticket);
        self.bench
            .call(|scheduler, now, wakes| scheduler.first_byte(ticket, is_streamed, now, wakes))
    }

    fn found(&self) -> Option<u64> {
        self.bench.scheduler.snapshot(Duration::ZERO).engine_slots
    }
}

#[test]
fn trap_33_an_engine_that_runs_fewer_than_its_slots_is_found() {
    let mut engine = Engine::of_slots(64);
    let mut told = Vec::new();
    for _ in 0..1000 {
        engine.fill(64);
        engine.end_some();
        while engine.answering.len() < 48 && !engine.waiting.is_empty() {
            told.extend(engine.begin(true));
        }
    }
    // Once.
    assert_eq!((told, engine.found()), (vec![48], Some(48)));

    // It was started anew, with more.
    while engine.answering.len() < 64 {
        engine.fill(64);
        engine.begin(true);
    }
    assert_eq!(engine.found(), None);
}

#[test]
fn trap_33_an_engine_that_is_full_or_reads_prompts_is_not_blamed() {
    // All that come are answered, many of them at once; or one prompt at a time is read, in two steps, or ten.
    for prompt in [0, 2, 10] {
        for slots in [4, 16, 64] {
            let mut engine = Engine::of_slots(slots);
            for _ in 0..5000 {
                engine.fill(slots);
                engine.end_some();
                while !engine.waiting.is_empty() && (prompt == 0 || engine.dice.below(prompt) == 0)
                {
                    assert_eq!(engine.begin(true), None, "{slots} slots, {prompt} steps");
                    if prompt > 0 {
                        break;
                    }
                }
            }
            assert_eq!(engine.found(), None);
        }
    }
}

#[test]
fn trap_33_answers_in_one_piece_tell_nothing() {
    let mut engine = Engine::of_slots(16);
    for _ in 0..5000 {
        engine.fill(16);
        assert_eq!(engine.begin(false), None);
        let ticket = engine.answering.remove(0);
        engine.bench.release(ticket, 50);
    }
    assert_eq!(engine.found(), None);
}
