//! A [`Cpu`] made of registers and a page of data, to be compared with the real one.

use crate::native::Registers;
use dprobes::insn::{Cpu, Gpr, Segment};

#[derive(Clone)]
pub struct Model {
    pub registers: Registers,
    pub data_address: u64,
    pub data: Vec<u8>,
    pub privilege_level: u8,
}

/// An address outside the data.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct Outside;

impl Model {
    fn slot(&mut self, address: u64, size: usize) -> Result<&mut [u8], Outside> {
        let offset = usize::try_from(address.wrapping_sub(self.data_address)).map_err(|_| Outside)?;
        let end = offset.checked_add(size).ok_or(Outside)?;
        self.data.get_mut(offset..end).ok_or(Outside)
    }
}

/// One register of the structure that ptrace uses.
pub fn register_of(registers: &mut Registers, register: Gpr) -> &mut u64 {
    match register {
        Gpr::Rax => &mut registers.rax,
        Gpr::Rcx => &mut registers.rcx,
        Gpr::Rdx => &mut registers.rdx,
        Gpr::Rbx => &mut registers.rbx,
        Gpr::Rsp => &mut registers.rsp,
        Gpr::Rbp => &mut registers.rbp,
        Gpr::Rsi => &mut registers.rsi,
        Gpr::Rdi => &mut registers.rdi,
        Gpr::R8 => &mut registers.r8,
        Gpr::R9 => &mut registers.r9,
        Gpr::R10 => &mut registers.r10,
        Gpr::R11 => &mut registers.r11,
        Gpr::R12 => &mut registers.r12,
        Gpr::R13 => &mut registers.r13,
        Gpr::R14 => &mut registers.r14,
        Gpr::R15 => &mut registers.r15,
    }
}

impl Cpu for Model {
    type Fault = Outside;

    fn gpr(&self, register: Gpr) -> u64 {
        *register_of(&mut self.registers.clone(), register)
    }
    fn set_gpr(&mut self, register: Gpr, value: u64) {
        *register_of(&mut self.registers, register) = value;
    }
    fn set_rip(&mut self, value: u64) {
        self.registers.rip = value;
    }
    fn rflags(&self) -> u64 {
        self.registers.eflags
    }
    fn set_rflags(&mut self, value: u64) {
        self.registers.eflags = value;
    }
    fn privilege_level(&self) -> u8 {
        self.privilege_level
    }
    fn segment_base(&self, segment: Segment) -> Option<u64> {
        Some(match segment {
            Segment::Fs => self.registers.fs_base,
            Segment::Gs => self.registers.gs_base,
        })
    }
    fn read_u64(&mut self, address: u64) -> Result<u64, Outside> {
        let bytes = self.slot(address, 8)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("8 bytes")))
    }
    fn read_u16(&mut self, address: u64) -> Result<u16, Outside> {
        let bytes = self.slot(address, 2)?;
        Ok(u16::from_le_bytes(bytes.try_into().expect("2 bytes")))
    }
    fn write_u64(&mut self, address: u64, value: u64) -> Result<(), Outside> {
        self.slot(address, 8)?.copy_from_slice(&value.to_le_bytes());
        Ok(())
    }
    fn write_u16(&mut self, address: u64, value: u16) -> Result<(), Outside> {
        self.slot(address, 2)?.copy_from_slice(&value.to_le_bytes());
        Ok(())
    }
}
