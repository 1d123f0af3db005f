//! What the handles of a leased store share: how an admission is decided.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    Options,
    block::Work,
    flight::{Flight, Waiting},
    line,
    table::{Table, Taken, Taking, with_lease},
};
use crate::{
    clock::Clock,
    observe, runtime,
    store::{
        Admission, Charge, Decision, Inline, LimiterStore, MAX_CHARGES, NO_CHARGE, Receipt,
        Refusal, ReservationId, Seen, Settlement, Standing, Standings, StoreError, rules,
    },
};

pub(super) struct Shared<S: LimiterStore> {
    pub(super) inner: S,
    clock: Arc<dyn Clock>,
    options: Options,
    /// Tells receipts of its own from the inner store's.
    mark: u64,
    table: Mutex<Table>,
    sweeping: AtomicBool,
}

/// What an admission comes to.
#[allow(clippy::large_enum_variant)] // It lives for a moment, and a decision allocates nothing.
pub(super) enum Step<S: LimiterStore> {
    Decided(Decision),
    /// A lease that it needs is on its way.
    Wait(Waiting<S>),
    /// The inner store has to be asked.
    Ask(Ask<S>),
}

/// What the inner store is asked for, and what is held meanwhile: given back when it is dropped.
pub(super) struct Ask<S: LimiterStore> {
    held: Held<S>,
    /// The charges that are not held, and how many units ahead of each.
    charges: Inline<Charge>,
    ahead: Vec<u64>,
    _flight: Option<Flight<S>>,
}

/// What was taken from leases for an admission, one per charge.
struct Held<S: LimiterStore> {
    shared: Arc<Shared<S>>,
    parts: Vec<Option<Taking>>,
}

impl<S: LimiterStore> Shared<S> {
    pub(super) fn new(inner: S, clock: Arc<dyn Clock>, options: Options) -> Self {
        use std::hash::{BuildHasher, RandomState};
        let mark = RandomState::new().hash_one(0_u8);
        let (table, sweeping) = (Mutex::default(), AtomicBool::new(false));
        Self { inner, clock, options, mark, table, sweeping }
    }

    /// Decides from leases, if that can be.
    pub(super) fn step(self: &Arc<Self>, charges: &[Charge], first: bool) -> Step<S> {
        let now = self.now();
        let mut work = Work::default();
        let step = self.step_in(&mut self.table(), charges, first, now, &mut work);
        self.run(work);
        match &step {
            Step::Decided(Decision::Admitted(_)) => {
                observe::count("palisade_lease_admissions_total", &[]);
            }
            Step::Decided(Decision::Refused(_)) => {
                observe::count("palisade_lease_denials_total", &[]);
            }
            Step::Wait(_) | Step::Ask(_) => {}
        }
        step
    }

    fn step_in(
        self: &Arc<Self>,
        table: &mut Table,
        charges: &[Charge],
        first: bool,
        now: u64,
        work: &mut Work,
    ) -> Step<S> {
        let options = &self.options;
        let mut watched = true;
        if first {
            table.sweep(STEPS, now, options, work);
            for charge in charges {
                watched &= table.ask(charge, now, options, work);
            }
        }
        let has_room = table.has_room(options);
        let fits: Vec<_> = charges.iter().map(|it| has_room && table.fits(it, now)).collect();
        let whole = fits.iter().all(|fits| *fits);
        if !whole {
            if let Some((index, wait)) = held_refusal(table, charges, now) {
                let seen = Seen::new(self.own_receipts(charges.len(), 0), now);
                return Step::Decided(Decision::Refused(Refusal::new(index, Some(wait), seen)));
            }
            let mut flights = charges.iter().zip(&fits).filter(|(_, fits)| !**fits);
            let flight = flights.find_map(|(charge, _)| table.flight_of(charge));
            if let Some(flight) = flight.filter(|_| first) {
                return Step::Wait(Waiting::new(Arc::clone(self), flight));
            }
        }
        let mut parts = Vec::with_capacity(charges.len());
        let mut asked = Inline::new(NO_CHARGE);
        for (charge, fits) in charges.iter().zip(fits) {
            let part = if fits { table.take(charge, now) } else { None };
            if part.is_none() {
                asked.push(*charge);
            }
            parts.push(part);
        }
        if whole {
            let receipts = self.receipts(table, Taken { parts, receipts: Inline::default() });
            return Step::Decided(Decision::Admitted(Seen::new(receipts, now)));
        }
        let held = Held { shared: Arc::clone(self), parts };
        let ask = asked.as_slice();
        // One settlement ends a lease, another an admission: what is not leased can't share a grant with a lease.
        let may_lease = watched && has_room && charges.iter().all(|charge| self.may_lease(charge));
        let ahead: Vec<_> = ask.iter().map(|it| table.ahead(it, now, options)).collect();
        if !may_lease || ahead.contains(&0) || ask.iter().any(|it| table.flight_of(it).is_some()) {
            let ahead = Vec::new();
            return Step::Ask(Ask { held, charges: asked, ahead, _flight: None });
        }
        let _flight = Some(Flight::new(Arc::clone(self), table.depart(ask), asked));
        Step::Ask(Ask { held, charges: asked, ahead, _flight })
    }

