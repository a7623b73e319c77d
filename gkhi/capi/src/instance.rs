//! The one registry of this library, and the host table it was made with.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, Ordering};

use hooks::{Registry, Shared};

use crate::failure::gkhi_error;
use crate::host::Table;

const EMPTY: u32 = 0;
const CHANGING: u32 = 1;
const READY: u32 = 2;

struct Instance {
    state: AtomicU32,
    table: UnsafeCell<MaybeUninit<Table>>,
    registry: UnsafeCell<MaybeUninit<Registry<Table>>>,
}

// SAFETY: both are written only by the caller that moved `state` from EMPTY to CHANGING; when it is READY the table is only read,
// and the registry used by the holder of the host's lock only.
unsafe impl Sync for Instance {}

static INSTANCE: Instance = Instance {
    state: AtomicU32::new(EMPTY),
    table: UnsafeCell::new(MaybeUninit::uninit()),
    registry: UnsafeCell::new(MaybeUninit::uninit()),
};

pub(crate) static SHARED: Shared = Shared::new();

/// Makes the registry; false when there is one.
pub(crate) fn start(table: Table) -> bool {
    let from = INSTANCE
        .state
        .compare_exchange(EMPTY, CHANGING, Ordering::Acquire, Ordering::Relaxed);
    if from.is_err() {
        return false;
    }
    // SAFETY: this caller moved the state from EMPTY to CHANGING, so that nobody else touches either.
    unsafe {
        (*INSTANCE.table.get()).write(table);
        (*INSTANCE.registry.get()).write(Registry::new(table, &SHARED));
    }
    INSTANCE.state.store(READY, Ordering::Release);
    true
}

/// Drops the registry.
///
/// # Safety
/// No function of this library is being called, and none is before [`start`] has returned.
pub(crate) unsafe fn stop() {
    // What it refers to is not its own.
    INSTANCE.state.store(EMPTY, Ordering::Release);
}

/// The table, if there is a registry.
pub(crate) fn table() -> Option<&'static Table> {
    if INSTANCE.state.load(Ordering::Acquire) != READY {
        return None;
    }
    // SAFETY: it was written before READY was stored, and nobody writes it until the state has been EMPTY.
    Some(unsafe { (*INSTANCE.table.get()).assume_init_ref() })
}

/// Gives the lock back when it is dropped.
struct Locked(&'static Table);

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: `Table::check`; it is held.
        unsafe { (self.0.unlock)() }
    }
}

/// Calls `function` with the registry, under the host's lock.
pub(crate) fn with_registry<R>(function: impl FnOnce(&mut Registry<Table>) -> R) -> Result<R, gkhi_error> {
    let table = table().ok_or(gkhi_error::NotStarted)?;
    // SAFETY: `Table::check`.
    if !unsafe { (table.lock)() } {
        return Err(gkhi_error::Busy);
    }
    let _locked = Locked(table);
    // SAFETY: it was written before READY was stored, and the lock is held: nobody else has a reference.
    let registry = unsafe { (*INSTANCE.registry.get()).assume_init_mut() };
    Ok(function(registry))
}

/// Tells the host that hooks or exits may have come or gone. The lock is not held.
pub(crate) fn changed() {
    if let Some(table) = table() {
        // SAFETY: `Table::check`.
        unsafe { (table.changed)() }
    }
}
