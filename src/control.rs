//! Control: making and dropping the engine, programs in and out, what they do.
//!
//! All of these may sleep. One caller at a time: the caller serialises them.

use core::ptr;
use core::slice;

use engine::OutOfMemory;
use engine::host::{Patch, Targets};
use engine::probe::{Engine, InsertOptions, Insertion, Selection, SentryError};
use engine::wire::{
    CHECKS_MAX, INSERT_MERGE, INSERT_NEW, INSERT_REPLACE, INTERFACE_VERSION, KEEP_ALL, KEEP_GROUP, KEEP_MINOR,
    KEEP_TYPE, PointCheck, ProbeStatus, REMOVE_ALL, REMOVE_ALL_NOW, Reply,
};

use crate::errno::{EBUSY, EINVAL, ENODEV, ENOMEM};
use crate::host::{Table, dprobes_host};
use crate::instance::{self, StartError};

/// The longest object that is looked at, in bytes. One with as many points as an object can have, 131,072, is 12 MiB and its strings.
pub const DPROBES_OBJECT_MAX: usize = 1 << 25;

/// The longest name of a module, in bytes.
pub const DPROBES_MODULE_NAME_MAX: usize = 64;

/// What a query tells its caller; a command and a kernel that differ refuse each other.
pub const DPROBES_INTERFACE_VERSION: u32 = 6;

/// For `all` of a request to remove: remove everything.
pub const DPROBES_REMOVE_ALL: u16 = 1;

/// The same: halt everything at once, then remove it.
pub const DPROBES_REMOVE_ALL_NOW: u16 = 2;

/// Of [`dprobes_insert_as`]: there must be no program with the same major code for the same module.
pub const DPROBES_INSERT_NEW: u32 = 0;

/// The probes are added to the program that is there.
pub const DPROBES_INSERT_MERGE: u32 = 1;

/// The program that is there is removed, if there is one.
pub const DPROBES_INSERT_REPLACE: u32 = 2;

const _: () = assert!(DPROBES_INSERT_NEW == INSERT_NEW && DPROBES_INSERT_MERGE == INSERT_MERGE);
const _: () = assert!(DPROBES_INSERT_REPLACE == INSERT_REPLACE);

/// Of [`dprobes_disarm`]: all probes of the program.
pub const DPROBES_KEEP_ALL: u16 = 1;

/// Those with a minor code.
pub const DPROBES_KEEP_MINOR: u16 = 2;

/// Those of a group.
pub const DPROBES_KEEP_GROUP: u16 = 3;

/// Those of a type.
pub const DPROBES_KEEP_TYPE: u16 = 4;

const _: () = assert!(DPROBES_KEEP_ALL == KEEP_ALL && DPROBES_KEEP_MINOR == KEEP_MINOR);
const _: () = assert!(DPROBES_KEEP_GROUP == KEEP_GROUP && DPROBES_KEEP_TYPE == KEEP_TYPE);

const _: () = assert!(DPROBES_REMOVE_ALL == REMOVE_ALL && DPROBES_REMOVE_ALL_NOW == REMOVE_ALL_NOW);

/// Bytes in a slot of the slot area.
pub const DPROBES_SLOT_SIZE: usize = 32;

// The header needs literals.
const _: () = assert!(DPROBES_INTERFACE_VERSION == INTERFACE_VERSION && DPROBES_SLOT_SIZE == Patch::MAX);

/// Makes the engine. The table is copied.
///
/// Returns 0; -EINVAL when `host` is null, of another version, or incomplete; -EBUSY when there is an engine; -ENOMEM.
///
/// # Safety
/// 1. `host` is null or points to a `dprobes_host` that can be read, of which `version` and `size` are right.
/// 2. Its functions do what [`dprobes_host`] says of them until [`dprobes_exit`] has returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_init(host: *const dprobes_host) -> i32 {
    // SAFETY: by requirement 1.
    let Some(host) = (unsafe { host.as_ref() }) else {
        return EINVAL;
    };
    // SAFETY: by requirement 2.
    let Some(table) = (unsafe { Table::check(host) }) else {
        return EINVAL;
    };
    match instance::start(table) {
        Ok(()) => 0,
        Err(StartError::Exists) => EBUSY,
        Err(StartError::NoMemory) => ENOMEM,
    }
}

