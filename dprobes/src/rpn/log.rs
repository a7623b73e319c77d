//! Writing the log of a hit: elements, as far as they fit.

use core::sync::atomic::Ordering::Relaxed;

use super::env::Env;
use super::exception::operand;
use super::limits::{MEMORY_COST, RETURN_ADDRESS_COST, STACK_TRACE_MAX, STACK_WORDS};
use super::rare::{Failure, Machine};
use super::variables::Variables;
use super::workspace::Workspace;
use crate::record::element::{FAULT_LEN, PREFIX, prefix, token};

/// What became of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logged {
    /// It is in the log.
    All,
    /// There was no room for all of it.
    Overflow,
    /// This address could not be read: the log has a fault element instead, if there was room.
    Fault { addr: u64, overflow: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogInsn {
    Globals,
    KernelStack,
    UserStack,
    Name,
    PushLength,
    PushPrevious,
    PopLength,
}

impl LogInsn {
    pub(super) fn execute<E: Env>(self, m: &mut Machine<'_, '_, E>) -> Result<(), Failure> {
        let logged = match self {
            Self::Globals => {
                let count = m.pop();
                let first = m.pop();
                let variables = m.hit.variables;
                let all = variables.global_slots.len() as u64;
                let Some(range) = range(first, count, all) else {
                    return Err(Failure::operand(operand::GLOBAL, first.max(all)));
                };
                m.start_element();
                let words = range.map(|index| global(variables, index));
                m.ws.log_words(m.hit.program.logmax, token::GLOBALS, words)
            }
            Self::KernelStack => log_stack(m, token::KERNEL_STACK, E::kernel_stack)?,
            Self::UserStack => log_stack(m, token::USER_STACK, E::user_stack)?,
            Self::Name => {
                m.charge(MEMORY_COST)?;
                let name = m.env.task().name;
                let len = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
                m.start_element();
                m.ws.log_bytes(m.hit.program.logmax, token::STRING, name.get(..len).unwrap_or(&name))
            }
            Self::PushLength => {
                m.push(m.ws.log.len as u64);
                Logged::All
            }
            Self::PushPrevious => {
                m.push(m.ws.previous_len as u64);
                Logged::All
            }
            Self::PopLength => {
                let len = m.pop();
                m.charge(u32::from(m.hit.program.logmax) / 8)?;
                if !m.ws.log.cut(len) {
                    return Err(Failure::operand(operand::LENGTH, len));
                }
                m.ws.previous_len = m.ws.previous_len.min(m.ws.log.len);
                Logged::All
            }
        };
        if logged == Logged::All {
            return Ok(());
        }
        let (code, parm1) = m.hit.log_failed(logged, m.hit.program.logmax);
        Err(Failure::Exception { code, parm1, parm2: 0 })
    }
}

impl<E: Env> Machine<'_, '_, E> {
    /// An element is about to be logged.
    fn start_element(&mut self) {
        self.ws.previous_len = self.ws.log.len;
    }
}

/// The indices of `count` variables from `first` on, if there are so many.
pub(super) fn range(first: u64, count: u64, all: u64) -> Option<core::ops::Range<usize>> {
    if count == 0 {
        return Some(0..0);
    }
    let end = first.checked_add(count).filter(|end| *end <= all)?;
    Some(first as usize..end as usize)
}

/// The value of a global variable of the program.
pub(super) fn global(variables: &Variables<'_>, index: usize) -> u64 {
    variables.global(index).map_or(0, |global| global.load(Relaxed))
}

/// The value of a local variable of the program.
pub(super) fn local(variables: &Variables<'_>, index: usize) -> u64 {
    variables.locals.get(index).map_or(0, |local| local.load(Relaxed))
}

/// Pops how many return addresses are wanted, and logs as many as there are and fit.
fn log_stack<E: Env>(
    m: &mut Machine<'_, '_, E>,
    token: u8,
    unwind: fn(&mut E, &mut [u64]) -> usize,
) -> Result<Logged, Failure> {
    let max = m.pop();
    let Some(max) = usize::try_from(max).ok().filter(|max| *max <= STACK_TRACE_MAX) else {
        return Err(Failure::operand(operand::COUNT, max));
    };
    // One more than fits tells whether something is left out.
    let logmax = m.hit.program.logmax;
    let fit = m.ws.log.room(logmax).saturating_sub(PREFIX) / 8;
    let wanted = max.min(fit + 1);
    m.charge(wanted as u32 * RETURN_ADDRESS_COST)?;
    m.start_element();
    let ws = &mut *m.ws;
    let Some(addresses) = ws.addresses.get_mut(..wanted) else {
        return Ok(Logged::Overflow);
    };
    // More than `wanted` would be a mistake of the host's, which must not become ours.
    let found = unwind(m.env, addresses).min(wanted);
    Ok(ws.log_addresses(logmax, token, found))
}

impl Workspace {
    /// Logs the `count` words below stack index `sp`, downwards.
    #[inline(never)]
    pub(super) fn log_stack(&mut self, max: u16, sp: usize, count: usize) -> Logged {
        let Some(fit) = self.begin_words(max, token::WORDS, count) else {
            return Logged::Overflow;
        };
        for below in 1..=fit {
            let word = self.stack[sp.wrapping_sub(below) % STACK_WORDS];
            self.log.put(word.to_le_bytes());
        }
        if fit < count { Logged::Overflow } else { Logged::All }
    }

    /// Logs words.
    #[inline(never)]
    pub(super) fn log_words(&mut self, max: u16, token: u8, words: impl ExactSizeIterator<Item = u64>) -> Logged {
        let count = words.len();
        let Some(fit) = self.begin_words(max, token, count) else {
            return Logged::Overflow;
        };
        for word in words.take(fit) {
            self.log.put(word.to_le_bytes());
        }
        if fit < count { Logged::Overflow } else { Logged::All }
    }

    /// Logs the first `count` return addresses.
    fn log_addresses(&mut self, max: u16, token: u8, count: usize) -> Logged {
        let Some(fit) = self.begin_words(max, token, count) else {
            return Logged::Overflow;
        };
        for address in self.addresses.iter().take(fit) {
            self.log.put(address.to_le_bytes());
        }
        if fit < count { Logged::Overflow } else { Logged::All }
    }

    /// Begins an element of `count` words; returns how many fit, or none when there is no sense in it.
    fn begin_words(&mut self, max: u16, token: u8, count: usize) -> Option<usize> {
        let room = self.log.room(max).checked_sub(PREFIX)?;
        let fit = count.min(room / 8);
        if fit == 0 && count != 0 {
            return None;
        }
        self.log.put(prefix(token, fit as u16));
        Some(fit)
    }

    /// Logs bytes.
    fn log_bytes(&mut self, max: u16, token: u8, bytes: &[u8]) -> Logged {
        let Some(room) = self.log.room(max).checked_sub(PREFIX) else {
            return Logged::Overflow;
        };
        let fit = bytes.len().min(room);
        for (to, from) in self.log.unused(PREFIX, fit).unwrap_or(&mut []).iter_mut().zip(bytes) {
            *to = *from;
        }
        self.finish(token, fit, fit < bytes.len())
    }

    /// Logs the string at `addr`, at most `len` bytes of it.
    pub(super) fn log_str<E: Env>(&mut self, max: u16, env: &mut E, addr: u64, len: u64) -> Logged {
        let Some(room) = self.log.room(max).checked_sub(PREFIX) else {
            return Logged::Overflow;
        };
        // One byte more than fits tells whether the string is longer.
        let wanted = usize::try_from(len).unwrap_or(usize::MAX).min(room + 1);
        let Some(buf) = self.log.unused(PREFIX, wanted) else {
            return Logged::Overflow;
        };
        match env.read_str(addr, buf) {
            // More than `wanted` would be a mistake of the host's, which must not become ours.
            Ok(found) => self.finish(token::STRING, found.min(room), found > room),
            Err(bad) => self.log_fault(max, bad.addr),
        }
    }

    /// Logs the `len` bytes at `addr`.
    pub(super) fn log_mrf<E: Env>(&mut self, max: u16, env: &mut E, addr: u64, len: u64) -> Logged {
        let Some(room) = self.log.room(max).checked_sub(PREFIX) else {
            return Logged::Overflow;
        };
        let wanted = usize::try_from(len).unwrap_or(usize::MAX);
        let fit = wanted.min(room);
        let Some(buf) = self.log.unused(PREFIX, fit) else {
            return Logged::Overflow;
        };
        match env.read(addr, buf) {
            Ok(()) => self.finish(token::MEMORY, fit, wanted > room),
            Err(bad) => self.log_fault(max, bad.addr),
        }
    }

    /// Completes an element whose `count` bytes of payload are in place.
    fn finish(&mut self, token: u8, count: usize, overflow: bool) -> Logged {
        self.log.put(prefix(token, count as u16));
        self.log.len += count;
        if overflow { Logged::Overflow } else { Logged::All }
    }

    fn log_fault(&mut self, max: u16, addr: u64) -> Logged {
        let overflow = self.log.room(max) < FAULT_LEN;
        if !overflow {
            self.log.put(prefix(token::FAULT, 8));
            self.log.put(addr.to_le_bytes());
        }
        Logged::Fault { addr, overflow }
    }
}
