//! Running a block with all registers of our choice, and seeing all of them afterwards.

use std::cell::UnsafeCell;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use libc::{c_int, c_void, siginfo_t, ucontext_t};

use crate::state::{Start, State};

/// How a block ended.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The signal that an instruction raised; `None` at the block's end.
    pub signal: Option<Signal>,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    pub number: c_int,
    pub code: c_int,
    pub address: u64,
    pub rip: u64,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.signal {
            None => write!(f, "completed; ")?,
            Some(signal) => write!(
                f,
                "signal {} code {} address {:x} rip {:x}; ",
                signal.number, signal.code, signal.address, signal.rip
            )?,
        }
        write!(f, "{:?}", self.state)
    }
}

/// What the handler has seen, and what it is to do.
struct Seen(UnsafeCell<Handler>);

struct Handler {
    signal: Option<Signal>,
    state: State,
    /// Where instructions began, while a block is traced.
    trace: Option<Vec<(u64, [u64; 16])>>,
}

// SAFETY: one thread runs blocks, and its own signal handler is the only other party, while it waits for the block.
unsafe impl Sync for Seen {}

static SEEN: Seen = Seen(UnsafeCell::new(Handler {
    signal: None,
    // SAFETY: a structure of integers.
    state: unsafe { mem::zeroed() },
    trace: None,
}));

/// The thread on which a block is running, or 0, and how many there have been.
static RUNNING: AtomicI32 = AtomicI32::new(0);
static RUNS: AtomicU64 = AtomicU64::new(0);

/// How long a block may run, in seconds, before it is taken for endless: at most twice this.
const LIMIT: i64 = 1;

/// The longest trace of a block.
const LONGEST_TRACE: usize = 2000;

