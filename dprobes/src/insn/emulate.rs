//! Emulate branches and flag instructions on the saved registers of a trapped CPU.

use super::classify::Resume;
use super::cpu::{Cpu, Gpr};
use super::decode::Insn;
use super::parts::{Encoding, Map, ModRm, Prefixes, Segment};
use core::fmt;

/// Why an instruction was not emulated. Nothing has changed then; where the CPU would have faulted, execute the
/// original to get the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmulateError<F> {
    /// Memory at `address` could not be accessed.
    Memory {
        /// The linear address.
        address: u64,
        /// The host's reason.
        fault: F,
    },
    /// The branch goes to an address that is not canonical; the CPU raises #GP.
    NonCanonical {
        /// The target.
        target: u64,
    },
    /// `cli` above the I/O privilege level; the CPU raises #GP or changes the virtual interrupt flag.
    Privilege,
    /// The operand is in a segment whose base is not known.
    SegmentBase(Segment),
}

impl<F: fmt::Debug> fmt::Display for EmulateError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EmulateError::Memory { address, fault } => write!(f, "memory at {address:#x}: {fault:?}"),
            EmulateError::NonCanonical { target } => write!(f, "branch to the non-canonical address {target:#x}"),
            EmulateError::Privilege => f.write_str("the privilege level does not allow it"),
            EmulateError::SegmentBase(segment) => write!(f, "the base of {segment:?} is not known"),
        }
    }
}

impl<F: fmt::Debug> core::error::Error for EmulateError<F> {}

/// An instruction that can be emulated: near `call`, `jmp`, `jcc`, `loop`, `jcxz`, `ret`; `nop`, `endbr`; `pushf`,
/// `popf`, `cli`.
///
/// Made by [`Insn::resume`](super::Insn::resume); everything is extracted from the instruction by then.
///
/// What emulation does not do, because a kernel's own code has no use for it: it does not maintain a shadow stack
/// (CET); a host that runs code with one must [step](Insn::step) `call` and `ret` instead. It does not check
/// alignment (#AC, user mode only). It does not deliver the #DB that is due if TF was set: that is for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emulation {
    length: u8,
    operation: Operation,
}

/// A `call` to an address that it names: [`Emulation::direct_call`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectCall {
    /// Where it goes.
    pub target: u64,
    /// The return address that it pushes.
    pub next: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Nop,
    Jump(Target),
    Call(Target),
    JumpIf {
        condition: Condition,
        displacement: i64,
    },
    Loop {
        counter: Counter,
        zero_flag: Option<bool>,
        displacement: i64,
    },
    JumpIfCounterZero {
        counter: Counter,
        displacement: i64,
    },
    Return {
        release: u16,
    },
    PushFlags {
        width: Width,
    },
    PopFlags {
        width: Width,
    },
    DisableInterrupts,
    /// `xor eax, eax`.
    ZeroEax,
}

/// Where a branch goes, or another operand that ModRM names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Relative(i64),
    Register(Gpr),
    Memory(MemoryOperand),
}

/// Operand size of `pushf` and `popf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Word,
    Quad,
}

/// RCX or, with a 67 prefix, ECX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counter {
    Rcx,
    Ecx,
}

impl Counter {
    fn truncate(self, value: u64) -> u64 {
        match self {
            Counter::Rcx => value,
            Counter::Ecx => value & 0xffff_ffff,
        }
    }
}

/// The condition of a `jcc`, as encoded in the low 4 bits of its opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Condition(u8);

impl Condition {
    fn holds(self, rflags: u64) -> bool {
        let set = |flag| rflags & flag != 0;
        let sign_differs = set(SF) != set(OF);
        let base = match self.0 >> 1 & 7 {
            0 => set(OF),
            1 => set(CF),
            2 => set(ZF),
            3 => set(CF | ZF),
            4 => set(SF),
            5 => set(PF),
            6 => sign_differs,
            _ => sign_differs || set(ZF),
        };
        base != (self.0 & 1 != 0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    None,
    Register(Gpr),
    /// The address of the next instruction.
    Next,
}

/// A memory operand, as ModRM and SIB say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemoryOperand {
    base: Base,
    /// The index and the logarithm of its scale.
    index: Option<(Gpr, u8)>,
    displacement: i64,
    segment: Option<Segment>,
    is_32bit: bool,
}

impl MemoryOperand {
    fn of(insn: &Insn, modrm: ModRm) -> MemoryOperand {
        let rex = insn.rex();
        let extended_base = |low: u8| Base::Register(Gpr::from_number(low | (rex & 1) << 3));
        let (base, index) = match insn.sib() {
            None if insn.is_rip_relative() => (Base::Next, None),
            None => (extended_base(modrm.rm()), None),
            Some(sib) => {
                let base = if sib & 7 == 5 && modrm.mode() == 0 {
                    Base::None
                } else {
                    extended_base(sib & 7)
                };
                let index = sib >> 3 & 7 | (rex & 2) << 2;
                // RSP as index means none; R12 is an index.
                (base, (index != 4).then_some((Gpr::from_number(index), sib >> 6)))
            }
        };
        MemoryOperand {
            base,
            index,
            displacement: insn.signed(insn.displacement()),
            segment: insn.segment(),
            is_32bit: insn.has_32bit_addresses(),
        }
    }

