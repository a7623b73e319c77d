//! Arming and disarming a set: all of it at one moment, or none of it.
//!
//! 1. The rules are checked; nothing has happened yet.
//! 2. Each hook of the set gets a *gate*: passes go through it, and call what they called before, because the gate's number is greater
//!    than that of the last transaction that has taken effect.
//! 3. The sites of hooks that were dormant become jumps, in one text transaction. If it fails the gates are taken away again: none.
//! 4. One store: the number of the last transaction becomes this one's. Every pass that asks a gate from now on calls what is new: all.
//! 5. The gates are taken away, and sites of hooks that have become dormant become NOPs again.
//!
//! A pass takes effect when it loads the hook's pointer or, at a gate, the number; all passes are in one order with the store of
//! step 4, over all hooks of the set. A pass that happens after one that has called an exit of the set sees the whole set.

use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use super::settle::Wait;
use super::{Registry, exits_of, hooks_from};
use crate::dispatch;
use crate::error::Error;
use crate::exit::Exit;
use crate::hook::Hook;
use crate::host::Host;
use crate::kind;
use crate::order;
use crate::site::{NOP, Site, mode};
use crate::target::Target;
use crate::text::{self, Change, Changes, CommitError};

impl<H: Host> Registry<H> {
    /// Arms a set of exits, on any hooks: from one moment on all of them are called, or none is and the reason is returned. Exits that
    /// are armed already may be in the set. One that waits for its hook is armed when the hook arrives.
    ///
    /// # Errors
    /// [`Error::NotRegistered`]; [`Error::Requires`], [`Error::Conflict`], [`Error::Exclusive`] when the exits that would then be armed
    /// do not go together; [`Error::Text`]; [`Error::Inside`] when it would have to wait for the caller.
    pub fn arm(&mut self, set: &[&Exit]) -> Result<(), Error> {
        self.switch(&[], set)
    }

    /// Disarms a set of exits: from one moment on none of them is called.
    ///
    /// # Errors
    /// [`Error::NotRegistered`]; [`Error::Requires`] when an exit that stays armed requires one of them; [`Error::Inside`]. Not
    /// [`Error::Text`]: a site that cannot be made a NOP again calls nothing.
    pub fn disarm(&mut self, set: &[&Exit]) -> Result<(), Error> {
        self.switch(set, &[])
    }

    /// Disarms one set and arms another at the same moment. An exit that is in both is armed.
    ///
    /// # Errors
    /// As [`arm`](Self::arm).
    pub fn switch(&mut self, disarm: &[&Exit], arm: &[&Exit]) -> Result<(), Error> {
        for exit in disarm.iter().chain(arm) {
            self.check_registered(exit)?;
        }
        let mut changed = HookList::EMPTY;
        for (set, armed) in [(disarm, false), (arm, true)] {
            for exit in set {
                // SAFETY: `&mut self`; a registered exit's hook is known.
                unsafe {
                    let control = exit.control();
                    exit.update(|control| control.wanted = armed);
                    if let Some(hook) = control.hook.as_ref() {
                        changed.add(hook);
                    }
                }
            }
        }
        let result = self.check_rules(&changed).and_then(|()| self.transact(&changed));
        for exit in disarm.iter().chain(arm) {
            // SAFETY: `&mut self`. Exits on hooks have been dealt with; one that waits just remembers.
            unsafe {
                exit.update(|control| match result {
                    Ok(()) => control.armed = control.wanted,
                    Err(_) => control.wanted = control.armed,
                });
            }
        }
        changed.clear();
        result
    }

    /// Would the wanted exits of these hooks go together?
    pub(super) fn check_rules(&self, changed: &HookList) -> Result<(), Error> {
        for hook in changed.hooks() {
            // SAFETY: the caller holds the exclusive reference.
            unsafe { order::coexist(exits_of(hook).filter(|exit| exit.control().wanted))? };
        }
        Ok(())
    }

    /// Makes the wanted exits of these hooks the armed ones.
    pub(super) fn transact(&mut self, changed: &HookList) -> Result<(), Error> {
        self.settle(changed.hooks(), Wait::UntilLeft)?;
        let ticket = self.shared.live.load(Ordering::Relaxed) + 1;
        for hook in changed.hooks() {
            let steady = steady(hook);
            hook.close_gate(steady, plan(hook), ticket, &self.shared.live);
        }
        if let Err((hook, error)) = self.patch(changed, mode::JUMP) {
            for hook in changed.hooks() {
                hook.reopen(steady(hook));
            }
            return Err(Error::Text { hook, error });
        }
        self.shared.live.store(ticket, Ordering::SeqCst);
        for hook in changed.hooks() {
            hook.open_gate();
            // SAFETY: `&mut self`.
            unsafe {
                for exit in exits_of(hook) {
                    exit.update(|control| control.armed = control.wanted);
                }
            }
        }
        // What cannot be made a NOP again jumps to the idle target; the next transaction tries again.
        let _ = self.patch(changed, mode::NOP);
        // Mostly nobody is inside for long, and then the next transaction need not wait, even if an exit of these hooks asks for it.
        let _ = self.settle(changed.hooks(), Wait::Briefly);
        Ok(())
    }

