//! The verifier: what it refuses and why, and what it proves.

mod rpn;

use dprobes::rpn::interp::{self, End, Variables, Workspace};
use dprobes::rpn::object::layout;
use dprobes::rpn::op::{Flow, Op, Operand};
use dprobes::rpn::reg::Reg;
use dprobes::rpn::verify::{Fault, VerifyError};
use rpn::build::{Builder, assemble};
use rpn::env::Machine;

fn refused(builder: &Builder) -> VerifyError {
    builder.verify().expect_err("it should be refused")
}

/// The fault of a handler with four local variables, and its offset.
fn fault(code: Vec<u8>) -> (u32, Fault) {
    let error = refused(&Builder::new(code, 4));
    assert_eq!(error.line, None);
    assert!(!error.to_string().is_empty());
    (error.offset, error.fault)
}

fn text_fault(text: &str) -> (u32, Fault) {
    fault(assemble(text))
}

#[test]
fn every_byte_that_is_no_opcode_is_refused() {
    for byte in 0..=0xff {
        if Op::from_byte(byte).is_none() {
            assert_eq!(fault(vec![0x00, byte, 0x0d]), (1, Fault::Opcode { found: byte }));
        }
    }
}

#[test]
fn every_instruction_cut_short_is_refused() {
    for op in Op::ALL.iter().filter(|op| op.info().operand != Operand::None) {
        for left in 0..op.info().operand.size() {
            let mut code = vec![op.byte()];
            code.resize(1 + left, 0);
            let needed = op.info().operand.size();
            assert_eq!(fault(code), (0, Fault::Truncated { op: *op, needed, left }));
        }
    }
}

#[test]
fn every_register_number_is_checked() {
    for number in 0..=u16::MAX {
        for op in [Op::PushR, Op::PopR, Op::PushU, Op::PopU] {
            let mut code = assemble("push 1");
            code.extend([op.byte(), number as u8, (number >> 8) as u8, Op::Exit.byte()]);
            let verified = Builder::new(code, 0).verify();
            match Reg::from_number(number) {
                None => assert_eq!(verified.unwrap_err().fault, Fault::Register { found: number }),
                Some(reg) if matches!(op, Op::PopR | Op::PopU) && !reg.is_writable() => {
                    assert_eq!(verified.unwrap_err().fault, Fault::ReadOnly { reg });
                }
                Some(reg) if op == Op::PushU && !reg.is_saved() => {
                    assert_eq!(verified.unwrap_err().fault, Fault::NotUser { reg });
                }
                Some(_) => assert!(verified.is_ok()),
            }
        }
    }
}

#[test]
fn operands_out_of_range_are_refused() {
    let operand = |op, found, min, max| Fault::Operand { op, found, min, max };
    assert_eq!(text_fault("push 1; shl 64; exit").1, operand(Op::Shl, 64, 0, 63));
    assert_eq!(text_fault("push 1; shr 255; exit").1, operand(Op::Shr, 255, 0, 63));
    assert_eq!(text_fault("push 1; rol 64; exit").1, operand(Op::Rol, 64, 0, 63));
    assert_eq!(text_fault("push 1; ror 64; exit").1, operand(Op::Ror, 64, 0, 63));
    for (text, op) in [("pbl", Op::Pbl), ("pbr", Op::Pbr), ("pzl", Op::Pzl), ("pzr", Op::Pzr)] {
        assert_eq!(text_fault(&format!("push 1; {text} 0; exit")).1, operand(op, 0, 1, 64));
        assert_eq!(
            text_fault(&format!("push 1; {text} 65; exit")).1,
            operand(op, 65, 1, 64)
        );
    }
    assert_eq!(text_fault("setmaj 0; exit").1, operand(Op::SetMaj, 0, 1, 65_535));
    assert_eq!(text_fault("log 1025; exit").1, operand(Op::Log, 1025, 0, 1024));
    for op in [
        "push lv, 4",
        "push 1; pop lv, 4",
        "push 1; move lv, 4",
        "inc lv, 4",
        "dec lv, 4",
    ] {
        assert_eq!(
            text_fault(&format!("{op}; exit")).1,
            Fault::Local { found: 4, count: 4 }
        );
        assert!(Builder::text(&format!("{op}; exit"), 5).verify().is_ok());
    }
    let error = refused(&Builder::text("inc lv, 0; exit", 0));
    assert_eq!(error.fault, Fault::Local { found: 0, count: 0 });
}

