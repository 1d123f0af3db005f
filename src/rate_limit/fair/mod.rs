//! Fair admission: an engine's capacity, shared between tiers by weight, and within a tier between callers.

mod plan;
mod scheduler;

pub use self::{
    plan::{Capacity, Headroom, Revoke, Share},
    scheduler::{Refused, Snapshot, TierSnapshot},
};
