//! The interrupted code, as an emulated instruction sees and changes it.

use crate::frame::TrapFrame;
use crate::host::{BadAddress, Host};
use crate::insn::{Cpu, Gpr, Segment};

/// The registers of a frame and the memory of a host.
pub(super) struct Emulated<'a, H: Host> {
    pub(super) frame: &'a mut TrapFrame,
    pub(super) host: &'a H,
}

impl<H: Host> Emulated<'_, H> {
    /// Fails in user mode where the CPU would not do it although the engine could: the copy of the instruction raises the fault then. That
    /// is the upper half of the address space, and #AC where AC is set. (A kernel has AC for SMAP.)
    #[inline]
    fn check(&self, address: u64, len: u64) -> Result<(), BadAddress> {
        const AC: u64 = 1 << 18;
        if !self.frame.is_user() {
            return Ok(());
        }
        let last = address.wrapping_add(len - 1);
        let misaligned = address & (len - 1) != 0 && self.frame.rflags & AC != 0;
        if misaligned || (address | last) >> 63 != 0 {
            return Err(BadAddress { addr: address });
        }
        Ok(())
    }

    /// Fails in addition where a store goes into a second page: that may be bad when the first has been written. The CPU writes both
    /// or none.
    #[inline]
    fn check_store(&self, address: u64, len: u64) -> Result<(), BadAddress> {
        const PAGE: u64 = 4096;
        if address % PAGE > PAGE - len {
            return Err(BadAddress { addr: address });
        }
        self.check(address, len)
    }

    fn place(&mut self, register: Gpr) -> &mut u64 {
        let frame = &mut *self.frame;
        match register {
            Gpr::Rax => &mut frame.rax,
            Gpr::Rcx => &mut frame.rcx,
            Gpr::Rdx => &mut frame.rdx,
            Gpr::Rbx => &mut frame.rbx,
            Gpr::Rsp => &mut frame.rsp,
            Gpr::Rbp => &mut frame.rbp,
            Gpr::Rsi => &mut frame.rsi,
            Gpr::Rdi => &mut frame.rdi,
            Gpr::R8 => &mut frame.r8,
            Gpr::R9 => &mut frame.r9,
            Gpr::R10 => &mut frame.r10,
            Gpr::R11 => &mut frame.r11,
            Gpr::R12 => &mut frame.r12,
            Gpr::R13 => &mut frame.r13,
            Gpr::R14 => &mut frame.r14,
            Gpr::R15 => &mut frame.r15,
        }
    }
}

impl<H: Host> Cpu for Emulated<'_, H> {
    type Fault = BadAddress;

    #[inline]
    fn gpr(&self, register: Gpr) -> u64 {
        let frame = &*self.frame;
        match register {
            Gpr::Rax => frame.rax,
            Gpr::Rcx => frame.rcx,
            Gpr::Rdx => frame.rdx,
            Gpr::Rbx => frame.rbx,
            Gpr::Rsp => frame.rsp,
            Gpr::Rbp => frame.rbp,
            Gpr::Rsi => frame.rsi,
            Gpr::Rdi => frame.rdi,
            Gpr::R8 => frame.r8,
            Gpr::R9 => frame.r9,
            Gpr::R10 => frame.r10,
            Gpr::R11 => frame.r11,
            Gpr::R12 => frame.r12,
            Gpr::R13 => frame.r13,
            Gpr::R14 => frame.r14,
            Gpr::R15 => frame.r15,
        }
    }

    #[inline]
    fn set_gpr(&mut self, register: Gpr, value: u64) {
        *self.place(register) = value;
    }

    #[inline]
    fn set_rip(&mut self, value: u64) {
        self.frame.rip = value;
    }

    #[inline]
    fn rflags(&self) -> u64 {
        self.frame.rflags
    }

    #[inline]
    fn set_rflags(&mut self, value: u64) {
        self.frame.rflags = value;
    }

    fn privilege_level(&self) -> u8 {
        (self.frame.cs & 3) as u8
    }

    fn segment_base(&self, _: Segment) -> Option<u64> {
        // No trap frame has it. The instruction is stepped instead.
        None
    }

    fn read_u64(&mut self, address: u64) -> Result<u64, BadAddress> {
        let mut bytes = [0; 8];
        self.check(address, 8)?;
        self.host.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn read_u16(&mut self, address: u64) -> Result<u16, BadAddress> {
        let mut bytes = [0; 2];
        self.check(address, 2)?;
        self.host.read(address, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn write_u64(&mut self, address: u64, value: u64) -> Result<(), BadAddress> {
        self.check_store(address, 8)?;
        self.host.write(address, &value.to_le_bytes())
    }

    fn write_u16(&mut self, address: u64, value: u16) -> Result<(), BadAddress> {
        self.check_store(address, 2)?;
        self.host.write(address, &value.to_le_bytes())
    }
}
