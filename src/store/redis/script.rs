//! The scripts, and how numbers are packed for them.

use std::sync::LazyLock;

use redis::{Cmd, Script, ToRedisArgs};

use super::is_of_slots;
use crate::store::{
    Charge, Inline, Key, LimitId, Receipt,
    rules::{Ask, Correction, Kind, State, Window},
};

/// A script on records: these files, one after another, at the server's time.
macro_rules! on_records {
    ($($file:literal),+) => {
        concat!(
            include_str!("collect.lua"),
            include_str!("format.lua"),
            clock!(),
            $(include_str!($file)),+
        )
    };
}

#[cfg(not(test))]
macro_rules! clock {
    () => {
        include_str!("clock.lua")
    };
}

/// In unit tests the time is what they write down, and no record is gone before it.
#[cfg(test)]
macro_rules! clock {
    () => {
        "local now = tonumber(redis.call('GET', 'clock'))\nMARGIN_MS = 3600000\n"
    };
}

/// One of the scripts. Its digest stands for it once the server has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Acquire,
    Settle,
    Renew,
    Reset,
    Distinct,
    Raise,
    Swap,
}

impl Program {
    /// The command that runs it: by its digest, or `whole`, which the server then remembers.
    pub(super) fn command(
        self,
        whole: bool,
        keys: &[impl ToRedisArgs],
        arguments: &[&[u8]],
    ) -> Cmd {
        let mut command = if whole {
            let mut command = redis::cmd("EVAL");
            command.arg(self.code());
            command
        } else {
            let mut command = redis::cmd("EVALSHA");
            command.arg(self.digest());
            command
        };
        command.arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        for argument in arguments {
            command.arg(*argument);
        }
        command
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Acquire => {
                on_records!("windows.lua", "acquire.lua", "record.lua", "arrange.lua")
            }
            Self::Settle => {
                on_records!("windows.lua", "settle.lua", "record.lua", "arrange.lua")
            }
            Self::Renew => on_records!("record.lua", "renew.lua"),
            Self::Reset => on_records!("record.lua", "reset.lua"),
            Self::Distinct => include_str!("distinct.lua"),
            Self::Raise => include_str!("raise.lua"),
            Self::Swap => include_str!("swap.lua"),
        }
    }

    fn digest(self) -> &'static str {
        static DIGESTS: LazyLock<[String; 7]> = LazyLock::new(|| {
            use Program::{Acquire, Distinct, Raise, Renew, Reset, Settle, Swap};
            [Acquire, Settle, Renew, Reset, Distinct, Raise, Swap]
                .map(|program| Script::new(program.code()).get_hash().to_owned())
        });
        let [acquire, settle, renew, reset, distinct, raise, swap] = &*DIGESTS;
        match self {
            Self::Acquire => acquire,
            Self::Settle => settle,
            Self::Renew => renew,
            Self::Reset => reset,
            Self::Distinct => distinct,
            Self::Raise => raise,
            Self::Swap => swap,
        }
    }
}

/// The records of an admission, each once, in the order of their first charge.
#[derive(Clone, Debug)]
pub(super) struct Records(Vec<Key>);

impl Records {
    pub(super) fn of(charges: &[Charge]) -> Self {
        let mut keys = Vec::with_capacity(1);
        for charge in charges {
            if !keys.contains(&charge.record) {
                keys.push(charge.record);
            }
        }
        Self(keys)
    }

    pub(super) fn keys(&self) -> &[Key] {
        &self.0
    }

    /// The place of a record as Lua counts. At most [`MAX_CHARGES`](crate::store::MAX_CHARGES).
    fn number(&self, key: &Key) -> u8 {
        let at = self.0.iter().position(|record| record == key);
        at.and_then(|at| u8::try_from(at + 1).ok()).unwrap_or_default()
    }
}

/// An admission to be decided on by the script.
#[derive(Debug)]
pub(super) struct Question {
    /// The names of its records.
    pub(super) keys: Vec<String>,
    pub(super) packed: Vec<u8>,
}

