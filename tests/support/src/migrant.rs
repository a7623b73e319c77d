//! A task that the test moves from CPU to CPU: code with a stack of its own that goes on, wherever it was interrupted, on the CPU that it is given to.
//!
//! There is one, and the test is its scheduler: [`run`] gives it the CPU until it is parked or has ended.

use core::cell::UnsafeCell;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};

use bootimage::trap::{self, Action, TrapFrame};
use bootimage::{apic, cpu_id};

/// Interrupts that begin, park and end the task's run on a CPU.
const ENTER: u8 = trap::FIRST_INTERRUPT + 8;
const PARK: u8 = ENTER + 1;
const END: u8 = ENTER + 2;

const NONE: u32 = 0;
const RUNNING: u32 = 1;
const PARKED: u32 = 2;

static STATE: AtomicU32 = AtomicU32::new(NONE);

/// Of the task while it is parked, and of each CPU's own code while that runs the task.
struct Registers(UnsafeCell<[TrapFrame; 9]>);

// SAFETY: `STATE` says who may use the task's, and a CPU's own are its own.
unsafe impl Sync for Registers {}

const TASK: usize = 8;
static REGISTERS: Registers = Registers(UnsafeCell::new([TrapFrame::ZERO; 9]));

fn registers(of: usize) -> *mut TrapFrame {
    // SAFETY: in bounds; no reference is made.
    unsafe { REGISTERS.0.get().cast::<TrapFrame>().add(of % 9) }
}

fn swap(vector: u8, frame: &mut TrapFrame) -> Action {
    let (save, load, state) = match vector {
        ENTER => (cpu_id(), TASK, RUNNING),
        PARK if STATE.load(Ordering::Acquire) == RUNNING => (TASK, cpu_id(), PARKED),
        END => (TASK, cpu_id(), NONE),
        _ => return Action::Resume,
    };
    // SAFETY: one CPU runs the task, which is this one, or will be; the places are different.
    unsafe {
        registers(save).write(*frame);
        *frame = registers(load).read();
    }
    STATE.store(state, Ordering::Release);
    Action::Resume
}

core::arch::global_asm!(
    ".globl task_entry",
    "task_entry:",
    "    call rbx",
    "    int {end}",
    "    ud2",
    end = const END,
);

unsafe extern "C" {
    fn task_entry();
}

/// Makes the task: it will call `function` with this argument in RDI on the stack that ends at `top`.
///
/// # Safety
/// Nobody else uses the stack, and the function is one of assembly that changes registers and its own memory.
pub unsafe fn make(function: unsafe extern "C" fn(u64) -> u64, argument: u64, top: u64) {
    for vector in [ENTER, PARK, END] {
        trap::set_handler(vector, Some(swap));
    }
    let mut frame = TrapFrame {
        rip: task_entry as unsafe extern "C" fn() as usize as u64,
        rbx: function as usize as u64,
        rdi: argument,
        rsp: top,
        rflags: 0x202,
        ..TrapFrame::ZERO
    };
    // SAFETY: reads the two segment registers.
    unsafe {
        core::arch::asm!("mov {0:e}, cs", "mov {1:e}, ss", out(reg) frame.cs, out(reg) frame.ss, options(nomem, nostack));
        registers(TASK).write(frame);
    }
    STATE.store(PARKED, Ordering::Release);
}

/// Runs the task on this CPU until it is parked or has ended; true if it has ended.
pub fn run() -> bool {
    assert_eq!(
        STATE.load(Ordering::Acquire),
        PARKED,
        "there is a task, and it is parked"
    );
    // SAFETY: the handler keeps the registers, and brings them back.
    unsafe { core::arch::asm!("int {enter}", enter = const ENTER) };
    STATE.load(Ordering::Acquire) == NONE
}

/// Has the task, which runs on this CPU, parked as soon as interrupts are let in. To be called in a trap.
pub fn park() {
    apic::send_interrupt(cpu_id(), PARK);
}

/// Where the task goes on, if it is parked.
pub fn parked_at() -> Option<u64> {
    // SAFETY: the registers stay as they are while it is parked; whoever gives it a CPU looks afterwards.
    (STATE.load(Ordering::Acquire) == PARKED).then(|| unsafe { (*registers(TASK)).rip })
}

/// Is the task parked in this code?
pub fn is_parked_in(code: &Range<u64>) -> bool {
    parked_at().is_some_and(|rip| code.contains(&rip))
}

/// What a register of the task is set to while it is parked: RDI.
pub fn set_argument(argument: u64) {
    assert!(parked_at().is_some());
    // SAFETY: it is parked.
    unsafe { (*registers(TASK)).rdi = argument };
}
