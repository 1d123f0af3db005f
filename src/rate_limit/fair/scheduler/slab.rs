//! Values at places that are used again.

/// Values by their places. A place that is none reads as an empty value, and what is written there is lost: nothing panics
/// while the lock is held, when it would stop every request.
#[derive(Debug, Default)]
pub(super) struct Slab<T> {
    values: Vec<T>,
    free: Vec<u32>,
    none: T,
}

/// No place at all.
pub(super) const NONE: u32 = u32::MAX;

impl<T> Slab<T> {
    pub(super) fn len(&self) -> usize {
        self.values.len() - self.free.len()
    }

    pub(super) fn at(&self, place: u32) -> &T {
        debug_assert!(place == NONE || (place as usize) < self.values.len(), "no such place");
        self.values.get(place as usize).unwrap_or(&self.none)
    }

    pub(super) fn at_mut(&mut self, place: u32) -> &mut T {
        debug_assert!(place == NONE || (place as usize) < self.values.len(), "no such place");
        self.values.get_mut(place as usize).unwrap_or(&mut self.none)
    }

    /// A place whose value is as it was left by who had it before.
    pub(super) fn take(&mut self) -> u32
    where
        T: Default,
    {
        if let Some(place) = self.free.pop() {
            return place;
        }
        // As many as `u32` has were never let in.
        let place = u32::try_from(self.values.len()).unwrap_or(NONE);
        if place != NONE {
            self.values.push(T::default());
        }
        place
    }

    /// Leaves a place to others.
    pub(super) fn give_back(&mut self, place: u32) {
        // Where many are free, the search would be slow.
        debug_assert!(self.free.len() > 64 || !self.free.contains(&place), "given back twice");
        self.free.push(place);
    }

    /// All values, those of free places as well.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.values.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.values.iter_mut()
    }
}
