//! From a signal's context to the engine's frame and back.

use dprobes::trap::{RFLAGS_IF, TrapFrame};
use libc::{
    REG_CSGSFS, REG_EFL, REG_ERR, REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RAX,
    REG_RBP, REG_RBX, REG_RCX, REG_RDI, REG_RDX, REG_RIP, REG_RSI, REG_RSP, ucontext_t,
};

/// What becomes of flags on the way through a signal frame: the kernel's `FIX_EFLAGS` are restored from it, these are not, but
/// user mode can change them (SDM volume 1, 3.4.3: NT and ID).
pub(crate) const NOT_RESTORED: u64 = 1 << 14 | 1 << 21;

/// Pairs every field of a frame with its register in the context.
macro_rules! registers {
    ($with:ident) => {
        $with!(
            r15 REG_R15, r14 REG_R14, r13 REG_R13, r12 REG_R12, rbp REG_RBP, rbx REG_RBX, r11 REG_R11, r10 REG_R10,
            r9 REG_R9, r8 REG_R8, rax REG_RAX, rcx REG_RCX, rdx REG_RDX, rsi REG_RSI, rdi REG_RDI, rip REG_RIP,
            rflags REG_EFL, rsp REG_RSP
        )
    };
}

/// A register of the context.
pub(crate) fn get(context: &ucontext_t, register: libc::c_int) -> u64 {
    context.uc_mcontext.gregs[register as usize] as u64
}

/// The interrupted code's registers.
///
/// User mode always has IF set; here it means that signals are not blocked for a single step.
pub(crate) fn load(context: &ucontext_t, stepping: bool) -> TrapFrame {
    // The selectors share a register: cs, gs, fs, ss from the low end (struct sigcontext).
    let selectors = get(context, REG_CSGSFS);
    let mut frame = TrapFrame {
        error_code: get(context, REG_ERR),
        cs: selectors & 0xffff,
        ss: selectors >> 48,
        ..TrapFrame::default()
    };
    macro_rules! read {
        ($($field:ident $register:ident),*) => { $(frame.$field = get(context, $register);)* };
    }
    registers!(read);
    if stepping {
        frame.rflags &= !RFLAGS_IF;
    }
    frame
}

/// Has the interrupted code continue as the frame says.
pub(crate) fn store(frame: &TrapFrame, context: &mut ucontext_t) {
    macro_rules! write {
        ($($field:ident $register:ident),*) => {
            $(context.uc_mcontext.gregs[$register as usize] = frame.$field as i64;)*
        };
    }
    registers!(write);
    context.uc_mcontext.gregs[REG_EFL as usize] |= RFLAGS_IF as i64;
}

/// The signal mask that the interrupted code has: the kernel's, 64 signals, of which signal 1 is bit 0.
pub(crate) fn mask(context: &ucontext_t) -> u64 {
    // SAFETY: `sigset_t` begins with an array of words, the first of which is all that the kernel has.
    unsafe { (&raw const context.uc_sigmask).cast::<u64>().read() }
}

/// Gives the interrupted code another signal mask.
pub(crate) fn set_mask(context: &mut ucontext_t, mask: u64) {
    // SAFETY: as for `mask`. What follows the first word in the kernel's own frame is not part of the mask, and is not
    // written.
    unsafe { (&raw mut context.uc_sigmask).cast::<u64>().write(mask) };
}

/// The bit of a signal in a mask.
pub(crate) const fn bit(signal: libc::c_int) -> u64 {
    1 << (signal - 1)
}

/// A mask in the form the C library takes.
pub(crate) fn sigset(mask: u64) -> libc::sigset_t {
    // SAFETY: all zeros is an empty set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: as for `mask`.
    unsafe { (&raw mut set).cast::<u64>().write(mask) };
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> ucontext_t {
        // SAFETY: a structure of integers and pointers, for which zeros are valid.
        let mut context: ucontext_t = unsafe { std::mem::zeroed() };
        for (number, register) in context.uc_mcontext.gregs.iter_mut().enumerate() {
            *register = 0x1111_1111_1111 * (number as i64 + 1);
        }
        context.uc_mcontext.gregs[REG_EFL as usize] = 0x202;
        context
    }

    #[test]
    fn every_register_comes_back() {
        let before = context();
        let mut after = before;
        let frame = load(&before, false);
        after.uc_mcontext.gregs = [0; 23];
        store(&frame, &mut after);
        for register in REG_R8..=REG_EFL {
            assert_eq!(get(&before, register), get(&after, register), "register {register}");
        }
    }

    #[test]
    fn selectors_are_split() {
        let mut context = context();
        context.uc_mcontext.gregs[REG_CSGSFS as usize] = 0x002b_0000_0000_0033;
        let frame = load(&context, false);
        assert_eq!((frame.cs, frame.ss), (0x33, 0x2b));
        assert!(frame.is_user());
    }

    #[test]
    fn interrupts_are_off_during_a_step_only() {
        let mut context = context();
        assert_ne!(load(&context, false).rflags & RFLAGS_IF, 0);
        let frame = load(&context, true);
        assert_eq!(frame.rflags & RFLAGS_IF, 0);
        store(&frame, &mut context);
        assert_ne!(get(&context, REG_EFL) & RFLAGS_IF, 0);
    }

    #[test]
    fn masks_are_the_c_librarys() {
        let set = sigset(bit(libc::SIGUSR1) | bit(libc::SIGTRAP));
        for signal in 1..=64 {
            let expected = [libc::SIGUSR1, libc::SIGTRAP].contains(&signal);
            // SAFETY: the set is initialised.
            assert_eq!(
                unsafe { libc::sigismember(&raw const set, signal) } == 1,
                expected,
                "signal {signal}"
            );
        }
    }
}
