//! How a CPU gets past an instruction whose first byte is a breakpoint.

use super::decode::Insn;
use super::emulate::Emulation;
use super::parts::{Encoding, Mandatory, Map, ModRm, Prefixes};
use core::fmt;

/// How to resume after a hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Run a [copy](Insn::relocate) in a slot, followed by a [jump](super::jump) back to the next instruction. It leaves
    /// RIP at the end of the copy unless it faults. All that tells it from the original is what the x87 unit keeps for
    /// `fnstenv`: the address of its last instruction.
    Copy,
    /// As `Copy`, but the next instruction has to be copied into the slot as well, before the jump back: it runs in the
    /// interrupt shadow of this one (`sti`), which a jump would use up. `sti; hlt` loses a wake-up otherwise.
    CopyWithNext,
    /// Apply the effect to the saved registers with [`Emulation::run`].
    Emulate(Emulation),
    /// Single-step a copy with TF and fix up the result. The copy cannot be left by a jump back, and cannot be
    /// emulated.
    Step(StepKind),
}

/// What is to be corrected after a copy was single-stepped.
///
/// `shift` below is the original address minus the slot's. An instruction that [repeats](Insn::repeats) raises #DB
/// after every iteration; it is done when RIP has left its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Add `shift` to RIP.
    Rebase,
    /// Add `shift` to RIP, and to the return address at the top of the stack.
    RebaseAndReturnAddress,
    /// RIP is right.
    Absolute,
    /// RIP is right. Add `shift` to the return address at the top of the stack.
    ReturnAddress,
}

/// Why an instruction cannot be probed.
///
/// *Principled* ones will stay: no correct resumption exists, or none that is worth its risk. *Not yet* ones could be
/// resumed with more work. Their numbers are stable: they cross the boundary to user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Refusal {
    /// `int3`. Principled: it is somebody's breakpoint, or padding that never runs.
    Breakpoint = 1,
    /// `int n`, `int1`. Not yet: the handler must see the original return address.
    SoftwareInterrupt = 2,
    /// Far `call`, `jmp` and `ret`. Not yet: they load CS.
    FarTransfer = 3,
    /// `iret`, `uiret`, `eretu`, `erets`. Not yet: they return from the context the breakpoint interrupted, and
    /// unblock NMIs.
    InterruptReturn = 4,
    /// `syscall`, `sysenter`. Not yet: the return address is in a register, or nowhere.
    SystemCall = 5,
    /// `sysret`, `sysexit`. Principled: the stack and GS are user space's there, a breakpoint must not be taken.
    SystemReturn = 6,
    /// `hlt`, `mwait`, `mwaitx`. Not yet: the interrupt it waits for may be taken between the breakpoint and the
    /// wait, when an `sti` came before.
    Wait = 7,
    /// `mov ss`. Not yet: it holds off interrupts and debug exceptions for one instruction.
    StackSegment = 8,
    /// `xbegin`. Not yet: its fallback address is relative, and a breakpoint on a transaction's path aborts it.
    Transaction = 9,
    /// `ud0`, `ud1`, `ud2`. Principled: it only raises #UD, whose handler looks the address up (BUG, WARN).
    Undefined = 10,
    /// `vmlaunch`, `vmresume`, `vmrun`, `seamcall`, `seamret`. Not yet: a guest runs while the slot is in use, for an
    /// unlimited time.
    Guest = 11,
    /// `enclu`. Not yet: it enters and leaves an enclave with the address of the next instruction in a register.
    Enclave = 12,
    /// `rsm`, `skinit`, `getsec`, `vmfunc`. Principled: they change how or from where the next instruction is fetched.
    ExecutionMode = 13,
    /// A near branch with a 66 and no REX.W prefix. Principled: Intel ignores the prefix, AMD truncates RIP to 16
    /// bits and shortens the displacement, so that even its length depends on the vendor. Compilers do not emit it.
    VendorDependent = 14,
    /// A single step would show in the flags the instruction reads, or would undo the ones it writes (`pushf`,
    /// `popf`, `cli`, `sti`). Only [`Insn::step`] says this. Principled: [`Insn::resume`] has a better way.
    SteppedFlags = 15,
    /// `sti`. Not yet: the next instruction runs in its interrupt shadow, and has to be copied into the slot with it.
    InterruptShadow = 16,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Breakpoint => "int3: it is another breakpoint, or padding that never runs",
            Refusal::SoftwareInterrupt => {
                "software interrupts cannot be probed yet; probe the instruction before or the handler"
            }
            Refusal::FarTransfer => {
                "far calls, jumps and returns cannot be probed yet; probe the instruction before or the target"
            }
            Refusal::InterruptReturn => "returns from interrupts cannot be probed yet; probe the instruction before",
            Refusal::SystemCall => {
                "system call instructions cannot be probed yet; probe the instruction before or the entry"
            }
            Refusal::SystemReturn => "returns from system calls run with user space's stack and cannot be probed",
            Refusal::Wait => {
                "hlt and mwait cannot be probed yet: a wake-up could be lost; probe the instruction before or after"
            }
            Refusal::StackSegment => {
                "loads of SS cannot be probed yet: they hold off interrupts; probe the instruction before"
            }
            Refusal::Transaction => "xbegin cannot be probed yet; a breakpoint aborts transactions",
            Refusal::Undefined => "ud0, ud1 and ud2 (BUG, WARN) only raise an exception; probe the instruction before",
            Refusal::Guest => {
                "instructions that enter a guest cannot be probed yet; probe the instruction before or after"
            }
            Refusal::Enclave => "enclu cannot be probed yet; probe the instruction before",
            Refusal::ExecutionMode => "it changes how the next instruction is fetched; probe the instruction before",
            Refusal::VendorDependent => "a branch with a 66 prefix: its length depends on the processor's vendor",
            Refusal::InterruptShadow => {
                "sti cannot be probed yet: it shields the next instruction; probe the one before"
            }
            Refusal::SteppedFlags => "it reads or writes the flags that a single step uses",
        })
    }
}