#[test]
fn jumps_stay_in_the_handler_and_meet_instructions() {
    for op in Op::ALL
        .iter()
        .copied()
        .filter(|op| op.info().operand == Operand::Branch)
    {
        // push, the branch, exit: 9 + 5 + 1 bytes
        let code = |distance: i32| {
            let mut code = assemble("push 1");
            code.push(op.byte());
            code.extend(distance.to_le_bytes());
            code.push(Op::Exit.byte());
            code
        };
        let good = |distance| Builder::new(code(distance), 0).verify().is_ok();
        assert!(good(0) && good(-5) && good(-14), "{op}");
        for inside in [-13, -6, -4, -1] {
            let target = (14 + inside) as u32;
            assert_eq!(fault(code(inside)), (9, Fault::TargetInside { op, target }));
        }
        for outside in [1, 2, i32::MAX, -15, i32::MIN] {
            let target = 14 + i64::from(outside);
            assert_eq!(fault(code(outside)), (9, Fault::TargetOutside { op, target }));
        }
    }
}

#[test]
fn jumps_into_another_handler_are_refused() {
    let mut builder = Builder::text("jmp b; b: exit", 0);
    builder.points[0].code_end.set(5);
    builder.point(5, 6);
    assert_eq!(refused(&builder).fault, Fault::TargetOutside { op: Op::Jmp, target: 5 });
}

#[test]
fn a_handler_ends_with_an_end() {
    for op in Op::ALL.iter().copied() {
        let mut code = assemble("push 1; push 1; push 1; push 1");
        if matches!(op, Op::PushSbp | Op::PopSbp | Op::CopySbp) {
            code = assemble("push 1; push 1; push 1; push 3; restore sbp; push 1");
        }
        let at = code.len() as u32;
        code.push(op.byte());
        // Branches go to themselves; other operands are 1.
        match op.info().operand {
            Operand::Branch => code.extend((-5_i32).to_le_bytes()),
            Operand::Reg => code.extend(Reg::Rax.number().to_le_bytes()),
            operand => code.extend(&1_u64.to_le_bytes()[..operand.size()]),
        }
        let builder = Builder::new(code, 2).globals(2).map(0, 0, 1).map(0, 0, 1).group(1);
        let verified = builder.verify();
        let ends = matches!(op.info().flow, Flow::Jump | Flow::Return | Flow::Raise | Flow::End);
        match verified {
            Ok(_) => assert!(ends, "{op}"),
            Err(error) => assert_eq!((error.offset, error.fault), (at, Fault::NoEnd { op }), "{op}"),
        }
    }
}

#[test]
fn what_must_underflow_or_overflow_is_refused() {
    let underflow = |op, needed, depth| Fault::Underflow { op, needed, depth };
    assert_eq!(text_fault("add; exit"), (0, underflow(Op::Add, 2, 0)));
    assert_eq!(text_fault("push 1; add; exit"), (9, underflow(Op::Add, 2, 1)));
    assert_eq!(text_fault("push 1; log 2; exit"), (9, underflow(Op::Log, 2, 1)));
    assert_eq!(text_fault("jz a; a: exit"), (0, underflow(Op::Jz, 1, 0)));
    // On both of two paths there is too little.
    assert_eq!(
        text_fault("push 1; jz a; push 2; a: log 3; exit"),
        (23, underflow(Op::Log, 3, 2))
    );
    let full = "push 1; dup 255; dup 255; dup 255; dup 255; dup 8";
    assert!(Builder::text(&format!("{full}; log 1024; exit"), 0).verify().is_ok());
    assert_eq!(
        text_fault(&format!("{full}; push 1; exit")).1,
        Fault::Overflow {
            op: Op::Push,
            needed: 1,
            room: 0
        }
    );
    assert_eq!(
        text_fault(&format!("{full}; dup 2; exit")).1,
        Fault::Overflow {
            op: Op::Dup,
            needed: 1,
            room: 0
        }
    );
    // Where the stack is a ring, this is how it is used.
    assert!(Builder::text("add; exit", 0).ex_mask(0x0fff).verify().is_ok());
}

#[test]
fn code_that_control_never_reaches_is_still_checked() {
    assert_eq!(
        fault([assemble("exit"), vec![0xff]].concat()),
        (1, Fault::Opcode { found: 0xff })
    );
    assert_eq!(
        text_fault("exit; inc lv, 9; exit").1,
        Fault::Local { found: 9, count: 4 }
    );
    // But its stack is nobody's.
    assert!(Builder::text("exit; add; exit", 0).verify().is_ok());
}

