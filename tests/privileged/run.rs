//! Running a block in ring 0 with all registers of our choice, and seeing all that it leaves.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bootimage::memory::{self, Rights};
use bootimage::sync::IrqMutex;
use bootimage::trap::{self, Action, TrapFrame};

use crate::generate::Random;

/// Data: two pages, a page that can only be read, and nothing.
pub const DATA: u64 = 0xffff_a000_0000_0000;
/// Stack: two pages.
pub const STACK: u64 = DATA + 0x10_0000;
pub const PAGE: u64 = 4096;
/// Of either.
const BYTES: usize = 2 * PAGE as usize;

/// General registers by number, and flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Registers {
    general: [u64; 16],
    flags: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    pub vector: u8,
    error_code: u64,
    rip: u64,
    cs: u64,
    ss: u64,
    /// Of a page fault.
    cr2: u64,
}

/// What a block leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub exception: Option<Exception>,
    registers: Registers,
    /// CR0, CR3, CR4, CR8, DR0 to DR3, DR7.
    control: [u64; 9],
    /// DS, ES, FS, LDTR, TR.
    selectors: [u16; 5],
    tables: [[u8; 10]; 2],
    fs_base: u64,
    msrs: [u64; 6],
    /// A sum of the data, and of the stack from its pointer on: interrupts write below.
    memory: [u64; 2],
}

global_asm!(
    ".local privileged_place",
    ".comm privileged_place, 64, 64",
    // extern "sysv64" fn(*mut Registers, code: u64)
    "privileged_enter:",
    "push rbx; push rbp; push r12; push r13; push r14; push r15; pushfq",
    "mov [rip + privileged_place], rsp; mov [rip + privileged_place + 8], rdi; mov [rip + privileged_place + 16], rsi",
    "push qword ptr [rdi + 128]; popfq",
    "mov rax, [rdi]; mov rcx, [rdi + 8]; mov rdx, [rdi + 16]; mov rbx, [rdi + 24]; mov rsp, [rdi + 32]; mov rbp, [rdi + 40]",
    "mov rsi, [rdi + 48]; mov r8, [rdi + 64]; mov r9, [rdi + 72]; mov r10, [rdi + 80]; mov r11, [rdi + 88]",
    "mov r12, [rdi + 96]; mov r13, [rdi + 104]; mov r14, [rdi + 112]; mov r15, [rdi + 120]; mov rdi, [rdi + 56]",
    "jmp [rip + privileged_place + 16]",
    "privileged_leave:",
    "mov [rip + privileged_place + 24], rdi; mov rdi, [rip + privileged_place + 8]",
    "mov [rdi], rax; mov [rdi + 8], rcx; mov [rdi + 16], rdx; mov [rdi + 24], rbx; mov [rdi + 32], rsp; mov [rdi + 40], rbp",
    "mov [rdi + 48], rsi; mov [rdi + 64], r8; mov [rdi + 72], r9; mov [rdi + 80], r10; mov [rdi + 88], r11",
    "mov [rdi + 96], r12; mov [rdi + 104], r13; mov [rdi + 112], r14; mov [rdi + 120], r15",
    "mov rax, [rip + privileged_place + 24]; mov [rdi + 56], rax",
    "mov rsp, [rip + privileged_place]; pushfq; pop [rdi + 128]",
    "privileged_abandon:",
    "mov rsp, [rip + privileged_place]; cld; popfq",
    "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
    "ret",
    // A function to be overwritten.
    ".globl target_block",
    ".type target_block, @function",
    "target_block:",
    ".skip 512, 0xcc",
    ".size target_block, 512",
    ".globl privileged_enter, privileged_leave, privileged_abandon",
);

unsafe extern "sysv64" {
    fn privileged_enter(registers: *mut Registers, code: u64);
    fn privileged_leave();
    fn privileged_abandon();
}

/// Where a block has to go at its end.
pub fn leave() -> u64 {
    privileged_leave as *const () as u64
}

static RUNNING: AtomicBool = AtomicBool::new(false);
static STACK_POINTER: AtomicU64 = AtomicU64::new(0);
static SEEN: IrqMutex<Option<(Exception, Registers)>> = IrqMutex::new(None);

