//! Exits: what is called when a hook is passed.

use core::cell::UnsafeCell;
use core::ops::Deref;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::entry;
use crate::hook::Hook;
use crate::name::{Name, NameList};
use crate::target::Target;

/// Options of an exit, with the original GKHI's values.
pub mod options {
    /// Before all others. A second such exit on the same hook is refused.
    pub const PRIORITY_FIRST: u32 = 0x4;
    /// After all others. A second such exit on the same hook is refused.
    pub const PRIORITY_LAST: u32 = 0x8;
    /// Before the exits that are registered already, but for a first one. Without it: after them, but for a last one.
    pub const QUEUE_LIFO: u32 = 0x10;
    /// While it is armed no other exit of the hook is.
    pub const EXCLUSIVE: u32 = 0x2000_0000;
    /// Every option there is.
    pub const ALL: u32 = PRIORITY_FIRST | PRIORITY_LAST | QUEUE_LIFO | EXCLUSIVE;
}

/// Where an exit is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The registry does not know it.
    Unregistered,
    /// Its hook is not there yet, or no more. `armed` says whether it will be armed when the hook arrives.
    Waiting {
        /// Armed when the hook arrives?
        armed: bool,
    },
    /// On its hook, not called.
    Registered,
    /// On its hook, called.
    Armed,
}

/// An exit record. The caller owns it, and it stays where it is from registration until it is deregistered.
///
/// C code fills the first part in and leaves the rest zero; Rust code makes it with the `exit` function of the hook's type,
/// which checks the prototype.
#[derive(Debug)]
#[repr(C)]
pub struct Exit {
    /// Of C code only `call` is filled in.
    pub(crate) target: Target,
    /// Unique on its hook; becomes a file's name.
    pub(crate) name: Name,
    /// The hook's name.
    pub(crate) hook: Name,
    /// The prototype as the hook declares it, or null: not checked.
    pub(crate) signature: Name,
    /// Exits on the same hook that are armed whenever this one is.
    pub(crate) requires: NameList,
    /// Exits on the same hook that are never armed together with this one.
    pub(crate) conflicts: NameList,
    /// For the exit's own use.
    pub(crate) data: *mut (),
    /// When not zero: calls that take more TSC cycles are counted as slow, and nested calls are counted.
    pub(crate) watch: u64,
    /// See [`options`].
    pub(crate) options: u32,
    /// The number of the registry that has it; zero in a new record.
    pub(crate) owner: AtomicU32,
    state: ExitState,
}

/// What only the registry touches, but for the links, which passes follow. Zero in a new record.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct ExitState {
    /// The next exit that is called, in each of the two versions of the hook's chain.
    pub(crate) link: [AtomicPtr<Exit>; 2],
    control: UnsafeCell<Control>,
}

/// Under the registry's exclusive reference.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Control {
    /// The next registered exit of the same hook, or the next waiting one.
    pub(crate) next: *const Exit,
    /// Null while waiting.
    pub(crate) hook: *const Hook,
    pub(crate) counters: usize,
    pub(crate) registered: bool,
    pub(crate) armed: bool,
    /// What a transaction in progress makes of `armed`.
    pub(crate) wanted: bool,
    /// What `armed` was before its hook began to go away.
    pub(crate) armed_before: bool,
    pub(crate) spare: [u8; 4],
    /// Calls counted before its hook went away.
    pub(crate) calls_before: u64,
    /// Grows with each registration.
    pub(crate) sequence: u64,
}

// SAFETY: what passes touch is atomic, and constant data; the control part is touched under the registry's exclusive reference only.
unsafe impl Sync for Exit {}
// SAFETY: as above; the record has no affinity to a thread.
unsafe impl Send for Exit {}

impl Exit {
    /// Where the links are, for the code that follows them.
    pub(crate) const LINKS: usize = core::mem::offset_of!(Exit, state) + core::mem::offset_of!(ExitState, link);

