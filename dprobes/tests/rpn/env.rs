//! Machines to probe.

use dprobes::rpn::BadAddress;
use dprobes::rpn::interp::Env;
use dprobes::rpn::reg::Reg;

/// Registers, and a few ranges of memory. Everything else is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub regs: [u64; 32],
    pub ram: Vec<Range>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub start: u64,
    pub bytes: Vec<u8>,
    pub writable: bool,
}

impl Machine {
    pub fn new() -> Self {
        Self {
            regs: std::array::from_fn(|i| 0x1000 + i as u64),
            ram: Vec::new(),
        }
    }

    pub fn with(mut self, start: u64, bytes: &[u8]) -> Self {
        self.ram.push(Range {
            start,
            bytes: bytes.to_vec(),
            writable: true,
        });
        self
    }

    pub fn with_rom(mut self, start: u64, bytes: &[u8]) -> Self {
        self.ram.push(Range {
            start,
            bytes: bytes.to_vec(),
            writable: false,
        });
        self
    }

    fn byte(&mut self, addr: u64, write: bool) -> Option<&mut u8> {
        let range = self.ram.iter_mut().find(|range| {
            addr >= range.start && addr - range.start < range.bytes.len() as u64 && (range.writable || !write)
        })?;
        range.bytes.get_mut((addr - range.start) as usize)
    }

    pub fn load(&mut self, addr: u64, len: usize) -> Result<Vec<u8>, u64> {
        (0..len as u64)
            .map(|i| {
                let bad = addr.saturating_add(i);
                self.byte(addr.checked_add(i).ok_or(bad)?, false)
                    .map(|byte| *byte)
                    .ok_or(bad)
            })
            .collect()
    }
}

impl Env for Machine {
    fn reg(&self, reg: Reg) -> u64 {
        self.regs[usize::from(reg.number())]
    }

    fn set_reg(&mut self, reg: Reg, value: u64) {
        assert!(reg.is_writable());
        self.regs[usize::from(reg.number())] = value;
    }

    fn read(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), BadAddress> {
        let bytes = self.load(addr, buf.len()).map_err(|addr| BadAddress { addr })?;
        buf.copy_from_slice(&bytes);
        Ok(())
    }

    fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<(), BadAddress> {
        for (i, byte) in bytes.iter().enumerate() {
            let bad = BadAddress {
                addr: addr.saturating_add(i as u64),
            };
            let addr = addr.checked_add(i as u64).ok_or(bad)?;
            *self.byte(addr, true).ok_or(bad)? = *byte;
        }
        Ok(())
    }
}

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

    fn set_reg(&mut self, reg: Reg, _value: u64) {
        assert!(reg.is_writable());
        self.asked += 1;
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
}