    fn linear_address<C: Cpu>(&self, next: u64, cpu: &C) -> Result<u64, EmulateError<C::Fault>> {
        let base = match self.base {
            Base::None => 0,
            Base::Register(register) => cpu.gpr(register),
            Base::Next => next,
        };
        let index = self
            .index
            .map_or(0, |(register, scale)| cpu.gpr(register) << (scale & 3));
        let mut address = base.wrapping_add(index).wrapping_add_signed(self.displacement);
        if self.is_32bit {
            address &= 0xffff_ffff;
        }
        match self.segment {
            None => Ok(address),
            Some(segment) => match cpu.segment_base(segment) {
                Some(base) => Ok(base.wrapping_add(address)),
                None => Err(EmulateError::SegmentBase(segment)),
            },
        }
    }
}

const CF: u64 = 1 << 0;
const RESERVED_1: u64 = 1 << 1;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const TF: u64 = 1 << 8;
const IF: u64 = 1 << 9;
const DF: u64 = 1 << 10;
const OF: u64 = 1 << 11;
const IOPL: u64 = 3 << 12;
const NT: u64 = 1 << 14;
const RF: u64 = 1 << 16;
const VM: u64 = 1 << 17;
const AC: u64 = 1 << 18;
const ID: u64 = 1 << 21;

impl Emulation {
    /// The emulation of an instruction; `None` if there is none.
    pub(super) fn of(insn: &Insn) -> Option<Emulation> {
        let operation = if insn.is_legacy(Map::Primary) {
            Operation::of_primary(insn)?
        } else if insn.is_legacy(Map::Secondary) {
            Operation::of_secondary(insn)?
        } else {
            return None;
        };
        Some(Emulation {
            length: insn.len() as u8,
            operation,
        })
    }

    /// The emulation of an instruction that a kernel rewrites, as it toggles a branch or has a call go elsewhere: any that there is, and one of
    /// `xor eax, eax`, which Linux has in the place of calls of a function that returns 0.
    pub(crate) fn of_rewritten(insn: &Insn) -> Option<Emulation> {
        let is_xor = insn.is_legacy(Map::Primary) && matches!(insn.opcode(), 0x31 | 0x33);
        let of_eax = insn.modrm().is_some_and(|modrm| modrm.byte() == 0xc0) && insn.rex() == 0;
        let without_effect = Prefixes::OPERAND_SIZE | Prefixes::LOCK;
        match insn.resume() {
            Ok(Resume::Emulate(emulation)) => Some(emulation),
            Ok(Resume::Copy) if is_xor && of_eax && !insn.prefixes().has(without_effect) => Some(Emulation {
                length: insn.len() as u8,
                operation: Operation::ZeroEax,
            }),
            _ => None,
        }
    }

    /// What the instruction at `address` pushes and where it goes, if it is a `call` to an address that it names. The target is
    /// canonical.
    pub fn direct_call(&self, address: u64) -> Option<DirectCall> {
        let Operation::Call(Target::Relative(displacement)) = self.operation else {
            return None;
        };
        let next = address.wrapping_add(u64::from(self.length));
        let target = next.wrapping_add_signed(displacement);
        // Whatever the paging mode, an address in the same half and within 2 GiB of one that executes.
        ((target ^ address) >> 47 == 0).then_some(DirectCall { target, next })
    }