/// Drops the engine and its memory; does nothing when there is none.
///
/// # Safety
/// 1. [`dprobes_remove_all`] has returned 0, and no program was inserted since.
/// 2. The host no longer calls the trap functions, no call of one is under way on any CPU, and no other function of this
///    library is being called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_exit() {
    // SAFETY: by requirement 2; by requirement 1 no CPU is in a slot or will take a breakpoint of the engine.
    unsafe { instance::stop() }
}

/// Has every execution of the instruction at `address` call the host's `sentry` with `token`, which is not 0. At the entry of a function
/// that is after an `endbr64` and the function tracer's NOP.
///
/// Returns 0; -EINVAL when it is not a place that can be probed, or the token is 0; -EBUSY when there is a probe or a sentry; -ENOMEM.
#[unsafe(no_mangle)]
pub extern "C" fn dprobes_set_sentry(address: u64, token: u64) -> i32 {
    let Some(engine) = instance::engine() else {
        return ENODEV;
    };
    if token == 0 {
        return EINVAL;
    }
    match engine.set_sentry(address, token) {
        Ok(()) => 0,
        Err(SentryError::NoMemory | SentryError::NoSlot) => ENOMEM,
        Err(SentryError::Exists) => EBUSY,
        Err(SentryError::Point(_)) => EINVAL,
    }
}

/// Takes all sentries away. When this returns 0 no CPU and no task is in a slot because of one. No program may be inserted.
///
/// Returns 0, or -ENOMEM when nothing has changed.
#[unsafe(no_mangle)]
pub extern "C" fn dprobes_clear_sentries() -> i32 {
    match instance::engine().map(Engine::clear_sentries) {
        None | Some(Ok(())) => 0,
        Some(Err(OutOfMemory)) => ENOMEM,
    }
}

/// Verifies a program and arms its probes: all of them, or none.
///
/// Returns 0, or a negative errno with the facts in `*reply`, which is written in every case.
///
/// # Safety
/// 1. `object` is null or points to `length` bytes that can be read and that nobody writes meanwhile.
/// 2. `reply` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_insert(object: *const u8, length: usize, reply: *mut Reply) -> i32 {
    // SAFETY: by this function's contract; there is no room for states.
    unsafe { dprobes_insert_as(object, length, ptr::null(), ptr::null_mut(), 0, ptr::null_mut(), reply) }
}

/// How [`dprobes_insert_as`] inserts a program. All zero: as [`dprobes_insert`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
#[allow(non_camel_case_types, reason = "the name is the one that C code uses")]
pub struct dprobes_insert_options {
    /// For a program in user space, the file that it is for: the host's own word for it, which is handed to `user_file` and the others; 0 if there
    /// is none.
    pub file: u64,
    /// What is done with a program of the same major code for the same module: `DPROBES_INSERT_NEW`, `DPROBES_INSERT_MERGE` or
    /// `DPROBES_INSERT_REPLACE`.
    pub how: u32,
    /// Where its records go, bits: 1 the ring, and those of the host's `deliver`; 0 means the ring.
    pub targets: u32,
    /// The process in which its watchpoints watch; 0 means all.
    pub process: u32,
    /// Must be zero.
    pub reserved: u32,
}

