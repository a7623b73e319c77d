//! The maps of inserted programs.
//!
//! Both functions may sleep. One caller at a time, as for the control functions.

use core::ptr;
use core::slice;

use engine::probe::MapError;
use engine::wire::{MapStatus, ReadMapRequest};

use crate::errno::{EAGAIN, EINVAL, ENODEV, ENOENT, ENOMEM};
use crate::instance;

/// Words of a key, at most.
pub const DPROBES_MAP_KEYS_MAX: usize = 4;

/// Writes the state of the first `capacity` maps to `buffer`, and returns how many there are, which may be more, or a negative errno.
///
/// # Safety
/// `buffer` can be written for `capacity` elements, or `capacity` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_maps(buffer: *mut MapStatus, capacity: usize) -> i64 {
    let Some(engine) = instance::engine() else {
        return i64::from(ENODEV);
    };
    if buffer.is_null() && capacity != 0 {
        return i64::from(EINVAL);
    }
    let mut count = 0;
    engine.maps(&mut |status| {
        if count < capacity {
            // SAFETY: the element is one of the `capacity` that can be written, by this function's contract.
            unsafe { ptr::write(buffer.add(count), *status) };
        }
        count += 1;
    });
    count as i64
}

/// Writes entries of a map to `buffer`, as `dprobes_read_map_request` describes them. What is asked for is in `*request`: `id`, `resume`
/// and `after`; its `buffer` and `length` are of no account. What was found is written there: `entry_bytes`, `count`, `left` and
/// `dropped`.
///
/// Returns 0, or a negative errno: -ENOENT when no map has this number; -EINVAL when the request is not as it should be; -ENOMEM;
/// -EAGAIN when an entry changed all the time, and the call is best repeated. `*request` is not changed then.
///
/// # Safety
/// 1. `request` is null or can be read and written.
/// 2. `buffer` can be written for `length` bytes, or `length` is 0. It overlaps nothing else that is being used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_read_map(request: *mut ReadMapRequest, buffer: *mut u8, length: usize) -> i32 {
    let Some(engine) = instance::engine() else {
        return ENODEV;
    };
    // SAFETY: by requirement 1.
    let Some(request) = (unsafe { request.as_mut() }) else {
        return EINVAL;
    };
    if request.reserved != 0 || (buffer.is_null() && length != 0) || isize::try_from(length).is_err() {
        return EINVAL;
    }
    let after = match request.resume {
        0 if request.after == [0; DPROBES_MAP_KEYS_MAX] => None,
        1 => Some(&request.after[..]),
        _ => return EINVAL,
    };
    let out = if length == 0 {
        &mut []
    } else {
        // SAFETY: by requirement 2; it is not null, and the length is not too large.
        unsafe {
            ptr::write_bytes(buffer, 0, length);
            slice::from_raw_parts_mut(buffer, length)
        }
    };
    match engine.read_map(request.id, after, out) {
        Ok(reading) => {
            request.entry_bytes = reading.entry_bytes as u32;
            request.count = reading.count as u64;
            request.left = reading.left as u64;
            request.dropped = reading.dropped;
            0
        }
        Err(MapError::NotFound) => ENOENT,
        Err(MapError::After) => EINVAL,
        Err(MapError::NoMemory) => ENOMEM,
        Err(MapError::Busy) => EAGAIN,
    }
}