    /// Have the effect of the instruction at `address` on `cpu`. RIP is set to the address that executes next; RF is
    /// cleared, as by every instruction that completes.
    ///
    /// # Errors
    ///
    /// See [`EmulateError`]; nothing has changed then.
    #[inline]
    pub fn run<C: Cpu>(&self, address: u64, cpu: &mut C) -> Result<(), EmulateError<C::Fault>> {
        let next = address.wrapping_add(u64::from(self.length));
        match self.operation {
            Operation::Nop => cpu.set_rip(next),
            Operation::Jump(target) => {
                let target = target.resolve(next, cpu)?;
                cpu.set_rip(target);
            }
            Operation::Call(target) => {
                let target = target.resolve(next, cpu)?;
                let rsp = cpu.gpr(Gpr::Rsp).wrapping_sub(8);
                cpu.write_u64(rsp, next)
                    .map_err(|fault| EmulateError::Memory { address: rsp, fault })?;
                cpu.set_gpr(Gpr::Rsp, rsp);
                cpu.set_rip(target);
            }
            Operation::JumpIf {
                condition,
                displacement,
            } => {
                let target = branch(condition.holds(cpu.rflags()), next, displacement, cpu)?;
                cpu.set_rip(target);
            }
            Operation::Loop {
                counter,
                zero_flag,
                displacement,
            } => {
                let count = counter.truncate(cpu.gpr(Gpr::Rcx).wrapping_sub(1));
                let flag_agrees = zero_flag.is_none_or(|zero| zero == (cpu.rflags() & ZF != 0));
                let target = branch(count != 0 && flag_agrees, next, displacement, cpu)?;
                cpu.set_gpr(Gpr::Rcx, count);
                cpu.set_rip(target);
            }
            Operation::JumpIfCounterZero { counter, displacement } => {
                let taken = counter.truncate(cpu.gpr(Gpr::Rcx)) == 0;
                let target = branch(taken, next, displacement, cpu)?;
                cpu.set_rip(target);
            }
            Operation::Return { release } => {
                let rsp = cpu.gpr(Gpr::Rsp);
                let target = cpu
                    .read_u64(rsp)
                    .map_err(|fault| EmulateError::Memory { address: rsp, fault })?;
                let target = canonical(target, cpu)?;
                cpu.set_gpr(Gpr::Rsp, rsp.wrapping_add(8).wrapping_add(u64::from(release)));
                cpu.set_rip(target);
            }
            Operation::PushFlags { width } => {
                push_flags(width, cpu)?;
                cpu.set_rip(next);
            }
            Operation::PopFlags { width } => {
                pop_flags(width, cpu)?;
                cpu.set_rip(next);
            }
            Operation::DisableInterrupts => {
                let rflags = cpu.rflags();
                if u64::from(cpu.privilege_level()) > (rflags & IOPL) >> 12 {
                    return Err(EmulateError::Privilege);
                }
                cpu.set_rflags(rflags & !IF);
                cpu.set_rip(next);
            }
            Operation::ZeroEax => {
                let rflags = cpu.rflags();
                cpu.set_gpr(Gpr::Rax, 0);
                // AF is undefined (SDM volume 2, XOR); CPUs clear it.
                cpu.set_rflags(rflags & !(CF | AF | SF | OF) | ZF | PF);
                cpu.set_rip(next);
            }
        }
        let rflags = cpu.rflags();
        if rflags & RF != 0 {
            cpu.set_rflags(rflags & !RF);
        }
        Ok(())
    }
}

impl Operation {
    fn of_primary(insn: &Insn) -> Option<Operation> {
        let opcode = insn.opcode();
        let displacement = insn.signed(insn.immediate());
        let counter = if insn.has_32bit_addresses() {
            Counter::Ecx
        } else {
            Counter::Rcx
        };
        let width = if insn.has_narrow_operand() {
            Width::Word
        } else {
            Width::Quad
        };
        Some(match opcode {
            0x70..=0x7f => Operation::JumpIf {
                condition: Condition(opcode & 15),
                displacement,
            },
            // `xchg r8, rax` and the like with REX.B; `pause` with F3 is left to the CPU.
            0x90 if insn.rex() & 0x11 == 0 && !insn.prefixes().has(Prefixes::F3) => Operation::Nop,
            0x9c => Operation::PushFlags { width },
            0x9d => Operation::PopFlags { width },
            0xc2 => Operation::Return {
                release: insn.unsigned(insn.immediate()) as u16,
            },
            0xc3 => Operation::Return { release: 0 },
            // AMD lets F2 and F3 replace the condition (seen on Zen 5), no manual says so: left to the CPU.
            0xe0 | 0xe1 if insn.prefixes().has(Prefixes::F2 | Prefixes::F3) => return None,
            0xe0 => Operation::Loop {
                counter,
                zero_flag: Some(false),
                displacement,
            },
            0xe1 => Operation::Loop {
                counter,
                zero_flag: Some(true),
                displacement,
            },
            0xe2 => Operation::Loop {
                counter,
                zero_flag: None,
                displacement,
            },
            0xe3 => Operation::JumpIfCounterZero { counter, displacement },
            0xe8 => Operation::Call(Target::Relative(displacement)),
            0xe9 | 0xeb => Operation::Jump(Target::Relative(displacement)),
            0xfa => Operation::DisableInterrupts,
            0xff => {
                let modrm = insn.modrm()?;
                let target = Target::of(insn, modrm)?;
                match modrm.reg() {
                    2 => Operation::Call(target),
                    4 => Operation::Jump(target),
                    _ => return None,
                }
            }
            _ => return None,
        })
    }

