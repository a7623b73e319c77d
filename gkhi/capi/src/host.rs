//! The host as a table of C functions.

use core::ffi::c_char;
use core::ops::Range;

use hooks::text::{Text, Unreadable, Unwritable, Write};
use hooks::{Counters, Host};

/// The version of [`gkhi_host`]; [`gkhi_start`](crate::gkhi_start) refuses any other.
pub const GKHI_HOST_VERSION: u32 = 1;

/// What the surrounding kernel provides. Every function must be given. All are called from the caller of a function of this library, in a
/// context that may sleep; a pass through a hook calls none of them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gkhi_host {
    /// `GKHI_HOST_VERSION`.
    pub version: u32,
    /// `sizeof(struct gkhi_host)`.
    pub size: u32,
    /// Takes the lock that makes one caller at a time of all of this library's functions but `gkhi_on_breakpoint`. False when it
    /// cannot be had: the caller may not sleep, or may be in an exit that the lock's holder waits for.
    pub lock: Option<unsafe extern "C" fn() -> bool>,
    /// Gives it back.
    pub unlock: Option<unsafe extern "C" fn()>,
    /// Called without the lock when hooks or exits may have come or gone.
    pub changed: Option<unsafe extern "C" fn()>,
    /// Lets others run for a moment: something is being waited for, with the lock held.
    pub relax: Option<unsafe extern "C" fn()>,
    /// Copies text. 0, or not 0 when there is no text.
    pub read_text: Option<unsafe extern "C" fn(address: usize, bytes: *mut u8, length: usize) -> i32>,
    /// Writes text through an alias that is writable and not executable. Returns how many of the writes were done; those after
    /// them were not. One byte is a single store.
    pub write_text: Option<unsafe extern "C" fn(writes: *const Write, count: usize) -> usize>,
    /// Returns when every CPU has executed a serialising instruction, and has left the breakpoint handler that it was in.
    pub sync_cores: Option<unsafe extern "C" fn()>,
    /// How many CPUs there may ever be; constant.
    pub cpu_count: Option<unsafe extern "C" fn() -> u32>,
    /// A `struct gkhi_counters` for each CPU, all zero: a CPU's is at its GS base plus the result. 0 when there is no memory.
    pub alloc_counters: Option<unsafe extern "C" fn() -> usize>,
    /// Takes them back.
    pub free_counters: Option<unsafe extern "C" fn(offset: usize)>,
    /// Where a CPU's are; null for a CPU that cannot be.
    pub counters: Option<unsafe extern "C" fn(cpu: u32, offset: usize) -> *const Counters>,
    /// The stack that the caller runs on, `*start` up to but not including `*end`.
    pub stack: Option<unsafe extern "C" fn(start: *mut usize, end: *mut usize)>,
    /// The library has found that it is broken: stops the machine with `message`, `length` bytes that are not terminated. Must
    /// not return.
    pub panic: Option<unsafe extern "C" fn(message: *const c_char, length: usize)>,
}

/// A [`gkhi_host`] that is complete: the proof is that this exists.
#[derive(Clone, Copy)]
pub(crate) struct Table {
    pub(crate) lock: unsafe extern "C" fn() -> bool,
    pub(crate) unlock: unsafe extern "C" fn(),
    pub(crate) changed: unsafe extern "C" fn(),
    relax: unsafe extern "C" fn(),
    read_text: unsafe extern "C" fn(usize, *mut u8, usize) -> i32,
    write_text: unsafe extern "C" fn(*const Write, usize) -> usize,
    sync_cores: unsafe extern "C" fn(),
    cpu_count: unsafe extern "C" fn() -> u32,
    alloc_counters: unsafe extern "C" fn() -> usize,
    free_counters: unsafe extern "C" fn(usize),
    counters: unsafe extern "C" fn(u32, usize) -> *const Counters,
    stack: unsafe extern "C" fn(*mut usize, *mut usize),
    pub(crate) panic: unsafe extern "C" fn(*const c_char, usize),
}

impl Table {
    /// `None` when a function is missing, or the table is of another version.
    ///
    /// # Safety
    /// Every function in the table does what [`gkhi_host`] says of it, for as long as the result is used.
    pub(crate) unsafe fn check(host: &gkhi_host) -> Option<Self> {
        if host.version != GKHI_HOST_VERSION || host.size as usize != size_of::<gkhi_host>() {
            return None;
        }
        Some(Table {
            lock: host.lock?,
            unlock: host.unlock?,
            changed: host.changed?,
            relax: host.relax?,
            read_text: host.read_text?,
            write_text: host.write_text?,
            sync_cores: host.sync_cores?,
            cpu_count: host.cpu_count?,
            alloc_counters: host.alloc_counters?,
            free_counters: host.free_counters?,
            counters: host.counters?,
            stack: host.stack?,
            panic: host.panic?,
        })
    }
}

// Below, SAFETY is `Table::check`'s everywhere: its caller has promised what each function does.

impl Text for Table {
    fn read_text(&self, address: usize, bytes: &mut [u8]) -> Result<(), Unreadable> {
        // SAFETY: see above; the buffer may be written for its length.
        match unsafe { (self.read_text)(address, bytes.as_mut_ptr(), bytes.len()) } {
            0 => Ok(()),
            _ => Err(Unreadable),
        }
    }

    fn write_text(&self, writes: &[Write]) -> Result<(), Unwritable> {
        // SAFETY: see above; `Text`'s caller says what is written.
        let done = unsafe { (self.write_text)(writes.as_ptr(), writes.len()) };
        if done >= writes.len() {
            Ok(())
        } else {
            Err(Unwritable { index: done })
        }
    }

    fn sync_cores(&self) {
        // SAFETY: see above.
        unsafe { (self.sync_cores)() }
    }
}

// SAFETY: see above: the counters are each CPU's at its GS base plus the offset, until they are freed.
unsafe impl Host for Table {
    fn cpus(&self) -> usize {
        // SAFETY: see above.
        unsafe { (self.cpu_count)() as usize }
    }

    fn alloc_counters(&self) -> Option<usize> {
        // SAFETY: see above.
        match unsafe { (self.alloc_counters)() } {
            0 => None,
            offset => Some(offset),
        }
    }

    fn free_counters(&self, offset: usize) {
        // SAFETY: see above; the offset came from `alloc_counters`.
        unsafe { (self.free_counters)(offset) }
    }

    fn counters(&self, cpu: usize, offset: usize) -> Option<&Counters> {
        let cpu = u32::try_from(cpu).ok()?;
        // SAFETY: see above; the offset came from `alloc_counters`, and the counters are only read.
        unsafe { (self.counters)(cpu, offset).as_ref() }
    }

    fn relax(&self) {
        // SAFETY: see above.
        unsafe { (self.relax)() }
    }

    fn stack(&self) -> Option<Range<usize>> {
        let (mut start, mut end) = (0, 0);
        // SAFETY: see above; both may be written.
        unsafe { (self.stack)(&raw mut start, &raw mut end) };
        (start < end).then_some(start..end)
    }
}
