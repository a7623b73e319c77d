//! The one engine of this library, and the host table it was made with.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, Ordering};

use engine::probe::Engine;

use crate::host::{CHost, Table};

/// Why there is no new engine.
pub(crate) enum StartError {
    /// There is one, or one is being made or dropped.
    Exists,
    /// Memory is short.
    NoMemory,
}

const EMPTY: u32 = 0;
/// One caller makes or drops the engine; the table is there already, because that takes memory.
const CHANGING: u32 = 1;
const READY: u32 = 2;

struct Instance {
    state: AtomicU32,
    table: UnsafeCell<MaybeUninit<Table>>,
    engine: UnsafeCell<MaybeUninit<Engine<CHost>>>,
}

// SAFETY: the table and the engine are written only by the caller that moved `state` from EMPTY to CHANGING and read by
// others only while it is CHANGING or READY (the table) or READY (the engine); both are `Sync`.
unsafe impl Sync for Instance {}

static INSTANCE: Instance = Instance {
    state: AtomicU32::new(EMPTY),
    table: UnsafeCell::new(MaybeUninit::uninit()),
    engine: UnsafeCell::new(MaybeUninit::uninit()),
};

/// The engine, if there is one. One load; for every context.
#[inline]
pub(crate) fn engine() -> Option<&'static Engine<CHost>> {
    if INSTANCE.state.load(Ordering::Acquire) != READY {
        return None;
    }
    // SAFETY: it was written before READY was stored, and is dropped only by `stop`, whose caller promises that no use of
    // the engine is under way or will begin.
    Some(unsafe { (*INSTANCE.engine.get()).assume_init_ref() })
}

/// The table, if there is an engine or one is being made.
pub(crate) fn table() -> Option<&'static Table> {
    if INSTANCE.state.load(Ordering::Acquire) == EMPTY {
        return None;
    }
    // SAFETY: while CHANGING, only the caller of `start` or `stop` asks, and it has written the table before; when READY
    // it has been written too. Nobody writes it until the state has been EMPTY.
    Some(unsafe { (*INSTANCE.table.get()).assume_init_ref() })
}

/// Makes the engine.
pub(crate) fn start(table: Table) -> Result<(), StartError> {
    let from = INSTANCE
        .state
        .compare_exchange(EMPTY, CHANGING, Ordering::Acquire, Ordering::Relaxed);
    from.map_err(|_| StartError::Exists)?;
    // SAFETY: this caller moved the state from EMPTY to CHANGING, so that nobody else reads or writes the table.
    unsafe { (*INSTANCE.table.get()).write(table) };
    match Engine::new(CHost::new(table)) {
        Ok(engine) => {
            // SAFETY: as above; the engine is read only after READY is stored.
            unsafe { (*INSTANCE.engine.get()).write(engine) };
            INSTANCE.state.store(READY, Ordering::Release);
            Ok(())
        }
        Err(_) => {
            INSTANCE.state.store(EMPTY, Ordering::Release);
            Err(StartError::NoMemory)
        }
    }
}

/// Drops the engine, if there is one.
///
/// # Safety
/// No use of the engine is under way on any CPU, and none begins before the next [`start`] has returned.
pub(crate) unsafe fn stop() {
    if INSTANCE
        .state
        .compare_exchange(READY, CHANGING, Ordering::Acquire, Ordering::Relaxed)
        .is_err()
    {
        return;
    }
    // SAFETY: it is initialised, because the state was READY; by this function's contract nobody else uses it.
    unsafe { (*INSTANCE.engine.get()).assume_init_drop() };
    INSTANCE.state.store(EMPTY, Ordering::Release);
}
