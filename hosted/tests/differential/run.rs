//! Running a block with all registers of our choice, and seeing all of them afterwards.

use std::cell::UnsafeCell;
use std::mem;
use std::ptr;

use libc::{c_int, c_void, siginfo_t, ucontext_t};

use crate::arena::Arena;
use crate::random::Random;

/// What a block starts with, and ends with.
#[derive(Clone, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct State {
    /// In the order of their numbers in instructions.
    pub registers: [u64; 16],
    pub flags: u64,
    unused: [u64; 15],
    /// As FXSAVE leaves it: x87, MXCSR, the low halves of the vector registers.
    pub vectors: [u8; 512],
    /// For XRSTOR: which parts of the state the image has. All others get their initial values.
    header: [u64; 8],
    /// XRSTOR may read all of its area.
    rest: [u8; 3264],
}

const _: () = assert!(mem::offset_of!(State, flags) == 128 && mem::offset_of!(State, vectors) == 256);

/// XSTATE_BV: x87 and SSE (SDM volume 1, 13.4.2).
const HEADER: [u64; 8] = [3, 0, 0, 0, 0, 0, 0, 0];

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const NAMES: [&str; 16] = [
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
            "r15",
        ];
        for (name, value) in NAMES.iter().zip(self.registers).chain([(&"flags", self.flags)]) {
            write!(f, "{name} {value:x} ")?;
        }
        writeln!(f, "vectors {:x?}", &self.vectors[..416])
    }
}

impl State {
    pub fn random(random: &mut Random, arena: &Arena) -> Self {
        let mut registers = [0; 16].map(|_: u64| match random.below(4) {
            0 => random.below(64),
            1 => random.next() as u32 as u64,
            _ => random.next(),
        });
        if random.one_in(2) {
            registers[1] = random.below(40) | if random.one_in(3) { random.next() << 32 } else { 0 };
        }
        registers[4] = arena.stack() + random.below(16) * 8;
        for pointer in [3, 5, 6, 7, 12, 15] {
            registers[pointer] = arena.data() + random.below(256);
        }
        let mut vectors = [0; 512];
        vectors[..2].copy_from_slice(&0x37f_u16.to_le_bytes()); // FCW
        vectors[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes()); // MXCSR
        vectors[160..416].fill_with(|| random.byte());
        // CF PF AF ZF SF DF OF
        let flags = 0x202 | random.next() & 0xcd5;
        let flags = if random.one_in(4) { flags } else { flags & !0x400 };
        State {
            registers,
            flags,
            unused: [0; 15],
            vectors,
            header: HEADER,
            rest: [0; 3264],
        }
    }
}

/// How a block ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// At its end.
    End(Box<State>),
    /// An instruction raised a signal.
    Signal(Box<Signal>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    pub number: c_int,
    code: c_int,
    address: u64,
    rip: u64,
    state: State,
}

/// What the handler has seen.
struct Seen(UnsafeCell<Option<Signal>>);

// SAFETY: one thread runs blocks, and its own signal handler is the only other party, while it waits for the block.
unsafe impl Sync for Seen {}

static SEEN: Seen = Seen(UnsafeCell::new(None));

std::arch::global_asm!(
    ".local differential_place",
    ".comm differential_place, 64, 16",
    ".set saved_rsp, differential_place",
    ".set state, differential_place + 8",
    ".set code, differential_place + 16",
    ".set rdi_at_end, differential_place + 24",
    ".section .rodata",
    ".p2align 2",
    "default_mxcsr: .long 0x1f80",
    ".text",
    // extern "sysv64" fn(*mut State, code: u64)
    "differential_enter:",
    "push rbx; push rbp; push r12; push r13; push r14; push r15; pushfq",
    "mov [rip + saved_rsp], rsp; mov [rip + state], rdi; mov [rip + code], rsi",
    // Everything but protection keys.
    "mov eax, 0xe7; xor edx, edx; xrstor64 [rdi + 256]",
    "push qword ptr [rdi + 128]; popfq",
    "mov rax, [rdi]; mov rcx, [rdi + 8]; mov rdx, [rdi + 16]; mov rbx, [rdi + 24]; mov rsp, [rdi + 32]; mov rbp, [rdi + 40]",
    "mov rsi, [rdi + 48]; mov r8, [rdi + 64]; mov r9, [rdi + 72]; mov r10, [rdi + 80]; mov r11, [rdi + 88]",
    "mov r12, [rdi + 96]; mov r13, [rdi + 104]; mov r14, [rdi + 112]; mov r15, [rdi + 120]; mov rdi, [rdi + 56]",
    "jmp [rip + code]",
    // Where a block goes from its end.
    "differential_leave:",
    "mov [rip + rdi_at_end], rdi; mov rdi, [rip + state]",
    "mov [rdi], rax; mov [rdi + 8], rcx; mov [rdi + 16], rdx; mov [rdi + 24], rbx; mov [rdi + 32], rsp; mov [rdi + 40], rbp",
    "mov [rdi + 48], rsi; mov [rdi + 64], r8; mov [rdi + 72], r9; mov [rdi + 80], r10; mov [rdi + 88], r11",
    "mov [rdi + 96], r12; mov [rdi + 104], r13; mov [rdi + 112], r14; mov [rdi + 120], r15",
    "mov rax, [rip + rdi_at_end]; mov [rdi + 56], rax",
    "mov rsp, [rip + saved_rsp]; pushfq; pop [rdi + 128]; fxsave64 [rdi + 256]",
    // Where the signal handler sends it when it has seen enough.
    "differential_abandon:",
    "mov rsp, [rip + saved_rsp]; fninit; ldmxcsr [rip + default_mxcsr]; popfq",
    "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
    "ret",
    ".globl differential_enter, differential_leave, differential_abandon",
);