/// Notes an exception that a block has raised, and sends the CPU out of the block.
fn on_exception(vector: u8, frame: &mut TrapFrame) -> Action {
    let cr2: u64;
    // SAFETY: only reads.
    unsafe { asm!("mov {}, cr2", out(reg) cr2, options(nomem, nostack, preserves_flags)) };
    if !RUNNING.swap(false, Ordering::SeqCst) {
        return Action::Pass;
    }
    let f = *frame;
    let exception = Exception {
        vector,
        error_code: f.orig_rax,
        rip: f.rip,
        cs: f.cs,
        ss: f.ss,
        cr2: if vector == trap::PF { cr2 } else { 0 },
    };
    let general = [
        f.rax, f.rcx, f.rdx, f.rbx, f.rsp, f.rbp, f.rsi, f.rdi, f.r8, f.r9, f.r10, f.r11, f.r12, f.r13, f.r14, f.r15,
    ];
    // RF says how the exception came, which is not the block's.
    let flags = f.rflags & !(1 << 16);
    *SEEN.lock() = Some((exception, Registers { general, flags }));
    frame.rip = privileged_abandon as *const () as u64;
    frame.rflags = 2;
    frame.cs = SELECTORS.0.load(Ordering::Relaxed);
    frame.ss = SELECTORS.1.load(Ordering::Relaxed);
    // The frame is returned to with IRET, which takes the stack pointer in 64-bit mode: one that is good until `abandon` loads its own.
    frame.rsp = STACK_POINTER.load(Ordering::Relaxed);
    Action::Resume
}

/// CS and SS of this kernel.
static SELECTORS: (AtomicU64, AtomicU64) = (AtomicU64::new(0), AtomicU64::new(0));

/// MSRs that blocks write, and the numbers of those that are compared.
const MSRS: [u32; 6] = [0xc000_0080, 0xc000_0081, 0xc000_0082, 0xc000_0084, 0x174, 0x277];

pub struct Runner {
    /// What control registers and selectors are made again after each block.
    cr0: u64,
    cr3: u64,
    cr4: u64,
    msrs: [u64; 6],
    data: Vec<u64>,
}

impl Runner {
    pub fn new() -> Self {
        if memory::translate(DATA).is_none() {
            memory::map(DATA, BYTES, Rights::WRITE).expect("data");
            memory::map(DATA + BYTES as u64, PAGE as usize, Rights::empty()).expect("read-only data");
            memory::map(STACK, BYTES, Rights::WRITE).expect("a stack");
        }
        STACK_POINTER.store(STACK + BYTES as u64 - 64, Ordering::Relaxed);
        let (cs, ss): (u64, u64);
        // SAFETY: only reads.
        unsafe { asm!("mov {}, cs", "mov {}, ss", out(reg) cs, out(reg) ss, options(nomem, nostack, preserves_flags)) };
        SELECTORS.0.store(cs, Ordering::Relaxed);
        SELECTORS.1.store(ss, Ordering::Relaxed);
        for vector in [0, 1, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17, 19] {
            trap::set_handler(vector, Some(on_exception));
        }
        let control = control();
        let mut random = Random(77);
        let runner = Runner {
            cr0: control[0],
            cr3: control[1],
            cr4: control[2],
            msrs: MSRS.map(|number| bootimage::fault::probe_msr(number).unwrap_or(0)),
            data: (0..2 * BYTES / 8)
                .map(|_| random.next() & 0x7a7a_7a7a_7a7a_7a7a)
                .collect(),
        };
        runner.restore();
        runner
    }

