//! The made-up machine: everything a program can reach outside itself.

use std::collections::BTreeMap;

use dprobes::host::Task;
use dprobes::rpn::BadAddress;
use dprobes::rpn::interp::{Env, PortWidth, TaskValues};
use dprobes::rpn::reg::Reg;

use crate::memory::Memory;
use crate::settings::{Fact, RegValue};

/// A machine on which a hit happens.
///
/// What nobody has set is as good as on a live machine: memory that is not mapped cannot be read, a register holds 0, a port has no
/// device and reads as ones, a model-specific register that is not there faults, and the task has no user mode.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its memory.
    pub memory: Memory,
    /// Registers that were set, with their words, the lowest first; `None` for those that it does not have.
    pub regs: BTreeMap<Reg, Option<Vec<u64>>>,
    /// The registers that the task has in user mode, if it has one; those that are not here are 0.
    pub user: Option<BTreeMap<Reg, u64>>,
    /// The task that runs.
    pub task: Task,
    /// The CPU it runs on.
    pub cpu: u32,
    /// Nanoseconds since boot.
    pub clock: u64,
    /// Time-stamp counter; as the clock unless it was set.
    pub tsc: Option<u64>,
    /// Model-specific registers.
    pub msrs: BTreeMap<u32, u64>,
    /// What ports read as.
    pub ports: BTreeMap<u16, u32>,
    /// What `cpuid` answers, by leaf and subleaf; zeros elsewhere.
    pub cpuid: BTreeMap<(u32, u32), [u32; 4]>,
    /// Return addresses on the kernel stack, the innermost first.
    pub kernel_stack: Vec<u64>,
    /// Return addresses on the stack of the process, the innermost first; there are none without user mode.
    pub user_stack: Vec<u64>,
    /// What was written to ports: port, width, value.
    pub written: Vec<(u16, PortWidth, u32)>,
}

impl Default for Machine {
    fn default() -> Self {
        let mut name = [0; 16];
        name[..9].copy_from_slice(b"simulator");
        Self {
            memory: Memory::default(),
            regs: BTreeMap::new(),
            user: None,
            task: Task {
                pid: 1,
                tid: 1,
                name,
                ..Task::default()
            },
            cpu: 0,
            clock: 0,
            tsc: None,
            msrs: BTreeMap::new(),
            ports: BTreeMap::new(),
            cpuid: BTreeMap::new(),
            kernel_stack: Vec::new(),
            user_stack: Vec::new(),
            written: Vec::new(),
        }
    }
}

impl Machine {
    /// Sets a register.
    pub fn set(&mut self, value: &RegValue) {
        self.regs.insert(value.reg, value.words.clone());
    }

    /// Sets a register of user mode, which the task has from then on.
    pub fn set_user(&mut self, reg: Reg, value: u64) {
        self.user.get_or_insert_default().insert(reg, value);
    }

    /// Sets a fact.
    pub fn establish(&mut self, fact: &Fact) {
        match fact {
            Fact::Task(task) => self.task.cookie = *task,
            Fact::Pid(pid) => {
                // A process has a thread of its own number.
                self.task.pid = *pid;
                self.task.tid = *pid;
            }
            Fact::Tid(tid) => self.task.tid = *tid,
            Fact::Uid(uid) => self.task.uid = *uid,
            Fact::Name(name) => self.task.name = *name,
            Fact::Cpu(cpu) => self.cpu = *cpu,
            Fact::Clock(clock) => self.clock = *clock,
            Fact::Tsc(tsc) => self.tsc = Some(*tsc),
        }
    }

    /// The words of a register; `None` if the machine does not have it.
    #[must_use]
    pub fn reg_words(&self, reg: Reg) -> Option<Vec<u64>> {
        match self.regs.get(&reg) {
            Some(words) => words.clone(),
            None => Some(vec![0; reg.words()]),
        }
    }
}

