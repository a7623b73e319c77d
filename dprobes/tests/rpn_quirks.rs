//! Hazards of the original that must not come back; the numbers are those of its description.

mod rpn;

use std::sync::atomic::{AtomicU64, Ordering};

use dprobes::record::element::{Element, Elements};
use dprobes::rpn::exception;
use dprobes::rpn::interp::{End, Outcome, Variables, Workspace, run};
use dprobes::rpn::limits::INSTRUCTION_BUDGET;
use dprobes::rpn::verify::Fault;
use rpn::build::Builder;
use rpn::env::{Hostile, Machine};
use rpn::random::Rng;

fn run_in(ws: &mut Workspace, builder: &Builder, locals: &[AtomicU64]) -> Outcome {
    let program = builder.verify().unwrap();
    let mut machine = Machine::new().with(0x1000, b"a long string, longer than the log\0");
    run(&program, 0, ws, &mut machine, &Variables::of_locals(locals))
}

fn words(ws: &Workspace) -> Vec<u64> {
    let words = Elements::new(ws.log()).map(|element| match element.unwrap() {
        Element::Words(words) => words.iter().collect::<Vec<_>>(),
        other => panic!("words, not {other:?}"),
    });
    words.flatten().collect()
}

fn raised(outcome: &Outcome) -> (u64, u64, u64) {
    match outcome.end {
        End::Exception { exception: e, .. } => (e.code, e.parm1, e.parm2),
        other => panic!("an exception, not {other:?}"),
    }
}

/// Q1: logmax could become more than the buffer has.
#[test]
fn q1_the_log_never_exceeds_its_limit() {
    let mut ws = Box::new(Workspace::new());
    for logmax in [0, 1, 2, 3, 10, 11, 500, 1023, 1024] {
        let fill = "l: sx l; push -1; push 0x1000; log str; push 7; log 1; push 100; push 0x1000; log mrf; jmp l";
        let builder = Builder::text(fill, 0).logmax(logmax).jmpmax(1000);
        let program = builder.verify().unwrap();
        let mut env = Hostile {
            rng: Rng(u64::from(logmax)),
            asked: 0,
        };
        let outcome = run(&program, 0, &mut ws, &mut env, &Variables::default());
        assert!(ws.log().len() <= usize::from(logmax));
        assert!(Elements::new(ws.log()).all(|element| element.is_ok()));
        assert!(outcome.log_overflow);
    }
}

/// Q3: the first pop or conditional jump read behind the stack.
#[test]
fn q3_the_empty_stack_is_empty() {
    let mut ws = Box::new(Workspace::new());
    assert!(matches!(
        Builder::text("log 1; exit", 0).verify().unwrap_err().fault,
        Fault::Underflow { depth: 0, .. }
    ));
    assert!(matches!(
        Builder::text("jz a; a: exit", 0).verify().unwrap_err().fault,
        Fault::Underflow { depth: 0, .. }
    ));
    let ring = Builder::text("jnz a; log 1; exit; a: abort", 0).ex_mask(0);
    assert_eq!(run_in(&mut ws, &ring, &[]).end, End::Exit);
    assert_eq!(words(&ws), [0]);
}

/// Q4: exception code, handler and stack leaked from one hit to the next.
#[test]
fn q4_nothing_leaks_from_one_hit_to_the_next() {
    let mut ws = Box::new(Workspace::new());
    let dirty = Builder::text(
        "push 7; dup 255; dup 255; sx h; call f; exit; h: abort; f: sx h; call g; ret; g: push 9; push 8; push 0x8000; rx",
        0,
    );
    for _ in 0..3 {
        run_in(&mut ws, &dirty, &[]);
        let last = run_in(&mut ws, &Builder::text("push x; log 3; exit", 0), &[]);
        assert_eq!((last.end, words(&ws)), (End::Exit, vec![0; 3]));

        run_in(&mut ws, &dirty, &[]);
        let handler = run_in(&mut ws, &Builder::text("push 0; push mem, u8; exit", 0), &[]);
        assert_eq!(raised(&handler), (1, 0, 0));

        run_in(&mut ws, &dirty, &[]);
        let ret = run_in(&mut ws, &Builder::text("call f; push 1; log 1; exit; f: ret", 0), &[]);
        assert_eq!((ret.end, words(&ws)), (End::Exit, vec![1]));

        run_in(&mut ws, &dirty, &[]);
        let stack = run_in(&mut ws, &Builder::text("log 64; exit", 0).ex_mask(0), &[]);
        assert_eq!((stack.end, words(&ws)), (End::Exit, vec![0; 64]));

        run_in(&mut ws, &dirty, &[]);
        let log = run_in(&mut ws, &Builder::text("exit", 0), &[]);
        assert_eq!(
            (log.log_len, log.major, log.minor, log.log_overflow, ws.log()),
            (0, None, None, false, &[][..])
        );
    }
}

