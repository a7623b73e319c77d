//! The trap handlers: from a signal to the engine and back, or on to whoever had the signal before.

use std::arch::naked_asm;
use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use dprobes::probe::Engine;
use dprobes::trap::{RFLAGS_IF, Verdict};
use libc::{SIG_DFL, SIG_IGN, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP, c_int, c_void, siginfo_t, ucontext_t};

use crate::context;
use crate::process::Process;
use crate::quiesce;
use errno::Saved;

/// The engine that traps go to.
pub(crate) static ENGINE: AtomicPtr<Engine<Process>> = AtomicPtr::new(ptr::null_mut());

/// The signals by which traps and faults arrive.
pub(crate) const TRAPS: [c_int; 5] = [SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL];

/// What instructions raise: the kernel ends the process when one of these is blocked then. Everything else is blocked while a
/// trap is handled, as interrupts are in a kernel.
const SYNCHRONOUS: u64 = context::bit(SIGTRAP)
    | context::bit(SIGSEGV)
    | context::bit(SIGBUS)
    | context::bit(SIGFPE)
    | context::bit(SIGILL)
    | context::bit(SIGSYS);

/// DR6.BS, which the kernel shows as `TRAP_TRACE`.
const DR6_BS: u64 = 1 << 14;

/// Who had the signals before, in the order of [`TRAPS`].
static PREVIOUS: [Previous; TRAPS.len()] = [const { Previous::new() }; TRAPS.len()];

/// What was installed for a signal, readable in a handler.
struct Previous {
    handler: AtomicUsize,
    flags: AtomicI32,
    mask: AtomicU64,
}

impl Previous {
    const fn new() -> Self {
        Previous {
            handler: AtomicUsize::new(SIG_DFL),
            flags: AtomicI32::new(0),
            mask: AtomicU64::new(0),
        }
    }

    fn of(signal: c_int) -> &'static Self {
        let index = TRAPS.iter().position(|trap| *trap == signal).unwrap_or(0);
        PREVIOUS.get(index).unwrap_or(&PREVIOUS[0])
    }

    fn set(&self, action: &libc::sigaction) {
        // SAFETY: `sigset_t` begins with the word that is all that the kernel has.
        let mask = unsafe { (&raw const action.sa_mask).cast::<u64>().read() };
        self.mask.store(mask, Ordering::Relaxed);
        self.flags.store(action.sa_flags, Ordering::Relaxed);
        self.handler.store(action.sa_sigaction, Ordering::Release);
    }

    fn action(&self) -> libc::sigaction {
        // SAFETY: zeros are a valid action: the default one.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = self.handler.load(Ordering::Acquire);
        action.sa_flags = self.flags.load(Ordering::Relaxed);
        action.sa_mask = context::sigset(self.mask.load(Ordering::Relaxed));
        action
    }
}

/// Takes over the signals, and the one for handshakes. What had them before gets what is not the engine's.
pub(crate) fn take_over(handshake: c_int, on_alternate_stack: bool) -> io::Result<()> {
    let stack = if on_alternate_stack { libc::SA_ONSTACK } else { 0 };
    // SAFETY: zeros are a valid action: the default one.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | stack;
    action.sa_sigaction = quiesce::answer as unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
    action.sa_mask = context::sigset(u64::MAX);
    // SAFETY: the handler is for SA_SIGINFO and safe in any signal context.
    unsafe { sigaction(handshake, Some(&action)) }?;
    for (done, signal) in TRAPS.iter().copied().enumerate() {
        // SAFETY: only asks.
        let previous = unsafe { sigaction(signal, None) }?;
        // After a handler that has been put on top has gone again, this one may be there still.
        if !is_ours(&previous) {
            Previous::of(signal).set(&previous);
        }
        // A handler of faults may be there because there is no stack: then it must stay on the other one.
        let stack = if signal == SIGTRAP {
            stack
        } else {
            stack | previous.sa_flags & libc::SA_ONSTACK
        };
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | stack | previous.sa_flags & libc::SA_RESTART;
        action.sa_sigaction = trampoline as unsafe extern "C" fn() as usize;
        action.sa_mask = context::sigset(!SYNCHRONOUS);
        // SAFETY: the handler is for SA_SIGINFO and safe in any signal context.
        if let Err(error) = unsafe { sigaction(signal, Some(&action)) } {
            give_back_first(done);
            return Err(error);
        }
    }
    Ok(())
}

/// Gives the signals back to who had them, unless somebody else has taken them since: whose handler may go on to this one, which
/// then goes on to the previous.
pub(crate) fn give_back() {
    give_back_first(TRAPS.len());
}

