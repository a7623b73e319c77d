//! A second interpreter, from the definition of the language: it executes the bytes of the object, knows nothing of
//! verified programs, and cares for nothing but being obvious.

use std::collections::HashMap;

use dprobes::rpn::interp::Env;
use dprobes::rpn::object::Object;
use dprobes::rpn::op::Op;
use dprobes::rpn::reg::Reg;

use super::env::Machine;

const WORDS: usize = 1024;
const BUDGET: i64 = 1_000_000;
const GRACE: i64 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Exit,
    Abort,
    Remove,
    Exception {
        code: u64,
        parm1: u64,
        parm2: u64,
        offset: u32,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub end: End,
    pub major: Option<u16>,
    pub minor: Option<u16>,
    pub log: Vec<u8>,
    pub log_overflow: bool,
}

/// Words that cannot wrap, or a ring.
enum Stack {
    Bounded(Vec<u64>),
    Ring { cells: Box<[u64; WORDS]>, top: usize },
}

impl Stack {
    fn push(&mut self, word: u64) {
        match self {
            Self::Bounded(words) => {
                assert!(words.len() < WORDS);
                words.push(word);
            }
            Self::Ring { cells, top } => {
                *top = (*top + WORDS - 1) % WORDS;
                cells[*top] = word;
            }
        }
    }

    fn pop(&mut self) -> u64 {
        match self {
            Self::Bounded(words) => words.pop().unwrap(),
            Self::Ring { cells, top } => {
                let word = cells[*top];
                *top = (*top + 1) % WORDS;
                word
            }
        }
    }

    /// The first parameter of `RPN_STACK_WRAP` and the second, if this would wrap.
    fn wraps(&self, pops: usize, pushes: usize) -> Option<(u64, u64)> {
        let Self::Bounded(words) = self else { return None };
        let depth = words.len();
        if depth < pops {
            Some((0, (pops - depth) as u64))
        } else if depth - pops + pushes > WORDS {
            Some((WORDS as u64, (depth - pops + pushes - WORDS) as u64))
        } else {
            None
        }
    }
}

struct Frame {
    back: usize,
    handler: Option<usize>,
}

enum Stop {
    End(End),
    /// An exception of the machine.
    Raise(u16, u64, u64),
    /// The `rx` instruction.
    Rx,
    /// The budget is used up.
    Exhausted,
}

struct Naive<'a> {
    code: &'a [u8],
    numbers: HashMap<usize, i64>,
    machine: &'a mut Machine,
    locals: &'a mut [u64],
    stack: Stack,
    frames: Vec<Frame>,
    log: Vec<u8>,
    logmax: usize,
    jmpmax: u64,
    jumps: u64,
    budget: i64,
    grace: bool,
    mask: u16,
    last: (u64, u64, u64),
    major: Option<u16>,
    minor: Option<u16>,
    log_overflow: bool,
}

/// Runs the handler of the first point.
pub fn run(object: &Object<'_>, machine: &mut Machine, locals: &mut [u64]) -> Outcome {
    let point = object.point(0).unwrap();
    let range = point.code();
    let mut numbers = HashMap::new();
    let mut offset = range.start as usize;
    while offset < range.end as usize {
        numbers.insert(offset, numbers.len() as i64);
        offset += Op::from_byte(object.code()[offset]).unwrap().size();
    }
    let stack = if point.ex_mask() & 0x2000 != 0 {
        Stack::Bounded(Vec::new())
    } else {
        Stack::Ring {
            cells: Box::new([0; WORDS]),
            top: 0,
        }
    };
    let mut naive = Naive {
        code: object.code(),
        numbers,
        machine,
        locals,
        stack,
        frames: vec![Frame { back: 0, handler: None }],
        log: Vec::new(),
        logmax: usize::from(object.logmax()),
        jmpmax: u64::from(object.jmpmax()),
        jumps: 0,
        budget: BUDGET,
        grace: false,
        mask: point.ex_mask(),
        last: (0, 0, 0),
        major: None,
        minor: None,
        log_overflow: false,
    };
    let end = naive.run(range.start as usize);
    let Naive {
        major,
        minor,
        log,
        log_overflow,
        ..
    } = naive;
    Outcome {
        end,
        major,
        minor,
        log,
        log_overflow,
    }
}

