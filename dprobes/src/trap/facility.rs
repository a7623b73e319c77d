//! Exit facilities: what a program triggers by ending with `exit_to`.
//!
//! A facility is a GKHI exit on the engine's own hook, [`EXIT_TO`]: whoever has one registers it, and a program that asks for its number
//! reaches it without the engine knowing it. What no exit takes the host is asked for; what it has not got either is counted for the
//! probe as unavailable, and nothing happens.

use gkhi::{fire, hook};

use crate::frame::TrapFrame;
use crate::host::ExitTo;

hook! {
    /// A program has ended with `exit_to`: its record has been written, and the probed instruction not been carried out. An exit that
    /// is this facility returns; any other continues.
    ///
    /// Passed in a trap, with interrupts off, in any context: what an exit does must not sleep, allocate, page in or wait. Exits
    /// may change the registers, `rip` included, which is then where the CPU goes on instead of carrying out the instruction.
    ///
    /// The hook is generic, since this is the path of a breakpoint, in which the engine patches no text.
    pub static EXIT_TO: generic fn(exit: &ExitTo, frame: &mut TrapFrame) -> () = "dprobes_exit_to";
}

/// Asks the exits; false when none is this facility. Not generic over the host, so that the hook has one site however many engines are
/// compiled.
#[inline(never)]
pub(super) fn offer(exit: &ExitTo, frame: &mut TrapFrame) -> bool {
    fire!(generic return EXIT_TO, exit, frame => |_taken| true);
    false
}