fn give_back_first(count: usize) {
    for signal in TRAPS.iter().copied().take(count) {
        // SAFETY: only asks.
        let current = unsafe { sigaction(signal, None) };
        if current.is_ok_and(|action| is_ours(&action)) {
            // SAFETY: what was there before was as good then as it is now.
            let _ = unsafe { sigaction(signal, Some(&Previous::of(signal).action())) };
        }
    }
}

fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == trampoline as unsafe extern "C" fn() as usize
}

/// Stops answering handshakes.
pub(crate) fn end_handshakes(handshake: c_int) {
    // Ignored rather than default: a signal that nobody waits for any more must not end the process.
    // SAFETY: zeros are a valid action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = SIG_IGN;
    // SAFETY: ignoring a signal runs nothing.
    let _ = unsafe { sigaction(handshake, Some(&action)) };
    action.sa_sigaction = SIG_DFL;
    // SAFETY: as above. Ignoring has discarded what was pending.
    let _ = unsafe { sigaction(handshake, Some(&action)) };
}

/// A real-time signal that nobody uses.
pub(crate) fn free_real_time_signal() -> Option<c_int> {
    // SAFETY: only asks.
    (libc::SIGRTMIN()..=libc::SIGRTMAX())
        .find(|signal| unsafe { sigaction(*signal, None) }.is_ok_and(|action| action.sa_sigaction == SIG_DFL))
}

/// Sets an action, if there is one, and gives what was there.
///
/// # Safety
/// The handler must be fit for what the flags say, and for being called in any context.
unsafe fn sigaction(signal: c_int, action: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    // SAFETY: zeros are a valid action.
    let mut old: libc::sigaction = unsafe { mem::zeroed() };
    let new = action.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: both pointers are good or null; the caller answers for the handler.
    match unsafe { libc::sigaction(signal, new, &raw mut old) } {
        0 => Ok(old),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The handler of all traps. NT and ID are not in what the kernel restores from the signal frame: it keeps those that are set
/// when the handler returns.
#[unsafe(naked)]
unsafe extern "C" fn trampoline() {
    naked_asm!(
        // With AC the handler's own unaligned accesses would fault. It is restored from the signal frame.
        "pushfq",
        "and dword ptr [rsp], {quiet}",
        "popfq",
        "sub rsp, 8",
        "call {handle}",
        "and eax, {flags}",
        "pushfq",
        "and dword ptr [rsp], {others}",
        "or [rsp], rax",
        "popfq",
        // Changes no register and no flag that counts.
        "lea rsp, [rsp + 8]",
        "ret",
        handle = sym handle,
        quiet = const !(1_i32 << 18),
        flags = const context::NOT_RESTORED,
        others = const !(context::NOT_RESTORED as u32) as i32,
    )
}

/// Returns the flags that the interrupted code is to continue with.
unsafe extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut c_void) -> u64 {
    let saved = Saved::new();
    // SAFETY: the kernel passes both to a handler with SA_SIGINFO, and they are this handler's alone until it returns.
    let (info, context) = unsafe { (&mut *info, &mut *context.cast::<ucontext_t>()) };
    let handled = is_from_cpu(info) && trap(signal, info, context);
    if !handled {
        pass_on(signal, info, context);
    }
    drop(saved);
    context::get(context, libc::REG_EFL)
}

/// Has an instruction raised this signal, and not somebody sent it?
fn is_from_cpu(info: &siginfo_t) -> bool {
    info.si_code > 0
}

/// Gives a trap to the engine; true when it was the engine's.
fn trap(signal: c_int, info: &mut siginfo_t, context: &mut ucontext_t) -> bool {
    // SAFETY: null, or an engine that lives until every thread has been seen outside this handler.
    let Some(engine) = (unsafe { ENGINE.load(Ordering::Acquire).as_ref() }) else {
        return false;
    };
    let trap = engine.host().cpus.enter();
    let mut frame = context::load(context, trap.stepping().is_some());
    let from = frame.rip;
    let verdict = match (signal, info.si_code) {
        // The kernel's code for #BP (arch/x86/kernel/traps.c, do_int3_user).
        (SIGTRAP, libc::SI_KERNEL) => engine.on_breakpoint(&mut frame),
        (SIGTRAP, code) => {
            // The kernel has kept what else was in DR6.
            let mut status = if code == libc::TRAP_TRACE { DR6_BS } else { 0 };
            engine.on_debug(&mut frame, &mut status)
        }
        _ => {
            engine.on_fault(&mut frame);
            Verdict::NotOurs
        }
    };
    // The frame's interrupt flag is the signal mask: off from the beginning of a single step to its end.
    match (frame.rflags & RFLAGS_IF != 0, trap.stepping()) {
        (false, None) => {
            let mask = context::mask(context);
            trap.set_stepping(Some(mask));
            context::set_mask(context, mask | !SYNCHRONOUS);
        }
        (true, Some(mask)) => {
            trap.set_stepping(None);
            context::set_mask(context, mask);
        }
        (false, Some(_)) | (true, None) => {}
    }
    context::store(&frame, context);
    if frame.rip != from {
        show_address(info, from, frame.rip);
    }
    verdict == Verdict::Handled
}

/// Where a signal's information names the instruction, it has to name the original one. It does for #UD, #DE, #MF, #XM and #DB
/// (arch/x86/kernel/traps.c); for SIGSEGV and SIGBUS it names data.
fn show_address(info: &mut siginfo_t, from: u64, to: u64) {
    // SAFETY: `si_addr` is valid for a signal that an instruction raised.
    if matches!(info.si_signo, SIGILL | SIGFPE | SIGTRAP) && unsafe { info.si_addr() } as u64 == from {
        /// `si_addr` follows three numbers, aligned (include/uapi/asm-generic/siginfo.h).
        const ADDRESS_AT: usize = 16;
        // SAFETY: inside the structure, aligned, and what the kernel has written there.
        unsafe { ptr::from_mut(info).byte_add(ADDRESS_AT).cast::<u64>().write(to) };
    }
}

/// Does with a signal what would have been done without this handler.
fn pass_on(signal: c_int, info: &mut siginfo_t, context: &mut ucontext_t) {
    let previous = Previous::of(signal);
    let (handler, flags) = (
        previous.handler.load(Ordering::Acquire),
        previous.flags.load(Ordering::Relaxed),
    );
    if handler == SIG_IGN && !is_from_cpu(info) {
        return;
    }
    if handler == SIG_DFL || handler == SIG_IGN {
        end_by(signal, info, context);
        return;
    }
    let own = if flags & libc::SA_NODEFER == 0 {
        context::bit(signal)
    } else {
        0
    };
    let mask = context::sigset(context::mask(context) | previous.mask.load(Ordering::Relaxed) | own);
    // SAFETY: the mask is initialised. The kernel sets the interrupted code's mask again when this handler returns.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, ptr::null_mut()) };
    if flags & libc::SA_RESETHAND != 0 {
        previous.handler.store(SIG_DFL, Ordering::Release);
    }
    // SAFETY: a handler that was installed for this signal. One without SA_SIGINFO takes the first argument and ignores what
    // is in the registers of the others.
    unsafe {
        let handler: unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = mem::transmute(handler);
        handler(signal, info, ptr::from_mut(context).cast());
    }
}

/// Lets a signal have its default effect, with the information it came with: it ends the process.
fn end_by(signal: c_int, info: &mut siginfo_t, context: &mut ucontext_t) {
    // SAFETY: zeros are a valid action: the default one.
    let action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: the default action runs nothing.
    let _ = unsafe { sigaction(signal, Some(&action)) };
    context::set_mask(context, context::mask(context) & !context::bit(signal));
    // SAFETY: a process may send itself any information; it takes the signal when this handler returns.
    unsafe {
        let (pid, tid) = (libc::getpid(), libc::gettid());
        let own = context::sigset(context::bit(signal));
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const own, ptr::null_mut());
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, tid, signal, ptr::from_mut(info));
    }
}

