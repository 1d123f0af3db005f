//! Who has the longest queue: flows side by side with those whose queues are as long. A queue grows or shrinks by one, so
//! the longest is never searched for.

use super::{flows::Flows, slab::NONE};

/// The children of a flow, by how many of their requests wait.
#[derive(Debug, Default)]
pub(super) struct Lengths {
    /// The first of those with so many.
    firsts: Vec<u32>,
    longest: usize,
}

impl Lengths {
    /// One of those with the most.
    pub(super) fn first(&self) -> Option<u32> {
        self.firsts.get(self.longest).copied().filter(|first| *first != NONE)
    }
}

impl Flows {
    /// As many requests of a flow wait `now` as did `before`, and one more or less.
    pub(super) fn set_length(&mut self, flow: u32, parent: u32, before: u32, now: u32) {
        if before > 0 {
            let (longer, shorter) = (self.flows.at(flow).longer, self.flows.at(flow).shorter);
            if shorter != NONE {
                self.flows.at_mut(shorter).longer = longer;
            }
            if longer != NONE {
                self.flows.at_mut(longer).shorter = shorter;
            } else if let Some(first) = self.first_of(parent, before) {
                *first = shorter;
            }
        }
        if now > 0 {
            let Some(first) = self.first_of(parent, now) else { return };
            let next = std::mem::replace(first, flow);
            if next != NONE {
                self.flows.at_mut(next).longer = flow;
            }
            let entered = self.flows.at_mut(flow);
            (entered.longer, entered.shorter) = (NONE, next);
        }
        let lengths = &mut self.flows.at_mut(parent).lengths;
        lengths.longest = lengths.longest.max(now as usize);
        if lengths.first().is_none() {
            lengths.longest = lengths.longest.saturating_sub(1);
        }
    }

    fn first_of(&mut self, parent: u32, length: u32) -> Option<&mut u32> {
        let firsts = &mut self.flows.at_mut(parent).lengths.firsts;
        if firsts.len() <= length as usize {
            firsts.resize(length as usize + 1, NONE);
        }
        firsts.get_mut(length as usize)
    }
}