    /// Runs a block with the registers of a seed.
    pub fn run(&mut self, seed: u64, run: u64, code: u64) -> Outcome {
        let mut random = Random(seed.wrapping_mul(1000) + run);
        let mut registers = Registers {
            general: [0; 16].map(|_: u64| random.next() >> (8 * random.below(8))),
            // CF PF AF ZF SF IF DF OF, but direction mostly upwards.
            flags: 2 | random.next() & 0xad5 | if random.below(8) == 0 { 0x400 } else { 0 },
        };
        for pointer in [3, 5, 6, 7] {
            registers.general[pointer] = match random.below(16) {
                0 => DATA + BYTES as u64 - 4,
                1 => DATA + 3 * PAGE + random.below(PAGE),
                2 => 0x8000_0000_0000_0000,
                _ => DATA + 64 + random.below(4096),
            };
        }
        registers.general[1] = random.below(100);
        registers.general[4] = STACK + BYTES as u64 - 1024;
        let (data, stack) = self.data.split_at(BYTES / 8);
        // SAFETY: pages of this test's own, mapped and writable; no reference to them exists.
        unsafe {
            (DATA as *mut u64).copy_from_nonoverlapping(data.as_ptr(), data.len());
            (STACK as *mut u64).copy_from_nonoverlapping(stack.as_ptr(), stack.len());
        }
        *SEEN.lock() = None;
        let mut registers = Box::new(registers);
        RUNNING.store(true, Ordering::SeqCst);
        // SAFETY: blocks write to the data, the stack and the registers that are looked at below, and end at `leave` or with an
        // exception.
        unsafe { privileged_enter(&raw mut *registers, code) };
        RUNNING.store(false, Ordering::SeqCst);
        let seen = SEEN.lock().take();
        let (exception, registers) = match seen {
            Some((exception, registers)) => (Some(exception), registers),
            None => (None, *registers),
        };
        let from = (registers.general[4].clamp(STACK, STACK + BYTES as u64) - STACK) as usize;
        let outcome = Outcome {
            exception,
            registers,
            control: control(),
            selectors: selectors(),
            tables: tables(),
            fs_base: bootimage::fault::probe_msr(0xc000_0100).unwrap_or(0),
            msrs: MSRS.map(|number| bootimage::fault::probe_msr(number).unwrap_or(0)),
            memory: [sum(DATA, BYTES), sum(STACK + from as u64, BYTES - from)],
        };
        self.restore();
        outcome
    }

    /// Makes everything as it was.
    fn restore(&self) {
        // SAFETY: the values that were there when this began, and those that a CPU starts with.
        unsafe {
            asm!("mov cr0, {}", "mov cr3, {}", "mov cr4, {}", in(reg) self.cr0, in(reg) self.cr3, in(reg) self.cr4);
            asm!("mov cr8, {0}", "mov dr0, {0}", "mov dr1, {0}", "mov dr2, {0}", "mov dr3, {0}", in(reg) 0_u64);
            asm!("mov dr7, {}", in(reg) 0x400_u64);
            asm!("mov dr6, {}", in(reg) 0xffff_0ff0_u64);
            asm!("mov ds, {0:e}", "mov es, {0:e}", "mov fs, {0:e}", in(reg) 0_u32);
            asm!("wrmsr", in("ecx") 0xc000_0100_u32, in("eax") 0, in("edx") 0);
            for (number, value) in MSRS.into_iter().zip(self.msrs) {
                asm!("wrmsr", in("ecx") number, in("eax") value as u32, in("edx") (value >> 32) as u32);
            }
        }
    }
}

fn control() -> [u64; 9] {
    let mut values = [0; 9];
    macro_rules! read {
        ($($index:literal $register:literal)*) => {$(
            // SAFETY: only reads.
            unsafe { asm!(concat!("mov {}, ", $register), out(reg) values[$index], options(nostack, preserves_flags)) };
        )*};
    }
    read!(0 "cr0" 1 "cr3" 2 "cr4" 3 "cr8" 4 "dr0" 5 "dr1" 6 "dr2" 7 "dr3" 8 "dr7");
    values
}

fn selectors() -> [u16; 5] {
    let mut values = [0_u64; 5];
    // SAFETY: only reads.
    unsafe {
        asm!("mov {}, ds", "mov {}, es", "mov {}, fs", out(reg) values[0], out(reg) values[1], out(reg) values[2]);
        asm!("sldt {}", "str {}", out(reg) values[3], out(reg) values[4]);
    }
    values.map(|selector| selector as u16)
}

fn tables() -> [[u8; 10]; 2] {
    let mut tables = [[0; 10]; 2];
    // SAFETY: each writes ten bytes.
    unsafe { asm!("sgdt [{}]", "sidt [{}]", in(reg) &raw mut tables[0], in(reg) &raw mut tables[1]) };
    tables
}

fn sum(start: u64, len: usize) -> u64 {
    // SAFETY: pages of this test's own; nobody writes to them meanwhile but interrupts, below the stack pointer.
    let bytes = unsafe { core::slice::from_raw_parts(start as *const u8, len) };
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}
