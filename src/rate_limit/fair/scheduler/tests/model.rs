//! The scheduler's rules, as plainly as they can be said: lists, and a search through all of them for each pick.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// A request that waits or runs.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) tier: usize,
    pub(super) group: u64,
    pub(super) subject: u64,
    pub(super) prompt: u64,
    pub(super) output: u64,
    pub(super) deadline: Duration,
    pub(super) begun: bool,
    pub(super) parked: bool,
    pub(super) lent: bool,
}

impl Job {
    fn load(&self) -> Load {
        let prefill = if self.begun { 0 } else { self.prompt };
        Load { slots: 1, tokens: self.prompt + self.output, prefill }
    }

    pub(super) fn cost(&self) -> u64 {
        (self.prompt + self.output) * TOKEN
    }

    /// The flow of its group, and of its subject.
    pub(super) fn path(&self) -> [Path; 2] {
        [(self.tier, self.group, None), (self.tier, self.group, Some(self.subject))]
    }
}

pub(super) type Path = (usize, u64, Option<u64>);

/// A group's or a subject's counter.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    counter: u64,
    order: u64,
}

#[derive(Debug)]
pub(super) struct Model {
    capacity: Load,
    headroom: u64,
    /// Share and bound in hundredths, what was lent, by weight.
    tiers: Vec<(u32, u32, u64)>,
    lent_floor: u64,
    /// In the order in which they wait within a subject.
    pub(super) waiting: Vec<Job>,
    pub(super) running: Vec<Job>,
    clocks: BTreeMap<Path, Clock>,
    /// Of tiers and groups: what their children had when they were last let in.
    floors: BTreeMap<(usize, Option<u64>), u64>,
    orders: u64,
}

impl Model {
    pub(super) fn new(capacity: Capacity, headroom: u64, tiers: &[(u32, u32)]) -> Self {
        Self {
            capacity: Load::of(capacity),
            headroom,
            tiers: tiers.iter().map(|(share, most)| (*share, *most, 0)).collect(),
            lent_floor: 0,
            waiting: Vec::new(),
            running: Vec::new(),
            clocks: BTreeMap::new(),
            floors: BTreeMap::new(),
            orders: 0,
        }
    }

    pub(super) fn set_capacity(&mut self, capacity: Capacity, now: Duration) {
        self.capacity = Load::of(capacity);
        self.dispatch(now);
    }

    pub(super) fn enter(&mut self, job: Job) {
        self.lift(&job);
        self.wait(job, false);
    }

    /// Whoever asks has no less than the others, whether it then waits or not.
    pub(super) fn lift(&mut self, job: &Job) {
        for path in job.path() {
            let floor = *self.floors.entry(above(path)).or_default();
            let waits = self.waits(path);
            let clock = self.clocks.entry(path).or_default();
            if !waits {
                clock.counter = clock.counter.max(floor);
            }
        }
    }

    fn wait(&mut self, job: Job, first: bool) {
        for path in job.path().into_iter().rev() {
            if !self.waits(path) {
                self.orders += 1;
                self.clocks.entry(path).or_default().order = self.orders;
            }
        }
        let tier = job.tier;
        if !self.waiting.iter().any(|other| other.tier == tier) {
            self.tiers[tier].2 = self.tiers[tier].2.max(self.lent_floor);
        }
        self.waiting.insert(if first { 0 } else { self.waiting.len() }, job);
    }

    fn waits(&self, path: Path) -> bool {
        self.waiting.iter().any(|job| job.path().contains(&path))
    }

    pub(super) fn dispatch(&mut self, now: Duration) {
        loop {
            let heads: Vec<_> =
                (0..self.tiers.len()).filter_map(|tier| self.head(tier, now)).collect();
            let owners: Vec<_> = heads.iter().filter(|head| self.owns(head)).collect();
            // Of its share, times all shares: fractions would be equal or not by chance.
            let all: u64 = self.tiers.iter().map(|tier| u64::from(tier.0)).product();
            let use_of =
                |job: &&&Job| self.used(job.tier).slots * (all / u64::from(self.tiers[job.tier].0));
            let fitting = owners.iter().filter(|head| self.has_room(head.load()));
            let (job, lent) = match fitting.min_by_key(use_of) {
                Some(owner) => ((**owner).clone(), false),
                None if !owners.is_empty() => return,
                None => {
                    let may = heads.iter().filter(|head| self.may_borrow(head));
                    let Some(job) = may.min_by_key(|head| self.tiers[head.tier].2) else { return };
                    (job.clone(), true)
                }
            };
            self.start(Job { lent, parked: false, ..job });
        }
    }

