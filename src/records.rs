//! The records that probes leave behind. These calls may run beside the control functions, one reader per CPU at a time,
//! but not beside [`dprobes_exit`](crate::dprobes_exit).

use core::slice;

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
