//! The module loader: brings code into the running kernel, and takes it out again.
//!
//! There is one module, the crate `loadable`, if the kernel's program depends on it. It is linked to run at [`BASE`], where nothing is
//! mapped until [`load`] has copied it into memory of its own, text that may be executed and data that may be written. [`unload`]
//! waits until nobody uses it, takes its hooks and sites out of the registry, unmaps it and poisons its memory, so that a CPU that is
//! late faults. Who runs its code holds a [`ModuleRef`].

use core::ffi::c_void;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gkhi::{Image, Name, fire};
use spin::Mutex;
use x86_64::VirtAddr;
use x86_64::instructions::tlb;

use crate::hooks::{self, MODULE_COMING, MODULE_GOING};
use crate::memory::{self, KERNEL_BASE, MapError, Rights, direct};
use crate::smp;

/// Where the module runs.
pub const BASE: u64 = 0xffff_ffff_a000_0000;

/// What its memory is filled with when it is gone: int3.
const POISON: u8 = 0xcc;

mod linked {
    unsafe extern "C" {
        pub static __text_start: u8;
        pub static __image_end: u8;
        pub static __module_start: u8;
        pub static __module_data: u8;
        pub static __module_sites: u8;
        pub static __module_sites_end: u8;
        pub static __module_calls_end: u8;
        pub static __module_end: u8;
    }
}

macro_rules! address {
    ($symbol:ident) => {
        (&raw const linked::$symbol).addr() as u64
    };
}

/// Why the module was not loaded, or not unloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleError {
    /// The kernel was linked without one.
    None,
    /// It is there already.
    Loaded,
    /// It is not there.
    NotLoaded,
    /// Its memory could not be had.
    Memory(MapError),
    /// Its hooks were not accepted, or could not be let go; nothing has changed.
    Hooks(gkhi::Error),
}

/// Whether it is there, and where in physical memory; the memory is kept for the next time.
struct State {
    loaded: bool,
    frames: Option<u64>,
}

static STATE: Mutex<State> = Mutex::new(State {
    loaded: false,
    frames: None,
});
static LIVE: AtomicBool = AtomicBool::new(false);
static USERS: AtomicUsize = AtomicUsize::new(0);

static IMAGE: Image = {
    // SAFETY: the linker's sections of the module, which is given to the registry while it is loaded, and taken away before it goes.
    unsafe {
        Image::new(
            Name::new(c"loadable"),
            (&raw const linked::__module_sites).cast::<c_void>()
                ..(&raw const linked::__module_sites_end).cast::<c_void>(),
            (&raw const linked::__module_sites_end).cast::<c_void>()
                ..(&raw const linked::__module_calls_end).cast::<c_void>(),
        )
    }
};

/// The physical addresses of what the boot loader has loaded: the kernel, and behind it the module's bytes.
pub(crate) fn linked_image() -> Range<u64> {
    let start = address!(__text_start) - KERNEL_BASE;
    let module_len = address!(__module_end) - address!(__module_start);
    start..address!(__image_end) - KERNEL_BASE + module_len
}

fn all() -> Range<u64> {
    address!(__module_start)..address!(__module_end)
}

/// The module's text, as addresses at which it is while it is loaded. The end is rounded up to a page.
pub fn text() -> Range<u64> {
    address!(__module_start)..address!(__module_data)
}

/// The right to run the module's code and use its data: it stays as long as there is one.
#[derive(Debug)]
pub struct ModuleRef(());

impl Drop for ModuleRef {
    fn drop(&mut self) {
        USERS.fetch_sub(1, Ordering::Release);
    }
}

/// The right to use the module, if it is there and not about to go. In any context.
pub fn get() -> Option<ModuleRef> {
    // Counted first: who waits for the users has taken `LIVE` away before it looks at the count.
    USERS.fetch_add(1, Ordering::SeqCst);
    let user = ModuleRef(());
    LIVE.load(Ordering::SeqCst).then_some(user)
}

/// Brings the module in. To be called in ordinary context, interrupts enabled, without a [`ModuleRef`].
pub fn load() -> Result<(), ModuleError> {
    let mut state = STATE.lock();
    let len = (all().end - all().start) as usize;
    if len == 0 {
        return Err(ModuleError::None);
    }
    if state.loaded {
        return Err(ModuleError::Loaded);
    }
    let frames = match state.frames {
        Some(frames) => frames,
        None => memory::alloc_frames(len).map_err(ModuleError::Memory)?,
    };
    state.frames = Some(frames);
    fill(frames, |at| {
        // SAFETY: the boot loader's copy is this long and never written; the frames are the module's, and mapped nowhere else.
        unsafe { at.copy_from_nonoverlapping(direct(address!(__image_end) - KERNEL_BASE), len) };
    });
    map(frames).map_err(ModuleError::Memory)?;
    // SAFETY: the module's record and sections are there until `remove_image_raw` has returned `Ok`.
    if let Err(error) = unsafe { hooks::registry().add_image_raw(&IMAGE) }.map(drop) {
        unmap(frames);
        return Err(ModuleError::Hooks(error));
    }
    state.loaded = true;
    fire!(MODULE_COMING, text().start, text().end);
    LIVE.store(true, Ordering::SeqCst);
    Ok(())
}

/// Takes the module out, as soon as nobody uses it. To be called as [`load`].
pub fn unload() -> Result<(), ModuleError> {
    let mut state = STATE.lock();
    let Some(frames) = state.frames.filter(|_| state.loaded) else {
        return Err(ModuleError::NotLoaded);
    };
    LIVE.store(false, Ordering::SeqCst);
    while USERS.load(Ordering::SeqCst) != 0 {
        core::hint::spin_loop();
    }
    fire!(MODULE_GOING, text().start, text().end);
    // SAFETY: as in `load`. Nobody runs the module's code: nobody has a reference, and none can be had.
    if let Err(error) = unsafe { hooks::registry().remove_image_raw(&IMAGE) } {
        LIVE.store(true, Ordering::SeqCst);
        return Err(ModuleError::Hooks(error));
    }
    unmap(frames);
    state.loaded = false;
    Ok(())
}

/// Maps the module's memory where it was linked to run.
fn map(frames: u64) -> Result<(), MapError> {
    let (all, text) = (all(), text());
    let text_len = (text.end - text.start) as usize;
    memory::map_frames(text.start, frames, text_len, Rights::EXECUTE)?;
    memory::map_frames(
        text.end,
        frames + text_len as u64,
        (all.end - text.end) as usize,
        Rights::WRITE,
    )
}

/// Unmaps and poisons the module's memory.
fn unmap(frames: u64) {
    let len = (all().end - all().start) as usize;
    // SAFETY: nobody uses it any more.
    unsafe { memory::unmap(BASE, len) }.expect("the module is mapped");
    // SAFETY: the frames are the module's, and mapped nowhere else.
    fill(frames, |at| unsafe { at.write_bytes(POISON, len) });
}

/// Writes the module's memory through its alias. Twice under QEMU's translator, which loses stores to code: see
/// [`memory::write_text`].
fn fill(frames: u64, write: impl Fn(*mut u8)) {
    let alias = direct(frames);
    write(alias);
    if crate::cpu::is_qemu_translator() {
        smp::sync_cores();
        for page in (0..all().end - all().start).step_by(4096) {
            tlb::flush(VirtAddr::from_ptr(alias) + page);
        }
        write(alias);
    }
}
