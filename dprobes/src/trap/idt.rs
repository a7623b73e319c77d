//! Patching the interrupt descriptor table: put an entry of the engine's in front of what is there, and take it away again.
//!
//! A gate is 16 bytes (SDM volume 3, 7.14.1). It is replaced by one 16-byte compare-and-exchange, so that nobody ever sees half a
//! gate in memory, and a change that somebody else has made in between is noticed. That does not make the *reader* atomic:
//! nothing promises that a CPU which takes the exception reads a gate at once (SDM volume 3, 9.1.1 promises eight aligned
//! bytes), and QEMU's translator reads it in pieces of four bytes. So the other CPUs must not take the exception
//! meanwhile.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::entry::{self, EngineRef};

/// How many exceptions the architecture defines.
pub(super) const VECTORS: usize = 32;

/// Where the handlers are that the engine's entries go on to. Kept after a gate is restored: a CPU may still be in the entry.
pub(super) static CHAIN: [AtomicU64; VECTORS] = [const { AtomicU64::new(0) }; VECTORS];

/// The vectors whose gates lead to the engine, a bit each.
static INSTALLED: AtomicU32 = AtomicU32::new(0);

/// A gate of the interrupt descriptor table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct Gate {
    low: u64,
    high: u64,
}

/// Type field of a 64-bit interrupt gate.
const INTERRUPT_GATE: u64 = 0xe;

impl Gate {
    /// Address of the handler.
    #[must_use]
    pub const fn handler(self) -> u64 {
        self.low & 0xffff | self.low >> 32 & 0xffff_0000 | self.high << 32
    }

    /// The same gate with another handler: selector, IST, type and privilege level stay.
    #[must_use]
    pub const fn with_handler(self, handler: u64) -> Self {
        let kept = self.low & 0x0000_ffff_ffff_0000;
        Gate {
            low: kept | handler & 0xffff | (handler & 0xffff_0000) << 32,
            high: handler >> 32,
        }
    }

    const fn is_present(self) -> bool {
        self.low >> 47 & 1 == 1
    }

    const fn kind(self) -> u64 {
        self.low >> 40 & 0xf
    }

    /// Replaces the gate at `place`, if it is still `self`; otherwise gives what is there.
    ///
    /// # Safety
    /// `place` must be writable, and the CPU must have CMPXCHG16B.
    unsafe fn replace(self, place: *mut Gate, new: Gate) -> Result<(), Gate> {
        let (low, high, swapped): (u64, u64, u8);
        // SAFETY: the caller says that the place is writable; `Gate` is 16-byte aligned. LLVM keeps rbx for itself, so that
        // it is exchanged in and out; all operands are named, because one that is left to LLVM may be in rbx.
        unsafe {
            asm!(
                "xchg rbx, rsi",
                "lock cmpxchg16b [rdi]",
                "sete r8b",
                "mov rbx, rsi",
                in("rdi") place,
                inout("rsi") new.low => _,
                out("r8b") swapped,
                in("rcx") new.high,
                inout("rax") self.low => low,
                inout("rdx") self.high => high,
                options(nostack),
            );
        }
        if swapped == 1 { Ok(()) } else { Err(Gate { low, high }) }
    }
}

/// Why a gate was not patched or not restored. Nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdtError {
    /// The CPU has no CMPXCHG16B.
    NoCmpxchg16b,
    /// The engine has no entry for this vector.
    NoEntry {
        /// The vector.
        vector: u8,
    },
    /// The engine is already in front of this vector.
    Installed {
        /// The vector.
        vector: u8,
    },
    /// The gate is not present.
    NotPresent {
        /// The vector.
        vector: u8,
    },
    /// The gate is not an interrupt gate: its handler expects interrupts as they were.
    NotInterruptGate {
        /// The vector.
        vector: u8,
    },
    /// Somebody has changed the gate since.
    Changed {
        /// The vector.
        vector: u8,
        /// What is there.
        found: Gate,
    },
}

/// One gate that leads to the engine. Taking it away is explicit, since it can fail: [`restore`](Self::restore).
#[derive(Debug)]
#[must_use = "the gate stays patched"]
pub struct PatchedGate {
    place: *mut Gate,
    vector: u8,
    original: Gate,
    patched: Gate,
}

impl PatchedGate {
    /// Puts the engine in front of `vector`; what is not the engine's goes on to the handler that is there now.
    ///
    /// # Errors
    /// [`IdtError`]. The gate has not changed then.
    ///
    /// # Safety
    /// 1. `idt` is a writable mapping of the interrupt descriptor table of every CPU that will take the exception, and stays so
    ///    as long as this exists.
    /// 2. The gate's handler follows the CPU's own conventions: it expects on its stack what the CPU pushes.
    /// 3. No other CPU takes the exception during the call, nor during [`restore`](Self::restore).
    /// 4. Kernel code that this exception can interrupt does not use the 128 bytes below its stack pointer.
    pub unsafe fn install<E: EngineRef>(idt: *mut Gate, vector: u8) -> Result<Self, IdtError> {
        let (entry, chain) = entry::entry::<E>(vector)
            .zip(CHAIN.get(usize::from(vector)))
            .ok_or(IdtError::NoEntry { vector })?;
        // SAFETY: the engine's entry for this vector, which reads this way on, under the caller's guarantees.
        unsafe { Self::install_entry(idt, vector, entry as usize as u64, chain) }
    }