    fn start(&mut self, job: Job) {
        self.waiting.retain(|other| other.id != job.id);
        for path in job.path() {
            let clock = self.clocks.entry(path).or_default();
            let floor = self.floors.entry(above(path)).or_default();
            *floor = (*floor).max(clock.counter);
        }
        if job.lent {
            self.lent_floor = self.lent_floor.max(self.tiers[job.tier].2);
        }
        self.correct(&job, 0, job.cost());
        self.running.push(job);
        self.forget();
    }

    fn correct(&mut self, job: &Job, from: u64, to: u64) {
        for path in job.path() {
            let clock = self.clocks.entry(path).or_default();
            clock.counter = (clock.counter + to).saturating_sub(from);
        }
        if job.lent {
            let (percent, _, lent) = &mut self.tiers[job.tier];
            let weighed = |cost: u64| cost * 100 / u64::from(*percent);
            *lent = (*lent + weighed(to)).saturating_sub(weighed(from));
        }
    }

    /// A request goes, and has cost so much.
    pub(super) fn depart(&mut self, id: u64, cost: u64, now: Duration) {
        self.stop(id, cost);
        self.forget();
        self.dispatch(now);
    }

    fn stop(&mut self, id: u64, cost: u64) -> Option<Job> {
        let all = [&mut self.waiting, &mut self.running];
        let (charged, job) = all.into_iter().enumerate().find_map(|(runs, jobs)| {
            let at = jobs.iter().position(|job| job.id == id)?;
            Some((runs == 1, jobs.remove(at)))
        })?;
        let from = if charged { job.cost() } else { 0 };
        self.correct(&Job { lent: job.lent && charged, ..job.clone() }, from, cost);
        Some(job)
    }

    /// Where nobody waits, whoever has none that runs begins anew.
    fn forget(&mut self) {
        let jobs = self.waiting.iter().chain(&self.running);
        let busy: BTreeSet<Path> = jobs.flat_map(Job::path).collect();
        let waits: BTreeSet<_> = self.waiting.iter().flat_map(Job::path).map(above).collect();
        self.clocks.retain(|path, _| busy.contains(path) || waits.contains(&above(*path)));
        self.floors.retain(|(tier, group), _| {
            group.is_none_or(|group| self.clocks.contains_key(&(*tier, group, None)))
        });
    }

    pub(super) fn refuse(&mut self, id: u64) {
        self.stop(id, 0);
        self.forget();
    }

    pub(super) fn park(&mut self, id: u64, now: Duration) {
        if let Some(job) = self.stop(id, 0) {
            self.wait(Job { parked: true, deadline: Duration::MAX, ..job }, true);
        }
        self.dispatch(now);
    }

    pub(super) fn refine(&mut self, id: u64, prompt: u64, output: u64, now: Duration) {
        if let Some(job) = self.waiting.iter_mut().find(|job| job.id == id) {
            (job.prompt, job.output) = (prompt, output);
        }
        if let Some(job) = self.running.iter_mut().find(|job| job.id == id) {
            let before = job.cost();
            (job.prompt, job.output) = (prompt, output);
            let job = job.clone();
            self.correct(&job, before, job.cost());
        }
        self.dispatch(now);
    }

    pub(super) fn first_byte(&mut self, id: u64, now: Duration) {
        let job = self.running.iter_mut().find(|job| job.id == id);
        job.into_iter().for_each(|job| job.begun = true);
        self.dispatch(now);
    }