#[test]
fn handlers_are_the_same_or_apart_and_all_of_the_code() {
    let base = || Builder::text("nop; nop; exit; nop; exit", 0);
    let with = |points: &[(u32, u32)]| {
        let mut builder = base();
        builder.points.clear();
        for (start, end) in points {
            builder.point(*start, *end);
        }
        builder
    };
    assert!(with(&[(0, 3), (3, 5)]).verify().is_ok());
    assert!(with(&[(3, 5), (0, 3), (3, 5), (0, 3)]).verify().is_ok());
    let error = refused(&with(&[(0, 3), (1, 3), (3, 5)]));
    assert_eq!(
        (error.point, error.offset, error.fault),
        (1, 1, Fault::Overlap { other: 0 })
    );
    let error = refused(&with(&[(0, 5), (0, 3)]));
    assert_eq!((error.offset, error.fault), (0, Fault::Overlap { other: 1 }));
    assert_eq!(refused(&with(&[(0, 3)])).fault, Fault::Unused);
    assert_eq!(refused(&with(&[(1, 3), (3, 5)])).fault, Fault::Unused);
    let mut gap = with(&[(0, 3), (4, 5)]);
    assert_eq!((refused(&gap).offset, refused(&gap).fault), (3, Fault::Unused));
    gap.code.push(0x0d);
    assert_eq!(refused(&gap).offset, 3);
}

#[test]
fn an_error_names_the_line_when_the_object_has_lines() {
    let mut builder = Builder::text("nop; exit; nop; add; exit", 0);
    builder.points[0].code_end.set(2);
    builder.point(2, 5);
    for (offset, line) in [(0, 4), (1, 5), (2, 10), (3, 11), (4, 12)] {
        builder.lines.push(layout::Line {
            offset: offset.into(),
            line: line.into(),
        });
    }
    let error = refused(&builder);
    assert_eq!((error.point, error.offset, error.line), (1, 3, Some(11)));
    assert_eq!(
        error.to_string(),
        "point 1, line 11: `add` takes 2 words from the stack, where there are never more than 0"
    );
}

#[test]
fn points_that_share_a_handler_keep_their_own_masks() {
    let mut builder = Builder::text("sx h; push 1; rx; h: abort", 0);
    builder.code = assemble("push 0; push mem, u8; exit");
    let end = builder.code.len() as u32;
    builder.points.clear();
    builder.point(0, end);
    builder.point(0, end).ex_mask.set(0);
    builder.point(0, end).ex_mask.set(0x2fff);
    let program = builder.verify().unwrap();
    assert_eq!(program.points(), 3);
    let mut ws = Box::new(Workspace::new());
    for point in 0..3 {
        let outcome = interp::run(&program, point, &mut ws, &mut Machine::new(), &Variables::default());
        assert!(matches!(outcome.end, End::Exception { offset: 9, .. }));
    }
    // A point that is not there does nothing.
    assert_eq!(
        interp::run(&program, 3, &mut ws, &mut Machine::new(), &Variables::default()).end,
        End::Abort
    );
}

/// The greatest program there can be takes neither long nor deep recursion.
#[test]
fn large_programs_verify() {
    // 2,000 points share 16 handlers of 65,535 instructions each, full of jumps.
    let mut builder = Builder::new(Vec::new(), 0);
    builder.points.clear();
    let mut handler = Vec::new();
    while handler.len() + 6 <= 65_534 {
        handler.extend(assemble("push 1"));
        handler.extend(assemble("ros 1"));
        handler.push(Op::Jmp.byte());
        handler.extend(0_i32.to_le_bytes());
        if handler.len() > 65_000 {
            break;
        }
    }
    handler.resize(65_534, Op::Nop.byte());
    handler.push(Op::Exit.byte());
    for _ in 0..16 {
        builder.code.extend(&handler);
    }
    for i in 0..2000 {
        let start = i % 16 * 65_535;
        builder.point(start, start + 65_535);
    }
    let program = builder.verify().unwrap();
    let outcome = interp::run(
        &program,
        1999,
        &mut Workspace::new(),
        &mut Machine::new(),
        &Variables::default(),
    );
    assert_eq!(outcome.end, End::Exit);
}

