//! Traps: exceptions and interrupts, each handled by a function a test can set.

use core::sync::atomic::{AtomicPtr, Ordering};

use x86_64::instructions::tables::lidt;
use x86_64::registers::control::Cr2;
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::idt::{Entry, HandlerFunc};
use x86_64::{PrivilegeLevel, VirtAddr};

use crate::segments::{IST_DOUBLE_FAULT, IST_MACHINE_CHECK, KERNEL_CS};
use crate::sync::IrqMutex;
use crate::{apic, debug, fault, harness, hooks, percpu, println, ring3, smp, symbols};

core::arch::global_asm!(include_str!("asm/trap.s"), options(att_syntax));

/// Divide error.
pub const DE: u8 = 0;
/// Debug: single step, debug registers.
pub const DB: u8 = 1;
/// Non-maskable interrupt.
pub const NMI: u8 = 2;
/// Breakpoint: int3.
pub const BP: u8 = 3;
/// Invalid opcode.
pub const UD: u8 = 6;
/// Double fault.
pub const DF: u8 = 8;
/// Stack-segment fault.
pub const SS: u8 = 12;
/// General protection.
pub const GP: u8 = 13;
/// Page fault.
pub const PF: u8 = 14;
/// Alignment check.
pub const AC: u8 = 17;
/// Machine check.
pub const MC: u8 = 18;
/// First vector of interrupts. From here to [`FIRST_OWN_VECTOR`] all are free for tests.
pub const FIRST_INTERRUPT: u8 = 32;
/// First of the vectors that the runtime itself uses.
pub const FIRST_OWN_VECTOR: u8 = 0xf0;

/// The registers at a trap, in the order of Linux's `struct pt_regs`. A handler may change them; the changes are what is returned to.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the registers' own names
pub struct TrapFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// The error code, 0 for vectors without one.
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

const _: () = assert!(size_of::<TrapFrame>() == 21 * 8);

impl TrapFrame {
    /// All registers zero.
    pub const ZERO: TrapFrame = TrapFrame {
        r15: 0,
        r14: 0,
        r13: 0,
        r12: 0,
        rbp: 0,
        rbx: 0,
        r11: 0,
        r10: 0,
        r9: 0,
        r8: 0,
        rax: 0,
        rcx: 0,
        rdx: 0,
        rsi: 0,
        rdi: 0,
        orig_rax: 0,
        rip: 0,
        cs: 0,
        rflags: 0,
        rsp: 0,
        ss: 0,
    };
}

/// What a [`Handler`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Handled: continue with the frame as it is now.
    Resume,
    /// Not mine: the runtime goes on as if there were no handler (fix-up table, then fatal).
    Pass,
}

/// Handles one vector, with interrupts masked, on the stack of the interrupted code, after the exits of the [`hooks`] in the path. The runtime acknowledges interrupts at the local APIC.
pub type Handler = fn(vector: u8, frame: &mut TrapFrame) -> Action;

static HANDLERS: [AtomicPtr<()>; 256] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 256];

/// Sets the handler of `vector` on all CPUs, or removes it. Returns the one it replaces.
pub fn set_handler(vector: u8, handler: Option<Handler>) -> Option<Handler> {
    let new = handler.map_or(core::ptr::null_mut(), |handler| handler as *mut ());
    as_handler(HANDLERS[usize::from(vector)].swap(new, Ordering::AcqRel))
}

fn as_handler(pointer: *mut ()) -> Option<Handler> {
    // SAFETY: only null and `Handler`s are ever stored in the table.
    (!pointer.is_null()).then(|| unsafe { core::mem::transmute::<*mut (), Handler>(pointer) })
}

/// One IDT for all CPUs, writable and page-aligned: an engine under test may replace gates in it.
#[repr(C, align(4096))]
struct Idt([Entry<HandlerFunc>; 256]);

static IDT: IrqMutex<Idt> = IrqMutex::new(Idt([const { Entry::missing() }; 256]));

fn idt_pointer() -> DescriptorTablePointer {
    let idt = IDT.lock();
    DescriptorTablePointer {
        base: VirtAddr::from_ptr(&idt.0),
        limit: (size_of::<Idt>() - 1) as u16,
    }
}

