//! What instructions ask the system, and the byte heap.

use dprobes::rpn::interp::{Env, PortWidth};
use dprobes::rpn::object::Map;
use dprobes::rpn::op::Op;
use dprobes::rpn::reg::Reg;

use super::step::INVALID_OPERAND;
use super::{Naive, Stop};

fn port_width(op: Op) -> PortWidth {
    match op {
        Op::PushIoU8 | Op::PopIoU8 => PortWidth::U8,
        Op::PushIoU16 | Op::PopIoU16 => PortWidth::U16,
        _ => PortWidth::U32,
    }
}

/// The low bytes of a word that an access has.
fn masked(width: PortWidth, value: u64) -> u64 {
    value % (1 << (8 * width.bytes()))
}

impl Naive<'_> {
    pub(super) fn map(&self, index: u64) -> Map<'_> {
        self.object.maps().nth(index as usize).unwrap()
    }

    pub(super) fn ask(&mut self, op: Op, operand: u64) -> Result<(), Stop> {
        use Op::*;
        let reg = || Reg::from_number(operand as u16).unwrap();
        let no_register = Stop::Raise(INVALID_OPERAND, 7, operand);
        match op {
            PopR => {
                let value = self.stack.pop();
                self.machine.set_reg(Reg::from_number(operand as u16).unwrap(), value);
            }
            PushMemU8 | PushMemU16 | PushMemU32 | PushMemU64 | PushMemS8 | PushMemS16 | PushMemS32 => {
                self.budget -= 8;
                let addr = self.stack.pop();
                let len = match op {
                    PushMemU8 | PushMemS8 => 1,
                    PushMemU16 | PushMemS16 => 2,
                    PushMemU32 | PushMemS32 => 4,
                    _ => 8,
                };
                let bytes = self.machine.load(addr, len).map_err(|bad| Stop::Raise(1, bad, 0))?;
                let negative = matches!(op, PushMemS8 | PushMemS16 | PushMemS32) && bytes[len - 1] >= 0x80;
                let mut word = [if negative { 0xff } else { 0 }; 8];
                word[..len].copy_from_slice(&bytes);
                self.stack.push(u64::from_le_bytes(word));
            }
            PopMemU8 | PopMemU16 | PopMemU32 | PopMemU64 => {
                self.budget -= 8;
                let value = self.stack.pop();
                let addr = self.stack.pop();
                let len = match op {
                    PopMemU8 => 1,
                    PopMemU16 => 2,
                    PopMemU32 => 4,
                    _ => 8,
                };
                self.machine
                    .write(addr, &value.to_le_bytes()[..len])
                    .map_err(|bad| Stop::Raise(1, bad.addr, 0))?;
            }
            PushR => {
                // A system register, the lowest word on top.
                self.charge(256)?;
                let mut words = [0; 8];
                if !self.machine.system_reg(reg(), &mut words) {
                    return Err(no_register);
                }
                for index in (0..reg().words()).rev() {
                    self.stack.push(words[index]);
                }
            }
            PushU => {
                self.charge(8)?;
                let value = self.machine.user_reg(reg()).ok_or(no_register)?;
                self.stack.push(value);
            }
            PopU => {
                self.charge(8)?;
                let value = self.stack.pop();
                if !self.machine.set_user_reg(reg(), value) {
                    return Err(no_register);
                }
            }
            PushCpuid => {
                self.charge(256)?;
                let subleaf = self.stack.pop();
                let leaf = self.stack.pop();
                let [eax, ebx, ecx, edx] = self.machine.cpuid(leaf as u32, subleaf as u32);
                for half in [edx, ecx, ebx, eax] {
                    self.stack.push(half.into());
                }
            }
            PushMsr => {
                self.charge(256)?;
                let number = self.stack.pop();
                let value = if number > 0xffff_ffff {
                    None
                } else {
                    self.machine.msr(number as u32)
                };
                self.stack.push(value.ok_or(Stop::Raise(INVALID_OPERAND, 9, number))?);
            }
            PushIoU8 | PushIoU16 | PushIoU32 => {
                self.charge(256)?;
                let width = port_width(op);
                let port = self.stack.pop();
                let exists = port <= 0xffff && port + u64::from(width.bytes()) <= 0x1_0000;
                let value = if exists {
                    self.machine.port_read(port as u16, width)
                } else {
                    None
                };
                let value = value.ok_or(Stop::Raise(INVALID_OPERAND, 8, port))?;
                self.stack.push(masked(width, value.into()));
            }
            PopIoU8 | PopIoU16 | PopIoU32 => {
                self.charge(256)?;
                let width = port_width(op);
                let value = masked(width, self.stack.pop());
                let port = self.stack.pop();
                let exists = port <= 0xffff && port + u64::from(width.bytes()) <= 0x1_0000;
                if !exists || !self.machine.port_write(port as u16, width, value as u32) {
                    return Err(Stop::Raise(INVALID_OPERAND, 8, port));
                }
            }
            VfyR | VfyRw => {
                self.charge(8)?;
                let addr = self.stack.pop();
                let good = match op {
                    VfyR => self.machine.load(addr, 1).is_ok(),
                    _ => self.machine.writable(addr),
                };
                self.stack.push(if good { 0 } else { 1 });
            }
            PushTask | PushPid | PushTid | PushUid | PushCpu | PushClock | PushTsc => {
                self.charge(8)?;
                let task = self.machine.task();
                self.stack.push(match op {
                    PushTask => task.task,
                    PushPid => task.pid.into(),
                    PushTid => task.tid.into(),
                    PushUid => task.uid.into(),
                    PushCpu => self.machine.cpu().into(),
                    PushClock => self.machine.clock(),
                    _ => self.machine.tsc(),
                });
            }
            PushName => {
                self.charge(8)?;
                let name = self.machine.task().name;
                for half in [&name[8..], &name[..8]] {
                    self.stack.push(u64::from_le_bytes(half.try_into().unwrap()));
                }
            }
            Suspend | Resume => {
                self.charge(8)?;
                let groups: std::collections::BTreeSet<u16> = self.object.points().map(|point| point.group()).collect();
                let index = groups.iter().position(|group| u64::from(*group) == operand).unwrap();
                self.machine.suspend(index as u16, op == Suspend);
            }
            Agg => {
                self.charge(8)?;
                let map = self.map(operand);
                let (keys, has_value) = (map.keys, map.kind.takes_value());
                let value = if has_value { self.stack.pop() } else { 1 };
                let mut keys: Vec<u64> = (0..keys).map(|_| self.stack.pop()).collect();
                keys.reverse();
                self.machine.aggregate(operand as u16, &keys, value);
            }
            Malloc => {
                let size = self.stack.peek(0);
                let used: usize = self.heap.iter().map(|(_, block)| block.len()).sum();
                let fits = size <= (self.heap_size - used) as u64;
                if fits {
                    self.charge(size as i64 / 8)?;
                }
                self.stack.pop();
                if !fits || self.heap.len() == 64 {
                    return Err(Stop::Raise(0x100, size, 0));
                }
                self.handles += 1;
                self.heap.push((self.handles, vec![0; size as usize]));
                self.stack.push(self.handles);
            }
            Free => {
                let handle = self.stack.peek(0);
                let Some(index) = self.heap.iter().position(|(number, _)| *number == handle) else {
                    self.stack.pop();
                    return Err(Stop::Raise(0x200, handle, 0));
                };
                let behind: usize = self.heap[index + 1..].iter().map(|(_, block)| block.len()).sum();
                self.charge(behind as i64 / 2)?;
                self.stack.pop();
                self.heap.remove(index);
            }
            PushhU8 | PushhU16 | PushhU32 | PushhU64 => {
                let width = heap_width(op);
                let (index, start) = match self.heap_place(width, operand) {
                    Err(stop @ Stop::Exhausted) => return Err(stop),
                    place => {
                        self.stack.pop();
                        self.stack.pop();
                        place?
                    }
                };
                for bytes in self.heap[index].1[start..].chunks(width).take(operand as usize) {
                    let mut word = [0; 8];
                    word[..width].copy_from_slice(bytes);
                    self.stack.push(u64::from_le_bytes(word));
                }
            }
            PophU8 | PophU16 | PophU32 | PophU64 => {
                let width = heap_width(op);
                let place = match self.heap_place(width, operand) {
                    Err(stop @ Stop::Exhausted) => return Err(stop),
                    place => place,
                };
                self.stack.pop();
                self.stack.pop();
                let values: Vec<u64> = (0..operand).map(|_| self.stack.pop()).collect();
                let (index, start) = place?;
                for (bytes, value) in self.heap[index].1[start..].chunks_mut(width).zip(values) {
                    bytes.copy_from_slice(&value.to_le_bytes()[..width]);
                }
            }
            other => unreachable!("{other}"),
        }
        Ok(())
    }

    /// The block and the offset that `handle offset` on the stack name, if so many values are there.
    fn heap_place(&mut self, width: usize, count: u64) -> Result<(usize, usize), Stop> {
        let (handle, offset) = (self.stack.peek(1), self.stack.peek(0));
        let index = self.heap.iter().position(|(number, _)| *number == handle);
        let index = index.ok_or(Stop::Raise(0x200, handle, offset))?;
        let len = self.heap[index].1.len() as u64;
        if u128::from(offset) + u128::from(count) * width as u128 > u128::from(len) {
            return Err(Stop::Raise(0x400, handle, offset.max(len)));
        }
        self.charge(count as i64)?;
        Ok((index, offset as usize))
    }
}

fn heap_width(op: Op) -> usize {
    match op {
        Op::PushhU8 | Op::PophU8 => 1,
        Op::PushhU16 | Op::PophU16 => 2,
        Op::PushhU32 | Op::PophU32 => 4,
        _ => 8,
    }
}
