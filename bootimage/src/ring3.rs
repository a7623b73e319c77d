//! Ring 3: running code with user rights, in memory mapped with [`crate::memory::Rights::USER`].

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use x86_64::VirtAddr;

use crate::segments::{KERNEL_CS, KERNEL_DS, USER_CS, USER_DS, ring0_stack_slot};
use crate::trap::{FIRST_OWN_VECTOR, TrapFrame};
use crate::{hooks, percpu};

/// Code in ring 3 executes `int` with this vector to end; RAX is then what [`run`] returns.
pub const LEAVE_VECTOR: u8 = FIRST_OWN_VECTOR + 2;

core::arch::global_asm!(
    include_str!("asm/ring3.s"),
    user_cs = const USER_CS.0,
    user_ds = const USER_DS.0,
    options(att_syntax)
);

unsafe extern "C" {
    fn ring3_enter(entry: u64, stack: u64, argument: u64, ring0_stack: *mut VirtAddr) -> u64;
    static ring3_return: u8;
}

/// Runs the code at `entry` in ring 3 with interrupts enabled, its stack pointer at `stack` and `argument` in RDI, until it executes
/// `int 0xf2` or a trap handler calls [`leave`]. Returns RAX, or what [`leave`] was given. Not to be called in a trap.
///
/// Passes [`hooks::EXEC`], whose exits may change where the program starts and with which argument, or answer in its place.
///
/// # Safety
///
/// The code must be able to do no more than ring 3 may; user pages must not alias memory that Rust code uses.
pub unsafe fn run(mut entry: u64, stack: u64, mut argument: u64) -> u64 {
    gkhi::fire!(return hooks::EXEC, ref entry, stack, ref argument);
    // SAFETY: the slot is this CPU's; a trap from ring 3 starts below what `ring3_enter` saves on the present stack.
    unsafe { ring3_enter(entry, stack, argument, ring0_stack_slot()) }
}

/// Makes the trap that `frame` belongs to, one from ring 3, return from [`run`] with `value`.
///
/// # Panics
///
/// If the trap did not come from ring 3.
pub fn leave(frame: &mut TrapFrame, value: u64) {
    assert_eq!(frame.cs, u64::from(USER_CS.0), "leave: the trap came from ring 0");
    frame.rip = (&raw const ring3_return).addr() as u64;
    frame.cs = KERNEL_CS.0.into();
    // Interrupts stay masked until `ring3_return` has restored the flags.
    frame.rflags = 1 << 1;
    // SAFETY: `run` put the stack pointer to come back to in this CPU's slot, which is not aligned.
    frame.rsp = unsafe { ring0_stack_slot().read_unaligned() }.as_u64();
    frame.ss = KERNEL_DS.0.into();
    frame.rax = value;
}

/// The registers that ring 3 was left with, and will be returned to with, while this CPU handles a trap from there.
///
/// The trap's handler has a reference to them: use the pointer only inside of a trap that interrupts it.
pub fn frame() -> Option<NonNull<TrapFrame>> {
    NonNull::new(percpu::current().user_frame.load(Ordering::Relaxed))
}

/// Handles [`LEAVE_VECTOR`]; false for all others.
pub(crate) fn handle_leave(vector: u8, frame: &mut TrapFrame) -> bool {
    if vector == LEAVE_VECTOR {
        leave(frame, frame.rax);
    }
    vector == LEAVE_VECTOR
}