/// Fills the table. Gates are interrupt gates: every handler starts with interrupts masked. #BP is open to ring 3.
///
/// NMI has no stack of its own: no ring 0 code here ever runs on a stack it does not own, and a fixed stack would be overwritten by a
/// second NMI once a breakpoint inside the first one has returned (IRET unmasks NMIs).
pub(crate) fn init() {
    unsafe extern "C" {
        static trap_stubs: u8;
    }
    let stubs = VirtAddr::from_ptr(&raw const trap_stubs);
    let mut idt = IDT.lock();
    for (vector, entry) in idt.0.iter_mut().enumerate() {
        // SAFETY: the stub for each vector, 16 bytes apart, saves and restores everything (asm/trap.s); the stacks exist in every TSS.
        unsafe {
            let options = entry
                .set_handler_addr(stubs + 16 * vector as u64)
                .set_code_selector(KERNEL_CS);
            match vector as u8 {
                BP | ring3::LEAVE_VECTOR => options.set_privilege_level(PrivilegeLevel::Ring3),
                DF => options.set_stack_index(IST_DOUBLE_FAULT),
                MC => options.set_stack_index(IST_MACHINE_CHECK),
                _ => options,
            };
        }
    }
}

/// Loads the table on this CPU.
pub(crate) fn load() {
    // SAFETY: the table is filled, lives for ever and its gates stay valid.
    unsafe { lidt(&idt_pointer()) };
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".noinstr.text")]
extern "C" fn trap_dispatch(vector: u32, frame: &mut TrapFrame) {
    let vector = vector as u8;
    // What the handlers of #DB touch must not raise it again.
    let watching = if vector == DB { debug::switch_off() } else { 0 };
    let cpu = percpu::current();
    let depth = cpu.trap_depth.fetch_add(1, Ordering::Relaxed) + 1;
    let from_user = frame.cs & 3 == 3;
    if from_user {
        cpu.user_frame.store(frame, Ordering::Relaxed);
    }
    let mut action = hooks::offer(vector, frame);
    if action == Action::Pass
        && let Some(handler) = as_handler(HANDLERS[usize::from(vector)].load(Ordering::Acquire))
    {
        action = handler(vector, frame);
    }
    if action == Action::Pass && !built_in(vector, frame, depth) {
        fatal(vector, frame);
    }
    if vector >= FIRST_INTERRUPT {
        apic::end_of_interrupt(vector);
    }
    if from_user {
        cpu.user_frame.store(core::ptr::null_mut(), Ordering::Relaxed);
    }
    // A handler may have preempted a task, which then goes on here on another CPU.
    percpu::current().trap_depth.fetch_sub(1, Ordering::Relaxed);
    if watching != 0 {
        debug::switch_on(watching);
    }
}

/// What the runtime itself does about a trap; false if nothing.
fn built_in(vector: u8, frame: &mut TrapFrame, depth: u32) -> bool {
    smp::handle_interrupt(vector, frame, depth) || ring3::handle_leave(vector, frame) || fault::fix_up(vector, frame)
}

/// How many traps and interrupts the current CPU is inside of: 0 in ordinary code.
pub fn depth() -> u32 {
    percpu::current().trap_depth.load(Ordering::Relaxed)
}

fn name(vector: u8) -> &'static str {
    match vector {
        DE => "#DE divide error",
        DB => "#DB debug",
        NMI => "NMI",
        BP => "#BP breakpoint",
        4 => "#OF overflow",
        5 => "#BR bound range",
        UD => "#UD invalid opcode",
        7 => "#NM device not available",
        DF => "#DF double fault",
        10 => "#TS invalid TSS",
        11 => "#NP segment not present",
        SS => "#SS stack fault",
        GP => "#GP general protection",
        PF => "#PF page fault",
        16 => "#MF x87 error",
        AC => "#AC alignment check",
        MC => "#MC machine check",
        19 => "#XM SIMD error",
        21 => "#CP control protection",
        _ => "interrupt",
    }
}

fn fatal(vector: u8, f: &TrapFrame) -> ! {
    let cpu = percpu::cpu_id();
    println!(
        "\nnot handled: vector {vector} ({}) error code {:#x} on CPU {cpu}",
        name(vector),
        f.orig_rax
    );
    println!("  rip {:#018x} cs {:#06x} rflags {:#010x}", f.rip, f.cs, f.rflags);
    if let Some(function) = symbols::known_function_at(f.rip) {
        println!("  in {}+{:#x}", function.name, f.rip - function.code.start);
    }
    println!("  rsp {:#018x} ss {:#06x} cr2 {:#018x}", f.rsp, f.ss, Cr2::read_raw());
    println!(
        "  rax {:#018x} rbx {:#018x} rcx {:#018x} rdx {:#018x}",
        f.rax, f.rbx, f.rcx, f.rdx
    );
    println!(
        "  rsi {:#018x} rdi {:#018x} rbp {:#018x} r8  {:#018x}",
        f.rsi, f.rdi, f.rbp, f.r8
    );
    println!(
        "  r9  {:#018x} r10 {:#018x} r11 {:#018x} r12 {:#018x}",
        f.r9, f.r10, f.r11, f.r12
    );
    println!("  r13 {:#018x} r14 {:#018x} r15 {:#018x}", f.r13, f.r14, f.r15);
    harness::failed()
}
