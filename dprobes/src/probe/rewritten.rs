//! Instructions that the host rewrites while they are probed: in Linux jump labels and static calls.
//!
//! Of such an instruction only the first byte in text is the engine's. When the host wants another instruction there it leaves that byte alone,
//! writes those behind it, and tells the engine ([`Engine::rewrite`]). What a hit carries out is what was told last, so that none is
//! missed and none carries out what has gone. All of these instructions can be emulated.

use core::sync::atomic::{AtomicU64, Ordering};

use super::engine::Engine;
use super::site::Site;
use crate::host::Host;
use crate::insn::{Emulation, Insn};

/// An instruction that is rewritten, as one word: a trap sees an old or a new one. There may be other bytes behind it.
#[derive(Debug)]
pub(crate) struct Rewritten(AtomicU64);

/// No such instruction is longer.
const MAX: usize = 8;

impl Rewritten {
    /// The instruction at the beginning of `bytes`; `None` if it cannot be emulated.
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        word(bytes).map(|word| Rewritten(AtomicU64::new(word)))
    }

    /// Has another instruction; false, with nothing changed, if that cannot be emulated.
    fn set(&self, bytes: &[u8]) -> bool {
        let word = word(bytes);
        if let Some(word) = word {
            self.0.store(word, Ordering::Release);
        }
        word.is_some()
    }

    fn insn(&self) -> Option<Insn> {
        Insn::decode(&self.0.load(Ordering::Acquire).to_le_bytes()).ok()
    }

    /// What the instruction does now.
    pub(crate) fn emulation(&self) -> Option<Emulation> {
        Emulation::of_rewritten(&self.insn()?)
    }
}

/// What is not given of the bytes is not part of the instruction.
fn word(bytes: &[u8]) -> Option<u64> {
    let mut word = [0; MAX];
    word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let insn = Insn::decode(&word).ok().filter(|insn| insn.len() <= bytes.len())?;
    Emulation::of_rewritten(&insn).map(|_| u64::from_le_bytes(word))
}

impl Site {
    /// The instruction that the breakpoint stands for.
    pub(crate) fn current(&self) -> Insn {
        let rewritten = self.rewritten.as_ref();
        rewritten.and_then(Rewritten::insn).unwrap_or(self.insn)
    }
}

impl<H: Host> Engine<H> {
    /// The first byte of the instruction at `address`, if it is a rewritten one with a breakpoint in its place: the host must not write that
    /// byte, but call [`rewrite`](Self::rewrite). To be called with interrupts off, by the host while it rewrites: see
    /// [`Host::lock_rewrites`].
    pub fn rewritten(&self, address: u64) -> Option<u8> {
        let site = self.site(address).filter(|site| site.is_armed())?;
        let insn = site.rewritten.as_ref()?.insn()?;
        insn.bytes().first().copied()
    }

    /// The host has another instruction in the place of one that is [`rewritten`](Self::rewritten): hits carry it out from now on. The
    /// host then writes all of `bytes` but the first, and synchronises all CPUs. Same contexts.
    ///
    /// False when it cannot be emulated. The host then has to write all bytes, and the breakpoint is gone.
    pub fn rewrite(&self, address: u64, bytes: &[u8]) -> bool {
        let rewritten = self.site(address).and_then(|site| site.rewritten.as_ref());
        rewritten.is_some_and(|rewritten| rewritten.set(bytes))
    }

    /// Before a breakpoint is put there: the instruction is what is in text now, while rewrites are locked.
    pub(super) fn refresh(&self, site: &Site) {
        let Some(rewritten) = &site.rewritten else { return };
        let mut text = [0; MAX];
        // What is behind a short one may not be readable.
        for len in [MAX, site.insn.len()] {
            if let Some(bytes) = text.get_mut(..len)
                && self.host().read(site.address, bytes).is_ok()
            {
                rewritten.set(bytes);
                return;
            }
        }
    }
}

/// As long as this lives the host rewrites nothing.
pub(super) struct Unchanging<'h, H: Host>(&'h H);

impl<'h, H: Host> Unchanging<'h, H> {
    pub(super) fn new(host: &'h H) -> Self {
        host.lock_rewrites();
        Unchanging(host)
    }
}

impl<H: Host> Drop for Unchanging<'_, H> {
    fn drop(&mut self) {
        self.0.unlock_rewrites();
    }
}
