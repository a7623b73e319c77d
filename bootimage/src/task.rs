//! Tasks: contexts that are preempted at any instruction, and go on on another CPU.
//!
//! There is no policy here. A CPU that calls [`run`] takes tasks off one queue, first in, first out; the handler of an interrupt may
//! [`preempt`] the one that it has interrupted, which goes to the queue's end with its registers on its own stack, half executed
//! instruction sequences and all.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::arch::naked_asm;
use core::ops::Range;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use x86_64::instructions::interrupts;

use crate::apic;
use crate::percpu::{self, MAX_CPUS, cpu_id};
use crate::sync::IrqMutex;
use crate::trap::{self, TrapFrame};

const STACK: usize = 64 * 1024;

/// A context of its own.
pub struct Task {
    stack: Box<[u8]>,
    /// Where its registers are, while it is not running.
    rsp: AtomicUsize,
    function: fn(usize),
    argument: usize,
    /// How often it has been preempted, and where it was the last time.
    preempted: AtomicU64,
    rip: AtomicU64,
    /// How often it has gone on on another CPU than it had been on.
    moved: AtomicU64,
    last_cpu: AtomicUsize,
    done: AtomicBool,
}

/// Where each CPU's [`run`] goes on, and which task it has sent off.
static SCHEDULERS: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(0) }; MAX_CPUS];
static RUNNING: [AtomicPtr<Task>; MAX_CPUS] = [const { AtomicPtr::new(ptr::null_mut()) }; MAX_CPUS];

/// Those that have not been given to [`finish`].
static ALL: IrqMutex<Vec<&'static Task>> = IrqMutex::new(Vec::new());

static QUEUE: IrqMutex<VecDeque<&'static Task>> = IrqMutex::new(VecDeque::new());

/// Makes tasks that will call `function` with the numbers from 0 on, once CPUs [`run`] them. They must be given to [`finish`].
pub fn spawn(count: usize, function: fn(usize)) -> Vec<&'static Task> {
    let tasks: Vec<&'static Task> = (0..count).map(|argument| new(function, argument)).collect();
    ALL.lock().extend(&tasks);
    QUEUE.lock().extend(&tasks);
    tasks
}

fn new(function: fn(usize), argument: usize) -> &'static Task {
    let mut stack = vec![0_u8; STACK].into_boxed_slice();
    let top = (stack.as_mut_ptr_range().end as usize) & !15;
    // What `switch` pops: six registers and where to go on; the stack is then as behind a call.
    let registers = top - 16 - 7 * 8;
    // SAFETY: inside the stack that was just allocated.
    unsafe {
        ptr::with_exposed_provenance_mut::<usize>(registers + 6 * 8).write(enter as extern "C" fn() -> ! as usize)
    };
    Box::leak(Box::new(Task {
        stack,
        rsp: AtomicUsize::new(registers),
        function,
        argument,
        preempted: AtomicU64::new(0),
        rip: AtomicU64::new(0),
        moved: AtomicU64::new(0),
        last_cpu: AtomicUsize::new(usize::MAX),
        done: AtomicBool::new(false),
    }))
}

/// Gives back tasks that have ended: how often they were preempted, and moved to another CPU.
///
/// # Panics
/// If one has not ended.
pub fn finish(tasks: Vec<&'static Task>) -> (u64, u64) {
    let mut sums = (0, 0);
    ALL.lock()
        .retain(|task| !tasks.iter().any(|gone| ptr::eq(*gone, *task)));
    for task in tasks {
        assert!(task.done.load(Ordering::Acquire), "a task has not ended");
        sums.0 += task.preempted.load(Ordering::Relaxed);
        sums.1 += task.moved.load(Ordering::Relaxed);
        // SAFETY: from `Box::leak`, not in the queue any more, and no CPU is on its stack: `done` is set by who has left it.
        drop(unsafe { Box::from_raw(ptr::from_ref(task).cast_mut()) });
    }
    sums
}