    /// Puts an entry of the kernel's own in front of `vector`, one that calls the engine by the kernel's conventions and goes on to the
    /// handler whose address is in `chain`, which is set before the entry can run.
    ///
    /// # Errors
    /// As [`install`](Self::install).
    ///
    /// # Safety
    /// As [`install`](Self::install), and `entry` is code that can take the exception in every context in which it occurs.
    pub unsafe fn install_entry(idt: *mut Gate, vector: u8, entry: u64, chain: &AtomicU64) -> Result<Self, IdtError> {
        if !has_cmpxchg16b() {
            return Err(IdtError::NoCmpxchg16b);
        }
        if usize::from(vector) >= VECTORS {
            return Err(IdtError::NoEntry { vector });
        }
        // SAFETY: the caller says that this is the descriptor table, which has a gate for each of the 32 exceptions.
        let place = unsafe { idt.add(usize::from(vector)) };
        // SAFETY: as above. A torn read is caught by the exchange.
        let original = unsafe { place.read_volatile() };
        if !original.is_present() {
            return Err(IdtError::NotPresent { vector });
        }
        if original.kind() != INTERRUPT_GATE {
            return Err(IdtError::NotInterruptGate { vector });
        }
        // The way on must be known before the first exception arrives.
        let bit = 1 << vector;
        if INSTALLED.fetch_or(bit, Ordering::AcqRel) & bit != 0 {
            return Err(IdtError::Installed { vector });
        }
        chain.store(original.handler(), Ordering::Release);
        let patched = original.with_handler(entry);
        // SAFETY: `place` is writable, and CMPXCHG16B was found.
        if let Err(found) = unsafe { original.replace(place, patched) } {
            INSTALLED.fetch_and(!bit, Ordering::AcqRel);
            return Err(IdtError::Changed { vector, found });
        }
        Ok(PatchedGate {
            place,
            vector,
            original,
            patched,
        })
    }

    /// Puts the original gate back, while no other CPU takes the exception. CPUs may still be in the entry, so that its code must stay until they have all passed
    /// a point where no exception is being handled.
    ///
    /// # Errors
    /// The gate, and [`IdtError::Changed`] when somebody has put another handler in front of the engine.
    pub fn restore(self) -> Result<(), (Self, IdtError)> {
        // SAFETY: `install`'s caller said that the place stays writable.
        match unsafe { self.patched.replace(self.place, self.original) } {
            Ok(()) => {
                INSTALLED.fetch_and(!(1 << self.vector), Ordering::AcqRel);
                Ok(())
            }
            Err(found) => {
                let vector = self.vector;
                Err((self, IdtError::Changed { vector, found }))
            }
        }
    }

    /// The same gate by another mapping of the descriptor table, for a kernel that maps it writable only to change it.
    ///
    /// # Safety
    /// `idt` is a writable mapping of the table in which the gate was installed, and stays so until [`restore`](Self::restore) has returned.
    pub unsafe fn mapped_at(mut self, idt: *mut Gate) -> Self {
        // SAFETY: the table has a gate for each of the 32 exceptions.
        self.place = unsafe { idt.add(usize::from(self.vector)) };
        self
    }

    /// The gate that was there before.
    #[must_use]
    pub fn original(&self) -> Gate {
        self.original
    }
}

fn has_cmpxchg16b() -> bool {
    // CPUID leaf 1, ECX bit 13 (SDM volume 2, CPUID).
    core::arch::x86_64::__cpuid(1).ecx >> 13 & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_replaced_if_it_is_still_there() {
        let gate = |number| Gate {
            low: number,
            high: number << 32,
        };
        // Many, inlined, with enough values alive that operands would get every register there is.
        let mut gates: [Gate; 32] = core::array::from_fn(|index| gate(index as u64));
        let before = gates;
        for (index, place) in gates.iter_mut().enumerate() {
            let (old, new) = (gate(index as u64), gate(100 + index as u64));
            let other = gate(50);
            // SAFETY: the place is a variable, and every CPU that runs these tests has CMPXCHG16B.
            unsafe {
                assert_eq!(other.replace(place, new), Err(old));
                assert_eq!(*place, before[index]);
                assert_eq!(old.replace(place, new), Ok(()));
                assert_eq!(new.replace(place, old), Ok(()));
            }
        }
        assert_eq!(gates, before);
    }
}
