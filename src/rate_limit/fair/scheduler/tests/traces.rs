//! Whatever happens, in whatever order: the scheduler picks whom the model picks, and what it promises holds after each step.

use proptest::prelude::*;

use super::{
    model::{Job, Model},
    *,
};

#[derive(Clone, Debug)]
enum Step {
    Arrive {
        tier: usize,
        group: u64,
        subject: u64,
        prompt: u64,
        output: u64,
        patience: u64,
    },
    /// What happens to one of those that are there, and what it used in the end.
    FirstByte(usize),
    Finish(usize, u64),
    Leave(usize),
    Refine(usize, u64, u64),
    Park(usize),
    Pass(u64),
    Capacity(usize, u64, u64),
}

const LONGEST: u64 = 300;
const QUEUE: usize = 6;

fn arrivals() -> impl Strategy<Value = Step> {
    let who = (0..3_usize, 0..3_u64, 0..3_u64);
    (who, 1..LONGEST, 1..LONGEST, 1..40_u64).prop_map(|(who, prompt, output, patience)| {
        let (tier, group, subject) = who;
        Step::Arrive { tier, group, subject, prompt, output, patience }
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let one = 0..64_usize;
    prop_oneof![
        12 => arrivals(),
        3 => one.clone().prop_map(Step::FirstByte),
        6 => (one.clone(), 0..2 * LONGEST).prop_map(|(one, used)| Step::Finish(one, used)),
        2 => one.clone().prop_map(Step::Leave),
        1 => (one.clone(), 1..LONGEST, 1..LONGEST).prop_map(|(one, p, o)| Step::Refine(one, p, o)),
        1 => one.prop_map(Step::Park),
        1 => (1..10_u64).prop_map(Step::Pass),
        1 => (5..12_usize, 2_000..6_000_u64, 500..2_000_u64)
            .prop_map(|(slots, tokens, prefill)| Step::Capacity(slots, tokens, prefill)),
    ]
}

/// Every request is what it was thought to be, and runs to its end.
fn exact_steps() -> impl Strategy<Value = Step> {
    let one = 0..64_usize;
    prop_oneof![
        8 => arrivals(),
        3 => one.clone().prop_map(Step::FirstByte),
        5 => one.prop_map(|one| Step::Finish(one, u64::MAX)),
    ]
}

struct Pair {
    bench: Bench,
    model: Model,
    capacity: Capacity,
    /// By id: their tickets, and whether they have been seen to run.
    live: Vec<(u64, Ticket, bool)>,
    ids: u64,
}

impl Pair {
    fn new() -> Self {
        let capacity = Capacity::slots(8).tokens_in_flight(4_000).prefill_pending(1_000);
        let shares = [(50, 100), (30, 60), (15, 100)];
        let names = ["enterprise", "paid", "free"];
        let tiers: Vec<_> = names
            .into_iter()
            .zip(shares)
            .map(|(name, (share, most))| {
                let share = Share::percent(share).borrow_up_to_percent(most).queue(QUEUE);
                (name, share.max_wait(30 * SECOND))
            })
            .collect();
        let bench = Bench::new(plan(capacity, 1, &tiers));
        Self { bench, model: Model::new(capacity, 1, &shares), capacity, live: Vec::new(), ids: 0 }
    }

    fn step(&mut self, step: &Step) {
        let now = self.bench.now;
        let one = |one: usize| self.live.get(one % self.live.len().max(1)).copied();
        match *step {
            Step::Arrive { tier, group, subject, prompt, output, patience } => {
                let deadline = now + patience.min(30) as u32 * SECOND;
                self.ids += 1;
                let job = Job {
                    id: self.ids,
                    tier,
                    group,
                    subject,
                    prompt,
                    output,
                    deadline,
                    begun: false,
                    parked: false,
                    lent: false,
                };
                self.arrive(job);
            }
            Step::FirstByte(at) => {
                if let Some((id, ticket, _)) = one(at) {
                    self.bench.first_byte(ticket);
                    self.model.first_byte(id, now);
                }
            }
            Step::Finish(at, used) => {
                if let Some((id, ticket, _)) = one(at) {
                    let job = self.model.running.iter().find(|job| job.id == id).cloned();
                    let Some(job) = job else { return };
                    let used = if used == u64::MAX { job.prompt + job.output } else { used };
                    self.bench.release(ticket, used);
                    self.model.depart(id, used * TOKEN, now);
                    self.live.retain(|live| live.0 != id);
                }
            }
            Step::Leave(at) => {
                if let Some((id, ticket, _)) = one(at) {
                    self.bench.leave(ticket);
                    self.model.depart(id, 0, now);
                    self.live.retain(|live| live.0 != id);
                }
            }
            Step::Refine(at, prompt, output) => {
                if let Some((id, ticket, _)) = one(at) {
                    self.bench.call(|scheduler, now, wakes| {
                        scheduler.refine(ticket, prompt, output, now, wakes);
                    });
                    self.model.refine(id, prompt, output, now);
                }
            }
            Step::Park(at) => {
                if let Some((id, ticket, _)) = one(at)
                    && self.model.running.iter().any(|job| job.id == id)
                {
                    self.bench.call(|scheduler, now, wakes| scheduler.park(ticket, now, wakes));
                    self.model.park(id, now);
                    self.live
                        .iter_mut()
                        .filter(|live| live.0 == id)
                        .for_each(|live| live.2 = false);
                }
            }
            Step::Pass(seconds) => {
                self.bench.now += seconds as u32 * SECOND;
                self.timers();
            }
            Step::Capacity(slots, tokens, prefill) => {
                let capacity =
                    Capacity::slots(slots).tokens_in_flight(tokens).prefill_pending(prefill);
                let set = |scheduler: &mut Scheduler, now, wakes: &mut _| {
                    scheduler.set_capacity(capacity, now, wakes)
                };
                if self.bench.call(set).is_ok() {
                    self.capacity = capacity;
                    self.model.set_capacity(capacity, now);
                }
            }
        }
    }

    fn arrive(&mut self, job: Job) {
        let (now, tier) = (self.bench.now, job.tier);
        let full = self.model.queued(tier) >= QUEUE;
        let too_large =
            job.prompt + job.output > Load::of(self.capacity).percent([50, 30, 15][tier]).tokens;
        let ask = Ask {
            tier,
            group: job.group,
            stays: false,
            subject: job.subject,
            prompt: job.prompt,
            output: job.output,
            bytes: 1,
            deadline: job.deadline,
        };
        let arrival = self.bench.arrive(ask);
        match arrival {
            Arrival::Refused(Shed::TooLarge) => {
                assert!(too_large);
                let id = job.id;
                self.model.enter(job);
                self.model.dispatch(now);
                assert!(self.model.waiting.iter().any(|job| job.id == id), "it was its turn");
                self.model.depart(id, 0, now);
            }
            Arrival::Refused(Shed::QueueFull) => {
                assert!(full);
                self.evict((tier, job.group));
                self.model.lift(&job);
                self.model.dispatch(now);
            }
            // By how long it took lately, which the model does not know: but only of one who has others before it.
            Arrival::Refused(Shed::Deadline) => {
                let mut before = self.model.waiting.iter();
                assert!(before.any(|other| other.path() == job.path()));
                self.model.lift(&job);
                self.model.dispatch(now);
            }
            Arrival::Refused(shed) => panic!("{shed:?}"),
            Arrival::Admitted(ticket) | Arrival::Waiting(ticket) => {
                self.evict((tier, job.group));
                self.live.push((job.id, ticket, false));
                self.model.enter(job);
                self.model.dispatch(now);
            }
        }
    }

    /// Those who had to make room for one of a group, each the newest of those of whom most waited then, of all or of the
    /// group.
    fn evict(&mut self, by: (usize, u64)) {
        let scheduler = &self.bench.scheduler;
        let gone = |ticket: &Ticket| {
            scheduler.requests.at(ticket.place).state == State::Refused(Shed::QueueFull)
        };
        let live = self.live.iter().filter(|(_, ticket, _)| gone(ticket));
        let mut gone: Vec<_> = live.map(|(id, ..)| *id).collect();
        while let Some(at) = gone.iter().position(|id| self.model.is_newest_of_most(*id, by)) {
            self.model.refuse(gone.swap_remove(at));
        }
        assert!(gone.is_empty(), "not the newest of most: {gone:?}");
    }

    /// Whoever waits has a timer.
    fn timers(&mut self) {
        let now = self.bench.now;
        for (id, ticket, _) in self.live.clone() {
            let due = self.model.waiting.iter().any(|job| job.id == id && job.deadline <= now);
            if due {
                self.bench.call(|scheduler, now, wakes| scheduler.expire(ticket, now, wakes));
                self.model.refuse(id);
                self.model.dispatch(now);
            }
        }
    }

    /// All that must hold at any time.
    fn check(&mut self) {
        let (now, live) = (self.bench.now, std::mem::take(&mut self.live));
        let (mut news, mut lent) = (0, Vec::new());
        for (id, ticket, ran) in live {
            let waits = self.model.waiting.iter().any(|job| job.id == id);
            let runs = self.model.running.iter().find(|job| job.id == id);
            match self.bench.poll(ticket) {
                Poll::Pending => assert!(waits, "{id} waits, and should not"),
                Poll::Ready(Ok(())) => {
                    let job = runs.unwrap_or_else(|| panic!("{id} runs, and should not"));
                    let request = self.bench.scheduler.requests.at(ticket.place);
                    assert_eq!(request.lent, job.lent);
                    news += usize::from(!ran);
                    lent.extend((!ran && job.lent).then_some(job.tier));
                }
                Poll::Ready(Err(_)) => {
                    assert!(!waits && runs.is_none(), "{id} is refused, and should not");
                    continue;
                }
            }
            self.live.push((id, ticket, runs.is_some()));
        }
        let scheduler = &self.bench.scheduler;
        assert_eq!(scheduler.total, self.model.total());
        for tier in 0..3 {
            assert_eq!(scheduler.tiers.at(tier as u32).used, self.model.used(tier));
            assert_eq!(scheduler.tiers.at(tier as u32).waiting, self.model.queued(tier) as u64);
            assert!(self.model.queued(tier) <= QUEUE + 12);
        }
        let (total, capacity) = (scheduler.total, scheduler.capacity);
        if news > 0 {
            assert!(total.slots <= capacity.slots);
            assert!(total.tokens <= capacity.tokens || total.slots == 1);
            let own = |tier: &Tier| tier.share.prefill.max(2 * LONGEST);
            let most = capacity.prefill + scheduler.tiers.iter().map(own).sum::<u64>();
            assert!(total.prefill <= most, "{} of {most} pending", total.prefill);
        }
        for tier in lent {
            assert!(!self.model.owner_waits(tier, now), "lent past one below its share");
        }
        assert!(self.model.idle(now).is_none(), "there is room for one that waits");
        assert!(self.model.waiting.iter().all(|job| job.deadline > now), "its time is up");
    }

    /// All go.
    fn end(mut self) {
        for (at, (_, ticket, _)) in self.live.clone().into_iter().enumerate() {
            match at % 2 {
                0 => self.bench.leave(ticket),
                _ => self.bench.release(ticket, 7),
            }
        }
        self.bench.scheduler.assert_empty();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_scheduler_picks_whom_the_model_picks(steps in prop::collection::vec(steps(), 1..200)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.step(step);
            pair.check();
        }
        pair.end();
    }

    /// What an answer costs is known here, so no counter of two who both wait is further from the other than the
    /// dearest request: VTC's bound.
    #[test]
    fn those_who_wait_are_served_alike(steps in prop::collection::vec(exact_steps(), 1..300)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.step(step);
            pair.check();
            prop_assert!(pair.model.spread() <= 2 * LONGEST * TOKEN);
        }
        pair.end();
    }
}
