//! A plain model of all rules, which `decide` and `settle` agree with.

use std::collections::BTreeMap;

use super::*;

/// One limit: what it remembers is written down as it is told to people. Only at moments and of sizes that need no rounding.
#[derive(Default)]
struct Model {
    /// Of a rate: when all has drained, and by how much refunds have moved that.
    drained: u64,
    moved: u64,
    held: u64,
    /// The units by window or by period, and of a period until when it is remembered.
    used: BTreeMap<u64, u64>,
    until: BTreeMap<u64, u64>,
}

/// What the model remembers of a charge: where it stands, and a rate's moves or a period's end.
type Ticket = (u64, u64);

impl Model {
    /// How much more fits, and where it would be charged.
    fn room(&mut self, rule: Rule, now: u64) -> (i128, Ticket) {
        match rule {
            Rule::Rate { quota, window, burst } => {
                let (unit, drained) = (ticks(window) / quota, self.drained.max(now));
                (
                    i128::from(burst) - i128::from((drained - now).div_ceil(unit)),
                    (drained, self.moved),
                )
            }
            Rule::Slots { max } => (i128::from(max) - i128::from(self.held), (0, 0)),
            Rule::Calendar { quota, period, ends_in } => {
                self.until.retain(|_, until| *until >= now);
                let last = self.until.last_key_value().map_or(0, |(last, _)| *last);
                let known = self.until.get(&period).copied().unwrap_or(0);
                let until = known.max(now + ticks(ends_in) + 300 * SECOND);
                (i128::from(quota) - self.units(last.max(period)), (last.max(period), until))
            }
            Rule::Sliding { quota, window } => {
                let (window, at) = (ticks(window), now / ticks(window));
                let weighed = self.units(at - 1) * i128::from(window - now % window);
                let left = (i128::from(quota) - self.units(at)) * i128::from(window) - weighed;
                (left.div_euclid(i128::from(window)), (at, 0))
            }
        }
    }

    fn charge(&mut self, rule: Rule, units: u64, now: u64) -> Ticket {
        let (_, mut ticket) = self.room(rule, now);
        match rule {
            _ if units == 0 => {}
            Rule::Rate { quota, window, .. } => {
                ticket.0 += units * (ticks(window) / quota);
                self.drained = ticket.0;
            }
            Rule::Slots { .. } => self.held += units,
            Rule::Calendar { period, .. } => self.use_period(ticket, units, period == ticket.0),
            Rule::Sliding { .. } => *self.used.entry(ticket.0).or_default() += units,
        }
        ticket
    }

    fn settle(&mut self, rule: Rule, (cost, used): (u64, u64), ticket: Ticket, now: u64) {
        let (unused, beyond) = (cost.saturating_sub(used), used.saturating_sub(cost));
        match rule {
            Rule::Rate { quota, window, .. } => {
                let unit = ticks(window) / quota;
                let tail = ticket.0.saturating_sub(self.moved - ticket.1);
                let refund = tail.saturating_sub(now.max(tail.saturating_sub(unused * unit)));
                self.drained -= refund;
                self.moved += refund;
                if beyond > 0 {
                    self.drained = self.drained.max(now) + beyond * unit;
                }
            }
            Rule::Slots { .. } => self.held -= cost,
            Rule::Calendar { .. } => {
                self.until.retain(|_, until| *until >= now);
                let last = self.until.last_key_value().map_or(0, |(last, _)| *last);
                if last == ticket.0 {
                    // The period may have been forgotten since, and begun anew by less than is given back.
                    let used = self.used.get_mut(&last).unwrap();
                    *used = used.saturating_sub(unused) + beyond;
                } else if last < ticket.0 && beyond > 0 && ticket.1 >= now {
                    self.use_period(ticket, beyond, true);
                }
            }
            Rule::Sliding { window, .. } => {
                *self.used.entry(ticket.0).or_default() -= unused;
                *self.used.entry(now / ticks(window)).or_default() += beyond;
            }
        }
    }

