//! The interrupted code, as programs and emulated instructions see it.

use crate::frame::TrapFrame;
use crate::host::{BadAddress, Host};
use crate::insn::{self, Gpr, Segment};
use crate::rpn::interp::{Env, PortWidth, TaskValues};
use crate::rpn::reg::Reg;

/// Reads a segment register that no trap saves: it still has the interrupted code's value.
macro_rules! segment {
    ($name:literal) => {{
        let selector: u16;
        // SAFETY: reading a segment register has no effect.
        unsafe {
            core::arch::asm!(concat!("mov {0:x}, ", $name), out(reg) selector, options(nomem, nostack, preserves_flags));
        }
        u64::from(selector)
    }};
}

/// The registers of a frame and the memory of a host.
pub(super) struct Environment<'a, H: Host> {
    pub(super) frame: &'a mut TrapFrame,
    pub(super) host: &'a H,
}

impl<H: Host> Env for Environment<'_, H> {
    #[inline]
    fn reg(&self, reg: Reg) -> u64 {
        let frame = &*self.frame;
        match reg {
            Reg::Cs => frame.cs & 0xffff,
            Reg::Ss => frame.ss & 0xffff,
            Reg::Ds => segment!("ds"),
            Reg::Es => segment!("es"),
            Reg::Fs => segment!("fs"),
            Reg::Gs => segment!("gs"),
            Reg::Rax => frame.rax,
            Reg::Rbx => frame.rbx,
            Reg::Rcx => frame.rcx,
            Reg::Rdx => frame.rdx,
            Reg::Rdi => frame.rdi,
            Reg::Rsi => frame.rsi,
            Reg::Rbp => frame.rbp,
            Reg::Rsp => frame.rsp,
            Reg::Rip => frame.rip,
            Reg::Rflags => frame.rflags,
            Reg::R8 => frame.r8,
            Reg::R9 => frame.r9,
            Reg::R10 => frame.r10,
            Reg::R11 => frame.r11,
            Reg::R12 => frame.r12,
            Reg::R13 => frame.r13,
            Reg::R14 => frame.r14,
            Reg::R15 => frame.r15,
            // For these programs ask `system_reg`.
            _ => 0,
        }
    }

    #[inline]
    fn set_reg(&mut self, reg: Reg, value: u64) {
        let frame = &mut *self.frame;
        let place = match reg {
            Reg::Rax => &mut frame.rax,
            Reg::Rbx => &mut frame.rbx,
            Reg::Rcx => &mut frame.rcx,
            Reg::Rdx => &mut frame.rdx,
            Reg::Rdi => &mut frame.rdi,
            Reg::Rsi => &mut frame.rsi,
            Reg::Rbp => &mut frame.rbp,
            Reg::Rsp => &mut frame.rsp,
            Reg::Rip => &mut frame.rip,
            Reg::R8 => &mut frame.r8,
            Reg::R9 => &mut frame.r9,
            Reg::R10 => &mut frame.r10,
            Reg::R11 => &mut frame.r11,
            Reg::R12 => &mut frame.r12,
            Reg::R13 => &mut frame.r13,
            Reg::R14 => &mut frame.r14,
            Reg::R15 => &mut frame.r15,
            // The verifier lets no program write these.
            _ => return,
        };
        *place = value;
    }

    #[inline]
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), BadAddress> {
        self.host.read(addr, buf)
    }

    #[inline]
    fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<(), BadAddress> {
        self.host.write(addr, bytes)
    }

    // What follows has no source in this engine yet: it is not available, and says so.

    fn writable(&mut self, _addr: u64) -> bool {
        false
    }

    fn user_reg(&mut self, _reg: Reg) -> Option<u64> {
        None
    }

    fn set_user_reg(&mut self, _reg: Reg, _value: u64) -> bool {
        false
    }

    fn system_reg(&mut self, _reg: Reg, _words: &mut [u64; 8]) -> bool {
        false
    }

    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let result = core::arch::x86_64::__cpuid_count(leaf, subleaf);
        [result.eax, result.ebx, result.ecx, result.edx]
    }

    fn msr(&mut self, _number: u32) -> Option<u64> {
        None
    }

    fn port_read(&mut self, _port: u16, _width: PortWidth) -> Option<u32> {
        None
    }

    fn port_write(&mut self, _port: u16, _width: PortWidth, _value: u32) -> bool {
        false
    }

    fn task(&mut self) -> TaskValues {
        let task = self.host.task();
        TaskValues {
            task: task.cookie,
            pid: task.pid,
            tid: task.tid,
            uid: task.uid,
            name: task.name,
        }
    }

    fn cpu(&mut self) -> u32 {
        self.host.cpu() as u32
    }

    fn clock(&mut self) -> u64 {
        self.host.now()
    }

    fn tsc(&mut self) -> u64 {
        // SAFETY: reading the counter has no effect. It is not switched off in ring 0.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    fn kernel_stack(&mut self, _addresses: &mut [u64]) -> usize {
        0
    }

    fn user_stack(&mut self, _addresses: &mut [u64]) -> usize {
        0
    }

    // Nothing is kept of these yet.

    fn aggregate(&mut self, _map: u16, _keys: &[u64], _value: u64) {}

    fn suspend(&mut self, _group: u16, _suspended: bool) {}
}

impl<H: Host> Environment<'_, H> {
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

impl<H: Host> insn::Cpu for Environment<'_, H> {
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
        self.host.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn read_u16(&mut self, address: u64) -> Result<u16, BadAddress> {
        let mut bytes = [0; 2];
        self.host.read(address, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn write_u64(&mut self, address: u64, value: u64) -> Result<(), BadAddress> {
        self.host.write(address, &value.to_le_bytes())
    }

    fn write_u16(&mut self, address: u64, value: u16) -> Result<(), BadAddress> {
        self.host.write(address, &value.to_le_bytes())
    }
}