/// `errno` belongs to the interrupted code.
pub(crate) mod errno {
    /// The value to be restored when this is dropped.
    pub(crate) struct Saved(libc::c_int);

    impl Saved {
        pub(crate) fn new() -> Self {
            // SAFETY: the address is the calling thread's, and good as long as the thread lives.
            Saved(unsafe { *libc::__errno_location() })
        }
    }

    impl Drop for Saved {
        fn drop(&mut self) {
            // SAFETY: as above.
            unsafe { *libc::__errno_location() = self.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_replaced_where_it_is_the_instructions() {
        for (signal, replaced) in [
            (SIGILL, true),
            (SIGFPE, true),
            (SIGTRAP, true),
            (SIGSEGV, false),
            (SIGBUS, false),
        ] {
            // SAFETY: a structure of numbers.
            let mut info: siginfo_t = unsafe { mem::zeroed() };
            info.si_signo = signal;
            info.si_code = 1;
            // SAFETY: the place that the function under test writes to as well.
            unsafe { (&raw mut info).byte_add(16).cast::<u64>().write(0x1000) };
            show_address(&mut info, 0x1000, 0x2000);
            // SAFETY: the structure has an address.
            assert_eq!(
                unsafe { info.si_addr() } as u64,
                if replaced { 0x2000 } else { 0x1000 },
                "signal {signal}"
            );
            show_address(&mut info, 0x3000, 0x4000);
            // SAFETY: as above.
            assert_ne!(unsafe { info.si_addr() } as u64, 0x4000);
        }
    }
}
