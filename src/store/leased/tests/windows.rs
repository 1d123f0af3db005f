//! What all windows let through.

use proptest::prelude::*;

use super::*;

/// All windows at once: none exceeds the bound if a bucket of that size never overflows.
#[derive(Debug, Default)]
struct Bucket {
    level: u128,
    at: u64,
}

impl Bucket {
    fn add(&mut self, units: u64, quota: u64, window: Duration, at: u64) {
        let drained = u128::from(at - self.at) * u128::from(quota);
        let added = u128::from(units) * u128::from(rules::ticks(window));
        (self.level, self.at) = (self.level.saturating_sub(drained) + added, at);
    }
}

/// Mostly short times and small parts, now and then long ones and large.
fn scaled(scales: &'static [u64]) -> impl Strategy<Value = u64> {
    prop::sample::select(scales).prop_flat_map(|scale| 0..=scale)
}

fn one_of(choices: &'static [u64]) -> impl Strategy<Value = u64> {
    prop::sample::select(choices)
}

const STORES: usize = 3;

/// An admission that is not settled yet.
struct Open {
    end: u64,
    /// Which store made it. `None`: the inner one.
    store: Option<LeasedStore<Counting>>,
    cost: u64,
    used: u64,
    grant: Seen,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// What the whole rests on: whatever is leased, used late, given back, ended early or dropped, by several stores over
    /// one and beside others that do not lease, no window lets more through than its quota.
    #[test]
    fn no_window_lets_more_through_than_its_quota(
        (instances, ahead, periods) in (one_of(&[1, 1, 2, 4]), one_of(&[500, 2000, 8000, 30_000]), one_of(&[1, 2, 20])),
        steps in prop::collection::vec(
            (
                (scaled(&[0, 2, 16, 64, 320]), one_of(&[0, 0, 0, 1, 2, 3]), 0..20_u8),
                scaled(&[3, 10, 30, 100]),
                one_of(&[0, 1, 5, 10, 10]),
                scaled(&[0, 8, 64, 480]),
            ),
            1..200,
        ),
    ) {
        const QUOTA: u64 = 100;
        let world = World::new();
        let ahead = Duration::from_millis(ahead);
        let period = ahead * u32::try_from(periods).unwrap();
        let new = || {
            world.builder().instances(instances).ahead(ahead).period(period).build().unwrap()
        };
        let mut stores = [new(), new(), new()];
        let charge = |cost| Charge::new(RECORD, requests(QUOTA, MINUTE), cost);
        let (mut open, mut bucket, mut at) = (Vec::<Open>::new(), Bucket::default(), 0);
        for ((pause, number, special), cost, tenths, takes) in steps {
            let target = at + pause;
            open.sort_by_key(|it| it.end);
            while open.first().is_some_and(|it| it.end <= target) {
                let it = open.remove(0);
                world.clock.advance(Duration::from_micros(it.end.saturating_sub(at) * 62_500));
                at = at.max(it.end);
                match it.store {
                    Some(store) => settle(&store, charge(it.cost), &it.grant, it.used),
                    None => settle(&world.inner, charge(it.cost), &it.grant, it.used),
                }
            }
            world.clock.advance(Duration::from_micros((target - at) * 62_500));
            at = target;
            let number = usize::try_from(number).unwrap();
            let mut wishes = vec![(number, cost, cost * tenths / 10)];
            match special {
                0 if number < STORES => now(stores[number].flush()),
                // What of it is still open is settled by its clones.
                1 if number < STORES => stores[number] = new(),
                2 | 3 => {
                    // Takes all there is, wherever it is.
                    wishes.clear();
                    for number in 0..=STORES {
                        let left = match stores.get(number) {
                            Some(store) => remaining(store, &[charge(1)])[0],
                            None => world.left(charge(1)),
                        };
                        wishes.push((number, left, left));
                        wishes.extend([(number, 1, 1); 3]);
                    }
                }
                _ => {}
            }
            for (number, cost, used) in wishes {
                let store = stores.get(number).cloned();
                let admitted = match &store {
                    Some(store) => acquire(store, &[charge(cost)]),
                    None => acquire(&world.inner, &[charge(cost)]),
                };
                let Ok(grant) = admitted else { continue };
                bucket.add(used, QUOTA, MINUTE, rules::ticks(world.clock.monotonic()));
                // The inner store may admit early, by a tick for each unit.
                let most = u128::from(QUOTA) * u128::from(rules::ticks(MINUTE) + QUOTA);
                prop_assert!(bucket.level <= most, "{} too much", bucket.level - most);
                open.push(Open { end: at + takes, store, cost, used, grant });
            }
        }
    }
}
