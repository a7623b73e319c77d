//! The breakpoint gate of the descriptor table, for a kernel that wants hits to come to the library at once.

use core::ffi::c_void;
use core::sync::atomic::AtomicU64;

use engine::trap::idt::{Gate, IdtError, PatchedGate};
use spin::Mutex;

use crate::errno::{EBUSY, EINVAL, ENOENT, EOPNOTSUPP};

const BREAKPOINT: u8 = 3;

struct Installed(Option<PatchedGate>);

// SAFETY: what is in it is an address that is used only by the functions here, under the lock, whose callers say that it is mapped.
unsafe impl Send for Installed {}

static GATE: Mutex<Installed> = Mutex::new(Installed(None));

/// Puts `entry` in front of the handler of breakpoint exceptions. `*chain` is set to that handler's address before `entry` can run; `entry`
/// calls [`dprobes_on_breakpoint`](crate::dprobes_on_breakpoint) for breakpoints of kernel mode, and jumps there with all others and with
/// those that are not the library's, registers and stack as the CPU left them.
///
/// 0; `-EOPNOTSUPP` when the CPU has no CMPXCHG16B, or the gate is not an interrupt gate that is present; `-EBUSY` when it is installed already, or somebody
/// has changed the gate meanwhile; `-EINVAL` for null.
///
/// # Safety
/// 1. `idt` is null or a writable mapping of the descriptor table of all CPUs, for the time of the call.
/// 2. No other CPU takes a breakpoint exception during the call.
/// 3. `entry` can take the exception wherever it occurs. `chain` is null or stays valid and unchanged until
///    [`dprobes_restore_gate`] has succeeded and no CPU is in `entry` any more.
/// 4. Kernel code does not use the 128 bytes below its stack pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_install_gate(idt: *mut c_void, entry: u64, chain: *mut u64) -> i32 {
    if idt.is_null() || chain.is_null() {
        return EINVAL;
    }
    let mut gate = GATE.lock();
    if gate.0.is_some() {
        return EBUSY;
    }
    // SAFETY: by requirement 3.
    let chain = unsafe { AtomicU64::from_ptr(chain) };
    // SAFETY: requirements 1 to 4 are those of the call.
    match unsafe { PatchedGate::install_entry(idt.cast::<Gate>(), BREAKPOINT, entry, chain) } {
        Ok(patched) => {
            gate.0 = Some(patched);
            0
        }
        Err(error) => errno(error),
    }
}

/// Puts the handler back that was there before [`dprobes_install_gate`]. A CPU may still be in the entry then.
///
/// 0; `-ENOENT` when it is not installed; `-EBUSY` when somebody has put another handler in front of it: it stays installed.
///
/// # Safety
/// Requirements 1 and 2 of [`dprobes_install_gate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_restore_gate(idt: *mut c_void) -> i32 {
    let mut gate = GATE.lock();
    let Some(patched) = gate.0.take() else { return ENOENT };
    // SAFETY: by requirement 1 of `dprobes_install_gate`.
    match unsafe { patched.mapped_at(idt.cast::<Gate>()) }.restore() {
        Ok(()) => 0,
        Err((patched, error)) => {
            gate.0 = Some(patched);
            errno(error)
        }
    }
}

fn errno(error: IdtError) -> i32 {
    match error {
        IdtError::Installed { .. } | IdtError::Changed { .. } => EBUSY,
        IdtError::NoCmpxchg16b
        | IdtError::NoEntry { .. }
        | IdtError::NotPresent { .. }
        | IdtError::NotInterruptGate { .. } => EOPNOTSUPP,
    }
}
