//! The debug registers while #DB is handled.
//!
//! A watchpoint on what the handlers of #DB touch would raise it again and again. So they are off on this CPU until the handlers have
//! returned. DR7 is then as it was, except for what a handler has written besides the bits that enable a register.

use core::arch::asm;

/// L0 to G3 (SDM volume 3, 18.2.4).
const ENABLES: u64 = 0xff;

/// Switches all registers of this CPU off; says which were on, as they are in DR7.
#[inline(always)]
pub(crate) fn switch_off() -> u64 {
    let control = read();
    let on = control & ENABLES;
    if on != 0 {
        write(control & !ENABLES);
    }
    on
}

/// Switches on what [`switch_off`] has switched off.
#[inline(always)]
pub(crate) fn switch_on(enables: u64) {
    write(read() & !ENABLES | enables);
}

#[inline(always)]
fn read() -> u64 {
    let value;
    // SAFETY: reading DR7 has no effect; DR7.GD is clear in a handler of #DB (SDM volume 3, 18.2.4).
    unsafe { asm!("mov {}, dr7", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

#[inline(always)]
fn write(value: u64) {
    // SAFETY: as above; what is enabled raises exceptions that are handled. Not `nomem`: accesses stay on their side of it.
    unsafe { asm!("mov dr7, {}", in(reg) value, options(nostack, preserves_flags)) };
}