impl Question {
    /// Whether `charges` fit: to `take` them, slots for this holder and so many ticks, or to look. As acquire.lua reads it.
    pub(super) fn of(
        charges: &[Charge],
        (holder, lease): (u64, u64),
        take: bool,
        name: impl Fn(&Key) -> String,
    ) -> Self {
        let sorted = in_order(charges);
        let sorted = sorted.as_slice().iter().filter_map(|at| charges.get(*at));
        let sorted: Vec<&Charge> = sorted.collect();
        let mut keys = Vec::with_capacity(1);
        let mut packed = Vec::with_capacity(12 + charges.len() * 45);
        packed.extend([0, u8::from(take)]);
        for group in sorted.chunk_by(|one, other| one.record == other.record) {
            let (rates, others) = group.split_at(group.partition_point(|it| is_rate(it)));
            keys.extend(group.first().map(|it| name(&it.record)));
            packed.extend([rates.len() as u8, others.len() as u8]);
            for charge in rates {
                packed.extend(charge.limit.id().get().to_le_bytes());
            }
            for charge in rates {
                packed.extend(asked(charge).as_flattened());
            }
            for charge in others {
                packed.push(charge.limit.kind.code());
                packed.extend(charge.limit.id().get().to_le_bytes());
                packed.extend(asked(charge).as_flattened());
                let needed = match charge.limit.kind {
                    Kind::Rate(_) | Kind::Slots => [lease, 0, 0],
                    Kind::Calendar(period) => [period.number, period.kept_for(), 0],
                    Kind::Sliding(Window { ticks, part, parts }) => [ticks, part, parts],
                };
                packed.extend(needed.map(double).as_flattened());
            }
        }
        if let Some(records) = packed.first_mut() {
            *records = keys.len() as u8;
        }
        if charges.iter().any(is_of_slots) {
            packed.extend(holder.to_le_bytes());
        }
        Self { keys, packed }
    }
}

/// A settlement, as settle.lua reads it.
pub(super) fn settlement(
    records: &Records,
    number: u64,
    changes: &[Change],
    late: bool,
) -> Vec<u8> {
    let mut packed = Vec::with_capacity(9 + changes.len() * 54);
    packed.push(records.keys().len() as u8);
    packed.extend(double(number));
    for change in changes {
        change.pack(&mut packed, late);
    }
    packed
}

/// What a settlement changes of one limit, ready to be sent, and sent again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    record: u8,
    limit: LimitId,
    kind: Kind,
    correction: Correction,
    receipt: Receipt,
}

impl Change {
    /// `None` when there is nothing to change.
    pub(super) fn of(
        charge: &Charge,
        receipt: Receipt,
        used: u64,
        records: &Records,
    ) -> Option<Self> {
        let correction = Correction::of(charge, used);
        (!correction.changes_nothing()).then(|| Self {
            record: records.number(&charge.record),
            limit: charge.limit.id(),
            kind: charge.limit.kind,
            correction,
            receipt,
        })
    }

    /// Appends it. A `late` one gives nothing but slots back: nobody remembers any more whether it was applied.
    fn pack(&self, packed: &mut Vec<u8>, late: bool) {
        let (kind, Correction { give_back, add }) = (self.kind, self.correction);
        let State { level, mark, .. } = self.receipt.state(&kind);
        // Of slots, the receipt's first word is their holder.
        let (charged, marked, holder, window) = match kind {
            Kind::Slots => (0, 0, self.receipt.0[0], 0),
            Kind::Rate(_) | Kind::Calendar(_) => (level, mark, 0, 0),
            Kind::Sliding(window) => (level, mark, 0, window.ticks),
        };
        let give_back = if late && kind != Kind::Slots { 0 } else { give_back };
        packed.push(kind.code());
        packed.push(self.record);
        packed.extend(self.limit.get().to_le_bytes());
        packed.extend([give_back, add, charged, marked, window].map(double).as_flattened());
        packed.extend(holder.to_le_bytes());
    }
}

/// The places of the charges, in the order in which the script sees these: by their records, and of each the rates first.
fn in_order(charges: &[Charge]) -> Inline<usize> {
    let mut order = Inline::collect(0, 0..charges.len());
    order.as_mut_slice().sort_by_key(|at| {
        let charge = charges.get(*at)?;
        let record = charges.iter().position(|it| it.record == charge.record);
        Some((record, charge.limit.kind.code()))
    });
    order
}

