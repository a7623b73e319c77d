//! The records that probes leave behind. These calls may run beside the control functions, one reader per CPU at a time,
//! but not beside [`dprobes_exit`](crate::dprobes_exit).

use core::slice;

use engine::wire::{
    RINGS_FREEZE, RINGS_KEEP_NEWEST, RINGS_KEEP_OLDEST, RINGS_LOOK, RINGS_SETTLE, RINGS_THAW, RingControl,
};

use crate::errno::{EINVAL, ENODEV};
use crate::instance;

/// Moves final records of one CPU to `buffer`, as many whole ones as fit, and returns how many bytes that are, or a negative
/// errno.
///
/// # Safety
/// 1. `buffer` can be read and written for `length` bytes, which are initialised, and nobody else uses it meanwhile.
/// 2. No other call with the same `cpu` is under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_read(cpu: u32, buffer: *mut u8, length: usize) -> i64 {
    let Some(engine) = instance::engine() else {
        return i64::from(ENODEV);
    };
    if buffer.is_null() || length > isize::MAX as usize {
        return i64::from(EINVAL);
    }
    // SAFETY: by requirement 1; the length has been checked.
    let buffer = unsafe { slice::from_raw_parts_mut(buffer, length) };
    engine.read_records(cpu as usize, buffer) as i64
}

/// Does some CPU hold records that are not known to be final? [`dprobes_settle`] makes them so.
#[unsafe(no_mangle)]
pub extern "C" fn dprobes_has_provisional() -> bool {
    instance::engine().is_some_and(|engine| engine.has_provisional())
}

/// Waits for a grace period, after which every record that was there when the call began is final. Sleeps. One caller at
/// a time.
#[unsafe(no_mangle)]
pub extern "C" fn dprobes_settle() {
    if let Some(engine) = instance::engine() {
        engine.settle();
    }
}

/// For `action` of a request about rings: nothing.
pub const DPROBES_RINGS_LOOK: u32 = 0;
/// For `action` of a request about rings: what does not fit is dropped. This is how it is at first.
pub const DPROBES_RINGS_KEEP_OLDEST: u32 = 1;
/// For `action` of a request about rings: be a flight recorder; the oldest records give way to those that do not fit.
pub const DPROBES_RINGS_KEEP_NEWEST: u32 = 2;
/// For `action` of a request about rings: record nothing, until thawed, or until the file is closed by which this was asked for.
pub const DPROBES_RINGS_FREEZE: u32 = 3;
/// For `action` of a request about rings: record again.
pub const DPROBES_RINGS_THAW: u32 = 4;
/// For `action` of a request about rings: wait until it is known of every record that is there whether its instruction has completed.
pub const DPROBES_RINGS_SETTLE: u32 = 5;

const _: () = assert!(
    DPROBES_RINGS_LOOK == RINGS_LOOK
        && DPROBES_RINGS_KEEP_OLDEST == RINGS_KEEP_OLDEST
        && DPROBES_RINGS_KEEP_NEWEST == RINGS_KEEP_NEWEST
        && DPROBES_RINGS_FREEZE == RINGS_FREEZE
        && DPROBES_RINGS_THAW == RINGS_THAW
        && DPROBES_RINGS_SETTLE == RINGS_SETTLE
);

/// Has the rings of all CPUs be flight recorders, in which the oldest records give way to those that do not fit; or, as at first, drop these.
#[unsafe(no_mangle)]
pub extern "C" fn dprobes_keep_newest(newest: bool) {
    if let Some(engine) = instance::engine() {
        engine.keep_newest(newest);
    }
}

/// Records nothing from now on; what comes is counted as lost. It may be called in any context.
#[unsafe(no_mangle)]
pub extern "C" fn dprobes_freeze() {
    if let Some(engine) = instance::engine() {
        engine.freeze();
    }
}

/// Records again.
#[unsafe(no_mangle)]
pub extern "C" fn dprobes_thaw() {
    if let Some(engine) = instance::engine() {
        engine.thaw();
    }
}

/// As `mode` of [`RingControl`].
#[unsafe(no_mangle)]
pub extern "C" fn dprobes_rings_mode() -> u64 {
    instance::engine().map_or(0, |engine| engine.rings_mode())
}

/// Where the ring of a CPU is, to be mapped read-only: `*control` is a page that has nothing else in it, `*data` has `*length` bytes, a power of two, and
/// begins a page if the host's `alloc` gives what is larger than a page whole ones. It stays there until [`dprobes_exit`](crate::dprobes_exit). 0, or a negative errno.
///
/// # Safety
/// All three can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_ring_memory(
    cpu: u32,
    control: *mut *const RingControl,
    data: *mut *const u64,
    length: *mut usize,
) -> i32 {
    let Some(engine) = instance::engine() else {
        return ENODEV;
    };
    let Some((page, words)) = engine.ring_memory(cpu as usize) else {
        return EINVAL;
    };
    // SAFETY: by this function's contract.
    unsafe {
        control.write(page);
        data.write(words.cast());
        length.write(words.len() * size_of::<u64>());
    }
    0
}

/// Copies the newest records of a CPU to `buffer`, as many whole ones as fit, and leaves them in the ring: for a machine that is about to stop. Nobody
/// may be writing records. Those whose instruction is not known to have completed are provisional. Returns how many bytes that are, or a negative errno.
///
/// # Safety
/// `buffer` can be read and written for `length` bytes, which are initialised, and nobody else uses it meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_save(cpu: u32, buffer: *mut u8, length: usize) -> i64 {
    let Some(engine) = instance::engine() else {
        return i64::from(ENODEV);
    };
    if buffer.is_null() || length > isize::MAX as usize {
        return i64::from(EINVAL);
    }
    // SAFETY: by this function's contract; the length has been checked.
    let buffer = unsafe { slice::from_raw_parts_mut(buffer, length) };
    engine.save_records(cpu as usize, buffer) as i64
}