unsafe extern "sysv64" {
    fn differential_enter(state: *mut State, code: u64);
    fn differential_leave();
    fn differential_abandon();
}

/// Where a block has to go at its end.
pub fn leave() -> u64 {
    differential_leave as *const () as u64
}

/// Runs the block at `code`.
pub fn run(state: &State, code: u64) -> Outcome {
    let mut state = Box::new(state.clone());
    // SAFETY: no block is running, so that nobody else looks.
    unsafe { *SEEN.0.get() = None };
    // SAFETY: blocks write to their arena only, and end at `differential_leave` or with a signal.
    unsafe { differential_enter(&raw mut *state, code) };
    clean(&mut state);
    // SAFETY: as above.
    match unsafe { (*SEEN.0.get()).take() } {
        Some(mut signal) => {
            clean(&mut signal.state);
            Outcome::Signal(Box::new(signal))
        }
        None => Outcome::End(state),
    }
}

/// Takes out what is not defined, or tells where the copy of an instruction was: the addresses of the last x87 instruction and its
/// operand, the last opcode, and the bytes that are for software.
fn clean(state: &mut State) {
    state.vectors[6..24].fill(0);
    state.vectors[28..32].fill(0);
    state.vectors[416..].fill(0);
    // RF is the CPU's mark on a fault, and user mode has IF.
    state.flags &= !(1 << 16);
}

unsafe extern "C" fn on_signal(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    use libc::{REG_EFL, REG_R8, REG_RAX, REG_RBP, REG_RBX, REG_RCX, REG_RDI, REG_RDX, REG_RIP, REG_RSI, REG_RSP};
    // SAFETY: the kernel's, or what the host passes on.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<ucontext_t>()) };
    let machine = &mut context.uc_mcontext;
    let mut registers = [0; 16];
    for (to, from) in registers
        .iter_mut()
        .zip([REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI])
    {
        *to = machine.gregs[from as usize] as u64;
    }
    for (to, from) in registers[8..].iter_mut().zip(REG_R8..) {
        *to = machine.gregs[from as usize] as u64;
    }
    // SAFETY: the kernel puts at least 512 bytes of FXSAVE format there.
    let vectors = unsafe { machine.fpregs.cast::<[u8; 512]>().read() };
    let flags = machine.gregs[REG_EFL as usize] as u64;
    let state = State {
        registers,
        flags,
        unused: [0; 15],
        vectors,
        header: HEADER,
        rest: [0; 3264],
    };
    let rip = machine.gregs[REG_RIP as usize] as u64;
    // SAFETY: signals that instructions raise have an address.
    let address = unsafe { info.si_addr() } as u64;
    // SAFETY: the interrupted block is all that runs.
    unsafe {
        *SEEN.0.get() = Some(Signal {
            number,
            code: info.si_code,
            address,
            rip,
            state,
        })
    };
    machine.gregs[REG_RIP as usize] = differential_abandon as *const () as i64;
    machine.gregs[REG_EFL as usize] &= !0x4_0500; // AC DF TF
}

/// The handlers of the process itself. Dropping this puts back what was before.
pub struct Handlers(Vec<(c_int, libc::sigaction)>);

impl Handlers {
    pub fn install() -> Self {
        let signals = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP];
        let install = |signal| {
            // SAFETY: zeros are a valid action, and the handler is made for this.
            unsafe {
                let mut action: libc::sigaction = mem::zeroed();
                let mut old: libc::sigaction = mem::zeroed();
                action.sa_sigaction = on_signal as unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                assert_eq!(libc::sigaction(signal, &raw const action, &raw mut old), 0);
                (signal, old)
            }
        };
        Handlers(signals.map(install).to_vec())
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        for (signal, old) in &self.0 {
            // SAFETY: what was there before.
            unsafe { libc::sigaction(*signal, old, ptr::null_mut()) };
        }
    }
}
