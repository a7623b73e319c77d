//! How a CPU gets past an instruction whose first byte is a breakpoint.

use super::decode::Insn;
use super::emulate::Emulation;
use super::parts::{Encoding, Mandatory, Map, ModRm, Prefixes};
use super::refusal::Refusal;
use super::shadow::Shadow;

/// How to resume after a hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Run a [copy](Insn::relocate) in a slot, followed by a [jump](super::jump) back to the next instruction. It leaves
    /// RIP at the end of the copy unless it faults or goes to an absolute address, from which nobody comes back. All that
    /// tells it from the original is what the x87 unit keeps for `fnstenv`: the address of its last instruction.
    Copy,
    /// As `Copy`, for an instruction that waits for interrupts (`hlt`, `mwait`). Where interrupts are on it has to run
    /// behind an `sti` in the slot that turns them on, because it may have been in the shadow of one: an interrupt that is
    /// taken before it begins to wait is a wake-up that is lost.
    CopyWaiting,
    /// As `Copy`, but the next instruction has to be [carried out](Insn::shaded) in the same go: it runs in the shadow of this
    /// one, which a jump would use up.
    CopyWithNext(Shadow),
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
    /// RIP is right. Add `shift` to the return address at the top of the stack, below which is CS. A far call has pushed 8
    /// bytes of it with REX.W (Intel) and through a call gate (SDM volume 2, CALL), otherwise 4, or with `narrow` 2.
    FarReturnAddress {
        /// The operand size is 16 bits.
        narrow: bool,
    },
}

impl Insn {
    /// How to resume after a hit on this instruction.
    ///
    /// Everything that cannot change RIP is a `Copy`, privileged or not: port and MSR access, control and debug
    /// registers, string instructions with a repeat prefix (an interrupt in the middle resumes in the slot). A load
    /// of CR0, CR3 or CR4 is one too: the slot must be mapped wherever the probed text is, which a host has to ensure
    /// anyway. So is what goes to an absolute address and leaves nothing behind (`iret`, far `ret` and `jmp`), and what enters
    /// a guest: a VM exit goes to an address that the kernel has set, or behind the `vmrun` in the slot.
    ///
    /// # Errors
    ///
    /// The [`Refusal`] that says why not.
    pub fn resume(&self) -> Result<Resume, Refusal> {
        let transfer = self.transfer();
        if self.has_narrow_operand() {
            match transfer {
                Some(Transfer::Relative | Transfer::RelativeCall | Transfer::AbsoluteCall) => {
                    return Err(Refusal::VendorDependent);
                }
                // It takes its whole target from memory or a register and pushes nothing: it can be left to the CPU.
                Some(Transfer::Absolute) => return Ok(Resume::Step(StepKind::Absolute)),
                None if self.is_xbegin() => return Err(Refusal::VendorDependent),
                Some(Transfer::Far | Transfer::FarCall) | None => {}
            }
        }
        if let Some(emulation) = Emulation::of(self) {
            return Ok(Resume::Emulate(emulation));
        }
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        if let Some(shadow) = self.shadow() {
            return Ok(Resume::CopyWithNext(shadow));
        }
        Ok(match transfer {
            None | Some(Transfer::Far) if self.waits() => Resume::CopyWaiting,
            None | Some(Transfer::Far) => Resume::Copy,
            // What cannot be emulated: far calls, the upper 16 registers of APX, `jmpabs`, and `loope` or `loopne` with
            // F2 or F3.
            Some(transfer) => Resume::Step(self.step_of(transfer)),
        })
    }

    /// How to single-step a copy of this instruction with TF, whether or not [`Insn::resume`] has a better way.
    ///
    /// # Errors
    ///
    /// The [`Refusal`] that says why not.
    pub fn step(&self) -> Result<StepKind, Refusal> {
        match self.resume()? {
            Resume::Step(kind) => Ok(kind),
            Resume::CopyWaiting | Resume::CopyWithNext(_) => Err(Refusal::SingleStep),
            Resume::Copy | Resume::Emulate(_) if self.uses_flags_of_step() || self.is_xbegin() => {
                Err(Refusal::SingleStep)
            }
            Resume::Copy | Resume::Emulate(_) => Ok(self
                .transfer()
                .map_or(StepKind::Rebase, |transfer| self.step_of(transfer))),
        }
    }

    /// Whether it is a string instruction with a repeat prefix.
    pub fn repeats(&self) -> bool {
        self.is_legacy(Map::Primary)
            && matches!(self.opcode(), 0x6c..=0x6f | 0xa4..=0xa7 | 0xaa..=0xaf)
            && self.prefixes().has(Prefixes::F2 | Prefixes::F3)
    }

