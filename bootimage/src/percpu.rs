//! Per-CPU data, found through GS base, and the stacks of each CPU.

use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;

use crate::segments::Tables;
use crate::smp::Mailbox;
use crate::trap::TrapFrame;

/// The most CPUs this kernel uses; further ones stay off.
pub const MAX_CPUS: usize = 8;

const PAGE: usize = 4096;
const MAIN_STACK_SIZE: usize = 32 * PAGE;
const FAULT_STACK_SIZE: usize = 4 * PAGE;

/// Offset of the top of the main stack in [`Stacks`].
pub(crate) const MAIN_STACK_TOP: usize = PAGE + MAIN_STACK_SIZE;

/// The stacks of one CPU, each above a page that is never mapped, so that an overflow is a fault and not a corruption.
#[repr(C, align(4096))]
pub(crate) struct Stacks {
    main_guard: [u8; PAGE],
    main: [u8; MAIN_STACK_SIZE],
    double_fault_guard: [u8; PAGE],
    double_fault: [u8; FAULT_STACK_SIZE],
    machine_check_guard: [u8; PAGE],
    machine_check: [u8; FAULT_STACK_SIZE],
}

impl Stacks {
    pub(crate) fn guards(&self) -> [VirtAddr; 3] {
        [&self.main_guard, &self.double_fault_guard, &self.machine_check_guard].map(|page| VirtAddr::from_ptr(page))
    }

    pub(crate) fn main_top(&self) -> VirtAddr {
        top(&self.main)
    }

    pub(crate) fn double_fault_top(&self) -> VirtAddr {
        top(&self.double_fault)
    }

    pub(crate) fn machine_check_top(&self) -> VirtAddr {
        top(&self.machine_check)
    }
}

fn top<const N: usize>(stack: &[u8; N]) -> VirtAddr {
    VirtAddr::from_ptr(stack) + N as u64
}

/// Memory only ever reached through a stack pointer; the addresses are all that Rust code takes.
#[repr(transparent)]
pub(crate) struct StackMemory(UnsafeCell<[Stacks; MAX_CPUS]>);

// SAFETY: no reference to the bytes is ever read or written through; the type only hands out addresses.
unsafe impl Sync for StackMemory {}

impl StackMemory {
    pub(crate) fn of(&self, cpu: usize) -> &Stacks {
        assert!(cpu < MAX_CPUS);
        // SAFETY: in bounds; the callers take addresses of the fields and never read them (the methods of `Stacks` are all there is).
        unsafe { &*self.0.get().cast::<Stacks>().add(cpu) }
    }
}

/// All CPUs' stacks; the boot code takes the first one from here by [`MAIN_STACK_TOP`].
pub(crate) static STACKS: StackMemory = StackMemory(UnsafeCell::new(
    [const {
        Stacks {
            main_guard: [0; PAGE],
            main: [0; MAIN_STACK_SIZE],
            double_fault_guard: [0; PAGE],
            double_fault: [0; FAULT_STACK_SIZE],
            machine_check_guard: [0; PAGE],
            machine_check: [0; FAULT_STACK_SIZE],
        }
    }; MAX_CPUS],
));

/// What belongs to one CPU. Everything in it is atomic or written once, so that a shared reference is enough, in a trap as well.
///
/// The areas are a page apart each. Memory that is allocated later for each CPU ([`Chunk`]) has the same distances, so that what one CPU
/// finds at an offset from its area every other one finds at the same offset from its own.
#[repr(C, align(4096))]
pub(crate) struct PerCpu {
    /// Index of this CPU, at offset 0: `gs:[0]`.
    id: u32,
    /// More than 0: allocating on this CPU is a failure.
    pub(crate) no_alloc: AtomicU32,
    /// How many traps and interrupts this CPU is inside of.
    pub(crate) trap_depth: AtomicU32,
    /// The registers that ring 3 was left with, while this CPU is inside a trap from there.
    pub(crate) user_frame: AtomicPtr<TrapFrame>,
    /// Local APIC id, valid once the CPU is known.
    pub(crate) apic_id: AtomicU32,
    pub(crate) mailbox: Mailbox,
    pub(crate) tables: Tables,
}

static CPUS: [PerCpu; MAX_CPUS] = {
    const fn cpu(id: u32) -> PerCpu {
        PerCpu {
            id,
            no_alloc: AtomicU32::new(0),
            trap_depth: AtomicU32::new(0),
            user_frame: AtomicPtr::new(ptr::null_mut()),
            apic_id: AtomicU32::new(u32::MAX),
            mailbox: Mailbox::new(),
            tables: Tables::new(),
        }
    }
    [cpu(0), cpu(1), cpu(2), cpu(3), cpu(4), cpu(5), cpu(6), cpu(7)]
};

/// The number of the CPU this runs on: 0 is the one that booted, below [`crate::smp::cpu_count`]. Valid in any context.
#[inline]
pub fn cpu_id() -> usize {
    let id: u32;
    // SAFETY: GS base is this CPU's `PerCpu` from the first instruction of Rust code on (`init`), and the field at offset 0 never changes.
    unsafe { core::arch::asm!("mov {:e}, gs:[0]", out(reg) id, options(nostack, preserves_flags, pure, readonly)) };
    id as usize
}

pub(crate) fn current() -> &'static PerCpu {
    &CPUS[cpu_id()]
}

pub(crate) fn cpu(id: usize) -> &'static PerCpu {
    &CPUS[id]
}

/// A page of memory for each CPU, as far from its area as every other CPU's from its own.
#[repr(C, align(4096))]
pub(crate) struct Chunk([[u8; size_of::<PerCpu>()]; MAX_CPUS]);

impl Chunk {
    /// Bytes for each CPU.
    pub(crate) const UNIT: usize = size_of::<PerCpu>();

    /// From each CPU's area, where GS base points, to its unit of the chunk at `chunk`.
    pub(crate) fn offset(chunk: *mut Self) -> usize {
        chunk.expose_provenance().wrapping_sub((&raw const CPUS).addr())
    }

    /// Where a CPU's copy of what is at `offset` is.
    pub(crate) fn address(cpu: usize, offset: usize) -> usize {
        (&raw const CPUS)
            .addr()
            .wrapping_add(cpu * Self::UNIT)
            .wrapping_add(offset)
    }
}

/// The main stack of the current CPU.
pub(crate) fn main_stack() -> core::ops::Range<usize> {
    let top = STACKS.of(cpu_id()).main_top().as_u64() as usize;
    top - MAIN_STACK_SIZE..top
}

/// Makes this CPU number `id`: points GS base at its area. The first thing a CPU does in Rust.
pub(crate) fn init(id: usize) {
    GsBase::write(VirtAddr::from_ptr(&CPUS[id]));
}

/// While this lives, allocating on this CPU is a failure of the test.
///
/// Wrap the code that must not allocate, for instance the handling of a hit. Guards nest.
#[derive(Debug)]
pub struct NoAlloc(());

impl NoAlloc {
    /// Forbids allocation on the current CPU until the guard is dropped. To be dropped on the same CPU.
    pub fn new() -> Self {
        current().no_alloc.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Default for NoAlloc {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for NoAlloc {
    fn drop(&mut self) {
        current().no_alloc.fetch_sub(1, Ordering::Relaxed);
    }
}
