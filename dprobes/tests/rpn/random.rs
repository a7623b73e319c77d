//! Random numbers, reproducible, and programs made of them.

use dprobes::rpn::limits::STACK_WORDS;
use dprobes::rpn::op::{Flow, Op, Operand, Words};
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

/// The first of the ports that they find.
pub const PORT: u64 = 0x40;

/// Words on which instructions do something special.
fn word(rng: &mut Rng) -> u64 {
    match rng.below(8) {
        0 if rng.one_in(2) => rng.next(),
        0 => super::naive::POOL_FIRST + rng.below(4),
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
fn sensible(rng: &mut Rng, op: Op, shape: &Shape) -> Vec<u64> {
    use Op::*;
    let variable = |rng: &mut Rng, declared: u16| {
        if rng.one_in(3) {
            super::naive::POOL_FIRST + rng.below(3)
        } else {
            rng.below(u64::from(declared.max(1)))
        }
    };
    let declared = match op {
        PushGvS | PopGvS | MoveGvS | IncGvS | DecGvS | FreeGv | LogGv | TraceGv => shape.globals,
        _ => shape.locals,
    };
    match op {
        PushMemU8 | PushMemU16 | PushMemU32 | PushMemU64 | PushMemS8 | PushMemS16 | PushMemS32 => {
            vec![rng.pick(&[RAM, ROM]) + rng.below(60)]
        }
        PopMemU8 | PopMemU16 | PopMemU32 | PopMemU64 => vec![RAM + rng.below(120), word(rng)],
        VfyR | VfyRw => vec![rng.pick(&[RAM, ROM, 0]) + rng.below(60)],
        LogStr | LogMrf => vec![rng.below(100), rng.pick(&[RAM, ROM]) + rng.below(60)],
        PushLvS | IncLvS | DecLvS | PushGvS | IncGvS | DecGvS | FreeLv | FreeGv => vec![variable(rng, declared)],
        PopLvS | PopGvS => vec![variable(rng, declared), word(rng)],
        MoveLvS | MoveGvS => vec![word(rng), variable(rng, declared)],
        LogLv | LogGv | TraceLv | TraceGv => vec![rng.below(u64::from(declared.max(1))), rng.below(3)],
        TracePv => vec![rng.below(3), rng.below(6)],
        SetMinS | SetMajS => vec![rng.below(0x10002)],
        RolS | RorS | ShlS | ShrS => vec![rng.below(65), word(rng)],
        PblS | PbrS | PzlS | PzrS => vec![word(rng), rng.below(66)],
        LogS => vec![word(rng), word(rng), rng.below(4)],
        LogKstack | LogUstack => vec![rng.pick(&[0, 1, 3, 128, 129])],
        DupS => vec![rng.below(5), word(rng)],
        Div | Idiv => vec![word(rng), 1 + rng.below(4)],
        PushSbpS | PushTspS => vec![rng.below(5).wrapping_sub(1)],
        PopSbpS | PopTspS | CopySbpS | CopyTspS => vec![rng.below(5).wrapping_sub(1), word(rng)],
        RestoreSbp | RestoreTsp => vec![rng.below(8)],
        PushMsr => vec![rng.below(17)],
        PushIoU8 | PushIoU16 | PushIoU32 => vec![PORT + rng.below(8)],
        PopIoU8 | PopIoU16 | PopIoU32 => vec![PORT + rng.below(8), word(rng)],
        Malloc => vec![rng.below(20)],
        Free => vec![1 + rng.below(3)],
        PushhU8 | PushhU16 | PushhU32 | PushhU64 => vec![1 + rng.below(3), rng.below(12)],
        PophU8 | PophU16 | PophU32 | PophU64 => vec![word(rng), 1 + rng.below(3), rng.below(12)],
        // A length is a boundary by chance alone, unless it comes from the machine.
        PopLp | PopStp => vec![rng.pick(&[0, 3, 11])],
        Rx if !rng.one_in(4) => vec![word(rng), word(rng), 0x8000],
        _ => Vec::new(),
    }
}

/// What a program declares.
struct Shape {
    locals: u16,
    globals: u16,
    /// Kind and keys.
    maps: Vec<(u8, u8)>,
    group: u16,
    ring: bool,
}

impl Shape {
    fn words(&self, words: Words, operand: u64) -> i64 {
        match words {
            Words::Fixed(n) => i64::from(n),
            Words::Operand => operand as i64,
            Words::OperandPlus(n) => operand as i64 + i64::from(n),
            Words::Counted => 1,
            Words::Register => Reg::from_number(operand as u16).map_or(0, |reg| reg.words() as i64),
            Words::Map => self
                .maps
                .get(operand as usize)
                .map_or(0, |(kind, keys)| i64::from(*keys) + i64::from(*kind != 0)),
            Words::Any => 0,
        }
    }

    /// An operand, most of the time a good one; none if there can be no good one.
    fn operand(&self, rng: &mut Rng, op: Op, depth: i64) -> Option<u64> {
        use Op::*;
        let index = |rng: &mut Rng, count: u16| {
            if count == 0 && !rng.one_in(300) {
                None
            } else {
                Some(rng.below(u64::from(count.max(1))))
            }
        };
        Some(match op.info().operand {
            Operand::None | Operand::Branch => 0,
            Operand::U8 => match op {
                Dup | Ros => rng.below(5),
                PushCv | PopCv => rng.below(8),
                Pbl | Pbr | Pzl | Pzr => 1 + rng.below(64),
                _ => rng.below(64),
            },
            Operand::U16 => match op {
                SetMaj | PushhU8 | PushhU16 | PushhU32 | PushhU64 | PophU8 | PophU16 | PophU32 | PophU64 => {
                    1 + rng.below(4)
                }
                _ => rng.below(5),
            },
            Operand::Word => word(rng),
            Operand::Reg => loop {
                let reg = rng.pick(Reg::ALL);
                let reg = if rng.one_in(2) {
                    Reg::ALL[rng.below(48) as usize]
                } else {
                    reg
                };
                let good = match op {
                    PushU => reg.is_saved(),
                    PopU | PopR => reg.is_writable(),
                    _ => true,
                };
                if good {
                    break u64::from(reg.number());
                }
            },
            Operand::Local => index(rng, self.locals)?,
            Operand::Global => index(rng, self.globals)?,
            Operand::Map => index(rng, self.maps.len() as u16)?,
            Operand::Group => u64::from(self.group),
            Operand::Facility => rng.pick(&[1, 2, 3, 4, 16, 255]),
            Operand::S16 => match op {
                PushTsp | PopTsp | CopyTsp if !self.ring => rng.below(depth.clamp(1, 8) as u64),
                _ if rng.one_in(20) => rng.next() & 0xffff,
                _ => rng.below(8).wrapping_sub(3) & 0xffff,
            },
        })
    }
}

/// Instructions, with operands; those of branches come later.
struct Steps {
    steps: Vec<(Op, u64)>,
    depth: i64,
}

impl Steps {
    fn push(&mut self, word: u64) {
        self.steps.push((Op::Push, word));
        self.depth += 1;
    }
}

/// Uses up most of the budget.
fn burn(rng: &mut Rng, to: &mut Steps, branches: &mut Vec<(usize, usize)>) {
    let from = to.steps.len();
    to.push(487);
    to.steps
        .extend([(Op::Push, 16_384), (Op::Malloc, 0), (Op::Free, 0), (Op::Loop, 0)]);
    branches.push((from + 4, from + 1));
    to.push(rng.below(600));
    to.push(word(rng));
    to.steps.push((Op::DupS, 0));
    to.depth -= 2;
}

/// Beginnings that bring the machine where chance seldom does.
fn prologue(rng: &mut Rng, to: &mut Steps, branches: &mut Vec<(usize, usize)>) {
    if rng.one_in(3) {
        to.steps.push((Op::Sx, 0));
    }
    match rng.below(64) {
        0..=7 => {
            // Close to a full stack.
            let top = STACK_WORDS as i64 - rng.below(6) as i64;
            to.push(word(rng));
            while to.depth < top {
                let count = (top - to.depth + 1).min(255);
                to.steps.push((Op::Dup, count as u64));
                to.depth += count - 1;
            }
        }
        8..=11 => {
            // A frame.
            for _ in 0..rng.below(4) {
                to.push(word(rng));
            }
            to.steps.extend([(Op::SaveTsp, 0), (Op::RestoreSbp, 0)]);
        }
        12..=17 => {
            // Blocks of the heap.
            for _ in 0..1 + rng.below(3) {
                to.push(rng.below(20));
                to.steps.push((Op::Malloc, 0));
            }
        }
        18 => {
            // More blocks than there can be.
            let many = to.steps.len();
            to.push(66);
            to.steps
                .extend([(Op::Push, 0), (Op::Malloc, 0), (Op::Ros, 1), (Op::Loop, 0)]);
            branches.push((many + 4, many + 1));
        }
        19 => {
            // Little of the budget is left.
            burn(rng, to, branches);
        }
        20 => {
            // A routine that calls itself.
            let from = to.steps.len();
            to.steps
                .extend([(Op::Call, 0), (Op::Jmp, 0), (Op::Call, 0), (Op::Ret, 0)]);
            branches.extend([(from, from + 2), (from + 1, from + 4), (from + 2, from + 2)]);
        }
        21 | 22 => {
            // Variables that are allocated.
            to.steps.extend([(Op::AllocLv, 0), (Op::AllocGv, 0)]);
            to.depth += 2;
        }
        23..=25 => {
            // An element of each record.
            to.push(word(rng));
            to.steps.extend([(Op::Log, 1), (Op::LogSt, 0)]);
            to.depth -= 1;
        }
        26 => {
            // Calls without end, by what is left of the budget.
            burn(rng, to, branches);
            if rng.one_in(2) {
                to.steps.push((Op::Sx, 0));
            }
            let from = to.steps.len();
            let nops = rng.below(4) as usize;
            to.steps.extend([(Op::Call, 0), (Op::Jmp, 0)]);
            to.steps.resize(from + 2 + nops, (Op::Nop, 0));
            to.steps.push((Op::Ret, 0));
            branches.extend([(from, from + 2), (from + 1, from)]);
        }
        _ => {}
    }
    if rng.one_in(8) {
        // Depths nobody knows.
        to.steps.extend([(Op::Push, rng.below(4)), (Op::LogS, 0)]);
    }
}

/// A program that the verifier is likely to accept.
pub fn program(rng: &mut Rng) -> Builder {
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
    let shape = Shape {
        locals: rng.below(4) as u16,
        globals: rng.below(4) as u16,
        maps: (0..rng.below(4))
            .map(|_| (rng.below(6) as u8, rng.below(5) as u8))
            .collect(),
        group: rng.below(3) as u16,
        ring: mask & 0x2000 == 0,
    };
    let mut to = Steps {
        steps: Vec::new(),
        depth: 0,
    };
    let mut branches = Vec::new();
    prologue(rng, &mut to, &mut branches);
    let len = to.steps.len() + 1 + rng.below(40) as usize;
    while to.steps.len() < len {
        let op = rng.pick(Op::ALL);
        let Some(operand) = shape.operand(rng, op, to.depth) else {
            continue;
        };
        let info = op.info();
        let ends = matches!(info.flow, Flow::End | Flow::Return | Flow::Raise | Flow::Jump);
        if ends && !rng.one_in(6) {
            continue;
        }
        let (pops, pushes) = (shape.words(info.pops, operand), shape.words(info.pushes, operand));
        match op {
            // A length that is one, a position that is there.
            Op::PopLp if rng.one_in(2) => to.steps.push((rng.pick(&[Op::PushLp, Op::PushPlp]), 0)),
            Op::PopStp if rng.one_in(2) => to.steps.push((Op::PushStp, 0)),
            Op::RestoreSbp if rng.one_in(2) => to.steps.push((Op::SaveTsp, 0)),
            Op::RestoreTsp if rng.one_in(2) => to.steps.push((Op::SaveSbp, 0)),
            _ => {
                let wanted = if rng.one_in(4) {
                    Vec::new()
                } else {
                    sensible(rng, op, &shape)
                };
                // Words that make sense to it.
                for want in wanted {
                    to.push(want);
                }
                while to.depth < pops && !rng.one_in(200) {
                    to.push(word(rng));
                }
                to.depth = (to.depth - pops + pushes).max(0);
            }
        }
        to.steps.push((op, operand));
    }
    let mut ends = vec![
        (Op::Exit, 0),
        (Op::Abort, 0),
        (Op::Remove, 0),
        (Op::ExitTo, 16),
        (Op::Ret, 0),
    ];
    ends.extend([(Op::Exit, 0), (Op::Jmp, 0)]);
    to.steps.push(rng.pick(&ends));

    let code = encode(rng, &to.steps, &branches);
    let mut builder = Builder::new(code, shape.locals);
    if rng.one_in(4) {
        // Another point with the same handler, and a group of its own.
        let end = builder.code.len() as u32;
        let group = rng.below(3) as u16;
        let point = builder.point(0, end);
        point.group.set(group);
    }
    builder.points[0].group.set(shape.group);
    builder = builder.globals(usize::from(shape.globals));
    for (kind, keys) in shape.maps {
        builder = builder.map(kind, keys, 8);
    }
    let jmpmax = if branches.is_empty() {
        rng.pick(&[0, 1, 5, 20, 100])
    } else {
        rng.pick(&[20, 600, 65_535])
    };
    builder.header.jmpmax.set(jmpmax);
    let heap = rng.pick(&[0, 16, 40, 200, 16_384]);
    builder = builder.heap(if branches.is_empty() { heap } else { 16_384 });
    builder.header.logmax.set(rng.pick(&[0, 3, 11, 20, 40, 100, 1024]));
    builder.header.ex_logmax.set(rng.pick(&[0, 3, 43, 62, 100, 300, 1024]));
    if rng.one_in(3) {
        builder = builder.auto_stack_trace();
    }
    builder.ex_mask(mask)
}

/// The bytes of instructions; a branch goes where `branches` says, or anywhere.
fn encode(rng: &mut Rng, steps: &[(Op, u64)], branches: &[(usize, usize)]) -> Vec<u8> {
    let mut offsets = Vec::new();
    let mut offset = 0;
    for (op, _) in steps {
        offsets.push(offset as i64);
        offset += op.size();
    }
    let mut code = Vec::new();
    for (index, (op, operand)) in steps.iter().enumerate() {
        code.push(op.byte());
        let operand = if op.info().operand == Operand::Branch {
            let given = branches.iter().find(|(from, _)| *from == index);
            let target = match given {
                Some((_, target)) => offsets[*target],
                // Handlers that come back are slow: they run until the budget is used up.
                None if *op == Op::Sx && !rng.one_in(100) => rng.pick(&offsets[(index + 1).min(offsets.len() - 1)..]),
                None => rng.pick(&offsets),
            };
            (target - (code.len() as i64 + 4)) as u64
        } else {
            *operand
        };
        code.extend_from_slice(&operand.to_le_bytes()[..op.info().operand.size()]);
    }
    code
}
