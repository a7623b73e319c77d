//! The kernel's hooks, and what GKHI needs of the kernel for them.
//!
//! The hooks are in the paths of traps, of the module loader and of programs that start in ring 3. A hook that nobody uses costs one
//! NOP. The exception is [`BREAKPOINT`], which tests a flag in memory: its site cannot be patched, since the CPU that ran into the
//! patch would need the path that is being patched.

use alloc::alloc::{Layout, alloc};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::AtomicU8;

use gkhi::text::{Text, Unreadable, Unwritable, Write};
use gkhi::{Counters, Host, Image, Registry, Shared, fire, hook};
use spin::{Mutex, MutexGuard};
use x86_64::registers::control::Cr2;

use crate::percpu::{self, Chunk};
use crate::sync::IrqMutex;
use crate::trap::{Action, BP, DB, DF, FIRST_INTERRUPT, MC, NMI, PF, TrapFrame};
use crate::{fault, memory, smp};

hook! {
    /// A breakpoint exception, from ring 0 or ring 3: RIP is behind the `int3`. An exit that has dealt with it returns.
    pub static BREAKPOINT: generic fn(frame: &mut TrapFrame) -> () = "breakpoint";

    /// A debug exception, and DR6. An exit clears the bits of DR6 that it has dealt with; those behind it see what is left. One that has
    /// dealt with all of it returns.
    pub static DEBUG: fn(frame: &mut TrapFrame, status: &mut u64) -> () = "debug";

    /// A page fault, and the address. An exit may correct the frame, by which the kernel then goes on; one that has dealt with
    /// the fault returns.
    pub static PAGE_FAULT: fn(frame: &mut TrapFrame, address: u64) -> () = "page_fault";

    /// Any other exception but NMI, #DF and #MC: its vector. As [`PAGE_FAULT`].
    pub static FAULT: fn(frame: &mut TrapFrame, vector: u8) -> () = "fault";

    /// The module is there, and about to be used: its text from `start` up to `end`.
    pub static MODULE_COMING: fn(start: u64, end: u64) = "module_coming";

    /// The module is not used any more, and about to go: its text from `start` up to `end` is still there.
    pub static MODULE_GOING: fn(start: u64, end: u64) = "module_going";

    /// A program is about to start in ring 3. An exit may change where and with what; one that returns answers in its place.
    pub static EXEC: fn(entry: &mut u64, stack: u64, argument: &mut u64) -> u64 = "exec";
}

/// Offers a trap to the exits of its hook.
#[inline]
pub(crate) fn offer(vector: u8, frame: &mut TrapFrame) -> Action {
    match vector {
        BP => breakpoint(frame),
        DB => debug(frame),
        PF => page_fault(frame),
        NMI | DF | MC | FIRST_INTERRUPT.. => Action::Pass,
        _ => other_fault(vector, frame),
    }
}

fn breakpoint(frame: &mut TrapFrame) -> Action {
    fire!(generic return BREAKPOINT, frame => |_handled| Action::Resume);
    // Some other site may be in the middle of being patched.
    match SHARED.on_breakpoint((frame.rip as usize).wrapping_sub(1)) {
        Some(next) => {
            frame.rip = next as u64;
            Action::Resume
        }
        None => Action::Pass,
    }
}

fn debug(frame: &mut TrapFrame) -> Action {
    let before = dr6::read();
    let mut status = before;
    let action = offer_debug(frame, &mut status);
    if status != before {
        dr6::clear(before & !status);
    }
    action
}

fn offer_debug(frame: &mut TrapFrame, status: &mut u64) -> Action {
    fire!(return DEBUG, frame, status => |_handled| Action::Resume);
    Action::Pass
}

fn page_fault(frame: &mut TrapFrame) -> Action {
    fire!(return PAGE_FAULT, frame, Cr2::read_raw() => |_handled| Action::Resume);
    Action::Pass
}

fn other_fault(vector: u8, frame: &mut TrapFrame) -> Action {
    fire!(return FAULT, frame, vector => |_handled| Action::Resume);
    Action::Pass
}

mod dr6 {
    use core::arch::asm;

