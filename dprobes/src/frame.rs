//! The registers of interrupted code, as a trap leaves them on the stack.

/// The registers of interrupted code, in the order of Linux's `struct pt_regs` (arch/x86/include/asm/ptrace.h).
///
/// One layout for all hosts: the Linux module passes its `pt_regs` as it is, the entry stubs of
/// [`trap::entry`](crate::trap::entry) build it, the in-process host fills one from the signal context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields are the registers of the same name")]
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
    /// The error code the CPU pushed, or the vector or system call number: whatever the host keeps here.
    pub error_code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// RFLAGS.TF: single-step (SDM volume 1, 3.4.3).
pub const RFLAGS_TF: u64 = 1 << 8;
/// RFLAGS.IF: interrupts enabled.
pub const RFLAGS_IF: u64 = 1 << 9;
/// RFLAGS.RF: resume.
pub const RFLAGS_RF: u64 = 1 << 16;

impl TrapFrame {
    /// Was ring 3 interrupted?
    #[must_use]
    pub const fn is_user(&self) -> bool {
        self.cs & 3 == 3
    }
}

const _: () = assert!(size_of::<TrapFrame>() == 21 * 8);
