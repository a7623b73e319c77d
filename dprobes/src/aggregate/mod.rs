//! Aggregations: counts, sums, extremes, averages and histograms, kept by key while probes fire and read at any time.
//!
//! A [`Map`] has a table for each CPU, all of it allocated when it is made. A hit adds to the table of its own CPU, where it is the
//! only writer: no lock, no locked instruction, no allocation, and time bounded by the table's size. What does not fit is counted,
//! exactly, in `dropped`, and nothing else changes.
//!
//! A reader merges the tables of all CPUs while they are written, and disturbs nobody:
//!
//! - An entry is found by readers once its keys and its first value are in place; neither keys nor entries ever go away.
//! - A number that is one word is read at once. A histogram is read bucket by bucket: each count is exact at some moment between the
//!   beginning and the end of the reading, so that no update from before is missing and none is counted twice.
//! - An average is two numbers that belong together. Its entry has two copies and a version that says which of them stands; an update
//!   writes the other one and then the version. A writer that is interrupted between the two, for however long, leaves the standing
//!   copy alone: a reader never waits for it. A reader starts again only if the version went on under it, which is progress
//!   of the writer's, and it gives up with [`ReadError::Busy`] after [`ATTEMPTS`] times.
//!
//! So the sum over all entries is exact as soon as nobody writes; meanwhile each entry is what it was at some moment of the reading.
//!
//! The module is on its own: it knows neither programs nor probes.

mod average;
mod map;
mod read;
mod spec;
mod table;

#[cfg(test)]
mod tests;

pub use average::ATTEMPTS;
pub use map::Map;
pub use read::{ReadError, Reading};
pub use spec::{
    BUCKETS_MAX, BYTES_MAX, ENTRIES_MAX, KEYS_MAX, Kind, LOG2_BUCKETS, Linear, MAPS_MAX, Spec, SpecError, bytes_of_all,
};

/// What [`average`] needs; its file is tried out with other atomics too, in tests/aggregate_interleavings.rs.
mod sync {
    pub(super) use core::sync::atomic::{AtomicU64, Ordering, fence};
}
