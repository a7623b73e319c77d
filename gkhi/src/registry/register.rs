//! Registering and deregistering exits.

use core::ptr;
use core::sync::atomic::Ordering;

use super::{Registry, exits_from, exits_of};
use crate::counters;
use crate::entry;
use crate::error::Error;
use crate::exit::Exit;
use crate::hook::Hook;
use crate::host::Host;
use crate::order;

impl<H: Host> Registry<H> {
    /// Registers an exit on the hook that it names, or to wait for it. It is not called before it is armed.
    ///
    /// # Errors
    /// [`Error::AlreadyRegistered`], here or in another registry; [`Error::OtherRegistry`], [`Error::BadName`], [`Error::BadOptions`], [`Error::NameTaken`], [`Error::NoFunction`]; against
    /// the hook, if it is there: [`Error::HookTaken`], [`Error::WrongPrototype`]; against the exits on it, or waiting for it:
    /// [`Error::FirstTaken`], [`Error::LastTaken`]; [`Error::NoMemory`].
    pub fn register(&mut self, exit: &'static Exit) -> Result<(), Error> {
        // SAFETY: it lives for ever.
        unsafe { self.register_raw(exit) }
    }

    /// Registers an exit that does not live for ever.
    ///
    /// # Safety
    /// The record stays where it is, and its functions may be called, until [`deregister_raw`](Self::deregister_raw) has returned
    /// `Ok`.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub unsafe fn register_raw(&mut self, exit: *const Exit) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        let exit: &'static Exit = unsafe { &*exit };
        self.claim()?;
        let owner = exit
            .owner
            .compare_exchange(0, self.id, Ordering::Acquire, Ordering::Relaxed);
        if owner.is_err() {
            return Err(Error::AlreadyRegistered { exit: exit.name });
        }
        let result = self.place(exit);
        if result.is_err() {
            exit.owner.store(0, Ordering::Release);
            self.release_if_empty();
        }
        result
    }

    /// Checks an exit that has been claimed, and puts it where it belongs.
    fn place(&mut self, exit: &'static Exit) -> Result<(), Error> {
        for name in [exit.name, exit.hook] {
            if !name.is_valid() {
                return Err(Error::BadName { name });
            }
        }
        if exit.target.call.load(Ordering::Relaxed).is_null() {
            return Err(Error::NoFunction { exit: exit.name });
        }
        self.registered += 1;
        // SAFETY: `&mut self`.
        unsafe { exit.update(|control| control.sequence = self.registered) };
        if let Some(hook) = self.hook(exit.hook) {
            self.connect(hook, exit)?;
        } else {
            let rivals = self.waiting_exits().filter(|other| other.hook == exit.hook);
            order::position(exit, false, rivals)?;
            self.push_waiting(exit);
        }
        // SAFETY: `&mut self`.
        unsafe {
            exit.update(|control| {
                control.registered = true;
                control.armed = false;
                control.wanted = false;
                control.calls_before = 0;
            });
        }
        Ok(())
    }

    /// Deregisters an exit: disarms it, and waits until no CPU is inside it. Returns how often it was called.
    ///
    /// # Errors
    /// [`Error::NotRegistered`]; [`Error::Requires`] when an armed exit requires it; [`Error::Inside`] when called from inside an exit of
    /// the same hook. It is then disarmed and still registered: deregister it later, from outside.
    pub fn deregister(&mut self, exit: &'static Exit) -> Result<u64, Error> {
        // SAFETY: it lives for ever.
        unsafe { self.deregister_raw(exit) }
    }

    /// Deregisters an exit that does not live for ever.
    ///
    /// # Safety
    /// As [`register_raw`](Self::register_raw).
    ///
    /// # Errors
    /// As [`deregister`](Self::deregister).
    pub unsafe fn deregister_raw(&mut self, exit: *const Exit) -> Result<u64, Error> {
        // SAFETY: the caller's promise.
        let exit: &'static Exit = unsafe { &*exit };
        self.check_registered(exit)?;
        self.disarm(&[exit])?;
        // SAFETY: `&mut self`.
        let control = unsafe { exit.control() };
        // SAFETY: a registered exit's hook is known.
        if let Some(hook) = unsafe { control.hook.as_ref() } {
            self.settle_hook(hook)?;
            self.disconnect(hook, exit);
        } else {
            // SAFETY: `&mut self`, and the list holds registered exits.
            self.waiting = unsafe { unlink(self.waiting, exit) };
        }
        // SAFETY: `&mut self`.
        unsafe { exit.update(|control| control.registered = false) };
        let calls = self.calls(exit);
        exit.owner.store(0, Ordering::Release);
        self.release_if_empty();
        Ok(calls)
    }

    /// Puts an exit on a hook, in its place.
    pub(super) fn connect(&mut self, hook: &'static Hook, exit: &'static Exit) -> Result<(), Error> {
        if !exit.signature.is_none() && !hook.signature().is_none() && exit.signature != hook.signature() {
            return Err(Error::WrongPrototype {
                exit: exit.name,
                expects: exit.signature,
                declared: hook.signature(),
            });
        }
        // SAFETY: `&mut self`.
        let (position, before) = unsafe {
            let position = order::position(exit, hook.is(crate::kind::EXCLUSIVE), exits_of(hook))?;
            (
                position,
                position.checked_sub(1).and_then(|index| exits_of(hook).nth(index)),
            )
        };
        debug_assert!(position == 0 || before.is_some());
        let own = self.host.alloc_counters().ok_or(Error::NoMemory)?;
        // SAFETY: `&mut self`.
        let hook_control = unsafe { hook.control() };
        let entry = exit.own_entry().unwrap_or_else(|| entry::thunk(hook));
        exit.target.prepare(entry, own.wrapping_sub(hook_control.counters), own);
        // SAFETY: `&mut self`.
        unsafe {
            exit.update(|control| {
                control.hook = hook;
                control.counters = own;
            });
            match before {
                Some(before) => {
                    let next = before.control().next;
                    exit.update(|control| control.next = next);
                    before.update(|control| control.next = exit);
                }
                None => {
                    exit.update(|control| control.next = hook_control.exits);
                    hook.update(|control| control.exits = exit);
                }
            }
        }
        Ok(())
    }

    /// Takes an exit off its hook. No pass can be inside it.
    pub(super) fn disconnect(&mut self, hook: &'static Hook, exit: &'static Exit) {
        let calls = self.calls(exit);
        // SAFETY: `&mut self`.
        let own = unsafe { exit.control() }.counters;
        let left = [0, 1].map(|phase| counters::sum(&self.host, own, phase));
        // SAFETY: `&mut self`, and the list holds registered exits.
        unsafe {
            let first = unlink(hook.control().exits, exit);
            hook.update(|control| {
                control.exits = first;
                for (sum, left) in control.left_before.iter_mut().zip(left) {
                    *sum = sum.wrapping_add(left);
                }
            });
            exit.update(|control| {
                control.hook = ptr::null();
                control.counters = 0;
                control.armed = false;
                control.wanted = false;
                control.calls_before = calls;
            });
        }
        self.host.free_counters(own);
    }

    /// Puts an exit among the waiting ones, in the order of registration, so that they get their old places on a hook that comes back.
    pub(super) fn push_waiting(&mut self, exit: &'static Exit) {
        // SAFETY: `&mut self`.
        unsafe {
            let sequence = exit.control().sequence;
            let before = self
                .waiting_exits()
                .take_while(|other| other.control().sequence < sequence)
                .last();
            let next = before.map_or(self.waiting, |before| before.control().next);
            exit.update(|control| control.next = next);
            match before {
                Some(before) => before.update(|control| control.next = exit),
                None => self.waiting = exit,
            }
        }
    }
}

/// Takes `exit` out of a list; returns the list's head.
///
/// # Safety
/// The caller holds the registry's exclusive reference; the list holds registered exits.
pub(super) unsafe fn unlink(first: *const Exit, exit: &Exit) -> *const Exit {
    // SAFETY: see above.
    unsafe {
        let next = exit.control().next;
        exit.update(|control| control.next = ptr::null());
        if ptr::eq(first, exit) {
            return next;
        }
        let before = exits_from(first).find(|other| ptr::eq(other.control().next, exit));
        if let Some(before) = before {
            before.update(|control| control.next = next);
        }
        first
    }
}