    fn of_secondary(insn: &Insn) -> Option<Operation> {
        let opcode = insn.opcode();
        match opcode {
            0x1f => Some(Operation::Nop),
            // endbr64, endbr32
            0x1e if insn.prefixes().has(Prefixes::F3) => {
                matches!(insn.modrm()?.byte(), 0xfa | 0xfb).then_some(Operation::Nop)
            }
            0x80..=0x8f => {
                let displacement = insn.signed(insn.immediate());
                Some(Operation::JumpIf {
                    condition: Condition(opcode & 15),
                    displacement,
                })
            }
            _ => None,
        }
    }
}

impl Target {
    /// The operand that ModRM names; `None` if it names a register that [`Cpu`] does not have.
    pub(super) fn of(insn: &Insn, modrm: ModRm) -> Option<Target> {
        if insn.encoding() == Encoding::Rex2 && insn.rex() & 0x30 != 0 {
            return None;
        }
        if modrm.is_register() {
            return Some(Target::Register(Gpr::from_number(modrm.rm() | (insn.rex() & 1) << 3)));
        }
        Some(Target::Memory(MemoryOperand::of(insn, modrm)))
    }

    /// The low 16 bits of the operand, if it can be read.
    pub(super) fn read_u16<C: Cpu>(&self, next: u64, cpu: &mut C) -> Option<u16> {
        match self {
            Target::Relative(_) => None,
            Target::Register(register) => Some(cpu.gpr(*register) as u16),
            Target::Memory(operand) => {
                let address = operand.linear_address(next, cpu).ok()?;
                cpu.read_u16(address).ok()
            }
        }
    }

    fn resolve<C: Cpu>(&self, next: u64, cpu: &mut C) -> Result<u64, EmulateError<C::Fault>> {
        let target = match self {
            Target::Relative(displacement) => next.wrapping_add_signed(*displacement),
            Target::Register(register) => cpu.gpr(*register),
            Target::Memory(operand) => {
                let address = operand.linear_address(next, cpu)?;
                cpu.read_u64(address)
                    .map_err(|fault| EmulateError::Memory { address, fault })?
            }
        };
        canonical(target, cpu)
    }
}

fn canonical<C: Cpu>(target: u64, cpu: &C) -> Result<u64, EmulateError<C::Fault>> {
    if cpu.is_canonical(target) {
        Ok(target)
    } else {
        Err(EmulateError::NonCanonical { target })
    }
}

/// Where a conditional branch goes.
fn branch<C: Cpu>(taken: bool, next: u64, displacement: i64, cpu: &C) -> Result<u64, EmulateError<C::Fault>> {
    if taken {
        canonical(next.wrapping_add_signed(displacement), cpu)
    } else {
        Ok(next)
    }
}

/// SDM volume 2, PUSHF: VM and RF are clear in the image.
fn push_flags<C: Cpu>(width: Width, cpu: &mut C) -> Result<(), EmulateError<C::Fault>> {
    let image = cpu.rflags() & !(VM | RF);
    let size = match width {
        Width::Word => 2,
        Width::Quad => 8,
    };
    let address = cpu.gpr(Gpr::Rsp).wrapping_sub(size);
    match width {
        Width::Word => cpu.write_u16(address, image as u16),
        Width::Quad => cpu.write_u64(address, image),
    }
    .map_err(|fault| EmulateError::Memory { address, fault })?;
    cpu.set_gpr(Gpr::Rsp, address);
    Ok(())
}

/// SDM volume 2, POPF: IOPL changes only at privilege level 0, IF only within IOPL, VM, VIF and VIP never.
fn pop_flags<C: Cpu>(width: Width, cpu: &mut C) -> Result<(), EmulateError<C::Fault>> {
    let address = cpu.gpr(Gpr::Rsp);
    let memory = |fault| EmulateError::Memory { address, fault };
    let (image, size, reach) = match width {
        Width::Word => (u64::from(cpu.read_u16(address).map_err(memory)?), 2, 0xffff),
        Width::Quad => (cpu.read_u64(address).map_err(memory)?, 8, u64::MAX),
    };
    let rflags = cpu.rflags();
    let level = u64::from(cpu.privilege_level());
    let mut writable = CF | PF | AF | ZF | SF | TF | DF | OF | NT | AC | ID;
    if level == 0 {
        writable |= IOPL;
    }
    if level <= (rflags & IOPL) >> 12 {
        writable |= IF;
    }
    writable &= reach;
    cpu.set_rflags(rflags & !writable | image & writable | RESERVED_1);
    cpu.set_gpr(Gpr::Rsp, address.wrapping_add(size));
    Ok(())
}
