//! Programs with superinstructions and without them: full of sequences that can be fused, and of jumps into the middle of them. (That
//! programs with them do what the language says is tested against the naive interpreter, with all other programs.)

mod rpn;

use std::sync::atomic::{AtomicU64, Ordering};

use dprobes::rpn::Program;
use dprobes::rpn::exception::MAX_JMPS;
use dprobes::rpn::interp::{self, End, Outcome, Variables, Workspace};
use dprobes::rpn::object::Object;
use dprobes::rpn::op::{Op, Operand};
use dprobes::rpn::verify::{verify, verify_unfused};
use rpn::build::Builder;
use rpn::env::Machine;
use rpn::random::Rng;

const LOCALS: u16 = 2;

/// What sequences are made of, and what is between them.
const VOCABULARY: &[Op] = &[
    Op::Push,
    Op::Push,
    Op::Push,
    Op::PushLv,
    Op::PushLv,
    Op::PopLv,
    Op::Xchg,
    Op::Xchg,
    Op::Dup,
    Op::Ros,
    Op::Nop,
    Op::Add,
    Op::Sub,
    Op::Mul,
    Op::And,
    Op::Or,
    Op::Xor,
    Op::Jz,
    Op::Jnz,
    Op::Jlt,
    Op::Jle,
    Op::Jgt,
    Op::Jge,
    Op::Loop,
    Op::MoveLv,
    Op::IncLv,
    Op::Shr,
    Op::Div,
    Op::PushTsp,
    Op::PopTsp,
];

const OPERATIONS: &[Op] = &[Op::Add, Op::Sub, Op::Mul, Op::And, Op::Or, Op::Xor];

fn word(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => rng.next(),
        1 => rng.below(3),
        2 => rng.below(4).wrapping_neg(),
        _ => rng.pick(&[
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            u64::MAX << 31,
            1 << 63,
            0x1_0000_0000,
        ]),
    }
}

fn operand(rng: &mut Rng, op: Op) -> u64 {
    match op.info().operand {
        Operand::Word => word(rng),
        Operand::Local => rng.below(u64::from(LOCALS)),
        Operand::U8 | Operand::S16 => rng.below(4),
        _ => 0,
    }
}

/// A sequence as people write them, sometimes with one instruction changed.
fn idiom(rng: &mut Rng) -> Vec<(Op, u64)> {
    let local = rng.below(u64::from(LOCALS));
    let op = (rng.pick(OPERATIONS), 0);
    let constant = (Op::Push, word(rng));
    let (push_lv, pop_lv, xchg) = ((Op::PushLv, local), (Op::PopLv, local), (Op::Xchg, 0));
    let jump = (rng.pick(&[Op::Jz, Op::Jnz, Op::Jlt, Op::Jle, Op::Jgt, Op::Jge]), 0);
    let (push_tsp, pop_tsp) = ((Op::PushTsp, rng.below(4)), (Op::PopTsp, rng.below(4)));
    let mut steps = match rng.below(12) {
        0 => vec![constant, op],
        1 => vec![constant, (rng.pick(&[Op::Sub, Op::Add, Op::And]), 0), jump],
        2 => vec![push_lv, op],
        3 => vec![xchg, constant, op, xchg],
        4 => vec![push_lv, constant, op, pop_lv],
        5 => vec![push_lv, op, pop_lv],
        6 => vec![(Op::Dup, 2), push_lv, op, pop_lv],
        7 => vec![push_lv, xchg, op, pop_lv],
        8 => vec![push_tsp, op],
        9 => vec![xchg, (Op::PushTsp, 1), op, xchg],
        10 => vec![push_tsp, constant, op, pop_tsp],
        _ => vec![(Op::Dup, 2), push_tsp, op, pop_tsp],
    };
    if rng.one_in(4) {
        let other = rng.pick(VOCABULARY);
        let at = rng.below(steps.len() as u64) as usize;
        steps[at] = (other, operand(rng, other));
    }
    steps
}

fn program(rng: &mut Rng) -> Builder {
    let mut steps = Vec::new();
    for _ in 0..rng.below(8) {
        steps.push((Op::Push, word(rng)));
    }
    if rng.one_in(3) {
        steps.push((Op::Sx, 0));
    }
    for _ in 0..1 + rng.below(12) {
        if rng.one_in(3) {
            let op = rng.pick(VOCABULARY);
            steps.push((op, operand(rng, op)));
        } else {
            steps.extend(idiom(rng));
        }
    }
    steps.extend([(Op::Log, rng.below(6)), (Op::Exit, 0)]);
    Builder::new(encode(rng, &steps), LOCALS)
        .ex_mask(rng.pick(&[0x2fff, 0x2fff, 0x2fff, 0x0fff, 0x2000, 0x2fdf]))
        .jmpmax(rng.pick(&[0, 1, 3, 20, 200]))
}

/// Branches go anywhere.
fn encode(rng: &mut Rng, steps: &[(Op, u64)]) -> Vec<u8> {
    let mut offsets = Vec::new();
    let mut end = 0;
    for (op, _) in steps {
        offsets.push(end as i64);
        end += op.size();
    }
    let mut code = Vec::new();
    for (op, operand) in steps {
        code.push(op.byte());
        let operand = match op.info().operand {
            Operand::Branch => {
                // An exception handler that jumps back runs until the budget is used up: that takes its time.
                let here = offsets.partition_point(|offset| *offset < code.len() as i64);
                let from = if *op == Op::Sx && !rng.one_in(50) { here } else { 0 };
                (rng.pick(&offsets[from..]) - (code.len() as i64 + 4)).cast_unsigned()
            }
            _ => *operand,
        };
        code.extend_from_slice(&operand.to_le_bytes()[..op.info().operand.size()]);
    }
    code
}

/// What a run leaves behind.
fn run(program: &Program, ws: &mut Workspace, values: &[u64]) -> (Outcome, Vec<u8>, Vec<u64>) {
    let locals: Vec<AtomicU64> = values.iter().map(|value| AtomicU64::new(*value)).collect();
    let outcome = interp::run(program, 0, ws, &mut Machine::new(), &Variables::of_locals(&locals));
    let after = locals.iter().map(|local| local.load(Ordering::Relaxed)).collect();
    (outcome, ws.log().to_vec(), after)
}

#[test]
fn fused_programs_do_what_unfused_ones_do() {
    let mut rng = Rng(0x6675_7365);
    let mut ws = Box::new(Workspace::new());
    let (mut verified, mut jumps_exceeded) = (0, 0);
    for _ in 0..200_000 {
        let builder = program(&mut rng);
        let bytes = builder.bytes();
        let object = Object::parse(&bytes).unwrap();
        let (fused, unfused) = match (verify(&object), verify_unfused(&object)) {
            (Ok(fused), Ok(unfused)) => (fused, unfused),
            (fused, unfused) => {
                assert_eq!(fused.err(), unfused.err());
                continue;
            }
        };
        verified += 1;
        let values: Vec<u64> = (0..LOCALS).map(|_| word(&mut rng)).collect();
        let result = run(&fused, &mut ws, &values);
        assert_eq!(result, run(&unfused, &mut ws, &values), "{:02x?}", builder.code);
        jumps_exceeded += u64::from(matches!(
            result.0.end,
            End::Exception { exception, .. } if exception.code == u64::from(MAX_JMPS)
        ));
    }
    assert!(verified > 60_000, "only {verified} programs verify");
    assert!(
        jumps_exceeded > 1_000,
        "only {jumps_exceeded} programs exceed their jumps"
    );
}