    /// What becomes of an admission that its first step did not decide.
    pub(super) async fn go_on(
        self: Arc<Self>,
        id: ReservationId,
        charges: &[Charge],
        mut step: Step<S>,
    ) -> Result<Decision, StoreError> {
        loop {
            step = match step {
                Step::Decided(decision) => return Ok(decision),
                Step::Wait(waiting) => {
                    waiting.await;
                    self.step(charges, false)
                }
                Step::Ask(ask) => return self.ask(id, charges, ask).await,
            };
        }
    }

    async fn ask(
        self: &Arc<Self>,
        id: ReservationId,
        charges: &[Charge],
        ask: Ask<S>,
    ) -> Result<Decision, StoreError> {
        let since = self.now();
        let mut asked = ask.charges;
        for (charge, ahead) in asked.as_mut_slice().iter_mut().zip(&ask.ahead) {
            charge.cost = charge.cost.saturating_add(*ahead);
        }
        // The lease outlives the admission.
        let id_asked = if ask.ahead.is_empty() { id } else { ReservationId::next() };
        let answer = self.inner.acquire(&Admission::new(id_asked, asked.as_slice())).await?;
        let refusal = match answer {
            Decision::Admitted(grant) if ask.ahead.is_empty() => {
                return Ok(self.admit(ask, &grant));
            }
            Decision::Admitted(grant) => {
                return Ok(self.lease(ask, (id_asked, asked, grant), since));
            }
            Decision::Refused(refusal) => refusal,
        };
        let Some(tails) = self.make_room(&ask, &refusal) else {
            return Ok(self.refuse(charges, &ask, &refusal));
        };
        if tails
            && let Err(flushed) = self.inner.flush().try_now()
            && runtime::is_here()
        {
            // In vain: then it is a refusal, as it would be if another process held them.
            let _ = runtime::timeout(GIVING_BACK, flushed).await;
        }
        match self.inner.acquire(&Admission::new(id, ask.charges.as_slice())).await? {
            Decision::Admitted(grant) => Ok(self.admit(ask, &grant)),
            Decision::Refused(refusal) => Ok(self.refuse(charges, &ask, &refusal)),
        }
    }

    /// Whether what was refused may fit without anything ahead, or with what leases of its own limits have
    /// left: these end. Tells whether they had.
    fn make_room(self: &Arc<Self>, ask: &Ask<S>, refusal: &Refusal) -> Option<bool> {
        let now = self.now();
        let mut work = Work::default();
        let mut table = self.table();
        let standings = self.inner.standings(ask.charges.as_slice(), &refusal.seen);
        let mut parts = ask.charges.as_slice().iter().zip(standings.as_slice());
        let may_fit = parts.all(|(charge, standing)| {
            standing.remaining.saturating_add(table.unused(charge, now)) >= charge.cost
        });
        let mut tails = false;
        if may_fit {
            for charge in ask.charges.as_slice() {
                tails |= table.give_up(charge, now, &mut work);
            }
        }
        drop(table);
        self.run(work);
        // A refusal of what was asked for ahead does not tell how long to wait for less.
        (tails || !ask.ahead.is_empty()).then_some(tails)
    }

    /// Admits by a grant of just what was asked for.
    fn admit(self: &Arc<Self>, mut ask: Ask<S>, grant: &Seen) -> Decision {
        let now = self.now();
        let learned = self.inner.standings(ask.charges.as_slice(), grant);
        let mut table = self.table();
        learn(&mut table, ask.charges.as_slice(), learned.as_slice(), now);
        if ask.held.parts.iter().all(Option::is_none) {
            return Decision::Admitted(*grant);
        }
        let taken = Taken { parts: std::mem::take(&mut ask.held.parts), receipts: grant.receipts };
        let receipts = self.receipts(&mut table, taken);
        drop(table);
        Decision::Admitted(Seen { receipts, ..*grant })
    }