impl core::error::Error for Refusal {}

impl Insn {
    /// How to resume after a hit on this instruction.
    ///
    /// Everything that cannot change RIP is a `Copy`, privileged or not: port and MSR access, control and debug
    /// registers, string instructions with a repeat prefix (an interrupt in the middle resumes in the slot). A load
    /// of CR0, CR3 or CR4 is one too: the slot must be mapped wherever the probed text is, which a host has to ensure
    /// anyway.
    ///
    /// # Errors
    ///
    /// The [`Refusal`] that says why not.
    pub fn resume(&self) -> Result<Resume, Refusal> {
        if self.is_near_branch() && self.has_narrow_operand() {
            return self.resume_narrow_branch();
        }
        if let Some(emulation) = Emulation::of(self) {
            return Ok(Resume::Emulate(emulation));
        }
        match self.refusal() {
            Some(refusal) => Err(refusal),
            None if self.is_legacy(Map::Primary) && self.opcode() == 0xfb => Ok(Resume::CopyWithNext), // sti
            None => match self.near_transfer() {
                // What cannot be emulated: the upper 16 registers of APX, `jmpabs`, and `loope` or `loopne` with F2
                // or F3.
                Some(transfer) => Ok(Resume::Step(transfer.step())),
                None => Ok(Resume::Copy),
            },
        }
    }

    /// How to single-step a copy of this instruction with TF, whether or not [`Insn::resume`] has a better way.
    ///
    /// # Errors
    ///
    /// The [`Refusal`] that says why not.
    pub fn step(&self) -> Result<StepKind, Refusal> {
        let is_flags = self.is_legacy(Map::Primary) && matches!(self.opcode(), 0x9c | 0x9d | 0xfa | 0xfb);
        match self.resume()? {
            _ if is_flags => Err(Refusal::SteppedFlags),
            Resume::Step(kind) => Ok(kind),
            Resume::Copy | Resume::CopyWithNext | Resume::Emulate(_) => {
                Ok(self.near_transfer().map_or(StepKind::Rebase, Transfer::step))
            }
        }
    }

