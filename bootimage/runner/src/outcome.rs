//! How a run ended, worked out from the facts.

use std::fmt;
use std::time::Duration;

/// How the guest says that it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By the debug-exit device: QEMU's status is 33 (passed), 35 (failed) or 37 (panic). The test kernel does so.
    DebugExit,
    /// By switching the machine off: QEMU's status is 0. A Linux guest does so. It should boot with `panic=-1 oops=panic`.
    PowerOff,
}

const STATUS_PASSED: i32 = 33;
const STATUS_FAILED: i32 = 35;
const STATUS_PANIC: i32 = 37;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All tests passed.
    Passed {
        /// How many.
        passed: u32,
    },
    /// Tests failed.
    Failed {
        /// How many passed.
        passed: u32,
        /// How many failed.
        failed: u32,
    },
    /// The kernel panicked, or took a trap it does not handle, outside any test.
    Panic,
    /// The CPU gave up: a fault while delivering a double fault.
    TripleFault,
    /// The guest reset the machine, or switched it off where it should have given a verdict.
    Reset,
    /// The time limit passed.
    Hang {
        /// The limit.
        limit: Duration,
    },
    /// The guest ended in order but ran no test: there is no line `N passed, N failed`, or it counts none.
    Silence,
    /// QEMU itself failed.
    Qemu {
        /// Its exit status; `None` if a signal ended it.
        status: Option<i32>,
    },
}

impl Outcome {
    /// Did all tests pass?
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Passed { .. })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed { passed } => write!(f, "{passed} passed"),
            Self::Failed { passed, failed } => write!(f, "{passed} passed, {failed} failed"),
            Self::Panic => f.write_str("panic: the kernel panicked outside any test"),
            Self::TripleFault => f.write_str("triple fault: the CPU could not deliver a double fault"),
            Self::Reset => f.write_str("reset: the guest reset or switched off the machine without a verdict"),
            Self::Hang { limit } => write!(f, "hang: no end within {} s", limit.as_secs_f32()),
            Self::Silence => f.write_str("silence: the guest ended without reporting any test"),
            Self::Qemu { status: Some(status) } => write!(f, "QEMU failed with status {status}"),
            Self::Qemu { status: None } => f.write_str("QEMU was ended by a signal"),
        }
    }
}

/// What is known after a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) ending: Ending,
    /// QEMU's exit status; `None` if a signal ended it.
    pub(crate) status: Option<i32>,
    /// Set if the time limit passed.
    pub(crate) timed_out: Option<Duration>,
    /// QEMU's standard error.
    pub(crate) stderr: &'a str,
    pub(crate) serial: &'a str,
}

struct Summary {
    passed: u32,
    failed: u32,
    filtered: bool,
}

/// The last line of the form `N passed, N failed`, with anything after it.
fn summary(serial: &str) -> Option<Summary> {
    serial.lines().rev().find_map(|line| {
        let (passed, rest) = line.trim().split_once(" passed, ")?;
        let (failed, rest) = rest.split_once(" failed")?;
        Some(Summary {
            passed: passed.parse().ok()?,
            failed: failed.parse().ok()?,
            filtered: rest.contains("filtered out"),
        })
    })
}

/// QEMU logs this line when a CPU shuts down (`-d cpu_reset`).
pub(crate) const TRIPLE_FAULT: &str = "Triple fault";

