//! Waiting until no pass uses what was published before.
//!
//! A pass counts itself in at the hook's counter of the current phase, then loads the published pointer, and counts itself out in the
//! same phase. There are two phases, as in SRCU, so that waiting ends although new passes keep coming:
//!
//! 1. The new pointer is published already. A barrier on all CPUs: whoever has loaded the old pointer is now seen as counted in, and
//!    whoever is not will load the new one, however long it is preempted between choosing its phase and counting itself in.
//!    Mostly nobody is counted in, in either phase: then that is all.
//! 2. Wait for the phase that passes do not choose now: only stragglers are in it.
//! 3. Switch the phase, and wait for the other one: no new passes join it but stragglers, which have the new pointer.
//!
//! This file knows neither hooks nor atomics: the model checker in `tests/loom.rs` runs it as it is.

/// What the protocol acts on.
pub trait Phases {
    /// Why waiting was given up.
    type Stop;

    /// Makes new passes choose `phase`.
    fn choose(&self, phase: usize);

    /// Have all passes that were counted in at `phase` been counted out? Reads the "out" counters before the "in" counters.
    fn is_drained(&self, phase: usize) -> bool;

    /// Has every pass been counted out, of both phases?
    fn are_drained(&self) -> bool {
        self.is_drained(0) && self.is_drained(1)
    }

    /// Something to do between two looks.
    ///
    /// # Errors
    /// When waiting makes no sense.
    fn wait(&self) -> Result<(), Self::Stop>;
}

/// Waits as the module's description says, after the barrier; `phase` is the one that passes choose now. Returns the one that they
/// choose then.
///
/// # Errors
/// As [`Phases::wait`]. The phase is then as it was, or switched: `phase` says which.
pub fn settle<P: Phases>(passes: &P, phase: &mut usize) -> Result<(), P::Stop> {
    if passes.are_drained() {
        return Ok(());
    }
    let old = *phase;
    let new = 1 - old;
    while !passes.is_drained(new) {
        passes.wait()?;
    }
    passes.choose(new);
    *phase = new;
    while !passes.is_drained(old) {
        passes.wait()?;
    }
    Ok(())
}
