//! Probepoints: programs, the sites they are armed at, and the engine that ties them to a host.

mod attempt;
mod calls;
mod chain;
mod check;
mod cpu;
mod engine;
mod error;
mod express;
mod find;
mod globals;
mod insert;
mod maps;
mod module;
mod part;
mod place;
mod program;
mod remove;
mod returns;
mod rewritten;
mod sentry;
mod site;
mod table;
mod user;
mod vars;
mod watch;

// Not in the files themselves, which tests/loom.rs compiles as well.
#[cfg(test)]
#[path = "calls/tests.rs"]
mod calls_tests;

#[cfg(test)]
#[path = "table/tests.rs"]
mod table_tests;

pub use engine::Engine;
pub use error::{InsertError, MergeError, PointError, RemoveError};
pub use insert::InsertOptions;
pub use maps::{MapError, MapReading};
pub use part::Insertion;
pub use remove::Selection;
pub use sentry::SentryError;
pub use vars::{VarError, VarRange, VarScope};

pub(crate) use attempt::{Outcome, Outcomes, Who};
pub(crate) use cpu::{Collecting, Cpu, Hit, Step};
pub(crate) use express::Onward;
pub(crate) use program::{Loaded, Probe, Turn, count};
pub(crate) use rewritten::Rewritten;
pub(crate) use site::{Resumption, Site};
pub(crate) use user::UserSite;
pub(crate) use watch::Watch;
