//! Probes on the returns of functions of the kernel.
//!
//! Such a probe is at the site where the calls begin. In its turn there the host is asked to follow the call, and hands back the probe's number when it
//! has returned. Numbers are never given out twice: what comes back late is nobody's.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use super::engine::{Control, Engine};
use super::error::{InsertError, PointError};
use super::place::{Place, Spot};
use super::program::{Loaded, Probe};
use super::table::Table;
use crate::host::{Function, Host, ReturnError};
use crate::insn::Instructions;
use crate::mem::OutOfMemory;

/// How far it is followed that functions go on in others, before a function is taken for one that returns.
const PARTS_MAX: usize = 8;

/// All of them that are on a place, for returns.
pub(crate) struct Returns {
    by_number: Table<Probe>,
}

impl Returns {
    pub(super) fn new() -> Result<Self, OutOfMemory> {
        Ok(Returns {
            by_number: Table::new()?,
        })
    }

    /// The probe with this number, valid as [`Engine::site`] says.
    pub(crate) fn get(&self, number: u64) -> Option<&Probe> {
        if number == 0 {
            return None;
        }
        // SAFETY: the table holds null or pointers to probes of programs, which are freed only after they have left it and a core sync has passed.
        unsafe { self.by_number.get(number).as_ref() }
    }
}

/// By which number the returns of a probe come; 0 while none do.
#[derive(Debug, Default)]
pub(crate) struct ReturnNumber(AtomicU64);

impl ReturnNumber {
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<H: Host> Engine<H> {
    /// Do calls begin at a place that was found for this address, and return?
    pub(super) fn check_returns(&self, requested: u64, place: &Place) -> Result<(), ReturnError> {
        if requested != place.function.start {
            return Err(ReturnError::NotEntry);
        }
        match self.can_return(place.function) {
            Ok(true) => Ok(()),
            Ok(false) => Err(ReturnError::NeverReturns),
            Err(OutOfMemory) => Err(ReturnError::NoMemory),
        }
    }

    /// Is there a way out of a function: a return, a jump to where only registers say, or one into a function that has such a way? What cannot be
    /// read is taken for one.
    fn can_return(&self, function: Function) -> Result<bool, OutOfMemory> {
        let mut parts = [function; PARTS_MAX];
        let (mut known, mut looked_at) = (1, 0);
        let mut text = Vec::new();
        while looked_at < known {
            let Some(&part) = parts.get(looked_at) else { break };
            looked_at += 1;
            if self.original_text(part, part.end, &mut text)?.is_err() {
                return Ok(true);
            }
            for item in Instructions::new(&text) {
                let Ok((offset, insn)) = item else { return Ok(true) };
                if insn.leaves() {
                    return Ok(true);
                }
                let target = insn.jumps_to(part.start + offset as u64);
                let Some(target) = target.filter(|target| !(part.start..part.end).contains(target)) else {
                    continue;
                };
                let inside = |part: &Function| (part.start..part.end).contains(&target);
                if parts.iter().take(known).any(inside) {
                    continue;
                }
                match (self.host().function_at(target), parts.get_mut(known)) {
                    (Some(next), Some(place)) => {
                        *place = next;
                        known += 1;
                    }
                    _ => return Ok(true),
                }
            }
        }
        Ok(false)
    }

    /// Has the host follow the calls that the probes of a program are about. On failure, and when they leave, that is
    /// [taken back](Self::detach_return).
    pub(super) fn attach_returns(
        &self,
        control: &mut Control,
        loaded: &Loaded,
        places: &[Spot],
    ) -> Result<(), InsertError> {
        let returns = || {
            let pairs = loaded.probes.iter().zip(places);
            pairs.filter_map(|(probe, spot)| match spot {
                Spot::Return { place, .. } => Some((probe, probe.returns.as_ref()?, place)),
                _ => None,
            })
        };
        let count = returns().count();
        if count == 0 {
            return Ok(());
        }
        let old = self.returns.by_number.reserve(count)?;
        let mut done = Ok(());
        for (probe, number, place) in returns() {
            if let Err(error) = self.host().attach_return(place.function) {
                done = Err(InsertError::Point {
                    point: probe.point,
                    address: place.function.start,
                    error: PointError::Return(error),
                });
                break;
            }
            control.last_return += 1;
            number.0.store(control.last_return, Ordering::Relaxed);
            let probe = core::ptr::from_ref(probe).cast_mut();
            self.returns.by_number.insert(control.last_return, probe);
        }
        if !old.is_empty() {
            // A return that may be reading the old table has ended after this.
            self.host().sync_cores();
        }
        drop(old);
        done
    }

    /// From now on the returns of calls that a probe is about are not its any more. What is still handling one has ended after a core sync.
    pub(super) fn detach_return(&self, probe: &Probe) {
        let number = probe
            .returns
            .as_ref()
            .map_or(0, |number| number.0.swap(0, Ordering::Relaxed));
        if number != 0 {
            self.returns.by_number.remove(number);
            self.host().detach_return();
        }
    }
}