impl Facts<'_> {
    pub(crate) fn outcome(&self) -> Outcome {
        if let Some(limit) = self.timed_out {
            return Outcome::Hang { limit };
        }
        if self.stderr.lines().any(|line| line == TRIPLE_FAULT) {
            return Outcome::TripleFault;
        }
        if self.serial.contains("Kernel panic - not syncing") {
            return Outcome::Panic;
        }
        let summary = summary(self.serial);
        match (self.ending, self.status) {
            (Ending::DebugExit, Some(STATUS_PASSED)) | (Ending::PowerOff, Some(0)) => match summary {
                Some(Summary {
                    passed,
                    failed: 0,
                    filtered,
                }) if passed > 0 || filtered => Outcome::Passed { passed },
                None | Some(Summary { failed: 0, .. }) => Outcome::Silence,
                Some(Summary { passed, failed, .. }) => Outcome::Failed { passed, failed },
            },
            (Ending::DebugExit, Some(STATUS_FAILED)) => match summary {
                Some(Summary { passed, failed, .. }) => Outcome::Failed {
                    passed,
                    failed: failed.max(1),
                },
                None => Outcome::Failed { passed: 0, failed: 1 },
            },
            (Ending::DebugExit, Some(STATUS_PANIC)) => Outcome::Panic,
            (Ending::DebugExit, Some(0)) => Outcome::Reset,
            (_, status) => Outcome::Qemu { status },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Facts<'static> = Facts {
        ending: Ending::DebugExit,
        status: Some(33),
        timed_out: None,
        stderr: "",
        serial: "2 passed, 0 failed\r\n",
    };

    #[test]
    fn a_verdict_needs_status_and_summary() {
        assert_eq!(DONE.outcome(), Outcome::Passed { passed: 2 });
        assert_eq!(
            Facts {
                serial: "hello\n",
                ..DONE
            }
            .outcome(),
            Outcome::Silence
        );
        assert_eq!(Facts { serial: "", ..DONE }.outcome(), Outcome::Silence);
        assert_eq!(
            Facts {
                serial: "0 passed, 0 failed\n",
                ..DONE
            }
            .outcome(),
            Outcome::Silence
        );
        assert_eq!(
            Facts {
                serial: "0 passed, 0 failed, 3 filtered out\n",
                ..DONE
            }
            .outcome(),
            Outcome::Passed { passed: 0 }
        );
        assert_eq!(
            Facts {
                status: Some(0),
                ..DONE
            }
            .outcome(),
            Outcome::Reset
        );
        assert_eq!(
            Facts {
                status: Some(1),
                ..DONE
            }
            .outcome(),
            Outcome::Qemu { status: Some(1) }
        );
        assert_eq!(Facts { status: None, ..DONE }.outcome(), Outcome::Qemu { status: None });
    }

    #[test]
    fn a_failure_wins_over_what_else_is_said() {
        assert_eq!(
            Facts {
                status: Some(35),
                ..DONE
            }
            .outcome(),
            Outcome::Failed { passed: 2, failed: 1 }
        );
        assert_eq!(
            Facts {
                status: Some(35),
                serial: "",
                ..DONE
            }
            .outcome(),
            Outcome::Failed { passed: 0, failed: 1 }
        );
        assert_eq!(
            Facts {
                serial: "3 passed, 2 failed\n",
                ..DONE
            }
            .outcome(),
            Outcome::Failed { passed: 3, failed: 2 }
        );
        assert_eq!(
            Facts {
                status: Some(37),
                ..DONE
            }
            .outcome(),
            Outcome::Panic
        );
        let limit = Duration::from_secs(1);
        assert_eq!(
            Facts {
                timed_out: Some(limit),
                ..DONE
            }
            .outcome(),
            Outcome::Hang { limit }
        );
        assert_eq!(
            Facts {
                stderr: "CPU Reset\nTriple fault\n",
                ..DONE
            }
            .outcome(),
            Outcome::TripleFault
        );
    }

    #[test]
    fn a_linux_guest_switches_off() {
        let linux = Facts {
            ending: Ending::PowerOff,
            status: Some(0),
            ..DONE
        };
        assert_eq!(linux.outcome(), Outcome::Passed { passed: 2 });
        assert_eq!(
            Facts {
                serial: "booted\n",
                ..linux
            }
            .outcome(),
            Outcome::Silence
        );
        assert_eq!(
            Facts {
                serial: "2 passed, 0 failed\nKernel panic - not syncing: x\n",
                ..linux
            }
            .outcome(),
            Outcome::Panic
        );
        assert_eq!(
            Facts {
                status: Some(33),
                ..linux
            }
            .outcome(),
            Outcome::Qemu { status: Some(33) }
        );
    }
}
