//! The debug registers, for hosts on which nobody manages them: four addresses a CPU, shared with whoever else uses them.
//!
//! A register that somebody else has enabled, on any CPU, is not touched. Of the others the last is taken first: debuggers tend to begin with
//! the first. What the handling of a #DB itself depends on before it can switch the registers off is not watched.

use alloc::boxed::Box;
use core::arch::asm;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::host::{Hits, WatchError, WatchKind, Watchpoint};
use crate::mem::{self, OutOfMemory};

/// How many addresses a CPU can watch: DR0 to DR3.
pub const COUNT: usize = 4;

/// CR4.DE: I/O breakpoints, and no aliases of DR6 and DR7 (SDM volume 3, 18.2.2).
const CR4_DE: u64 = 1 << 3;

/// The engine's use of the debug registers of all CPUs.
///
/// A host calls [`set`](Self::set) and [`clear`](Self::clear) in [`Host::set_watchpoint`](crate::host::Host::set_watchpoint) and
/// [`Host::clear_watchpoint`](crate::host::Host::clear_watchpoint), and [`hits`](Self::hits) in
/// [`Host::watchpoints_hit`](crate::host::Host::watchpoints_hit); its handler of #DB holds a [`Quiet`].
#[derive(Debug)]
pub struct DebugRegisters {
    /// For each register: one more than the watchpoint that has it, or 0.
    users: [AtomicU8; COUNT],
    addresses: [AtomicU64; COUNT],
    /// For each CPU: a bit for each register that has been set there.
    set: Box<[AtomicU8]>,
}

/// What one look at all CPUs finds.
#[derive(Debug, Default)]
struct Survey {
    enabled: AtomicU8,
    no_io: AtomicBool,
    needed: AtomicBool,
}

