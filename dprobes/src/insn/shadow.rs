//! Interrupt shadows: what `sti` and `mov ss` hold off until the next instruction has completed.

use super::classify::{Resume, StepKind};
use super::cpu::Cpu;
use super::decode::Insn;
use super::emulate::{Emulation, Target};
use super::parts::{Map, ModRm};
use super::refusal::Refusal;

/// What an instruction holds off from its own end to the end of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shadow {
    /// `sti`: maskable interrupts, if they were off before it (SDM volume 2, STI).
    Interrupts,
    /// `mov ss`: interrupts and debug exceptions, a single step's among them (SDM volume 3, 7.8.3).
    Events,
}

/// How an instruction is carried out in the shadow of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shaded {
    /// By a [copy](Insn::relocate) in the slot of the one before, directly behind that one.
    Copy,
    /// On the saved registers, when the one before has been carried out there too; if that fails, by a step of the copy.
    Emulate(Emulation),
    /// By a single step of the copy behind that of the one before.
    Step(StepKind),
}

impl Insn {
    /// The shadow that it casts on the next instruction. (`lss` casts none: SDM volume 2, MOV.)
    pub fn shadow(&self) -> Option<Shadow> {
        if !self.is_legacy(Map::Primary) {
            return None;
        }
        match self.opcode() {
            0xfb => Some(Shadow::Interrupts),
            0x8e if self.modrm().map(ModRm::reg) == Some(2) => Some(Shadow::Events),
            _ => None,
        }
    }

    /// The selector that a `mov ss` at `address` is about to load. `None` if it is something else, or its operand cannot be read.
    pub fn stack_selector<C: Cpu>(&self, address: u64, cpu: &mut C) -> Option<u16> {
        if self.shadow() != Some(Shadow::Events) {
            return None;
        }
        let source = Target::of(self, self.modrm()?)?;
        source.read_u16(address.wrapping_add(self.len() as u64), cpu)
    }

    /// How this instruction is carried out in the shadow of the one before it.
    ///
    /// # Errors
    ///
    /// [`Refusal::InterruptShadow`] if the one before it cannot be probed for this reason.
    pub fn shaded(&self, shadow: Shadow) -> Result<Shaded, Refusal> {
        match (self.resume(), shadow) {
            (Ok(Resume::Copy | Resume::CopyWaiting), _) => Ok(Shaded::Copy),
            // From the instruction before it the stack is still the kernel's, and a copy goes where the original goes.
            (Err(Refusal::SystemReturn), _) => Ok(Shaded::Copy),
            // The second `sti` casts no shadow: interrupts are on. Of other pairs the manuals leave it open.
            (Ok(Resume::CopyWithNext(Shadow::Interrupts)), Shadow::Interrupts) => Ok(Shaded::Copy),
            (Ok(Resume::Emulate(emulation)), Shadow::Interrupts) => Ok(Shaded::Emulate(emulation)),
            // `mov ss` is left to the CPU, and so is what comes after it.
            (Ok(Resume::Emulate(_) | Resume::Step(_)), _) => Ok(match self.step() {
                // It does not come back to the slot, or it does not matter where it runs.
                Ok(StepKind::Absolute) | Err(_) => Shaded::Copy,
                Ok(StepKind::Rebase) if !self.is_relative_branch() => Shaded::Copy,
                Ok(kind) => Shaded::Step(kind),
            }),
            (Ok(Resume::CopyWithNext(_)) | Err(_), _) => Err(Refusal::InterruptShadow),
        }
    }
}
