//! A machine to probe. It is the same on the host, in the test kernel and in Linux, where there is no `std`.

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use dprobes::rpn::BadAddress;
use dprobes::rpn::interp::{Env, PortWidth, TaskValues};
use dprobes::rpn::reg::Reg;

/// Registers, a few ranges of memory, and what else a program may ask for. Everything else is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub regs: [u64; 32],
    /// None: there is no user mode.
    pub user_regs: Option<[u64; 32]>,
    pub ram: Vec<Range>,
    /// Bytes by port; there is privilege for these only.
    pub ports: BTreeMap<u16, u8>,
    pub kernel_stack: Vec<u64>,
    pub user_stack: Vec<u64>,
    /// What was added to maps: map, keys, value.
    pub added: Vec<(u16, Vec<u64>, u64)>,
    /// Groups that were suspended or resumed, by index.
    pub suspended: Vec<(u16, bool)>,
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
            regs: core::array::from_fn(|i| 0x1000 + i as u64),
            user_regs: None,
            ram: Vec::new(),
            ports: BTreeMap::new(),
            kernel_stack: Vec::new(),
            user_stack: Vec::new(),
            added: Vec::new(),
            suspended: Vec::new(),
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

    fn writable(&mut self, addr: u64) -> bool {
        self.byte(addr, true).is_some()
    }

    fn user_reg(&mut self, reg: Reg) -> Option<u64> {
        assert!(reg.is_saved());
        Some(self.user_regs?[usize::from(reg.number())])
    }

    fn set_user_reg(&mut self, reg: Reg, value: u64) -> bool {
        assert!(reg.is_writable());
        let Some(regs) = &mut self.user_regs else { return false };
        regs[usize::from(reg.number())] = value;
        true
    }

    /// Word number `i` of a register has its number in the upper half and `i` in the lower. There is no register with 256 bits or
    /// more.
    fn system_reg(&mut self, reg: Reg, words: &mut [u64; 8]) -> bool {
        assert_eq!(reg.class(), dprobes::rpn::reg::Class::System);
        *words = core::array::from_fn(|i| u64::from(reg.number()) << 32 | i as u64);
        reg.words() <= 2
    }

    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> [u32; 4] {
        [leaf, subleaf, 0x6c65_746e, 0xffff_ffff]
    }

    /// Those below 16 are there.
    fn msr(&mut self, number: u32) -> Option<u64> {
        (number < 16).then_some(0xffff_ffff_0000_0000 | u64::from(number))
    }

    fn port_read(&mut self, port: u16, width: PortWidth) -> Option<u32> {
        (0..width.bytes()).rev().try_fold(0, |value, i| {
            let byte = self.ports.get(&port.checked_add(i).expect("a port"))?;
            Some(value << 8 | u32::from(*byte))
        })
    }

    fn port_write(&mut self, port: u16, width: PortWidth, value: u32) -> bool {
        if self.port_read(port, width).is_none() {
            return false;
        }
        self.ports
            .extend((port..).zip(value.to_le_bytes()).take(usize::from(width.bytes())));
        true
    }

    fn task(&mut self) -> TaskValues {
        TaskValues {
            task: 0xffff_8880_0123_4000,
            pid: 70,
            tid: 71,
            uid: 1000,
            name: *b"kworker/u8:0\0\0\0\0",
        }
    }

    fn cpu(&mut self) -> u32 {
        3
    }

    fn clock(&mut self) -> u64 {
        1_000_000_007
    }

    fn tsc(&mut self) -> u64 {
        0x1234_5678_9abc
    }

    fn kernel_stack(&mut self, addresses: &mut [u64]) -> usize {
        fill(addresses, &self.kernel_stack)
    }

    fn user_stack(&mut self, addresses: &mut [u64]) -> usize {
        fill(addresses, &self.user_stack)
    }

    fn aggregate(&mut self, map: u16, keys: &[u64], value: u64) {
        self.added.push((map, keys.to_vec(), value));
    }

    fn suspend(&mut self, group: u16, suspended: bool) {
        self.suspended.push((group, suspended));
    }
}

fn fill(addresses: &mut [u64], stack: &[u64]) -> usize {
    let count = addresses.len().min(stack.len());
    addresses[..count].copy_from_slice(&stack[..count]);
    count
}