    pub(super) fn read() -> u64 {
        let value;
        // SAFETY: reading DR6 has no effect; DR7.GD is never set here.
        unsafe { asm!("mov {}, dr6", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    pub(super) fn clear(bits: u64) {
        // SAFETY: clears status bits and nothing else.
        unsafe { asm!("mov dr6, {}", in(reg) read() & !bits, options(nomem, nostack, preserves_flags)) };
    }
}

static SHARED: Shared = Shared::new();
static KERNEL: Image = gkhi::image!(c"kernel");

/// Not to be taken with interrupts masked: who waits for it must let the holder's interrupts in.
static REGISTRY: Mutex<Registry<Kernel>> = Mutex::new(Registry::new(Kernel, &SHARED));

/// The registry of all hooks. In ordinary context only, and not from inside an exit.
pub fn registry() -> MutexGuard<'static, Registry<Kernel>> {
    REGISTRY.lock()
}

/// Makes the kernel's own sites known. All CPUs are up.
pub(crate) fn init() {
    registry().add_image(&KERNEL).expect("sites that can be patched");
}

/// The kernel, as GKHI sees it.
#[derive(Debug)]
pub struct Kernel;

impl Text for Kernel {
    fn read_text(&self, address: usize, bytes: &mut [u8]) -> Result<(), Unreadable> {
        fault::probe_read(address as u64, bytes).map_err(|_| Unreadable)
    }

    fn write_text(&self, writes: &[Write]) -> Result<(), Unwritable> {
        let patches = writes.iter().map(|write| (write.address as u64, write.bytes()));
        // SAFETY: the registry writes what a CPU may run into at any moment. Nothing is written if not all can be.
        unsafe { memory::write_text(patches) }.map_err(|_| Unwritable { index: 0 })
    }

    fn sync_cores(&self) {
        // Handlers run with interrupts masked: a CPU answers when it has left them.
        smp::sync_cores();
    }
}

// SAFETY: see `Pool`: each CPU's counters are at the same offset from its GS base, and nobody else's until they are freed.
unsafe impl Host for Kernel {
    fn cpus(&self) -> usize {
        smp::cpu_count()
    }

    fn alloc_counters(&self) -> Option<usize> {
        POOL.lock().alloc()
    }

    fn free_counters(&self, offset: usize) {
        POOL.lock().free(offset);
    }

    fn counters(&self, cpu: usize, offset: usize) -> Option<&Counters> {
        (cpu < self.cpus()).then(|| {
            // SAFETY: the offset came from `alloc_counters` and is not freed; the memory is never given back, and all access is atomic.
            unsafe { &*counters_at(cpu, offset) }
        })
    }

    fn relax(&self) {
        core::hint::spin_loop();
    }

    fn stack(&self) -> Option<Range<usize>> {
        Some(percpu::main_stack())
    }
}

fn counters_at(cpu: usize, offset: usize) -> *const Counters {
    core::ptr::with_exposed_provenance(Chunk::address(cpu, offset))
}

/// Counters in each chunk: a bit each.
const PER_CHUNK: usize = Chunk::UNIT / size_of::<Counters>();
const _: () = assert!(PER_CHUNK == u64::BITS as usize);

/// What every byte of counters is that are nobody's: a pass that counted there would be found out when they are given away again.
const POISON: u8 = 0xa5;

/// Per-CPU memory for counters, in chunks from the heap that are kept.
struct Pool {
    chunks: Vec<(usize, u64)>,
}

static POOL: IrqMutex<Pool> = IrqMutex::new(Pool { chunks: Vec::new() });

impl Pool {
    fn alloc(&mut self) -> Option<usize> {
        if !self.chunks.iter().any(|(_, used)| *used != u64::MAX) {
            self.grow()?;
        }
        let (base, used) = self.chunks.iter_mut().find(|(_, used)| *used != u64::MAX)?;
        let index = used.trailing_ones() as usize;
        *used |= 1 << index;
        let offset = base.wrapping_add(index * size_of::<Counters>());
        for cpu in 0..percpu::MAX_CPUS {
            check_poison(cpu, offset);
            // SAFETY: of this chunk, and nobody's until now.
            unsafe { &*counters_at(cpu, offset) }.clear();
        }
        Some(offset)
    }

    fn grow(&mut self) -> Option<()> {
        self.chunks.try_reserve(1).ok()?;
        let layout = Layout::new::<Chunk>();
        // SAFETY: a chunk has a size.
        let chunk = unsafe { alloc(layout) };
        if chunk.is_null() {
            return None;
        }
        // SAFETY: just allocated.
        unsafe { chunk.write_bytes(POISON, layout.size()) };
        self.chunks.push((Chunk::offset(chunk.cast()), 0));
        Some(())
    }

    fn free(&mut self, offset: usize) {
        let chunk = self
            .chunks
            .iter_mut()
            .find(|(base, _)| offset.wrapping_sub(*base) < Chunk::UNIT);
        let (base, used) = chunk.expect("an offset that was allocated");
        let bit = 1 << (offset.wrapping_sub(*base) / size_of::<Counters>());
        assert!(*used & bit != 0, "counters freed twice");
        for cpu in 0..percpu::MAX_CPUS {
            for byte in bytes_of(cpu, offset) {
                byte.store(POISON, core::sync::atomic::Ordering::Relaxed);
            }
        }
        *used &= !bit;
    }
}

fn bytes_of(cpu: usize, offset: usize) -> &'static [AtomicU8; size_of::<Counters>()] {
    // SAFETY: a chunk's memory, which is kept and only used atomically.
    unsafe { &*counters_at(cpu, offset).cast() }
}

fn check_poison(cpu: usize, offset: usize) {
    let whole = bytes_of(cpu, offset)
        .iter()
        .all(|byte| byte.load(core::sync::atomic::Ordering::Relaxed) == POISON);
    assert!(whole, "CPU {cpu} has counted a pass with counters that had been freed");
}
