//! Boots a kernel in QEMU, collects what it writes to its serial port and says how it ended.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! let mut machine = runner::Machine::new("target/x86_64-target/debug/deps/runtime-0123456789abcdef");
//! machine.cpus = 4;
//! machine.time_limit = Duration::from_secs(20);
//! let report = machine.run(&mut std::io::stdout())?;
//! assert!(report.outcome.is_success(), "{}", report.outcome);
//! # Ok::<(), runner::Error>(())
//! ```
#![warn(missing_docs)]

mod machine;
mod outcome;
mod requirements;
mod run;

pub use machine::{Acceleration, Machine};
pub use outcome::{Ending, Outcome};
pub use requirements::{Requirements, RequirementsError};
pub use run::{Error, Report};
