//! Writing the log of a hit: elements, as far as they fit.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::env::Env;
use super::limits::STACK_WORDS;
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

impl Workspace {
    /// Bytes that a log of `max` bytes still takes.
    fn room(&self, max: u16) -> usize {
        usize::from(max).saturating_sub(self.log_len)
    }

    /// Appends bytes; the caller has made sure of the room.
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some(to) = self
            .log
            .get_mut(self.log_len..)
            .and_then(|rest| rest.first_chunk_mut::<N>())
        {
            *to = bytes;
            self.log_len += N;
        }
    }

    /// Logs the `count` words below stack index `sp`, downwards.
    pub(super) fn log_words(&mut self, max: u16, sp: usize, count: usize) -> Logged {
        let Some(room) = self.room(max).checked_sub(PREFIX) else {
            return Logged::Overflow;
        };
        let fit = count.min(room / 8);
        if fit == 0 && count != 0 {
            return Logged::Overflow;
        }
        self.put(prefix(token::WORDS, fit as u16));
        for below in 1..=fit {
            let word = self.stack[sp.wrapping_sub(below) % STACK_WORDS];
            self.put(word.to_le_bytes());
        }
        if fit < count { Logged::Overflow } else { Logged::All }
    }

    /// Logs local variables.
    pub(super) fn log_locals(&mut self, max: u16, locals: &[AtomicU64]) -> Logged {
        let Some(room) = self.room(max).checked_sub(PREFIX) else {
            return Logged::Overflow;
        };
        let fit = locals.len().min(room / 8);
        if fit == 0 && !locals.is_empty() {
            return Logged::Overflow;
        }
        self.put(prefix(token::LOCALS, fit as u16));
        for local in locals.iter().take(fit) {
            self.put(local.load(Relaxed).to_le_bytes());
        }
        if fit < locals.len() {
            Logged::Overflow
        } else {
            Logged::All
        }
    }

    /// Logs the string at `addr`, at most `len` bytes of it.
    pub(super) fn log_str<E: Env>(&mut self, max: u16, env: &mut E, addr: u64, len: u64) -> Logged {
        let Some(room) = self.room(max).checked_sub(PREFIX) else {
            return Logged::Overflow;
        };
        // One byte more than fits tells whether the string is longer.
        let wanted = usize::try_from(len).unwrap_or(usize::MAX).min(room + 1);
        let start = self.log_len + PREFIX;
        let Some(buf) = self.log.get_mut(start..start + wanted) else {
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
        let Some(room) = self.room(max).checked_sub(PREFIX) else {
            return Logged::Overflow;
        };
        let wanted = usize::try_from(len).unwrap_or(usize::MAX);
        let fit = wanted.min(room);
        let start = self.log_len + PREFIX;
        let Some(buf) = self.log.get_mut(start..start + fit) else {
            return Logged::Overflow;
        };
        match env.read(addr, buf) {
            Ok(()) => self.finish(token::MEMORY, fit, wanted > room),
            Err(bad) => self.log_fault(max, bad.addr),
        }
    }

    /// Completes an element whose `count` bytes of payload are in place.
    fn finish(&mut self, token: u8, count: usize, overflow: bool) -> Logged {
        self.put(prefix(token, count as u16));
        self.log_len += count;
        if overflow { Logged::Overflow } else { Logged::All }
    }

    fn log_fault(&mut self, max: u16, addr: u64) -> Logged {
        let overflow = self.room(max) < FAULT_LEN;
        if !overflow {
            self.put(prefix(token::FAULT, 8));
            self.put(addr.to_le_bytes());
        }
        Logged::Fault { addr, overflow }
    }
}