#[test]
fn new_operands_out_of_range_are_refused() {
    let operand = |op, found, min, max| Fault::Operand { op, found, min, max };
    for number in 0..=255 {
        let good = matches!(number, 1..=5 | 16..=255);
        let verified = Builder::new(vec![Op::ExitTo.byte(), number], 0).verify();
        match verified {
            Ok(_) => assert!(good),
            Err(error) => assert_eq!((good, error.fault), (false, Fault::Facility { found: number })),
        }
    }
    for text in [
        "push gv, 2",
        "push 1; pop gv, 2",
        "push 1; move gv, 2",
        "inc gv, 2",
        "dec gv, 2",
    ] {
        let builder = Builder::text(&format!("{text}; exit"), 0);
        let fault = refused(&builder.clone().globals(2)).fault;
        assert_eq!(fault, Fault::Global { found: 2, count: 2 });
        assert_eq!(refused(&builder).fault, Fault::Global { found: 2, count: 0 });
        assert!(builder.globals(3).verify().is_ok());
    }
    let agg = Builder::text("push 1; agg 1; exit", 0);
    assert_eq!(refused(&agg).fault, Fault::Map { found: 1, count: 0 });
    let agg = agg.map(0, 0, 1);
    assert_eq!(refused(&agg).fault, Fault::Map { found: 1, count: 1 });
    assert!(agg.map(0, 0, 1).verify().is_ok());
    // A map takes its keys, and a value unless it counts.
    for (kind, keys, takes) in [(0, 0, 0), (0, 4, 4), (1, 0, 1), (5, 3, 4), (4, 4, 5)] {
        let text = |pushed: u16| format!("{}agg 0; exit", "push 1; ".repeat(pushed.into()));
        assert!(Builder::text(&text(takes), 0).map(kind, keys, 1).verify().is_ok());
        if let Some(fewer) = takes.checked_sub(1) {
            let fault = refused(&Builder::text(&text(fewer), 0).map(kind, keys, 1)).fault;
            let op = Op::Agg;
            assert_eq!(
                fault,
                Fault::Underflow {
                    op,
                    needed: takes,
                    depth: fewer
                }
            );
        }
    }
    for (text, op) in [("pushh u8", Op::PushhU8), ("poph u64", Op::PophU64)] {
        for count in [0, 1025] {
            let fault = text_fault(&format!("push 1; push 1; {text}, {count}; exit")).1;
            assert_eq!(fault, operand(op, count, 1, 1024));
        }
    }
    let underflow = |op, needed, depth| Fault::Underflow { op, needed, depth };
    assert_eq!(
        text_fault("push 1; push 1; poph u8, 1; exit").1,
        underflow(Op::PophU8, 3, 2)
    );
    assert!(
        Builder::text("push 1; push 1; pushh u8, 1024; exit", 0)
            .verify()
            .is_ok()
    );
    let fault = text_fault("push 1; push 1; push 1; pushh u8, 1024; exit").1;
    let op = Op::PushhU8;
    assert_eq!(
        fault,
        Fault::Overflow {
            op,
            needed: 1022,
            room: 1021
        }
    );
    // A register has as many words as it has.
    let fault = text_fault("push r, zmm0; push r, xmm0; push r, gdtr; push r, rax; log 14; exit").1;
    assert_eq!(fault, underflow(Op::Log, 14, 13));
}

#[test]
fn groups_are_those_of_the_points_and_agree() {
    let builder = |number| Builder::text(&format!("suspend {number}; resume {number}; exit"), 0).group(7);
    assert_eq!(refused(&builder(6)).fault, Fault::Group { found: 6 });
    let mut builder = builder(7);
    let end = builder.code.len() as u32;
    for (group, flags) in [(9, 0), (3, layout::SUSPENDED), (7, 0), (3, layout::SUSPENDED)] {
        let point = builder.point(0, end);
        point.group.set(group);
        point.flags.set(flags);
    }
    let program = builder.verify().unwrap();
    let groups: Vec<_> = program
        .groups()
        .iter()
        .map(|group| (group.number, group.suspended))
        .collect();
    assert_eq!(groups, [(3, true), (7, false), (9, false)]);
    let of_points: Vec<_> = (0..6).map(|point| program.group_of(point)).collect();
    assert_eq!(of_points, [Some(1), Some(2), Some(0), Some(1), Some(0), None]);
    let mut machine = Machine::new();
    interp::run(&program, 4, &mut Workspace::new(), &mut machine, &Variables::default());
    assert_eq!(machine.suspended, [(1, true), (1, false)]);
    builder.points[3].flags.set(layout::SUSPENDED);
    let error = refused(&builder);
    assert_eq!((error.point, error.fault), (3, Fault::GroupDisagrees { group: 7 }));
}

