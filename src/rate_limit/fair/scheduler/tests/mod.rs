//! What must hold of the scheduler.
