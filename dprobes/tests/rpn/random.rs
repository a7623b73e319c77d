//! Random numbers, reproducible, and programs made of them.

use dprobes::rpn::limits::STACK_WORDS;
use dprobes::rpn::op::{Op, Operand, Words};
use dprobes::rpn::reg::Reg;

use super::build::Builder;

/// SplitMix64.
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Where random programs find memory: 128 bytes that can be written, 64 that cannot.
pub const RAM: u64 = 0x1000;
pub const ROM: u64 = 0x2000;

/// Words on which instructions do something special.
fn word(rng: &mut Rng) -> u64 {
    match rng.below(8) {
        0 => rng.next(),
        1 | 2 => rng.below(5),
        3 => rng.below(80),
        4 => RAM + rng.below(140),
        5 => ROM - 8 + rng.below(80),
        6 => rng.pick(&[
            0,
            1,
            u64::MAX,
            1 << 63,
            i64::MAX as u64,
            63,
            64,
            1023,
            1024,
            1025,
            0xffff,
            0x1_0000,
            u64::MAX - 3,
            0x80,
            0x8000,
            0x8000_0000,
        ]),
        _ => rng.below(3).wrapping_sub(1),
    }
}

/// Operands on the stack with which an instruction is likely to succeed, the deepest first.
fn sensible(rng: &mut Rng, op: Op, locals: u16) -> Vec<u64> {
    use Op::*;
    let local = rng.below(u64::from(locals.max(1)));
    match op {
        PushMemU8 | PushMemU16 | PushMemU32 | PushMemU64 | PushMemS8 | PushMemS16 | PushMemS32 => {
            vec![rng.pick(&[RAM, ROM]) + rng.below(60)]
        }
        PopMemU8 | PopMemU16 | PopMemU32 | PopMemU64 => vec![RAM + rng.below(120), word(rng)],
        LogStr | LogMrf => vec![rng.below(100), rng.pick(&[RAM, ROM]) + rng.below(60)],
        PushLvS | IncLvS | DecLvS => vec![local],
        PopLvS => vec![local, word(rng)],
        MoveLvS => vec![word(rng), local],
        SetMinS | SetMajS => vec![rng.below(0x10002)],
        RolS | RorS | ShlS | ShrS => vec![rng.below(65), word(rng)],
        LogLv => vec![local, rng.below(3)],
        PblS | PbrS | PzlS | PzrS => vec![word(rng), rng.below(66)],
        LogS => vec![word(rng), word(rng), rng.below(4)],
        DupS => vec![rng.below(5), word(rng)],
        Div | Idiv => vec![word(rng), 1 + rng.below(4)],
        _ => Vec::new(),
    }
}

fn words(words: Words, operand: u64) -> i64 {
    match words {
        Words::Fixed(n) => i64::from(n),
        Words::Operand => operand as i64,
        Words::OperandPlus(n) => operand as i64 + i64::from(n),
        Words::Counted => 1,
        Words::Register => Reg::from_number(operand as u16).map_or(0, |reg| reg.words() as i64),
        Words::Map | Words::Any => 0,
    }
}

/// The instructions that the second interpreter knows.
fn is_known(op: Op) -> bool {
    !matches!(op.byte(), 0x0e..=0x10 | 0x1c..=0x28 | 0x48 | 0x49 | 0x5d..=0x61 | 0x70..=0x89 | 0x8c..=0x98 | 0x9d..)
}

/// A program that the verifier is likely to accept.
pub fn program(rng: &mut Rng) -> Builder {
    let locals = rng.below(4) as u16;
    let len = 1 + rng.below(40) as usize;
    let mut steps: Vec<(Op, u64)> = Vec::new();
    let mut depth = 0_i64;
    if rng.one_in(8) {
        // Close to a full stack.
        let top = STACK_WORDS as i64 - rng.below(6) as i64;
        steps.push((Op::Push, word(rng)));
        depth = 1;
        while depth < top {
            let count = (top - depth + 1).min(255);
            steps.push((Op::Dup, count as u64));
            depth += count - 1;
        }
    }
    if rng.one_in(8) {
        // Depths nobody knows.
        steps.extend([(Op::Push, rng.below(4)), (Op::LogS, 0)]);
    }
    while steps.len() < len {
        let op = rng.pick(Op::ALL);
        if !is_known(op) {
            continue;
        }
        let info = op.info();
        let operand = match info.operand {
            Operand::None => 0,
            Operand::U8 => match op {
                Op::Dup | Op::Ros => rng.below(5),
                Op::Pbl | Op::Pbr | Op::Pzl | Op::Pzr => 1 + rng.below(64),
                _ => rng.below(64),
            },
            Operand::U16 => rng.below(5) + u64::from(op == Op::SetMaj),
            Operand::Word => word(rng),
            Operand::Branch => 0,
            Operand::Reg => rng.below(24),
            Operand::Local => rng.below(u64::from(locals.max(1))),
            Operand::Global | Operand::Map | Operand::Group | Operand::Facility | Operand::S16 => 0,
        };
        if info.operand == Operand::Local && locals == 0 && !rng.one_in(50) {
            continue;
        }
        let ends = matches!(op, Op::Abort | Op::Exit | Op::Remove | Op::Ret | Op::Rx | Op::Jmp);
        if ends && !rng.one_in(4) {
            continue;
        }
        let (pops, pushes) = (words(info.pops, operand), words(info.pushes, operand));
        if !rng.one_in(4) {
            // Words that make sense to it.
            for want in sensible(rng, op, locals) {
                steps.push((Op::Push, want));
                depth += 1;
            }
        }
        while depth < pops && !rng.one_in(200) {
            steps.push((Op::Push, word(rng)));
            depth += 1;
        }
        depth = (depth - pops + pushes).max(0);
        steps.push((op, operand));
    }
    steps.push((
        rng.pick(&[Op::Exit, Op::Exit, Op::Abort, Op::Remove, Op::Jmp, Op::Ret]),
        0,
    ));

    let mut offsets = Vec::new();
    let mut offset = 0;
    for (op, _) in &steps {
        offsets.push(offset as i64);
        offset += op.size();
    }
    let mut code = Vec::new();
    for (op, operand) in steps {
        code.push(op.byte());
        let operand = if op.info().operand == Operand::Branch {
            // Handlers that come back are slow: they run until the budget is used up.
            let here = offsets.partition_point(|offset| *offset < code.len() as i64);
            let from = if op == Op::Sx && !rng.one_in(30) {
                here.min(offsets.len() - 1)
            } else {
                0
            };
            (rng.pick(&offsets[from..]) - (code.len() as i64 + 4)) as u64
        } else {
            operand
        };
        code.extend_from_slice(&operand.to_le_bytes()[..op.info().operand.size()]);
    }
    let mut builder = Builder::new(code, locals);
    builder.header.jmpmax.set(rng.pick(&[0, 1, 5, 20, 100]));
    builder.header.logmax.set(rng.pick(&[0, 3, 11, 20, 40, 100, 1024]));
    let mask = rng.pick(&[
        0x2fff,
        0x2fff,
        0x2fff,
        0x2fff,
        0x3fff,
        0x0fff,
        0x1fff,
        0,
        0xbfff,
        0x2020,
        rng.clone().next() as u16 & 0xbfff,
    ]);
    builder.ex_mask(mask)
}