/// Q5: the most negative number divided by -1 faulted.
#[test]
fn q5_division_never_faults() {
    let mut ws = Box::new(Workspace::new());
    let outcome = run_in(
        &mut ws,
        &Builder::text("push 0x8000000000000000; push -1; idiv; exit", 0),
        &[],
    );
    assert_eq!(raised(&outcome), (u64::from(exception::DIV_BY_ZERO), 0, 0));
}

/// Q7: a word of 64 bits was moved as 16 bytes.
#[test]
fn q7_a_word_of_memory_is_one_word() {
    let mut ws = Box::new(Workspace::new());
    let text = "push 5; push 0x1000; push mem, u64; log 1; log 1; push 0x1000; push 1; pop mem, u64; exit";
    assert_eq!(run_in(&mut ws, &Builder::text(text, 0), &[]).end, End::Exit);
    assert_eq!(words(&ws), [u64::from_le_bytes(*b"a long s"), 5]);
}

/// Q8: the index of a local variable could be their number.
#[test]
fn q8_the_last_local_variable_is_the_last() {
    let mut ws = Box::new(Workspace::new());
    let locals = [AtomicU64::new(0), AtomicU64::new(0)];
    assert_eq!(
        run_in(&mut ws, &Builder::text("push 1; inc lv; inc lv, 1; exit", 2), &locals).end,
        End::Exit
    );
    assert_eq!(locals[1].load(Ordering::Relaxed), 2);
    assert_eq!(
        raised(&run_in(&mut ws, &Builder::text("push 2; inc lv; exit", 2), &locals)),
        (0x40, 1, 2)
    );
    assert_eq!(
        raised(&run_in(&mut ws, &Builder::text("push 0; inc lv; exit", 0), &[])),
        (0x40, 1, 0)
    );
    let error = Builder::text("inc lv, 2; exit", 2).verify().unwrap_err();
    assert_eq!(error.fault, Fault::Local { found: 2, count: 2 });
    // Fewer variables than the program was verified with is the host's mistake, but not a reason to fall.
    assert_eq!(
        raised(&run_in(&mut ws, &Builder::text("inc lv, 1; exit", 2), &locals[..1])),
        (0x40, 1, 1)
    );
}

/// Q9: strings and memory were cut silently, and a string could exceed the limit by three bytes.
#[test]
fn q9_truncation_is_reported_and_exact() {
    let mut ws = Box::new(Workspace::new());
    for text in [
        "push 30; push 0x1000; log str; exit",
        "push 30; push 0x1000; log mrf; exit",
    ] {
        for logmax in 0..40 {
            let outcome = run_in(&mut ws, &Builder::text(text, 0).logmax(logmax), &[]);
            assert_eq!(outcome.end, End::Exit);
            assert_eq!(outcome.log_overflow, logmax < 33);
            let expected = if logmax < 3 { 0 } else { usize::from(logmax).min(33) };
            assert_eq!(ws.log().len(), expected);
            let outcome = run_in(&mut ws, &Builder::text(text, 0).logmax(logmax).ex_mask(0x3fff), &[]);
            if logmax < 33 {
                assert_eq!(
                    raised(&outcome),
                    (u64::from(exception::LOG_OVERFLOW), u64::from(logmax), 0)
                );
            } else {
                assert_eq!(outcome.end, End::Exit);
            }
        }
    }
}

/// Q14: the count of a fault record did not match its payload.
#[test]
fn q14_a_fault_element_has_the_length_it_says() {
    let mut ws = Box::new(Workspace::new());
    run_in(
        &mut ws,
        &Builder::text("push 1; push 0x123456789a; log str; exit", 0),
        &[],
    );
    assert_eq!(ws.log(), [0xff, 8, 0, 0x9a, 0x78, 0x56, 0x34, 0x12, 0, 0, 0]);
    assert!(Elements::new(ws.log()).eq([Ok(Element::Fault(0x12_3456_789a))]));
}

