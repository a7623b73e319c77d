//! Why an instruction cannot be probed.

use core::fmt;

/// Why an instruction cannot be probed.
///
/// No correct resumption exists, or none that is worth its risk. The numbers are stable, because they cross the boundary to
/// user space; one that is missing was a refusal once and is none any more. `docs/instructions.md` has the list for users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Refusal {
    /// `int3`: it is somebody's breakpoint, or padding that never runs.
    Breakpoint = 1,
    /// `int n`, `int1`: their handler finds the return address where the CPU has pushed it, and from ring 3 on another stack.
    SoftwareInterrupt = 2,
    /// `syscall`, `sysenter`: the kernel is entered with the return address in a register that the engine does not get to
    /// see before the kernel's entry code has used it.
    SystemCall = 5,
    /// `sysret`, `sysexit`: the stack and GS are user space's there, a breakpoint must not be taken.
    SystemReturn = 6,
    /// `ud0`, `ud1`: they only raise #UD, and kernels put a meaning into their operands, which the handler decodes.
    Undefined = 10,
    /// `enclu`: it enters and leaves an enclave with the address of the next instruction in a register, and an enclave does
    /// not show whether it has come back.
    Enclave = 12,
    /// `rsm`, `skinit`, `getsec`, `vmfunc`: they change how or from where the next instruction is fetched.
    ExecutionMode = 13,
    /// A near branch or `xbegin` with a 66 and no REX.W prefix: Intel ignores the prefix, AMD truncates RIP to 16 bits and
    /// shortens the displacement, so that even its length depends on the vendor. Compilers do not emit it.
    VendorDependent = 14,
    /// A single step is not exact: it would show in the flags that the instruction reads, would undo those it writes, or
    /// would wait with interrupts off. Only [`Insn::step`](super::Insn::step) says this; [`Insn::resume`](super::Insn::resume) has a
    /// better way.
    SingleStep = 15,
    /// `sti` or `mov ss` in front of an instruction that cannot be carried out in their shadow: one of the others here, one
    /// that casts a shadow itself, or one that is not known.
    InterruptShadow = 16,
}

impl Refusal {
    /// All of them, in the order of their numbers.
    pub const ALL: [Refusal; 10] = [
        Refusal::Breakpoint,
        Refusal::SoftwareInterrupt,
        Refusal::SystemCall,
        Refusal::SystemReturn,
        Refusal::Undefined,
        Refusal::Enclave,
        Refusal::ExecutionMode,
        Refusal::VendorDependent,
        Refusal::SingleStep,
        Refusal::InterruptShadow,
    ];

    /// From the number that crosses the boundary to user space.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Refusal> {
        Refusal::ALL.into_iter().find(|refusal| *refusal as u32 == code)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Breakpoint => "int3: it is another breakpoint, or padding that never runs",
            Refusal::SoftwareInterrupt => {
                "the handler of a software interrupt must find the original return address; probe the instruction before \
                 or the handler"
            }
            Refusal::SystemCall => {
                "a system call instruction leaves its address to the kernel's entry; probe the instruction before"
            }
            Refusal::SystemReturn => {
                "returns from system calls run with user space's stack, where no breakpoint may be taken"
            }
            Refusal::Undefined => "ud0 and ud1 only raise an exception; probe the instruction before",
            Refusal::Enclave => "enclu enters an enclave with its own address; probe the instruction before",
            Refusal::ExecutionMode => "it changes how the next instruction is fetched; probe the instruction before",
            Refusal::VendorDependent => "a branch with a 66 prefix: its length depends on the processor's vendor",
            Refusal::SingleStep => "a single step of it would not be exact",
            Refusal::InterruptShadow => {
                "it shields the next instruction from interrupts, and that one cannot be carried out with it; probe the \
                 instruction before"
            }
        })
    }
}

impl core::error::Error for Refusal {}
