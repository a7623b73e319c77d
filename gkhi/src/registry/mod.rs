//! The registry: which hooks, sites and exits there are, and what is armed.
//!
//! All methods that change something take `&mut self`: whoever owns the registry puts it behind the lock that the surrounding kernel
//! has for such things, one that may be held while sleeping. No pass ever looks at it, and no interrupt handler; the one exception,
//! the transient breakpoint, is in [`Shared`].

mod image;
mod list;
mod register;
mod settle;
mod shared;
mod transaction;

pub use image::Added;
pub use list::{ExitInfo, HookInfo};
pub use shared::Shared;

use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::counters;
use crate::error::Error;
use crate::exit::Exit;
use crate::hook::Hook;
use crate::host::Host;
use crate::name::Name;

/// Hooks, sites and exits.
#[derive(Debug)]
pub struct Registry<H: Host> {
    host: H,
    shared: &'static Shared,
    /// Hooks that have a site, in the order in which they came.
    hooks: *const Hook,
    /// Exits whose hook is not there, in the order in which they were registered.
    waiting: *const Exit,
    /// How many registrations there were.
    registered: u64,
    /// Its number, which marks what it has; 0 before it has anything.
    ///
    /// A record's control part is guarded by the exclusive reference to a registry: so that it must be one registry's.
    id: u32,
}

// SAFETY: the records it points to are `Sync` and have no affinity to a thread; their control parts go with the registry.
unsafe impl<H: Host + Send> Send for Registry<H> {}
// SAFETY: as above; `&Registry` only reads them.
unsafe impl<H: Host + Sync> Sync for Registry<H> {}

impl<H: Host> Registry<H> {
    /// An empty registry. `shared` is its own, as long as it knows an image or an exit.
    pub const fn new(host: H, shared: &'static Shared) -> Self {
        Registry {
            host,
            shared,
            hooks: ptr::null(),
            waiting: ptr::null(),
            registered: 0,
            id: 0,
        }
    }

    /// The host.
    pub const fn host(&self) -> &H {
        &self.host
    }

    fn known_hooks(&self) -> impl Iterator<Item = &'static Hook> + Clone + use<H> {
        // SAFETY: known hooks stay until their last image is removed, and `&self` keeps others from changing the list.
        unsafe { hooks_from(self.hooks, |hook| hook.control().next) }
    }

    fn hook(&self, name: Name) -> Option<&'static Hook> {
        self.known_hooks().find(|hook| hook.name() == name)
    }

    fn waiting_exits(&self) -> impl Iterator<Item = &'static Exit> + Clone + use<H> {
        // SAFETY: registered exits stay until they are deregistered, and `&self` keeps others from changing the list.
        unsafe { exits_from(self.waiting) }
    }

    /// Calls of an exit so far.
    fn calls(&self, exit: &Exit) -> u64 {
        // SAFETY: `&self`: nobody holds the exclusive reference.
        let control = unsafe { exit.control() };
        let counted = if control.counters == 0 {
            0
        } else {
            // Alone, counted when it has returned; in a chain or through a gate, when it is called.
            [0, 1, counters::CALLED]
                .into_iter()
                .map(|word| counters::sum(&self.host, control.counters, word))
                .fold(0, u64::wrapping_add)
        };
        control.calls_before.wrapping_add(counted)
    }

    /// Takes a number, and the shared part.
    fn claim(&mut self) -> Result<(), Error> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let taken = Err(Error::OtherRegistry { hook: Name::NONE });
        if self.id == 0 {
            match NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |id| id.checked_add(1)) {
                Ok(id) => self.id = id,
                Err(_) => return taken,
            }
        }
        if self.take(&self.shared.owner) { Ok(()) } else { taken }
    }

    /// Lets another registry have the shared part when nothing is known any more.
    fn release_if_empty(&self) {
        if self.hooks.is_null() && self.waiting.is_null() && self.shared.images().next().is_none() {
            self.shared.owner.store(0, Ordering::Release);
        }
    }

    /// Marks what belongs to nobody as this registry's; is it then this one's?
    fn take(&self, owner: &AtomicU32) -> bool {
        let before = owner.compare_exchange(0, self.id, Ordering::Acquire, Ordering::Acquire);
        before.map_or_else(|owner| owner == self.id, |_| true)
    }

    /// Is what is marked so this registry's?
    fn owns(&self, owner: &AtomicU32) -> bool {
        self.id != 0 && owner.load(Ordering::Acquire) == self.id
    }

    /// Is this very record registered here?
    fn check_registered(&self, exit: &Exit) -> Result<(), Error> {
        if self.owns(&exit.owner) {
            Ok(())
        } else {
            Err(Error::NotRegistered { exit: exit.name })
        }
    }
}

/// # Safety
/// The hooks of the list live as long as the iterator is used, and nobody changes the list meanwhile.
unsafe fn hooks_from(
    first: *const Hook,
    next: impl Fn(&Hook) -> *const Hook + Clone,
) -> impl Iterator<Item = &'static Hook> + Clone {
    // SAFETY: see above.
    let deref = |hook: *const Hook| unsafe { hook.as_ref() };
    core::iter::successors(deref(first), move |hook| deref(next(hook)))
}

/// # Safety
/// The exits of the list live as long as the iterator is used, and nobody changes the list meanwhile.
unsafe fn exits_from(first: *const Exit) -> impl Iterator<Item = &'static Exit> + Clone {
    // SAFETY: see above.
    core::iter::successors(unsafe { first.as_ref() }, |exit| unsafe {
        exit.control().next.as_ref()
    })
}

/// The registered exits of a hook, in the order in which they are called.
///
/// # Safety
/// As [`exits_from`].
unsafe fn exits_of(hook: &Hook) -> impl Iterator<Item = &'static Exit> + Clone + use<> {
    // SAFETY: see above.
    unsafe { exits_from(hook.control().exits) }
}
