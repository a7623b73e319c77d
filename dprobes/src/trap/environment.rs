//! The interrupted code and the system around it, as programs see them.
//!
//! What a program does not ask for is not fetched.

use core::sync::atomic::Ordering;

use super::registers;
use super::stack::Start;
use super::system::{self, Ring0};
use crate::frame::TrapFrame;
use crate::host::{BadAddress, Host};
use crate::probe::Loaded;
use crate::rpn::interp::{Env, PortWidth, TaskValues};
use crate::rpn::reg::Reg;

/// The MSR in which `swapgs` has left the base of the code in user mode (SDM volume 4, IA32_KERNEL_GS_BASE).
const KERNEL_GS_BASE: u32 = 0xc000_0102;

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

/// What a program has during a hit.
pub(super) struct Environment<'a, H: Host> {
    pub(super) frame: &'a mut TrapFrame,
    pub(super) host: &'a H,
    /// Where the hit is: what `frame.rip` was.
    pub(super) address: u64,
    /// The instruction there, if it is known.
    pub(super) code: Option<&'a [u8]>,
    /// Does GS belong to the kernel, and what the code has in it to the MSR for the exchange?
    pub(super) from_user: bool,
    pub(super) loaded: &'a Loaded,
}

impl<H: Host> Environment<'_, H> {
    /// The registers of the current task in user mode.
    fn user_frame(&self) -> Option<TrapFrame> {
        if self.frame.is_user() {
            Some(*self.frame)
        } else {
            self.host.user_registers()
        }
    }

    /// Two words of memory.
    fn words(&self, address: u64) -> Option<[u64; 2]> {
        let mut bytes = [0; 16];
        self.host.read(address, &mut bytes).ok()?;
        let both = u128::from_le_bytes(bytes);
        Some([both as u64, (both >> 64) as u64])
    }

    /// The bytes at an address, up to the first that cannot be read.
    fn text<'b>(&self, address: u64, buf: &'b mut [u8; 4]) -> &'b [u8] {
        let mut count = 0;
        for (at, byte) in (address..).zip(buf.iter_mut()) {
            if self.host.read(at, core::slice::from_mut(byte)).is_err() {
                break;
            }
            count += 1;
        }
        buf.get(..count).unwrap_or(&[])
    }
}

impl<H: Host> Env for Environment<'_, H> {
    #[inline]
    fn reg(&self, reg: Reg) -> u64 {
        match registers::get(self.frame, reg) {
            Some(value) => value,
            None => match reg {
                Reg::Ds => segment!("ds"),
                Reg::Es => segment!("es"),
                Reg::Fs => segment!("fs"),
                Reg::Gs => segment!("gs"),
                // The verifier lets no program ask for others in this way.
                _ => 0,
            },
        }
    }

    #[inline]
    fn set_reg(&mut self, reg: Reg, value: u64) {
        // The verifier lets no program write others.
        if let Some(place) = registers::place(self.frame, reg) {
            *place = value;
        }
    }

    #[inline]
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), BadAddress> {
        self.host.read(addr, buf)
    }

    #[inline]
    fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<(), BadAddress> {
        self.host.write(addr, bytes)
    }

    fn writable(&mut self, addr: u64) -> bool {
        self.host.writable(addr)
    }

    fn user_reg(&mut self, reg: Reg) -> Option<u64> {
        registers::get(&self.user_frame()?, reg)
    }

    fn set_user_reg(&mut self, reg: Reg, value: u64) -> bool {
        if self.frame.is_user() {
            self.set_reg(reg, value);
            return true;
        }
        let Some(mut frame) = self.host.user_registers() else {
            return false;
        };
        if let Some(place) = registers::place(&mut frame, reg) {
            *place = value;
        }
        self.host.set_user_registers(&frame)
    }

    fn system_reg(&mut self, reg: Reg, words: &mut [u64; 8]) -> bool {
        if reg == Reg::GsBase
            && self.from_user
            && let Some(base) = self.host.msr(KERNEL_GS_BASE)
        {
            *words = [base, 0, 0, 0, 0, 0, 0, 0];
            return true;
        }
        match system::register(reg) {
            Some(found) => {
                *words = found;
                true
            }
            None => false,
        }
    }

    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> [u32; 4] {
        system::cpuid(leaf, subleaf)
    }

    fn msr(&mut self, number: u32) -> Option<u64> {
        self.host.msr(number)
    }

    fn port_read(&mut self, port: u16, width: PortWidth) -> Option<u32> {
        Some(Ring0::new()?.port_read(port, width))
    }

    fn port_write(&mut self, port: u16, width: PortWidth, value: u32) -> bool {
        let ring0 = Ring0::new();
        if let Some(ring0) = ring0 {
            ring0.port_write(port, width, value);
        }
        ring0.is_some()
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
        system::tsc()
    }

    fn kernel_stack(&mut self, addresses: &mut [u64]) -> usize {
        let rip = self.address;
        let mut bytes = [0; 4];
        let code = match self.code {
            Some(code) => code,
            None => self.text(rip, &mut bytes),
        };
        // The program may have sent the CPU elsewhere already.
        let frame = TrapFrame { rip, ..*self.frame };
        match self.host.kernel_stack(&frame, addresses) {
            Some(count) => count.min(addresses.len()),
            None => Start::new(rip, &frame).follow(code, |at| self.words(at), addresses),
        }
    }

    fn user_stack(&mut self, addresses: &mut [u64]) -> usize {
        const KERNEL_HALF: u64 = 1 << 63;
        let Some(user) = self.user_frame() else { return 0 };
        // In 32-bit code words are half as long. A stack pointer into the kernel's half is no stack of a process.
        if !system::is_64_bit(user.cs) || user.rsp & KERNEL_HALF != 0 {
            return 0;
        }
        let read = |at| self.words(at);
        if self.frame.is_user() {
            let mut bytes = [0; 4];
            let code = match self.code {
                Some(code) => code,
                None => self.text(self.address, &mut bytes),
            };
            return Start::new(self.address, &user).follow(code, read, addresses);
        }
        let mut bytes = [0; 4];
        let insn = self.text(user.rip, &mut bytes);
        Start::new(user.rip, &user).follow(insn, read, addresses)
    }

    fn aggregate(&mut self, map: u16, keys: &[u64], value: u64) {
        // The verifier lets no program name others.
        if let Some(named) = self.loaded.maps.get(usize::from(map)) {
            named.map.update(self.host.cpu(), keys, value);
        }
    }

    fn suspend(&mut self, group: u16, suspended: bool) {
        if let Some(flag) = self.loaded.suspended.get(usize::from(group)) {
            flag.store(suspended, Ordering::Relaxed);
        }
    }
}