    /// Makes those sites of the hooks jumps (NOPs) that must be, in one text transaction.
    fn patch(&mut self, changed: &HookList, to: u32) -> Result<(), (crate::Name, CommitError)> {
        let sites = || {
            changed
                .hooks()
                .filter(|hook| (to == mode::JUMP) != is_idle(hook))
                .flat_map(sites_of)
        };
        self.patch_sites(sites, to)
    }

    /// Patches those of the sites that are not as they should be.
    pub(super) fn patch_sites<'s, I>(
        &mut self,
        sites: impl Fn() -> I,
        to: u32,
    ) -> Result<(), (crate::Name, CommitError)>
    where
        I: Iterator<Item = &'s Site>,
    {
        let from = if to == mode::JUMP { mode::NOP } else { mode::JUMP };
        self.free_stuck(&sites)?;
        let mut count = 0;
        for site in sites().filter(|site| site.address().is_some() && site.mode() == from) {
            site.set_mode(mode::CHANGING);
            count += 1;
        }
        if count == 0 {
            return Ok(());
        }
        // Between the modes and the breakpoints: a late handler that has seen neither finds out that there is a transaction since.
        self.shared.edits.fetch_add(1, Ordering::SeqCst);
        let changes = SiteChanges {
            sites: || sites().filter(|site| site.mode() == mode::CHANGING),
            to,
        };
        // SAFETY: `&mut self`, and nobody else has a reference to the batch.
        let batch = unsafe { &mut *self.shared.batch.get() };
        let result = text::commit(&self.host, &changes, batch);
        let now = match result {
            Ok(()) => to,
            Err(CommitError::Stuck { .. }) => mode::STUCK,
            Err(_) => from,
        };
        if result.is_ok() {
            self.shared.patched.fetch_add(count, Ordering::Relaxed);
        }
        let result = result.map_err(|error| (hook_at(sites(), error.address()), error));
        for site in sites().filter(|site| site.mode() == mode::CHANGING) {
            site.set_mode(now);
        }
        result
    }

    /// Makes NOPs of sites that a transaction could neither change nor leave as they were.
    fn free_stuck<'s, I>(&mut self, sites: &impl Fn() -> I) -> Result<(), (crate::Name, CommitError)>
    where
        I: Iterator<Item = &'s Site>,
    {
        let stuck = || sites().filter(|site| site.mode() == mode::STUCK);
        if stuck().next().is_none() {
            return Ok(());
        }
        let changes = SiteChanges {
            sites: stuck,
            to: mode::JUMP,
        };
        // SAFETY: as in `patch_sites`.
        let batch = unsafe { &mut *self.shared.batch.get() };
        text::restore(&self.host, &changes, batch).map_err(|error| (hook_at(sites(), error.address()), error))?;
        for site in stuck() {
            site.set_mode(mode::NOP);
        }
        Ok(())
    }
}

/// The hook of the site whose text is at `address`.
fn hook_at<'s>(mut sites: impl Iterator<Item = &'s Site>, address: usize) -> crate::Name {
    let site = sites.find(|site| site.address() == Some(address));
    // SAFETY: a known site's hook is known.
    site.map_or(crate::Name::NONE, |site| unsafe { &*site.hook() }.name())
}

/// Sites as a text transaction sees them.
struct SiteChanges<F> {
    sites: F,
    to: u32,
}

impl<'s, I, F> Changes for SiteChanges<F>
where
    I: Iterator<Item = &'s Site>,
    F: Fn() -> I,
{
    fn visit(&self, visit: &mut dyn FnMut(&Change) -> Result<(), CommitError>) -> Result<(), CommitError> {
        for site in (self.sites)() {
            let Some(address) = site.address() else {
                continue;
            };
            let jump = site.jump().ok_or(CommitError::TooFar { address })?;
            visit(&if self.to == mode::JUMP {
                Change::new(address, NOP, jump)
            } else {
                Change::new(address, jump, NOP)
            })?;
        }
        Ok(())
    }
}

