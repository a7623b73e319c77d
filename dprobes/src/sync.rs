//! The atomics of what several CPUs share without a lock: here, so that `tests/loom.rs` can compile the same files over a model
//! checker's.

pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
