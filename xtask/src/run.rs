//! Running children that do not outlive us.

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, set_parent_process_death_signal};

/// Has the kernel end the child when the thread that starts it ends, however it ends. The child must therefore be started by a
/// thread that waits for it.
pub fn dies_with_us(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec only async-signal-safe code may run; the closure makes one system call, prctl, and neither
    // allocates nor locks.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?)) }
}
