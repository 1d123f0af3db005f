//! Fair admission.

mod admission;
mod builder;
mod deadline;
mod grouping;
mod layer;
mod metrics;
mod permit;
mod plan;
mod refusal;
mod scheduler;
mod signal;

pub use self::{
    admission::FairAdmission,
    builder::FairAdmissionBuilder,
    layer::{FairAdmissionLayer, FairAdmissionLayerBuilder},
    plan::{Capacity, Headroom, Revoke, Share},
    scheduler::{Refused, Snapshot, TierSnapshot},
    signal::{EngineHint, SlotClass, YieldSignal},
};
pub(super) use self::{
    admission::{Asking, Entry, Wish},
    permit::{Permit, Place, Queued},
    signal::Watch,
};