fn is_rate(charge: &Charge) -> bool {
    matches!(charge.limit.kind, Kind::Rate(_))
}

/// What is asked of a limit, and the room for it.
fn asked(charge: &Charge) -> [[u8; 8]; 2] {
    match Ask::of(charge) {
        Ask { step: Ask::NEVER, .. } => [double(0), NO_ROOM.to_le_bytes()],
        Ask { step, room } => [double(step), double(room)],
    }
}

/// For what can never fit.
const NO_ROOM: f64 = -1.0;

/// What the script answered to an admission.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) admitted: bool,
    pub(super) now: u64,
    pub(super) states: Inline<State>,
}

impl Answer {
    /// `None` when it is not what the script answers to `charges`.
    pub(super) fn read(mut reply: &[u8], charges: &[Charge]) -> Option<Self> {
        let (admitted, rest) = reply.split_first()?;
        reply = rest;
        let now = take(&mut reply)?;
        let mut states = Inline::filled(State::default(), charges.len());
        let (order, all) = (in_order(charges), states.as_mut_slice());
        let record = |at: &usize| charges.get(*at).map(|it| it.record);
        for group in order.as_slice().chunk_by(|one, other| record(one) == record(other)) {
            let is_rate = |at: &usize| charges.get(*at).is_some_and(is_rate);
            let (rates, others) = group.split_at(group.partition_point(is_rate));
            for at in rates {
                all.get_mut(*at)?.level = take(&mut reply)?;
            }
            for at in rates {
                all.get_mut(*at)?.mark = take(&mut reply)?;
            }
            for at in others {
                let [level, mark, used] = [take(&mut reply)?, take(&mut reply)?, take(&mut reply)?];
                *all.get_mut(*at)? = State { level, mark, used };
            }
        }
        reply.is_empty().then_some(Self { admitted: *admitted == 1, now, states })
    }
}

fn take(reply: &mut &[u8]) -> Option<u64> {
    let (number, rest) = reply.split_first_chunk()?;
    *reply = rest;
    let number = f64::from_le_bytes(*number);
    // All numbers are whole and below 2^53: nothing is cut off.
    (0.0..=crate::store::rules::LATEST as f64).contains(&number).then_some(number as u64)
}

/// A number below 2^53, as Lua has it.
fn double(number: u64) -> [u8; 8] {
    (number as f64).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::Limit;

    #[test]
    fn an_answer_of_another_shape_is_none() {
        let limit = Limit::rate(LimitId::of("rate"), 1, Duration::from_secs(1));
        let charges = [Charge::new(Key::from_bytes([1; 16]), limit, 1)];
        let mut reply = vec![1];
        for number in [5.0_f64, 9_007_199_254_740_991.0, 3.0] {
            reply.extend(number.to_le_bytes());
        }
        let answer = Answer::read(&reply, &charges).unwrap();
        assert!(answer.admitted && answer.now == 5);
        assert_eq!(answer.states.as_slice()[0], State { level: (1 << 53) - 1, mark: 3, used: 0 });
        assert!(Answer::read(&reply[..24], &charges).is_none());
        let slots = Charge { limit: Limit::slots(LimitId::of("slots"), 1), ..charges[0] };
        assert!(Answer::read(&reply, &[slots]).is_none());
        reply.extend(2.0_f64.to_le_bytes());
        assert!(Answer::read(&reply, &charges).is_none());
        assert_eq!(Answer::read(&reply, &[slots]).unwrap().states.as_slice()[0].used, 2);
        assert!(Answer::read(&reply, &[charges[0], charges[0]]).is_none());
        assert!(Answer::read(&[], &charges).is_none());
        reply[1..9].copy_from_slice(&f64::NAN.to_le_bytes());
        assert!(Answer::read(&reply, &charges).is_none());
        reply[1..9].copy_from_slice(&(-1.0_f64).to_le_bytes());
        assert!(Answer::read(&reply, &charges).is_none());
    }
}