    /// Whether it is a string instruction with a repeat prefix.
    pub fn repeats(&self) -> bool {
        self.is_legacy(Map::Primary)
            && matches!(self.opcode(), 0x6c..=0x6f | 0xa4..=0xa7 | 0xaa..=0xaf)
            && self.prefixes().has(Prefixes::F2 | Prefixes::F3)
    }

    /// A branch that is wrong on one vendor or the other if its 66 prefix is either ignored or not. One that takes
    /// its whole target from memory or a register and pushes nothing can be left to the CPU.
    fn resume_narrow_branch(&self) -> Result<Resume, Refusal> {
        match self.near_transfer() {
            Some(Transfer::Absolute) => Ok(Resume::Step(StepKind::Absolute)),
            _ => Err(Refusal::VendorDependent),
        }
    }

    /// 66 without REX.W.
    pub(super) fn has_narrow_operand(&self) -> bool {
        self.prefixes().has(Prefixes::OPERAND_SIZE) && self.rex() & 8 == 0
    }

    fn is_near_branch(&self) -> bool {
        self.near_transfer().is_some()
    }

    /// How a near branch finds its target; `None` for what is not a near branch.
    fn near_transfer(&self) -> Option<Transfer> {
        if self.is_legacy(Map::Secondary) {
            return matches!(self.opcode(), 0x80..=0x8f).then_some(Transfer::Relative); // jcc
        }
        if !self.is_legacy(Map::Primary) {
            return None;
        }
        match self.opcode() {
            0x70..=0x7f | 0xe0..=0xe3 | 0xe9 | 0xeb => Some(Transfer::Relative), // jcc loop jcxz jmp
            0xe8 => Some(Transfer::RelativeCall),
            0xc2 | 0xc3 => Some(Transfer::Absolute), // ret
            0xa1 if self.encoding() == Encoding::Rex2 => Some(Transfer::Absolute), // jmpabs
            0xff => match self.modrm().map(ModRm::reg) {
                Some(2) => Some(Transfer::AbsoluteCall),
                Some(4) => Some(Transfer::Absolute),
                _ => None,
            },
            _ => None,
        }
    }

    fn refusal(&self) -> Option<Refusal> {
        match self.map() {
            Map::Primary => self.refusal_primary(),
            Map::Secondary if self.is_legacy(Map::Secondary) => self.refusal_secondary(),
            _ => None,
        }
    }

    fn refusal_primary(&self) -> Option<Refusal> {
        let modrm = self.modrm();
        let reg = modrm.map(ModRm::reg);
        Some(match self.opcode() {
            0x8e if reg == Some(2) => Refusal::StackSegment,
            0xc7 if modrm.map(ModRm::byte) == Some(0xf8) => Refusal::Transaction,
            0xca | 0xcb => Refusal::FarTransfer,
            0xcc => Refusal::Breakpoint,
            0xcd | 0xf1 => Refusal::SoftwareInterrupt,
            0xcf => Refusal::InterruptReturn,
            0xf4 => Refusal::Wait,
            0xff if matches!(reg, Some(3 | 5)) => Refusal::FarTransfer,
            _ => return None,
        })
    }

    fn refusal_secondary(&self) -> Option<Refusal> {
        Some(match self.opcode() {
            0x01 => return self.refusal_group7(),
            0x05 | 0x34 => Refusal::SystemCall,
            0x07 | 0x35 => Refusal::SystemReturn,
            0x0b | 0xb9 | 0xff => Refusal::Undefined,
            0x37 | 0xaa => Refusal::ExecutionMode, // getsec, rsm
            _ => return None,
        })
    }

