//! Which limits records have: of a tier's subjects all the same, and so written down once.

use std::collections::HashMap;

use crate::store::{Charge, MAX_CHARGES};

/// The limits of a record, in their order there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Layout {
    len: u8,
    /// Whether there are limits of the same id, which count by other rules.
    has_namesakes: bool,
    ids: [u32; MAX_CHARGES],
}

/// All layouts of a shard's records.
#[derive(Debug, Default)]
pub(super) struct Layouts {
    all: Vec<Used>,
    numbers: HashMap<Layout, u16>,
    /// Numbers of those that are in use no more.
    free: Vec<u16>,
}

#[derive(Debug)]
struct Used {
    layout: Layout,
    records: u32,
}

impl Layout {
    pub(super) fn of(charges: &[Charge]) -> Self {
        charges.iter().fold(Self::default(), |layout, charge| layout.with(charge.limit.id().get()))
    }

    /// With one more, if there is a place.
    pub(super) fn with(mut self, id: u32) -> Self {
        self.has_namesakes |= self.ids().contains(&id);
        if let Some(place) = self.ids.get_mut(usize::from(self.len)) {
            *place = id;
            self.len += 1;
        }
        self
    }

    #[inline]
    pub(super) fn has_namesakes(&self) -> bool {
        self.has_namesakes
    }

    #[inline]
    pub(super) fn ids(&self) -> &[u32] {
        self.ids.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl Layouts {
    #[inline]
    pub(super) fn get(&self, number: u16) -> Option<&Layout> {
        self.all.get(usize::from(number)).map(|used| &used.layout)
    }

    /// Whether all that an admission may bring will have a number.
    pub(super) fn has_room(&self) -> bool {
        self.numbers.len() + MAX_CHARGES <= MOST
    }

    /// The number of the layout of one more record. `None`: there are too many others.
    pub(super) fn take(&mut self, layout: Layout) -> Option<u16> {
        let number = match self.numbers.get(&layout) {
            Some(number) => *number,
            None => self.add(layout)?,
        };
        self.all.get_mut(usize::from(number))?.records += 1;
        Some(number)
    }

    /// One record less has it.
    pub(super) fn release(&mut self, number: u16) {
        let Some(used) = self.all.get_mut(usize::from(number)) else { return };
        used.records = used.records.saturating_sub(1);
        if used.records == 0 {
            self.numbers.remove(&used.layout);
            self.free.push(number);
        }
    }

    fn add(&mut self, layout: Layout) -> Option<u16> {
        let used = Used { layout, records: 0 };
        let number = if let Some(number) = self.free.pop() {
            *self.all.get_mut(usize::from(number))? = used;
            number
        } else {
            let number = u16::try_from(self.all.len()).ok().filter(|it| usize::from(*it) < MOST)?;
            self.all.push(used);
            number
        };
        self.numbers.insert(layout, number);
        Some(number)
    }
}

/// The most that are told apart.
const MOST: usize = u16::MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LimitId;

    #[test]
    fn a_layout_has_one_number_while_a_record_has_it() {
        let layout = |name| Layout::default().with(LimitId::of(name).get());
        let mut layouts = Layouts::default();
        let (a, b) = (layouts.take(layout("a")).unwrap(), layouts.take(layout("b")).unwrap());
        assert_ne!(a, b);
        assert_eq!(layouts.take(layout("a")), Some(a));
        layouts.release(a);
        assert_eq!(layouts.get(a), Some(&layout("a")));
        layouts.release(a);
        assert_eq!(layouts.take(layout("c")), Some(a));
        assert_eq!(layouts.get(a), Some(&layout("c")));
        assert_ne!(layouts.take(layout("a")), Some(a));
    }

    #[test]
    fn too_many_layouts_are_told() {
        let mut layouts = Layouts::default();
        let taken = (0..).take_while(|n: &u32| {
            layouts.take(Layout::default().with(LimitId::of(&n.to_string()).get())).is_some()
        });
        assert_eq!(taken.count(), MOST);
        assert!(!layouts.has_room());
        (0..MAX_CHARGES as u16).for_each(|number| layouts.release(number));
        assert!(layouts.has_room());
    }
}
