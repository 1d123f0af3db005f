//! The locks that admissions and settlements go through: those of `std`; or, with `--cfg palisade_shuttle`, those of
//! `shuttle`, which runs threads in every order that it is asked to (`scripts/interleavings`).

#[cfg(not(palisade_shuttle))]
pub(crate) use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64},
    },
    thread_local,
};

#[cfg(palisade_shuttle)]
pub(crate) use shuttle::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64},
    },
    thread_local,
};