impl dprobes_insert_options {
    fn checked(self) -> Option<InsertOptions> {
        let insertion = match self.how {
            DPROBES_INSERT_NEW => Insertion::New,
            DPROBES_INSERT_MERGE => Insertion::Merge,
            DPROBES_INSERT_REPLACE => Insertion::Replace,
            _ => return None,
        };
        (self.reserved == 0).then_some(InsertOptions {
            file: (self.file != 0).then_some(self.file),
            insertion,
            targets: Targets::from_bits(self.targets)?,
            process: self.process,
        })
    }
}

/// As [`dprobes_insert`], with options; null stands for none. If a program is replaced, the final state of its first `capacity` probes is in
/// `last`, and `*count` says how many it had, otherwise 0.
///
/// # Safety
/// 1. As [`dprobes_insert`]; `options` is null or can be read.
/// 2. `last` can be written for `capacity` elements, or `capacity` is 0.
/// 3. `count` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_insert_as(
    object: *const u8,
    length: usize,
    options: *const dprobes_insert_options,
    last: *mut ProbeStatus,
    capacity: usize,
    count: *mut usize,
    reply: *mut Reply,
) -> i32 {
    // SAFETY: by requirement 2.
    let mut last = unsafe { StatusBuffer::new(last, capacity) };
    // SAFETY: by requirement 1; any bytes make a valid value of it.
    let options = unsafe { options.as_ref() }.copied().unwrap_or_default();
    let result = match (instance::engine(), options.checked()) {
        (None, _) => Err(failure(ENODEV)),
        (Some(_), None) => Err(failure(EINVAL)),
        (Some(_), _) if object.is_null() || length > DPROBES_OBJECT_MAX => Err(failure(EINVAL)),
        (Some(engine), Some(options)) => {
            // SAFETY: by requirement 1; the length is far below `isize::MAX`.
            let object = unsafe { slice::from_raw_parts(object, length) };
            engine
                .insert_as(object, options, &mut |status| last.push(status))
                .map_err(|error| error.reply())
        }
    };
    if !count.is_null() {
        // SAFETY: by requirement 3.
        unsafe { ptr::write(count, last.count) };
    }
    // SAFETY: by requirement 1.
    unsafe { answer(result, reply) }
}

/// Removes the program `major` of the module called `name`, `length` bytes that are not terminated, with all its probes.
///
/// Returns 0, or a negative errno with the facts in `*reply`, which is written in every case. On failure nothing has changed. On
/// success the final state of its first `capacity` probes is in `last`, and `*count` says how many it had.
///
/// # Safety
/// 1. `name` is null or points to `length` bytes that can be read and that nobody writes meanwhile.
/// 2. `last` can be written for `capacity` elements, or `capacity` is 0.
/// 3. `count` and `reply` are null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_remove(
    name: *const u8,
    length: usize,
    major: u16,
    last: *mut ProbeStatus,
    capacity: usize,
    count: *mut usize,
    reply: *mut Reply,
) -> i32 {
    // SAFETY: by requirement 2.
    let mut last = unsafe { StatusBuffer::new(last, capacity) };
    let result = match instance::engine() {
        None => Err(failure(ENODEV)),
        Some(_) if name.is_null() || length > DPROBES_MODULE_NAME_MAX => Err(failure(EINVAL)),
        Some(engine) => {
            // SAFETY: by requirement 1; the length is far below `isize::MAX`.
            let name = unsafe { slice::from_raw_parts(name, length) };
            engine
                .remove(name, major, &mut |status| last.push(status))
                .map_err(|error| error.reply())
        }
    };
    if !count.is_null() {
        // SAFETY: by requirement 3.
        unsafe { ptr::write(count, last.count) };
    }
    // SAFETY: by requirement 3.
    unsafe { answer(result, reply) }
}

/// Removes every program, and waits until no CPU and no task needs anything of them.
///
/// Returns 0, or a negative errno with the facts in `*reply`, which is written in every case. On failure nothing has changed:
/// the probes are still armed, and the engine must stay.
///
/// # Safety
/// `reply` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_remove_all(reply: *mut Reply) -> i32 {
    let result = match instance::engine() {
        None => Err(failure(ENODEV)),
        Some(engine) => engine.remove_all().map_err(|error| error.reply()),
    };
    // SAFETY: by this function's contract.
    unsafe { answer(result, reply) }
}