    /// 66 without REX.W.
    pub(super) fn has_narrow_operand(&self) -> bool {
        self.prefixes().has(Prefixes::OPERAND_SIZE) && self.rex() & 8 == 0
    }

    /// How a branch finds its target; `None` for what is not a branch, or is one that cannot be stepped either.
    fn transfer(&self) -> Option<Transfer> {
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
            0xca | 0xcb => Some(Transfer::Far),      // retf
            0xa1 if self.encoding() == Encoding::Rex2 => Some(Transfer::Absolute), // jmpabs
            0xff => match self.modrm().map(ModRm::reg) {
                Some(2) => Some(Transfer::AbsoluteCall),
                Some(3) => Some(Transfer::FarCall),
                Some(4) => Some(Transfer::Absolute),
                Some(5) => Some(Transfer::Far),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether where it goes depends on where it is.
    pub(super) fn is_relative_branch(&self) -> bool {
        matches!(self.transfer(), Some(Transfer::Relative | Transfer::RelativeCall))
    }

    fn step_of(&self, transfer: Transfer) -> StepKind {
        match transfer {
            Transfer::Relative => StepKind::Rebase,
            Transfer::RelativeCall => StepKind::RebaseAndReturnAddress,
            Transfer::Absolute | Transfer::Far => StepKind::Absolute,
            Transfer::AbsoluteCall => StepKind::ReturnAddress,
            Transfer::FarCall => StepKind::FarReturnAddress {
                narrow: self.has_narrow_operand(),
            },
        }
    }

    /// Whether it reads or writes TF or IF, which a single step borrows: `pushf popf cli iret uiret erets eretu`.
    fn uses_flags_of_step(&self) -> bool {
        let group7 = || (self.mandatory(), self.modrm().map(ModRm::byte));
        if self.is_legacy(Map::Primary) {
            return matches!(self.opcode(), 0x9c | 0x9d | 0xcf | 0xfa);
        }
        self.is_legacy(Map::Secondary)
            && self.opcode() == 0x01
            && matches!(
                group7(),
                (Mandatory::F3, Some(0xec | 0xca)) | (Mandatory::F2, Some(0xca))
            )
    }

    /// Whether it waits for an interrupt: `hlt mwait mwaitx umwait tpause`.
    fn waits(&self) -> bool {
        if self.is_legacy(Map::Primary) {
            return self.opcode() == 0xf4;
        }
        let Some(modrm) = self.modrm().filter(|_| self.is_legacy(Map::Secondary)) else {
            return false;
        };
        match (self.opcode(), self.mandatory()) {
            (0x01, Mandatory::None) => matches!(modrm.byte(), 0xc9 | 0xfb),
            (0xae, Mandatory::F2 | Mandatory::P66) => modrm.is_register() && modrm.reg() == 6,
            _ => false,
        }
    }

    /// Whether it is `xbegin`, whose fallback address is relative.
    pub(super) fn is_xbegin(&self) -> bool {
        self.is_legacy(Map::Primary) && self.opcode() == 0xc7 && self.modrm().map(ModRm::byte) == Some(0xf8)
    }

    fn refusal(&self) -> Option<Refusal> {
        match self.map() {
            Map::Primary => match self.opcode() {
                0xcc => Some(Refusal::Breakpoint),
                0xcd | 0xf1 => Some(Refusal::SoftwareInterrupt),
                _ => None,
            },
            Map::Secondary if self.is_legacy(Map::Secondary) => self.refusal_secondary(),
            _ => None,
        }
    }

    fn refusal_secondary(&self) -> Option<Refusal> {
        Some(match self.opcode() {
            0x01 => match (self.mandatory(), self.modrm()?.byte()) {
                (Mandatory::None, 0xd4) | (_, 0xde) => Refusal::ExecutionMode, // vmfunc, skinit
                (Mandatory::None, 0xd7) => Refusal::Enclave,                   // enclu
                _ => return None,
            },
            0x05 | 0x34 => Refusal::SystemCall,
            0x07 | 0x35 => Refusal::SystemReturn,
            0xb9 | 0xff => Refusal::Undefined,
            0x37 | 0xaa => Refusal::ExecutionMode, // getsec, rsm
            _ => return None,
        })
    }

    /// Whether it is `ud2`, or `ud0` or `ud1`: raising #UD is what it does, so that it completes by that.
    pub fn raises(&self) -> bool {
        self.is_legacy(Map::Secondary) && matches!(self.opcode(), 0x0b | 0xb9 | 0xff)
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
                0x0b => true,                                                        // ud2: see `raises`
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

/// How a branch finds its target.
#[derive(Clone, Copy)]
enum Transfer {
    Relative,
    RelativeCall,
    Absolute,
    AbsoluteCall,
    Far,
    FarCall,
}