/// Which positions are proven, which are looked at while the program runs, and which are refused.
#[test]
fn positions_are_proven_where_they_can_be() {
    // A program in which nothing is looked at is as long as its text.
    let checks = |text: &str| {
        let builder = Builder::text(text, 1);
        let program = builder.verify().unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut instructions = 0;
        let mut rest = builder.code.as_slice();
        while let [byte, ..] = rest {
            rest = &rest[Op::from_byte(*byte).unwrap().size()..];
            instructions += 1;
        }
        program.instructions() - instructions
    };
    for proven in [
        "push 7; push tsp, 0; exit",
        "push 7; push 8; push tsp, 1; pop tsp, 1; copy tsp, 0; exit",
        "push 7; push 8; push sbp, -1; push sbp, -2; push sbp, -3; exit",
        "push 7; push 8; copy sbp, -1; pop sbp, -1; exit",
        "push 7; push 1; restore sbp; push sbp, 0; push 5; push sbp, -1; exit",
        // Frames, whatever the depth outside.
        "push 7; push lv, 0; jz a; push 8; a: save sbp; save tsp; restore sbp; push 1; push 2; push sbp, -1; pop sbp, -2; \
            push sbp, 0; push sbp, 1; exit",
        // A frame left with one entered again.
        "push 1; save sbp; save tsp; restore sbp; push 5; push 6; save sbp; restore tsp; restore sbp; log 1; exit",
        // A loop does not lose what it does not touch.
        "push 7; push 9; l: push sbp, -1; ros 1; loop l; exit",
        // A routine gets what holds at all of its calls.
        "push 7; jz a; call g; exit; a: call f; exit; f: push sbp, -1; ros 1; call g; ret; g: push sbp, -1; ros 1; ret",
    ] {
        assert_eq!(checks(proven), 0, "{proven}");
    }
    for (looked_at, count) in [
        ("push 7; push lv, 0; restore sbp; push sbp, -1; exit", 1),
        ("push 7; push 8; push lv, 0; jz a; ros 2; a: push sbp, -2; exit", 1),
        ("call f; push sbp, -1; exit; f: push 7; ret", 2),
        // SBP is restored by a branch into the middle of what looks like the beginning of a frame.
        (
            "push 1; push lv, 0; jz b; save tsp; b: restore sbp; push sbp, 0; exit",
            1,
        ),
        // In a handler anything may be.
        (
            "sx h; push 1; restore sbp; push 0; push mem, u8; exit; h: push sbp, 0; exit",
            2,
        ),
    ] {
        assert_eq!(checks(looked_at), count, "{looked_at}");
    }
    let position = |op, position| Fault::Position { op, position };
    assert_eq!(text_fault("push 7; push tsp, -1; exit"), (9, position(Op::PushTsp, -1)));
    assert_eq!(
        text_fault("push 7; pop tsp, -32768; exit").1,
        position(Op::PopTsp, -32768)
    );
    assert_eq!(text_fault("push 7; copy tsp, -1; exit").1, position(Op::CopyTsp, -1));
    assert_eq!(text_fault("push 7; push sbp, 0; exit").1, position(Op::PushSbp, 0));
    assert_eq!(text_fault("push 7; push sbp, -2; exit").1, position(Op::PushSbp, -2));
    assert_eq!(text_fault("push 7; copy sbp, -1; exit").1, position(Op::CopySbp, -1));
    assert_eq!(
        text_fault("push 7; push 8; pop sbp, -2; exit").1,
        position(Op::PopSbp, -2)
    );
    let needed = |op, needed, depth| Fault::Underflow { op, needed, depth };
    assert_eq!(text_fault("push 7; push tsp, 1; exit").1, needed(Op::PushTsp, 2, 1));
    assert_eq!(text_fault("push 7; copy tsp, 0; exit").1, needed(Op::CopyTsp, 2, 1));
    assert_eq!(
        text_fault("push 7; pop tsp, 32767; exit").1,
        needed(Op::PopTsp, 32_769, 1)
    );
    // In a ring every position is somewhere.
    for text in [
        "push 7; push tsp, -1; exit",
        "push 7; push sbp, 0; exit",
        "copy tsp, 32767; exit",
    ] {
        assert!(Builder::text(text, 0).ex_mask(0x0fff).verify().is_ok());
    }
}