/// Takes probes of a program out, for good, and keeps the program until it is removed: what they have counted does not change any
/// more. When this returns they do not fire any more. `which` is `DPROBES_KEEP_ALL`, or says what `number` is: their minor code, group or type.
///
/// Returns 0, or a negative errno with the facts in `*reply`, which is written in every case. On failure nothing has changed.
///
/// # Safety
/// 1. `name` is null or points to `length` bytes that can be read and that nobody writes meanwhile.
/// 2. `reply` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_disarm(
    name: *const u8,
    length: usize,
    major: u16,
    which: u16,
    number: u16,
    reply: *mut Reply,
) -> i32 {
    let selection = match which {
        DPROBES_KEEP_ALL => Some(Selection::All),
        DPROBES_KEEP_MINOR => Some(Selection::Minor(number)),
        DPROBES_KEEP_GROUP => Some(Selection::Group(number)),
        DPROBES_KEEP_TYPE => Some(Selection::Type(number)),
        _ => None,
    };
    // SAFETY: by requirement 1.
    let result = match (instance::engine(), unsafe { module_name(name, length) }, selection) {
        (None, ..) => Err(failure(ENODEV)),
        (Some(engine), Some(name), Some(selection)) => {
            let disarmed = engine.disarm(name, major, selection);
            disarmed.map_err(|error| error.reply())
        }
        _ => Err(failure(EINVAL)),
    };
    // SAFETY: by requirement 2.
    unsafe { answer(result, reply) }
}

/// Has all hits do nothing from now on but carry their instruction out, until [`dprobes_remove_all`] has returned 0. For emergencies: it may be
/// called in any context, and beside every other function but [`dprobes_exit`].
#[unsafe(no_mangle)]
pub extern "C" fn dprobes_halt() {
    if let Some(engine) = instance::engine() {
        engine.halt();
    }
}

/// Writes the state of the first `capacity` probes to `buffer`, and returns how many there are, which may be more, or a
/// negative errno.
///
/// # Safety
/// `buffer` can be written for `capacity` elements, or `capacity` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_query(buffer: *mut ProbeStatus, capacity: usize) -> i64 {
    let Some(engine) = instance::engine() else {
        return i64::from(ENODEV);
    };
    if buffer.is_null() && capacity != 0 {
        return i64::from(EINVAL);
    }
    // SAFETY: by this function's contract.
    let mut buffer = unsafe { StatusBuffer::new(buffer, capacity) };
    engine.query(&mut |status| buffer.push(status));
    buffer.count as i64
}

/// How many addresses [`dprobes_check`] takes at once.
pub const DPROBES_CHECKS_MAX: usize = 65536;

const _: () = assert!(DPROBES_CHECKS_MAX == CHECKS_MAX as usize);

/// Fills in, for each of `count` checks, whether a probe at its address would be accepted, and if not why. Nothing is changed.
///
/// Returns 0, or a negative errno: -EINVAL for more than `DPROBES_CHECKS_MAX`; -ENOMEM.
///
/// # Safety
/// `checks` is null or points to `count` elements that can be read and written and that nobody else uses meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_check(checks: *mut PointCheck, count: usize) -> i32 {
    let Some(engine) = instance::engine() else {
        return ENODEV;
    };
    if checks.is_null() || count > DPROBES_CHECKS_MAX {
        return EINVAL;
    }
    // SAFETY: by this function's contract; the length is far below `isize::MAX`.
    match engine.check_points(unsafe { slice::from_raw_parts_mut(checks, count) }) {
        Ok(()) => 0,
        Err(_) => ENOMEM,
    }
}