    fn units(&self, window: u64) -> i128 {
        self.used.get(&window).map_or(0, |units| i128::from(*units))
    }

    fn use_period(&mut self, (period, until): Ticket, units: u64, named: bool) {
        if !self.until.contains_key(&period) {
            self.used.insert(period, 0);
        }
        *self.used.entry(period).or_default() += units;
        let known = self.until.entry(period).or_default();
        if named {
            *known = until.max(*known);
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// The limits of a step, by other quotas at other times.
fn limit(rule: usize, quota: u64, now: u64, behind: u64) -> Limit {
    let id = LimitId::of(["rate", "slots", "calendar", "sliding"][rule]);
    // A tick of 1/16 second is 1,000,000, which is a whole number of parts of a window of 64 seconds.
    match rule {
        0 => Limit::rate(id, 60, MINUTE).with_burst(quota),
        1 => Limit::slots(id, quota),
        2 => {
            let time = now / (SECOND / 16) - behind;
            let ends_in = Duration::from_millis(62_500 * (9600 - time % 9600) / 1000);
            Limit::calendar(id, quota, time / 9600, ends_in)
        }
        _ => Limit::sliding(id, quota, Duration::from_secs(64)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn decides_as_a_plain_model_does(
        steps in prop::collection::vec(
            (
                scaled(&[0, 4, 64, 640, 12_000]),
                prop::collection::vec((0_usize..4, scaled(&[1, 4, 20]), 10_u64..20), 1..4),
                prop::sample::select(&[0_u64, 0, 0, 16, 400, 4000][..]),
                prop::collection::vec(0_u64..26, 3),
                0_usize..5,
            ),
            1..80,
        ),
    ) {
        let mut now = 1_200_000 * SECOND;
        let mut models: [Model; 4] = Default::default();
        let mut states = [State::default(); 4];
        let mut open = Vec::new();
        for (pause, mut wanted, behind, used, settled) in steps {
            now += pause * (SECOND / 16);
            wanted.sort();
            wanted.dedup_by_key(|(rule, ..)| *rule);
            let rules: Vec<_> = wanted.iter().map(|(rule, ..)| *rule).collect();
            let charges: Vec<_> = wanted.iter().map(|(rule, cost, quota)| {
                Charge::new(RECORD, limit(*rule, *quota, now, behind), *cost)
            }).collect();
            let rooms: Vec<_> = charges.iter().zip(&rules).map(|(charge, rule)| {
                models[*rule].room(charge.limit.rule(), now).0
            }).collect();
            let fits = charges.iter().zip(&rooms).all(|(charge, room)| {
                i128::from(charge.cost) <= *room && charge.cost <= charge.limit.capacity()
            });
            let mut named: Vec<_> = rules.iter().map(|rule| states[*rule]).collect();
            let remaining: Vec<_> = charges.iter().zip(&named).map(|(charge, state)| i128::from(standing(&charge.limit, *state, now).remaining)).collect();
            prop_assert_eq!(&remaining, &rooms.iter().map(|room| (*room).max(0)).collect::<Vec<_>>());
            let decision = decide(&charges, &mut named, now);
            prop_assert_eq!(matches!(decision, Decision::Admitted(_)), fits, "{:?} of {:?}", charges, rooms);
            if let Decision::Admitted(grant) = decision {
                for (at, charge) in charges.iter().enumerate() {
                    states[rules[at]] = named[at];
                    let ticket = models[rules[at]].charge(charge.limit.rule(), charge.cost, now);
                    let used = used[at] * charge.cost.max(1) / 20;
                    open.push((rules[at], *charge, used, grant.receipts.as_slice()[at], ticket));
                }
            }
            if settled < open.len() {
                let (rule, charge, used, receipt, ticket) = open.swap_remove(settled);
                states[rule] = settle(&charge, states[rule], used, receipt, now);
                models[rule].settle(charge.limit.rule(), (charge.cost, used), ticket, now);
            }
        }
    }
}
