//! Listing: what there is.

use super::{Registry, exits_of};
use crate::counters::{self, NESTED, SLOW};
use crate::error::Error;
use crate::exit::{Exit, State};
use crate::hook::Hook;
use crate::host::Host;
use crate::site::Site;

/// A hook, for listing.
#[derive(Debug, Clone, Copy)]
pub struct HookInfo {
    /// The head.
    pub hook: &'static Hook,
    /// How many sites it has.
    pub sites: usize,
    /// How many of them jump now.
    pub jumping: usize,
    /// How many exits are registered on it.
    pub exits: usize,
    /// How many of them are armed.
    pub armed: usize,
    /// Passes that are in it now, about: counted while others come and go.
    pub inside: u64,
}

/// An exit, for listing.
#[derive(Debug, Clone, Copy)]
pub struct ExitInfo {
    /// The record.
    pub exit: &'static Exit,
    /// Where it is in its life.
    pub state: State,
    /// Its place on the hook: 1 is called first. 0 while it waits.
    pub index: usize,
    /// Calls so far. Exact when the exit is not armed and no pass is in it; a call that is made alone counts when it has returned.
    pub calls: u64,
    /// Of a watched exit: calls that took more cycles than its limit.
    pub slow: u64,
    /// Of a watched exit: calls while another call of it was running on the same CPU; where all CPUs share one copy of the counters, on
    /// any. About, where an exit may be preempted and go on on another CPU: it counts as running on the first one from then on.
    pub nested: u64,
}

impl<H: Host> Registry<H> {
    /// All hooks that have a site, in the order in which they came.
    pub fn hooks(&self) -> impl Iterator<Item = HookInfo> + '_ {
        self.known_hooks().map(|hook| {
            // SAFETY: `&self`: nobody holds the exclusive reference.
            let (control, exits) = unsafe { (hook.control(), exits_of(hook)) };
            let left = |phase: usize| {
                let own = counters::sum(&self.host, control.counters, 2 + phase);
                let before = control.left_before.get(phase).copied().unwrap_or(0);
                exits
                    .clone()
                    // SAFETY: as above.
                    .map(|exit| counters::sum(&self.host, unsafe { exit.control() }.counters, phase))
                    .fold(own.wrapping_add(before), u64::wrapping_add)
            };
            let left = left(0).wrapping_add(left(1));
            let begun = [0, 1].map(|phase| counters::sum(&self.host, control.counters, phase));
            HookInfo {
                hook,
                sites: self.sites(hook).count(),
                jumping: self.sites(hook).filter(|site| site.is_jump()).count(),
                exits: exits.clone().count(),
                // SAFETY: as above.
                armed: exits.filter(|exit| unsafe { exit.control() }.armed).count(),
                inside: begun.into_iter().fold(0, u64::wrapping_add).wrapping_sub(left),
            }
        })
    }

    /// The sites of a hook.
    pub fn sites(&self, hook: &'static Hook) -> impl Iterator<Item = &'static Site> + '_ {
        let first = if self.owns(&hook.owner) {
            // SAFETY: `&self`; known sites stay until their image is removed.
            unsafe { hook.control().sites.as_ref() }
        } else {
            None
        };
        // SAFETY: as above.
        core::iter::successors(first, |site| unsafe { site.next().as_ref() })
    }

    /// The exits of a hook in the order in which they are called.
    pub fn exits(&self, hook: &'static Hook) -> impl Iterator<Item = ExitInfo> + '_ {
        self.owns(&hook.owner)
            // SAFETY: `&self`, and the hook is this registry's.
            .then(|| unsafe { exits_of(hook) })
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(index, exit)| self.describe(exit, index + 1))
    }

    /// The exits that wait for their hooks, in the order in which they were registered.
    pub fn waiting(&self) -> impl Iterator<Item = ExitInfo> + '_ {
        self.waiting_exits().map(|exit| self.describe(exit, 0))
    }

    /// One exit.
    ///
    /// # Errors
    /// [`Error::NotRegistered`].
    pub fn exit(&self, exit: &'static Exit) -> Result<ExitInfo, Error> {
        self.check_registered(exit)?;
        // SAFETY: `&self`; a registered exit's hook is known.
        let hook = unsafe { exit.control().hook.as_ref() };
        // SAFETY: `&self`.
        let index = hook.and_then(|hook| unsafe { exits_of(hook) }.position(|other| core::ptr::eq(other, exit)));
        Ok(self.describe(exit, index.map_or(0, |index| index + 1)))
    }

    fn describe(&self, exit: &'static Exit, index: usize) -> ExitInfo {
        // SAFETY: `&self`.
        let control = unsafe { exit.control() };
        let sum = |word| {
            if control.counters == 0 {
                0
            } else {
                counters::sum(&self.host, control.counters, word)
            }
        };
        ExitInfo {
            exit,
            state: match (control.registered, control.hook.is_null(), control.armed) {
                (false, ..) => State::Unregistered,
                (true, true, armed) => State::Waiting { armed },
                (true, false, false) => State::Registered,
                (true, false, true) => State::Armed,
            },
            index,
            calls: self.calls(exit),
            slow: sum(SLOW),
            nested: sum(NESTED),
        }
    }
}
