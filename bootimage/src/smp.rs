//! Several CPUs: starting them, running code on them, synchronising them.
//!
//! There are two ways to run code on another CPU. [`run_on_all`] and [`run_on`] use its ordinary context: interrupts enabled, as long as it
//! takes. [`call_on`], and what is built on it, interrupt whatever it is doing: short, interrupts masked.
//!
//! Whoever waits here answers the others' calls while waiting, so that any number of CPUs can call each other at once, with interrupts
//! enabled or masked. Waiting in ordinary context soon halts, to leave an emulated machine's processors to the CPUs that have work.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, Ordering};

use x86_64::instructions::{interrupts, tlb};

use crate::percpu::{self, MAX_CPUS, STACKS, cpu_id};
use crate::trap::{FIRST_OWN_VECTOR, TrapFrame};
use crate::{acpi, apic, clock, cpu, info, memory, segments, trap};

const CALL_VECTOR: u8 = FIRST_OWN_VECTOR;
const WAKE_VECTOR: u8 = FIRST_OWN_VECTOR + 1;

/// The page, below 1 MiB, where other CPUs start.
const TRAMPOLINE_PAGE: u8 = 8;
const START_TIMEOUT_US: u64 = 1_000_000;

static COUNT: AtomicUsize = AtomicUsize::new(1);

/// Number of CPUs that run, at most [`MAX_CPUS`].
pub fn cpu_count() -> usize {
    COUNT.load(Ordering::Acquire)
}

/// What was interrupted when a call arrived.
#[derive(Debug, Clone, Copy)]
struct Interrupted {
    rip: u64,
    /// Traps the CPU was inside of before.
    depth: u32,
}

/// What is left to do by other CPUs, and who waits for it.
struct Pending {
    left: AtomicUsize,
    waiter: usize,
}

impl Pending {
    fn new() -> Self {
        Self {
            left: AtomicUsize::new(0),
            waiter: cpu_id(),
        }
    }