    /// Whose turn it is in a tier.
    fn head(&mut self, tier: usize, now: Duration) -> Option<Job> {
        loop {
            let waiting = self.waiting.iter().filter(|job| job.tier == tier);
            let turn = |job: &&Job| {
                job.path().map(|path| {
                    let clock = self.clocks[&path];
                    (clock.counter, clock.order)
                })
            };
            // Of the same subject the first: `min_by_key` takes it.
            let head = waiting.min_by_key(turn)?.clone();
            if head.deadline > now {
                return Some(head);
            }
            self.refuse(head.id);
        }
    }

    pub(super) fn used(&self, tier: usize) -> Load {
        sum(self.running.iter().filter(|job| job.tier == tier))
    }

    pub(super) fn total(&self) -> Load {
        sum(self.running.iter())
    }

    fn owns(&self, job: &Job) -> bool {
        let (share, used) = (self.capacity.percent(self.tiers[job.tier].0), self.used(job.tier));
        let alone = job.parked && used.slots == 0;
        (alone || share.holds(used, job.load())) && share.holds_prefill(used, job.load())
    }

    fn has_room(&self, load: Load) -> bool {
        self.running.is_empty() || self.capacity.holds(self.total(), load)
    }

    fn may_borrow(&self, job: &Job) -> bool {
        let (total, load) = (self.total(), job.load());
        self.capacity.without(self.headroom).holds(total, load)
            && self.capacity.holds_prefill(total, load)
            && self.capacity.percent(self.tiers[job.tier].1).holds(self.used(job.tier), load)
    }

    /// Tiers other than `but` whose next request is within their share.
    pub(super) fn owner_waits(&mut self, but: usize, now: Duration) -> bool {
        let others = (0..self.tiers.len()).filter(|tier| *tier != but);
        let heads: Vec<_> = others.filter_map(|tier| self.head(tier, now)).collect();
        heads.iter().any(|head| self.owns(head))
    }

    /// Whoever is next and could be let in.
    pub(super) fn idle(&mut self, now: Duration) -> Option<Job> {
        let heads: Vec<_> = (0..self.tiers.len()).filter_map(|tier| self.head(tier, now)).collect();
        let owner = heads.iter().any(|head| self.owns(head));
        heads.into_iter().find(|head| {
            if self.owns(head) {
                self.has_room(head.load())
            } else {
                !owner && self.may_borrow(head)
            }
        })
    }

    /// How far apart the counters are of those who wait and compete.
    pub(super) fn spread(&self) -> u64 {
        let mut counters = BTreeMap::<_, Vec<u64>>::new();
        for path in self.waiting.iter().flat_map(Job::path) {
            counters.entry(above(path)).or_default().push(self.clocks[&path].counter);
        }
        let spreads = counters
            .values()
            .map(|all| all.iter().max().unwrap_or(&0) - all.iter().min().unwrap_or(&0));
        spreads.max().unwrap_or(0)
    }

    /// Whether a request is the newest of the longest queue, of a subject of the group with the longest, or of a group of
    /// this tier.
    pub(super) fn is_newest_of_most(&self, id: u64, or_of: (usize, u64)) -> bool {
        let Some(job) = self.waiting.iter().find(|job| job.id == id) else { return false };
        let mine = job.path();
        let length =
            |path: Path| self.waiting.iter().filter(|job| job.path().contains(&path)).count();
        let is_of = (mine[0].0, mine[0].1) == or_of;
        let longest = (usize::from(is_of)..2).all(|level| {
            let beside = self.waiting.iter().map(|job| job.path()[level]);
            let mut beside = beside.filter(|path| above(*path) == above(mine[level]));
            beside.all(|path| length(path) <= length(mine[level]))
        });
        let newest = self.waiting.iter().rfind(|other| other.path() == mine);
        longest && newest.is_some_and(|newest| newest.id == id)
    }

    pub(super) fn queued(&self, tier: usize) -> usize {
        self.waiting.iter().filter(|job| job.tier == tier).count()
    }
}

/// The tier of a group, the group of a subject.
fn above((tier, group, subject): Path) -> (usize, Option<u64>) {
    (tier, subject.map(|_| group))
}

fn sum<'a>(jobs: impl Iterator<Item = &'a Job>) -> Load {
    jobs.fold(Load::default(), |mut sum, job| {
        sum += job.load();
        sum
    })
}