/// What a hit does to maps and groups, which belong to the program and not to the machine.
pub(crate) trait Effects {
    /// `agg`.
    fn aggregate(&mut self, cpu: u32, map: u16, keys: &[u64], value: u64);
    /// `suspend` and `resume`.
    fn suspend(&mut self, group: u16, suspended: bool);
}

/// The machine during a hit.
pub(crate) struct Live<'a, E> {
    pub(crate) machine: &'a mut Machine,
    pub(crate) effects: E,
}

impl<E: Effects> Env for Live<'_, E> {
    fn reg(&self, reg: Reg) -> u64 {
        let words = self.machine.reg_words(reg);
        words.and_then(|words| words.first().copied()).unwrap_or(0)
    }

    fn set_reg(&mut self, reg: Reg, value: u64) {
        self.machine.regs.insert(reg, Some(vec![value]));
    }

    fn read(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), BadAddress> {
        self.machine.memory.read(addr, buf)
    }

    fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<(), BadAddress> {
        self.machine.memory.write(addr, bytes)
    }

    fn writable(&mut self, addr: u64) -> bool {
        self.machine.memory.allows(addr, true)
    }

    fn user_reg(&mut self, reg: Reg) -> Option<u64> {
        let user = self.machine.user.as_ref()?;
        Some(user.get(&reg).copied().unwrap_or(0))
    }

    fn set_user_reg(&mut self, reg: Reg, value: u64) -> bool {
        match &mut self.machine.user {
            Some(user) => {
                user.insert(reg, value);
                true
            }
            None => false,
        }
    }

    fn system_reg(&mut self, reg: Reg, words: &mut [u64; 8]) -> bool {
        match self.machine.reg_words(reg) {
            Some(found) => {
                for (to, from) in words.iter_mut().zip(found) {
                    *to = from;
                }
                true
            }
            None => false,
        }
    }

    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> [u32; 4] {
        self.machine.cpuid.get(&(leaf, subleaf)).copied().unwrap_or_default()
    }

    fn msr(&mut self, number: u32) -> Option<u64> {
        self.machine.msrs.get(&number).copied()
    }

    fn port_read(&mut self, port: u16, width: PortWidth) -> Option<u32> {
        let value = self.machine.ports.get(&port).copied().unwrap_or(u32::MAX);
        Some(value & mask(width))
    }

    fn port_write(&mut self, port: u16, width: PortWidth, value: u32) -> bool {
        self.machine.written.push((port, width, value & mask(width)));
        true
    }

    fn task(&mut self) -> TaskValues {
        let Task {
            pid,
            tid,
            uid,
            cookie,
            name,
            ..
        } = self.machine.task;
        TaskValues {
            task: cookie,
            pid,
            tid,
            uid,
            name,
        }
    }

    fn cpu(&mut self) -> u32 {
        self.machine.cpu
    }

    fn clock(&mut self) -> u64 {
        self.machine.clock
    }

    fn tsc(&mut self) -> u64 {
        self.machine.tsc.unwrap_or(self.machine.clock)
    }

    fn kernel_stack(&mut self, addresses: &mut [u64]) -> usize {
        let rip = self.reg(Reg::Rip);
        fill(addresses, rip, &self.machine.kernel_stack)
    }

    fn user_stack(&mut self, addresses: &mut [u64]) -> usize {
        match self.user_reg(Reg::Rip) {
            Some(rip) => fill(addresses, rip, &self.machine.user_stack),
            None => 0,
        }
    }

    fn aggregate(&mut self, map: u16, keys: &[u64], value: u64) {
        self.effects.aggregate(self.machine.cpu, map, keys, value);
    }

    fn suspend(&mut self, group: u16, suspended: bool) {
        self.effects.suspend(group, suspended);
    }
}

fn mask(width: PortWidth) -> u32 {
    match width {
        PortWidth::U8 => 0xff,
        PortWidth::U16 => 0xffff,
        PortWidth::U32 => u32::MAX,
    }
}

fn fill(to: &mut [u64], first: u64, others: &[u64]) -> usize {
    let all = std::iter::once(&first).chain(others);
    to.iter_mut().zip(all).map(|(to, from)| *to = *from).count()
}
