//! The variables of inserted programs.
//!
//! It may sleep. One caller at a time, as for the control functions.

use core::ptr;

use engine::probe::{VarError, VarRange, VarScope};
use engine::wire::{VARS_ALL, VARS_GLOBAL, VARS_LOCAL, VarStatus, VarsRequest};

use crate::errno::{EINVAL, ENODEV, ENOENT, ENOSPC};
use crate::instance;

/// Writes the first `capacity` of the variables that `*request` chooses to `buffer`, and sets them to 0 if it says so; its `buffer` and
/// `capacity` are of no account. How many there are, which may be more, is written to its `count`, also when the call fails with -ENOSPC.
///
/// Returns 0, or a negative errno: -ENOENT when there is no such program, or it does not have the first of them; -EINVAL when the request is not as it
/// should be; -ENOSPC when they were to be reset and there are more.
///
/// # Safety
/// 1. `request` is null or can be read and written.
/// 2. `buffer` can be written for `capacity` elements, or `capacity` is 0. It overlaps nothing else that is being used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_vars(request: *mut VarsRequest, buffer: *mut VarStatus, capacity: usize) -> i32 {
    let Some(engine) = instance::engine() else {
        return ENODEV;
    };
    // SAFETY: by requirement 1.
    let Some(request) = (unsafe { request.as_mut() }) else {
        return EINVAL;
    };
    if request.reset > 1 || (buffer.is_null() && capacity != 0) {
        return EINVAL;
    }
    let module = request.module;
    let name = module.split(|byte| *byte == 0).next().unwrap_or(&[]);
    let scope = match request.scope {
        VARS_ALL if request.reset == 0 => VarScope::All,
        VARS_LOCAL => VarScope::Local {
            module: name,
            major: request.major,
        },
        VARS_GLOBAL => VarScope::Global,
        _ => return EINVAL,
    };
    let range = VarRange {
        scope,
        first: request.first as usize,
        number: match request.number {
            0 => usize::MAX,
            number => number as usize,
        },
    };
    let mut count = 0;
    let mut write = |status: &VarStatus| {
        if count < capacity {
            // SAFETY: the element is one of the `capacity` that can be written, by requirement 2.
            unsafe { ptr::write(buffer.add(count), *status) };
        }
        count += 1;
    };
    let done = match request.reset {
        0 => engine.vars(range, &mut write),
        _ => engine.reset_vars(range, capacity, &mut write),
    };
    if let Err(VarError::TooMany { count: all }) = done {
        count = all;
    }
    request.count = count as u32;
    match done {
        Ok(()) => 0,
        Err(VarError::NotFound) => ENOENT,
        Err(VarError::TooMany { .. }) => ENOSPC,
    }
}