    /// Admits from new leases.
    fn lease(
        self: &Arc<Self>,
        mut ask: Ask<S>,
        granted: (ReservationId, Inline<Charge>, Seen),
        since: u64,
    ) -> Decision {
        let now = self.now();
        let (id, asked, grant) = granted;
        let learned = self.inner.standings(asked.as_slice(), &grant);
        let mut work = Work::default();
        let mut table = self.table();
        learn(&mut table, asked.as_slice(), learned.as_slice(), now);
        let granted = (id, asked, grant.receipts);
        let mut taken =
            table.lease(granted, &ask.ahead, since, now, &self.options, &mut work).into_iter();
        let mut parts = std::mem::take(&mut ask.held.parts);
        for part in parts.iter_mut().filter(|part| part.is_none()) {
            *part = taken.next().flatten();
        }
        if grant.degraded {
            // What was granted without the store is not kept for when it is back.
            for charge in asked.as_slice() {
                table.give_up(charge, now, &mut work);
            }
        }
        let receipts = self.receipts(&mut table, Taken { parts, receipts: Inline::default() });
        drop(table);
        self.run(work);
        self.sweep_in_background();
        Decision::Admitted(Seen { receipts, ..grant })
    }

    /// Refuses, as the inner store did, and remembers it for a moment.
    fn refuse(self: &Arc<Self>, charges: &[Charge], ask: &Ask<S>, refusal: &Refusal) -> Decision {
        let now = self.now();
        let asked = ask.charges.as_slice();
        let learned = self.inner.standings(asked, &refusal.seen);
        let mut table = self.table();
        learn(&mut table, asked, learned.as_slice(), now);
        let worst = asked.get(refusal.index);
        if let (Some(charge), Some(wait)) = (worst, refusal.retry_after)
            && self.may_lease(charge)
        {
            table.hold(charge, wait, now, &self.options);
        }
        let index = charges.iter().position(|charge| Some(charge) == worst).unwrap_or_default();
        drop(table);
        let seen = Seen::new(self.own_receipts(charges.len(), 0), now);
        Decision::Refused(Refusal::new(index, refusal.retry_after, seen))
    }

    pub(super) fn settle(self: &Arc<Self>, settlement: &Settlement<'_>) {
        let now = self.now();
        let mut work = Work::default();
        let mut table = self.table();
        for (charge, used) in settlement.charges.iter().zip(settlement.used) {
            if *used < charge.cost {
                table.let_go(charge);
            }
        }
        let Some(Receipt([_, ticket])) =
            settlement.receipts.first().filter(|Receipt([mark, _])| *mark == self.mark)
        else {
            drop(table);
            return self.inner.settle(settlement);
        };
        let Some(taken) = table.redeem(*ticket) else { return };
        let (mut charges, mut used) = (Inline::new(NO_CHARGE), Inline::new(0));
        let parts = settlement.charges.iter().zip(settlement.used).zip(taken.parts);
        for ((charge, units), part) in parts {
            match part {
                Some(taking) => table.settle(taking, *units, now, &mut work),
                None => {
                    charges.push(*charge);
                    used.push(*units);
                }
            }
        }
        drop(table);
        self.run(work);
        let receipts = taken.receipts.as_slice();
        if !receipts.is_empty() {
            let (charges, used) = (charges.as_slice(), used.as_slice());
            self.inner.settle(&Settlement::new(settlement.id, charges, receipts, used));
        }
    }

    pub(super) fn end_all(self: &Arc<Self>) {
        let mut work = Work::default();
        let now = self.now();
        self.table().end_all(now, &mut work);
        self.run(work);
    }

    /// Settles what is due with the inner store. The table is free.
    fn run(self: &Arc<Self>, mut work: Work) {
        work.settle(&self.inner);
        for block in work.early {
            self.settle_early(block);
        }
    }

    /// Settles a block of which some admissions are not settled, once there is another grant to charge their debts to.
    fn settle_early(self: &Arc<Self>, block: u64) {
        let Some(charges) = self.table().begin_early(block) else { return };
        let id = ReservationId::next();
        let shared = Arc::clone(self);
        let end = move |answer: Option<Result<Decision, StoreError>>| {
            let grant = match answer {
                Some(Ok(Decision::Admitted(grant))) => Some((id, charges, grant.receipts)),
                _ => None,
            };
            let mut work = Work::default();
            let now = shared.now();
            shared.table().settle_early(block, grant, now, &mut work);
            work.settle(&shared.inner);
        };
        match self.inner.acquire(&Admission::new(id, charges.as_slice())).try_now() {
            Ok(answer) => end(Some(answer)),
            Err(answer) if runtime::is_here() => {
                drop(runtime::spawn(async move { end(Some(answer.await)) }));
            }
            Err(_) => end(None),
        }
    }

