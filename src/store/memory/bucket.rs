//! Where records may be, without a look at any.

/// Places, of each of which a byte tells whose record may be there; and how many records were passed on to the next
/// bucket because all were taken, as F14 counts them (Bronson and Shi, "Open-sourcing F14", 2019): so a record that goes
/// leaves nothing behind, and where none was passed on, the search ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket(u64);

/// Some places of a bucket: in each of their bytes, the top bit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places(u64);

impl Bucket {
    /// The places that have this tag, and perhaps some that differ in the lowest bit.
    #[inline]
    pub(super) fn tagged(self, tag: u8) -> Places {
        // A byte that is zero borrows, and so perhaps does the one above it that is one (Mycroft, 1987).
        let differs = self.0 ^ (LOW * u64::from(tag));
        Places(differs.wrapping_sub(LOW) & !differs & TOP)
    }

    #[inline]
    pub(super) fn taken(self) -> Places {
        Places((((self.0 & REST) + REST) | self.0) & TOP)
    }

    /// A place that is free: this one, if it is.
    pub(super) fn free(self, choice: usize) -> Option<usize> {
        let mut free = Places(!self.taken().0 & TOP);
        free.from(choice).next().or_else(|| free.next())
    }

    pub(super) fn set(&mut self, place: usize, tag: u8) {
        self.clear(place);
        self.0 |= u64::from(tag) << (8 * place);
    }

    pub(super) fn clear(&mut self, place: usize) {
        self.0 &= !(0xff << (8 * place));
    }

    #[inline]
    pub(super) fn has_passed(self) -> bool {
        self.0 >= PASSED_ONE
    }

    pub(super) fn pass(&mut self) {
        // As many as can't be counted stay for good.
        self.0 = self.0.checked_add(PASSED_ONE).unwrap_or(self.0);
    }

    pub(super) fn unpass(&mut self) {
        if self.has_passed() && self.0 < PASSED_MOST {
            self.0 -= PASSED_ONE;
        }
    }
}

impl Places {
    pub(super) fn from(self, place: usize) -> Self {
        Self(self.0 & (u64::MAX << (8 * place)))
    }
}

impl Iterator for Places {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let first = (self.0 != 0).then(|| self.0.trailing_zeros() as usize / 8);
        self.0 &= self.0.wrapping_sub(1);
        first
    }
}

/// The tag of a hash: neither zero, which stands for nothing, nor what could be taken for it.
#[inline]
pub(super) fn tag(hash: u64) -> u8 {
    (hash as u8).max(2)
}

/// The place that a record with this hash takes in its bucket, if it is free.
#[inline]
pub(super) fn choice(hash: u64) -> usize {
    (usize::from((hash >> 8) as u8) * PLACES) >> 8
}

/// Places in a bucket.
pub(super) const PLACES: usize = 7;
/// A one in each place.
const LOW: u64 = 0x0001_0101_0101_0101;
/// The top bit of each place.
const TOP: u64 = 0x0080_8080_8080_8080;
/// All other bits of each place.
const REST: u64 = 0x007f_7f7f_7f7f_7f7f;
/// One that was passed on, and the most that are counted.
const PASSED_ONE: u64 = 1 << 56;
const PASSED_MOST: u64 = 0xff << 56;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tells_what_a_list_tells(
            steps in prop::collection::vec((0..PLACES, any::<u8>(), 0..4_u8), 0..60),
            wanted in 2..=u8::MAX,
        ) {
            let (mut bucket, mut list, mut passed) = (Bucket::default(), [0; PLACES], 0);
            for (place, tag, step) in steps {
                // Many of the same, and some that differ by one.
                let tag = [wanted, wanted ^ 1, 255, tag | 2][usize::from(tag % 4)];
                match step {
                    0 => { bucket.set(place, tag); list[place] = tag }
                    1 => { bucket.clear(place); list[place] = 0 }
                    2 => { bucket.pass(); passed += 1 }
                    _ => { bucket.unpass(); passed = i32::max(passed - 1, 0) }
                }
                let places = |is: &dyn Fn(u8) -> bool| -> Vec<_> {
                    (0..PLACES).filter(|place| is(list[*place])).collect()
                };
                let tagged: Vec<_> = bucket.tagged(wanted).collect();
                prop_assert!(places(&|it| it == wanted).iter().all(|it| tagged.contains(it)));
                prop_assert!(tagged.iter().all(|it| [wanted, wanted ^ 1].contains(&list[*it])));
                let taken: Vec<_> = bucket.taken().collect();
                prop_assert_eq!(&taken, &places(&|it| it != 0));
                let from: Vec<_> = bucket.taken().from(3).collect();
                prop_assert_eq!(from, taken.into_iter().filter(|it| *it >= 3).collect::<Vec<_>>());
                let free = places(&|it| it == 0);
                for choice in 0..PLACES {
                    let found = bucket.free(choice);
                    if free.contains(&choice) {
                        prop_assert_eq!(found, Some(choice));
                    }
                    prop_assert_eq!(found.is_none(), free.is_empty());
                    prop_assert!(found.is_none_or(|found| free.contains(&found)));
                }
                prop_assert_eq!(bucket.has_passed(), passed > 0);
            }
        }
    }

    #[test]
    fn what_can_no_longer_be_counted_stays() {
        let mut bucket = Bucket::default();
        (0..255).for_each(|_| bucket.pass());
        bucket.pass();
        (0..300).for_each(|_| bucket.unpass());
        assert!(bucket.has_passed());
        assert_eq!(bucket.taken().count(), 0);
    }
}