impl Naive<'_> {
    fn run(&mut self, mut pc: usize) -> End {
        loop {
            let at = pc;
            let op = Op::from_byte(self.code[pc]).unwrap();
            let size = op.size();
            let mut operand = [0; 8];
            operand[..size - 1].copy_from_slice(&self.code[pc + 1..pc + size]);
            let operand = u64::from_le_bytes(operand);
            pc += size;
            match self.step(at, &mut pc, op, operand) {
                Ok(()) => {}
                Err(Stop::End(end)) => return end,
                Err(stop) => match self.exception(at, stop) {
                    Ok(None) => {}
                    Ok(Some(handler)) => pc = handler,
                    Err(end) => return end,
                },
            }
        }
    }

    /// Where to go on after an exception; none: behind the instruction.
    fn exception(&mut self, at: usize, stop: Stop) -> Result<Option<usize>, End> {
        let end = |(code, parm1, parm2)| {
            Err(End::Exception {
                code,
                parm1,
                parm2,
                offset: at as u32,
            })
        };
        let (code, parm1, parm2) = match stop {
            Stop::End(_) => unreachable!(),
            Stop::Rx => {
                let code = self.stack.pop();
                let parm1 = self.stack.pop();
                let parm2 = self.stack.pop();
                for word in [parm2, parm1, code] {
                    self.stack.push(word);
                }
                return self.dispatch(at, (code, parm1, parm2));
            }
            Stop::Exhausted if self.grace => return end((4, BUDGET as u64, 0)),
            Stop::Exhausted => {
                self.grace = true;
                self.budget = GRACE;
                (4, BUDGET as u64, 0)
            }
            Stop::Raise(code, parm1, parm2) => (code, parm1, parm2),
        };
        let exception = (u64::from(code), parm1, parm2);
        if self.mask & code == 0 {
            return if code < 0x1000 { end(exception) } else { Ok(None) };
        }
        if self.stack.wraps(0, 3).is_some() {
            self.stack = Stack::Bounded(Vec::new());
        }
        for word in [parm2, parm1, exception.0] {
            self.stack.push(word);
        }
        self.dispatch(at, exception)
    }

    fn dispatch(&mut self, at: usize, exception: (u64, u64, u64)) -> Result<Option<usize>, End> {
        self.last = exception;
        let end = |(code, parm1, parm2)| {
            Err(End::Exception {
                code,
                parm1,
                parm2,
                offset: at as u32,
            })
        };
        loop {
            if let Some(handler) = self.frames.last_mut().unwrap().handler.take() {
                return match self.charge_move(at, handler) {
                    Ok(()) => Ok(Some(handler)),
                    Err(_) => end((4, BUDGET as u64, 0)),
                };
            }
            if self.frames.len() == 1 {
                return end(exception);
            }
            self.frames.pop();
        }
    }

    fn charge_move(&mut self, from: usize, to: usize) -> Result<(), Stop> {
        let cost = self.numbers[&from] - self.numbers[&to] + 1;
        if cost > 0 {
            self.budget -= cost;
            if self.budget < 0 {
                return Err(Stop::Exhausted);
            }
        } else if self.budget < 0 {
            return Err(Stop::Exhausted);
        }
        Ok(())
    }

    fn jump(&mut self, at: usize, pc: &mut usize, target: usize) -> Result<(), Stop> {
        self.count_jump()?;
        self.charge_move(at, target)?;
        *pc = target;
        Ok(())
    }

    fn count_jump(&mut self) -> Result<(), Stop> {
        if self.jumps == self.jmpmax {
            return Err(Stop::Raise(4, self.jmpmax, 0));
        }
        self.jumps += 1;
        Ok(())
    }

    fn local(&mut self, index: u64) -> Result<&mut u64, Stop> {
        self.locals
            .get_mut(usize::try_from(index).unwrap())
            .ok_or(Stop::Raise(0x40, 1, index))
    }

    fn overflow(&mut self) -> Stop {
        self.log_overflow = true;
        Stop::Raise(0x1000, self.logmax as u64, 0)
    }

    fn fault(&mut self, addr: u64) -> Stop {
        if self.logmax - self.log.len() >= 11 {
            self.log.extend([0xff, 8, 0]);
            self.log.extend(addr.to_le_bytes());
        } else {
            self.log_overflow = true;
        }
        Stop::Raise(1, addr, 0)
    }

    fn log_words(&mut self, token: u8, words: &[u64]) -> Result<(), Stop> {
        let room = self.logmax - self.log.len();
        if room < 3 || (room < 11 && !words.is_empty()) {
            return Err(self.overflow());
        }
        let fit = words.len().min((room - 3) / 8);
        self.log.push(token);
        self.log.extend((fit as u16).to_le_bytes());
        for word in &words[..fit] {
            self.log.extend(word.to_le_bytes());
        }
        if fit < words.len() {
            Err(self.overflow())
        } else {
            Ok(())
        }
    }

    fn log_bytes(&mut self, token: u8, bytes: &[u8], cut: bool) -> Result<(), Stop> {
        self.log.push(token);
        self.log.extend((bytes.len() as u16).to_le_bytes());
        self.log.extend(bytes);
        if cut { Err(self.overflow()) } else { Ok(()) }
    }

    fn log_str(&mut self, addr: u64, max: u64) -> Result<(), Stop> {
        let room = self.logmax - self.log.len();
        if room < 3 {
            return Err(self.overflow());
        }
        let mut bytes = Vec::new();
        for i in 0..max {
            let bad = addr.saturating_add(i);
            let Ok(byte) = self.machine.load(addr.wrapping_add(i), 1) else {
                return Err(self.fault(bad));
            };
            if byte[0] == 0 {
                break;
            }
            if bytes.len() == room - 3 {
                return self.log_bytes(1, &bytes, true);
            }
            bytes.push(byte[0]);
        }
        self.log_bytes(1, &bytes, false)
    }

    fn log_mrf(&mut self, addr: u64, len: u64) -> Result<(), Stop> {
        let room = self.logmax - self.log.len();
        if room < 3 {
            return Err(self.overflow());
        }
        let fit = len.min(room as u64 - 3);
        match self.machine.load(addr, fit as usize) {
            Ok(bytes) => self.log_bytes(0, &bytes, fit < len),
            Err(bad) => Err(self.fault(bad)),
        }
    }

    /// Words an instruction pops and pushes.
    fn needs(&self, op: Op, operand: u64) -> (usize, usize) {
        use Op::*;
        let n = operand as usize;
        match op {
            Nop | Jmp | Call | Ret | Abort | Remove | Exit | SetMin | SetMaj | IncLv | DecLv | Sx | Ux => (0, 0),
            Push | PushLv | PushR => (0, 1),
            PushX => (0, 3),
            SetMinS | SetMajS | PopLv | IncLvS | DecLvS | PopR => (1, 0),
            Jlt | Jle | Jgt | Jge | Jz | Jnz | Loop | MoveLv | PushLvS | Neg | Not | Rol | Ror | Shl | Shr => (1, 1),
            PushMemU8 | PushMemU16 | PushMemU32 | PushMemU64 | PushMemS8 | PushMemS16 | PushMemS32 => (1, 1),
            LogStr | LogMrf | PopLvS | PopMemU8 | PopMemU16 | PopMemU32 | PopMemU64 => (2, 0),
            LogLv => (2, 0),
            Pbl | Pbr | Pzl | Pzr => (1, 1),
            PblS | PbrS | PzlS | PzrS => (2, 1),
            MoveLvS | Add | Sub | Mul | And | Or | Xor | RolS | RorS | ShlS | ShrS => (2, 1),
            Div | Idiv | Xchg => (2, 2),
            Rx => (3, 3),
            Log | Ros => (n, 0),
            Dup => (1, n),
            // Their counts are looked at when they are known.
            LogS => (1, 0),
            DupS => (2, 0),
            other => panic!("{other} is not here yet"),
        }
    }

    fn step(&mut self, at: usize, pc: &mut usize, op: Op, operand: u64) -> Result<(), Stop> {
        use Op::*;
        const INVALID_OPERAND: u16 = 0x40;
        let (pops, pushes) = self.needs(op, operand);
        let wrap = |(parm1, parm2)| Err(Stop::Raise(0x2000, parm1, parm2));
        if let Some(parms) = self.stack.wraps(pops, pushes) {
            return wrap(parms);
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
                    back: *pc,
                    handler: None,
                });
                *pc = target;
            }
            Ret => {
                if self.frames.len() == 1 {
                    return Err(Stop::Raise(0x10, 0, 0));
                }
                let back = self.frames.last().unwrap().back;
                self.charge_move(at, back)?;
                self.frames.pop();
                *pc = back;
            }
            Abort => return Err(Stop::End(End::Abort)),
            Remove => return Err(Stop::End(End::Remove)),
            Exit => return Err(Stop::End(End::Exit)),
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
                    return wrap(parms);
                }
                let words: Vec<u64> = (0..count).map(|_| self.stack.pop()).collect();
                self.log_words(7, &words)?;
            }
            LogLv => {
                let count = self.stack.pop();
                let first = self.stack.pop();
                let all = self.locals.len() as u64;
                if count > 0 && u128::from(first) + u128::from(count) > u128::from(all) {
                    return Err(Stop::Raise(INVALID_OPERAND, 1, first.max(all)));
                }
                let words: Vec<u64> = (first..first.saturating_add(count))
                    .map(|i| self.locals[i as usize])
                    .collect();
                self.log_words(5, &words)?;
            }
            PushLv => {
                let value = *self.local(operand)?;
                self.stack.push(value);
            }
            PushLvS => {
                let index = self.stack.pop();
                let value = *self.local(index)?;
                self.stack.push(value);
            }
            PopLv => {
                let value = self.stack.pop();
                *self.local(operand)? = value;
            }
            PopLvS => {
                let value = self.stack.pop();
                let index = self.stack.pop();
                *self.local(index)? = value;
            }
            MoveLv | MoveLvS => {
                let index = if op == MoveLv { operand } else { self.stack.pop() };
                let value = self.stack.pop();
                self.stack.push(value);
                *self.local(index)? = value;
            }
            IncLv => *self.local(operand)? = self.local(operand)?.wrapping_add(1),
            DecLv => *self.local(operand)? = self.local(operand)?.wrapping_sub(1),
            IncLvS => {
                let index = self.stack.pop();
                *self.local(index)? = self.local(index)?.wrapping_add(1);
            }
            DecLvS => {
                let index = self.stack.pop();
                *self.local(index)? = self.local(index)?.wrapping_sub(1);
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
                    return wrap(parms);
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
            PushR => {
                let value = self.machine.reg(Reg::from_number(operand as u16).unwrap());
                self.stack.push(value);
            }
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
            Sx => self.frames.last_mut().unwrap().handler = Some(target),
            Ux => self.frames.last_mut().unwrap().handler = None,
            Rx => return Err(Stop::Rx),
            PushX => {
                let (code, parm1, parm2) = self.last;
                for word in [parm2, parm1, code] {
                    self.stack.push(word);
                }
            }
            other => panic!("{other} is not here yet"),
        }
        Ok(())
    }
}