    fn add(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    fn is_done(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    /// Counts down, and wakes the waiter if it sleeps and this was the last.
    ///
    /// # Safety
    ///
    /// `this` must be valid, and counted up for this call; it may be gone when this returns.
    unsafe fn done(this: *const Self) {
        // SAFETY: valid until the count is 0.
        let (waiter, left) = unsafe { ((*this).waiter, (*this).left.fetch_sub(1, Ordering::SeqCst) - 1) };
        if left == 0 && percpu::cpu(waiter).mailbox.asleep.load(Ordering::SeqCst) {
            apic::send_interrupt(waiter, WAKE_VECTOR);
        }
    }

    /// Waits until nothing is left, answering calls; halts, if interrupts are enabled, when it takes longer.
    fn wait(&self) {
        const SPINS: usize = 100;
        loop {
            for _ in 0..SPINS {
                if self.is_done() {
                    return;
                }
                relax();
            }
            if interrupts::are_enabled() && trap::depth() == 0 {
                let asleep = &percpu::current().mailbox.asleep;
                interrupts::disable();
                asleep.store(true, Ordering::SeqCst);
                // Whoever counts down after this look sees `asleep`; its interrupt stays pending until the CPU halts.
                if self.is_done() {
                    interrupts::enable()
                } else {
                    interrupts::enable_and_hlt()
                }
                asleep.store(false, Ordering::SeqCst);
            }
        }
    }
}

/// A call on its way: a pointer to the caller's closure, valid until `pending` has been counted down.
#[derive(Clone, Copy)]
struct Call {
    function: unsafe fn(*const (), Interrupted),
    closure: *const (),
    pending: *const Pending,
}

const EMPTY: u8 = 0;
const FILLING: u8 = 1;
const FULL: u8 = 2;

/// Where other CPUs leave work for one CPU.
pub(crate) struct Mailbox {
    state: AtomicU8,
    call: UnsafeCell<MaybeUninit<Call>>,
    job: AtomicPtr<Job>,
    /// The owner is about to halt, waiting for a [`Pending`].
    asleep: AtomicBool,
}

// SAFETY: `call` is written by the CPU that moved `state` from EMPTY to FILLING and read by the owner once it is FULL.
unsafe impl Sync for Mailbox {}

impl Mailbox {
    pub(crate) const fn new() -> Self {
        Self {
            state: AtomicU8::new(EMPTY),
            call: UnsafeCell::new(MaybeUninit::uninit()),
            job: AtomicPtr::new(core::ptr::null_mut()),
            asleep: AtomicBool::new(false),
        }
    }

    fn try_post(&self, call: Call) -> bool {
        if self
            .state
            .compare_exchange(EMPTY, FILLING, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            return false;
        }
        // SAFETY: FILLING makes this CPU the only one to touch the cell.
        unsafe { (*self.call.get()).write(call) };
        self.state.store(FULL, Ordering::Release);
        true
    }

    fn take(&self) -> Option<Call> {
        if self.state.load(Ordering::Acquire) != FULL {
            return None;
        }
        // SAFETY: FULL: the writer is done, and only the owner, with interrupts masked, empties the box.
        let call = unsafe { (*self.call.get()).assume_init() };
        self.state.store(EMPTY, Ordering::Release);
        Some(call)
    }
}

/// Answers a call, if one has arrived. Interrupts are masked.
fn serve(interrupted: Interrupted) {
    if let Some(call) = percpu::current().mailbox.take() {
        // SAFETY: the caller keeps closure and counter alive until the counter is 0; counting down is the last use of either.
        unsafe {
            (call.function)(call.closure, interrupted);
            Pending::done(call.pending);
        }
    }
}

/// What to do in a loop that waits for another CPU. With interrupts enabled calls arrive by themselves.
fn relax() {
    if !interrupts::are_enabled() {
        serve(Interrupted {
            rip: 0,
            depth: trap::depth(),
        });
    }
    core::hint::spin_loop();
}

/// Handles the runtime's own interrupts; false if `vector` is not one of them. `depth` counts this trap.
pub(crate) fn handle_interrupt(vector: u8, frame: &TrapFrame, depth: u32) -> bool {
    match vector {
        CALL_VECTOR => serve(Interrupted {
            rip: frame.rip,
            depth: depth - 1,
        }),
        WAKE_VECTOR | apic::SPURIOUS_VECTOR => {}
        _ => return false,
    }
    true
}

fn call<F: Fn(Interrupted) + Sync>(targets: impl Iterator<Item = usize>, closure: &F) {
    /// # Safety
    ///
    /// `closure` must point to an `F`.
    unsafe fn enter<F: Fn(Interrupted)>(closure: *const (), interrupted: Interrupted) {
        // SAFETY: the caller's promise.
        unsafe { (*closure.cast::<F>())(interrupted) }
    }
    let pending = Pending::new();
    let call = Call {
        function: enter::<F>,
        closure: core::ptr::from_ref(closure).cast(),
        pending: &raw const pending,
    };
    for target in targets {
        pending.add();
        while !percpu::cpu(target).mailbox.try_post(call) {
            relax();
        }
        apic::send_interrupt(target, CALL_VECTOR);
    }
    pending.wait();
}

/// All CPUs but the current one.
fn others() -> impl Iterator<Item = usize> {
    let me = cpu_id();
    (0..cpu_count()).filter(move |&cpu| cpu != me)
}

/// Interrupts CPU `cpu` to run `function` there, with interrupts masked, and waits until it has. On the current CPU it is simply called.
///
/// The other CPU must let interrupts in, or be waiting in this module. Must not be called holding an [`crate::sync::IrqMutex`].
pub fn call_on(cpu: usize, function: impl Fn() + Sync) {
    assert!(cpu < cpu_count(), "there is no CPU {cpu}");
    if cpu == cpu_id() {
        interrupts::without_interrupts(function);
    } else {
        call(core::iter::once(cpu), &|_| function());
    }
}

/// As [`call_on`], on every CPU, the current one included; they run it at the same time.
pub fn call_on_all(function: impl Fn() + Sync) {
    call(others(), &|_| function());
    interrupts::without_interrupts(function);
}

/// Returns when every CPU has executed a serialising instruction after the call began: from then on none runs instructions that it fetched
/// before. May be called from any CPU, by several at once.
pub fn sync_cores() {
    call_on_all(|| {
        // CPUID serialises (SDM volume 3, section 9.3).
        core::hint::black_box(core::arch::x86_64::__cpuid(0));
    });
}

/// Empties all CPUs' TLBs.
pub(crate) fn flush_tlbs() {
    call_on_all(tlb::flush_all);
}

/// Returns when no CPU is inside `code` any more, provided that no CPU can enter it: each CPU has been seen, after the call began, with no
/// trap in progress and its instruction pointer outside. This kernel has no preemption, so that is exact.
///
/// Must be called in ordinary context, not in a trap.
///
/// # Panics
///
/// If called in a trap: the interrupted code could be inside, so it would wait for ever.
pub fn quiesce(code: &Range<u64>) {
    assert_eq!(trap::depth(), 0, "quiesce called inside a trap");
    for cpu in others() {
        let busy = AtomicBool::new(true);
        while busy.load(Ordering::Relaxed) {
            call(core::iter::once(cpu), &|interrupted| {
                busy.store(
                    interrupted.depth > 0 || code.contains(&interrupted.rip),
                    Ordering::Relaxed,
                );
            });
        }
    }
}

/// Work for a CPU's ordinary context.
struct Job {
    function: *const (dyn Fn(usize) + Sync),
    pending: Pending,
}

fn run_jobs(targets: impl Iterator<Item = usize>, here: bool, function: &(dyn Fn(usize) + Sync)) {
    // SAFETY: only the lifetime is erased; this function does not return before the last CPU has counted down.
    let function_static: *const (dyn Fn(usize) + Sync) =
        unsafe { core::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(function) };
    let job = Job {
        function: function_static,
        pending: Pending::new(),
    };
    let pointer = (&raw const job).cast_mut();
    for target in targets {
        job.pending.add();
        let slot = &percpu::cpu(target).mailbox.job;
        while slot
            .compare_exchange(core::ptr::null_mut(), pointer, Ordering::Release, Ordering::Relaxed)
            .is_err()
        {
            relax();
        }
        apic::send_interrupt(target, WAKE_VECTOR);
    }
    if here {
        function(cpu_id());
    }
    job.pending.wait();
}

/// Runs `function(cpu)` on every CPU in ordinary context, the current one included, at the same time; returns when all have finished.
/// A CPU that is busy with an earlier one does it afterwards. To be called in ordinary context.
pub fn run_on_all(function: impl Fn(usize) + Sync) {
    run_jobs(others(), true, &function);
}

/// Runs `function` on CPU `cpu` in ordinary context and waits for it.
pub fn run_on(cpu: usize, function: impl Fn() + Sync) {
    assert!(cpu < cpu_count(), "there is no CPU {cpu}");
    if cpu == cpu_id() {
        function();
    } else {
        run_jobs(core::iter::once(cpu), false, &|_| function());
    }
}

/// Where a CPU other than the first spends its time.
fn idle() -> ! {
    let slot = &percpu::current().mailbox.job;
    loop {
        interrupts::disable();
        let job = slot.load(Ordering::Acquire);
        if job.is_null() {
            // The wake-up cannot be lost: interrupts stay masked until the CPU halts.
            interrupts::enable_and_hlt();
            continue;
        }
        interrupts::enable();
        slot.store(core::ptr::null_mut(), Ordering::Release);
        // SAFETY: the job lives on its sender's stack until `pending` is 0; counting down is the last use.
        unsafe {
            (*(*job).function)(cpu_id());
            Pending::done(&raw const (*job).pending);
        }
    }
}

/// The stack of the CPU being started; `asm/boot.s` reads it.
#[unsafe(no_mangle)]
static ap_stack_top: AtomicUsize = AtomicUsize::new(0);

/// The CPU being started.
static STARTING: AtomicUsize = AtomicUsize::new(0);

/// Starts the other CPUs that ACPI lists, one after the other.
pub(crate) fn start() {
    unsafe extern "C" {
        static ap_trampoline: u8;
        static ap_trampoline_end: u8;
    }
    let Some(cpus) = info::boot_info().rsdp.and_then(acpi::cpus) else {
        return;
    };
    let boot_id = percpu::current().apic_id.load(Ordering::Relaxed);
    let waiting = || {
        cpus.ids()
            .iter()
            .copied()
            .filter(|&id| id != boot_id)
            .take(MAX_CPUS - 1)
    };
    if waiting().next().is_none() {
        return;
    }

    let start = &raw const ap_trampoline;
    let len = (&raw const ap_trampoline_end).addr() - start.addr();
    // SAFETY: the boot part is linked at its physical address, so the direct map has it; the page is RAM that nobody uses, as every PC has.
    unsafe {
        let from = memory::direct(start.addr() as u64);
        core::ptr::copy_nonoverlapping(from, memory::direct(u64::from(TRAMPOLINE_PAGE) << 12), len);
    }
    // SAFETY: these CPUs are not in use. The wait is the SDM's (volume 3, section 9.4.4).
    waiting().for_each(|id| unsafe { apic::send_init(id) });
    clock::delay_us(10_000);
    for (id, cpu) in waiting().zip(1..) {
        STARTING.store(cpu, Ordering::Relaxed);
        ap_stack_top.store(STACKS.of(cpu).main_top().as_u64() as usize, Ordering::Release);
        // SAFETY: the CPU waits after INIT, and the trampoline is in place.
        unsafe { apic::send_startup(id, TRAMPOLINE_PAGE) };
        if !wait_for(cpu, 200) {
            // SAFETY: a CPU that has started ignores it.
            unsafe { apic::send_startup(id, TRAMPOLINE_PAGE) };
            assert!(
                wait_for(cpu, START_TIMEOUT_US),
                "CPU {cpu}, APIC id {id}, did not start"
            );
        }
    }
}

fn wait_for(cpu: usize, timeout_us: u64) -> bool {
    let cycles = (u128::from(timeout_us) * u128::from(clock::tsc_hz()) / 1_000_000) as u64;
    let start = clock::tsc();
    while COUNT.load(Ordering::Acquire) <= cpu {
        if clock::tsc().wrapping_sub(start) > cycles {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

#[unsafe(no_mangle)]
extern "C" fn ap_main() -> ! {
    percpu::init(STARTING.load(Ordering::Relaxed));
    memory::switch_to_kernel_space();
    segments::init();
    trap::load();
    cpu::init();
    apic::init();
    COUNT.fetch_add(1, Ordering::Release);
    idle()
}