    /// Sees that leases end though nobody calls.
    fn sweep_in_background(self: &Arc<Self>) {
        if self.sweeping.swap(true, Ordering::Relaxed) {
            return;
        }
        let sweeping = Sweeping(Arc::downgrade(self));
        let pause = self.options.pause;
        // Without a runtime the task is dropped here: then calls alone sweep.
        drop(runtime::spawn(async move {
            loop {
                runtime::sleep(pause).await;
                let Some(shared) = sweeping.0.upgrade() else { return };
                let mut work = Work::default();
                let now = shared.now();
                let mut table = shared.table();
                table.sweep(usize::MAX, now, &shared.options, &mut work);
                let is_done = table.is_empty();
                if is_done {
                    // Before the table is free: who leases next starts another.
                    shared.sweeping.store(false, Ordering::Relaxed);
                }
                drop(table);
                shared.run(work);
                if is_done {
                    return;
                }
            }
        }));
    }

    pub(super) fn with_leases(&self, charges: &[Charge], mut standings: Standings) -> Standings {
        let now = self.now();
        let table = self.table();
        for (charge, standing) in charges.iter().zip(standings.as_mut_slice()) {
            *standing = with_lease(charge, *standing, table.left(charge, now));
        }
        standings
    }

    fn receipts(&self, table: &mut Table, taken: Taken) -> Inline<Receipt> {
        let count = taken.parts.len();
        self.own_receipts(count, table.keep(taken))
    }

    fn own_receipts(&self, count: usize, ticket: u64) -> Inline<Receipt> {
        Inline::filled(Receipt([self.mark, ticket]), count)
    }

    /// Where limits stand as far as it is known here; of a decision that was the inner store's, as that has seen it.
    pub(super) fn standings(&self, charges: &[Charge], seen: &Seen) -> Standings {
        if !seen.receipts.as_slice().iter().any(|Receipt([mark, _])| *mark == self.mark) {
            return self.inner.standings(charges, seen);
        }
        let now = self.now();
        let table = self.table();
        let standings = charges.iter().map(|charge| {
            // What was forgotten was idle.
            let idle = || Standing::new(charge.limit.capacity(), Duration::ZERO);
            table.standing(charge, now).unwrap_or_else(idle)
        });
        Inline::collect(Standing::default(), standings)
    }

    pub(super) fn may_lease(&self, charge: &Charge) -> bool {
        line::drained(&charge.limit, 0).is_some()
            && !self.options.strict.contains(&charge.limit.id())
    }

    fn now(&self) -> u64 {
        rules::ticks(self.clock.monotonic())
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: LimiterStore> Drop for Held<S> {
    fn drop(&mut self) {
        let mut work = Work::default();
        let now = self.shared.now();
        for taking in self.parts.drain(..).flatten() {
            self.shared.table().settle(taking, 0, now, &mut work);
        }
        self.shared.run(work);
    }
}

impl<S: LimiterStore> Drop for Shared<S> {
    fn drop(&mut self) {
        let mut work = Work::default();
        let now = self.now();
        self.table.get_mut().unwrap_or_else(PoisonError::into_inner).abandon(now, &mut work);
        work.settle(&self.inner);
    }
}

/// Held by the sweeping task; when its runtime ends, the next lease starts another.
struct Sweeping<S: LimiterStore>(Weak<Shared<S>>);

impl<S: LimiterStore> Drop for Sweeping<S> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.sweeping.store(false, Ordering::Relaxed);
        }
    }
}

/// The charge that was refused and must wait longest, as long as it is remembered and it is known where all stand.
fn held_refusal(table: &Table, charges: &[Charge], now: u64) -> Option<(usize, Duration)> {
    let waits = charges.iter().enumerate();
    let waits = waits.filter_map(|(index, charge)| Some((table.held(charge, now)?, index)));
    let (wait, index) = waits.max()?;
    charges.iter().all(|charge| table.standing(charge, now).is_some()).then_some((index, wait))
}

fn learn(table: &mut Table, charges: &[Charge], standings: &[Standing], now: u64) {
    for (charge, standing) in charges.iter().zip(standings) {
        table.learn(charge, *standing, now);
    }
}

/// How much of what is due each admission looks after: more than it adds.
const STEPS: usize = 2 * MAX_CHARGES;
/// For how long to wait until a lease is given back, when what it has left is needed by the inner store.
const GIVING_BACK: Duration = Duration::from_millis(50);