/// Runs tasks on this CPU until all of them have ended. In ordinary context.
pub fn run(tasks: &[&'static Task]) {
    while !tasks.iter().all(|task| task.done.load(Ordering::Acquire)) {
        let next = QUEUE.lock().pop_front();
        let Some(task) = next else {
            core::hint::spin_loop();
            continue;
        };
        let cpu = cpu_id();
        interrupts::disable();
        if task.last_cpu.swap(cpu, Ordering::Relaxed) != cpu && task.preempted.load(Ordering::Relaxed) > 0 {
            task.moved.fetch_add(1, Ordering::Relaxed);
        }
        RUNNING[cpu].store(ptr::from_ref(task).cast_mut(), Ordering::Relaxed);
        // It goes on inside the interrupt in which it was preempted, if it was.
        let inside = u32::from(task.preempted.load(Ordering::Relaxed) > 0);
        percpu::current().trap_depth.store(inside, Ordering::Relaxed);
        // SAFETY: the task's registers are where it left them, and nobody else has taken it off the queue.
        unsafe { switch(&SCHEDULERS[cpu], task.rsp.load(Ordering::Acquire)) };
        RUNNING[cpu].store(ptr::null_mut(), Ordering::Relaxed);
        percpu::current().trap_depth.store(0, Ordering::Relaxed);
        interrupts::enable();
        // Only now is nobody on its stack.
        if task.rip.load(Ordering::Relaxed) == ENDED {
            task.done.store(true, Ordering::Release);
        } else {
            QUEUE.lock().push_back(task);
        }
    }
}

/// A number for the task that this CPU runs, in any context; `None` when it runs none.
pub fn current() -> Option<u64> {
    let task = RUNNING[cpu_id()].load(Ordering::Relaxed);
    (!task.is_null()).then_some(task.expose_provenance() as u64)
}

/// In a task's `rip`: it has returned.
const ENDED: u64 = 1;

/// For the handler of an interrupt, `vector`: if that has interrupted a task, and nothing else, the CPU goes on with the next one, and this
/// returns when the task goes on, here or on another CPU.
pub fn preempt(vector: u8, frame: &TrapFrame) {
    let cpu = cpu_id();
    // SAFETY: null or a task that this CPU is running.
    let Some(task) = (unsafe { RUNNING[cpu].load(Ordering::Relaxed).as_ref() }) else {
        return;
    };
    if trap::depth() != 1 {
        return;
    }
    apic::end_of_interrupt(vector);
    task.rip.store(frame.rip, Ordering::Relaxed);
    task.preempted.fetch_add(1, Ordering::Release);
    // SAFETY: the CPU's scheduler waits there.
    unsafe { switch(&task.rsp, SCHEDULERS[cpu].load(Ordering::Relaxed)) };
}

/// Returns when every task has been seen outside `code` after the call began: it has ended, or was preempted there. CPUs run the tasks
/// meanwhile, and preempt them.
pub fn quiesce(code: &Range<u64>) {
    let tasks = ALL.lock().clone();
    for task in tasks {
        let before = task.preempted.load(Ordering::Acquire);
        loop {
            let seen = task.preempted.load(Ordering::Acquire);
            let rip = task.rip.load(Ordering::Acquire);
            if rip == ENDED || (seen > before && !code.contains(&rip)) {
                break;
            }
            core::hint::spin_loop();
        }
    }
}

extern "C" fn enter() -> ! {
    // SAFETY: a task enters here on the CPU that has just made it the running one.
    let task: &Task = unsafe { &*RUNNING[cpu_id()].load(Ordering::Relaxed) };
    interrupts::enable();
    (task.function)(task.argument);
    interrupts::disable();
    task.rip.store(ENDED, Ordering::Relaxed);
    // SAFETY: as in `preempt`. The task is not on the queue: nobody comes back.
    unsafe { switch(&task.rsp, SCHEDULERS[cpu_id()].load(Ordering::Relaxed)) };
    unreachable!("a task that has ended goes on")
}

/// Saves what a call preserves on the stack, the stack pointer in `from`, and goes on where `to` was saved.
///
/// # Safety
/// `to` was saved so, or made so, and is not used twice. Interrupts are masked.
#[unsafe(naked)]
unsafe extern "C" fn switch(from: &AtomicUsize, to: usize) {
    naked_asm!(
        "push rbp; push rbx; push r12; push r13; push r14; push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15; pop r14; pop r13; pop r12; pop rbx; pop rbp",
        "ret",
    )
}

impl core::fmt::Debug for Task {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Task")
            .field("argument", &self.argument)
            .field("stack", &self.stack.as_ptr_range())
            .finish_non_exhaustive()
    }
}