impl DebugRegisters {
    /// None of the registers of this many CPUs is used.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn new(cpus: usize) -> Result<Self, OutOfMemory> {
        Ok(DebugRegisters {
            users: Default::default(),
            addresses: Default::default(),
            set: mem::boxed_slice(cpus, |_| AtomicU8::new(0))?,
        })
    }

    /// Has all CPUs watch a location as watchpoint `number`. `on_each_cpu` runs a function on every CPU, with interrupts off, with the number of
    /// the CPU, and returns when all have.
    ///
    /// The registers are written with their enable bits clear, and enabled by one store to DR7. Of DR7, only the fields of the register
    /// that is used are changed: LE and GE mean nothing since the P6 family (SDM volume 3, 18.2.4).
    ///
    /// # Errors
    /// [`WatchError`]: who has the registers, or why the location cannot be watched. Nothing has changed then.
    ///
    /// # Safety
    /// The caller is in ring 0, and so is what `on_each_cpu` runs.
    pub unsafe fn set(
        &self,
        number: usize,
        what: &Watchpoint,
        on_each_cpu: impl Fn(&(dyn Fn(usize) + Sync)),
    ) -> Result<(), WatchError> {
        let survey = Survey::default();
        on_each_cpu(&|_| {
            // SAFETY: in ring 0, by this function's requirement.
            unsafe { survey.look(what) }
        });
        if survey.needed.into_inner() {
            return Err(WatchError::Excluded);
        }
        if what.kind() == WatchKind::Io && survey.no_io.into_inner() {
            return Err(WatchError::IoBreakpoints);
        }
        let ours = self.ours();
        let mut others = survey.enabled.into_inner() & !ours;
        loop {
            let Some(register) = choose(others, ours) else {
                return Err(WatchError::InUse {
                    others,
                    ours,
                    process: 0,
                });
            };
            // SAFETY: as above.
            if unsafe { self.try_set(register, number, what, &on_each_cpu) } {
                return Ok(());
            }
            // Somebody else has just taken it.
            others |= 1 << register;
        }
    }

    /// Takes a register on all CPUs; false, and on none, if one has it enabled.
    ///
    /// # Safety
    /// As [`set`](Self::set).
    unsafe fn try_set(
        &self,
        register: usize,
        number: usize,
        what: &Watchpoint,
        on_each_cpu: &impl Fn(&(dyn Fn(usize) + Sync)),
    ) -> bool {
        let (Some(user), Some(address)) = (self.users.get(register), self.addresses.get(register)) else {
            return false;
        };
        // A CPU may run into it before the last one has it.
        address.store(what.address(), Ordering::Relaxed);
        user.store(number as u8 + 1, Ordering::Release);
        let taken = AtomicBool::new(false);
        on_each_cpu(&|cpu| {
            // SAFETY: in ring 0, by this function's requirement; the address has been checked by its type.
            unsafe {
                let control = dr::control();
                if enabled(control) & 1 << register != 0 {
                    taken.store(true, Ordering::Relaxed);
                } else if let Some(set) = self.set.get(cpu) {
                    dr::set_address(register, what.address());
                    dr::set_control(with(control, register, what));
                    set.fetch_or(1 << register, Ordering::Relaxed);
                }
            }
        });
        if !taken.into_inner() {
            return true;
        }
        // SAFETY: as above.
        unsafe { self.clear_register(register, on_each_cpu) };
        false
    }

    /// Has no CPU watch anything as watchpoint `number`. When this returns no CPU runs into it any more.
    ///
    /// # Safety
    /// As [`set`](Self::set).
    pub unsafe fn clear(&self, number: usize, on_each_cpu: impl Fn(&(dyn Fn(usize) + Sync))) {
        let of = |user: &AtomicU8| usize::from(user.load(Ordering::Relaxed)) == number + 1;
        for register in (0..COUNT).filter(|register| self.users.get(*register).is_some_and(of)) {
            // SAFETY: by this function's requirement.
            unsafe { self.clear_register(register, &on_each_cpu) };
        }
    }

    /// # Safety
    /// As [`set`](Self::set).
    unsafe fn clear_register(&self, register: usize, on_each_cpu: &impl Fn(&(dyn Fn(usize) + Sync))) {
        let (Some(user), Some(address)) = (self.users.get(register), self.addresses.get(register)) else {
            return;
        };
        let address = address.load(Ordering::Relaxed);
        on_each_cpu(&|cpu| {
            let bit = 1 << register;
            let was_set = |set: &AtomicU8| set.fetch_and(!bit, Ordering::Relaxed) & bit != 0;
            // SAFETY: in ring 0, by this function's requirement.
            unsafe {
                // What somebody has put there in spite of us is theirs.
                if self.set.get(cpu).is_some_and(was_set) && dr::address(register) == address {
                    dr::set_control(without(dr::control(), register));
                    dr::set_address(register, 0);
                }
            }
        });
        user.store(0, Ordering::Release);
    }

    /// Which watchpoints the causes of a debug exception are, as bits, and the bits of DR6 that say so.
    #[inline]
    #[must_use]
    pub fn hits(&self, dr6: u64) -> Hits {
        let mut hits = Hits::default();
        for (register, user) in self.users.iter().enumerate() {
            let bit = 1 << register;
            if dr6 & bit != 0
                && let Some(number) = user.load(Ordering::Acquire).checked_sub(1)
            {
                hits.causes |= bit;
                hits.watchpoints |= 1_u8.checked_shl(number.into()).unwrap_or(0);
            }
        }
        hits
    }

    /// The registers that watchpoints have: a bit for each.
    fn ours(&self) -> u8 {
        let bits = self.users.iter().enumerate();
        bits.filter(|(_, user)| user.load(Ordering::Relaxed) != 0)
            .fold(0, |bits, (register, _)| bits | 1 << register)
    }
}

