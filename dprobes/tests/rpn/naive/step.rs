//! What each instruction does, but for those that ask the system.

use dprobes::rpn::interp::Env;
use dprobes::rpn::op::Op;
use dprobes::rpn::reg::{Class, Reg};

use super::record::{Shown, is_boundary};
use super::stack::WORDS;
use super::{End, Frame, Naive, POOL_FIRST, Stop};

pub const INVALID_OPERAND: u16 = 0x40;

impl Naive<'_> {
    /// Words an instruction pops and pushes.
    fn needs(&self, op: Op, operand: u64) -> (usize, usize) {
        use Op::*;
        let n = operand as usize;
        match op {
            Nop | Jmp | Call | Ret | Abort | Remove | Exit | ExitTo | Suspend | Resume | SetMin | SetMaj => (0, 0),
            IncLv | DecLv | IncGv | DecGv | Sx | Ux | LogName | LogSt | PurgeSt => (0, 0),
            Push | PushLv | PushGv | PushCv | PushU | PushWid | PushLp | PushPlp | PushStp | AllocLv | AllocGv => {
                (0, 1)
            }
            SaveSbp | SaveTsp | PushSbp | PushTsp => (0, 1),
            PushTask | PushPid | PushTid | PushUid | PushCpu | PushClock | PushTsc => (0, 1),
            PushName => (0, 2),
            PushR => (0, Reg::from_number(operand as u16).unwrap().words()),
            PushX => (0, 3),
            SetMinS | SetMajS | PopLv | PopGv | PopCv | IncLvS | DecLvS | IncGvS | DecGvS | PopR | PopU => (1, 0),
            FreeLv | FreeGv | PopLp | PopStp | LogKstack | LogUstack | Free | RestoreSbp | RestoreTsp => (1, 0),
            PopSbp | PopTsp => (1, 0),
            CopySbp | CopyTsp | PushSbpS | PushTspS => (1, 1),
            PopSbpS | PopTspS => (2, 0),
            CopySbpS | CopyTspS => (2, 1),
            Jlt | Jle | Jgt | Jge | Jz | Jnz | Loop | MoveLv | MoveGv | PushLvS | PushGvS => (1, 1),
            Neg | Not | Rol | Ror | Shl | Shr | Pbl | Pbr | Pzl | Pzr => (1, 1),
            PushMemU8 | PushMemU16 | PushMemU32 | PushMemU64 | PushMemS8 | PushMemS16 | PushMemS32 => (1, 1),
            PushIoU8 | PushIoU16 | PushIoU32 | PushMsr | VfyR | VfyRw | Malloc => (1, 1),
            LogStr | LogMrf | LogLv | LogGv | TraceLv | TraceGv | TracePv => (2, 0),
            PopLvS | PopGvS | PopMemU8 | PopMemU16 | PopMemU32 | PopMemU64 | PopIoU8 | PopIoU16 | PopIoU32 => (2, 0),
            MoveLvS | MoveGvS | Add | Sub | Mul | And | Or | Xor | RolS | RorS | ShlS | ShrS => (2, 1),
            PblS | PbrS | PzlS | PzrS => (2, 1),
            Div | Idiv | Xchg => (2, 2),
            PushCpuid => (2, 4),
            Rx => (3, 3),
            Log | Ros => (n, 0),
            Dup => (1, n),
            PushhU8 | PushhU16 | PushhU32 | PushhU64 => (2, n),
            PophU8 | PophU16 | PophU32 | PophU64 => (n + 2, 0),
            Agg => {
                let map = self.map(operand);
                (usize::from(map.keys) + usize::from(map.kind.takes_value()), 0)
            }
            // Their counts are looked at when they are known.
            LogS => (1, 0),
            DupS => (2, 0),
        }
    }

    pub(super) fn step(&mut self, at: usize, pc: &mut usize, op: Op, operand: u64) -> Result<(), Stop> {
        use Op::*;
        let wrap = |(parm1, parm2)| Stop::Raise(0x2000, parm1, parm2);
        let (pops, pushes) = self.needs(op, operand);
        if matches!(op, PushTsp | PopTsp | CopyTsp) {
            // All that is missing down to the position.
            let down = pops + usize::try_from(i64::from(operand as i16) + 1).unwrap_or(0);
            if let Some(parms) = self.stack.wraps(down, 0) {
                return Err(wrap(parms));
            }
        }
        if let Some(parms) = self.stack.wraps(pops, pushes) {
            return Err(wrap(parms));
        }
        let target = (*pc as i64 + i64::from(operand as u32 as i32)) as usize;
        match op {
            Nop => {}
            Jmp => self.jump(at, pc, target)?,
            Jlt | Jle | Jgt | Jge | Jz | Jnz => {
                let word = self.stack.pop();
                self.stack.push(word);
                let word = word as i64;
                let taken = match op {
                    Jlt => word < 0,
                    Jle => word <= 0,
                    Jgt => word > 0,
                    Jge => word >= 0,
                    Jz => word == 0,
                    _ => word != 0,
                };
                if taken {
                    self.jump(at, pc, target)?;
                }
            }
            Loop => {
                self.count_jump()?;
                let word = self.stack.pop().wrapping_sub(1);
                self.stack.push(word);
                if word != 0 {
                    self.charge_move(at, target)?;
                    *pc = target;
                }
            }
            Call => {
                if self.frames.len() == 33 {
                    return Err(Stop::Raise(0x10, 32, 0));
                }
                self.charge_move(at, target)?;
                self.frames.push(Frame {
                    called: target,
                    back: Some(*pc),
                    handler: None,
                    sbp: self.sbp,
                    shown: Shown::default(),
                });
                *pc = target;
            }
            Ret => {
                if self.frames.len() == 1 {
                    return Err(Stop::Raise(0x10, 0, 0));
                }
                let back = self.frames.last().unwrap().back.unwrap();
                self.charge_move(at, back)?;
                self.sbp = self.frames.pop().unwrap().sbp;
                *pc = back;
            }
            Abort => return Err(Stop::End(End::Abort)),
            Remove => return Err(Stop::End(End::Remove)),
            Exit => return Err(Stop::End(End::Exit)),
            ExitTo => return Err(Stop::End(End::ExitTo(operand as u8))),
            SetMin => self.minor = Some(operand as u16),
            SetMaj => self.major = Some(operand as u16),
            SetMinS => {
                let code = self.stack.pop();
                self.minor = Some(u16::try_from(code).map_err(|_| Stop::Raise(INVALID_OPERAND, 6, code))?);
            }
            SetMajS => {
                let code = self.stack.pop();
                if code == 0 || code > 0xffff {
                    return Err(Stop::Raise(INVALID_OPERAND, 6, code));
                }
                self.major = Some(code as u16);
            }
            LogStr | LogMrf => {
                let addr = self.stack.pop();
                let len = self.stack.pop();
                self.budget -= 8;
                if op == LogStr {
                    self.log_str(addr, len)?
                } else {
                    self.log_mrf(addr, len)?
                }
            }
            Log => {
                let words: Vec<u64> = (0..operand).map(|_| self.stack.pop()).collect();
                self.log_words(7, &words)?;
            }
            LogS => {
                let count = self.stack.pop();
                if count > WORDS as u64 {
                    return Err(Stop::Raise(INVALID_OPERAND, 5, count));
                }
                if let Some(parms) = self.stack.wraps(count as usize, 0) {
                    self.stack.push(count);
                    return Err(wrap(parms));
                }
                let words: Vec<u64> = (0..count).map(|_| self.stack.pop()).collect();
                self.log_words(7, &words)?;
            }
            LogLv | LogGv => {
                let count = self.stack.pop();
                let first = self.stack.pop();
                let (class, all) = match op {
                    LogLv => (1, self.world.locals.len()),
                    _ => (2, self.world.slots.len()),
                };
                let (first, count) = variables(first, count, class, all as u64)?;
                let words: Vec<u64> = (first..first + count)
                    .map(|index| match op {
                        LogLv => self.world.locals[index as usize],
                        _ => self.world.global(index as usize),
                    })
                    .collect();
                self.log_words(if op == LogLv { 5 } else { 6 }, &words)?;
            }
            LogKstack | LogUstack => {
                let max = self.stack.peek(0);
                if max > 128 {
                    self.stack.pop();
                    return Err(Stop::Raise(INVALID_OPERAND, 5, max));
                }
                let wanted = self.addresses_wanted(max);
                self.charge(32 * wanted as i64)?;
                self.stack.pop();
                let mut addresses = vec![0; wanted as usize];
                let (token, found) = match op {
                    LogKstack => (8, self.machine.kernel_stack(&mut addresses)),
                    _ => (9, self.machine.user_stack(&mut addresses)),
                };
                self.log_words(token, &addresses[..found])?;
            }
            LogName => {
                self.charge(8)?;
                self.log_name()?;
            }
            PushLp => self.stack.push(self.log.len() as u64),
            PushPlp => self.stack.push(self.previous as u64),
            PopLp => {
                self.charge(self.logmax as i64 / 8)?;
                let len = self.stack.pop();
                if !is_boundary(&self.log, len) {
                    return Err(Stop::Raise(INVALID_OPERAND, 11, len));
                }
                self.log.truncate(len as usize);
                self.previous = self.previous.min(self.log.len());
            }
            PushLv | PushGv | PushLvS | PushGvS => {
                let index = self.index(op, operand);
                let value = *self.variable(op, index)?;
                self.stack.push(value);
            }
            PopLv | PopGv | PopLvS | PopGvS => {
                let value = self.stack.pop();
                let index = self.index(op, operand);
                *self.variable(op, index)? = value;
            }
            PushCv => self.stack.push(self.world.call[operand as usize]),
            PopCv => self.world.call[operand as usize] = self.stack.pop(),
            MoveLv | MoveGv | MoveLvS | MoveGvS => {
                let index = self.index(op, operand);
                let value = self.stack.peek(0);
                *self.variable(op, index)? = value;
            }
            IncLv | IncGv | IncLvS | IncGvS => {
                let index = self.index(op, operand);
                let variable = self.variable(op, index)?;
                *variable = variable.wrapping_add(1);
            }
            DecLv | DecGv | DecLvS | DecGvS => {
                let index = self.index(op, operand);
                let variable = self.variable(op, index)?;
                *variable = variable.wrapping_sub(1);
            }
            AllocLv | AllocGv => {
                self.charge(32)?;
                let pool = match op {
                    AllocLv => &mut self.world.local_pool,
                    _ => &mut self.world.global_pool,
                };
                let number = pool.iter().position(Option::is_none);
                let number = number.ok_or(Stop::Raise(0x100, 1, 0))?;
                pool[number] = Some(0);
                self.stack.push(POOL_FIRST + number as u64);
            }
            FreeLv | FreeGv => {
                let index = self.stack.pop();
                let (class, pool) = match op {
                    FreeLv => (1, &mut self.world.local_pool),
                    _ => (2, &mut self.world.global_pool),
                };
                let number = index
                    .checked_sub(POOL_FIRST)
                    .and_then(|number| usize::try_from(number).ok());
                let variable = number
                    .and_then(|number| pool.get_mut(number))
                    .filter(|value| value.is_some());
                *variable.ok_or(Stop::Raise(INVALID_OPERAND, class, index))? = None;
            }
            Add | Sub | Mul | And | Or | Xor => {
                let b = self.stack.pop();
                let a = self.stack.pop();
                self.stack.push(match op {
                    Add => (u128::from(a) + u128::from(b)) as u64,
                    Sub => (i128::from(a) - i128::from(b)) as u64,
                    Mul => (u128::from(a) * u128::from(b)) as u64,
                    And => a & b,
                    Or => a | b,
                    _ => a ^ b,
                });
            }
            Div => {
                let divisor = self.stack.pop();
                let dividend = self.stack.pop();
                if divisor == 0 {
                    return Err(Stop::Raise(0x20, 0, 0));
                }
                self.stack.push(dividend % divisor);
                self.stack.push(dividend / divisor);
            }
            Idiv => {
                let divisor = i128::from(self.stack.pop() as i64);
                let dividend = i128::from(self.stack.pop() as i64);
                if divisor == 0 || dividend / divisor > i128::from(i64::MAX) {
                    return Err(Stop::Raise(0x20, 0, 0));
                }
                self.stack.push((dividend % divisor) as u64);
                self.stack.push((dividend / divisor) as u64);
            }
            Neg => {
                let a = self.stack.pop();
                self.stack.push((!a).wrapping_add(1));
            }
            Not => {
                let a = self.stack.pop();
                self.stack.push(u64::MAX - a);
            }
            Rol | RolS | Ror | RorS | Shl | ShlS | Shr | ShrS => {
                let value = self.stack.pop();
                let count = if matches!(op, Rol | Ror | Shl | Shr) {
                    operand
                } else {
                    self.stack.pop()
                };
                if count > 63 {
                    return Err(Stop::Raise(INVALID_OPERAND, 3, count));
                }
                let twice = u128::from(value) << 64 | u128::from(value);
                self.stack.push(match op {
                    Rol | RolS => (twice << count >> 64) as u64,
                    Ror | RorS => (twice >> count) as u64,
                    Shl | ShlS => (u128::from(value) << count) as u64,
                    _ => (u128::from(value) >> count) as u64,
                });
            }
            Pbl | PblS | Pbr | PbrS | Pzl | PzlS | Pzr | PzrS => {
                let bit = if matches!(op, Pbl | Pbr | Pzl | Pzr) {
                    operand
                } else {
                    self.stack.pop()
                };
                if bit == 0 || bit > 64 {
                    return Err(Stop::Raise(INVALID_OPERAND, 3, bit));
                }
                let word = self.stack.pop();
                let at = |n: u64| word >> (n - 1) & 1;
                let result = (1..=64).map(|n| {
                    let new = match op {
                        Pbl | PblS if n > bit => at(bit),
                        Pbr | PbrS if n < bit => at(bit),
                        Pzl | PzlS if n > bit => 0,
                        Pzr | PzrS if n < bit => 0,
                        _ => at(n),
                    };
                    new << (n - 1)
                });
                self.stack.push(result.sum());
            }
            Xchg => {
                let b = self.stack.pop();
                let a = self.stack.pop();
                self.stack.push(b);
                self.stack.push(a);
            }
            Dup | DupS => {
                let value = self.stack.pop();
                let count = if op == Dup { operand } else { self.stack.pop() };
                if count > WORDS as u64 {
                    return Err(Stop::Raise(INVALID_OPERAND, 5, count));
                }
                if let Some(parms) = self.stack.wraps(0, count as usize) {
                    self.stack.push(count);
                    self.stack.push(value);
                    return Err(wrap(parms));
                }
                self.budget -= (count as i64 - 2).max(0);
                (0..count).for_each(|_| self.stack.push(value));
            }
            Ros => {
                for _ in 0..operand {
                    self.stack.pop();
                }
            }
            Push => self.stack.push(operand),
            PushWid => self.stack.push(-64_i64 as u64),
            PushSbp | PushTsp | PushSbpS | PushTspS | PopSbp | PopTsp | PopSbpS | PopTspS | CopySbp | CopyTsp
            | CopySbpS | CopyTspS => {
                // Nothing is taken before it is certain that the position is there.
                let has_value = !matches!(op, PushSbp | PushTsp | PushSbpS | PushTspS);
                let position = if pops == usize::from(has_value) {
                    i64::from(operand as i16)
                } else {
                    self.stack.peek(usize::from(has_value)) as i64
                };
                let base = match op {
                    PushTsp | PushTspS | PopTsp | PopTspS | CopyTsp | CopyTspS => self.stack.depth().wrapping_sub(pops),
                    _ => self.sbp,
                };
                let base = if self.stack.is_ring() { base % WORDS } else { base };
                let value = if has_value { self.stack.peek(0) } else { 0 };
                let word = self.stack.at(base, position, pops).map_err(wrap)?;
                let there = *word;
                if has_value {
                    *word = value;
                }
                // In a ring this may be one of the operands, which are gone.
                (0..pops).for_each(|_| _ = self.stack.pop());
                if !has_value {
                    self.stack.push(there);
                } else if pushes == 1 {
                    self.stack.push(value);
                }
            }
            SaveSbp => self.stack.push(self.sbp as u64),
            SaveTsp => self.stack.push(self.stack.depth() as u64),
            RestoreSbp => {
                let words = self.stack.pop();
                if words > WORDS as u64 {
                    return Err(Stop::Raise(INVALID_OPERAND, 10, words));
                }
                self.sbp = words as usize;
            }
            RestoreTsp => {
                let words = self.stack.peek(0);
                if words > WORDS as u64 {
                    self.stack.pop();
                    return Err(Stop::Raise(INVALID_OPERAND, 10, words));
                }
                if !self.stack.is_ring() {
                    self.charge((words as i64 - self.stack.depth() as i64 + 1).max(0))?;
                }
                self.stack.pop();
                self.stack.resize(words as usize);
            }
            PushR if Reg::from_number(operand as u16).unwrap().class() != Class::System => {
                let value = self.machine.reg(Reg::from_number(operand as u16).unwrap());
                self.stack.push(value);
            }
            Sx => self.frames.last_mut().unwrap().handler = Some(target),
            Ux => self.frames.last_mut().unwrap().handler = None,
            Rx => return Err(Stop::Rx),
            PushX => {
                let (code, parm1, parm2) = self.last;
                for word in [parm2, parm1, code] {
                    self.stack.push(word);
                }
            }
            LogSt => {
                self.charge(self.ex_logmax as i64 / 8)?;
                self.trace(at, self.last, None);
            }
            PurgeSt => {
                self.traces.clear();
                self.traces_cut = 0;
            }
            TraceLv | TraceGv | TracePv => {
                let count = self.stack.pop();
                let first = self.stack.pop();
                let (kind, class, all) = match op {
                    TracePv => (0, 10, WORDS),
                    TraceLv => (1, 1, self.world.locals.len()),
                    _ => (2, 2, self.world.slots.len()),
                };
                self.frames.last_mut().unwrap().shown[kind] = variables(first, count, class, all as u64)?;
            }
            PushStp => self.stack.push(self.traces.len() as u64),
            PopStp => {
                self.charge(self.ex_logmax as i64 / 8)?;
                let len = self.stack.pop();
                if !is_boundary(&self.traces, len) {
                    return Err(Stop::Raise(INVALID_OPERAND, 11, len));
                }
                self.traces.truncate(len as usize);
            }
            _ => self.ask(op, operand)?,
        }
        Ok(())
    }

    /// The index of a variable: the operand, or on the stack.
    fn index(&mut self, op: Op, operand: u64) -> u64 {
        if op.size() > 1 { operand } else { self.stack.pop() }
    }

    /// A variable: those on the stack may be allocated ones.
    fn variable(&mut self, op: Op, index: u64) -> Result<&mut u64, Stop> {
        use Op::*;
        let world = &mut *self.world;
        let (class, declared, pool) = match op {
            PushLv | PushLvS | PopLv | PopLvS | MoveLv | MoveLvS | IncLv | IncLvS | DecLv | DecLvS => {
                (1, world.locals.get_mut(index as usize), &mut world.local_pool)
            }
            _ => {
                let slot = world.slots.get(index as usize).copied();
                (
                    2,
                    slot.and_then(|slot| world.globals.get_mut(usize::from(slot))),
                    &mut world.global_pool,
                )
            }
        };
        let number = index.wrapping_sub(POOL_FIRST) as usize;
        let allocated = pool.get_mut(number).and_then(Option::as_mut);
        declared.or(allocated).ok_or(Stop::Raise(INVALID_OPERAND, class, index))
    }
}

/// A range, if it is inside of `0..all`; none of them are from 0 on.
fn variables(first: u64, count: u64, class: u64, all: u64) -> Result<(u64, u64), Stop> {
    if count == 0 {
        Ok((0, 0))
    } else if u128::from(first) + u128::from(count) > u128::from(all) {
        Err(Stop::Raise(INVALID_OPERAND, class, first.max(all)))
    } else {
        Ok((first, count))
    }
}