    /// A record for the hook called `hook`, whose prototype nobody checks but through `signature`.
    ///
    /// # Safety
    /// `call` is an `extern "C"` function that may be called with this record and the hook's arguments, in any context that
    /// passes the hook; it does not unwind. `entry` is null, or does the same with the convention of [`Target`].
    #[must_use]
    pub const unsafe fn raw(hook: Name, name: Name, signature: Name, call: *const (), entry: *const ()) -> Self {
        Exit {
            target: Target::new(entry, call),
            name,
            hook,
            signature,
            requires: NameList::EMPTY,
            conflicts: NameList::EMPTY,
            data: ptr::null_mut(),
            watch: 0,
            options: 0,
            owner: AtomicU32::new(0),
            state: ExitState {
                link: [const { AtomicPtr::new(ptr::null_mut()) }; 2],
                control: UnsafeCell::new(Control {
                    next: ptr::null(),
                    hook: ptr::null(),
                    counters: 0,
                    registered: false,
                    armed: false,
                    wanted: false,
                    armed_before: false,
                    spare: [0; 4],
                    calls_before: 0,
                    sequence: 0,
                }),
            },
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> Name {
        self.name
    }

    /// Its hook's name.
    #[must_use]
    pub const fn hook_name(&self) -> Name {
        self.hook
    }

    /// The pointer that C code put into the record.
    #[must_use]
    pub const fn data(&self) -> *mut () {
        self.data
    }

    /// Its [`options`].
    #[must_use]
    pub const fn options(&self) -> u32 {
        self.options
    }

    /// The limit of TSC cycles over which a call is counted as slow; 0 when the exit is not watched.
    #[must_use]
    pub const fn watch_limit(&self) -> u64 {
        self.watch
    }

    pub(crate) fn has(&self, option: u32) -> bool {
        self.options & option != 0
    }

    pub(crate) fn link(&self, version: usize) -> &AtomicPtr<Exit> {
        let [even, odd] = &self.state.link;
        if version == 0 { even } else { odd }
    }

    /// A copy of the control part.
    ///
    /// # Safety
    /// The caller holds the registry's exclusive reference (or a shared one, while nobody holds the exclusive one).
    pub(crate) unsafe fn control(&self) -> Control {
        // SAFETY: see above: nobody writes meanwhile.
        unsafe { *self.state.control.get() }
    }

    /// Changes the control part.
    ///
    /// # Safety
    /// The caller holds the registry's exclusive reference.
    pub(crate) unsafe fn update(&self, change: impl FnOnce(&mut Control)) {
        // SAFETY: see above; `change` gets at no other reference to it.
        change(unsafe { &mut *self.state.control.get() });
    }

    /// The preserving entry that the record was made with, if any.
    pub(crate) fn own_entry(&self) -> Option<*const ()> {
        let entry = self.target.entry.load(Ordering::Relaxed).cast_const();
        (!entry.is_null() && !entry::is_thunk(entry)).then_some(entry)
    }

    pub(crate) fn set_link(&self, version: usize, next: *const Exit) {
        self.link(version).store(next.cast_mut(), Ordering::Relaxed);
    }
}

/// An exit and its data, typed: made by the `exit` function of a hook's type.
///
/// ```
/// use core::sync::atomic::{AtomicU64, Ordering};
/// use gkhi::{ExitWith, Flow};
///
/// gkhi::hook! {
///     /// A packet has come in.
///     pub static PACKET: fn(len: usize) = "packet";
/// }
///
/// static TOTAL: ExitWith<AtomicU64> = PACKET::exit(c"total", AtomicU64::new(0), |total: &AtomicU64, len| {
///     total.fetch_add(len as u64, Ordering::Relaxed);
///     Flow::Continue
/// })
/// .first();
/// # assert_eq!(TOTAL.name(), gkhi::Name::new(c"total"));
/// ```
#[derive(Debug)]
#[repr(C)]
pub struct ExitWith<D> {
    exit: Exit,
    data: D,
}

impl<D> ExitWith<D> {
    /// Puts a record and its data together.
    ///
    /// # Safety
    /// The record's functions may be called while `data` stands behind it.
    #[doc(hidden)]
    #[must_use]
    pub const unsafe fn new(exit: Exit, data: D) -> Self {
        ExitWith { exit, data }
    }

    /// The data behind a record that was made with [`new`](Self::new).
    ///
    /// # Safety
    /// `exit` is the record of an `ExitWith<D>` that lives during `'a`.
    #[doc(hidden)]
    #[inline(always)]
    pub const unsafe fn data_of<'a>(exit: *const Exit) -> &'a D {
        // SAFETY: `repr(C)`: the record is the first field.
        unsafe { &(*exit.cast::<Self>()).data }
    }

    /// Its data.
    pub const fn data(&self) -> &D {
        &self.data
    }

    /// Before all others; a second such exit is refused.
    #[must_use]
    pub const fn first(self) -> Self {
        self.with_options(options::PRIORITY_FIRST)
    }

    /// After all others; a second such exit is refused.
    #[must_use]
    pub const fn last(self) -> Self {
        self.with_options(options::PRIORITY_LAST)
    }

    /// Before the exits that are registered already, but for a first one; without it, after them, but for a last one.
    #[must_use]
    pub const fn lifo(self) -> Self {
        self.with_options(options::QUEUE_LIFO)
    }

    /// While it is armed no other exit of the hook is.
    #[must_use]
    pub const fn exclusive(self) -> Self {
        self.with_options(options::EXCLUSIVE)
    }

    /// Armed only while these exits of the same hook are armed too.
    #[must_use]
    pub const fn requires(mut self, exits: &'static [Name]) -> Self {
        self.exit.requires = NameList::new(exits);
        self
    }

    /// Never armed together with any of these exits of the same hook.
    #[must_use]
    pub const fn conflicts(mut self, exits: &'static [Name]) -> Self {
        self.exit.conflicts = NameList::new(exits);
        self
    }

    /// Counts calls that take more than `cycles` of the TSC, and calls while another call of it is running on the same CPU.
    /// Such an exit takes the longer path that several exits on one hook take.
    #[must_use]
    pub const fn watch(mut self, cycles: u64) -> Self {
        self.exit.watch = cycles;
        self
    }

    const fn with_options(mut self, options: u32) -> Self {
        self.exit.options |= options;
        self
    }
}

impl<D> Deref for ExitWith<D> {
    type Target = Exit;

    fn deref(&self) -> &Exit {
        &self.exit
    }
}

const _: () = {
    // The part that C fills in; `gkhi.h` has the same.
    assert!(core::mem::offset_of!(Exit, target) == 0);
    assert!(core::mem::offset_of!(Exit, name) == 32);
    assert!(core::mem::offset_of!(Exit, hook) == 40);
    assert!(core::mem::offset_of!(Exit, signature) == 48);
    assert!(core::mem::offset_of!(Exit, requires) == 56);
    assert!(core::mem::offset_of!(Exit, conflicts) == 72);
    assert!(core::mem::offset_of!(Exit, data) == 88);
    assert!(core::mem::offset_of!(Exit, watch) == 96);
    assert!(core::mem::offset_of!(Exit, options) == 104);
    assert!(core::mem::offset_of!(Exit, owner) == 108);
    assert!(core::mem::offset_of!(Exit, state) == 112);
    assert!(core::mem::size_of::<Exit>() == 176);
};