impl Survey {
    /// # Safety
    /// In ring 0.
    unsafe fn look(&self, what: &Watchpoint) {
        // SAFETY: reading these registers in ring 0 has no effect.
        unsafe {
            self.enabled.fetch_or(enabled(dr::control()), Ordering::Relaxed);
            if tables::cr4() & CR4_DE == 0 {
                self.no_io.store(true, Ordering::Relaxed);
            }
            let needed = matches!(what.kind(), WatchKind::Write | WatchKind::ReadWrite)
                && tables::needed_by_traps()
                    .iter()
                    .any(|range| range.start <= what.last() && what.address() < range.end);
            if needed {
                self.needed.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// The registers of this CPU are switched off while this lives: for the handler of #DB, to begin with.
///
/// Otherwise a watchpoint on what the handler touches would interrupt it for ever. What else a handler writes to DR7 stays; which registers are
/// enabled does not.
#[derive(Debug)]
pub struct Quiet {
    control: u64,
}

impl Quiet {
    /// Switches them off.
    ///
    /// # Safety
    /// In ring 0, with interrupts off, and on one CPU as long as this lives.
    #[inline(always)]
    #[must_use]
    pub unsafe fn new() -> Self {
        // SAFETY: by this function's requirement.
        let control = unsafe { dr::control() };
        if control & ENABLES != 0 {
            // SAFETY: disables and does nothing else.
            unsafe { dr::set_control(control & !ENABLES) };
        }
        Quiet { control }
    }
}

impl Drop for Quiet {
    #[inline(always)]
    fn drop(&mut self) {
        if self.control & ENABLES != 0 {
            // SAFETY: on the same CPU, by the requirement of `new`: what was enabled there is enabled again.
            unsafe { dr::set_control(dr::control() & !ENABLES | self.control & ENABLES) };
        }
    }
}

/// L0 to G3 of DR7 (SDM volume 3, 18.2.4).
const ENABLES: u64 = 0xff;

/// The registers that a value of DR7 enables, locally or globally: a bit for each.
fn enabled(control: u64) -> u8 {
    (0..COUNT)
        .filter(|register| control >> (2 * register) & 0b11 != 0)
        .fold(0, |bits, register| bits | 1 << register)
}

/// The register to use when others have some.
fn choose(others: u8, ours: u8) -> Option<usize> {
    (0..COUNT).rev().find(|register| (others | ours) & 1 << register == 0)
}

/// DR7 without a register: its L, G, R/W and LEN fields.
fn without(control: u64, register: usize) -> u64 {
    control & !(0b11 << (2 * register)) & !(0b1111 << (16 + 4 * register))
}

/// DR7 with a register that watches this, enabled globally.
fn with(control: u64, register: usize, what: &Watchpoint) -> u64 {
    let kind = match what.kind() {
        WatchKind::Execute => 0b00,
        WatchKind::Write => 0b01,
        WatchKind::Io => 0b10,
        WatchKind::ReadWrite => 0b11,
    };
    let len = match what.len() {
        2 => 0b01,
        4 => 0b11,
        8 => 0b10,
        _ => 0b00,
    };
    without(control, register) | (len << 2 | kind) << (16 + 4 * register) | 0b10 << (2 * register)
}

/// The registers themselves. All of this is for ring 0, with DR7.GD clear: whoever sets it debugs the debugger, and gets the exception.
mod dr {
    use super::asm;

    /// # Safety
    /// In ring 0.
    #[inline(always)]
    pub(super) unsafe fn control() -> u64 {
        let value;
        // SAFETY: allowed by this function's requirement, and without effect.
        unsafe { asm!("mov {}, dr7", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    /// # Safety
    /// In ring 0. What is enabled raises exceptions that are handled.
    // Accesses to memory are not moved across it.
    #[inline(always)]
    pub(super) unsafe fn set_control(value: u64) {
        // SAFETY: by this function's requirement.
        unsafe { asm!("mov dr7, {}", in(reg) value, options(nostack, preserves_flags)) };
    }

    /// # Safety
    /// In ring 0.
    pub(super) unsafe fn address(register: usize) -> u64 {
        let value;
        // SAFETY: as `control`.
        unsafe {
            match register {
                0 => asm!("mov {}, dr0", out(reg) value, options(nomem, nostack, preserves_flags)),
                1 => asm!("mov {}, dr1", out(reg) value, options(nomem, nostack, preserves_flags)),
                2 => asm!("mov {}, dr2", out(reg) value, options(nomem, nostack, preserves_flags)),
                _ => asm!("mov {}, dr3", out(reg) value, options(nomem, nostack, preserves_flags)),
            }
        }
        value
    }

    /// # Safety
    /// In ring 0; the register is not enabled.
    pub(super) unsafe fn set_address(register: usize, value: u64) {
        // SAFETY: a register that is not enabled has no effect.
        unsafe {
            match register {
                0 => asm!("mov dr0, {}", in(reg) value, options(nomem, nostack, preserves_flags)),
                1 => asm!("mov dr1, {}", in(reg) value, options(nomem, nostack, preserves_flags)),
                2 => asm!("mov dr2, {}", in(reg) value, options(nomem, nostack, preserves_flags)),
                _ => asm!("mov dr3, {}", in(reg) value, options(nomem, nostack, preserves_flags)),
            }
        }
    }
}

/// What the CPU itself reads and writes on its way to an exception handler.
mod tables {
    use super::{Range, asm};

    /// Of a task state segment in long mode, the part with the stacks.
    const TSS_BYTES: u64 = 104;

    /// # Safety
    /// In ring 0.
    pub(super) unsafe fn cr4() -> u64 {
        let value;
        // SAFETY: allowed by this function's requirement, and without effect.
        unsafe { asm!("mov {}, cr4", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    #[repr(C, packed)]
    #[derive(Default)]
    struct Pointer {
        limit: u16,
        base: u64,
    }

    impl Pointer {
        fn range(&self) -> Range<u64> {
            self.base..self.base.saturating_add(u64::from(self.limit) + 1)
        }
    }

    /// The descriptor tables and the task state segment of this CPU.
    ///
    /// # Safety
    /// In ring 0.
    pub(super) unsafe fn needed_by_traps() -> [Range<u64>; 3] {
        let (mut idt, mut gdt) = (Pointer::default(), Pointer::default());
        let selector: u64;
        // SAFETY: each writes ten bytes, the size of `Pointer`, or a register.
        unsafe {
            asm!("sidt [{}]", in(reg) &raw mut idt, options(nostack, preserves_flags));
            asm!("sgdt [{}]", in(reg) &raw mut gdt, options(nostack, preserves_flags));
            asm!("str {:r}", out(reg) selector, options(nomem, nostack, preserves_flags));
        }
        let descriptor = (gdt.base + (selector & 0xfff8)) as *const [u64; 2];
        let tss = if selector & 0xfff8 == 0 {
            0..0
        } else {
            // SAFETY: the task register was loaded from this descriptor, of 16 bytes in long mode (SDM volume 3, 8.2.3), and the
            // table is where the CPU finds it.
            let [low, high] = unsafe { descriptor.read_unaligned() };
            let base = low >> 16 & 0xff_ffff | low >> 32 & 0xff00_0000 | high << 32;
            base..base.saturating_add(TSS_BYTES)
        };
        [idt.range(), gdt.range(), tss]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpn::object::Watch;

    fn what(kind: WatchKind, len: u8) -> Watchpoint {
        Watchpoint::new(0x1000, Watch::new(kind, len).unwrap()).unwrap()
    }

    /// Bits by bits from the figure of DR7 (SDM volume 3, figure 18-1): G3 is bit 7, R/W3 28 and 29, LEN3 30 and 31.
    #[test]
    fn a_register_is_enabled_as_the_manual_says() {
        assert_eq!(with(0x400, 3, &what(WatchKind::Write, 8)), 0x9000_0480);
        assert_eq!(with(0x400, 0, &what(WatchKind::Execute, 1)), 0x402);
        assert_eq!(with(0x400, 1, &what(WatchKind::Io, 2)), 0x0060_0408);
        assert_eq!(with(0x400, 2, &what(WatchKind::ReadWrite, 4)), 0x0f00_0420);
    }

    #[test]
    fn only_the_fields_of_one_register_change() {
        for register in 0..COUNT {
            for before in [0, 0x400, u64::MAX, 0x5555_5555, 0xaaaa_aaaa] {
                for kind in WatchKind::ALL {
                    for len in kind.lengths() {
                        let after = with(before, register, &what(kind, *len));
                        assert_eq!(without(after, register), without(before, register));
                        assert_eq!(enabled(after) & 1 << register, 1 << register);
                        assert_eq!(without(after, register) & 0b11 << (2 * register), 0);
                    }
                }
            }
        }
    }

    #[test]
    fn the_last_register_that_nobody_has_is_taken() {
        for others in 0..16_u8 {
            for ours in 0..16_u8 {
                let free = (0..COUNT).filter(|n| (others | ours) >> n & 1 == 0).max();
                assert_eq!(choose(others, ours), free);
            }
        }
        // L0, G1, both of 3.
        assert_eq!(enabled(0b1100_1001), 0b1011);
    }

    #[test]
    fn hits_are_told_by_what_was_set() {
        let registers = DebugRegisters::new(1).unwrap();
        registers.users[3].store(1, Ordering::Relaxed);
        registers.users[1].store(3, Ordering::Relaxed);
        assert_eq!(registers.hits(0), Hits::default());
        // B0 and B2 are somebody else's, and so is BS.
        let hits = registers.hits(0x4000 | 0b1111);
        assert_eq!((hits.watchpoints, hits.causes), (0b101, 0b1010));
        assert_eq!(registers.ours(), 0b1010);
    }
}
