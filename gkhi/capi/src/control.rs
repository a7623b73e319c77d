//! Control: the registry, images, exits.
//!
//! All of these may sleep, but for [`gkhi_on_breakpoint`].

use core::ffi::{CStr, c_char};
use core::ptr;
use core::slice;

use hooks::{Error, Exit, Image, Registry};

use crate::failure::{gkhi_error, gkhi_failure};
use crate::host::{Table, gkhi_host};
use crate::instance::{self, SHARED, with_registry};
use crate::list;

/// Makes the registry. The table is copied. 0; `GKHI_ERROR_INVALID` when `host` is null, of another version, or incomplete;
/// `GKHI_ERROR_BUSY` when there is one.
///
/// # Safety
/// 1. `host` is null or points to a `gkhi_host` that can be read, of which `version` and `size` are right.
/// 2. Its functions do what [`gkhi_host`] says of them until [`gkhi_stop`] has returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gkhi_start(host: *const gkhi_host) -> i32 {
    // SAFETY: by requirement 1.
    let Some(host) = (unsafe { host.as_ref() }) else {
        return gkhi_error::Invalid.code();
    };
    // SAFETY: by requirement 2.
    let Some(table) = (unsafe { Table::check(host) }) else {
        return gkhi_error::Invalid.code();
    };
    if instance::start(table) {
        0
    } else {
        gkhi_error::Busy.code()
    }
}

/// Drops the registry.
///
/// # Safety
/// No exit is registered and no image known. No function of this library is being called, and none is before [`gkhi_start`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gkhi_stop() {
    // SAFETY: the same requirements.
    unsafe { instance::stop() }
}

/// For the kernel's breakpoint exception, in any context: `address` is that of the `int3`. Where to go on if a site is being patched
/// there; 0 if the breakpoint is somebody else's.
#[unsafe(no_mangle)]
pub extern "C" fn gkhi_on_breakpoint(address: usize) -> usize {
    SHARED.on_breakpoint(address).unwrap_or(0)
}

/// Makes the sites of an image known, and their hooks; exits that wait for those are connected, and armed if they are to be.
/// 0, or a negative `gkhi_error`: nothing is known of the image then.
///
/// # Safety
/// `image` is null, or points to a record that names the sections `gkhi_sites` and `gkhi_calls` of loaded code; all of them, and the heads
/// of the hooks, stay until [`gkhi_remove_image`] has returned 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gkhi_add_image(image: *const Image) -> i32 {
    if image.is_null() {
        return gkhi_error::Invalid.code();
    }
    // SAFETY: by this function's contract.
    let code = finish(with_registry(|registry| unsafe {
        registry.add_image_raw(image).map(drop)
    }));
    instance::changed();
    code
}

/// Forgets the sites of an image. Exits on hooks that have no other site wait for them to come again. Waits until no pass is in
/// such a hook. 0, or a negative `gkhi_error`: the image is known as before then.
///
/// # Safety
/// `image` is null or points to a record that stays while this runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gkhi_remove_image(image: *const Image) -> i32 {
    if image.is_null() {
        return gkhi_error::Invalid.code();
    }
    // SAFETY: by this function's contract.
    let code = finish(with_registry(|registry| unsafe { registry.remove_image_raw(image) }));
    instance::changed();
    code
}

/// Makes an exit known; it is not called yet. Where its hook is not there it waits for it, by name. 0, or a negative `gkhi_error`.
///
/// # Safety
/// `exit` is null, or points to a record as `gkhi.h` makes it, which stays where it is, and whose functions may be called, until
/// [`gkhi_deregister`] has returned 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gkhi_register(exit: *mut Exit) -> i32 {
    if exit.is_null() {
        return gkhi_error::Invalid.code();
    }
    // SAFETY: by this function's contract.
    let code = finish(with_registry(|registry| unsafe { registry.register_raw(exit) }));
    instance::changed();
    code
}

/// Disarms an exit if it is armed, and returns when no CPU and no task is in it. 0, or a negative `gkhi_error`;
/// `GKHI_ERROR_INSIDE` or `GKHI_ERROR_BUSY` when called from inside it: deregister it later, from outside.
///
/// # Safety
/// `exit` is null or points to a record that can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gkhi_deregister(exit: *mut Exit) -> i32 {
    if exit.is_null() {
        return gkhi_error::Invalid.code();
    }
    // SAFETY: by this function's contract.
    let code = finish(with_registry(|registry| unsafe {
        registry.deregister_raw(exit).map(drop)
    }));
    instance::changed();
    code
}

/// Arms one exit: as `gkhi_arm_set`.
///
/// # Safety
/// `exit` is null or points to a record that can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gkhi_arm(exit: *mut Exit) -> i32 {
    // SAFETY: an array of one.
    unsafe { gkhi_arm_set(&raw const exit, 1, ptr::null_mut()) }
}

