//! Machines to probe.

use dprobes::rpn::BadAddress;
use dprobes::rpn::interp::{Env, PortWidth, TaskValues};
use dprobes::rpn::reg::Reg;

pub use super::machine::Machine;

/// A machine that answers anything at all, and counts how often it is asked.
pub struct Hostile {
    pub rng: super::random::Rng,
    pub asked: u64,
}

impl Hostile {
    fn answer(&mut self, buf: &mut [u8]) -> Result<(), BadAddress> {
        self.asked += 1;
        let word = self.rng.next();
        buf.iter_mut().for_each(|byte| *byte = word as u8);
        if word & 0x300 == 0 {
            Err(BadAddress { addr: self.rng.next() })
        } else {
            Ok(())
        }
    }
}

impl Env for Hostile {
    fn reg(&self, reg: Reg) -> u64 {
        u64::MAX / (u64::from(reg.number()) + 1)
    }

    /// No question to the system: it costs what any instruction does.
    fn set_reg(&mut self, reg: Reg, _value: u64) {
        assert!(reg.is_writable());
    }

    fn read(&mut self, _addr: u64, buf: &mut [u8]) -> Result<(), BadAddress> {
        self.answer(buf)
    }

    fn write(&mut self, _addr: u64, _bytes: &[u8]) -> Result<(), BadAddress> {
        self.answer(&mut [])
    }

    fn read_str(&mut self, _addr: u64, buf: &mut [u8]) -> Result<usize, BadAddress> {
        self.answer(buf)?;
        // Even more than there is room for.
        Ok(if self.rng.below(4) == 0 {
            usize::MAX
        } else {
            self.rng.below(buf.len() as u64 + 1) as usize
        })
    }

    fn writable(&mut self, _addr: u64) -> bool {
        self.rng.one_in(2)
    }

    fn user_reg(&mut self, reg: Reg) -> Option<u64> {
        assert!(reg.is_saved());
        self.rng.one_in(2).then(|| self.rng.next())
    }

    fn set_user_reg(&mut self, reg: Reg, _value: u64) -> bool {
        assert!(reg.is_writable());
        self.rng.one_in(2)
    }

    fn system_reg(&mut self, _reg: Reg, words: &mut [u64; 8]) -> bool {
        *words = [self.rng.next(); 8];
        self.rng.one_in(2)
    }

    fn cpuid(&mut self, _leaf: u32, _subleaf: u32) -> [u32; 4] {
        [self.rng.next() as u32; 4]
    }

    fn msr(&mut self, _number: u32) -> Option<u64> {
        self.rng.one_in(2).then(|| self.rng.next())
    }

    fn port_read(&mut self, port: u16, width: PortWidth) -> Option<u32> {
        assert!(port.checked_add(width.bytes() - 1).is_some());
        self.rng.one_in(2).then(|| self.rng.next() as u32)
    }

    fn port_write(&mut self, port: u16, width: PortWidth, _value: u32) -> bool {
        assert!(port.checked_add(width.bytes() - 1).is_some());
        self.rng.one_in(2)
    }

    fn task(&mut self) -> TaskValues {
        TaskValues {
            task: self.rng.next(),
            pid: 1,
            tid: 2,
            uid: 3,
            name: [self.rng.next() as u8; 16],
        }
    }

    fn cpu(&mut self) -> u32 {
        self.rng.next() as u32
    }

    fn clock(&mut self) -> u64 {
        self.rng.next()
    }

    fn tsc(&mut self) -> u64 {
        self.rng.next()
    }

    fn kernel_stack(&mut self, addresses: &mut [u64]) -> usize {
        addresses.fill(self.rng.next());
        // Even more than were asked for.
        self.rng.below(200) as usize
    }

    fn user_stack(&mut self, addresses: &mut [u64]) -> usize {
        self.kernel_stack(addresses)
    }

    fn aggregate(&mut self, _map: u16, keys: &[u64], _value: u64) {
        assert!(keys.len() <= 4);
    }

    fn suspend(&mut self, _group: u16, _suspended: bool) {}
}
