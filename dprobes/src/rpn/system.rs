//! What the system around the program knows and does: registers that no trap saves, ports, the current task, maps, groups.

use super::env::{Env, PortWidth};
use super::exception::operand;
use super::limits::{MAP_KEYS_MAX, MEMORY_COST, SYSTEM_COST};
use super::rare::{Failure, Machine};
use super::reg::Reg;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SystemInsn {
    Suspend { group: u16, suspended: bool },
    PushUser(Reg),
    PopUser(Reg),
    PushSystem(Reg),
    Cpuid,
    Msr,
    PortRead(PortWidth),
    PortWrite(PortWidth),
    Readable,
    Writable,
    Task,
    Pid,
    Tid,
    Uid,
    Cpu,
    Clock,
    Tsc,
    Name,
    Aggregate { map: u16, keys: u8, value: bool },
}

impl SystemInsn {
    /// What it is charged before it is executed.
    const fn cost(self) -> u32 {
        match self {
            // A virtual machine may have to leave the guest for these.
            Self::Cpuid | Self::Msr | Self::PortRead(_) | Self::PortWrite(_) | Self::PushSystem(_) => SYSTEM_COST,
            _ => MEMORY_COST,
        }
    }

    pub(super) fn execute<E: Env>(self, m: &mut Machine<'_, '_, E>) -> Result<(), Failure> {
        m.charge(self.cost())?;
        match self {
            Self::Suspend { group, suspended } => m.env.suspend(group, suspended),
            Self::PushUser(reg) => {
                let value = m.env.user_reg(reg).ok_or(no_register(reg))?;
                m.push(value);
            }
            Self::PopUser(reg) => {
                let value = m.pop();
                if !m.env.set_user_reg(reg, value) {
                    return Err(no_register(reg));
                }
            }
            Self::PushSystem(reg) => {
                let mut words = [0; 8];
                if !m.env.system_reg(reg, &mut words) {
                    return Err(no_register(reg));
                }
                for word in words.into_iter().take(reg.words()).rev() {
                    m.push(word);
                }
            }
            Self::Cpuid => {
                // Like the instruction, it looks at the low half of its operands.
                let subleaf = m.pop() as u32;
                let leaf = m.pop() as u32;
                let [eax, ebx, ecx, edx] = m.env.cpuid(leaf, subleaf);
                for half in [edx, ecx, ebx, eax] {
                    m.push(u64::from(half));
                }
            }
            Self::Msr => {
                let number = m.pop();
                let value = u32::try_from(number).ok().and_then(|number| m.env.msr(number));
                m.push(value.ok_or(Failure::operand(operand::MSR, number))?);
            }
            Self::PortRead(width) => {
                let port = m.pop();
                let value = port_of(port, width).and_then(|port| m.env.port_read(port, width));
                let value = value.ok_or(Failure::operand(operand::PORT, port))?;
                m.push(u64::from(value) & mask(width));
            }
            Self::PortWrite(width) => {
                let value = (m.pop() & mask(width)) as u32;
                let port = m.pop();
                let written = port_of(port, width).is_some_and(|port| m.env.port_write(port, width, value));
                if !written {
                    return Err(Failure::operand(operand::PORT, port));
                }
            }
            Self::Readable => {
                let address = m.pop();
                let good = m.env.readable(address);
                m.push(u64::from(!good));
            }
            Self::Writable => {
                let address = m.pop();
                let good = m.env.writable(address);
                m.push(u64::from(!good));
            }
            Self::Task | Self::Pid | Self::Tid | Self::Uid => {
                let task = m.env.task();
                m.push(match self {
                    Self::Task => task.task,
                    Self::Pid => u64::from(task.pid),
                    Self::Tid => u64::from(task.tid),
                    _ => u64::from(task.uid),
                });
            }
            Self::Cpu => {
                let cpu = m.env.cpu();
                m.push(u64::from(cpu));
            }
            Self::Clock => {
                let clock = m.env.clock();
                m.push(clock);
            }
            Self::Tsc => {
                let tsc = m.env.tsc();
                m.push(tsc);
            }
            Self::Name => {
                let name = u128::from_le_bytes(m.env.task().name);
                m.push((name >> 64) as u64);
                m.push(name as u64);
            }
            Self::Aggregate { map, keys, value } => {
                let value = if value { m.pop() } else { 1 };
                let mut words = [0; MAP_KEYS_MAX as usize];
                let Some(words) = words.get_mut(..usize::from(keys)) else {
                    return Ok(());
                };
                for word in words.iter_mut().rev() {
                    *word = m.pop();
                }
                m.env.aggregate(map, words, value);
            }
        }
        Ok(())
    }
}

const fn no_register(reg: Reg) -> Failure {
    Failure::operand(operand::REGISTER, reg.number() as u64)
}

/// A port, if all that the access takes exist.
fn port_of(port: u64, width: PortWidth) -> Option<u16> {
    let port = u16::try_from(port).ok()?;
    port.checked_add(width.bytes() - 1)?;
    Some(port)
}

const fn mask(width: PortWidth) -> u64 {
    match width {
        PortWidth::U8 => 0xff,
        PortWidth::U16 => 0xffff,
        PortWidth::U32 => 0xffff_ffff,
    }
}