/// The sites of a hook.
fn sites_of(hook: &'static Hook) -> impl Iterator<Item = &'static Site> {
    // SAFETY: the registry's exclusive reference is held, and known sites stay until their image is removed.
    let deref = |site: *const Site| unsafe { site.as_ref() };
    // SAFETY: as above.
    core::iter::successors(deref(unsafe { hook.control() }.sites), move |site| deref(site.next()))
}

/// What passes of the hook call when no transaction is in progress.
fn steady(hook: &Hook) -> *const Target {
    // SAFETY: the registry's exclusive reference is held.
    unsafe { hook.control() }.steady
}

/// Will passes of the hook call nothing, when the transaction has taken effect?
#[inline]
fn is_idle(hook: &Hook) -> bool {
    ptr::eq(hook.state.gate.new.load(Ordering::Relaxed), &raw const hook.state.idle)
}

/// What passes are to call for the wanted exits: nothing, the only exit, or a chain. The hook is settled, so that the chain that is not
/// published, and the links of its version, can be written.
fn plan(hook: &'static Hook) -> *const Target {
    // SAFETY: the registry's exclusive reference is held.
    let (control, wanted) = unsafe { (hook.control(), exits_of(hook).filter(|exit| exit.control().wanted)) };
    let mut rest = wanted.clone();
    match (rest.next(), rest.next()) {
        (None, _) => &raw const hook.state.idle,
        (Some(alone), None) if alone.watch == 0 => &raw const alone.target,
        (Some(first), _) => {
            let [even, odd] = &hook.state.chains;
            let (version, chain) = if ptr::eq(control.steady, &raw const even.target) {
                (1, odd)
            } else {
                (0, even)
            };
            let entry = if wanted.clone().any(|exit| exit.watch != 0) {
                crate::entry::thunk(hook)
            } else {
                crate::entry::chain(hook, version)
            };
            chain.target.entry.store(entry.cast_mut(), Ordering::Relaxed);
            chain.first.store(ptr::from_ref(first).cast_mut(), Ordering::Relaxed);
            let mut behind = wanted.clone().skip(1);
            for exit in wanted {
                exit.set_link(version, behind.next().map_or(ptr::null(), ptr::from_ref));
            }
            &raw const chain.target
        }
    }
}

impl Hook {
    /// Fills in the registry's own targets. The hook is new.
    pub(super) fn prepare(&self, left: usize) {
        let entry = crate::entry::thunk(self);
        self.state.idle.prepare(crate::entry::idle(self), left, 0);
        self.state.gate.target.prepare(entry, left, 0);
        let gate = dispatch::gate_function(self.arguments());
        self.state.gate.target.call.store(gate.cast_mut(), Ordering::Relaxed);
        for (version, chain) in self.state.chains.iter().enumerate() {
            chain.target.prepare(entry, left, 0);
            let function = dispatch::chain_function(self.arguments());
            chain.target.call.store(function.cast_mut(), Ordering::Relaxed);
            chain.version.store(version, Ordering::Relaxed);
        }
    }

    /// From now on passes ask the gate.
    fn close_gate(&self, old: *const Target, new: *const Target, ticket: u64, live: &'static AtomicU64) {
        let gate = &self.state.gate;
        gate.old.store(old.cast_mut(), Ordering::Relaxed);
        gate.new.store(new.cast_mut(), Ordering::Relaxed);
        gate.ticket.store(ticket, Ordering::Relaxed);
        gate.live.store(ptr::from_ref(live).cast_mut(), Ordering::Relaxed);
        self.publish(&raw const gate.target);
        if !ptr::eq(new, &raw const self.state.idle) && self.is(kind::GENERIC) {
            self.enabled.store(1, Ordering::Release);
        }
    }

    /// The transaction has failed: passes that are still at the gate find what was before, whatever later transactions do.
    fn reopen(&self, old: *const Target) {
        self.state.gate.new.store(old.cast_mut(), Ordering::Release);
        self.publish(old);
        let idle = ptr::eq(old, &raw const self.state.idle);
        self.enabled
            .store(u32::from(!idle && self.is(kind::GENERIC)), Ordering::Release);
    }

    /// The transaction has taken effect.
    fn open_gate(&self) {
        let new = self.state.gate.new.load(Ordering::Relaxed);
        self.publish(new);
        // SAFETY: the registry's exclusive reference is held.
        unsafe { self.update(|control| control.steady = new) };
        if is_idle(self) {
            self.enabled.store(0, Ordering::Release);
        }
    }

    fn publish(&self, target: *const Target) {
        self.current.store(target.cast_mut(), Ordering::SeqCst);
        // SAFETY: the registry's exclusive reference is held.
        unsafe { self.update(|control| control.unsettled = true) };
    }
}

/// The hooks of a transaction, linked through themselves.
pub(super) struct HookList {
    first: *const Hook,
}

impl HookList {
    pub(super) const EMPTY: Self = HookList { first: ptr::null() };

    /// Adds a hook, once. The registry's exclusive reference is held.
    pub(super) fn add(&mut self, hook: &'static Hook) {
        // SAFETY: see above.
        unsafe {
            if !hook.control().changing {
                let next = core::mem::replace(&mut self.first, hook);
                hook.update(|control| {
                    control.changing = true;
                    control.next_changed = next;
                });
            }
        }
    }

    pub(super) fn hooks(&self) -> impl Iterator<Item = &'static Hook> + Clone + use<> {
        // SAFETY: known hooks, and the registry's exclusive reference is held.
        unsafe { hooks_from(self.first, |hook| hook.control().next_changed) }
    }

    /// Forgets the hooks.
    pub(super) fn clear(&mut self) {
        let mut next = core::mem::take(&mut self.first);
        // SAFETY: as above.
        while let Some(hook) = unsafe { next.as_ref() } {
            // SAFETY: as above.
            unsafe {
                next = hook.control().next_changed;
                hook.update(|control| {
                    control.changing = false;
                    control.next_changed = ptr::null();
                });
            }
        }
    }
}
