//! The requests, and lists of them that run through their places: whoever leaves is taken out at once.

use std::{task::Waker, time::Duration};

use super::{
    Shed, Signal,
    load::Load,
    slab::{NONE, Slab},
};

/// A request, from the moment that it asks until it is gone.
#[derive(Debug, Default)]
pub(super) struct Request {
    /// The one of its ticket. Zero: nobody is here.
    pub(super) serial: u64,
    pub(super) state: State,
    pub(super) tier: u32,
    /// Its subject.
    pub(super) flow: u32,
    pub(super) prompt: u64,
    pub(super) output: u64,
    /// What it is charged when it is let in.
    pub(super) cost: u64,
    /// Its tier was charged as well, since it was let in beyond the tier's share.
    pub(super) lent: bool,
    /// Its answer has begun, and is a stream.
    pub(super) begun: bool,
    pub(super) is_streamed: bool,
    /// Of all answers, the number of the one that was the next to begin when it was let in.
    pub(super) next_to_begin: u64,
    /// When it was told to stop, and that it did not for so long that it is not reckoned with any more.
    pub(super) told: Duration,
    pub(super) is_deaf: bool,
    /// The engine has parked it: it waits to go on.
    pub(super) parked: bool,
    pub(super) bytes: u64,
    pub(super) since: Duration,
    pub(super) deadline: Duration,
    pub(super) waker: Option<Waker>,
    pub(super) before: u32,
    pub(super) after: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Waiting,
    Running,
    /// It runs, and is told to stop: it is still counted.
    Told(Signal),
    /// It was dropped, and the engine may be at it for a while.
    Lingering,
    /// It waited, and has not heard yet.
    Refused(Shed),
}

impl Request {
    /// What it takes of an engine.
    pub(super) fn load(&self) -> Load {
        let prefill = if self.begun { 0 } else { self.prompt };
        Load { slots: 1, tokens: self.prompt + self.output, prefill }
    }
}

/// Requests one after another.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub(super) first: u32,
    pub(super) last: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { first: NONE, last: NONE }
    }
}

impl List {
    pub(super) fn push_last(&mut self, requests: &mut Slab<Request>, place: u32) {
        let before = std::mem::replace(&mut self.last, place);
        let request = requests.at_mut(place);
        (request.before, request.after) = (before, NONE);
        match before {
            NONE => self.first = place,
            before => requests.at_mut(before).after = place,
        }
    }

    pub(super) fn push_first(&mut self, requests: &mut Slab<Request>, place: u32) {
        let after = std::mem::replace(&mut self.first, place);
        let request = requests.at_mut(place);
        (request.before, request.after) = (NONE, after);
        match after {
            NONE => self.last = place,
            after => requests.at_mut(after).before = place,
        }
    }

    pub(super) fn remove(&mut self, requests: &mut Slab<Request>, place: u32) {
        let (before, after) = (requests.at(place).before, requests.at(place).after);
        match before {
            NONE => self.first = after,
            before => requests.at_mut(before).after = after,
        }
        match after {
            NONE => self.last = before,
            after => requests.at_mut(after).before = before,
        }
    }
}