/// Q15: `dup n` made n copies, `dup` one more.
#[test]
fn q15_both_forms_of_dup_make_as_many_copies() {
    let mut ws = Box::new(Workspace::new());
    for n in 0..5 {
        let outcome = |text: String, ws: &mut Workspace| {
            assert_eq!(run_in(ws, &Builder::text(&text, 0), &[]).end, End::Exit);
            words(ws)
        };
        let mut expected = vec![7; n];
        expected.push(1);
        let rest = n + 1;
        assert_eq!(
            outcome(format!("push 1; push 7; dup {n}; log {rest}; exit"), &mut ws),
            expected
        );
        let operands = format!("push {rest}; pop lv, 0; push 1; push {n}; push 7; dup; push lv, 0; log; exit");
        let program = Builder::text(&operands, 1);
        assert_eq!(run_in(&mut ws, &program, &[AtomicU64::new(0)]).end, End::Exit);
        assert_eq!(words(&ws), expected);
    }
}

/// Jumps were limited, but calls, handlers and long loops were not: a program could keep a CPU for ever.
#[test]
fn every_program_ends() {
    let mut ws = Box::new(Workspace::new());
    let locals = [AtomicU64::new(0)];
    let budget = (u64::from(exception::MAX_JMPS), u64::from(INSTRUCTION_BUDGET), 0);
    let body = "inc lv, 0; ".repeat(1000);
    // A loop that is long rather than frequent.
    let builder = Builder::text(&format!("l: {body} jmp l"), 1);
    assert_eq!(raised(&run_in(&mut ws, &builder, &locals)), budget);
    let executed = locals[0].swap(0, Ordering::Relaxed);
    assert!((990_000..=1_001_000).contains(&executed), "{executed}");
    // Its handler gets a little more, once.
    let builder = Builder::text(&format!("sx h; l: {body} jmp l; h: sx h; jmp l"), 1);
    assert_eq!(raised(&run_in(&mut ws, &builder, &locals)), budget);
    let executed = locals[0].swap(0, Ordering::Relaxed);
    assert!((1_000_000..=1_012_000).contains(&executed), "{executed}");
    // Handlers that raise.
    let builder = Builder::text("h: sx h; push 0; push mem, u8; exit", 0);
    assert_eq!(raised(&run_in(&mut ws, &builder, &locals)), budget);
    let builder = Builder::text("sx h; push 3; push 2; push 1; h: sx h; rx", 0);
    assert_eq!(raised(&run_in(&mut ws, &builder, &locals)), budget);
    // Calls that call, 2 to the power of 32 times.
    let mut text = String::from("call f0; exit; ");
    for i in 0..31 {
        text += &format!("f{i}: call f{}; call f{}; ret; ", i + 1, i + 1);
    }
    text += "f31: inc lv, 0; ret";
    assert_eq!(raised(&run_in(&mut ws, &Builder::text(&text, 1), &locals)), budget);
    // Memory and copies cost more than other instructions.
    let builder = Builder::text("l: push 0x1000; push mem, u8; ros 1; inc lv, 0; jmp l", 1);
    locals[0].store(0, Ordering::Relaxed);
    let outcome = run_in(&mut ws, &builder, &locals);
    assert_eq!(raised(&outcome), (u64::from(exception::MAX_JMPS), 65_535, 0));
    let builder = Builder::text("l: push 1; dup 255; ros 255; inc lv, 0; jmp l", 1);
    locals[0].store(0, Ordering::Relaxed);
    assert_eq!(raised(&run_in(&mut ws, &builder, &locals)), budget);
    assert!(locals[0].load(Ordering::Relaxed) < 4000);
}

/// Local variables are shared by all CPUs: increments are not lost.
#[test]
fn increments_are_atomic() {
    let program = Builder::text("inc lv, 0; push 1; inc lv; dec lv, 2; push 2; dec lv; exit", 3)
        .verify()
        .unwrap();
    let locals: Vec<AtomicU64> = (0..3).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut ws = Box::new(Workspace::new());
                for _ in 0..100_000 {
                    run(
                        &program,
                        0,
                        &mut ws,
                        &mut Machine::new(),
                        &Variables::of_locals(&locals),
                    );
                }
            });
        }
    });
    let values: Vec<u64> = locals.iter().map(|local| local.load(Ordering::Relaxed)).collect();
    assert_eq!(values, [200_000, 200_000, 0_u64.wrapping_sub(400_000)]);
}
