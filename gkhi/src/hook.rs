//! Hooks: the heads that sites refer to.

use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};

use crate::exit::Exit;
use crate::name::Name;
use crate::site::Site;
use crate::target::Target;

/// Kinds of hook, to be combined.
pub mod kind {
    /// Its exits may make the hooked function return.
    pub const RETURNING: u32 = 0x1;
    /// Its sites test a flag in memory instead of being patched.
    pub const GENERIC: u32 = 0x2;
    /// It takes one exit only.
    pub const EXCLUSIVE: u32 = 0x2000_0000;
    /// Every kind there is.
    pub const ALL: u32 = RETURNING | GENERIC | EXCLUSIVE;
}

/// The most arguments that a hook has.
pub const ARGUMENTS_MAX: u32 = 8;

/// The head of a hook: a static variable in the hooked code.
///
/// [`hook!`](crate::hook) makes it in Rust. C code fills in `name`, `signature`, `kind` and `arguments`, and leaves the rest zero.
#[derive(Debug)]
#[repr(C)]
pub struct Hook {
    /// Where a pass counts itself in: the offset from GS of the counter of the current phase.
    pub(crate) counter: AtomicUsize,
    /// What a pass calls.
    pub(crate) current: AtomicPtr<Target>,
    pub(crate) name: Name,
    /// The prototype as text; null: not checked.
    pub(crate) signature: Name,
    /// See [`kind`].
    pub(crate) kind: u32,
    pub(crate) arguments: u32,
    /// Not zero while a pass of a generic site must call.
    pub(crate) enabled: AtomicU32,
    /// The number of the registry that has it; zero in a new head.
    pub(crate) owner: AtomicU32,
    pub(crate) state: HookState,
}

/// What the registry keeps of a hook. Zero in a new head.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct HookState {
    /// Called while no exit is armed but a site still jumps.
    pub(crate) idle: Target,
    /// Called while a transaction is in progress.
    pub(crate) gate: Gate,
    /// Called while several exits are armed: two, so that one can be built while passes follow the other.
    pub(crate) chains: [Chain; 2],
    pub(crate) control: UnsafeCell<Control>,
}

/// Decides by one word whether a transaction has taken effect.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Gate {
    pub(crate) target: Target,
    pub(crate) old: AtomicPtr<Target>,
    pub(crate) new: AtomicPtr<Target>,
    /// The transaction's number.
    pub(crate) ticket: AtomicU64,
    /// The number of the last transaction that has taken effect.
    pub(crate) live: AtomicPtr<AtomicU64>,
}

/// Several exits.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Chain {
    pub(crate) target: Target,
    pub(crate) first: AtomicPtr<Exit>,
    /// Which of an exit's links continue this chain.
    pub(crate) version: AtomicUsize,
}

/// Under the registry's exclusive reference.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Control {
    /// The next hook that the registry knows.
    pub(crate) next: *const Hook,
    /// The next hook of the transaction in progress.
    pub(crate) next_changed: *const Hook,
    pub(crate) sites: *const Site,
    /// Registered exits in the order in which they are called.
    pub(crate) exits: *const Exit,
    /// What passes call when no transaction is in progress.
    pub(crate) steady: *const Target,
    /// Offset of its counters.
    pub(crate) counters: usize,
    /// Passes that have left, by phase, through exits that are gone.
    pub(crate) left_before: [u64; 2],
    /// The phase in which passes count themselves in.
    pub(crate) phase: usize,
    /// Is the hook in the registry's list?
    pub(crate) known: bool,
    /// Part of the transaction in progress?
    pub(crate) changing: bool,
    /// Has something been published since the last grace period, so that some pass may still be using what was before?
    pub(crate) unsettled: bool,
    /// Does some site jump?
    pub(crate) jumping: bool,
    /// Do the counters stay when the hook is not known, because a pass may be on its way to them?
    pub(crate) kept: bool,
    pub(crate) spare: [u8; 3],
}

// SAFETY: what passes touch is atomic or constant; the control part is touched under the registry's exclusive reference only.
unsafe impl Sync for Hook {}
// SAFETY: as above; no affinity to a thread.
unsafe impl Send for Hook {}

impl Hook {
    /// A head that the registry does not know yet. For [`hook!`](crate::hook).
    #[doc(hidden)]
    #[must_use]
    pub const fn new(name: Name, signature: Name, kind: u32, arguments: u32) -> Self {
        const fn target() -> Target {
            Target::new(ptr::null(), ptr::null())
        }
        const fn chain() -> Chain {
            Chain {
                target: target(),
                first: AtomicPtr::new(ptr::null_mut()),
                version: AtomicUsize::new(0),
            }
        }
        Hook {
            counter: AtomicUsize::new(0),
            current: AtomicPtr::new(ptr::null_mut()),
            name,
            signature,
            kind,
            arguments,
            enabled: AtomicU32::new(0),
            owner: AtomicU32::new(0),
            state: HookState {
                idle: target(),
                gate: Gate {
                    target: target(),
                    old: AtomicPtr::new(ptr::null_mut()),
                    new: AtomicPtr::new(ptr::null_mut()),
                    ticket: AtomicU64::new(0),
                    live: AtomicPtr::new(ptr::null_mut()),
                },
                chains: [chain(), chain()],
                control: UnsafeCell::new(Control {
                    next: ptr::null(),
                    next_changed: ptr::null(),
                    sites: ptr::null(),
                    exits: ptr::null(),
                    steady: ptr::null(),
                    counters: 0,
                    left_before: [0; 2],
                    phase: 0,
                    known: false,
                    changing: false,
                    unsettled: false,
                    jumping: false,
                    kept: false,
                    spare: [0; 3],
                }),
            },
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> Name {
        self.name
    }

    /// Its prototype as text; none when it is not checked.
    #[must_use]
    pub const fn signature(&self) -> Name {
        self.signature
    }

    /// Its [`kind`].
    #[must_use]
    pub const fn kind(&self) -> u32 {
        self.kind
    }

    /// How many arguments it has.
    #[must_use]
    pub const fn arguments(&self) -> u32 {
        self.arguments
    }

    /// Must a pass of a generic site call? For [`fire!`](crate::fire).
    #[doc(hidden)]
    #[inline(always)]
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(core::sync::atomic::Ordering::Relaxed) != 0
    }

    pub(crate) fn is(&self, kind: u32) -> bool {
        self.kind & kind != 0
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
}

/// The type that [`hook!`](crate::hook) makes for each hook.
///
/// # Safety
/// The type is a [`Hook`] and nothing else, of this kind and prototype.
#[doc(hidden)]
pub unsafe trait HookType: Sync + 'static {
    /// Its [`kind`].
    const KIND: u32;
    /// Its name.
    const NAME: Name;
    /// Its prototype as text.
    const SIGNATURE: Name;
}

const _: () = {
    // The part that C fills in and passes read; `gkhi.h` has the same.
    assert!(core::mem::offset_of!(Hook, counter) == 0);
    assert!(core::mem::offset_of!(Hook, current) == 8);
    assert!(core::mem::offset_of!(Hook, name) == 16);
    assert!(core::mem::offset_of!(Hook, signature) == 24);
    assert!(core::mem::offset_of!(Hook, kind) == 32);
    assert!(core::mem::offset_of!(Hook, arguments) == 36);
    assert!(core::mem::offset_of!(Hook, enabled) == 40);
    assert!(core::mem::offset_of!(Hook, owner) == 44);
    assert!(core::mem::offset_of!(Hook, state) == 48);
    assert!(core::mem::size_of::<Hook>() == 48 + 32 + 64 + 2 * 48 + 80);
};