/// Disarms one exit: as `gkhi_disarm_set`.
///
/// # Safety
/// `exit` is null or points to a record that can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gkhi_disarm(exit: *mut Exit) -> i32 {
    // SAFETY: an array of one.
    unsafe { gkhi_disarm_set(&raw const exit, 1, ptr::null_mut()) }
}

/// Arms all of these exits at one moment, whatever hooks they are on, or none of them. 0, or a negative `gkhi_error`, and then
/// `*failure`, unless null, says why.
///
/// # Safety
/// 1. `exits` is null or points to `count` pointers, each null or to a record that can be read.
/// 2. `failure` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gkhi_arm_set(exits: *const *mut Exit, count: usize, failure: *mut gkhi_failure) -> i32 {
    // SAFETY: the same requirements.
    unsafe { switch_set(exits, count, true, failure) }
}

/// Disarms all of these exits at one moment, or none of them; as `gkhi_arm_set`.
///
/// # Safety
/// As [`gkhi_arm_set`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gkhi_disarm_set(exits: *const *mut Exit, count: usize, failure: *mut gkhi_failure) -> i32 {
    // SAFETY: the same requirements.
    unsafe { switch_set(exits, count, false, failure) }
}

/// Names an exit.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gkhi_exit_name {
    /// The hook's name.
    pub hook: *const c_char,
    /// The exit's.
    pub exit: *const c_char,
}

/// Arms, or disarms, at one moment all exits that are named, or none of them; as `gkhi_arm_set`.
///
/// # Safety
/// 1. `names` points to `count` names, which are terminated strings.
/// 2. `scratch` can be written for `count` pointers.
/// 3. `failure` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gkhi_arm_names(
    names: *const gkhi_exit_name,
    count: usize,
    scratch: *mut *const Exit,
    arm: bool,
    failure: *mut gkhi_failure,
) -> i32 {
    if count != 0 && (names.is_null() || scratch.is_null()) {
        // SAFETY: by requirement 3.
        return unsafe { answer(Err(gkhi_failure::own(gkhi_error::Invalid)), failure) };
    }
    let result = with_registry(|registry| {
        for index in 0..count {
            // SAFETY: by requirement 1.
            let (hook, exit) = unsafe {
                let name = names.add(index).read();
                (CStr::from_ptr(name.hook), CStr::from_ptr(name.exit))
            };
            let found = list::find(registry, hook, exit).ok_or_else(|| gkhi_failure::not_found(hook, exit))?;
            // SAFETY: by requirement 2.
            unsafe { scratch.add(index).write(found.exit) };
        }
        // SAFETY: all have been written, with references; an array of none is not looked at.
        let set = unsafe { array(scratch.cast::<&Exit>(), count) };
        switch(registry, set, arm).map_err(|error| gkhi_failure::of(&error))
    });
    let result = result.unwrap_or_else(|error| Err(gkhi_failure::own(error)));
    // SAFETY: by requirement 3.
    unsafe { answer(result, failure) }
}

/// # Safety
/// As [`gkhi_arm_set`].
unsafe fn switch_set(exits: *const *mut Exit, count: usize, arm: bool, failure: *mut gkhi_failure) -> i32 {
    // SAFETY: by requirement 1; the pointers are looked at as such first.
    let null = exits.is_null() && count != 0 || unsafe { array(exits, count) }.iter().any(|exit| exit.is_null());
    let result = if null {
        Err(gkhi_failure::own(gkhi_error::Invalid))
    } else {
        // SAFETY: by requirement 1, and none is null. A record is only shared, and its changing parts are in cells.
        let set = unsafe { array(exits.cast::<&Exit>(), count) };
        with_registry(|registry| switch(registry, set, arm).map_err(|error| gkhi_failure::of(&error)))
            .unwrap_or_else(|error| Err(gkhi_failure::own(error)))
    };
    // SAFETY: by requirement 2.
    unsafe { answer(result, failure) }
}

fn switch(registry: &mut Registry<Table>, set: &[&Exit], arm: bool) -> Result<(), Error> {
    if arm { registry.arm(set) } else { registry.disarm(set) }
}

/// # Safety
/// `start` points to `count` elements that are valid during `'a`, or `count` is 0.
unsafe fn array<'a, T>(start: *const T, count: usize) -> &'a [T] {
    if count == 0 {
        return &[];
    }
    // SAFETY: by this function's contract.
    unsafe { slice::from_raw_parts(start, count) }
}

/// Writes the failure, if it is wanted, and returns its number.
///
/// # Safety
/// `failure` is null or can be written.
unsafe fn answer(result: Result<(), gkhi_failure>, failure: *mut gkhi_failure) -> i32 {
    match result {
        Ok(()) => 0,
        Err(refusal) => {
            if !failure.is_null() {
                // SAFETY: by this function's contract.
                unsafe { failure.write(refusal) };
            }
            refusal.error
        }
    }
}

fn finish(result: Result<Result<(), Error>, gkhi_error>) -> i32 {
    match result {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => error.code(),
        Err(error) => error.code(),
    }
}