std::arch::global_asm!(
    ".local differential_place",
    ".comm differential_place, 64, 64",
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
    "xor eax, eax; mov ds, eax; mov es, eax; mov gs, eax",
    "cmp qword ptr [rdi + 152], 0; je 1f; wrgsbase rax; 1:",
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
    "mov rsp, [rip + saved_rsp]; pushfq; pop [rdi + 128]",
    "mov eax, 0xe7; xor edx, edx; xsave64 [rdi + 256]",
    // Where the signal handler sends it when it has seen enough.
    "differential_abandon:",
    "mov rdi, [rip + state]; mov rsp, [rip + saved_rsp]",
    "mov word ptr [rdi + 136], ds; mov word ptr [rdi + 138], es; mov word ptr [rdi + 140], gs; mov word ptr [rdi + 142], ss",
    "cmp qword ptr [rdi + 152], 0; je 1f; rdgsbase rax; mov [rdi + 144], rax; 1:",
    "fninit; ldmxcsr [rip + default_mxcsr]; vzeroupper; popfq",
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
pub fn run(start: &Start, code: u64) -> Outcome {
    let mut state = start.state();
    // SAFETY: no block is running, so that nobody else looks.
    unsafe { (*SEEN.0.get()).signal = None };
    RUNS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the call has no preconditions.
    RUNNING.store(unsafe { libc::gettid() }, Ordering::SeqCst);
    // SAFETY: blocks write to their arena only, and end at `differential_leave` or with a signal.
    unsafe { differential_enter(&raw mut state, code) };
    RUNNING.store(0, Ordering::SeqCst);
    // SAFETY: as above.
    let seen = unsafe { &*SEEN.0.get() };
    if seen.signal.is_some() {
        let (segments, gs_base) = (state.segments, state.gs_base);
        state = seen.state.clone();
        (state.segments, state.gs_base) = (segments, gs_base);
    }
    state.clean();
    Outcome {
        signal: seen.signal,
        state,
    }
}

/// Runs the block at `code` with TF set, and says where its instructions began, with the registers there.
pub fn trace(start: &Start, code: u64) -> Vec<(u64, [u64; 16])> {
    let mut start = start.clone();
    start.flags |= 1 << 8;
    // SAFETY: no block is running, so that nobody else looks.
    unsafe { (*SEEN.0.get()).trace = Some(Vec::with_capacity(LONGEST_TRACE)) };
    run(&start, code);
    // SAFETY: as above.
    unsafe { (*SEEN.0.get()).trace.take() }.unwrap_or_default()
}

/// Ends a block that runs too long, as if it had raised this signal.
unsafe extern "C" fn on_alarm(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    static SEEN_RUNS: AtomicU64 = AtomicU64::new(0);
    let running = RUNNING.load(Ordering::SeqCst);
    // SAFETY: AC is the block's, and comes back with its context. The calls may be made in a signal handler; a thread that has ended
    // cannot be sent a signal, which does no harm.
    unsafe {
        std::arch::asm!("pushfq", "and dword ptr [rsp], {}", "popfq", const !(1 << 18));
        if running != 0 && running != libc::gettid() {
            libc::syscall(libc::SYS_tgkill, libc::getpid(), running, number);
        }
        if running != libc::gettid() {
            return;
        }
    }
    let runs = RUNS.load(Ordering::Relaxed);
    if SEEN_RUNS.swap(runs, Ordering::Relaxed) == runs {
        // SAFETY: the kernel's.
        unsafe { on_signal(number, info, context) };
    }
}

unsafe extern "C" fn on_signal(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    use libc::{REG_CSGSFS, REG_EFL, REG_R8, REG_RIP};
    use libc::{REG_RAX, REG_RBP, REG_RBX, REG_RCX, REG_RDI, REG_RDX, REG_RSI, REG_RSP};
    // SAFETY: the kernel's, or what the host passes on.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<ucontext_t>()) };
    let machine = &mut context.uc_mcontext;
    // SAFETY: the interrupted block is all that runs.
    let seen = unsafe { &mut *SEEN.0.get() };
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
    let rip = machine.gregs[REG_RIP as usize] as u64;
    if let Some(trace) = &mut seen.trace
        && number == libc::SIGTRAP
        && info.si_code == libc::TRAP_TRACE
        && trace.len() < LONGEST_TRACE
    {
        trace.push((rip, registers));
        // Once it is through, the step goes on into the code that leaves.
        if rip != leave() {
            return;
        }
    }
    seen.state.registers = registers;
    seen.state.flags = machine.gregs[REG_EFL as usize] as u64;
    let extended = &mut seen.state.extended;
    // SAFETY: the kernel puts 512 bytes of FXSAVE format there, and says in the bytes from 464 on whether more follow, and how many
    // (struct _fpx_sw_bytes in arch/x86/include/uapi/asm/sigcontext.h).
    unsafe {
        const MAGIC: u32 = 0x4650_5853;
        let from = machine.fpregs.cast::<u8>();
        let word = |at: usize| from.add(at).cast::<u32>().read_unaligned();
        let len = if word(464) == MAGIC { word(480) as usize } else { 512 };
        extended
            .as_mut_ptr()
            .copy_from_nonoverlapping(from, len.min(extended.len()));
    }
    seen.signal = Some(Signal {
        number,
        code: info.si_code,
        // SAFETY: signals that instructions raise have an address.
        address: unsafe { info.si_addr() } as u64,
        rip,
    });
    machine.gregs[REG_RIP as usize] = differential_abandon as *const () as i64;
    machine.gregs[REG_EFL as usize] &= !0x4_4500; // AC NT DF TF
    // A block may have loaded CS, and SS.
    let selectors = machine.gregs[REG_CSGSFS as usize] as u64 & 0x0000_ffff_ffff_0000;
    machine.gregs[REG_CSGSFS as usize] = (selectors | 0x33 | 0x2b << 48) as i64;
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
        let handlers = signals.map(install).to_vec();
        let second = libc::timeval {
            tv_sec: LIMIT,
            tv_usec: 0,
        };
        let timer = libc::itimerval {
            it_interval: second,
            it_value: second,
        };
        // SAFETY: zeros are a valid action; the handler is made for this, and ends nothing but the block of the thread it
        // runs on.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = on_alarm as unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            assert_eq!(libc::sigaction(libc::SIGALRM, &raw const action, ptr::null_mut()), 0);
            assert_eq!(libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()), 0);
        }
        Handlers(handlers)
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        // SAFETY: a timer of zeros is none; the handler stays, for a signal that is on its way.
        unsafe {
            let none: libc::itimerval = mem::zeroed();
            libc::setitimer(libc::ITIMER_REAL, &raw const none, ptr::null_mut());
        }
        for (signal, old) in &self.0 {
            // SAFETY: what was there before.
            unsafe { libc::sigaction(*signal, old, ptr::null_mut()) };
        }
    }
}