    fn refusal_group7(&self) -> Option<Refusal> {
        Some(match (self.mandatory(), self.modrm()?.byte()) {
            (Mandatory::None, 0xc2 | 0xc3) | (_, 0xd8) => Refusal::Guest, // vmlaunch vmresume, vmrun
            (Mandatory::P66, 0xcd | 0xcf) => Refusal::Guest,              // seamret seamcall
            (Mandatory::None, 0xc9 | 0xfb) => Refusal::Wait,              // mwait, mwaitx
            (Mandatory::None, 0xd4) | (_, 0xde) => Refusal::ExecutionMode, // vmfunc, skinit
            (Mandatory::None, 0xd7) => Refusal::Enclave,                  // enclu
            (Mandatory::F3, 0xec) => Refusal::InterruptReturn,            // uiret
            (Mandatory::F2 | Mandatory::F3, 0xca) => Refusal::InterruptReturn, // erets, eretu
            _ => return None,
        })
    }

    /// Whether executing it may raise a fault, so that it does not complete. Conservative: `false` is certain for
    /// running kernel text, `true` is not. Pushes and pops at the stack pointer do not count: a kernel does not
    /// survive a fault there.
    pub fn may_fault(&self) -> bool {
        if self.encoding() != Encoding::Legacy || self.prefixes().has(Prefixes::LOCK) {
            return true;
        }
        let register = !self.has_memory_operand();
        let reg = self.modrm().map_or(0, ModRm::reg);
        let certain = match self.map() {
            Map::Primary => match self.opcode() {
                0x00..=0x3f | 0x63 | 0x69 | 0x6b | 0x80..=0x8b => register, // add ... cmp, movsxd, imul, test xchg mov
                0xc0 | 0xc1 | 0xd0..=0xd3 => register,                      // shifts
                0x50..=0x5f | 0x68 | 0x6a => true,                          // push pop
                0x8d => true,                                               // lea
                0x8f | 0xc6 | 0xc7 => register && reg == 0,                 // pop, mov
                0x90..=0x99 | 0x9c | 0x9e | 0x9f => true,                   // xchg cbw cwd pushf sahf lahf
                0xa8 | 0xa9 | 0xb0..=0xbf => true,                          // test, mov
                0x70..=0x7f | 0xe0..=0xe3 | 0xe8 | 0xe9 | 0xeb => true,     // relative branches
                0xf5 | 0xf8 | 0xf9 | 0xfc | 0xfd => true,                   // cmc clc stc cld std
                0xf6 | 0xf7 => register && reg <= 5,                        // test not neg mul imul
                0xfe => register,                                           // inc dec
                0xff => register && matches!(reg, 0 | 1 | 6),               // inc dec push
                _ => false,
            },
            Map::Secondary => match self.opcode() {
                0x0d | 0x18 | 0x1f => true,                                          // prefetch, nop
                0x1e => matches!(self.modrm().map(ModRm::byte), Some(0xfa | 0xfb)),  // endbr
                0x40..=0x4f | 0x90..=0x9f => register,                               // cmov, setcc
                0x80..=0x8f => true,                                                 // jcc
                0xa0 | 0xa8 => true,                                                 // push fs, gs
                0xa3..=0xa5 | 0xab..=0xad | 0xb3 | 0xba | 0xbb => register,          // bt ... btc, shld shrd
                0xae => register && self.mandatory() == Mandatory::None && reg >= 5, // fences
                0xaf | 0xb0 | 0xb1 | 0xc0 | 0xc1 => register,                        // imul cmpxchg xadd
                0xb6 | 0xb7 | 0xbc..=0xbf => register, // movzx, bsf bsr tzcnt lzcnt, movsx
                0xc8..=0xcf => true,                   // bswap
                _ => false,
            },
            _ => false,
        };
        !certain
    }
}

/// How a near branch finds its target.
#[derive(Clone, Copy)]
enum Transfer {
    Relative,
    RelativeCall,
    Absolute,
    AbsoluteCall,
}

impl Transfer {
    fn step(self) -> StepKind {
        match self {
            Transfer::Relative => StepKind::Rebase,
            Transfer::RelativeCall => StepKind::RebaseAndReturnAddress,
            Transfer::Absolute => StepKind::Absolute,
            Transfer::AbsoluteCall => StepKind::ReturnAddress,
        }
    }
}