/// Takes the breakpoints of exhausted and self-removed probes out. The host calls it after `request_reap`.
#[unsafe(no_mangle)]
pub extern "C" fn dprobes_reap() {
    if let Some(engine) = instance::engine() {
        engine.reap();
    }
}

/// Tells the engine that the module called `name`, `length` bytes that are not terminated, is being loaded, and that none of it has been
/// executed: the probes of the programs that wait for it are in when this returns, or have a reason why not. Its text, that of its
/// initialisation too, must be as it will be executed, and the host's `probeable`, `module_base` and `symbol` must know it.
///
/// # Safety
/// `name` is null or points to `length` bytes that can be read and that nobody writes meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_module_coming(name: *const u8, length: usize) {
    // SAFETY: by this function's contract.
    if let (Some(engine), Some(name)) = (instance::engine(), unsafe { module_name(name, length) }) {
        engine.module_coming(name);
    }
}

/// Tells the engine that the initialisation of the module called `name` has ended: its probes in the text of that, from `start` up to `end`, are
/// gone when this returns. That text must still be there.
///
/// # Safety
/// As [`dprobes_module_coming`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_module_live(name: *const u8, length: usize, start: u64, end: u64) {
    // SAFETY: by this function's contract.
    if let (Some(engine), Some(name)) = (instance::engine(), unsafe { module_name(name, length) }) {
        engine.module_live(name, start..end);
    }
}

/// # Safety
/// `name` is null or points to `length` bytes that can be read and that nobody writes meanwhile.
unsafe fn module_name<'a>(name: *const u8, length: usize) -> Option<&'a [u8]> {
    if name.is_null() || length > DPROBES_MODULE_NAME_MAX {
        return None;
    }
    // SAFETY: by this function's contract; the length is far below `isize::MAX`.
    Some(unsafe { slice::from_raw_parts(name, length) })
}

/// Tells the engine that the text from `start` up to `end` is being unloaded: its probes are gone when this returns. The
/// text must still be there. Of a module whose initialisation has failed that text is told first, the one that
/// `module_base` gives last.
#[unsafe(no_mangle)]
pub extern "C" fn dprobes_module_going(start: u64, end: u64) {
    if let Some(engine) = instance::engine() {
        engine.module_going(start..end);
    }
}

/// The caller's array of states, of which none need be initialised.
struct StatusBuffer {
    start: *mut ProbeStatus,
    capacity: usize,
    count: usize,
}

impl StatusBuffer {
    /// # Safety
    /// `start` can be written for `capacity` elements while this exists; a null pointer has room for none.
    unsafe fn new(start: *mut ProbeStatus, capacity: usize) -> Self {
        let capacity = if start.is_null() { 0 } else { capacity };
        StatusBuffer {
            start,
            capacity,
            count: 0,
        }
    }

    /// Counts the state, and keeps it if there is room.
    fn push(&mut self, status: &ProbeStatus) {
        if self.count < self.capacity {
            // SAFETY: the element is one of the `capacity` that can be written, by `new`.
            unsafe { ptr::write(self.start.add(self.count), *status) };
        }
        self.count += 1;
    }
}

/// The answer to a request that did not reach the engine.
fn failure(error: i32) -> Reply {
    Reply {
        error,
        point: u32::MAX,
        ..Reply::default()
    }
}

/// Writes the reply, if it is wanted, and returns its errno.
///
/// # Safety
/// `reply` is null or can be written.
unsafe fn answer(result: Result<(), Reply>, reply: *mut Reply) -> i32 {
    let answer = match result {
        Ok(()) => Reply {
            point: u32::MAX,
            ..Reply::default()
        },
        // A refusal is never a success, whatever it carries.
        Err(refusal) if refusal.error >= 0 => Reply {
            error: EINVAL,
            ..refusal
        },
        Err(refusal) => refusal,
    };
    if !reply.is_null() {
        // SAFETY: by this function's contract.
        unsafe { ptr::write(reply, answer) };
    }
    answer.error
}
