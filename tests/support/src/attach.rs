//! The engine as a client of the kernel's hooks: an exit on each, armed as one set.

use core::sync::atomic::{AtomicU64, Ordering};

use bootimage::hooks::{self, BREAKPOINT, DEBUG, FAULT, MODULE_GOING, PAGE_FAULT};
use bootimage::trap as kernel;
use dprobes::probe::Engine;
use dprobes::trap::{TrapFrame, Verdict as Handled};
use gkhi::{Error, Exit, ExitWith, Flow, Verdict};

use crate::ENGINE;
use crate::host::Kernel;

/// The engine and the registers.
fn ours(frame: &mut kernel::TrapFrame) -> Option<(&'static Engine<Kernel>, &mut TrapFrame)> {
    // SAFETY: both are Linux's `struct pt_regs`, and the reference is handed on.
    let frame = unsafe { &mut *core::ptr::from_mut(frame).cast::<TrapFrame>() };
    Some((ENGINE.get()?, frame))
}

/// Breakpoints that the engine has dealt with.
pub static HANDLED: AtomicU64 = AtomicU64::new(0);

/// The engine on [`BREAKPOINT`].
pub static ON_BREAKPOINT: ExitWith<()> = BREAKPOINT::exit(c"dprobes", (), |(), frame| {
    let handled = ours(frame).is_some_and(|(engine, frame)| engine.on_breakpoint(frame) == Handled::Handled);
    if handled {
        HANDLED.fetch_add(1, Ordering::Relaxed);
        Verdict::Return(())
    } else {
        Verdict::Continue
    }
});

/// The engine on [`DEBUG`]. Ring 3 can hit a watchpoint.
pub static ON_DEBUG: ExitWith<()> = DEBUG::exit(c"dprobes", (), |(), frame, status| {
    let handled = ours(frame).is_some_and(|(engine, frame)| engine.on_debug(frame, status) == Handled::Handled);
    if handled {
        Verdict::Return(())
    } else {
        Verdict::Continue
    }
});

/// The engine on [`PAGE_FAULT`]: a fault in a slot is shown to those behind it, and to the kernel, as the original instruction's. So it
/// is the first.
pub static ON_PAGE_FAULT: ExitWith<()> = PAGE_FAULT::exit(c"dprobes", (), |(), frame, _| {
    if let Some((engine, frame)) = ours(frame) {
        engine.on_fault(frame);
    }
    Verdict::Continue
})
.first();

/// The engine on [`FAULT`], as on [`PAGE_FAULT`].
pub static ON_FAULT: ExitWith<()> = FAULT::exit(c"dprobes", (), |(), frame, _| {
    if let Some((engine, frame)) = ours(frame) {
        engine.on_fault(frame);
    }
    Verdict::Continue
})
.first();

/// The engine on [`MODULE_GOING`]: its probes there are gone when the pass has gone on.
pub static ON_MODULE_GOING: ExitWith<()> = MODULE_GOING::exit(c"dprobes", (), |(), start, end| {
    if let Some(engine) = ENGINE.get() {
        engine.module_going(start..end);
    }
    Flow::Continue
});

fn exits() -> [&'static Exit; 5] {
    [&ON_BREAKPOINT, &ON_DEBUG, &ON_PAGE_FAULT, &ON_FAULT, &ON_MODULE_GOING]
}

/// Attaches the engine: from one moment on it gets all traps, and none before.
pub fn attach() -> Result<(), Error> {
    let mut registry = hooks::registry();
    for exit in exits() {
        registry.register(exit)?;
    }
    registry.arm(&exits())
}

/// Detaches the engine. No probe is inserted.
pub fn detach() -> Result<(), Error> {
    let mut registry = hooks::registry();
    registry.disarm(&exits())?;
    exits()
        .into_iter()
        .try_for_each(|exit| registry.deregister(exit).map(drop))
}
